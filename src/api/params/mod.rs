//! The areas of a node's definition: one file an area, each a field of [`Params`].
//!
//! Every area is optional in a document and has a complete default, so consumers never meet an absent area.
//! Areas named in the design that have issues of their own (`certificates`, `scripts`, `tests`) come with them.

pub mod cloud_init;
pub mod distribution;
pub mod drivers;
pub mod files;
pub mod kernel;
pub mod kubernetes;
pub mod limits;
pub mod networking;
pub mod software;
pub mod storage;
pub mod systemd;
pub mod users;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cloud_init::CloudInit;
pub use distribution::Distribution;
pub use drivers::Drivers;
pub use files::FileEntry;
pub use kernel::Kernel;
pub use kubernetes::Kubernetes;
pub use limits::Limit;
pub use networking::Networking;
pub use software::Software;
pub use storage::Storage;
pub use systemd::Unit;
pub use users::User;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Params {
    /// Which distribution and release, from which repositories.
    pub distribution: Distribution,
    /// Packages.
    pub software: Software,
    /// Kernel settings, modules, command line, boot menu, initramfs.
    pub kernel: Kernel,
    /// Firmware and microcode.
    pub drivers: Drivers,
    /// Names and the renderer.
    pub networking: Networking,
    /// The disk and its partitions.
    pub storage: Storage,
    /// By login name.
    pub users: BTreeMap<String, User>,
    /// By absolute path in the image.
    pub files: BTreeMap<String, FileEntry>,
    /// By unit name with its suffix (`x.service`).
    pub systemd: BTreeMap<String, Unit>,
    /// By any name; becomes `/etc/security/limits.d/99-<name>.conf`.
    pub limits: BTreeMap<String, Limit>,
    /// What makes the node ready to join a cluster.
    pub kubernetes: Kubernetes,
    /// cloud-init: data sources and configuration baked into the image.
    pub cloud_init: CloudInit,
}
