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

/// The kernel's limit for a value (`XATTR_SIZE_MAX`, linux/limits.h).
const LARGEST: usize = 65_536;

/// One attribute as it is stored.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    index: u8,
    name_length: usize,
    name: Vec<u8>,
    value: Vec<u8>,
    /// The value has an inode of its own ("ea_inode").
    outside: bool,
}

/// A value in an inode of its own.
pub struct Outside {
    pub value: Vec<u8>,
    /// Of the value; the inode has it, too.
    pub hash: u32,
    /// Where the entry has the number of that inode.
    at: usize,
}

/// Where the attributes of a file go.
#[derive(Default)]
pub struct Placed {
    inline: Vec<u8>,
    block: Option<Vec<u8>>,
    pub outside: Vec<Outside>,
}

/// Finds room for attributes: in the inode, else in a block, else, where allowed, the largest values outside.
pub fn place(xattrs: &Xattrs, seed: u32, ea_inode: bool) -> Result<Placed> {
    if xattrs.is_empty() {
        return Ok(Placed::default());
    }
    let mut attributes = xattrs.iter().map(|(name, value)| attribute(name, value)).collect::<Result<Vec<_>>>()?;
    attributes.sort();
    while BLOCK_HEADER + size(&attributes) > BLOCK as usize {
        let largest = attributes.iter_mut().filter(|one| !one.outside).max_by_key(|one| one.value.len());
        match largest.filter(|one| ea_inode && one.value.len() > 4) {
            Some(one) => one.outside = true,
            None => {
                return Err(Error::build("extended attributes of more than one block of 4096 bytes do not fit")
                    .hint("fewer or shorter attributes fit on every file system that GRUB reads; on others ext4 takes values up to 64 KiB"));
            }
        }
    }
    let room = INODE as usize - INODE_XATTRS;
    if 4 + size(&attributes) <= room {
        let mut out = vec![0; room];
        out.put32(0, MAGIC);
        // Value offsets count from the first entry.
        let (_, mut outside) = fill(&mut out[4..], 0, &attributes, false, seed);
        outside.iter_mut().for_each(|one| one.at += 4);
        return Ok(Placed { inline: out, block: None, outside });
    }
    let mut out = vec![0; BLOCK as usize];
    out.put32(0, MAGIC);
    // One inode uses it, it is one block long.
    out.put32(4, 1);
    out.put32(8, 1);
    let (hash, outside) = fill(&mut out, BLOCK_HEADER, &attributes, true, seed);
    out.put32(12, hash);
    Ok(Placed { inline: Vec::new(), block: Some(out), outside })
}

impl Placed {
    pub fn needs_block(&self) -> bool {
        self.block.is_some()
    }

    /// Says which inodes the outside values have: from `first` on.
    pub fn number(&mut self, first: u32) {
        let out = self.block.as_mut().unwrap_or(&mut self.inline);
        for (value, number) in self.outside.iter().zip(first..) {
            out.put32(value.at, number);
        }
    }

    /// What lies in the inode, and the block but for its checksum, which depends on its place.
    pub fn parts(self) -> (Vec<u8>, Option<Vec<u8>>) {
        (self.inline, self.block)
    }
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
    if value.len() > LARGEST {
        return Err(Error::build(format!("the extended attribute `{}` has more than 64 KiB", shown())));
    }
    Ok(Attribute { index: *index, name_length: name.len(), name, value, outside: false })
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
    attributes.iter().map(|one| entry_size(one) + inside(one).len().next_multiple_of(4)).sum::<usize>() + 4
}

fn entry_size(attribute: &Attribute) -> usize {
    (16 + attribute.name.len()).next_multiple_of(4)
}

/// The value as far as it lies with the entries.
fn inside(attribute: &Attribute) -> &[u8] {
    if attribute.outside { &[] } else { &attribute.value }
}

/// Entries from `start` up, values from the end down. Returns the hash over all entries, and what lies outside.
fn fill(out: &mut [u8], start: usize, attributes: &[Attribute], hashed: bool, seed: u32) -> (u32, Vec<Outside>) {
    let (mut at, mut end) = (start, out.len());
    let (mut all, mut outside) = (0u32, Vec::new());
    for attribute in attributes {
        let value = inside(attribute);
        end -= value.len().next_multiple_of(4);
        out[end..end + value.len()].copy_from_slice(value);
        let entry = &mut out[at..];
        entry[0] = attribute.name.len() as u8;
        entry[1] = attribute.index;
        entry.put16(2, if value.is_empty() { 0 } else { end as u16 });
        entry.put32(8, attribute.value.len() as u32);
        let hash = if attribute.outside {
            let hash = crc32c(seed, &attribute.value);
            outside.push(Outside { value: attribute.value.clone(), hash, at: at + 4 });
            entry_hash(attribute, &hash.to_le_bytes())
        } else if hashed {
            entry_hash(attribute, value)
        } else {
            0
        };
        entry.put32(12, hash);
        entry[16..16 + attribute.name.len()].copy_from_slice(&attribute.name);
        at += entry_size(attribute);
        all = all.rotate_left(16) ^ hash;
    }
    (all, outside)
}

fn entry_hash(attribute: &Attribute, value: &[u8]) -> u32 {
    let name = attribute.name.iter().fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    value.chunks(4).fold(name, |hash, bytes| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}
