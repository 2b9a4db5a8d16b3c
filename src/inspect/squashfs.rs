//! Reads squashfs 4.0 file systems: kernel documentation, filesystems/squashfs; fs/squashfs/squashfs_fs.h.
//!
//! Supported: gzip, lz4, xz and zstd, with or without options; all inodes in both forms, fragments, extended attributes,
//! values of theirs that lie elsewhere. Independent of `format::squashfs`.
//! Left out: lzo and lzma; the index of directories and the export table, which nothing here needs.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use super::listing::{FileData, Found, Item, Listing, Run};
use super::source::{SharedSource, Source};
use crate::error::{Context, Error, Result};
use crate::tree::{Meta, Mtime, TreePath, Xattrs};

const MAGIC: &[u8] = b"hsqs";
const METADATA: usize = 8192;
const NONE: u32 = u32::MAX;
/// What a hostile image can make us keep in memory of one inode.
const MOST_BLOCKS: u64 = 1 << 24;
const MOST_XATTRS: u32 = 1 << 16;
const LONGEST_VALUE: usize = 1 << 16;

fn broken(what: impl std::fmt::Display) -> Error {
    Error::build(format!("the squashfs is damaged: {what}"))
}

/// Little-endian numbers one after another.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn number(&mut self, bytes: usize) -> u64 {
        // Callers cut the bytes to the size of the structure first; behind its end there are zeros.
        let (now, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        now.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
    fn u16(&mut self) -> u16 {
        self.number(2) as u16
    }
    fn u32(&mut self) -> u32 {
        self.number(4) as u32
    }
    fn u64(&mut self) -> u64 {
        self.number(8)
    }
}

/// Where the pairs of all sets of attributes begin; place and number of pairs of each set.
type XattrSets = (u64, Vec<(u64, u32)>);
/// The block unpacked last, by its place.
type Unpacked = Option<(u64, Arc<Vec<u8>>)>;

/// What all readers of one file system share.
struct Volume {
    source: SharedSource,
    compressor: u16,
    block_size: u32,
    /// Start and size of each.
    fragments: Vec<(u64, u32)>,
    /// The block unpacked last: neighbours in a fragment are read one after another.
    last: Mutex<Unpacked>,
}

pub struct Squashfs {
    volume: Arc<Volume>,
    pub compression: &'static str,
    /// Of gzip and zstd.
    pub level: Option<u32>,
    /// Bytes of the file system.
    pub size: u64,
    inodes: u32,
    root: u64,
    inode_table: u64,
    directory_table: u64,
    ids: Vec<u32>,
    xattrs: XattrSets,
}

impl Squashfs {
    pub fn probe(source: &dyn Source) -> bool {
        source.bytes(0, 4).is_ok_and(|magic| magic == MAGIC)
    }

    pub fn open(source: SharedSource) -> Result<Squashfs> {
        let bytes = source.bytes(0, 96).context("reading the superblock")?;
        let mut fields = Fields(&bytes[4..]);
        let (inodes, _time, block_size, fragments) = (fields.u32(), fields.u32(), fields.u32(), fields.u32());
        let (compressor, log, flags, ids) = (fields.u16(), fields.u16(), fields.u16(), fields.u16());
        let (major, minor, root, size) = (fields.u16(), fields.u16(), fields.u64(), fields.u64());
        let (id_table, xattr_table, inode_table, directory_table) =
            (fields.u64(), fields.u64(), fields.u64(), fields.u64());
        let fragment_table = fields.u64();
        if (major, minor) != (4, 0) {
            return Err(Error::build(format!("squashfs {major}.{minor} cannot be read")).hint("version 4.0 can"));
        }
        if !(4096..=1 << 20).contains(&block_size) || block_size.checked_shr(u32::from(log)) != Some(1) {
            return Err(broken("its block size is impossible"));
        }
        if size > source.size() {
            return Err(broken("it is cut off"));
        }
        let compression = match compressor {
            1 => "gzip",
            4 => "xz",
            5 => "lz4",
            6 => "zstd",
            _ => return Err(Error::build(format!("a squashfs with compressor {compressor} cannot be read"))),
        };
        let level = level(&*source, compressor, flags)?;
        let volume = Volume { source, compressor, block_size, fragments: Vec::new(), last: Mutex::default() };
        let table = volume.table(fragment_table, u64::from(fragments), 16).context("reading the fragments")?;
        let fragments = table.chunks_exact(16).map(|entry| {
            let mut fields = Fields(entry);
            (fields.u64(), fields.u32())
        });
        let fragments = fragments.collect();
        let ids = volume.table(id_table, u64::from(ids), 4).context("reading the owners")?;
        let ids = ids.chunks_exact(4).map(|id| Fields(id).u32()).collect();
        let xattrs = volume.xattr_sets(xattr_table).context("reading the extended attributes")?;
        let volume = Arc::new(Volume { fragments, ..volume });
        Ok(Squashfs { volume, compression, level, size, inodes, root, inode_table, directory_table, ids, xattrs })
    }

