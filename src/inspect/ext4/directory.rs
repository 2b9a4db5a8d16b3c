//! Directories: kernel documentation, filesystems/ext4, "Directory Entries". The blocks of a hash tree look like
//! empty entries to those who read one block after the other, which is what is done here; their checksums are
//! verified all the same.

use super::inode::{FLAG_INDEX, Inode};
use super::{Ext4, broken};
use crate::error::Result;
use crate::format::ext4::crc32c::crc32c;
use crate::inspect::fields::Fields;

pub struct Name {
    pub inode: u32,
    pub name: Vec<u8>,
}

const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xDE;

impl Ext4 {
    /// All names but `.` and `..`, in the order of the disk.
    pub fn names(&self, inode: &Inode) -> Result<Vec<Name>> {
        let size = self.superblock.block_size;
        if inode.size() % size != 0 {
            return Err(wrong(inode, "has an odd size"));
        }
        let mut names = Vec::new();
        for run in self.map(inode)?.runs {
            for at in (0..run.length).step_by(size as usize) {
                crate::interrupt::check()?;
                let logical = run.logical + at;
                if logical >= inode.size() {
                    return Err(wrong(inode, "is longer than it says"));
                }
                let block = self.block((run.physical + at) / size)?;
                if self.superblock.checksums {
                    verify(inode, &block, logical == 0)?;
                }
                read_block(inode, &block, &mut names)?;
            }
        }
        Ok(names)
    }
}

fn wrong(inode: &Inode, what: &str) -> crate::error::Error {
    broken(&format!("the directory in inode {} {what}", inode.number))
}

/// Lengths of 64 KiB do not fit into the field.
fn length(entry: &[u8], block: usize) -> usize {
    match entry.le16(4) {
        0 | 0xFFFF if block == 65536 => 65536,
        length => usize::from(length),
    }
}

fn read_block(inode: &Inode, block: &[u8], names: &mut Vec<Name>) -> Result<()> {
    let mut at = 0;
    while at < block.len() {
        let entry = &block[at..];
        let (number, name_length) = (entry.le32(0), usize::from(entry.u8_at(6)));
        let length = length(entry, block.len());
        if length < 12 || length % 4 != 0 || length > entry.len() || 8 + name_length > length {
            return Err(wrong(inode, "is damaged: an entry has an impossible length"));
        }
        let name = &entry[8..8 + name_length];
        if number != 0 && name != b"." && name != b".." {
            if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                return Err(wrong(inode, "holds a name that cannot be"));
            }
            names.push(Name { inode: number, name: name.to_vec() });
        }
        at += length;
    }
    Ok(())
}

/// Leaves end with a pseudo entry, blocks of the index with a tail behind their limit.
fn verify(inode: &Inode, block: &[u8], first: bool) -> Result<()> {
    let indexed = inode.flags() & FLAG_INDEX != 0;
    let start = if indexed && first {
        Some(32)
    } else if indexed && block.le32(0) == 0 && length(block, block.len()) == block.len() {
        Some(8)
    } else {
        None
    };
    let fits = match start {
        Some(start) => {
            let (limit, count) = (usize::from(block.le16(start)), usize::from(block.le16(start + 2)));
            let tail = start + limit * 8;
            match (block.get(..start + count * 8), block.get(tail..tail + 8)) {
                (Some(used), Some(end)) if count <= limit => {
                    crc32c(crc32c(crc32c(inode.seed, used), &end[..4]), &[0; 4]) == end.le32(4)
                }
                _ => false,
            }
        }
        None => {
            let tail = block.len() - TAIL;
            block[tail + 7] == TAIL_TYPE && crc32c(inode.seed, &block[..tail]) == block.le32(tail + 8)
        }
    };
    if fits { Ok(()) } else { Err(wrong(inode, "is damaged: a checksum does not fit")) }
}
