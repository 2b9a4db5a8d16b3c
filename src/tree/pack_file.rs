//! A pack file of the store, and which of its contents are known to be what their digests say.
//!
//! Owns: [`PackFile`]. Writers of images read contents in stretches that no digest covers, so no byte of a content is
//! given out before the whole content was compared with its digest, once a process, when it is first read; what this
//! process has stored itself is known, and who has a checksum of his own may read without. So nothing that is not read costs anything, and threads that read share the
//! work. A pack that holds something else is marked; the store sets it aside and makes its steps again. Who knows that all
//! of a pack will be wanted can have it read ahead.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Advice, fadvise};
use sha2::{Digest as _, Sha256};

use super::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;

const BUFFER: u64 = 1 << 20;
/// Long requests are the quickest. But of each the kernel leaves out what is longer than one request to the disk and than its
/// own readahead, and does not say so (`force_page_cache_ra` of mm/readahead.c)...
const ASKED_AT_ONCE: u64 = 4 << 20;
/// ...which is this long where nobody has set another. To ask again for what is on its way costs next to nothing.
const ASKED_AGAIN: u64 = 128 << 10;

/// An open pack file and its name, shared by all the contents that lie in it.
#[derive(Debug)]
pub struct PackFile {
    pub path: PathBuf,
    pub file: File,
    state: Mutex<State>,
    changed: Condvar,
    damaged: AtomicBool,
    asked_for: AtomicBool,
}

/// Where a content lies, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub offset: u64,
    pub size: u64,
    pub digest: Digest,
}

#[derive(Debug, Default)]
struct State {
    /// By offset; only looked up, never iterated.
    good: HashMap<u64, (u64, Digest)>,
    /// Offsets that some thread compares at the moment.
    busy: HashSet<u64>,
}

impl PackFile {
    pub fn new(path: PathBuf, file: File) -> Arc<PackFile> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let (damaged, asked_for) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(PackFile { path, file, state, changed, damaged, asked_for })
    }

    /// Whether something was found in it that is not what it should be.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Asks the kernel to bring all of it into memory, but no more than `most` bytes, unless that was done before; says
    /// how much was asked for. Waits for the disk, so it is for a thread of its own; there is nothing to wait for where
    /// the bytes are in memory already, or always (tmpfs). What does not work is not missed.
    pub fn read_ahead(&self, most: u64) -> u64 {
        if most == 0 || self.asked_for.swap(true, Ordering::Relaxed) {
            return 0;
        }
        let end = self.file.metadata().map_or(0, |metadata| metadata.len()).min(most);
        let ask = |from: u64, to: u64| {
            let length = NonZeroU64::new(to.saturating_sub(from));
            // No length would mean the rest of the file.
            length.is_none_or(|length| fadvise(&self.file, from, Some(length), Advice::WillNeed).is_ok())
        };
        for start in (0..end).step_by(ASKED_AT_ONCE as usize) {
            let piece = start..end.min(start + ASKED_AT_ONCE);
            let mut parts = piece.clone().step_by(ASKED_AGAIN as usize);
            if !ask(piece.start, piece.end) || !parts.all(|part| ask(part, piece.end.min(part + ASKED_AGAIN))) {
                return start;
            }
        }
        end
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A content whose bytes were hashed on their way into the file.
    pub(super) fn trust(&self, place: Place) {
        self.state().good.insert(place.offset, (place.size, place.digest));
    }

    /// Fills `buffer` from `skip` bytes into a content, without a look at its digest.
    pub(super) fn read_unchecked_at(&self, place: Place, buffer: &mut [u8], skip: u64) -> Result<()> {
        check_end(place, buffer, skip)?;
        self.read(buffer, place.offset + skip)
    }

    /// Fills `buffer` from `skip` bytes into a content.
    pub(super) fn read_at(&self, place: Place, buffer: &mut [u8], skip: u64) -> Result<()> {
        check_end(place, buffer, skip)?;
        if !self.is_good(place) {
            if buffer.len() as u64 == place.size {
                // All of it in one piece, as most files are read: hashed where it is.
                self.read(buffer, place.offset)?;
                return self.judge(place, Digest::of(buffer));
            }
            self.compare(place)?;
        }
        self.read(buffer, place.offset + skip)
    }

    fn is_good(&self, place: Place) -> bool {
        self.state().good.get(&place.offset) == Some(&(place.size, place.digest))
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let read = self.file.read_exact_at(buffer, offset);
        read.inspect_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                self.damaged.store(true, Ordering::Relaxed);
            }
        })
        .with_context(|| format!("reading pack file {}", self.path.display()))
    }

    /// Reads all of a content, unless another thread does so already: then its judgement counts.
    fn compare(&self, place: Place) -> Result<()> {
        let mut state = self.state();
        while !state.busy.insert(place.offset) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let known = state.good.get(&place.offset) == Some(&(place.size, place.digest));
        drop(state);
        let result = if known { Ok(()) } else { self.hash(place).and_then(|found| self.judge(place, found)) };
        self.state().busy.remove(&place.offset);
        self.changed.notify_all();
        result
    }

    fn hash(&self, place: Place) -> Result<Digest> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; place.size.min(BUFFER) as usize];
        let mut at = 0;
        while at < place.size {
            interrupt::check()?;
            let length = (place.size - at).min(BUFFER) as usize;
            self.read(&mut buffer[..length], place.offset + at)?;
            hash.update(&buffer[..length]);
            at += length as u64;
        }
        Ok(Digest::from_bytes(hash.finalize().into()))
    }

    fn judge(&self, place: Place, found: Digest) -> Result<()> {
        if found == place.digest {
            self.trust(place);
            return Ok(());
        }
        self.damaged.store(true, Ordering::Relaxed);
        let message = format!("content {} is damaged in the store, in {}", place.digest, self.path.display());
        Err(Error::new(Kind::Authenticity, message).hint("the next build notices it and makes it again"))
    }
}

