//! The extent tree of a file: in the inode up to four runs, in one level of blocks beyond ("Extent Tree").

use super::alloc::{Allocator, Run};
use super::crc32c::crc32c;
use super::format::{BLOCK, Put, inode_seed};
use crate::error::{Error, Result};

const MAGIC: u16 = 0xF30A;
const IN_INODE: usize = 4;
/// Twelve bytes each behind a header of twelve, with four left for the checksum.
const IN_BLOCK: usize = 340;

/// A file's extents: `i_block`, and the blocks that it points to.
pub struct Extents {
    pub data: [u8; 60],
    pub blocks: Vec<(u64, Vec<u8>)>,
}

/// Lays out the tree; its own blocks come from `allocator`.
pub fn tree(runs: &[Run], inode: u32, seed: u32, allocator: &mut Allocator) -> Result<Extents> {
    let mut data = [0; 60];
    let mut logical = 0;
    let placed: Vec<(u64, Run)> = runs
        .iter()
        .map(|run| {
            logical += run.length;
            (logical - run.length, *run)
        })
        .collect();
    if logical > u64::from(u32::MAX) || placed.len() > IN_INODE * IN_BLOCK {
        return Err(Error::build("a file is too large or too scattered for this writer"));
    }
    if placed.len() <= IN_INODE {
        header(&mut data, placed.len(), IN_INODE, 0);
        leaves(&mut data, &placed);
        return Ok(Extents { data, blocks: Vec::new() });
    }
    let mut blocks = Vec::new();
    for (index, part) in placed.chunks(IN_BLOCK).enumerate() {
        let number = allocator.take_one();
        let mut block = vec![0; BLOCK as usize];
        header(&mut block, part.len(), IN_BLOCK, 0);
        leaves(&mut block, part);
        let end = 12 + IN_BLOCK * 12;
        let checksum = crc32c(inode_seed(seed, inode), &block[..end]);
        block.put32(end, checksum);
        let entry = &mut data[12 + index * 12..];
        entry.put32(0, part[0].0 as u32);
        entry.put32(4, number as u32);
        entry.put16(8, (number >> 32) as u16);
        blocks.push((number, block));
    }
    header(&mut data, blocks.len(), IN_INODE, 1);
    Ok(Extents { data, blocks })
}

fn header(out: &mut [u8], entries: usize, most: usize, depth: u16) {
    out.put16(0, MAGIC);
    out.put16(2, entries as u16);
    out.put16(4, most as u16);
    out.put16(6, depth);
}

fn leaves(out: &mut [u8], runs: &[(u64, Run)]) {
    for (index, (logical, run)) in runs.iter().enumerate() {
        let entry = &mut out[12 + index * 12..];
        entry.put32(0, *logical as u32);
        entry.put16(4, run.length as u16);
        entry.put16(6, (run.start >> 32) as u16);
        entry.put32(8, run.start as u32);
    }
}
