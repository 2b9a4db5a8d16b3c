//! Clusters of disks and blocks of squashfs, kept by what they are made of, so that none is compressed or compared with digests twice.
//!
//! Owns: `<cache>/clusters-v2`, its crash safety and its bounds. What is kept can be made again from the Tree at any
//! time, so nothing is synced, and whatever is not whole counts as absent.
//!
//! ```text
//! <cache>/clusters-v2/<id>.pack   bytes end to end; the index, one line of [`LINE`] bytes a cluster; the footer
//! <cache>/clusters-v2/.new-*      a pack on its way, flocked by its writer
//! ```
//!
//! The footer has the number of lines and the SHA-256 digest of the index; every line has a checksum of its bytes
//! ([`Check`]), which are compared whenever they are read. Of clusters that do not shrink only the checksum is kept: their
//! bytes are in the Tree, and with it need not be compared with the digests of its contents again. Short pieces that
//! take long to make (checksums in the middle of an image, boot images) are kept in the same way. The time of a pack says when it was
//! last used. Many small packs are put together by the next writer.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

use super::Digest;
use super::quick::Check;
use crate::error::{Context, Error, Result};
use crate::report::Reporter;

pub const FOLDER: &str = "clusters-v2";
const NEW: &str = ".new-";
const MAGIC: &[u8; 8] = b"clusters";
/// Key, offset, length, checksum of the bytes.
const LINE: usize = 32 + 8 + 4 + 16;
const FOOTER: usize = 8 + 8 + 32;
/// An index of more lines is not ours: four million clusters are a disk of 256 GiB.
const MOST_LINES: u64 = 4 << 20;
/// Packs below this size are put together when there are that many.
const SMALL: u64 = 16 << 20;
const MANY: usize = 12;
/// The longest cluster that any format has.
const LONGEST: u32 = 2 << 20;

/// Lengths that stand for clusters without bytes of their own.
const ZEROS: u32 = 0;
const PLAIN: u32 = u32::MAX;

/// What became of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is all zeros.
    Zeros,
    /// Compressing does not make it smaller. With the checksum of its bytes.
    Plain(Check),
    /// Its compressed bytes are kept.
    Packed(Kept),
}

/// Where compressed bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pack: u32,
    offset: u64,
    pub length: u32,
    check: Check,
}

