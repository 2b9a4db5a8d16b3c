//! What else is kept of a step's inputs, to be found by a digest: records that refer to contents in pack files.
//!
//! Owns: [`Record`] and the files `<id>.records-v1` of the store. What a record's own bytes mean is up to who keeps it
//! (packages: `package::kept`). A file holds the records of one step:
//!
//! ```text
//! one line of JSON    the packs that are referred to, the records with their places and digests
//! 64 digits, newline  SHA-256 of that line, in hexadecimal
//! the records         contents (digest, size, pack, offset, holes), then the bytes; numbers are little-endian
//! ```
//!
//! The line is compared when a file is first looked at, a record when it is read, a content when its bytes are read. A
//! file that is damaged, or misses a pack, is of no use: it is set aside, and its things are made again from what they
//! were made of. Another version of the format has another name.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::codec::Packs;
use super::holes::{BLOCK, SHORTEST};
use super::{Content, Digest, PackFile};
use crate::error::{Context, Error, Result};

/// Ending of the files. Its number is raised whenever a saved record would be read as something else.
pub const EXTENSION: &str = "records-v1";
/// A header names some packs and some thousand records.
const HEADER_BYTES: u64 = 64 << 20;
/// Digest and newline after the header.
const TRAILER: u64 = 65;
/// The list of files of a very large package has some MiB.
const RECORD_BYTES: u64 = 256 << 20;

/// What is kept under a digest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    pub bytes: Vec<u8>,
    /// In pack files. The bytes name them by position.
    pub contents: Vec<Content>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// Name and length of each pack file.
    packs: Vec<(String, u64)>,
    records: Vec<Line>,
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    /// From the end of the trailer.
    offset: u64,
    length: u64,
    sha256: String,
}

/// One file, looked at.
#[derive(Debug)]
struct Shelf {
    path: PathBuf,
    file: File,
    packs: Vec<(String, u64)>,
    /// Where the records begin.
    start: u64,
    used: bool,
}

/// Where one record lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    shelf: usize,
    offset: u64,
    length: u64,
    sha256: Digest,
}

/// All records of a store.
#[derive(Debug, Default)]
pub(super) struct Records {
    shelves: Vec<Shelf>,
    /// Only looked up, never iterated.
    places: HashMap<Digest, Place>,
}

/// The bytes of a file of records.
pub(super) fn encode(records: &BTreeMap<Digest, Record>) -> Result<Vec<u8>> {
    let (mut packs, mut body, mut lines) = (Packs::default(), Vec::new(), Vec::new());
    for (key, record) in records {
        let start = body.len();
        put(&mut body, record.contents.len() as u64);
        for content in &record.contents {
            let (pack, offset) = content.segment().ok_or_else(|| Error::build("content is not in a pack file"))?;
            body.extend_from_slice(content.digest().as_bytes());
            put(&mut body, content.size());
            put(&mut body, packs.index_of(pack)? as u64);
            put(&mut body, offset);
            put(&mut body, content.holes().len() as u64);
            for hole in content.holes() {
                put(&mut body, hole.start);
                put(&mut body, hole.end);
            }
        }
        body.extend_from_slice(&record.bytes);
        let sha256 = Digest::of(&body[start..]).to_hex();
        lines.push(Line { key: key.to_hex(), offset: start as u64, length: (body.len() - start) as u64, sha256 });
    }
    // Plain structs with text keys, which `serde_json` cannot refuse.
    let header = Header { packs: packs.take(), records: lines };
    let mut out = serde_json::to_vec(&header).expect("plain data serialises to memory");
    out.push(b'\n');
    let digest = Digest::of(&out);
    out.extend_from_slice(digest.to_hex().as_bytes());
    out.push(b'\n');
    out.append(&mut body);
    Ok(out)
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn damaged(what: &str) -> Error {
    Error::build(format!("not a whole file of records: {what}"))
}

/// The header of a file, and how many bytes it takes.
fn header(file: &File) -> Result<(Header, u64)> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(file.take(HEADER_BYTES));
    reader.read_until(b'\n', &mut line).context("reading records")?;
    let mut trailer = [0; TRAILER as usize];
    reader.read_exact(&mut trailer).map_err(|_| damaged("cut off"))?;
    if trailer[..] != *format!("{}\n", Digest::of(&line)).as_bytes() {
        return Err(damaged("wrong checksum"));
    }
    let header = serde_json::from_slice(&line).map_err(|error| damaged(&error.to_string()))?;
    Ok((header, line.len() as u64 + TRAILER))
}

/// The names of the packs that a file refers to; none if it cannot be read, for then nobody uses it.
pub(super) fn packs_of(path: &Path) -> Option<Vec<String>> {
    let file = File::open(path).ok()?;
    Some(header(&file).ok()?.0.packs.into_iter().map(|(name, _)| name).collect())
}

