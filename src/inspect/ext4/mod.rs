//! Reads ext4 file systems: kernel documentation, filesystems/ext4 (data structures and algorithms).
//!
//! Supported: what `mke2fs -t ext4` has made since 2008 and what our writer makes: extents, hash-tree directories (read
//! linearly), 32- and 64-bit, flexible and meta block groups, extended attributes in the inode, in a block and in
//! inodes of their own, access lists; checksums of superblock, descriptors, inodes, extents, directories and attributes are verified.
//! Left out: block maps of ext2 and ext3, inline data, encryption, bigalloc, replaying a journal.
//! Independent of `format::ext4` in its logic; shares the checksum function with it.

mod directory;
mod explain;
mod extent;
mod inode;
pub mod superblock;
mod xattr;

use std::collections::BTreeSet;

use self::inode::Inode;
use self::superblock::{Group, Superblock};
use super::listing::{FileData, Found, Item, Listing};
use super::source::{SharedSource, Source};
use crate::error::{Context, Error, Result};
use crate::tree::{Meta, TreePath};

const ROOT_INODE: u32 = 2;

fn broken(what: &str) -> Error {
    Error::build(format!("the ext4 file system is damaged: {what}"))
}

/// An opened file system. Nothing but superblock and descriptors is kept.
pub struct Ext4 {
    source: SharedSource,
    pub superblock: Superblock,
    groups: Vec<Group>,
}

impl Ext4 {
    /// Whether there is the magic number of an ext2, ext3 or ext4.
    pub fn probe(source: &dyn Source) -> bool {
        source.bytes(superblock::OFFSET + 0x38, 2).is_ok_and(|magic| magic == [0x53, 0xEF])
    }

    pub fn open(source: SharedSource) -> Result<Ext4> {
        let superblock = Superblock::read(&*source)?;
        let groups = superblock::groups(&*source, &superblock)?;
        Ok(Ext4 { source, superblock, groups })
    }

    /// Everything that can be reached from the root.
    pub fn listing(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        let mut folders = BTreeSet::new();
        let mut todo = vec![(TreePath::root(), ROOT_INODE)];
        while let Some((path, number)) = todo.pop() {
            crate::interrupt::check()?;
            let context = || format!("reading {path}");
            let inode = self.inode(number).with_context(context)?;
            let item = self.item(&inode).with_context(context)?;
            if matches!(item.found, Found::Directory) {
                if !folders.insert(number) {
                    return Err(broken(&format!("the folder in inode {number} has two names")));
                }
                for entry in self.names(&inode).with_context(context)? {
                    todo.push((path.join(&entry.name), entry.inode));
                }
            } else if path.is_root() {
                return Err(broken("the root is not a folder"));
            }
            listing.insert(path, item)?;
        }
        listing.link_names();
        Ok(listing)
    }

    fn item(&self, inode: &Inode) -> Result<Item> {
        if inode.links() == 0 {
            return Err(broken(&format!("inode {} is deleted and has a name", inode.number)));
        }
        let found = match inode.kind() {
            inode::TYPE_DIRECTORY => Found::Directory,
            inode::TYPE_FILE => Found::File(self.data(inode)?),
            inode::TYPE_SYMLINK => Found::Symlink(self.target(inode)?),
            inode::TYPE_CHAR => {
                let (major, minor) = inode.device();
                Found::CharDevice { major, minor }
            }
            inode::TYPE_BLOCK => {
                let (major, minor) = inode.device();
                Found::BlockDevice { major, minor }
            }
            inode::TYPE_FIFO => Found::Fifo,
            inode::TYPE_SOCKET => Found::Socket,
            _ => return Err(broken(&format!("inode {} has no known type", inode.number))),
        };
        let meta = Meta {
            mode: inode.mode() & 0o7777,
            uid: inode.uid(),
            gid: inode.gid(),
            mtime: inode.mtime(),
            xattrs: self.xattrs(inode)?,
        };
        Ok(Item { meta, found, number: u64::from(inode.number) })
    }

    fn data(&self, inode: &Inode) -> Result<FileData> {
        let size = inode.size();
        // Block numbers inside a file have 32 bits.
        if size > self.superblock.block_size << 32 {
            return Err(broken(&format!("inode {} has an impossible size", inode.number)));
        }
        Ok(FileData { size, runs: self.map(inode)?.runs.into(), source: self.source.clone() })
    }

    /// Short targets lie in the inode itself.
    fn target(&self, inode: &Inode) -> Result<Vec<u8>> {
        let size = inode.size();
        if size == 0 || size > self.superblock.block_size {
            return Err(broken(&format!("the symbolic link in inode {} has an impossible size", inode.number)));
        }
        let target = if inode.flags() & inode::FLAG_EXTENTS == 0 && size < 60 {
            inode.data()[..size as usize].to_vec()
        } else {
            self.data(inode)?.bytes(self.superblock.block_size)?
        };
        match target.contains(&0) {
            false => Ok(target),
            true => Err(broken(&format!("the symbolic link in inode {} has an impossible target", inode.number))),
        }
    }

    /// A whole block, after checking that it is there.
    fn block(&self, number: u64) -> Result<Vec<u8>> {
        if number >= self.superblock.blocks {
            return Err(broken(&format!("block {number} does not exist")));
        }
        self.source.bytes(number * self.superblock.block_size, self.superblock.block_size as usize)
    }
}

#[cfg(test)]
mod tests;
