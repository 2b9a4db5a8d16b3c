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

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Params {
    pub distribution: Distribution,
    pub software: Software,
    pub kernel: Kernel,
    pub drivers: Drivers,
    pub networking: Networking,
    pub storage: Storage,
    /// By login name.
    pub users: BTreeMap<String, User>,
    /// By absolute path in the image.
    pub files: BTreeMap<String, FileEntry>,
    /// By unit name with its suffix (`x.service`).
    pub systemd: BTreeMap<String, Unit>,
    /// By any name; becomes `/etc/security/limits.d/99-<name>.conf`.
    pub limits: BTreeMap<String, Limit>,
    pub kubernetes: Kubernetes,
    pub cloud_init: CloudInit,
}