/// What a cluster was made into, to be kept.
#[derive(Debug, Clone, Copy)]
pub enum Made<'a> {
    Zeros,
    /// The bytes of the cluster.
    Plain(&'a [u8]),
    /// Its compressed bytes.
    Packed(&'a [u8]),
}

#[derive(Debug)]
struct Pack {
    path: PathBuf,
    file: File,
    size: u64,
    used: AtomicBool,
    damaged: AtomicBool,
}

/// All kept clusters, as they were when this was opened, and those added since.
pub struct Clusters {
    folder: PathBuf,
    reporter: Reporter,
    /// The clock of the run.
    now: i64,
    packs: Mutex<Vec<Arc<Pack>>>,
    index: Mutex<HashMap<Digest, Fate>>,
}

impl Clusters {
    /// Opens the folder below a cache folder, making it if needed. `now` is the time that marks packs as used.
    pub fn open(cache: &Path, now: i64, reporter: &Reporter) -> Result<Clusters> {
        let folder = cache.join(FOLDER);
        let context = || format!("opening {}", folder.display());
        fs::create_dir_all(&folder).with_context(context)?;
        let mut paths = Vec::new();
        for entry in fs::read_dir(&folder).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(NEW) {
                remove_if_abandoned(&path);
            } else if name.ends_with(".pack") {
                paths.push(path);
            }
        }
        let clusters = Clusters {
            folder: folder.clone(),
            reporter: reporter.clone(),
            now,
            packs: Mutex::default(),
            index: Mutex::default(),
        };
        paths.sort();
        for path in paths {
            clusters.add_pack(path);
        }
        Ok(clusters)
    }

    /// A pack that is not whole is removed: a process may have died, or the machine.
    fn add_pack(&self, path: PathBuf) {
        let Ok(file) = File::open(&path) else { return };
        let Some((size, lines)) = read_index(&file) else {
            self.reporter.warning(format!("the cache is damaged: {} is not whole; it is removed", path.display()));
            _ = fs::remove_file(&path);
            return;
        };
        let (used, damaged) = (AtomicBool::new(false), AtomicBool::new(false));
        let pack = Arc::new(Pack { path, file, size, used, damaged });
        let mut packs = lock(&self.packs);
        let number = packs.len() as u32;
        packs.push(pack);
        let mut index = lock(&self.index);
        index.reserve(lines.len() / LINE);
        for line in lines.chunks_exact(LINE) {
            let (key, fate) = decode(line, number);
            index.insert(key, fate);
        }
    }

    pub fn find(&self, key: &Digest) -> Option<Fate> {
        lock(&self.index).get(key).copied()
    }

    /// Puts the bytes into `buffer`, which has their length. False if they are not what was kept: then the pack is
    /// removed, and they have to be made again.
    pub fn read(&self, kept: Kept, buffer: &mut [u8]) -> bool {
        let pack = lock(&self.packs).get(kept.pack as usize).cloned();
        let Some(pack) = pack else { return false };
        if pack.file.read_exact_at(buffer, kept.offset).is_ok() && Check::of(buffer) == kept.check {
            if !pack.used.swap(true, Ordering::Relaxed) {
                // Where that fails it only seems older than it is.
                _ = pack.file.set_modified(time(self.now));
            }
            return true;
        }
        if !pack.damaged.swap(true, Ordering::Relaxed) {
            self.reporter
                .warning(format!("the cache is damaged: bytes in {} have changed; it is removed", pack.path.display()));
            _ = fs::remove_file(&pack.path);
        }
        false
    }

    /// As [`Clusters::read`], into memory of its own.
    pub fn bytes(&self, kept: Kept) -> Option<Vec<u8>> {
        let mut bytes = vec![0; kept.length as usize];
        self.read(kept, &mut bytes).then_some(bytes)
    }

    /// A short piece that was kept.
    pub fn piece(&self, key: &Digest) -> Option<Vec<u8>> {
        match self.find(key)? {
            Fate::Packed(kept) => self.bytes(kept),
            _ => None,
        }
    }

    /// Keeps a piece, unless it is too long for that.
    pub fn keep_piece(&self, key: Digest, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() || bytes.len() > LONGEST as usize {
            return Ok(());
        }
        let new = self.begin()?;
        new.append(key, Made::Packed(bytes))?;
        new.finish()
    }

    /// Begins to keep more.
    pub fn begin(&self) -> Result<NewClusters<'_>> {
        let file = tempfile::Builder::new()
            .prefix(NEW)
            .tempfile_in(&self.folder)
            .with_context(|| format!("making a pack file in {}", self.folder.display()))?;
        flock(file.as_file(), FlockOperation::NonBlockingLockExclusive).context("locking the new pack file")?;
        let mut packs = lock(&self.packs);
        let number = packs.len() as u32;
        // Readable from now on, by way of what `append` returns.
        let reader = file.reopen().context("opening the new pack file")?;
        let (used, damaged) = (AtomicBool::new(true), AtomicBool::new(false));
        packs.push(Arc::new(Pack { path: file.path().to_owned(), file: reader, size: 0, used, damaged }));
        drop(packs);
        Ok(NewClusters { clusters: self, number, file, end: AtomicU64::new(0), lines: Mutex::default() })
    }
}

/// A pack on its way. Dropped without [`NewClusters::finish`], nothing of it is kept.
pub struct NewClusters<'a> {
    clusters: &'a Clusters,
    number: u32,
    file: tempfile::NamedTempFile,
    end: AtomicU64,
    lines: Mutex<Vec<u8>>,
}