/// The digests under which a file keeps something.
pub fn keys_of(path: &Path) -> Result<Vec<Digest>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let lines = header(&file)?.0.records;
    lines.iter().map(|line| Digest::from_hex(&line.key).ok_or_else(|| damaged("bad key"))).collect()
}

impl Records {
    /// Looks at a file. What is in it counts from now on.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let (header, start) = header(&file)?;
        let room = file.metadata().context("looking at its size")?.len().saturating_sub(start);
        let shelf = self.shelves.len();
        let mut places = Vec::with_capacity(header.records.len());
        for line in header.records {
            let digest = |text: &str| Digest::from_hex(text).ok_or_else(|| damaged("bad digest"));
            let place = Place { shelf, offset: line.offset, length: line.length, sha256: digest(&line.sha256)? };
            if line.offset.checked_add(line.length).is_none_or(|end| end > room) || line.length > RECORD_BYTES {
                return Err(damaged("a record lies outside"));
            }
            places.push((digest(&line.key)?, place));
        }
        self.places.extend(places);
        self.shelves.push(Shelf { path: path.to_owned(), file, packs: header.packs, start, used: false });
        Ok(())
    }

    pub fn has(&self, key: Digest) -> bool {
        self.places.contains_key(&key)
    }

    /// A record. `open` finds a pack by name and compares its length. The error goes with the file that it is about.
    pub fn read(
        &mut self,
        key: Digest,
        mut open: impl FnMut(&str, u64) -> Result<Arc<PackFile>>,
    ) -> std::result::Result<Option<Record>, (PathBuf, Error)> {
        let Some(place) = self.places.get(&key).copied() else { return Ok(None) };
        let shelf = &mut self.shelves[place.shelf];
        if !std::mem::replace(&mut shelf.used, true) {
            // Says when it was used last. Where that fails it only seems older than it is.
            _ = shelf.file.set_modified(std::time::SystemTime::now());
        }
        let mut read = || -> Result<Record> {
            let mut bytes = vec![0; place.length as usize];
            shelf.file.read_exact_at(&mut bytes, shelf.start + place.offset).context("reading a record")?;
            if Digest::of(&bytes) != place.sha256 {
                return Err(damaged("a record has changed"));
            }
            let mut packs = Vec::with_capacity(shelf.packs.len());
            for (name, length) in &shelf.packs {
                packs.push((open(name, *length)?, *length));
            }
            decode(&bytes, &packs)
        };
        match read() {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                let path = shelf.path.clone();
                self.places.retain(|_, other| other.shelf != place.shelf);
                Err((path, error))
            }
        }
    }

    /// Forgets what refers to packs of these names, and says in which files that was.
    pub fn forget(&mut self, gone: &[String]) -> Vec<PathBuf> {
        let hit = |shelf: &Shelf| shelf.packs.iter().any(|(name, _)| gone.contains(name));
        let shelves: Vec<bool> = self.shelves.iter().map(hit).collect();
        self.places.retain(|_, place| !shelves[place.shelf]);
        self.shelves.iter().zip(shelves).filter(|(_, hit)| *hit).map(|(shelf, _)| shelf.path.clone()).collect()
    }
}

