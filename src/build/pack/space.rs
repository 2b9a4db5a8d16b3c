//! Whether the content fits, before anything is written.
//!
//! Owns: [`check`]: what each file system needs at least, against the size of its partition. Lower bounds: file-system
//! tools have the last word, but most mistakes are caught here, all partitions at once and with figures.

use super::split::Part;
use crate::api::params::storage::FilesystemType;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::tree::{Kind, Tree};

/// ext4 with 4 KiB blocks: 128 MiB groups, 256-byte inodes, one inode for 16 KiB (mke2fs.conf(5) defaults).
pub const BLOCK: u64 = 4096;
const BLOCKS_PER_GROUP: u64 = 32768;
const INODE_SIZE: u64 = 256;
pub const INODE_RATIO: u64 = 16384;
/// ext4 keeps inodes 1 to 10 to itself; lost+found takes the eleventh.
const RESERVED_INODES: u64 = 11;

/// Fails with every partition that is too small.
pub fn check(parts: &[Part<'_>]) -> Result<()> {
    let lines: Vec<String> = parts.iter().filter_map(shortage).collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Space, format!("the content does not fit: {}", lines.join("; "))).hint(
        "make the partition larger in `storage.partitions`, raise `storage.qcow_capacity`, or leave packages out",
    ))
}

fn shortage(part: &Part<'_>) -> Option<String> {
    let available = part.partition.size;
    let (needed, what) = match part.mounted.kind {
        FilesystemType::Ext4 => {
            let inodes = part.tree.iter().filter(|(_, entry)| !matches!(entry.kind, Kind::HardLink(_))).count() as u64;
            let inodes_needed = inodes + RESERVED_INODES;
            if inodes_needed > available / INODE_RATIO {
                // The way to more inodes is a larger partition.
                (inodes_needed.saturating_mul(INODE_RATIO), format!(" for {inodes} files and folders"))
            } else {
                (ext4_data(&part.tree).saturating_add(ext4_overhead(available)), String::new())
            }
        }
        FilesystemType::Vfat => (fat_data(&part.tree), String::new()),
    };
    (needed > available)
        .then(|| format!("{} needs {needed} bytes{what} and has {available}", part.partition.describe()))
}

/// Whole blocks of files, folders and long links.
fn ext4_data(tree: &Tree) -> u64 {
    tree.iter().fold(0u64, |sum, (_, entry)| {
        let bytes = match &entry.kind {
            Kind::Directory => BLOCK,
            Kind::File(content) => content.size().div_ceil(BLOCK) * BLOCK,
            // Up to 59 bytes lie in the inode.
            Kind::Symlink(target) if target.len() >= 60 => BLOCK,
            _ => 0,
        };
        sum.saturating_add(bytes)
    })
}

/// Inode tables, bitmaps, group descriptors and the journal of an empty file system.
fn ext4_overhead(size: u64) -> u64 {
    let blocks = size / BLOCK;
    let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
    let inode_tables = size / INODE_RATIO * INODE_SIZE;
    let bitmaps = groups * 2 * BLOCK;
    let descriptors = (groups * 64).div_ceil(BLOCK) * BLOCK;
    inode_tables + bitmaps + descriptors + journal_size(size)
}

/// In bytes, by the size of the file system; the smaller steps of mke2fs, which are kind to growing disks as well.
pub fn journal_size(size: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    match size / MIB {
        0..128 => 4 * MIB,
        128..1024 => 16 * MIB,
        1024..2048 => 32 * MIB,
        _ => 64 * MIB,
    }
}

fn fat_data(tree: &Tree) -> u64 {
    // Sectors at least; clusters and tables come on top.
    tree.iter().fold(0u64, |sum, (_, entry)| {
        let bytes = match &entry.kind {
            Kind::File(content) => content.size().div_ceil(512) * 512,
            Kind::Directory => 512,
            _ => 0,
        };
        sum.saturating_add(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::super::split::split;
    use super::*;
    use crate::api::params::storage::Storage;
    use crate::api::scalar::Size;
    use crate::boot::layout::{Identity, Layout};
    use crate::tree::{Meta, Origin, TreePath};

    fn checked(capacity: u64, files: &[(&str, usize)]) -> Result<()> {
        let mut tree = Tree::new();
        let origin: Origin = "test".into();
        for (path, size) in files {
            tree.write_file(&TreePath::new(path).unwrap(), vec![0; *size], Meta::root(0o644), &origin).unwrap();
        }
        tree.make_directories(&TreePath::literal("boot/efi"), Default::default(), &origin).unwrap();
        let storage = Storage { qcow_capacity: Size(capacity), ..Storage::default() };
        let layout = Layout::new(&storage, &Identity { site: "s".into(), image: "i".into() }).unwrap();
        check(&split(&tree, &layout).unwrap())
    }

    #[test]
    fn says_which_partition_lacks_how_much() {
        assert!(checked(1400 << 20, &[("a", 90 << 20), ("boot/k", 30 << 20)]).is_ok());
        let error = checked(1400 << 20, &[("a", 120 << 20), ("boot/k", 30 << 20)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Space);
        let text = error.to_string();
        assert!(text.contains("partition 1 (/) needs ") && text.contains("and has 120586240"), "{text}");
        assert!(!text.contains("partition 4"), "{text}");
    }

    #[test]
    fn counts_inodes_too() {
        let names: Vec<String> = (0..9000).map(|number| format!("d/{number}")).collect();
        let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 0)).collect();
        let text = checked(1400 << 20, &files).unwrap_err().to_string();
        assert!(text.contains("files and folders"), "{text}");
    }
}
