//! Reads ISO 9660 file systems: ECMA-119 (4th edition), with the names, owners, modes, times and links of Rock Ridge (SUSP
//! and RRIP 1.12).
//!
//! Supported: files of several extents, continuations of the system use area, symbolic links, devices; without Rock Ridge
//! the names of ECMA-119 as Linux shows them. Independent of `format::iso9660`.
//! Left out: Joliet, folders that Rock Ridge has moved elsewhere, interleaved files, volumes of several sets, hard links.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::listing::{FileData, Found, Item, Listing, Run};
use super::source::{SharedSource, Source};
use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::tree::{Meta, Mtime, TreePath, Xattrs};

const BLOCK: u64 = 2048;
const DESCRIPTORS: u64 = 16;
const PRIMARY: &[u8] = b"\x01CD001\x01";
/// What a hostile image can make us read: bytes of one folder, areas that continue one record, bytes of a link's target.
const LARGEST_FOLDER: u64 = 64 << 20;
const MOST_AREAS: usize = 32;
const LONGEST_TARGET: usize = 4096;

const FLAG_DIRECTORY: u8 = 0x02;
const FLAG_ASSOCIATED: u8 = 0x04;
const FLAG_MORE_EXTENTS: u8 = 0x80;

fn broken(what: impl std::fmt::Display) -> Error {
    Error::build(format!("the ISO 9660 file system is damaged: {what}"))
}

/// The little-endian half of a number that is there in both orders.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub struct Iso9660 {
    source: SharedSource,
    /// Without the spaces that fill it up.
    pub volume_id: String,
    /// Bytes of the volume.
    pub size: u64,
    root: Extent,
}

/// Where something lies, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Extent {
    start: u64,
    length: u64,
}

/// One record of a folder.
struct Record {
    extent: Extent,
    flags: u8,
    identifier: Vec<u8>,
    time: i64,
    system_use: Vec<u8>,
}

/// What Rock Ridge says of a record.
#[derive(Default)]
struct Posix {
    name: Option<Vec<u8>>,
    /// Type and mode, user, group.
    attributes: Option<(u32, u32, u32)>,
    modified: Option<i64>,
    target: Option<Vec<u8>>,
    device: Option<(u32, u32)>,
    moved: bool,
}

impl Iso9660 {
    pub fn probe(source: &dyn Source) -> bool {
        source.bytes(DESCRIPTORS * BLOCK, PRIMARY.len()).is_ok_and(|head| head == PRIMARY)
    }

    pub fn open(source: SharedSource) -> Result<Iso9660> {
        let volume = source.bytes(DESCRIPTORS * BLOCK, BLOCK as usize).context("reading the volume descriptor")?;
        let blocks = word(&volume, 80).unwrap_or_default();
        if volume[128..130] != [0, 8] {
            return Err(Error::build("an ISO 9660 file system with blocks of another size than 2048 cannot be read"));
        }
        let size = u64::from(blocks) * BLOCK;
        if size > source.size() {
            return Err(broken("it is cut off"));
        }
        let root = record(&volume[156..190])?.ok_or_else(|| broken("there is no root"))?;
        let volume_id = String::from_utf8_lossy(&volume[40..72]).trim_end().to_owned();
        Ok(Iso9660 { source, volume_id, size, root: root.extent })
    }

    /// Everything that can be reached from the root.
    pub fn listing(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        let mut folders = BTreeSet::from([self.root.start]);
        let mut todo = vec![(TreePath::root(), self.root)];
        while let Some((path, extent)) = todo.pop() {
            interrupt::check()?;
            let records = self.records(extent).with_context(|| format!("reading {path}"))?;
            let mut records = records.into_iter().peekable();
            while let Some(first) = records.next() {
                let (own, posix) = (first.identifier == [0], self.posix(&first)?);
                if first.identifier == [1] || posix.moved || first.flags & FLAG_ASSOCIATED != 0 {
                    continue;
                }
                if own {
                    if path.is_root() {
                        listing.insert(path.clone(), item(&first, &posix, Found::Directory))?;
                    }
                    continue;
                }
                let name = posix.name.clone().unwrap_or_else(|| plain_name(&first.identifier));
                if name.is_empty()
                    || name.contains(&b'/')
                    || name.contains(&0)
                    || [&b"."[..], b".."].contains(&&name[..])
                {
                    return Err(broken(format!("a name in {path} is impossible")));
                }
                let at = path.join(&name);
                let mut extents = vec![first.extent];
                let mut more = first.flags & FLAG_MORE_EXTENTS != 0;
                while more {
                    let next = records.next_if(|next| next.identifier == first.identifier);
                    let next = next.ok_or_else(|| broken(format!("{at} has no last extent")))?;
                    more = next.flags & FLAG_MORE_EXTENTS != 0;
                    extents.push(next.extent);
                }
                let found = self.found(&first, &posix, &extents).with_context(|| format!("reading {at}"))?;
                if matches!(found, Found::Directory) {
                    if !folders.insert(first.extent.start) {
                        return Err(broken(format!("{at} is a folder with two names")));
                    }
                    todo.push((at.clone(), first.extent));
                }
                listing.insert(at, item(&first, &posix, found))?;
            }
        }
        Ok(listing)
    }

