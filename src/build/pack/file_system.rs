//! The file systems of a disk, each from its part of the Tree.
//!
//! Owns: [`make`], [`make_all`] and what our file systems are like, content apart. Nothing is written and no file is
//! read: a file system is data that points to the files of the Tree. So making them all is also the check that
//! everything fits.

use super::sizing;
use super::split::Part;
use crate::api::params::storage::FilesystemType;
use crate::error::{Context, Error, Kind, Result};
use crate::format::disk::DiskImage;
use crate::format::{ext4, fat, gpt};
use crate::interrupt;
use crate::report::{Reporter, words};
use crate::tree::{Kind as TreeKind, Mtime, TreePath};

/// mke2fs.conf(5)'s default: one inode for 16 KiB.
const BYTES_PER_INODE: u64 = 16384;
const RESERVED_PERCENT: u64 = 5;

/// All of them, in the order of the parts. When some partitions are too small the error has every one, with the bytes
/// required and available.
pub fn make_all(
    parts: &[Part<'_>],
    epoch: i64,
    places: &sizing::Places<'_>,
    reporter: &Reporter,
) -> Result<Vec<DiskImage>> {
    let mut images = Vec::with_capacity(parts.len());
    let mut shortages = Vec::new();
    for part in parts {
        interrupt::check()?;
        let step = reporter.step(format!("file system {}", part.mounted.at));
        match make(part, epoch) {
            Ok(image) => {
                step.finish(format!("{} entries, {}", part.tree.len(), words::bytes(image.data_size())));
                images.push(image);
            }
            Err(error) if error.kind() == Kind::Space => shortages.push(sizing::shortage(part, epoch, places)?),
            Err(error) => return Err(error),
        }
    }
    if shortages.is_empty() {
        return Ok(images);
    }
    Err(Error::new(Kind::Space, shortages.join("; "))
        .hint("make the partition larger in `storage.partitions`, raise `storage.qcow_capacity`, or leave packages out")
        .hint("with `size: auto` in place of `part_end` a partition is as large as its content wants"))
}

/// The smallest size in bytes, not below `least`, at which the part's file system can be made.
pub fn required(part: &Part<'_>, epoch: i64, least: u64) -> Result<u64> {
    let time = Mtime { seconds: epoch, nanoseconds: 0 };
    match part.mounted.kind {
        FilesystemType::Ext4 => ext4::required(&part.tree, &ext4::Options { size: least, ..ext4_options(part, time) }),
        FilesystemType::Vfat => {
            let options = fat::Options { size: least, ..fat_options(part, time)? };
            // Firmware is sure to read FAT32 only; a size that was asked for may still be too small for it.
            let sized_by_content = fat::Options { fat_type: fat::FatType::Fat32, ..options.clone() };
            fat::required(&part.tree, if least == 0 { &sized_by_content } else { &options })
        }
    }
}

pub fn make(part: &Part<'_>, epoch: i64) -> Result<DiskImage> {
    let time = Mtime { seconds: epoch, nanoseconds: 0 };
    let image = match part.mounted.kind {
        FilesystemType::Ext4 => ext4::make(&part.tree, &ext4_options(part, time)),
        FilesystemType::Vfat => fat_options(part, time).and_then(|options| fat::make(&part.tree, &options)),
    };
    image.with_context(|| format!("making {}", part.partition.describe()))
}

/// The features are those every supported release understands: GRUB 2.04 to 2.12, e2fsprogs 1.45 to 1.47, Linux 5.4
/// and newer. GRUB before 2.12 refuses `metadata_csum_seed`.
fn ext4_options(part: &Part<'_>, time: Mtime) -> ext4::Options {
    ext4::Options {
        size: part.partition.size,
        uuid: part.mounted.uuid,
        hash_seed: part.mounted.hash_seed,
        label: String::new(),
        time,
        bytes_per_inode: BYTES_PER_INODE,
        inodes: None,
        reserved_percent: RESERVED_PERCENT,
        features: ext4::Features { metadata_csum_seed: false, ea_inode: !grub_reads(part) },
    }
}

/// The kernel and GRUB's menu are here.
fn grub_reads(part: &Part<'_>) -> bool {
    let boot = TreePath::literal("boot");
    part.mounted.at == boot || part.tree.below(&boot).any(|(_, entry)| !matches!(entry.kind, TreeKind::Directory))
}

fn fat_options(part: &Part<'_>, latest: Mtime) -> Result<fat::Options> {
    let hidden_sectors = u32::try_from(part.partition.start / gpt::SECTOR)
        .map_err(|_| Error::build("a FAT file system cannot lie beyond 2 TiB"))?;
    Ok(fat::Options {
        size: part.partition.size,
        fat_type: fat::FatType::Auto,
        volume_id: part.mounted.volume_id(),
        label: String::new(),
        hidden_sectors,
        latest,
    })
}

#[cfg(test)]
mod tests {
    use super::super::split::split;
    use super::*;
    use crate::api::params::storage::Storage;
    use crate::api::scalar::Size;
    use crate::boot::layout::{Identity, Layout};
    use crate::tree::{Meta, Origin, Tree};

    fn made(capacity: u64, files: &[(&str, usize)]) -> Result<Vec<DiskImage>> {
        let mut tree = Tree::new();
        let origin: Origin = "test".into();
        for (path, size) in files {
            tree.write_file(&TreePath::new(path).unwrap(), vec![1; *size], Meta::root(0o644), &origin).unwrap();
        }
        tree.make_directories(&TreePath::literal("boot/efi"), Default::default(), &origin).unwrap();
        let storage = Storage { qcow_capacity: Size(capacity).into(), ..Storage::default() };
        let layout = Layout::new(&storage, &Identity { site: "s".into(), image: "i".into() }).unwrap();
        make_all(&split(&tree, &layout).unwrap(), 0, &|_| None, &Reporter::quiet())
    }

    #[test]
    fn says_which_partition_lacks_how_much() {
        assert_eq!(made(1400 << 20, &[("a", 90 << 20), ("boot/k", 30 << 20)]).unwrap().len(), 3);
        let error = made(1400 << 20, &[("a", 120 << 20), ("boot/k", 30 << 20)]).unwrap_err();
        assert_eq!(error.kind(), Kind::Space);
        let text = error.to_string();
        assert!(text.contains("partition 1 (/): the content needs 13") && text.contains("has 120586240"), "{text}");
        assert!(!text.contains("partition 4"), "{text}");
    }

    #[test]
    fn counts_inodes_too() {
        let names: Vec<String> = (0..9000).map(|number| format!("d/{number}")).collect();
        let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 0)).collect();
        let text = made(1400 << 20, &files).unwrap_err().to_string();
        assert!(text.contains("files and folders") && text.contains("has 120586240"), "{text}");
    }
}
