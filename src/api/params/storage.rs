//! `storage`: the disk and its partitions, in upstream's words.

use serde::{Deserialize, Serialize};

use crate::api::scalar::Size;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Storage {
    /// Virtual size of the disk (upstream `qcow_capacity`).
    #[serde(rename = "qcow_capacity")]
    pub qcow_capacity: Size,
    /// Numbered in list order. Empty means upstream's default layout.
    pub partitions: Vec<Partition>,
    /// Grow the root partition and its file system into the disk on first boot.
    pub grow_root: bool,
}

impl Default for Storage {
    fn default() -> Self {
        Storage { qcow_capacity: Size(19 << 30), partitions: Vec::new(), grow_root: true }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Mount point, or `none` for a partition without file system.
    pub mount: String,
    /// parted notation: `5MiB`, `100%`.
    pub part_start: String,
    pub part_end: String,
    /// parted flags: `bios_grub`, `esp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Upstream's explicit mount order; by path depth when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_order: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    /// `ext4` or `vfat`.
    #[serde(rename = "type")]
    pub kind: FilesystemType,
    #[serde(default)]
    pub fstab: Fstab,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilesystemType {
    Ext4,
    Vfat,
}

/// Fields four to six of fstab(5).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fstab {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dump: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fsck: Option<u8>,
}
