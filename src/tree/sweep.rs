//! What ended processes leave in the store, and what is found damaged there.
//!
//! Owns: the gate, [`sweep`] and [`set_aside`]. A process that was killed leaves unfinished files (`.pack-*`,
//! `.tree-*`), or a pack whose Tree was never written. They are removed by whoever opens the store next. The gate is a
//! lock on a file: held shared for the moments in which a live process has files that nothing refers to yet, and
//! exclusive by the sweeper, who does not wait for it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{codec, records};
use crate::error::{Context, Result};

const GATE: &str = ".gate";
const DAMAGED: &str = "damaged";
pub(super) const PACK_PREFIX: &str = ".pack-";
pub(super) const TREE_PREFIX: &str = ".tree-";
/// A header names some packs and some thousand origins.
const HEADER_BYTES: u64 = 64 << 20;

/// Keeps sweepers away as long as it lives.
pub(super) struct Gate {
    _lock: File,
}

impl Gate {
    fn open(folder: &Path) -> Result<File> {
        let path = folder.join(GATE);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        file.with_context(|| format!("opening {}", path.display()))
    }

    /// Waits for a sweeper, which takes milliseconds.
    pub(super) fn hold(folder: &Path) -> Result<Gate> {
        let file = Self::open(folder)?;
        loop {
            match flock(&file, FlockOperation::LockShared) {
                Ok(()) => return Ok(Gate { _lock: file }),
                Err(rustix::io::Errno::INTR) => crate::interrupt::check()?,
                Err(error) => return Err(error).with_context(|| format!("locking {}", folder.display())),
            }
        }
    }

    /// Nothing if somebody holds it.
    fn close(folder: &Path) -> Result<Option<Gate>> {
        let file = Self::open(folder)?;
        Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(Gate { _lock: file }))
    }
}

/// Removes what nobody is writing and nothing refers to.
pub(super) fn sweep(folder: &Path) -> Result<()> {
    let Some(_gate) = Gate::close(folder)? else { return Ok(()) };
    let (mut packs, mut shelves) = (Vec::new(), Vec::new());
    let mut referred: BTreeSet<String> = BTreeSet::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with(TREE_PREFIX) {
            remove(&path)?;
        } else if name.starts_with(PACK_PREFIX) {
            remove_if_abandoned(&path)?;
        } else if name.ends_with(".tree") {
            referred.extend(packs_of(&path));
        } else if name.ends_with(".pack") {
            packs.push(path);
        } else if records::is_records(&path) == Some(true) {
            shelves.push(path);
        }
    }
    let there: BTreeSet<_> = packs.iter().filter_map(|pack| pack.file_stem()?.to_str()).collect();
    for shelf in shelves {
        match records::packs_of(&shelf) {
            // What was set aside never comes back under its name.
            Some(names) if !names.iter().all(|name| there.contains(name.as_str())) => remove(&shelf)?,
            Some(names) => referred.extend(names),
            // Whoever looks for records says that it is damaged.
            None => {}
        }
    }
    for pack in packs {
        let name = pack.file_stem().unwrap_or_default().to_string_lossy();
        if !referred.contains(&*name) {
            remove(&pack)?;
        }
    }
    Ok(())
}

/// A writer holds a lock on its unfinished pack.
fn remove_if_abandoned(path: &Path) -> Result<()> {
    let Ok(file) = File::open(path) else { return Ok(()) };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        remove(path)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The packs that a saved Tree refers to; none if it cannot be read, for then nobody can load it.
pub(super) fn packs_of(path: &Path) -> Vec<String> {
    let mut line = Vec::new();
    let read = File::open(path).and_then(|file| BufReader::new(file.take(HEADER_BYTES)).read_until(b'\n', &mut line));
    read.ok().and_then(|_| codec::packs_of(&line)).unwrap_or_default()
}

/// Moves a damaged file out of the way, into the folder `damaged`; where it is now.
pub(super) fn set_aside(folder: &Path, path: &Path) -> Result<Option<PathBuf>> {
    let damaged = folder.join(DAMAGED);
    let context = || format!("setting {} aside", path.display());
    fs::create_dir_all(&damaged).with_context(context)?;
    let target = damaged.join(path.file_name().unwrap_or_default());
    match fs::rename(path, &target) {
        Ok(()) => Ok(Some(target)),
        // Another process was faster.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(context),
    }
}
