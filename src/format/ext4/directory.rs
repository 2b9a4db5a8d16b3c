//! The blocks of a directory: one block as a list, more as a hash tree ("Linear Directories", "Hash Tree
//! Directories").

use super::crc32c::crc32c;
use super::format::{BLOCK, Put};
use super::hash::half_md4;
use crate::error::{Error, Result};
use crate::tree::Kind;

/// File types of entries ("Directory file types").
pub const TYPE_FILE: u8 = 1;
pub const TYPE_DIRECTORY: u8 = 2;
pub const TYPE_CHAR: u8 = 3;
pub const TYPE_BLOCK: u8 = 4;
pub const TYPE_FIFO: u8 = 5;
pub const TYPE_SOCKET: u8 = 6;
pub const TYPE_SYMLINK: u8 = 7;

/// As directories say it.
pub fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::Directory => TYPE_DIRECTORY,
        Kind::File(_) | Kind::HardLink(_) => TYPE_FILE,
        Kind::Symlink(_) => TYPE_SYMLINK,
        Kind::CharDevice { .. } => TYPE_CHAR,
        Kind::BlockDevice { .. } => TYPE_BLOCK,
        Kind::Fifo => TYPE_FIFO,
        Kind::Socket => TYPE_SOCKET,
    }
}

/// The pseudo entry at the end of a block that holds its checksum.
const TAIL: usize = 12;
const ROOM: usize = BLOCK as usize - TAIL;
/// Leaves of a hash tree keep some room, so that a package upgrade does not split them at once.
const FILL: usize = ROOM * 7 / 8;
/// Entries of eight bytes in the root and in the nodes of the index, with eight bytes for the checksum.
const ROOT_LIMIT: usize = (BLOCK as usize - 32 - 8) / 8;
const NODE_LIMIT: usize = (BLOCK as usize - 8 - 8) / 8;

/// A name in a folder. The inode is a place in the list of nodes; its number is known when all have their places.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryEntry<'a> {
    pub node: usize,
    pub file_type: u8,
    pub name: &'a [u8],
}

impl DirectoryEntry<'_> {
    fn size(&self) -> usize {
        (8 + self.name.len()).next_multiple_of(4)
    }
}

type Hashed<'a> = (u32, DirectoryEntry<'a>);

/// How the entries of a directory are spread over its blocks.
pub struct Shape<'a> {
    leaves: Vec<Vec<DirectoryEntry<'a>>>,
    /// Hash at the start of each leaf, with the lowest bit set when the leaf before ends with the same.
    hashes: Vec<u32>,
}

/// What a directory must know of its inode to be written.
pub struct Identity<'a> {
    pub inode: u32,
    pub parent: u32,
    /// Starts its checksums.
    pub seed: u32,
    /// The number of a node.
    pub number: &'a dyn Fn(usize) -> u32,
}