    /// Everything that can be reached from the root.
    pub fn listing(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        let mut folders = BTreeSet::new();
        let mut todo = vec![(TreePath::root(), self.root)];
        while let Some((path, place)) = todo.pop() {
            crate::interrupt::check()?;
            let context = || format!("reading {path}");
            let (item, folder) = self.inode(place).with_context(context)?;
            if let Some(folder) = folder {
                if !folders.insert(place) {
                    return Err(broken(format!("{path} is a folder with two names")));
                }
                for (name, place) in self.names(&folder).with_context(context)? {
                    todo.push((path.join(&name), place));
                }
            } else if path.is_root() {
                return Err(broken("the root is not a folder"));
            }
            listing.insert(path, item)?;
        }
        listing.link_names();
        Ok(listing)
    }

    fn inode(&self, place: u64) -> Result<(Item, Option<Folder>)> {
        let mut at = Cursor::new(&self.volume, self.inode_table, place)?;
        let head = at.take(16)?;
        let mut fields = Fields(&head);
        let (kind, mode, uid, gid, time, number) =
            (fields.u16(), fields.u16(), fields.u16(), fields.u16(), fields.u32(), fields.u32());
        if number == 0 || number > self.inodes {
            return Err(broken(format!("inode {number} does not exist")));
        }
        let owner = |index: u16| {
            self.ids.get(usize::from(index)).copied().ok_or_else(|| broken(format!("inode {number} has no owner")))
        };
        let long = kind > 7;
        let mut folder = None;
        let (found, xattrs) = match if long { kind - 7 } else { kind } {
            1 => {
                let (made, xattrs) = self.folder(&mut at, long)?;
                folder = Some(made);
                (Found::Directory, xattrs)
            }
            2 => self.file(&mut at, long)?,
            3 => {
                at.take(4)?;
                let length = Fields(&at.take(4)?).u32() as usize;
                if length == 0 || length > 65_535 {
                    return Err(broken(format!("the symbolic link in inode {number} has an impossible size")));
                }
                let target = at.take(length)?;
                if target.contains(&0) {
                    return Err(broken(format!("the symbolic link in inode {number} has an impossible target")));
                }
                (Found::Symlink(target), at.xattrs(long)?)
            }
            kind @ (4 | 5) => {
                at.take(4)?;
                let device = Fields(&at.take(4)?).u32();
                let (major, minor) = (device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00);
                let found =
                    if kind == 4 { Found::BlockDevice { major, minor } } else { Found::CharDevice { major, minor } };
                (found, at.xattrs(long)?)
            }
            kind @ (6 | 7) => {
                at.take(4)?;
                (if kind == 6 { Found::Fifo } else { Found::Socket }, at.xattrs(long)?)
            }
            _ => return Err(broken(format!("inode {number} has no known type"))),
        };
        let meta = Meta {
            mode: mode & 0o7777,
            uid: owner(uid)?,
            gid: owner(gid)?,
            mtime: Mtime { seconds: i64::from(time), nanoseconds: 0 },
            xattrs: self.attributes(xattrs)?,
        };
        Ok((Item { meta, found, number: u64::from(number) }, folder))
    }

    fn folder(&self, at: &mut Cursor<'_>, long: bool) -> Result<(Folder, u32)> {
        let bytes = at.take(if long { 24 } else { 16 })?;
        let mut fields = Fields(&bytes);
        if long {
            let (_links, size, block, _parent) = (fields.u32(), fields.u32(), fields.u32(), fields.u32());
            let (_count, offset, xattrs) = (fields.u16(), fields.u16(), fields.u32());
            return Ok((Folder { block, offset, size }, xattrs));
        }
        let (block, _links, size, offset) = (fields.u32(), fields.u32(), fields.u16(), fields.u16());
        Ok((Folder { block, offset, size: size.into() }, NONE))
    }