impl NewClusters<'_> {
    /// Adds a cluster whose fate was not known. Any number of threads may.
    pub fn append(&self, key: Digest, made: Made<'_>) -> Result<Fate> {
        let fate = match made {
            Made::Zeros => Fate::Zeros,
            Made::Plain(bytes) => Fate::Plain(Check::of(bytes)),
            Made::Packed(bytes) => {
                let length = bytes.len() as u64;
                let offset = self.end.fetch_add(length, Ordering::Relaxed);
                let kept = Kept { pack: self.number, offset, length: length as u32, check: Check::of(bytes) };
                self.file.as_file().write_all_at(bytes, offset).context("writing the cache of clusters")?;
                Fate::Packed(kept)
            }
        };
        self.know(key, fate);
        Ok(fate)
    }

    fn know(&self, key: Digest, fate: Fate) {
        lock(&self.lines).extend_from_slice(&encode(&key, fate));
        lock(&self.clusters.index).insert(key, fate);
    }

    /// Makes what was added findable for later runs.
    pub fn finish(self) -> Result<()> {
        if lock(&self.lines).is_empty() {
            return Ok(());
        }
        let merged = self.merge()?;
        let NewClusters { clusters, number, file, end, lines } = self;
        let lines = lines.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let end = end.into_inner();
        let mut footer = MAGIC.to_vec();
        footer.extend(((lines.len() / LINE) as u64).to_le_bytes());
        footer.extend(Digest::of(&lines).as_bytes());
        let write = |bytes: &[u8], at: u64| file.as_file().write_all_at(bytes, at);
        let written = write(&lines, end).and_then(|()| write(&footer, end + lines.len() as u64));
        written.context("writing the cache of clusters")?;
        let name = Digest::of(format!("{} {}", Digest::of(&lines), file.path().display()).as_bytes());
        let path = clusters.folder.join(format!("{name}.pack"));
        file.as_file().set_modified(time(clusters.now)).context("writing the cache of clusters")?;
        file.persist(&path).map_err(|error| error.error).with_context(|| format!("writing {}", path.display()))?;
        for old in merged {
            _ = fs::remove_file(&old.path);
        }
        tracing::debug!("clusters: pack {number} is {}", path.display());
        Ok(())
    }

    /// Copies what small packs hold, if there are many; those can go then. Their clusters stay where they are for this
    /// process, which has them open.
    fn merge(&self) -> Result<Vec<Arc<Pack>>> {
        let packs: Vec<(u32, Arc<Pack>)> = (0..).zip(lock(&self.clusters.packs).iter().cloned()).collect();
        let small = |pack: &Pack| pack.size > 0 && pack.size < SMALL && !pack.damaged.load(Ordering::Relaxed);
        let small: Vec<(u32, Arc<Pack>)> = packs.into_iter().filter(|(_, pack)| small(pack)).collect();
        if small.len() < MANY {
            return Ok(Vec::new());
        }
        for (number, pack) in &small {
            let Some((_, lines)) = read_index(&pack.file) else { continue };
            for line in lines.chunks_exact(LINE) {
                crate::interrupt::check()?;
                match decode(line, *number) {
                    (key, Fate::Packed(kept)) => {
                        if let Some(bytes) = self.clusters.bytes(kept) {
                            self.append(key, Made::Packed(&bytes))?;
                        }
                    }
                    (key, fate) => self.know(key, fate),
                }
            }
        }
        Ok(small.into_iter().map(|(_, pack)| pack).collect())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn time(now: i64) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(now).unwrap_or(0))
}

fn encode(key: &Digest, fate: Fate) -> [u8; LINE] {
    let (offset, length, check) = match fate {
        Fate::Zeros => (0, ZEROS, Check::default()),
        Fate::Plain(check) => (0, PLAIN, check),
        Fate::Packed(kept) => (kept.offset, kept.length, kept.check),
    };
    let mut line = [0; LINE];
    line[..32].copy_from_slice(key.as_bytes());
    line[32..40].copy_from_slice(&offset.to_le_bytes());
    line[40..44].copy_from_slice(&length.to_le_bytes());
    line[44..].copy_from_slice(check.as_bytes());
    line
}

