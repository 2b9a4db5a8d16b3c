//! The extent tree of a file: kernel documentation, filesystems/ext4, "The Contents of inode.i_block", "Extent Tree".

use super::inode::{FLAG_EXTENTS, Inode};
use super::{Ext4, broken};
use crate::error::{Error, Result};
use crate::format::ext4::crc32c::crc32c;
use crate::inspect::fields::Fields;
use crate::inspect::listing::Run;

const MAGIC: u16 = 0xF30A;
const MAX_DEPTH: u16 = 5;
/// Longer lengths mark space that was never written and reads as zeros.
const INITIALISED: u16 = 32768;

/// Where a file's bytes lie; and the blocks of the tree itself.
#[derive(Debug, Default)]
pub struct Mapped {
    /// In bytes, ascending, without overlap.
    pub runs: Vec<Run>,
    /// Blocks of the tree, by number.
    pub nodes: Vec<u64>,
    /// The first logical block that is not mapped yet.
    next: u64,
}

impl Ext4 {
    pub fn map(&self, inode: &Inode) -> Result<Mapped> {
        let mut out = Mapped::default();
        if inode.flags() & FLAG_EXTENTS == 0 {
            if inode.data().iter().all(|byte| *byte == 0) {
                return Ok(out);
            }
            let number = inode.number;
            return Err(Error::build(format!("inode {number} has no extents (ext2 and ext3 did without)"))
                .hint("only ext4 with extents can be read"));
        }
        self.node(inode, &inode.data(), None, &mut out)?;
        Ok(out)
    }

    /// One node of the tree. `depth` is that of a node below another; each level is one less, so there is no loop.
    fn node(&self, inode: &Inode, node: &[u8], depth: Option<u16>, out: &mut Mapped) -> Result<()> {
        let wrong = |what: &str| broken(&format!("the extents of inode {} are {what}", inode.number));
        let (entries, most, own) = (node.le16(2), node.le16(4), node.le16(6));
        let room = (node.len() - 12) / 12;
        let expected = depth.is_none_or(|depth| depth == own) && own <= MAX_DEPTH;
        if node.le16(0) != MAGIC || entries > most || usize::from(most) > room || !expected {
            return Err(wrong("damaged"));
        }
        for entry in node[12..].chunks_exact(12).take(usize::from(entries)) {
            let logical = u64::from(entry.le32(0));
            if logical < out.next {
                return Err(wrong("not in order"));
            }
            if own == 0 {
                self.leaf(entry, logical, out).ok_or_else(|| wrong("outside of the file system"))?;
                continue;
            }
            crate::interrupt::check()?;
            let number = u64::from(entry.le32(4)) | u64::from(entry.le16(8)) << 32;
            let below = self.block(number)?;
            out.nodes.push(number);
            let end = 12 + usize::from(below.le16(4)) * 12;
            if self.superblock.checksums {
                let fits = below.get(..end).is_some_and(|bytes| crc32c(inode.seed, bytes) == below.le32(end));
                if !fits {
                    return Err(wrong("damaged: a checksum does not fit"));
                }
            }
            let before = out.next;
            self.node(inode, &below, Some(own - 1), out)?;
            if out.next == before {
                return Err(wrong("damaged: a node is empty"));
            }
        }
        Ok(())
    }

    fn leaf(&self, entry: &[u8], logical: u64, out: &mut Mapped) -> Option<()> {
        let stored = entry.le16(4);
        let (length, written) = if stored > INITIALISED { (stored - INITIALISED, false) } else { (stored, true) };
        let length = u64::from(length);
        let start = u64::from(entry.le32(8)) | u64::from(entry.le16(6)) << 32;
        let inside = start.checked_add(length).is_some_and(|end| end <= self.superblock.blocks);
        if length == 0 || start == 0 || !inside {
            return None;
        }
        out.next = logical + length;
        if written {
            let size = self.superblock.block_size;
            let run = Run { logical: logical * size, physical: start * size, length: length * size };
            match out.runs.last_mut() {
                Some(last)
                    if last.logical + last.length == run.logical && last.physical + last.length == run.physical =>
                {
                    last.length += run.length;
                }
                _ => out.runs.push(run),
            }
        }
        Some(())
    }
}
