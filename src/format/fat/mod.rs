//! FAT16 and FAT32 file systems: Microsoft's "FAT32 File System Specification", version 1.03 (fatgen103).
//!
//! Supported: one-shot from a [`Tree`]: files and folders, short names with deterministic tails, VFAT long names,
//! volume label and id, FSInfo, backup boot sector. Every file lies in one piece; file bytes are never copied or held.
//! What FAT cannot hold: owners, modes and extended attributes are dropped; links, devices and names that differ by
//! case alone are errors. Times are clamped to a given latest one, in UTC.
//! Left out: FAT12, sectors other than 512 bytes, changing an existing file system, reading.

mod format;
mod layout;
mod names;
mod write;

pub(super) use format::civil;
pub use layout::{FatType, Options, required};

use crate::error::Result;
use crate::format::disk::DiskImage;
use crate::tree::Tree;

/// Makes a file system of `options.size` bytes that holds the Tree. Too small is [`crate::error::Kind::Space`].
pub fn make(tree: &Tree, options: &Options) -> Result<DiskImage> {
    let layout = layout::Layout::new(tree, options)?;
    write::write(&layout, options)
}

#[cfg(test)]
mod tests;
