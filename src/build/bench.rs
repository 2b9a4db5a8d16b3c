//! Where one worker has a root file system, while programs run in it.
//!
//! Owns: [`Bench`]. The folder stays from image to image, since the next one mostly wants nearly the same there. When no
//! image wants one any more it goes, beside the rest of the work: the file that is being written can have its memory, or
//! its space, and nobody waits for that at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::error::{Context, Result};
use crate::tree::host::Folder;

pub(super) struct Bench {
    path: PathBuf,
    /// Holds the root file system of the image before; nothing after a failure, since nobody knows what is in there.
    folder: Option<Folder>,
    /// How many there were.
    folders: u32,
    going: Option<JoinHandle<()>>,
}

impl Bench {
    pub fn new(path: PathBuf) -> Bench {
        Bench { path, folder: None, folders: 0, going: None }
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

    /// The same after a failure; its memory is wanted for the next attempt.
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

impl Drop for Bench {
    fn drop(&mut self) {
        self.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stays_until_nobody_wants_it() {
        let work = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(work.path().join("worker0"));
        bench.release();
        let first = bench.folder().unwrap().path().to_owned();
        fs::create_dir_all(first.join("usr/bin")).unwrap();
        fs::write(first.join("usr/bin/file"), "text").unwrap();
        assert_eq!(bench.folder().unwrap().path(), first);
        bench.release();
        let second = bench.folder().unwrap().path().to_owned();
        assert_ne!(second, first, "that one may not be gone yet");
        bench.clear();
        assert!(!second.exists() && !first.exists());
        let third = bench.folder().unwrap().path().to_owned();
        bench.release();
        drop(bench);
        assert!(!third.exists(), "it was waited for");
    }
}
