//! Extended attributes, in the inode or in a block of their own ("Extended Attributes").

use super::crc32c::crc32c;
use super::format::{BLOCK, INODE, INODE_XATTRS, Put};
use crate::error::{Error, Result};
use crate::tree::Xattrs;

const MAGIC: u32 = 0xEA02_0000;
const BLOCK_HEADER: usize = 32;
/// Names that start like this are stored as a number and the rest; longer ones first.
const PREFIXES: [(&[u8], u8); 6] = [
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
    (b"system.", 7),
];

/// One attribute as it is stored.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    index: u8,
    name_length: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Where the attributes of a file go.
pub enum Placed {
    InInode(Vec<u8>),
    /// The block but for its checksum, which depends on its number.
    InBlock(Vec<u8>),
}

pub fn place(xattrs: &Xattrs) -> Result<Placed> {
    if xattrs.is_empty() {
        return Ok(Placed::InInode(Vec::new()));
    }
    let mut attributes = xattrs.iter().map(|(name, value)| attribute(name, value)).collect::<Result<Vec<_>>>()?;
    attributes.sort();
    let room = INODE as usize - INODE_XATTRS;
    if 4 + size(&attributes) <= room {
        let mut out = vec![0; room];
        out.put32(0, MAGIC);
        // Value offsets count from the first entry.
        fill(&mut out[4..], 0, &attributes, false);
        return Ok(Placed::InInode(out));
    }
    if BLOCK_HEADER + size(&attributes) > BLOCK as usize {
        return Err(Error::build("extended attributes of more than one block"));
    }
    let mut out = vec![0; BLOCK as usize];
    out.put32(0, MAGIC);
    // One inode uses it, it is one block long.
    out.put32(4, 1);
    out.put32(8, 1);
    let hash = fill(&mut out, BLOCK_HEADER, &attributes, true);
    out.put32(12, hash);
    Ok(Placed::InBlock(out))
}

/// Completes a block once its place is known.
pub fn seal(block: &mut [u8], number: u64, seed: u32) {
    let checksum = crc32c(crc32c(seed, &number.to_le_bytes()), block);
    block.put32(16, checksum);
}

fn attribute(name: &[u8], value: &[u8]) -> Result<Attribute> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    let found = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    let Some((prefix, index)) = found else {
        return Err(Error::build(format!("ext4 cannot hold the extended attribute `{}`", shown())));
    };
    let name = name[prefix.len()..].to_vec();
    let acl = matches!(index, 2 | 3);
    if name.len() > 255 || acl != name.is_empty() {
        return Err(Error::build(format!("ext4 cannot hold the extended attribute `{}`", shown())));
    }
    let value =
        if acl { acl_on_disk(value).ok_or_else(|| Error::build("malformed access list"))? } else { value.to_vec() };
    Ok(Attribute { index: *index, name_length: name.len(), name, value })
}

/// From the form of the system calls (version 2, each entry with an id) to that of ext4 (version 1, only named users
/// and groups have one).
fn acl_on_disk(value: &[u8]) -> Option<Vec<u8>> {
    let (version, entries) = value.split_at_checked(4)?;
    if version != 2u32.to_le_bytes() || entries.len() % 8 != 0 {
        return None;
    }
    let mut out = 1u32.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(8) {
        let named = matches!(entry[0], 0x02 | 0x08);
        out.extend(if named { entry } else { &entry[..4] });
    }
    Some(out)
}

/// Entries, the four zero bytes behind them, and values.
fn size(attributes: &[Attribute]) -> usize {
    attributes.iter().map(|one| entry_size(one) + one.value.len().next_multiple_of(4)).sum::<usize>() + 4
}

fn entry_size(attribute: &Attribute) -> usize {
    (16 + attribute.name.len()).next_multiple_of(4)
}

/// Entries from `start` up, values from the end down. Returns the hash over all entries.
fn fill(out: &mut [u8], start: usize, attributes: &[Attribute], hashed: bool) -> u32 {
    let mut at = start;
    let mut end = out.len();
    let mut all = 0u32;
    for attribute in attributes {
        let length = attribute.value.len();
        end -= length.next_multiple_of(4);
        out[end..end + length].copy_from_slice(&attribute.value);
        let entry = &mut out[at..];
        entry[0] = attribute.name.len() as u8;
        entry[1] = attribute.index;
        entry.put16(2, if length == 0 { 0 } else { end as u16 });
        entry.put32(8, length as u32);
        let hash = if hashed { entry_hash(attribute) } else { 0 };
        entry.put32(12, hash);
        entry[16..16 + attribute.name.len()].copy_from_slice(&attribute.name);
        at += entry_size(attribute);
        all = all.rotate_left(16) ^ hash;
    }
    all
}

fn entry_hash(attribute: &Attribute) -> u32 {
    let name = attribute.name.iter().fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    attribute.value.chunks(4).fold(name, |hash, bytes| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}
