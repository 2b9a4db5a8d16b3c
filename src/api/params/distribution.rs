//! `distribution`: which distribution and release, from which repositories.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Distribution {
    /// `debian` or `ubuntu`.
    pub name: String,
    /// Code name: `bookworm`, `trixie`, `focal`, `jammy`, `noble`.
    pub release: String,
    /// Debian architecture name; `amd64` is the only one exercised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// A dated snapshot (`20261101T000000Z`) that all repositories are taken from which do not say otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// By a short name that becomes the file name under `/etc/apt/sources.list.d`.
    pub repositories: BTreeMap<String, Repository>,
}

impl Distribution {
    pub fn architecture(&self) -> &str {
        self.architecture.as_deref().unwrap_or("amd64")
    }
}

/// One apt repository (deb822 `sources` words).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Repository {
    /// Base address, `http://deb.debian.org/debian`.
    pub source: String,
    /// Suite or code name, `bookworm-updates`.
    pub suite: String,
    /// `main`, `universe`, ... as a set: the value may be `{}`.
    pub components: BTreeMap<String, Empty>,
    /// A keyring shipped with imagebuilder (`debian-archive`, `ubuntu-archive`), an absolute path, or an armored
    /// OpenPGP public key block.
    pub keyring: String,
    /// Taken as it was at this time (`20261101T000000Z`); `none` when the distribution has a snapshot and this one is
    /// to be taken live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Where its snapshots are, with `{snapshot}` for the time stamp; Debian's and Ubuntu's are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_source: Option<String>,
    /// apt pin priority (apt_preferences(5)); 500 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Whether the image keeps this repository in its own sources (upstream `register_repo_with_rootfs`).
    #[serde(rename = "register_repo_with_rootfs", skip_serializing_if = "Option::is_none")]
    pub register_repo_with_rootfs: Option<bool>,
    /// The address to register in the image, when it differs from `source` (a local mirror at build time).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_source: Option<String>,
}

/// `{}`: a set member without properties.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}
