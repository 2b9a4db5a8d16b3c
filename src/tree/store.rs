//! The store of finished steps: Trees by the digest of what went into them, file contents in few large pack files.
//!
//! Owns: the folder layout below, its crash safety and its locks.
//!
//! ```text
//! <cache>/trees-v2/<key>.tree   a Tree, one JSON object a line, SHA-256 of the rest in the last line
//! <cache>/trees-v2/<id>.pack    the contents that this step added, end to end
//! <cache>/trees-v2/<id>.records-v1  what else is kept of the step's inputs ([`records`](super::records))
//! <cache>/trees-v2/<key>.lock   flocked while somebody makes <key>
//! <cache>/trees-v2/damaged/     what was found damaged
//! <cache>/in-use                flocked, shared, as long as a store is open
//! ```
//!
//! A Tree refers to contents in its own pack and in the packs of the steps below it. Both files are written under
//! another name, synced and renamed, the pack first, so a `.tree` always finds its packs. A content is compared with its
//! digest when it is first read ([`PackFile`]); who meets a damaged one asks [`Store::set_damaged_aside`] and begins
//! again. An entry that is damaged or misses a pack is set aside, counts as absent and is made again, into a pack of a
//! new name, because steps above it may refer to the old one. What killed processes leave is removed
//! ([`sweep`](super::sweep)). The folder name carries the version of the format.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use super::codec::{self, Packs};
use super::holes::{HoleFinder, is_zero};
use super::records::{self, Record, Records};
use super::sweep::{self, Gate};
use super::{Content, Digest, Kind, PackFile, Tree, begin_to_flush, clusters};
use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::report::Reporter;

/// Files up to this size are read once, in one piece; larger ones twice, in pieces.
const ONE_PIECE: u64 = 16 << 20;
/// So many new bytes are sent on their way to the disk at once.
const FLUSH: u64 = 32 << 20;

/// Raised whenever a saved Tree would be read as something else than what was saved.
///
/// 2: holes of sparse files.
const FORMAT: u32 = 2;

#[derive(Clone)]
pub struct Store {
    folder: PathBuf,
    reporter: Reporter,
    /// Open for reading, by name.
    packs: Arc<Mutex<HashMap<String, Arc<PackFile>>>>,
    /// Once somebody has asked for one.
    records: Arc<Mutex<Option<Records>>>,
    /// Keeps others from making room here.
    _in_use: Option<Arc<File>>,
}

impl Store {
    /// Opens the store below a cache folder, making it if needed. Says nothing but warnings.
    pub fn open(cache: &Path) -> Result<Store> {
        Self::open_with(cache, &Reporter::quiet())
    }

    /// The same; what happens there is told to the reporter.
    pub fn open_with(cache: &Path, reporter: &Reporter) -> Result<Store> {
        let lock = share(cache, reporter)?;
        let store = Self::open_alone(cache, reporter)?;
        Ok(Store { _in_use: Some(Arc::new(lock)), ..store })
    }

    /// For whoever holds the lock on [`in_use`] already.
    pub fn open_alone(cache: &Path, reporter: &Reporter) -> Result<Store> {
        let folder = cache.join(folder_name());
        fs::create_dir_all(&folder).with_context(|| format!("making store {}", folder.display()))?;
        for other in other_formats(cache) {
            let path = other.display();
            reporter.note(format!(
                "{path} was made by another version of imagebuilder and is not used; `imagebuilder cache prune` removes it"
            ));
        }
        sweep::sweep(&folder)?;
        Ok(Store { folder, reporter: reporter.clone(), packs: Arc::default(), records: Arc::default(), _in_use: None })
    }

    fn tree_path(&self, key: Digest) -> PathBuf {
        self.folder.join(format!("{key}.tree"))
    }