    fn file(&self, at: &mut Cursor<'_>, long: bool) -> Result<(Found, u32)> {
        let bytes = at.take(if long { 40 } else { 16 })?;
        let mut fields = Fields(&bytes);
        let (start, size, fragment, offset, xattrs) = if long {
            let (start, size, _sparse, _links) = (fields.u64(), fields.u64(), fields.u64(), fields.u32());
            (start, size, fields.u32(), fields.u32(), fields.u32())
        } else {
            let (start, fragment, offset, size) = (fields.u32(), fields.u32(), fields.u32(), fields.u32());
            (start.into(), size.into(), fragment, offset, NONE)
        };
        let block_size = u64::from(self.volume.block_size);
        let whole = if fragment == NONE { size.div_ceil(block_size) } else { size / block_size };
        if whole > MOST_BLOCKS {
            return Err(broken("a file has an impossible size"));
        }
        let mut blocks = Vec::with_capacity(whole as usize);
        let mut place = start;
        for _ in 0..whole {
            let stored = Fields(&at.take(4)?).u32();
            blocks.push((place, stored));
            place = place.saturating_add(u64::from(stored & 0x00FF_FFFF));
        }
        let tail = match fragment {
            NONE => None,
            index => {
                let found = self.volume.fragments.get(index as usize).copied();
                Some((found.ok_or_else(|| broken(format!("fragment {index} does not exist")))?, offset))
            }
        };
        let bytes: SharedSource = Arc::new(Bytes { volume: self.volume.clone(), size, blocks, tail });
        let runs = if size == 0 { Vec::new() } else { vec![Run { logical: 0, physical: 0, length: size }] };
        Ok((Found::File(FileData { size, runs: runs.into(), source: bytes }), xattrs))
    }

    /// Names and places of inodes.
    fn names(&self, folder: &Folder) -> Result<Vec<(Vec<u8>, u64)>> {
        // The two names that are not listed count for three bytes.
        let mut left = u64::from(folder.size.saturating_sub(3));
        let mut names: Vec<(Vec<u8>, u64)> = Vec::new();
        if left == 0 {
            return Ok(names);
        }
        let place = u64::from(folder.block) << 16 | u64::from(folder.offset);
        let mut at = Cursor::new(&self.volume, self.directory_table, place)?;
        let mut spend = |bytes: u64| -> Result<()> {
            left = left.checked_sub(bytes).ok_or_else(|| broken("a directory ends within an entry"))?;
            Ok(())
        };
        while spend(12).is_ok() {
            let head = at.take(12)?;
            let mut fields = Fields(&head);
            let (count, block) = (fields.u32(), fields.u32());
            if count >= 256 {
                return Err(broken("a directory has too many entries behind one header"));
            }
            for _ in 0..=count {
                spend(8)?;
                let entry = at.take(8)?;
                let mut fields = Fields(&entry);
                let (offset, _delta, _kind, length) = (fields.u16(), fields.u16(), fields.u16(), fields.u16());
                let length = usize::from(length) + 1;
                spend(length as u64)?;
                let name = at.take(length)?;
                if name.contains(&b'/') || name.contains(&0) || [&b"."[..], b".."].contains(&name.as_slice()) {
                    return Err(broken("a name is impossible"));
                }
                names.push((name, u64::from(block) << 16 | u64::from(offset)));
            }
        }
        Ok(names)
    }