    fn records(&self, extent: Extent) -> Result<Vec<Record>> {
        if extent.length > LARGEST_FOLDER {
            return Err(broken("a folder is impossibly large"));
        }
        let bytes = self.source.bytes(extent.start, extent.length as usize)?;
        let mut records = Vec::new();
        for block in bytes.chunks(BLOCK as usize) {
            let mut rest = block;
            // The rest of a block that no record fits into is zero.
            while let Some(length) = rest.first().map(|length| usize::from(*length)).filter(|length| *length > 0) {
                let own = rest.get(..length).ok_or_else(|| broken("a record reaches behind its block"))?;
                records.push(record(own)?.ok_or_else(|| broken("a record is too short"))?);
                rest = &rest[length..];
            }
        }
        Ok(records)
    }

    /// The fields of Rock Ridge, also those that lie elsewhere.
    fn posix(&self, record: &Record) -> Result<Posix> {
        let mut posix = Posix::default();
        let mut link = Link::default();
        let mut area = record.system_use.clone();
        for _ in 0..MOST_AREAS {
            let mut continued = None;
            let mut rest = &area[..];
            while rest.len() >= 4 {
                let length = usize::from(rest[2]);
                let Some(field) = rest.get(..length).filter(|_| length >= 4) else { break };
                match &field[..2] {
                    b"CE" => continued = word(field, 4).zip(word(field, 12)).zip(word(field, 20)),
                    b"ST" => break,
                    b"RE" => posix.moved = true,
                    b"CL" | b"PL" => return Err(broken("folders that were moved elsewhere cannot be read")),
                    _ => posix.take(field, &mut link)?,
                }
                rest = &rest[length..];
            }
            let Some(((block, offset), length)) = continued else {
                posix.target = link.target;
                return Ok(posix);
            };
            if u64::from(length) > BLOCK {
                return Err(broken("a record is continued by too much"));
            }
            area = self.source.bytes(u64::from(block) * BLOCK + u64::from(offset), length as usize)?;
        }
        Err(broken("a record is continued too often"))
    }

    fn found(&self, record: &Record, posix: &Posix, extents: &[Extent]) -> Result<Found> {
        let kind = posix.attributes.map_or(0, |(mode, _, _)| mode & 0o170_000);
        if record.flags & FLAG_DIRECTORY != 0 {
            return Ok(Found::Directory);
        }
        let device = || posix.device.ok_or_else(|| broken("a device has no number"));
        match (kind, &posix.target) {
            (0o120_000, Some(target)) => return Ok(Found::Symlink(target.clone())),
            (0o120_000, None) => return Err(broken("a symbolic link has no target")),
            (0o020_000, _) => return device().map(|(major, minor)| Found::CharDevice { major, minor }),
            (0o060_000, _) => return device().map(|(major, minor)| Found::BlockDevice { major, minor }),
            (0o010_000, _) => return Ok(Found::Fifo),
            (0o140_000, _) => return Ok(Found::Socket),
            _ => {}
        }
        let (mut size, mut runs): (u64, Vec<Run>) = (0, Vec::new());
        for extent in extents {
            if extent.start.checked_add(extent.length).is_none_or(|end| end > self.source.size()) {
                return Err(broken("a file reaches behind the end"));
            }
            match runs.last_mut() {
                Some(last) if last.physical + last.length == extent.start => last.length += extent.length,
                _ if extent.length > 0 => {
                    runs.push(Run { logical: size, physical: extent.start, length: extent.length })
                }
                _ => {}
            }
            size += extent.length;
        }
        Ok(Found::File(FileData { size, runs: runs.into(), source: self.source.clone() }))
    }