    fn pack_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pack"))
    }

    /// A finished step, or `None` if it is not there or not whole. Its contents are compared when they are read.
    pub fn load(&self, key: Digest) -> Result<Option<Tree>> {
        let path = self.tree_path(key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        match codec::decode(&bytes, |name, length| self.open_pack(name, length)) {
            Ok(tree) => {
                // Says when it was used last. Where that fails it only seems older than it is.
                _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                Ok(Some(tree))
            }
            Err(error) => self.absent(&path, &error.to_string()),
        }
    }

    /// Whether a finished step and its packs are there; [`Store::load`] may still find them damaged.
    pub fn has(&self, key: Digest) -> bool {
        let tree = self.tree_path(key);
        tree.is_file() && sweep::packs_of(&tree).iter().all(|pack| self.pack_path(pack).is_file())
    }

    /// Moves packs out of the way in which this process has met damaged contents; whether there were any. Afterwards
    /// the steps that refer to them are absent and can be made again.
    pub fn set_damaged_aside(&self) -> Result<bool> {
        let mut packs = self.packs.lock().expect("no thread panics while it holds this");
        let damaged: Vec<PathBuf> =
            packs.values().filter(|pack| pack.is_damaged()).map(|pack| pack.path.clone()).collect();
        packs.retain(|_, pack| !pack.is_damaged());
        drop(packs);
        for path in &damaged {
            sweep::set_aside(&self.folder, path)?;
            self.reporter.warning(format!("the cache is damaged: bytes in {} have changed", path.display()));
        }
        let names: Vec<String> = damaged.iter().map(|path| stem(path)).collect();
        if let Some(records) = self.records.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // They miss a pack from now on.
            for path in records.forget(&names) {
                sweep::set_aside(&self.folder, &path)?;
            }
        }
        Ok(!damaged.is_empty())
    }

    /// All records, looked at when somebody asks for the first one.
    fn with_records<T>(&self, work: impl FnOnce(&mut Records) -> T) -> T {
        let mut slot = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        work(slot.get_or_insert_with(|| {
            let mut records = Records::default();
            for path in records::files(&self.folder) {
                if let Err(error) = records.add(&path) {
                    self.useless(&path, &error);
                }
            }
            records
        }))
    }

    /// What was kept under a digest; `None` if nothing was, or it is not whole any more.
    pub fn record(&self, key: Digest) -> Option<Record> {
        let read = self.with_records(|records| records.read(key, |name, length| self.open_pack(name, length)));
        read.unwrap_or_else(|(path, error)| {
            self.useless(&path, &error);
            None
        })
    }

    /// Whether something is kept under a digest; [`Store::record`] may still find it damaged.
    pub fn has_record(&self, key: Digest) -> bool {
        self.with_records(|records| records.has(key))
    }

    /// Sets records aside. What they save is only time, so that a failure to do so is none of the build's.
    fn useless(&self, path: &Path, error: &Error) {
        if let Ok(Some(place)) = sweep::set_aside(&self.folder, path) {
            self.reporter.warning(format!(
                "the cache is damaged: {}: {error}; packages are decompressed again (what was found is {})",
                path.display(),
                place.display()
            ));
        }
    }

    /// Sets a damaged Tree aside.
    fn absent(&self, path: &Path, problem: &str) -> Result<Option<Tree>> {
        let place = sweep::set_aside(&self.folder, path)?.unwrap_or_default();
        self.reporter.warning(format!(
            "the cache is damaged: {}: {problem}; it is made again (what was found is in {})",
            path.display(),
            place.parent().unwrap_or(&self.folder).display()
        ));
        Ok(None)
    }

    fn open_pack(&self, name: &str, length: u64) -> Result<Arc<PackFile>> {
        if Digest::from_hex(name).is_none() {
            return Err(Error::build(format!("`{name}` is not the name of a pack file")));
        }
        let mut packs = self.packs.lock().expect("no thread panics while it holds this");
        let path = self.pack_path(name);
        let context = || format!("opening {}", path.display());
        // Also when it is open: another process may have set it aside.
        let found = fs::metadata(&path).with_context(context)?.len();
        if found != length {
            return Err(Error::build(format!("{} has {found} bytes, not {length}", path.display())));
        }
        if let Some(pack) = packs.get(name) {
            return Ok(pack.clone());
        }
        let pack = PackFile::new(path.clone(), File::open(&path).with_context(context)?);
        packs.insert(name.to_owned(), pack.clone());
        Ok(pack)
    }

    /// Waits for whoever makes the same step, in small portions, so that Ctrl-C is heard.
    fn lock(&self, key: Digest) -> Result<File> {
        let path = self.folder.join(format!("{key}.lock"));
        let context = || format!("locking {}", path.display());
        let handle = File::options().create(true).truncate(false).write(true).open(&path).with_context(context)?;
        let mut waiting = false;
        loop {
            match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(handle),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => interrupt::check()?,
                Err(error) => return Err(error).with_context(context),
            }
            if !waiting {
                self.reporter.note("waiting: another build with this cache makes the same step");
                waiting = true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts making a step. Waits while another process makes the same one: ask [`Store::load`] again afterwards.
    pub fn writer(&self, key: Digest) -> Result<PackWriter> {
        let handle = self.lock(key)?;
        let gate = Gate::hold(&self.folder)?;
        let temporary = tempfile::Builder::new()
            .prefix(sweep::PACK_PREFIX)
            .tempfile_in(&self.folder)
            .with_context(|| format!("making a pack file in {}", self.folder.display()))?;
        // Tells sweepers that somebody is writing it.
        flock(temporary.as_file(), FlockOperation::NonBlockingLockExclusive).context("locking the new pack file")?;
        drop(gate);
        let file = temporary.reopen().with_context(|| "opening the new pack file")?;
        // Never the name of an earlier pack of this key: steps above may refer into that one.
        let id = Digest::of(format!("{key} {}", temporary.path().display()).as_bytes());
        let path = self.pack_path(&id.to_hex());
        Ok(PackWriter {
            store: self.clone(),
            key,
            pack: PackFile::new(path, file),
            temporary,
            state: Mutex::default(),
            records: Mutex::default(),
            _lock: handle,
        })
    }
}

/// The name of the store's folder in a cache folder.
pub fn folder_name() -> String {
    format!("trees-v{FORMAT}")
}

/// The file whose lock says that somebody works with a cache: shared by builds, exclusively to remove what they may use.
pub fn in_use(cache: &Path) -> Result<File> {
    let path = cache.join("in-use");
    let open = || File::options().create(true).truncate(false).write(true).open(&path);
    fs::create_dir_all(cache).and_then(|()| open()).with_context(|| format!("opening {}", path.display()))
}

/// Says that somebody works with a cache, as long as the file is open. Waits for those who remove something, in small
/// portions, so that Ctrl-C is heard.
pub fn share(cache: &Path, reporter: &Reporter) -> Result<File> {
    let file = in_use(cache)?;
    let mut waiting = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => interrupt::check()?,
            Err(error) => return Err(error).with_context(|| format!("locking {}", cache.display())),
        }
        if !waiting {
            reporter.note("waiting: another process checks or shrinks this cache");
            waiting = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Removes the files that makers of steps lock. Only for whoever is alone with the cache.
pub fn remove_locks(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache.join(folder_name())).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "lock") {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Names of the packs that a saved Tree or a file of records refers to.
pub fn packs_of(path: &Path) -> Vec<String> {
    match records::is_records(path) {
        Some(_) => records::packs_of(path).unwrap_or_default(),
        None => sweep::packs_of(path),
    }
}

/// Stores and clusters of other versions of the program.
pub fn other_formats(cache: &Path) -> Vec<PathBuf> {
    let own = [folder_name(), clusters::FOLDER.to_owned()];
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let versioned = |name: &str| name.starts_with("trees-v") || name.starts_with("clusters-v");
    let other = |name: &str| versioned(name) && !own.iter().any(|own| own == name);
    entries.filter(|entry| entry.file_name().to_str().is_some_and(other)).map(|entry| entry.path()).collect()
}

/// A step in the making: collects contents. Dropped without [`PackWriter::save`], it leaves nothing.
pub struct PackWriter {
    store: Store,
    key: Digest,
    pack: Arc<PackFile>,
    temporary: tempfile::NamedTempFile,
    state: Mutex<State>,
    /// To be saved with the step.
    records: Mutex<BTreeMap<Digest, Record>>,
    _lock: File,
}

#[derive(Default)]
struct State {
    end: u64,
    /// Up to where bytes are on their way to the disk.
    flushed: u64,
    /// Only looked up, never iterated.
    known: HashMap<Digest, Content>,
}

impl PackWriter {
    /// Contents of a lower Tree are referred to where they lie instead of being stored again.
    pub fn known(&self, tree: &Tree) {
        let mut state = self.state();
        for (_, entry) in tree.iter() {
            if let Kind::File(content) = &entry.kind {
                if content.segment().is_some() {
                    state.known.insert(content.digest(), content.clone());
                }
            }
        }
    }

    /// The same for one content.
    pub fn refer(&self, content: &Content) {
        if content.segment().is_some() {
            self.state().known.entry(content.digest()).or_insert_with(|| content.clone());
        }
    }

    /// Keeps something to be found by a digest ([`Store::record`]) once the step is saved. All its contents are in packs.
    pub fn keep(&self, key: Digest, record: Record) {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).insert(key, record);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores bytes unless the same ones are there already.
    pub fn add(&self, bytes: &[u8]) -> Result<Content> {
        let digest = Digest::of(bytes);
        let size = bytes.len() as u64;
        match self.reserve(digest, size) {
            Reserved::Known(content) => Ok(content),
            Reserved::New(offset) => {
                self.pack
                    .file
                    .write_all_at(bytes, offset)
                    .with_context(|| format!("writing pack file {}", self.pack.path.display()))?;
                Ok(self.publish(
                    Content::packed(digest, size, self.pack.clone(), offset).with_holes(HoleFinder::of(bytes)),
                ))
            }
        }
    }

    /// Stores what a file holds, from its start.
    pub fn add_file(&self, file: &File) -> Result<Content> {
        let size = file.metadata().context("reading the size of a file")?.len();
        if size <= ONE_PIECE {
            let mut bytes = Vec::with_capacity(size as usize + 1);
            let mut limited = file.take(ONE_PIECE + 1);
            limited.read_to_end(&mut bytes).context("reading a file")?;
            return self.add(&bytes);
        }
        let mut finder = HoleFinder::default();
        let digest = for_each_block(file, size, |block, _| {
            finder.feed(block);
            Ok(())
        })?;
        match self.reserve(digest, size) {
            Reserved::Known(content) => Ok(content),
            Reserved::New(offset) => {
                let copied = for_each_block(file, size, |block, at| {
                    if is_zero(block) {
                        // The pack has a hole there, too.
                        return Ok(());
                    }
                    self.pack
                        .file
                        .write_all_at(block, offset + at)
                        .with_context(|| format!("writing pack file {}", self.pack.path.display()))
                })?;
                if copied != digest {
                    return Err(Error::build("a file changed while it was read"));
                }
                let content = Content::packed(digest, size, self.pack.clone(), offset);
                Ok(self.publish(content.with_holes(finder.finish())))
            }
        }
    }

    /// The place for new bytes. Two threads with the same bytes may both get one; the later copy is a little waste.
    fn reserve(&self, digest: Digest, size: u64) -> Reserved {
        let mut state = self.state();
        if let Some(content) = state.known.get(&digest) {
            return Reserved::Known(content.clone());
        }
        let offset = state.end;
        state.end += size;
        Reserved::New(offset)
    }

    /// To be called after writing. Other threads may still write what lies before; that is flushed at the end.
    fn flush_some(&self) {
        let mut state = self.state();
        let (from, to) = (state.flushed, state.end);
        if to - from >= FLUSH {
            state.flushed = to;
            drop(state);
            begin_to_flush(&self.pack.file, from, to - from);
        }
    }

    fn publish(&self, content: Content) -> Content {
        self.flush_some();
        content.trust();
        let mut state = self.state();
        state.known.entry(content.digest()).or_insert(content).clone()
    }

    /// Makes the step's result findable under its key. Inline contents of the Tree are stored too; the Tree that
    /// comes back refers to the store for all of them.
    pub fn save(self, tree: &Tree) -> Result<Tree> {
        self.finish(tree)?.save()
    }

    /// The same in two parts: the Tree can be worked on, and others be made on top of it, while it is saved.
    pub fn finish(self, tree: &Tree) -> Result<Unsaved> {
        let mut tree = tree.clone();
        for (_, entry) in tree.iter_mut() {
            if let Kind::File(content) = &mut entry.kind {
                if content.segment().is_none() {
                    *content = self.add(&content.bytes()?)?;
                }
            }
        }
        let end = self.state().end;
        // A file cut short leaves a gap at the end; the length is part of what a Tree expects.
        self.pack.file.set_len(end).context("closing the pack file")?;
        Ok(Unsaved { writer: self, tree })
    }
}

/// A step that nobody finds yet. Dropped, it leaves nothing.
pub struct Unsaved {
    writer: PackWriter,
    tree: Tree,
}

impl Unsaved {
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Flushes everything to the disk and gives it its names. What the Tree stands on must have been saved before.
    pub fn save(self) -> Result<Tree> {
        let Unsaved { writer, tree } = self;
        let PackWriter { store, key, pack, temporary, records, _lock: _held, .. } = writer;
        let mut packs = Packs::default();
        let body = codec::encode(&tree, &mut packs)?;
        let kept = records.into_inner().unwrap_or_else(PoisonError::into_inner);
        let kept = if kept.is_empty() { None } else { Some(records::encode(&kept)?) };
        let path = store.tree_path(key);
        pack.file.sync_all().context("flushing the pack file to disk")?;
        let _gate = Gate::hold(&store.folder)?;
        let out = store.unfinished(&path, &body)?;
        let shelf = pack.path.with_extension(records::EXTENSION);
        let kept = kept.map(|kept| store.unfinished(&shelf, &kept)).transpose()?;
        let context = || format!("writing {}", path.display());
        temporary.persist(&pack.path).map_err(|error| error.error).with_context(context)?;
        if let Some(kept) = kept {
            kept.persist(&shelf).map_err(|error| error.error).with_context(context)?;
        }
        out.persist(&path).map_err(|error| error.error).with_context(context)?;
        File::open(&store.folder).and_then(|folder| folder.sync_all()).with_context(context)?;
        store.adopt(pack, &shelf);
        Ok(tree)
    }
}

impl Store {
    /// A file of the store under another name, whole and on disk.
    fn unfinished(&self, path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
        let context = || format!("writing {}", path.display());
        let builder = &mut tempfile::Builder::new();
        let mut out = builder.prefix(sweep::TREE_PREFIX).tempfile_in(&self.folder).with_context(context)?;
        BufWriter::new(out.as_file_mut()).write_all(bytes).with_context(context)?;
        out.as_file().sync_all().with_context(context)?;
        Ok(out)
    }

    /// A pack that has just been saved, and its records, are found from now on.
    fn adopt(&self, pack: Arc<PackFile>, shelf: &Path) {
        let name = stem(&pack.path);
        self.packs.lock().expect("no thread panics while it holds this").insert(name, pack);
        if let Some(records) = self.records.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // Whoever does not see them does the work again.
            _ = records.add(shelf);
        }
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

enum Reserved {
    Known(Content),
    New(u64),
}

/// Calls back with each block and its offset; gives the digest of all. Fails if the file is shorter than `size`.
fn for_each_block(file: &File, size: u64, mut block: impl FnMut(&[u8], u64) -> Result<()>) -> Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 4 << 20];
    let mut at = 0;
    while at < size {
        interrupt::check()?;
        let length = (size - at).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..length], at).context("reading a file")?;
        hash.update(&buffer[..length]);
        block(&buffer[..length], at)?;
        at += length as u64;
    }
    Ok(Digest::from_bytes(hash.finalize().into()))
}

#[cfg(test)]
mod tests;
