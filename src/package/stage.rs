//! Preparing packages before they are unpacked: decompressed, or read from the store if they were decompressed before;
//! each file's bytes in a place from which they only have to be moved, and in the store.
//!
//! Owns: [`Stage`] and [`Staged`]. All that costs time and does not depend on the target root happens here, on any
//! number of threads and while something else goes on in the target. A file's bytes lie in a folder on the file system of
//! the target, or in memory up to a limit, which is the better place when that file system is a slow one. Files of the
//! folder belong to root and have mode and time of their member, as most of them keep them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, Timespec, Timestamps};

use super::binary::{Binary, Source};
use super::deb::Deb;
use super::kept::{self, Member};
use super::tar::{Archive, Entry, Kind};
use crate::error::{Context, Error, Result};
use crate::format::disk::sums::{Digests, Hasher, State, md5_hex};
use crate::interrupt;
use crate::tree::store::PackWriter;
use crate::tree::{Content, TreePath};

/// Larger files are never in memory as a whole.
const IN_PIECES: u64 = 16 << 20;
const PIECE: usize = 1 << 20;

/// Where prepared files lie.
#[derive(Debug)]
pub struct Stage {
    folder: PathBuf,
    next: AtomicU64,
    /// Bytes that may still be kept in memory.
    memory: AtomicU64,
}

/// The bytes of one file. What is not moved into the target goes with it.
#[derive(Debug)]
pub struct Body<'a> {
    pub place: Place<'a>,
    pub size: u64,
    /// Hexadecimal, where dpkg wants to know it.
    pub md5: Option<String>,
    /// Where the store has them.
    pub content: Option<Content>,
}

#[derive(Debug)]
pub enum Place<'a> {
    Memory(Held<'a>),
    File(Kept),
}

/// Bytes that count against the memory of a [`Stage`].
#[derive(Debug)]
pub struct Held<'a> {
    pub bytes: Vec<u8>,
    memory: &'a AtomicU64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.memory.fetch_add(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

/// A file of the stage; removed when dropped, if it still is there.
#[derive(Debug)]
pub struct Kept {
    path: Option<PathBuf>,
}

impl Kept {
    /// Its place, for somebody who moves it away.
    pub fn give(mut self) -> PathBuf {
        self.path.take().unwrap_or_default()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A file of a package that is about to be decompressed.
struct Incoming<'a> {
    entry: &'a Entry,
    size: u64,
    /// Whether dpkg wants to know its MD5.
    sum: bool,
    /// Where the store gets it.
    pack: Option<&'a PackWriter>,
}

/// A package, prepared.
#[derive(Debug, Default)]
pub struct Staged<'a> {
    pub members: Vec<(Entry, Option<Body<'a>>)>,
    /// Bytes of all files.
    pub size: u64,
}

impl Stage {
    /// `folder` must lie on the file system of the target; `memory` bytes may be kept in memory instead.
    pub fn new(folder: &Path, memory: u64) -> Result<Self> {
        std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Stage { folder: folder.to_path_buf(), next: AtomicU64::new(0), memory: AtomicU64::new(memory) })
    }