    /// What lies at an offset, and where that ends.
    pub fn explain(&self, offset: u64) -> Result<(String, u64)> {
        if offset < DESCRIPTORS * BLOCK {
            return Ok(("the system area of the ISO".to_owned(), DESCRIPTORS * BLOCK));
        }
        let (mut next, listing) = (self.source.size(), self.listing()?);
        for (path, item) in listing.iter() {
            let Found::File(data) = &item.found else { continue };
            for run in data.runs.iter() {
                if (run.physical..run.physical + run.length).contains(&offset) {
                    return Ok((format!("{path} on the medium"), run.physical + run.length));
                }
                if run.physical > offset {
                    next = next.min(run.physical);
                }
            }
        }
        Ok(("descriptors, folders or gaps of the ISO".to_owned(), next))
    }
}

/// One record; nothing if it is too short to be one.
fn record(bytes: &[u8]) -> Result<Option<Record>> {
    let Some(length) = bytes.get(32).map(|length| usize::from(*length)) else { return Ok(None) };
    let Some(identifier) = bytes.get(33..33 + length) else { return Ok(None) };
    let (Some(block), Some(size)) = (word(bytes, 2), word(bytes, 10)) else { return Ok(None) };
    if bytes[26] != 0 || bytes[27] != 0 {
        return Err(broken("an interleaved file cannot be read"));
    }
    // An extent may begin with attributes of its own.
    let start = (u64::from(block) + u64::from(bytes[1])) * BLOCK;
    let system_use = bytes.get((33 + length).next_multiple_of(2)..).unwrap_or_default().to_vec();
    Ok(Some(Record {
        extent: Extent { start, length: size.into() },
        flags: bytes[25],
        identifier: identifier.to_vec(),
        time: short_time(&bytes[18..25]),
        system_use,
    }))
}

/// As Linux shows names of ECMA-119: without version, in lower case.
fn plain_name(identifier: &[u8]) -> Vec<u8> {
    let name = identifier.split(|byte| *byte == b';').next().unwrap_or_default();
    name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase()
}

fn item(record: &Record, posix: &Posix, found: Found) -> Item {
    let folder = matches!(found, Found::Directory);
    let (mode, uid, gid) = posix.attributes.unwrap_or((if folder { 0o555 } else { 0o444 }, 0, 0));
    let mtime = Mtime { seconds: posix.modified.unwrap_or(record.time), nanoseconds: 0 };
    let meta = Meta { mode: (mode & 0o7777) as u16, uid, gid, mtime, xattrs: Xattrs::new() };
    Item { meta, found, number: record.extent.start / BLOCK }
}

/// A symbolic link's target as it is put together.
#[derive(Default)]
struct Link {
    target: Option<Vec<u8>>,
    /// The last component goes on in the next one.
    open: bool,
}

impl Link {
    fn add(&mut self, mut components: &[u8]) -> Result<()> {
        let target = self.target.get_or_insert_default();
        while let [flags, length, rest @ ..] = components {
            let text = rest.get(..usize::from(*length)).ok_or_else(|| broken("a symbolic link ends too early"))?;
            if !self.open && !target.is_empty() && !target.ends_with(b"/") {
                target.push(b'/');
            }
            match flags & 0x0E {
                0x02 => target.push(b'.'),
                0x04 => target.extend(b".."),
                0x08 => target.push(b'/'),
                _ => target.extend(text),
            }
            self.open = flags & 1 != 0;
            if target.len() > LONGEST_TARGET || text.contains(&0) {
                return Err(broken("a symbolic link is impossible"));
            }
            components = &rest[usize::from(*length)..];
        }
        Ok(())
    }
}

