//! The part of an image that differs from site to site, and how it is replaced.
//!
//! Owns: [`Area`]: [`CAPACITY`] bytes at a place that does not depend on what is in them. Its first block is the
//! [`Label`], the second the records of [`FOLDER`], then come the files, each from a block of its own; the rest is zero.
//! [`Area::find`] reads the area of an image that may be anything.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::format::{BLOCK, FIRST_DESCRIPTOR, Posix, Record, Time, attributes, name};
use super::layout::MIB;
use super::names;
use super::write::Records;
use crate::error::{Error, Kind, Result};
use crate::format::disk::sums::State;
use crate::tree::{Digest, ReadAt};

/// The folder that the seed is, as config drives have it.
pub const FOLDER: &str = "openstack/latest";
/// Bytes of the whole area. What cloud-init reads is seldom a hundredth of this.
pub const CAPACITY: u64 = 8 * MIB;
/// Of the area.
pub(super) const RECORDS_BLOCK: u32 = 1;
const FILES_BLOCK: u64 = 2;

const MAGIC: &[u8; 16] = b"IMAGEBUILDERSEED";
const VERSION: u32 = 1;
/// Of the label: what its own digest covers.
const SUMMED: usize = 168;
/// A seed holds passwords and keys.
const FILE_MODE: u32 = 0o100_400;
/// Serial numbers behind those of all other files.
const FIRST_SERIAL: u32 = 1 << 24;
/// Of a folder on the way to the seed.
const LARGEST_FOLDER: u32 = 1 << 20;

/// The files of a seed by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What the rest of the image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Of what the image belongs to: identifiers of the seed derive from it.
    pub identity: Uuid,
    /// Digest of everything that decides the bytes outside of the area.
    pub base: Digest,
    /// Of every file of the seed, in seconds since the epoch.
    pub time: i64,
    /// The digests of the image up to the area.
    pub state: State,
    /// Of what is behind the area.
    pub tail: Digest,
}

/// The seed's place in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    pub label: Label,
    /// In bytes from the start of the image.
    pub offset: u64,
    /// The records of the folder itself and its parent, which no seed changes.
    fixed: Vec<u8>,
}

impl Area {
    pub(super) fn new(label: Label, offset: u64, fixed: Vec<u8>) -> Area {
        Area { label, offset, fixed }
    }

    /// The bytes of the area with these files in it.
    pub fn encode(&self, files: &Files) -> Result<Vec<u8>> {
        let first = self.offset / BLOCK;
        let mut next = FILES_BLOCK;
        let mut records = Records::default();
        records.bytes.extend(&self.fixed);
        let mut contents = Vec::new();
        for (file, identifier, serial) in sorted(files)? {
            let bytes = &files[file];
            let posix = Posix { mode: FILE_MODE, links: 1, uid: 0, gid: 0, serial };
            let time = Time::new(self.label.time);
            let system_use = [attributes(posix, time), name(file.as_bytes())].concat();
            let block = u32::try_from(first + next).map_err(|_| Error::build("the seed lies too far behind"))?;
            let size = bytes.len() as u32;
            let record = Record { identifier: &identifier, block, size, time, flags: 0, system_use: &system_use };
            records.push(record.encode());
            contents.push((next * BLOCK, bytes));
            next += (bytes.len() as u64).div_ceil(BLOCK);
        }
        if next * BLOCK > CAPACITY || records.bytes.len() as u64 > BLOCK {
            let room = CAPACITY - FILES_BLOCK * BLOCK;
            return Err(Error::new(Kind::Space, format!("the seed is larger than its place, {room} bytes"))
                .hint("put large files into the image (`files`), or let cloud-init download them"));
        }
        let mut out = self.label.encode(self.label.state)?;
        out.extend(&records.bytes);
        out.resize(CAPACITY as usize, 0);
        for (offset, bytes) in contents {
            out[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        }
        Ok(out)
    }

    /// The area of a finished image of `size` bytes.
    pub fn find(image: &dyn ReadAt, size: u64) -> Result<Area> {
        let not_ours = || {
            Error::documents("this is no ISO image with a place for a seed")
                .hint("only images that `imagebuilder` has built have one")
        };
        let volume = block(image, FIRST_DESCRIPTOR, size)?.ok_or_else(not_ours)?;
        if &volume[..7] != b"\x01CD001\x01" {
            return Err(not_ours());
        }
        let mut folder = entry(&volume[156..190]).ok_or_else(not_ours)?;
        for part in [&b"OPENSTACK"[..], b"LATEST"] {
            folder = child(image, size, folder, part)?.ok_or_else(not_ours)?;
        }
        let records_block = u64::from(folder.block);
        let label_block = records_block.checked_sub(u64::from(RECORDS_BLOCK)).ok_or_else(not_ours)?;
        let offset = label_block * BLOCK;
        let label = block(image, label_block, size)?.ok_or_else(not_ours)?;
        let label = Label::decode(&label)?.ok_or_else(not_ours)?;
        if label.state.length() != offset || offset.checked_add(CAPACITY).is_none_or(|end| end > size) {
            return Err(not_ours());
        }
        let records = block(image, records_block, size)?.ok_or_else(not_ours)?;
        let own = usize::from(records[0]);
        let length = own + usize::from(records.get(own).copied().unwrap_or(0));
        let fixed = records.get(..length).filter(|_| own >= 34 && length > own).ok_or_else(not_ours)?.to_vec();
        Ok(Area { label, offset, fixed })
    }

    /// The files that are in the area of a finished image.
    pub fn files(&self, image: &dyn ReadAt, size: u64) -> Result<Files> {
        let damaged = || Error::build("the seed of the image is damaged");
        let records = block(image, self.offset / BLOCK + u64::from(RECORDS_BLOCK), size)?.ok_or_else(damaged)?;
        let mut files = Files::new();
        for (name, entry) in entries(&records[self.fixed.len()..]) {
            let start = u64::from(entry.block) * BLOCK;
            let end = start + u64::from(entry.size);
            if start < self.offset || end > self.offset + CAPACITY {
                return Err(damaged());
            }
            let mut bytes = vec![0; entry.size as usize];
            image.read_at(&mut bytes, start)?;
            files.insert(name.ok_or_else(damaged)?, bytes);
        }
        Ok(files)
    }
}

impl Label {
    fn encode(&self, state: State) -> Result<Vec<u8>> {
        let state = state.encode().ok_or_else(|| Error::build("the seed's place needs both checksums"))?;
        let mut out = Vec::with_capacity(BLOCK as usize);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(((CAPACITY / BLOCK) as u32).to_le_bytes());
        out.extend(self.identity.as_bytes());
        out.extend(self.base.as_bytes());
        out.extend(self.time.to_le_bytes());
        out.extend(state);
        out.extend(self.tail.as_bytes());
        let sum = Sha256::digest(&out);
        out.extend(sum);
        out.resize(BLOCK as usize, 0);
        Ok(out)
    }