    /// Decompresses a package.
    pub fn prepare(&self, binary: &Binary, pack: Option<&PackWriter>) -> Result<Staged<'_>> {
        self.prepare_inner(binary, pack).with_context(|| format!("decompressing package `{}`", binary.name))
    }

    fn prepare_inner(&self, binary: &Binary, pack: Option<&PackWriter>) -> Result<Staged<'_>> {
        let deb = match &binary.source {
            Source::Deb(deb) => deb,
            Source::Kept(members) => return self.stored(members, pack),
        };
        let staged = self.decompress(binary, deb, pack)?;
        if let (Some(pack), Some(sha256)) = (pack, binary.sha256) {
            if let Some(record) = kept::record(binary, &staged.members, pack)? {
                pack.keep(sha256, record);
            }
        }
        Ok(staged)
    }

    fn stored(&self, members: &[Member], pack: Option<&PackWriter>) -> Result<Staged<'_>> {
        let mut staged = Staged::default();
        for Member { entry, file } in members {
            interrupt::check()?;
            let mut body = None;
            if let Some((content, md5)) = file {
                if let Some(pack) = pack {
                    pack.refer(content);
                }
                let place = self.place_of(content, entry);
                let place = place.with_context(|| format!("member `{}`", entry.name.escape_ascii()))?;
                staged.size += content.size();
                body = Some(Body { place, size: content.size(), md5: md5.clone(), content: Some(content.clone()) });
            }
            staged.members.push((entry.clone(), body));
        }
        Ok(staged)
    }

    fn place_of(&self, content: &Content, entry: &Entry) -> Result<Place<'_>> {
        if content.size() <= IN_PIECES {
            return self.place(content.bytes()?, entry);
        }
        let (kept, mut file) = self.create()?;
        let mut reader = content.reader();
        let mut buffer = vec![0; PIECE];
        loop {
            interrupt::check()?;
            match reader.read(&mut buffer).context("reading it from the store")? {
                0 => break,
                length => self.write(&mut file, &buffer[..length])?,
            }
        }
        finish(&file, entry)?;
        Ok(Place::File(kept))
    }

    fn decompress(&self, binary: &Binary, deb: &Deb, pack: Option<&PackWriter>) -> Result<Staged<'_>> {
        let conffiles: BTreeSet<&TreePath> = binary.conffiles.iter().map(|conffile| &conffile.path).collect();
        let all_sums = !binary.files.contains_key("md5sums");
        let mut archive = Archive::new(deb.data()?);
        let mut staged = Staged::default();
        while let Some(entry) = archive.next_entry()? {
            interrupt::check()?;
            let Kind::File(size) = entry.kind else {
                staged.members.push((entry, None));
                continue;
            };
            let sum = all_sums || TreePath::new(&entry.name).is_some_and(|path| conffiles.contains(&path));
            let body = self.body(&mut archive.file(), &Incoming { entry: &entry, size, sum, pack });
            let body = body.with_context(|| format!("member `{}`", entry.name.escape_ascii()))?;
            staged.size += size;
            staged.members.push((entry, Some(body)));
        }
        archive.finish()?;
        Ok(staged)
    }

    fn body(&self, reader: &mut impl Read, incoming: &Incoming<'_>) -> Result<Body<'_>> {
        let Incoming { entry, size, sum, pack } = *incoming;
        if size > IN_PIECES {
            return self.large(reader, incoming);
        }
        let mut bytes = Vec::with_capacity(size as usize);
        reader.read_to_end(&mut bytes).context("decompressing")?;
        if bytes.len() as u64 != size {
            return Err(Error::build("it ends early"));
        }
        let content = pack.map(|pack| pack.add(&bytes)).transpose()?;
        let md5 = sum.then(|| md5_hex(&bytes));
        Ok(Body { place: self.place(bytes, entry)?, size, md5, content })
    }

    /// A place for bytes that are all there.
    fn place(&self, bytes: Vec<u8>, entry: &Entry) -> Result<Place<'_>> {
        let size = bytes.len() as u64;
        let held =
            self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(size)).is_ok();
        if held {
            return Ok(Place::Memory(Held { bytes, memory: &self.memory }));
        }
        let (kept, mut file) = self.create()?;
        self.write(&mut file, &bytes)?;
        finish(&file, entry)?;
        Ok(Place::File(kept))
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> Result<()> {
        file.write_all(bytes).with_context(|| format!("writing to {}", self.folder.display()))
    }

    fn large(&self, reader: &mut impl Read, incoming: &Incoming<'_>) -> Result<Body<'_>> {
        let Incoming { entry, size, sum, pack } = *incoming;
        let (kept, mut file) = self.create()?;
        let mut buffer = vec![0; PIECE];
        let mut md5 = sum.then(|| Hasher::new(State::start(Digests::MD5)));
        let mut left = size;
        while left > 0 {
            interrupt::check()?;
            let length = left.min(PIECE as u64) as usize;
            reader.read_exact(&mut buffer[..length]).context("decompressing")?;
            self.write(&mut file, &buffer[..length])?;
            if let Some(md5) = &mut md5 {
                md5.update(&buffer[..length]);
            }
            left -= length as u64;
        }
        std::io::Seek::rewind(&mut file).context("reading what was decompressed")?;
        let content = pack.map(|pack| pack.add_file(&file)).transpose()?;
        finish(&file, entry)?;
        let md5 = md5.map(|md5| md5.finish().md5_hex());
        Ok(Body { place: Place::File(kept), size, md5, content })
    }

    fn create(&self) -> Result<(Kept, File)> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.folder.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("making {}", path.display()))?;
        Ok((Kept { path: Some(path) }, file))
    }
}

/// Mode and time of the member; whoever moves the file away changes only what is to be different.
fn finish(file: &File, entry: &Entry) -> Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode.into())).context("setting its mode")?;
    let time = Timespec { tv_sec: entry.mtime, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::futimens(file, &times).context("setting its time")
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
