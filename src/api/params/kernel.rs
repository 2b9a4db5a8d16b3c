//! `kernel`: sysctl, modules, command line, boot menu, initramfs. The kernel package itself is in `software`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::scalar::Scalar;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kernel {
    /// `/etc/sysctl.d/99-imagebuilder.conf`, one line a key.
    pub sysctl: BTreeMap<String, Scalar>,
    /// By module name.
    pub modules: BTreeMap<String, Module>,
    /// In order; duplicates are kept (two `console=`, pairs of `hugepagesz=`/`hugepages=`).
    pub command_line: Vec<Argument>,
    /// The boot menu.
    pub grub: Grub,
    /// The initial RAM file system.
    pub initramfs: Initramfs,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Module {
    /// Load at boot (`/etc/modules-load.d/99-<name>.conf`). Default: yes, unless blacklisted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<bool>,
    /// Keep from being loaded by alias (`/etc/modprobe.d`).
    pub blacklist: bool,
    /// `options <module> key=value` in `/etc/modprobe.d`.
    pub options: BTreeMap<String, Scalar>,
}

/// `name=value`, or `name` alone when there is no value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Argument {
    /// The word before `=`.
    pub name: String,
    /// The word behind `=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Scalar>,
}

/// Upstream's `grub` variables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grub {
    /// Seconds the menu is shown.
    #[serde(rename = "GRUB_TIMEOUT")]
    pub timeout: u32,
    /// Arguments of GRUB's `serial` command. `{}` turns the serial console of the menu off.
    #[serde(rename = "GRUB_SERIAL_COMMAND")]
    pub serial_command: BTreeMap<String, Scalar>,
}

impl Default for Grub {
    fn default() -> Self {
        let serial = [("speed", "115200"), ("unit", "0"), ("word", "8"), ("parity", "no"), ("stop", "1")];
        let serial_command = serial.map(|(key, value)| (key.to_owned(), Scalar::from(value))).into();
        Grub { timeout: 5, serial_command }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Initramfs {
    /// `MODULES=` of initramfs.conf(5).
    pub modules: InitramfsModules,
    /// `COMPRESS=` of initramfs.conf(5): `zstd`, `gzip`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress: Option<String>,
    /// `COMPRESSLEVEL=` of initramfs.conf(5): a level of that program, where the release's initramfs-tools know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress_level: Option<u8>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InitramfsModules {
    #[default]
    Most,
    Dep,
    Netboot,
    List,
}
