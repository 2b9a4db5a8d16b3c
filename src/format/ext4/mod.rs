//! ext4 file systems: kernel documentation, filesystems/ext4 (data structures and algorithms).
//!
//! Supported: one-shot from a [`Tree`]: blocks of 4 KiB, inodes of 256 bytes, extents, hash-tree directories (half
//! MD4), metadata checksums, 64-bit, flexible block groups, clean internal journal, room to grow online, hard links,
//! all kinds of files, sparse files (`tree::holes`), extended attributes, access lists. File bytes are never copied or
//! held; unused inode tables and bitmaps take no space. Everything that `mke2fs` would take from clock or chance is
//! given. Places are chosen so that a small edit of the Tree changes few blocks (`zones`).
//! Left out: other block sizes, inline data, project ids, quota, encryption, orphan_file, changing an existing file
//! system, reading (`inspect`).

mod alloc;
pub(crate) mod crc32c;
mod directory;
mod extent;
mod format;
mod geometry;
mod hash;
mod layout;
mod size;
mod write;
mod xattr;
mod zones;

use uuid::Uuid;

pub use layout::{Plan, layout};
pub use size::required;

use crate::error::Result;
use crate::format::disk::DiskImage;
use crate::tree::{Mtime, Tree};

#[derive(Debug, Clone)]
pub struct Options {
    /// Of the partition, in bytes. What is over the last whole block, or a last group too small to use, stays empty.
    pub size: u64,
    pub uuid: Uuid,
    pub hash_seed: Uuid,
    /// At most 16 bytes; empty for none.
    pub label: String,
    /// When the file system was made; also the time of its own inodes.
    pub time: Mtime,
    /// One inode for so many bytes, unless `inodes` says how many.
    pub bytes_per_inode: u64,
    pub inodes: Option<u64>,
    /// For root, in per cent.
    pub reserved_percent: u64,
    pub features: Features,
}

/// What differs between target releases; the rest of the list is what all of them know: has_journal, ext_attr,
/// resize_inode, dir_index, filetype, extent, 64bit, flex_bg, sparse_super, large_file, huge_file, dir_nlink,
/// extra_isize, metadata_csum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// metadata_csum_seed: the UUID can be changed while mounted (Linux 4.4, GRUB 2.12).
    pub metadata_csum_seed: bool,
    /// ea_inode, when the Tree has extended attributes that need more than a block: their values get inodes of their own
    /// (Linux 4.13, e2fsprogs 1.44; no GRUB reads such a file system).
    pub ea_inode: bool,
}

/// Makes a file system of `options.size` bytes that holds the Tree. Too small is [`crate::error::Kind::Space`].
pub fn make(tree: &Tree, options: &Options) -> Result<DiskImage> {
    write::write(layout(tree, options)?, options)
}

#[cfg(test)]
mod tests;