fn decode(line: &[u8], pack: u32) -> (Digest, Fate) {
    fn part<const N: usize>(line: &[u8], from: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&line[from..from + N]);
        bytes
    }
    let (offset, length) = (u64::from_le_bytes(part(line, 32)), u32::from_le_bytes(part(line, 40)));
    let check = Check::from_bytes(part(line, 44));
    let fate = match length {
        ZEROS => Fate::Zeros,
        PLAIN => Fate::Plain(check),
        _ => Fate::Packed(Kept { pack, offset, length, check }),
    };
    (Digest::from_bytes(part(line, 0)), fate)
}

/// Size of the file and its index, if the file is whole.
fn read_index(file: &File) -> Option<(u64, Vec<u8>)> {
    let size = file.metadata().ok()?.len();
    let at = size.checked_sub(FOOTER as u64)?;
    let mut footer = [0; FOOTER];
    file.read_exact_at(&mut footer, at).ok()?;
    let (magic, rest) = footer.split_at(8);
    let (count, digest) = rest.split_at(8);
    let count = u64::from_le_bytes(count.try_into().ok()?);
    if magic != MAGIC || count > MOST_LINES {
        return None;
    }
    let start = at.checked_sub(count * LINE as u64)?;
    let mut lines = vec![0; count as usize * LINE];
    file.read_exact_at(&mut lines, start).ok()?;
    let inside = lines.chunks_exact(LINE).all(|line| match decode(line, 0).1 {
        Fate::Packed(kept) => {
            kept.length <= LONGEST && kept.offset.checked_add(kept.length.into()).is_some_and(|end| end <= start)
        }
        _ => true,
    });
    (inside && Digest::of(&lines).as_bytes()[..] == *digest).then_some((size, lines))
}

/// A writer holds a lock on its pack.
fn remove_if_abandoned(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        _ = fs::remove_file(path);
    }
}

/// Reads every pack and compares all bytes with their digests; the damaged ones are removed. How many packs there are,
/// and which were damaged.
pub fn verify(cache: &Path, reporter: &Reporter) -> Result<(usize, Vec<PathBuf>)> {
    let folder = cache.join(FOLDER);
    let mut damaged = Vec::new();
    let mut count = 0;
    for path in packs(&folder)? {
        let good = check(&path)?;
        count += 1;
        if !good {
            reporter.warning(format!("{} is damaged; it is removed", path.display()));
            _ = fs::remove_file(&path);
            damaged.push(path);
        }
    }
    Ok((count, damaged))
}

fn packs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pack"));
    paths.sort();
    Ok(paths)
}