    fn attributes(&self, set: u32) -> Result<Xattrs> {
        let mut xattrs = Xattrs::new();
        if set == NONE {
            return Ok(xattrs);
        }
        let (start, sets) = &self.xattrs;
        let (place, count) = *sets.get(set as usize).ok_or_else(|| broken("a set of attributes does not exist"))?;
        let mut at = Cursor::new(&self.volume, *start, place)?;
        for _ in 0..count.min(MOST_XATTRS) {
            let head = at.take(4)?;
            let mut fields = Fields(&head);
            let (kind, length) = (fields.u16(), fields.u16());
            let prefix = match kind & 0xFF {
                0 => "user.",
                1 => "trusted.",
                2 => "security.",
                _ => return Err(broken("an attribute has no known prefix")),
            };
            let name = [prefix.as_bytes(), &at.take(usize::from(length))?].concat();
            let length = Fields(&at.take(4)?).u32() as usize;
            if length > LONGEST_VALUE {
                return Err(broken("an attribute is too long"));
            }
            let mut value = at.take(length)?;
            if kind & 0x100 != 0 {
                let mut at = Cursor::new(&self.volume, *start, Fields(&value).u64())?;
                let length = Fields(&at.take(4)?).u32() as usize;
                if length > LONGEST_VALUE {
                    return Err(broken("an attribute is too long"));
                }
                value = at.take(length)?;
            }
            xattrs.insert(name, value);
        }
        Ok(xattrs)
    }
}

/// Of the compressor: the usual one, unless the options behind the superblock say something else.
fn level(source: &dyn Source, compressor: u16, flags: u16) -> Result<Option<u32>> {
    const OPTIONS: u16 = 0x0400;
    let usual = match compressor {
        1 => 9,
        6 => 15,
        _ => return Ok(None),
    };
    if flags & OPTIONS == 0 {
        return Ok(Some(usual));
    }
    let bytes = source.bytes(96, 6).context("reading the options of the compressor")?;
    Ok(Some(Fields(&bytes[2..]).u32()))
}

struct Folder {
    block: u32,
    offset: u16,
    size: u32,
}

impl Volume {
    fn unpack(&self, bytes: &[u8], most: usize) -> Result<Vec<u8>> {
        let context = "unpacking a block";
        let mut out = Vec::new();
        let limit = most as u64 + 1;
        match self.compressor {
            1 => drop(flate2::read::ZlibDecoder::new(bytes).take(limit).read_to_end(&mut out).context(context)?),
            4 => drop(liblzma::read::XzDecoder::new(bytes).take(limit).read_to_end(&mut out).context(context)?),
            5 => out = lz4_flex::block::decompress(bytes, most).map_err(std::io::Error::other).context(context)?,
            _ => {
                let decoder = zstd::Decoder::new(bytes).context(context)?;
                decoder.take(limit).read_to_end(&mut out).context(context)?;
            }
        }
        if out.len() > most { Err(broken("a block is too large")) } else { Ok(out) }
    }

    /// A metadata block and the place of the next one.
    fn metadata(&self, at: u64) -> Result<(Vec<u8>, u64)> {
        let header = Fields(&self.source.bytes(at, 2)?).u16();
        let length = usize::from(header & 0x7FFF);
        if length == 0 || length > METADATA {
            return Err(broken(format!("the metadata block at {at} has an impossible size")));
        }
        let bytes = self.source.bytes(at + 2, length)?;
        let bytes = if header & 0x8000 != 0 { bytes } else { self.unpack(&bytes, METADATA)? };
        Ok((bytes, at + 2 + length as u64))
    }

    /// A table whose blocks are named by a list.
    fn table(&self, list: u64, count: u64, width: u64) -> Result<Vec<u8>> {
        let size = count * width;
        let blocks = size.div_ceil(METADATA as u64);
        let list = self.source.bytes(list, (blocks * 8) as usize).or_else(|error| match blocks {
            0 => Ok(Vec::new()),
            _ => Err(error),
        })?;
        let mut out = Vec::new();
        for place in list.chunks_exact(8) {
            out.extend(self.metadata(Fields(place).u64())?.0);
        }
        if (out.len() as u64) < size {
            return Err(broken("a table is too short"));
        }
        out.truncate(size as usize);
        Ok(out)
    }

    fn xattr_sets(&self, table: u64) -> Result<XattrSets> {
        if table == u64::MAX {
            return Ok((0, Vec::new()));
        }
        let head = self.source.bytes(table, 16)?;
        let mut fields = Fields(&head);
        let (start, count) = (fields.u64(), fields.u32());
        let sets = self.table(table + 16, count.into(), 16)?;
        let sets = sets.chunks_exact(16).map(|set| {
            let mut fields = Fields(set);
            (fields.u64(), fields.u32())
        });
        Ok((start, sets.collect()))
    }