impl Posix {
    fn take(&mut self, field: &[u8], link: &mut Link) -> Result<()> {
        match &field[..2] {
            b"PX" => {
                self.attributes = word(field, 4).zip(word(field, 20)).zip(word(field, 28)).map(|((a, b), c)| (a, b, c))
            }
            b"PN" => self.device = word(field, 4).zip(word(field, 12)),
            // Names of the folder itself and of its parent are no names.
            b"NM" if field.len() >= 5 && field[4] & 0x06 == 0 => {
                self.name.get_or_insert_default().extend(&field[5..]);
            }
            b"SL" if field.len() >= 5 => link.add(&field[5..])?,
            b"TF" if field.len() >= 5 && field[4] & 0x02 != 0 => {
                let long = field[4] & 0x80 != 0;
                let length = if long { 17 } else { 7 };
                let start = 5 + if field[4] & 0x01 != 0 { length } else { 0 };
                self.modified = field.get(start..start + length).map(if long { long_time } else { short_time });
            }
            _ => {}
        }
        Ok(())
    }
}

/// 9.1.5: years since 1900, and the offset from GMT in quarters of an hour.
fn short_time(bytes: &[u8]) -> i64 {
    let [year, month, day, hour, minute, second, zone] =
        std::array::from_fn(|at| bytes.get(at).map_or(0, |byte| i64::from(*byte)));
    seconds([1900 + year, month, day, hour, minute, second], zone as u8)
}

/// 8.4.26.1: the same in digits.
fn long_time(bytes: &[u8]) -> i64 {
    let number = |from: usize, to: usize| {
        let digits = std::str::from_utf8(bytes.get(from..to).unwrap_or_default()).unwrap_or_default();
        digits.parse::<i64>().unwrap_or(0)
    };
    let fields = [number(0, 4), number(4, 6), number(6, 8), number(8, 10), number(10, 12), number(12, 14)];
    seconds(fields, bytes.get(16).copied().unwrap_or(0))
}