impl<'a> Shape<'a> {
    pub fn new(entries: Vec<DirectoryEntry<'a>>, hash_seed: &[u8; 16]) -> Result<Shape<'a>> {
        if let Some(long) = entries.iter().find(|entry| entry.name.len() > 255) {
            let name = String::from_utf8_lossy(long.name).into_owned();
            return Err(Error::build(format!("the name `{name}` is longer than 255 bytes")));
        }
        // `.` and `..` take twelve bytes each.
        if 24 + entries.iter().map(DirectoryEntry::size).sum::<usize>() <= ROOM {
            return Ok(Shape { leaves: vec![entries], hashes: Vec::new() });
        }
        let mut hashed: Vec<((u32, u32), DirectoryEntry<'a>)> =
            entries.into_iter().map(|entry| (half_md4(entry.name, hash_seed), entry)).collect();
        hashed.sort_by(|a, b| (a.0, a.1.name).cmp(&(b.0, b.1.name)));
        let hashed: Vec<Hashed<'a>> = hashed.into_iter().map(|((major, _), entry)| (major, entry)).collect();
        let mut shape = Shape { leaves: Vec::new(), hashes: Vec::new() };
        shape.split(&hashed, 0, 1 << 32);
        if shape.leaves.len() > ROOT_LIMIT * NODE_LIMIT {
            return Err(Error::build("a directory has too many entries"));
        }
        Ok(shape)
    }

    /// Entries with hashes in a range of `width`: one leaf, or the halves of the range. So a new name changes the leaf it
    /// goes to and no other.
    fn split(&mut self, hashed: &[Hashed<'a>], start: u32, width: u64) {
        let size: usize = hashed.iter().map(|(_, entry)| entry.size()).sum();
        if size <= FILL {
            return self.leaf(hashed.iter().map(|(_, entry)| *entry), start, false);
        }
        // The lowest bit of a hash is never set.
        if width > 2 {
            let middle = start + (width / 2) as u32;
            let (low, high) = hashed.split_at(hashed.partition_point(|(hash, _)| *hash < middle));
            self.split(low, start, width / 2);
            return self.split(high, middle, width / 2);
        }
        let (mut rest, mut continued) = (hashed, false);
        while !rest.is_empty() {
            let mut used = 0;
            let fits = |(_, entry): &&Hashed<'a>| {
                used += entry.size();
                used <= FILL
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count());
            self.leaf(now.iter().map(|(_, entry)| *entry), start, continued);
            (rest, continued) = (later, true);
        }
    }

    /// Ranges without entries need no leaf: the one before stands for them, too. The first leaf starts at zero.
    fn leaf(&mut self, entries: impl Iterator<Item = DirectoryEntry<'a>>, start: u32, continued: bool) {
        let entries: Vec<DirectoryEntry<'a>> = entries.collect();
        if !entries.is_empty() {
            self.hashes.push(if self.leaves.is_empty() { 0 } else { start | u32::from(continued) });
            self.leaves.push(entries);
        }
    }

    /// Blocks of the index nodes below the root; none while the root can point to all leaves.
    fn nodes(&self) -> usize {
        if self.leaves.len() <= ROOT_LIMIT { 0 } else { self.leaves.len().div_ceil(NODE_LIMIT) }
    }

    pub fn indexed(&self) -> bool {
        !self.hashes.is_empty()
    }

    /// How many blocks the directory has.
    pub fn blocks(&self) -> u64 {
        if self.indexed() { (1 + self.nodes() + self.leaves.len()) as u64 } else { 1 }
    }

    /// The blocks, in logical order.
    pub fn encode(&self, identity: &Identity<'_>) -> Vec<Vec<u8>> {
        let seed = identity.seed;
        let dot = |inode, name| Written { inode, file_type: TYPE_DIRECTORY, name };
        let dots = [dot(identity.inode, b".".as_slice()), dot(identity.parent, b"..".as_slice())];
        let written = |entry: &DirectoryEntry<'a>| Written {
            inode: (identity.number)(entry.node),
            file_type: entry.file_type,
            name: entry.name,
        };
        if !self.indexed() {
            return vec![leaf(dots.into_iter().chain(self.leaves[0].iter().map(written)), seed)];
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
        blocks.extend(self.leaves.iter().map(|entries| leaf(entries.iter().map(written), seed)));
        blocks
    }
}

/// An entry with its inode number.
#[derive(Clone, Copy)]
struct Written<'a> {
    inode: u32,
    file_type: u8,
    name: &'a [u8],
}

fn write_entry(block: &mut [u8], at: usize, length: usize, entry: &Written<'_>) {
    let out = &mut block[at..];
    out.put32(0, entry.inode);
    out.put16(4, length as u16);
    out[6] = entry.name.len() as u8;
    out[7] = entry.file_type;
    out[8..8 + entry.name.len()].copy_from_slice(entry.name);
}

/// A leaf without entries.
pub fn empty_leaf(seed: u32) -> Vec<u8> {
    leaf(std::iter::empty(), seed)
}

/// Entries one after the other; the last one takes what is left.
fn leaf<'a>(entries: impl Iterator<Item = Written<'a>>, seed: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    let mut entries = entries.peekable();
    let mut at = 0;
    if entries.peek().is_none() {
        block.put16(4, ROOM as u16);
    }
    while let Some(entry) = entries.next() {
        let size = (8 + entry.name.len()).next_multiple_of(4);
        let length = if entries.peek().is_some() { size } else { ROOM - at };
        write_entry(&mut block, at, length, &entry);
        at += length;
    }
    block.put16(ROOM + 4, TAIL as u16);
    block[ROOM + 7] = 0xDE;
    let checksum = crc32c(seed, &block[..ROOM]);
    block.put32(ROOM + 8, checksum);
    block
}

fn root(dots: &[Written<'_>; 2], levels: u8, index: &[(u32, u32)], seed: u32) -> Vec<u8> {
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
