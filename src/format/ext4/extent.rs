//! The extent tree of a file: in the inode up to four runs, in levels of blocks beyond ("Extent Tree").

use super::alloc::Run;
use super::crc32c::crc32c;
use super::format::{BLOCK, Put, inode_seed};
use crate::error::{Error, Result};

const MAGIC: u16 = 0xF30A;
const IN_INODE: usize = 4;
/// Twelve bytes each behind a header of twelve, with four left for the checksum.
const IN_BLOCK: usize = 340;

/// A run of blocks and the block of the file that its first one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    pub logical: u64,
    pub run: Run,
}

/// A file's extents: `i_block`, and the blocks that it points to.
pub struct Extents {
    pub data: [u8; 60],
    pub blocks: Vec<(u64, Vec<u8>)>,
}

/// How many blocks the tree needs besides the inode for so many runs.
pub fn tree_blocks(runs: u64) -> u64 {
    let (mut level, mut blocks) = (runs, 0);
    while level > IN_INODE as u64 {
        level = level.div_ceil(IN_BLOCK as u64);
        blocks += level;
    }
    blocks
}

/// Lays out the tree; its own blocks are taken from `room`, as many as [`tree_blocks`] says.
pub fn tree(runs: &[Mapped], inode: u32, seed: u32, room: &mut impl Iterator<Item = u64>) -> Result<Extents> {
    if runs.last().is_some_and(|last| last.logical + last.run.length > u64::from(u32::MAX)) {
        return Err(Error::build("a file is too large for ext4 with blocks of 4 KiB"));
    }
    let mut data = [0; 60];
    let mut blocks = Vec::new();
    if runs.len() <= IN_INODE {
        header(&mut data, runs.len(), IN_INODE, 0);
        leaves(&mut data, runs);
        return Ok(Extents { data, blocks });
    }
    let mut write = |depth: u16, count: usize, fill: &dyn Fn(&mut [u8])| -> Result<u64> {
        let number = room.next().ok_or_else(|| Error::build("no room was left for an extent tree"))?;
        let mut block = vec![0; BLOCK as usize];
        header(&mut block, count, IN_BLOCK, depth);
        fill(&mut block);
        let end = 12 + IN_BLOCK * 12;
        let checksum = crc32c(inode_seed(seed, inode), &block[..end]);
        block.put32(end, checksum);
        blocks.push((number, block));
        Ok(number)
    };
    // First logical block of each node, and where the node is.
    let mut level: Vec<(u64, u64)> = Vec::new();
    for part in runs.chunks(IN_BLOCK) {
        level.push((part[0].logical, write(0, part.len(), &|block| leaves(block, part))?));
    }
    let mut depth = 1;
    while level.len() > IN_INODE {
        let mut above = Vec::new();
        for part in level.chunks(IN_BLOCK) {
            above.push((part[0].0, write(depth, part.len(), &|block| branches(block, part))?));
        }
        level = above;
        depth += 1;
    }
    header(&mut data, level.len(), IN_INODE, depth);
    branches(&mut data, &level);
    Ok(Extents { data, blocks })
}

fn header(out: &mut [u8], entries: usize, most: usize, depth: u16) {
    out.put16(0, MAGIC);
    out.put16(2, entries as u16);
    out.put16(4, most as u16);
    out.put16(6, depth);
}

fn leaves(out: &mut [u8], runs: &[Mapped]) {
    for (index, Mapped { logical, run }) in runs.iter().enumerate() {
        let entry = &mut out[12 + index * 12..];
        entry.put32(0, *logical as u32);
        entry.put16(4, run.length as u16);
        entry.put16(6, (run.start >> 32) as u16);
        entry.put32(8, run.start as u32);
    }
}

fn branches(out: &mut [u8], nodes: &[(u64, u64)]) {
    for (index, (logical, number)) in nodes.iter().enumerate() {
        let entry = &mut out[12 + index * 12..];
        entry.put32(0, *logical as u32);
        entry.put32(4, *number as u32);
        entry.put16(8, (number >> 32) as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_as_needed() {
        assert_eq!([0, 4, 5, 1360, 1361].map(tree_blocks), [0, 0, 1, 4, 6]);
        for (count, depth) in [(3, 0), (1000, 1), (200_000, 2)] {
            let runs: Vec<Mapped> =
                (0..count).map(|at| Mapped { logical: at * 2, run: Run { start: 1000 + at * 3, length: 1 } }).collect();
            let out = tree(&runs, 12, 1, &mut (5..5 + tree_blocks(count))).unwrap();
            assert_eq!(out.data[6], depth);
            assert_eq!(out.blocks.len() as u64, tree_blocks(count));
        }
    }
}