/// Takes a record apart.
fn decode(bytes: &[u8], packs: &[(Arc<PackFile>, u64)]) -> Result<Record> {
    let mut reader = Reader(bytes);
    let count = reader.number()?;
    let mut contents = Vec::new();
    for _ in 0..count {
        let digest = Digest::from_bytes(reader.array()?);
        let (size, pack, offset) = (reader.number()?, reader.number()?, reader.number()?);
        let pack = usize::try_from(pack).ok().and_then(|pack| packs.get(pack));
        let (pack, length) = pack.ok_or_else(|| damaged("unknown pack"))?;
        if offset.checked_add(size).is_none_or(|end| end > *length) {
            return Err(damaged("content outside of its pack"));
        }
        let (mut holes, mut after) = (Vec::new(), 0);
        for _ in 0..reader.number()? {
            let hole = reader.number()?..reader.number()?;
            let inside = hole.start >= after && hole.end <= size && hole.start % BLOCK == 0;
            if !inside || hole.start.checked_add(SHORTEST).is_none_or(|least| hole.end < least) {
                return Err(damaged("bad hole"));
            }
            after = hole.end;
            holes.push(hole);
        }
        contents.push(Content::packed(digest, size, pack.clone(), offset).with_holes(holes));
    }
    Ok(Record { bytes: reader.0.to_vec(), contents })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk().ok_or_else(|| damaged("a record is cut off"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Whether a file of the store is one of records, of this version or of another.
pub fn is_records(path: &Path) -> Option<bool> {
    let extension = path.extension()?.to_str()?;
    extension.starts_with("records-v").then_some(extension == EXTENSION)
}

/// The files of records in a store's folder, by name, so that what is found does not depend on the order of the folder.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| is_records(path) == Some(true));
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::super::store::{self, Store};
    use super::super::{Entry, Kind, Meta, Tree, TreePath};
    use super::*;

    fn key(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    /// A step that keeps two records; one content lies in a sparse file, one in the pack of `below`.
    fn save(store: &Store, name: &str, below: Option<&Tree>) -> Tree {
        let writer = store.writer(key(name)).unwrap();
        below.iter().for_each(|below| writer.known(below));
        let contents = [&b"shared"[..], name.as_bytes(), &vec![0; 2 << 20]].map(|bytes| writer.add(bytes).unwrap());
        let record = Record { bytes: name.as_bytes().to_vec(), contents: contents.to_vec() };
        writer.keep(key(&format!("record {name}")), record);
        writer.keep(key(&format!("empty {name}")), Record::default());
        let mut tree = Tree::new();
        let kind = Kind::File(contents[0].clone());
        let entry = Entry { meta: Meta::root(0o644), kind, origin: "test".into() };
        tree.insert_raw(TreePath::literal("shared"), entry);
        writer.save(&tree).unwrap()
    }

    fn check(store: &Store, name: &str) {
        let record = store.record(key(&format!("record {name}"))).unwrap();
        assert_eq!(record.bytes, name.as_bytes());
        let bytes: Vec<Vec<u8>> = record.contents.iter().map(|content| content.bytes().unwrap()).collect();
        assert_eq!(bytes, [b"shared".to_vec(), name.as_bytes().to_vec(), vec![0; 2 << 20]]);
        assert_eq!(record.contents[2].holes(), std::slice::from_ref(&(0..2 << 20)));
        assert_eq!(store.record(key(&format!("empty {name}"))), Some(Record::default()));
    }

    fn shelves(cache: &Path) -> Vec<PathBuf> {
        files(&cache.join(store::folder_name()))
    }

    #[test]
    fn records_come_back_now_and_later() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path()).unwrap();
        assert!(!store.has_record(key("record a")) && store.record(key("record a")).is_none());
        let below = save(&store, "a", None);
        check(&store, "a");
        save(&store, "b", Some(&below));
        let later = Store::open(cache.path()).unwrap();
        ["a", "b"].iter().for_each(|name| check(&later, name));
        assert!(later.has_record(key("record b")) && !later.has_record(key("b")));
        assert_eq!(
            store::packs_of(&shelves(cache.path())[0]).len() + store::packs_of(&shelves(cache.path())[1]).len(),
            3
        );
        // Without the steps, the packs stay for the sake of the records.
        let trees = fs::read_dir(cache.path().join(store::folder_name())).unwrap().flatten();
        trees.filter(|entry| entry.path().extension().is_some_and(|end| end == "tree")).for_each(|entry| {
            fs::remove_file(entry.path()).unwrap();
        });
        let later = Store::open(cache.path()).unwrap();
        ["a", "b"].iter().for_each(|name| check(&later, name));
    }

    #[test]
    fn no_changed_byte_gets_through() {
        let cache = tempfile::tempdir().unwrap();
        save(&Store::open(cache.path()).unwrap(), "a", None);
        let path = shelves(cache.path()).remove(0);
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(5) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            for bad in [&bad[..], &good[..at]] {
                fs::write(&path, bad).unwrap();
                let store = Store::open(cache.path()).unwrap();
                let (full, empty) = (store.record(key("record a")), store.record(key("empty a")));
                assert!(full.is_none() || empty.is_none(), "byte {at}");
                assert!(full.is_none_or(|record| record.bytes == b"a"));
                assert!(!path.exists(), "byte {at}: it is set aside");
                // Nothing refers to its pack any more but the Tree.
                fs::write(&path, &good).unwrap();
            }
        }
        check(&Store::open(cache.path()).unwrap(), "a");
    }

    #[test]
    fn records_go_with_their_packs_and_other_versions_are_left_alone() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::open(cache.path()).unwrap();
        save(&store, "a", None);
        let path = shelves(cache.path()).remove(0);
        let other = path.with_extension("records-v0");
        fs::write(&other, "something else").unwrap();
        // A byte that only the record refers to.
        let pack = path.with_extension("pack");
        File::options().write(true).open(&pack).unwrap().write_all_at(b"x", 6).unwrap();
        let store = Store::open(cache.path()).unwrap();
        let record = store.record(key("record a")).unwrap();
        assert_eq!(record.contents[1].bytes().unwrap_err().kind(), crate::error::Kind::Authenticity);
        assert!(store.set_damaged_aside().unwrap() && !path.exists() && !pack.exists());
        assert!(store.record(key("record a")).is_none() && store.load(key("a")).unwrap().is_none());
        save(&store, "a", None);
        check(&store, "a");
        // Somebody else has taken the pack away.
        fs::remove_file(shelves(cache.path()).remove(0).with_extension("pack")).unwrap();
        assert!(store.record(key("record a")).is_none());
        let store = Store::open(cache.path()).unwrap();
        assert!(store.record(key("record a")).is_none() && shelves(cache.path()).is_empty());
        assert!(other.exists());
    }
}