fn check(path: &Path) -> Result<bool> {
    let Ok(file) = File::open(path) else { return Ok(true) };
    let Some((_, lines)) = read_index(&file) else { return Ok(false) };
    let mut buffer = Vec::new();
    for line in lines.chunks_exact(LINE) {
        crate::interrupt::check()?;
        if let (_, Fate::Packed(kept)) = decode(line, 0) {
            buffer.resize(kept.length as usize, 0);
            if file.read_exact_at(&mut buffer, kept.offset).is_err() || Check::of(&buffer) != kept.check {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// For callers whose clusters are longer than what is kept.
pub fn check_length(length: u64) -> Result<()> {
    match length <= u64::from(LONGEST) {
        true => Ok(()),
        false => Err(Error::build(format!("clusters of {length} bytes are not kept"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    fn open(cache: &Path) -> Clusters {
        Clusters::open(cache, 1_700_000_000, &Reporter::quiet()).unwrap()
    }

    fn bytes(number: u64) -> Vec<u8> {
        key(number).as_bytes().repeat(1 + number as usize % 50)
    }

    fn add(clusters: &Clusters, numbers: std::ops::Range<u64>) {
        let new = clusters.begin().unwrap();
        for number in numbers {
            let bytes = bytes(number);
            let made = [Made::Zeros, Made::Plain(&bytes), Made::Packed(&bytes)][number as usize % 3];
            new.append(key(number), made).unwrap();
        }
        new.finish().unwrap();
    }

    fn check(clusters: &Clusters, numbers: std::ops::Range<u64>) {
        for number in numbers {
            match (number % 3, clusters.find(&key(number)).unwrap()) {
                (0, Fate::Zeros) => {}
                (1, Fate::Plain(check)) => assert_eq!(check, Check::of(&bytes(number))),
                (2, Fate::Packed(kept)) => {
                    assert_eq!(clusters.bytes(kept), Some(bytes(number)));
                }
                (_, fate) => panic!("{number} is {fate:?}"),
            }
        }
    }

    fn files(cache: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(cache.join(FOLDER)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn what_is_kept_comes_back_now_and_later() {
        let cache = tempfile::tempdir().unwrap();
        let clusters = open(cache.path());
        assert_eq!(clusters.find(&key(2)), None);
        add(&clusters, 0..100);
        check(&clusters, 0..100);
        let later = open(cache.path());
        check(&later, 0..100);
        assert_eq!(later.find(&key(100)), None);
        let used = fs::metadata(&files(cache.path())[0]).unwrap().modified().unwrap();
        assert_eq!(used, time(1_700_000_000), "the time of a pack is that of its use");
    }

    #[test]
    fn short_pieces_come_back() {
        let cache = tempfile::tempdir().unwrap();
        let clusters = open(cache.path());
        clusters.keep_piece(key(1), b"piece").unwrap();
        clusters.keep_piece(key(2), b"").unwrap();
        clusters.keep_piece(key(3), &vec![1; LONGEST as usize + 1]).unwrap();
        for clusters in [clusters, open(cache.path())] {
            assert_eq!(clusters.piece(&key(1)).as_deref(), Some(&b"piece"[..]));
            assert_eq!((clusters.piece(&key(2)), clusters.piece(&key(3))), (None, None));
        }
    }

    #[test]
    fn an_abandoned_pack_is_not_kept() {
        let cache = tempfile::tempdir().unwrap();
        let clusters = open(cache.path());
        let new = clusters.begin().unwrap();
        new.append(key(2), Made::Packed(b"lost")).unwrap();
        fs::write(cache.path().join(FOLDER).join(".new-dead"), "x").unwrap();
        assert_eq!(open(cache.path()).find(&key(2)), None);
        assert_eq!(files(cache.path()).len(), 1, "the living one stays");
        drop(new);
        assert!(files(cache.path()).is_empty());
    }

    #[test]
    fn no_changed_byte_gets_through() {
        let cache = tempfile::tempdir().unwrap();
        add(&open(cache.path()), 0..9);
        let path = files(cache.path()).remove(0);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            for bad in [&bad[..], &good[..at]] {
                fs::write(&path, bad).unwrap();
                let clusters = open(cache.path());
                let found = (0..9).filter_map(|number| Some((number, clusters.find(&key(number))?)));
                for (number, fate) in found.collect::<Vec<_>>() {
                    match fate {
                        Fate::Packed(kept) => {
                            assert!(clusters.bytes(kept).is_none_or(|found| found == bytes(number)), "byte {at}");
                        }
                        Fate::Plain(check) => assert!(number % 3 == 1 && check == Check::of(&bytes(number))),
                        Fate::Zeros => assert_eq!(number % 3, 0),
                    }
                }
                assert!(!path.exists(), "byte {at}: a damaged pack goes");
            }
        }
    }

    #[test]
    fn small_packs_are_put_together() {
        let cache = tempfile::tempdir().unwrap();
        for round in 0..MANY as u64 + 1 {
            let clusters = open(cache.path());
            check(&clusters, 0..round * 10);
            add(&clusters, round * 10..round * 10 + 10);
            check(&clusters, 0..round * 10 + 10);
        }
        assert_eq!(files(cache.path()).len(), 1);
        check(&open(cache.path()), 0..130);
    }

    #[test]
    fn verify_names_what_is_damaged() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(verify(cache.path(), &Reporter::quiet()).unwrap(), (0, Vec::new()));
        add(&open(cache.path()), 0..9);
        add(&open(cache.path()), 9..20);
        assert_eq!(verify(cache.path(), &Reporter::quiet()).unwrap(), (2, Vec::new()));
        let path = files(cache.path()).remove(0);
        File::options().write(true).open(&path).unwrap().write_all_at(b"!", 7).unwrap();
        assert_eq!(verify(cache.path(), &Reporter::quiet()).unwrap(), (2, vec![path.clone()]));
        assert!(!path.exists());
    }
}
