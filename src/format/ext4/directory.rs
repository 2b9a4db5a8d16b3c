//! The blocks of a directory: one block as a list, more as a hash tree ("Linear Directories", "Hash Tree
//! Directories").

use super::crc32c::crc32c;
use super::format::{BLOCK, Put};
use super::hash::half_md4;
use crate::error::{Error, Result};

/// File types of entries ("Directory file types").
pub const TYPE_FILE: u8 = 1;
pub const TYPE_DIRECTORY: u8 = 2;
pub const TYPE_CHAR: u8 = 3;
pub const TYPE_BLOCK: u8 = 4;
pub const TYPE_FIFO: u8 = 5;
pub const TYPE_SOCKET: u8 = 6;
pub const TYPE_SYMLINK: u8 = 7;

/// The pseudo entry at the end of a block that holds its checksum.
const TAIL: usize = 12;
const ROOM: usize = BLOCK as usize - TAIL;
/// Leaves of a hash tree keep some room, so that a package upgrade does not split them at once.
const FILL: usize = ROOM * 4 / 5;
/// Entries of eight bytes in the root and in the nodes of the index, with eight bytes for the checksum.
const ROOT_LIMIT: usize = (BLOCK as usize - 32 - 8) / 8;
const NODE_LIMIT: usize = (BLOCK as usize - 8 - 8) / 8;

#[derive(Debug, Clone)]
pub struct DirectoryEntry {
    pub inode: u32,
    pub file_type: u8,
    pub name: Vec<u8>,
}

impl DirectoryEntry {
    fn size(&self) -> usize {
        (8 + self.name.len()).next_multiple_of(4)
    }
}

/// How the entries of a directory are spread over its blocks.
pub struct Shape {
    leaves: Vec<Vec<DirectoryEntry>>,
    /// Hash at the start of each leaf, with the lowest bit set when the leaf before ends with the same.
    hashes: Vec<u32>,
}

impl Shape {
    pub fn new(entries: Vec<DirectoryEntry>, hash_seed: &[u8; 16]) -> Result<Shape> {
        if let Some(long) = entries.iter().find(|entry| entry.name.len() > 255) {
            let name = String::from_utf8_lossy(&long.name).into_owned();
            return Err(Error::build(format!("the name `{name}` is longer than 255 bytes")));
        }
        // `.` and `..` take twelve bytes each.
        if 24 + entries.iter().map(DirectoryEntry::size).sum::<usize>() <= ROOM {
            return Ok(Shape { leaves: vec![entries], hashes: Vec::new() });
        }
        let mut hashed: Vec<((u32, u32), DirectoryEntry)> =
            entries.into_iter().map(|entry| (half_md4(&entry.name, hash_seed), entry)).collect();
        hashed.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
        let mut shape = Shape { leaves: Vec::new(), hashes: Vec::new() };
        let (mut used, mut last) = (BLOCK as usize, 0);
        for ((hash, _), entry) in hashed {
            if used + entry.size() > FILL {
                // The first leaf starts at zero, whatever its first entry.
                let continued = u32::from(hash == last);
                shape.hashes.push(if shape.leaves.is_empty() { 0 } else { hash | continued });
                shape.leaves.push(Vec::new());
                used = 0;
            }
            used += entry.size();
            last = hash;
            if let Some(leaf) = shape.leaves.last_mut() {
                leaf.push(entry);
            }
        }
        if shape.leaves.len() > ROOT_LIMIT * NODE_LIMIT {
            return Err(Error::build("a directory has too many entries"));
        }
        Ok(shape)
    }

    /// Blocks of the index nodes below the root; none while the root can point to all leaves.
    fn nodes(&self) -> usize {
        if self.leaves.len() <= ROOT_LIMIT { 0 } else { self.leaves.len().div_ceil(NODE_LIMIT) }
    }

    pub fn indexed(&self) -> bool {
        !self.hashes.is_empty()
    }

    /// The blocks, in logical order, of the directory with that inode; `seed` starts its checksums.
    pub fn encode(&self, inode: u32, parent: u32, seed: u32) -> Vec<Vec<u8>> {
        let dot = |inode, name: &[u8]| DirectoryEntry { inode, file_type: TYPE_DIRECTORY, name: name.to_vec() };
        let dots = [dot(inode, b"."), dot(parent, b"..")];
        if !self.indexed() {
            let entries = dots.iter().chain(&self.leaves[0]);
            return vec![leaf(entries, seed)];
        }
        let nodes = self.nodes();
        let first_leaf = 1 + nodes as u32;
        let index: Vec<(u32, u32)> = self.hashes.iter().copied().zip(first_leaf..).collect();
        let mut blocks = Vec::new();
        if nodes == 0 {
            blocks.push(root(&dots, 0, &index, seed));
        } else {
            let top: Vec<(u32, u32)> = index.chunks(NODE_LIMIT).map(|part| part[0].0).zip(1..).collect();
            blocks.push(root(&dots, 1, &top, seed));
            blocks.extend(index.chunks(NODE_LIMIT).map(|part| node(part, seed)));
        }
        blocks.extend(self.leaves.iter().map(|entries| leaf(entries.iter(), seed)));
        blocks
    }
}

fn write_entry(block: &mut [u8], at: usize, length: usize, entry: &DirectoryEntry) {
    let out = &mut block[at..];
    out.put32(0, entry.inode);
    out.put16(4, length as u16);
    out[6] = entry.name.len() as u8;
    out[7] = entry.file_type;
    out[8..8 + entry.name.len()].copy_from_slice(&entry.name);
}

/// Entries one after the other; the last one takes what is left.
pub fn leaf<'a>(entries: impl Iterator<Item = &'a DirectoryEntry>, seed: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    let mut entries = entries.peekable();
    let mut at = 0;
    if entries.peek().is_none() {
        block.put16(4, ROOM as u16);
    }
    while let Some(entry) = entries.next() {
        let length = if entries.peek().is_some() { entry.size() } else { ROOM - at };
        write_entry(&mut block, at, length, entry);
        at += length;
    }
    block.put16(ROOM + 4, TAIL as u16);
    block[ROOM + 7] = 0xDE;
    let checksum = crc32c(seed, &block[..ROOM]);
    block.put32(ROOM + 8, checksum);
    block
}

fn root(dots: &[DirectoryEntry; 2], levels: u8, index: &[(u32, u32)], seed: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    write_entry(&mut block, 0, 12, &dots[0]);
    write_entry(&mut block, 12, BLOCK as usize - 12, &dots[1]);
    // Half MD4; the length of this header.
    block[28] = 1;
    block[29] = 8;
    block[30] = levels;
    fill_index(&mut block, 32, ROOT_LIMIT, index, seed);
    block
}

fn node(index: &[(u32, u32)], seed: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    // Looks like an empty entry to those who do not know about the index.
    block.put16(4, BLOCK as u16);
    fill_index(&mut block, 8, NODE_LIMIT, index, seed);
    block
}

/// Limit and count take the place of the first hash, which is known from above.
fn fill_index(block: &mut [u8], start: usize, limit: usize, index: &[(u32, u32)], seed: u32) {
    for (slot, (hash, target)) in index.iter().enumerate() {
        block.put32(start + slot * 8, *hash);
        block.put32(start + slot * 8 + 4, *target);
    }
    block.put16(start, limit as u16);
    block.put16(start + 2, index.len() as u16);
    // The used part, then the tail with its checksum as zero.
    let checksum = crc32c(crc32c(seed, &block[..start + index.len() * 8]), &[0; 8]);
    block.put32(start + limit * 8 + 4, checksum);
}
