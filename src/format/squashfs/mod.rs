//! squashfs 4.0 file systems: kernel documentation, filesystems/squashfs; the structures are those of
//! fs/squashfs/squashfs_fs.h (SF below).
//!
//! Supported: one-shot from a [`Tree`](crate::tree::Tree), streamed into a file: gzip, lz4, xz and zstd at any level,
//! blocks of 4 KiB to 1 MiB, fragments for files shorter than a block, every content once however many files have it,
//! blocks of zeros that take no room, hard links, all kinds of files, extended attributes (`user`, `trusted`,
//! `security`), the table for NFS export, an index for directories of more than 8 KiB, long forms of inodes only where
//! they are needed. All cores compress, to the same bytes for any number of them; a few megabytes are held, whatever the
//! size. Times are those of the Tree in whole seconds, and that of the file system is given.
//! Left out: tails of long files in fragments, lzo and lzma, values of extended attributes that are shared, access lists
//! (the kernel reads none), filters of xz, adding to an existing file system, reading (`inspect`).

mod compress;
mod directory;
mod format;
mod inode;
mod kept;
mod layout;
mod metadata;
mod write;
mod xattr;

pub use compress::Compression;
pub use write::{Blocks, Written, prepare, write, write_kept};

use crate::tree::Mtime;

#[derive(Debug, Clone)]
pub struct Options {
    pub compression: Compression,
    /// A power of two, from 4 KiB to 1 MiB.
    pub block_size: u32,
    /// When the file system was made.
    pub time: Mtime,
    /// All cores when `None`. Does not change the result.
    pub threads: Option<usize>,
}

impl Default for Options {
    /// As `mksquashfs -comp zstd` has it.
    fn default() -> Self {
        Options { compression: Compression::default(), block_size: 128 << 10, time: Mtime::default(), threads: None }
    }
}

#[cfg(test)]
mod tests;