    /// A block of data; `size` is what comes out.
    fn data(&self, place: u64, stored: u32, size: usize) -> Result<Arc<Vec<u8>>> {
        let length = (stored & 0x00FF_FFFF) as usize;
        if length == 0 {
            return Ok(Arc::new(vec![0; size]));
        }
        if length > self.block_size as usize {
            return Err(broken(format!("the block at {place} has an impossible size")));
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, known)) = last.filter(|(at, known)| *at == place && known.len() >= size) {
            return Ok(known);
        }
        let bytes = self.source.bytes(place, length)?;
        let bytes = if stored & 1 << 24 != 0 { bytes } else { self.unpack(&bytes, self.block_size as usize)? };
        if bytes.len() < size {
            return Err(broken(format!("the block at {place} is too short")));
        }
        let bytes = Arc::new(bytes);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((place, bytes.clone()));
        Ok(bytes)
    }
}

/// Reads on in a table of metadata blocks.
struct Cursor<'a> {
    volume: &'a Volume,
    bytes: Vec<u8>,
    offset: usize,
    next: u64,
}

impl<'a> Cursor<'a> {
    fn new(volume: &'a Volume, table: u64, place: u64) -> Result<Self> {
        let at = table.checked_add(place >> 16).ok_or_else(|| broken("a place lies behind the end"))?;
        let (bytes, next) = volume.metadata(at)?;
        Ok(Cursor { volume, bytes, offset: (place & 0xFFFF) as usize, next })
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < length {
            if self.offset >= self.bytes.len() {
                self.offset -= self.bytes.len();
                (self.bytes, self.next) = self.volume.metadata(self.next)?;
                if self.offset >= self.bytes.len() {
                    return Err(broken("a place lies behind its block"));
                }
            }
            let taken = (length - out.len()).min(self.bytes.len() - self.offset);
            out.extend_from_slice(&self.bytes[self.offset..self.offset + taken]);
            self.offset += taken;
        }
        Ok(out)
    }

    /// The last field of long inodes but directories and files.
    fn xattrs(&mut self, long: bool) -> Result<u32> {
        if long { Ok(Fields(&self.take(4)?).u32()) } else { Ok(NONE) }
    }
}

/// The content of a file, unpacked as it is read.
struct Bytes {
    volume: Arc<Volume>,
    size: u64,
    /// Place and stored size of each.
    blocks: Vec<(u64, u32)>,
    /// A fragment and where in it the rest of the file begins.
    tail: Option<((u64, u32), u32)>,
}

impl Source for Bytes {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        super::source::check(self.size, offset, buffer.len())?;
        let block_size = u64::from(self.volume.block_size);
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let (index, skip) = (at / block_size, (at % block_size) as usize);
            let size = (self.size - index * block_size).min(block_size) as usize;
            let length = (size - skip).min(buffer.len() - done);
            let target = &mut buffer[done..done + length];
            match (self.blocks.get(index as usize), self.tail) {
                (Some((place, stored)), _) => {
                    let bytes = self.volume.data(*place, *stored, size)?;
                    target.copy_from_slice(&bytes[skip..skip + length]);
                }
                (None, Some(((place, stored), start))) => {
                    let start = start as usize;
                    let end = start.checked_add(size).filter(|end| *end <= block_size as usize);
                    let end = end.ok_or_else(|| broken("a file lies behind the end of its fragment"))?;
                    let bytes = self.volume.data(place, stored, end)?;
                    target.copy_from_slice(&bytes[start + skip..start + skip + length]);
                }
                (None, None) => return Err(broken("a file has too few blocks")),
            }
            done += length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::squashfs::{Compression, Options, write};
    use crate::inspect::source::{FileSource, MemorySource};
    use crate::tree::{Content, Entry, Kind, Tree};

    fn noise(length: usize) -> Vec<u8> {
        let digest = |at: usize| *crate::tree::Digest::of(&at.to_le_bytes()).as_bytes();
        (0..length.div_ceil(32)).flat_map(digest).take(length).collect()
    }

