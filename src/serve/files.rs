//! Files below one folder, and their digests.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, openat2};
use sha2::{Digest as _, Sha256};

use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;
use crate::tree::{Digest, TreePath};

/// Digests that are remembered; then all are forgotten.
const REMEMBERED: usize = 4096;
/// Names on the page of a folder.
const LISTED: usize = 10_000;

pub(super) struct Files {
    root: OwnedFd,
    digests: Mutex<HashMap<Identity, Arc<OnceLock<Digest>>>>,
}

/// What changes when a file does: device, inode, size, time of the last change.
type Identity = (u64, u64, i64, i64, i64);

/// What is at a path.
pub(super) enum Found {
    File { file: File, size: u64, identity: Identity },
    Folder(Vec<Item>),
}

/// A name in a folder.
pub(super) struct Item {
    pub name: String,
    /// Of a file; a folder has none.
    pub size: Option<u64>,
}

impl Files {
    pub fn open(folder: &Path) -> Result<Files> {
        let root = rustix::fs::open(folder, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty());
        let root = root.map_err(|error| {
            Error::new(Kind::Usage, format!("cannot serve {}: {}", folder.display(), std::io::Error::from(error)))
                .hint("name the folder that the images are in, `out` for example")
        })?;
        Ok(Files { root, digests: Mutex::default() })
    }

    /// Nothing when there is no such thing, or nothing that may be seen.
    pub fn find(&self, path: &TreePath) -> Result<Option<Found>> {
        if path.components().any(|name| name.starts_with(b".")) {
            return Ok(None);
        }
        let name = if path.is_root() { Path::new(".") } else { path.to_host() };
        // Not to wait for somebody at the other end of a named pipe.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let Ok(opened) = openat2(&self.root, name, flags, Mode::empty(), resolve) else { return Ok(None) };
        let about = rustix::fs::fstat(&opened).context("looking at a file")?;
        Ok(match FileType::from_raw_mode(about.st_mode) {
            FileType::RegularFile => {
                let identity =
                    (about.st_dev, about.st_ino, about.st_size, about.st_mtime as i64, about.st_mtime_nsec as i64);
                Some(Found::File { file: File::from(opened), size: about.st_size.max(0) as u64, identity })
            }
            FileType::Directory => Some(Found::Folder(list(&opened)?)),
            _ => None,
        })
    }

    /// The digest of a file, computed once as long as it does not change. Others who want it wait.
    pub fn digest(&self, file: &File, identity: Identity) -> Result<Digest> {
        let slot = {
            let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
            if digests.len() >= REMEMBERED {
                digests.clear();
            }
            digests.entry(identity).or_default().clone()
        };
        if let Some(known) = slot.get() {
            return Ok(*known);
        }
        let digest = hash(file)?;
        Ok(*slot.get_or_init(|| digest))
    }
}

fn hash(file: &File) -> Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        interrupt::check()?;
        match file.read_at(&mut buffer, at).context("reading a file")? {
            0 => return Ok(Digest::from_bytes(hash.finalize().into())),
            length => {
                hash.update(&buffer[..length]);
                at += length as u64;
            }
        }
    }
}

/// What may be seen of a folder, folders first, by name.
fn list(folder: &OwnedFd) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for entry in Dir::read_from(folder).context("reading a folder")?.take(LISTED) {
        let entry = entry.context("reading a folder")?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let Ok(about) = rustix::fs::statat(folder, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let size = match FileType::from_raw_mode(about.st_mode) {
            FileType::RegularFile => Some(about.st_size.max(0) as u64),
            FileType::Directory => None,
            _ => continue,
        };
        if !name.starts_with('.') {
            items.push(Item { name: name.to_owned(), size });
        }
    }
    items.sort_by(|one, other| (one.size.is_some(), &one.name).cmp(&(other.size.is_some(), &other.name)));
    Ok(items)
}
