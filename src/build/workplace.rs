//! Where one worker has a root file system, while programs run in it.
//!
//! Owns: [`Workplace`]. The folder stays from image to image, since the next one mostly wants nearly the same there. When no
//! image wants one any more it goes, beside the rest of the work: the file that is being written can have its memory, or
//! its space, and nobody waits for that at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::error::{Context, Result};
use crate::tree::host::Folder;

pub(super) struct Workplace {
    path: PathBuf,
    /// Holds the root file system of the image before; nothing after a failure, since nobody knows what is in there.
    folder: Option<Folder>,
    /// How many there were.
    folders: u32,
    going: Option<JoinHandle<()>>,
}

impl Workplace {
    pub fn new(path: PathBuf) -> Workplace {
        Workplace { path, folder: None, folders: 0, going: None }
    }

    pub fn has_folder(&self) -> bool {
        self.folder.is_some()
    }

    /// For whatever else is wanted on the way.
    pub fn path(&self) -> Result<&Path> {
        fs::create_dir_all(&self.path).with_context(|| format!("making {}", self.path.display()))?;
        Ok(&self.path)
    }

    /// The folder, made where there is none.
    pub fn folder(&mut self) -> Result<&mut Folder> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => {
                self.folders += 1;
                Folder::create(&self.path()?.join(format!("root{}", self.folders)))?
            }
        };
        Ok(self.folder.insert(folder))
    }

    /// Nobody wants the folder any more, or what is in it.
    pub fn release(&mut self) {
        let Some(folder) = self.folder.take() else { return };
        self.wait();
        let path = folder.path().to_owned();
        let remove = move || {
            // The whole work area is removed in the end.
            fs::remove_dir_all(&path).unwrap_or_else(|error| tracing::debug!("removing {}: {error}", path.display()));
        };
        self.going = std::thread::Builder::new().name("release".into()).spawn(remove).ok();
    }

    /// The same, and waits until it is gone: after a failure the next attempt wants its memory.
    pub fn clear(&mut self) {
        self.release();
        self.wait();
    }

    fn wait(&mut self) {
        if let Some(going) = self.going.take() {
            _ = going.join();
        }
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stays_until_nobody_wants_it() {
        let work = tempfile::tempdir().unwrap();
        let mut place = Workplace::new(work.path().join("worker0"));
        place.release();
        let first = place.folder().unwrap().path().to_owned();
        fs::create_dir_all(first.join("usr/bin")).unwrap();
        fs::write(first.join("usr/bin/file"), "text").unwrap();
        assert_eq!(place.folder().unwrap().path(), first);
        place.release();
        let second = place.folder().unwrap().path().to_owned();
        assert_ne!(second, first, "that one may not be gone yet");
        place.clear();
        assert!(!second.exists() && !first.exists());
        for is_released in [true, false] {
            let mut place = Workplace::new(work.path().join("worker1"));
            let third = place.folder().unwrap().path().to_owned();
            if is_released {
                place.release();
            }
            assert_ne!(place.has_folder(), is_released);
            drop(place);
            assert!(!third.exists(), "it was waited for");
        }
    }
}