/// Days of the civil calendar, with years that start in March.
fn seconds([year, month, day, hour, minute, second]: [i64; 6], zone: u8) -> i64 {
    if !(1..=12).contains(&month) {
        return 0;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    days * 86_400 + hour * 3600 + minute * 60 + second - i64::from(zone as i8) * 900
}

/// One file of the medium as a source of its own.
pub struct OnMedium(FileData);

impl OnMedium {
    pub fn open(data: FileData) -> SharedSource {
        Arc::new(OnMedium(data))
    }
}

impl Source for OnMedium {
    fn size(&self) -> u64 {
        self.0.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        crate::tree::ReadAt::read_at(&self.0, buffer, offset)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::format::disk::sums::{Digests, State};
    use crate::format::iso9660::{Options, Plan, seed};
    use crate::inspect::source::{MemorySource, Patched};
    use crate::tree::{Digest, Tree};

    const EPOCH: i64 = 1_700_000_000;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    /// What our writer makes of a Tree, with a payload of zeros.
    fn image(tree: &Tree) -> Vec<u8> {
        let options = Options {
            volume_id: "config-2".into(),
            time: EPOCH,
            disk_guid: Uuid::nil(),
            esp_guid: Uuid::nil(),
            bios: None,
            esp: None,
            payload: path("live/filesystem.squashfs"),
        };
        let plan = Plan::new(tree, options).unwrap();
        let frame = plan.frame(5000).unwrap();
        let mut bytes = vec![0; frame.disk.size() as usize];
        frame.disk.read_at(&mut bytes, 0).unwrap();
        let area = plan.seed_area(&frame, Uuid::nil(), Digest::of(b""), State::start(Digests::BOTH));
        let files = seed::Files::from([("user_data".to_owned(), b"#cloud-config\r\n".to_vec())]);
        let area = area.unwrap().encode(&files).unwrap();
        bytes[frame.seed_offset as usize..][..area.len()].copy_from_slice(&area);
        bytes
    }

    fn tree() -> Tree {
        let mut tree = Tree::new();
        let meta =
            Meta { mtime: Mtime { seconds: EPOCH - 5, nanoseconds: 0 }, uid: 7, gid: 70_000, ..Meta::root(0o640) };
        for number in 0..200 {
            let at = path(&format!("many/a rather long name of file number {number}.With.Dots"));
            tree.write_file(&at, format!("{number}"), meta.clone(), &"t".into()).unwrap();
        }
        tree.write_file(&path("empty"), "", meta, &"t".into()).unwrap();
        for (name, target) in [("a", "/absolute/../x"), ("b", "../up/./here"), ("c", "/"), ("d", "plain")] {
            tree.write_symlink(&path(&format!("links/{name}")), target, Mtime::default(), &"t".into()).unwrap();
        }
        tree
    }

    fn read(bytes: Vec<u8>) -> Result<Listing> {
        Iso9660::open(Arc::new(MemorySource(bytes)))?.listing()
    }

    #[test]
    fn what_our_writer_has_written_is_read() {
        let tree = tree();
        let bytes = image(&tree);
        assert!(Iso9660::probe(&MemorySource(bytes.clone())) && !Iso9660::probe(&MemorySource(vec![0; 1 << 20])));
        let iso = Iso9660::open(Arc::new(MemorySource(bytes.clone()))).unwrap();
        assert_eq!((iso.volume_id.as_str(), iso.size), ("config-2", bytes.len() as u64));
        let found = iso.listing().unwrap().tree(&"t".into()).unwrap();
        for (at, entry) in tree.iter().filter(|(at, _)| !at.is_root()) {
            let other = found.get(at).unwrap_or_else(|| panic!("{at} is missing"));
            assert_eq!(other.kind, entry.kind, "{at}");
            let of = |meta: &Meta| (meta.mode, meta.uid, meta.gid, meta.mtime.seconds);
            assert_eq!(of(&other.meta), of(&entry.meta), "{at}");
        }
        let user_data = path("openstack/latest/user_data");
        assert_eq!(found.read_file(&user_data).unwrap().unwrap(), b"#cloud-config\r\n");
        assert!(found.contains(&path("live/filesystem.squashfs")));
        let Found::File(data) = &iso.listing().unwrap().get(&user_data).unwrap().found.clone() else { panic!() };
        let (name, end) = iso.explain(data.runs[0].physical + 3).unwrap();
        assert_eq!((name.as_str(), end), ("/openstack/latest/user_data on the medium", data.runs[0].physical + 15));
    }

    /// A file whose size needs two records.
    #[test]
    fn extents_of_one_file_are_put_together() {
        let sectors = |at: u32, length: u32, more: bool| {
            let mut record = vec![0; 40];
            record[0] = 40;
            record[2..6].copy_from_slice(&at.to_le_bytes());
            record[10..14].copy_from_slice(&length.to_le_bytes());
            record[25] = if more { FLAG_MORE_EXTENTS } else { 0 };
            record[32] = 3;
            record[33..36].copy_from_slice(b"A;1");
            record
        };
        let mut bytes = vec![0; 30 * 2048];
        let at = 16 * 2048;
        bytes[at..at + 7].copy_from_slice(PRIMARY);
        bytes[at + 80..at + 84].copy_from_slice(&30u32.to_le_bytes());
        bytes[at + 128..at + 130].copy_from_slice(&[0, 8]);
        bytes[at + 158..at + 162].copy_from_slice(&18u32.to_le_bytes());
        bytes[at + 166..at + 170].copy_from_slice(&2048u32.to_le_bytes());
        bytes[at + 188] = 1;
        let records = [sectors(20, 4096, true), sectors(25, 10, false)].concat();
        bytes[18 * 2048..][..records.len()].copy_from_slice(&records);
        bytes[25 * 2048] = 9;
        let listing = read(bytes.clone()).unwrap();
        let Found::File(data) = &listing.get(&path("a")).unwrap().found else { panic!() };
        assert_eq!((data.size, data.runs.len()), (4106, 2));
        assert_eq!(data.bytes(5000).unwrap()[4096], 9);
        // The last one is missing.
        bytes[18 * 2048 + 40 + 25] = FLAG_MORE_EXTENTS;
        assert!(read(bytes).is_err());
    }

    #[test]
    fn no_damaged_byte_stops_more_than_the_reader() {
        let base = Arc::new(image(&tree()));
        let head: Vec<u64> = (16 * 2048..16 * 2048 + 256).chain((18 * 2048..40 * 2048).step_by(97)).collect();
        for at in head {
            for value in [0, 0x7F, 0xFF] {
                let source: SharedSource = Arc::new(Patched { base: base.clone(), patches: vec![(at, value)] });
                // An error or another listing, never a panic or an endless walk.
                _ = Iso9660::open(source).and_then(|iso| iso.listing());
            }
        }
    }
}
