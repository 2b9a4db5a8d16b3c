//! A small disk with the three partitions that a machine boots from.

use imagebuilder::api::params::Params;
use imagebuilder::api::params::storage::{Filesystem, FilesystemType, Fstab, Partition};
use imagebuilder::api::scalar::Size;

pub const MIB: u64 = 1 << 20;

pub fn params() -> Params {
    let partition = |mount: &str, start: u64, end: u64, flag: Option<&str>, kind| Partition {
        mount: mount.into(),
        part_start: Some(format!("{start}MiB")),
        part_end: Some(format!("{end}MiB")),
        size: None,
        headroom: None,
        flags: flag.into_iter().map(str::to_owned).collect(),
        mount_order: None,
        filesystem: Some(Filesystem { kind, fstab: Fstab::default() }),
    };
    let mut params = Params::default();
    params.distribution.name = "debian".into();
    params.storage.qcow_capacity = Size(300 * MIB).into();
    params.storage.partitions = vec![
        partition("/", 100, 299, None, FilesystemType::Ext4),
        partition("/boot/efi", 1, 41, Some("esp"), FilesystemType::Vfat),
        partition("/boot", 41, 100, None, FilesystemType::Ext4),
    ];
    params
}