    fn zoo() -> Tree {
        let mut tree = Tree::new();
        let mut put = |path: &str, kind: Kind| {
            let mtime = Mtime { seconds: 1_600_000_000, nanoseconds: 0 };
            let meta = Meta { mtime, uid: 70_000, gid: 12, ..Meta::root(0o4751) };
            let path = TreePath::new(path).unwrap();
            tree.put(&path, Entry { meta, kind, origin: "t".into() }).unwrap();
        };
        for size in [0, 1, 4095, 4096, 4097, 131_071, 131_072, 131_073, 1_000_000] {
            put(&format!("noise/{size}"), Kind::File(Content::inline(noise(size))));
            put(&format!("words/{size}"), Kind::File(Content::inline(b"word ".repeat(size / 5 + 1))));
            put(&format!("zeros/{size}"), Kind::File(Content::inline(vec![0; size])));
        }
        let mut sparse = vec![0; 3_500_000];
        sparse[2_000_000..2_000_300].fill(7);
        put("zeros/sparse", Kind::File(Content::inline(sparse)));
        put("zlink", Kind::HardLink(TreePath::literal("noise/1")));
        put("link", Kind::Symlink(b"../x".to_vec()));
        put("dev/null", Kind::CharDevice { major: 1, minor: 3 });
        put("dev/large", Kind::BlockDevice { major: 259, minor: 70_000 });
        put("dev/fifo", Kind::Fifo);
        put("dev/socket", Kind::Socket);
        for number in 0..1500 {
            put(&format!("many/a-file-with-a-name-{number}"), Kind::File(Content::inline(vec![number as u8; 9])));
        }
        for (path, name, value) in [
            ("noise/1", "security.capability", vec![1; 20]),
            ("many", "user.on-a-folder", Vec::new()),
            ("dev/fifo", "trusted.long", noise(30_000)),
            ("link", "trusted.on-a-link", b"x".to_vec()),
        ] {
            let entry = tree.get_mut(&TreePath::new(path).unwrap()).unwrap();
            entry.meta.xattrs.insert(name.as_bytes().to_vec(), value);
        }
        let link = tree.get(&TreePath::literal("noise/1")).unwrap().meta.clone();
        tree.get_mut(&TreePath::literal("zlink")).unwrap().meta = link;
        tree
    }

    #[test]
    fn what_was_written_is_read() {
        let tree = zoo();
        for (name, block_size) in [("zstd", 1 << 17), ("lz4", 4096), ("xz", 1 << 20), ("gzip", 1 << 16)] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let compression = Compression::named(name, None).unwrap();
            let options = Options { compression, block_size, ..Options::default() };
            write(&tree, file.as_file(), 0, &options, &|_| ()).unwrap();
            let source: SharedSource = Arc::new(FileSource::open(file.path()).unwrap());
            let read = Squashfs::open(source).unwrap();
            assert_eq!(read.compression, name);
            let read = read.listing().unwrap().tree(&"read".into()).unwrap();
            for (path, entry) in tree.iter() {
                let found = read.get(path).unwrap_or_else(|| panic!("{name}: {path} is not there"));
                assert!(
                    (&found.meta, &found.kind) == (&entry.meta, &entry.kind),
                    "{name}: {path}: {found:?} {entry:?}"
                );
            }
            assert_eq!(read.digest(), tree.digest(), "{name}");
        }
    }

    #[test]
    fn damage_is_an_error_and_no_panic() {
        let mut tree = Tree::new();
        for number in 0..40u8 {
            let meta = Meta { xattrs: [(b"user.x".to_vec(), vec![number])].into(), ..Meta::root(0o644) };
            let kind = Kind::File(Content::inline(vec![number; 5000]));
            let path = TreePath::new(format!("folder/{number}")).unwrap();
            tree.put(&path, Entry { meta, kind, origin: "t".into() }).unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let options = Options { compression: Compression::Lz4, block_size: 4096, ..Options::default() };
        write(&tree, file.as_file(), 0, &options, &|_| ()).unwrap();
        let good = std::fs::read(file.path()).unwrap();
        let mut refused = 0;
        for at in (0..good.len()).step_by(7) {
            for change in [0x01, 0xFF] {
                let mut bytes = good.clone();
                bytes[at] ^= change;
                let Ok(opened) = Squashfs::open(Arc::new(MemorySource(bytes))) else {
                    refused += 1;
                    continue;
                };
                let read = opened.listing().and_then(|listing| listing.tree(&"damaged".into()));
                refused += usize::from(read.is_err());
            }
        }
        assert!(refused > 20, "{refused}");
        for length in [0, 3, 95, 96, 200, good.len() / 2] {
            assert!(Squashfs::open(Arc::new(MemorySource(good[..length].to_vec()))).is_err(), "{length}");
        }
    }
}
