//! Publishing a set of files (an image and what lies beside it) so that readers never see a half of it.
//!
//! Owns: the staging folder beside the final names, and the order of renames. The protocol:
//!
//! 1. Everything is written and synced in `.<name>.partial-XXXXXX` in the output folder (same file system). The
//!    folder is flocked by its writer, so a later run can tell a dead one and remove it.
//! 2. The commit point: the folder is renamed to `.<name>.publish`. From here on the set is only ever completed.
//! 3. Old side files go, the images are renamed in, then the new side files. A reader may meet an image without its
//!    checksum, never an image with the wrong one.
//! 4. `.<name>.publish` goes. A run that finds one finishes steps 3 and 4 first.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Context, Error, Kind, Result};

/// A set of files on its way. Dropped without [`Staging::publish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Staging {
    output: PathBuf,
    name: String,
    folder: tempfile::TempDir,
    /// Holds the flock that tells other runs that this folder is in use.
    _lock: File,
}

/// What a set consists of, by file name.
#[derive(Debug, Clone, Default)]
pub struct FileSet {
    /// Renamed in first.
    pub images: Vec<String>,
    /// Renamed in after all images.
    pub side_files: Vec<String>,
}

impl Staging {
    /// Makes the output folder if needed, finishes or removes what an interrupted run left there for `name`, and
    /// opens a fresh staging folder.
    pub fn open(output: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(output).with_context(|| format!("making output folder {}", output.display()))?;
        // Held until the new folder is locked, so that no other run takes it for a dead one.
        let _turn = lock_folder(output)?;
        recover(output, name)?;
        let folder = tempfile::Builder::new()
            .prefix(&partial_prefix(name))
            .tempdir_in(output)
            .with_context(|| format!("making a staging folder in {}", output.display()))?;
        let lock = File::open(folder.path()).with_context(|| format!("opening {}", folder.path().display()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("locking {}", folder.path().display()))?;
        Ok(Staging { output: output.to_owned(), name: name.to_owned(), folder, _lock: lock })
    }

    /// Where to write the file that will be published under `file_name`.
    pub fn path(&self, file_name: &str) -> PathBuf {
        self.folder.path().join(file_name)
    }

    /// Writes a small side file.
    pub fn write(&self, file_name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(file_name);
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
    }

    /// Makes the set visible. Returns the final paths, images first.
    pub fn publish(self, set: &FileSet) -> Result<Vec<PathBuf>> {
        for name in set.images.iter().chain(&set.side_files) {
            let path = self.path(name);
            File::open(&path)
                .and_then(|file| file.sync_all())
                .with_context(|| format!("flushing {} to disk", path.display()))?;
        }
        let order = set.images.iter().chain(&set.side_files).map(|name| format!("{name}\n")).collect::<String>();
        self.write(ORDER, order.as_bytes())?;
        sync_folder(self.folder.path())?;

        let _turn = lock_folder(&self.output)?;
        finish(&self.output, &self.name)?;
        let committed = self.output.join(publish_name(&self.name));
        fs::rename(self.folder.path(), &committed).with_context(|| format!("committing {}", committed.display()))?;
        // The folder lives on under its new name; nothing is left for the guard to remove.
        let _ = self.folder.keep();
        finish(&self.output, &self.name)?;
        Ok(set.images.iter().chain(&set.side_files).map(|name| self.output.join(name)).collect())
    }
}

/// Lists the files of a committed set, images first. Not a name an image can have, since those carry no dot first.
const ORDER: &str = ".order";

fn partial_prefix(name: &str) -> String {
    format!(".{name}.partial-")
}

fn publish_name(name: &str) -> String {
    format!(".{name}.publish")
}

/// Side files of a set are named after it: `<name>.<something>`.
fn is_side_file_of(file: &str, name: &str) -> bool {
    const SUFFIXES: [&str; 5] = [".sha256", ".md5sum", ".output-metadata.yaml", ".lock.yaml", ".origins.yaml"];
    file.strip_prefix(name)
        .is_some_and(|rest| rest.starts_with('.') && SUFFIXES.iter().any(|suffix| rest.ends_with(suffix)))
}

/// Finishes a committed set, removes the staging folders of dead runs. The caller holds the folder's lock.
fn recover(output: &Path, name: &str) -> Result<()> {
    finish(output, name)?;
    for entry in list(output)? {
        if !entry.starts_with(&partial_prefix(name)) {
            continue;
        }
        let path = output.join(&entry);
        let Ok(folder) = File::open(&path) else { continue };
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// Steps 3 and 4 of the protocol, from whatever point an earlier run reached.
fn finish(output: &Path, name: &str) -> Result<()> {
    let committed = output.join(publish_name(name));
    let order = match fs::read_to_string(committed.join(ORDER)) {
        Ok(order) => order,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Either no committed set, or one whose last file went in just before the run died.
            match fs::remove_dir(&committed) {
                Ok(()) => return sync_folder(output),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error).with_context(|| format!("removing {}", committed.display())),
            }
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", committed.display())),
    };
    let staged = list(&committed)?;
    let new_in_place = |file: &str| order.lines().any(|line| line == file) && !staged.iter().any(|left| left == file);
    for file in list(output)? {
        if is_side_file_of(&file, name) && !new_in_place(&file) {
            let path = output.join(&file);
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    for file in order.lines().filter(|file| staged.iter().any(|left| left == file)) {
        let to = output.join(file);
        fs::rename(committed.join(file), &to).with_context(|| format!("publishing {}", to.display()))?;
    }
    sync_folder(output)?;
    fs::remove_file(committed.join(ORDER)).with_context(|| format!("closing {}", committed.display()))?;
    fs::remove_dir(&committed).with_context(|| format!("removing {}", committed.display()))?;
    sync_folder(output)
}

/// File names in byte order; what is not UTF-8 is none of ours.
fn list(folder: &Path) -> Result<Vec<String>> {
    let context = || format!("listing {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(context)? {
        if let Ok(name) = entry.with_context(context)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// One publisher at a time in an output folder; released when the handle is dropped.
fn lock_folder(folder: &Path) -> Result<File> {
    let handle = File::open(folder).with_context(|| format!("opening {}", folder.display()))?;
    match flock(&handle, FlockOperation::LockExclusive) {
        Ok(()) => Ok(handle),
        Err(rustix::io::Errno::INTR) => Err(Error::new(Kind::Interrupted, "interrupted")),
        Err(error) => Err(error).with_context(|| format!("locking {}", folder.display())),
    }
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).with_context(|| format!("flushing {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> FileSet {
        FileSet { images: vec!["x.qcow2".into()], side_files: vec!["x.qcow2.md5sum".into()] }
    }

    fn stage(output: &Path, image: &str) -> Staging {
        let staging = Staging::open(output, "x").unwrap();
        staging.write("x.qcow2", image.as_bytes()).unwrap();
        staging.write("x.qcow2.md5sum", format!("sum of {image}").as_bytes()).unwrap();
        staging
    }

    #[test]
    fn appears_complete_and_replaces_the_old_set() {
        let output = tempfile::tempdir().unwrap();
        stage(output.path(), "one").publish(&set()).unwrap();
        fs::write(output.path().join("x.qcow2.sha256"), "stale").unwrap();
        fs::write(output.path().join("x-other.qcow2.md5sum"), "not ours").unwrap();
        let paths = stage(output.path(), "two").publish(&set()).unwrap();
        assert_eq!(fs::read_to_string(&paths[0]).unwrap(), "two");
        assert_eq!(list(output.path()).unwrap(), ["x-other.qcow2.md5sum", "x.qcow2", "x.qcow2.md5sum"]);
    }

    #[test]
    fn dropped_it_leaves_nothing() {
        let output = tempfile::tempdir().unwrap();
        drop(stage(output.path(), "one"));
        assert!(list(output.path()).unwrap().is_empty());
    }

    #[test]
    fn a_dead_run_is_cleaned_up_and_a_live_one_left_alone() {
        let output = tempfile::tempdir().unwrap();
        let live = stage(output.path(), "live");
        fs::create_dir(output.path().join(".x.partial-dead")).unwrap();
        let _next = Staging::open(output.path(), "x").unwrap();
        assert!(live.path("x.qcow2").exists());
        assert!(!output.path().join(".x.partial-dead").exists());
    }

    /// Every point where a run can die between commit and end.
    #[test]
    fn an_interrupted_publish_is_finished_by_the_next_run() {
        for done in 0..=3 {
            let output = tempfile::tempdir().unwrap();
            stage(output.path(), "old").publish(&set()).unwrap();
            let committed = output.path().join(".x.publish");
            fs::create_dir(&committed).unwrap();
            fs::write(committed.join("x.qcow2"), "new").unwrap();
            fs::write(committed.join("x.qcow2.md5sum"), "sum of new").unwrap();
            fs::write(committed.join(ORDER), "x.qcow2\nx.qcow2.md5sum\n").unwrap();
            if done >= 1 {
                fs::rename(committed.join("x.qcow2"), output.path().join("x.qcow2")).unwrap();
            }
            if done >= 2 {
                fs::rename(committed.join("x.qcow2.md5sum"), output.path().join("x.qcow2.md5sum")).unwrap();
            }
            if done >= 3 {
                fs::remove_file(committed.join(ORDER)).unwrap();
            }
            recover(output.path(), "x").unwrap();
            assert_eq!(list(output.path()).unwrap(), ["x.qcow2", "x.qcow2.md5sum"]);
            assert_eq!(fs::read_to_string(output.path().join("x.qcow2")).unwrap(), "new");
            assert_eq!(fs::read_to_string(output.path().join("x.qcow2.md5sum")).unwrap(), "sum of new");
        }
    }
}