fn check_end(place: Place, buffer: &[u8], skip: u64) -> Result<()> {
    match skip.checked_add(buffer.len() as u64) {
        Some(end) if end <= place.size => Ok(()),
        _ => Err(Error::build("reading past the end of a file's content")),
    }
}

/// Asks the kernel to begin to bring these bytes to the disk, so that there is less to wait for at the end. What does not
/// work is not missed: the file is synced when it is complete.
pub fn begin_to_flush(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    // SAFETY: a system call on an open file, with no memory of ours.
    _ = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_given_out_unseen_and_all_is_looked_at_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at / 7) as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let pack = PackFile::new(file.path().to_owned(), File::open(file.path()).unwrap());
        let place = |from: usize, to: usize| Place {
            offset: from as u64,
            size: (to - from) as u64,
            digest: Digest::of(&bytes[from..to]),
        };
        let (all, part) = (place(5, 2_900_000), place(2_900_000, 3_000_000));
        let mut buffer = vec![0; 1000];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut buffer = vec![0; 1000];
                    pack.read_at(all, &mut buffer, 77).unwrap();
                    assert_eq!(buffer, bytes[82..1082]);
                });
            }
        });
        // Somebody changes bytes of both.
        File::options().write(true).open(file.path()).unwrap().write_all_at(b"xyz", 2_899_998).unwrap();
        pack.read_at(all, &mut buffer, 0).unwrap();
        assert!(!pack.is_damaged(), "it is known");
        for length in [1000, 100_000] {
            let error = pack.read_at(part, &mut vec![0; length], 0).unwrap_err();
            assert_eq!(error.kind(), Kind::Authenticity);
            pack.read_unchecked_at(part, &mut vec![0; length], 0).unwrap();
        }
        assert!(pack.is_damaged());
        assert!(pack.read_unchecked_at(part, &mut buffer, 99_001).is_err(), "past the end");
        assert!(pack.read_at(part, &mut buffer, 99_001).is_err(), "past the end");
        assert!(pack.read_at(Place { digest: part.digest, ..all }, &mut buffer, 0).is_err());
    }

    #[test]
    fn is_asked_for_once_and_within_bounds() {
        let pack = || {
            let file = tempfile::tempfile().unwrap();
            file.set_len(2 * ASKED_AT_ONCE + 5).unwrap();
            PackFile::new("pack".into(), file)
        };
        let all = pack();
        assert_eq!(all.read_ahead(u64::MAX), 2 * ASKED_AT_ONCE + 5);
        assert_eq!(all.read_ahead(u64::MAX), 0, "it was asked for");
        assert_eq!(pack().read_ahead(ASKED_AT_ONCE + 1), ASKED_AT_ONCE + 1);
        let later = pack();
        assert_eq!(later.read_ahead(0), 0);
        assert_eq!(later.read_ahead(5), 5);
    }
}