    /// `None` if it is none; an error if it is damaged or newer than this program.
    fn decode(block: &[u8]) -> Result<Option<Label>> {
        let (summed, rest) = block.split_at(SUMMED);
        if &summed[..16] != MAGIC {
            return Ok(None);
        }
        if Sha256::digest(summed).as_slice() != &rest[..32] {
            return Err(Error::new(Kind::Authenticity, "the label of the seed's place is damaged"));
        }
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| summed[at + byte]));
        if word(16) != VERSION || u64::from(word(20)) * BLOCK != CAPACITY {
            return Err(Error::documents("the image has a place for a seed that this version cannot write")
                .hint("use the version of `imagebuilder` that has built the image"));
        }
        let state = State::decode(&summed[80..136]);
        let state = state.ok_or_else(|| Error::build("the label of the seed's place is malformed"))?;
        Ok(Some(Label {
            identity: Uuid::from_bytes(std::array::from_fn(|byte| summed[24 + byte])),
            base: Digest::from_bytes(std::array::from_fn(|byte| summed[40 + byte])),
            time: i64::from_le_bytes(std::array::from_fn(|byte| summed[72 + byte])),
            state,
            tail: Digest::from_bytes(std::array::from_fn(|byte| summed[136 + byte])),
        }))
    }
}

/// Names, identifiers and serial numbers, in the order of the identifiers.
fn sorted(files: &Files) -> Result<Vec<(&String, Vec<u8>, u32)>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if let Some(bad) = files.keys().find(|name| name.is_empty() || name.len() > 64 || !name.chars().all(plain)) {
        return Err(Error::documents(format!("`{}` is not a name for a file of the seed", bad.escape_default())));
    }
    let names: Vec<(&[u8], bool)> = files.keys().map(|name| (name.as_bytes(), false)).collect();
    let identifiers = names::identifiers(&names)?;
    let mut out: Vec<_> =
        files.keys().zip(identifiers).zip(FIRST_SERIAL..).map(|((name, id), serial)| (name, id, serial)).collect();
    out.sort_by_key(|(_, identifier, _)| names::key(identifier));
    Ok(out)
}

/// What a record says about a file or folder.
#[derive(Debug, Clone, Copy)]
struct Place {
    block: u32,
    size: u32,
}

/// A block of the image, `None` if it lies behind its end.
fn block(image: &dyn ReadAt, number: u64, size: u64) -> Result<Option<Vec<u8>>> {
    let offset = number * BLOCK;
    if offset + BLOCK > size {
        return Ok(None);
    }
    let mut bytes = vec![0; BLOCK as usize];
    image.read_at(&mut bytes, offset)?;
    Ok(Some(bytes))
}

fn entry(record: &[u8]) -> Option<Place> {
    let word = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
    Some(Place { block: word(2)?, size: word(10)? })
}

/// The child of a folder with that identifier.
fn child(image: &dyn ReadAt, size: u64, folder: Place, identifier: &[u8]) -> Result<Option<Place>> {
    for number in 0..u64::from(folder.size.min(LARGEST_FOLDER)).div_ceil(BLOCK) {
        let Some(records) = block(image, u64::from(folder.block) + number, size)? else { return Ok(None) };
        let mut rest = &records[..];
        while let Some((record, behind)) = next(rest) {
            if own_identifier(record) == Some(identifier) {
                return Ok(entry(record));
            }
            rest = behind;
        }
    }
    Ok(None)
}

/// The first record, and what follows it.
fn next(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(*bytes.first()?);
    (length >= 34 && length <= bytes.len()).then(|| bytes.split_at(length))
}

fn own_identifier(record: &[u8]) -> Option<&[u8]> {
    record.get(33..33 + usize::from(*record.get(32)?))
}

/// All records of a block, with their Rock Ridge names.
fn entries(mut bytes: &[u8]) -> impl Iterator<Item = (Option<String>, Place)> + '_ {
    std::iter::from_fn(move || {
        let (record, behind) = next(bytes)?;
        bytes = behind;
        Some((posix_name(record), entry(record)?))
    })
}

fn posix_name(record: &[u8]) -> Option<String> {
    let start = (33 + own_identifier(record)?.len()).next_multiple_of(2);
    let mut rest = record.get(start..)?;
    while rest.len() >= 5 {
        let length = usize::from(rest[2]);
        let field = rest.get(..length).filter(|_| length >= 4)?;
        if field.starts_with(b"NM") {
            return String::from_utf8(field.get(5..)?.to_vec()).ok();
        }
        rest = &rest[length..];
    }
    None
}
