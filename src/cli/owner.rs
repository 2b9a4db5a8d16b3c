//! What the builder makes as root of a container belongs to the person who called it.
//!
//! Owns: [`hand_back`]. Root is needed in there: scripts of packages set owners, and only root may chroot. So what is new
//! in the output folders and in the cache changes hands at the end, whether or not the build succeeded.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Globals;
use super::contained::OWNER_VARIABLE;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::Intent;

/// Folders nested deeper are not ours.
const DEPTH: u32 = 64;

/// Does the work, and gives what is root's afterwards to whom the variable names. Without it, only the work.
pub fn hand_back(globals: &Globals, intents: &[Intent], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let Some(value) = std::env::var_os(OWNER_VARIABLE).filter(|value| !value.is_empty()) else { return work() };
    let owner = parse(&value.to_string_lossy())?;
    // Found now: the work may end in another folder.
    let mut outputs: Vec<PathBuf> = Vec::new();
    for intent in intents {
        let folder = globals.output_dir.clone().or_else(|| intent.output_folder.clone());
        let folder = folder.unwrap_or_else(|| PathBuf::from("out"));
        outputs.push(std::path::absolute(&folder).with_context(|| format!("finding {}", folder.display()))?);
    }
    let cache = globals.cache_dir()?;
    let before = outputs.iter().map(|folder| names(folder)).collect::<Vec<_>>();
    let done = work();
    let mut given = give(&cache, owner, DEPTH);
    for (folder, before) in outputs.iter().zip(before) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            // Of what lay there before, an image that was replaced has another inode.
            let inode = entry.metadata().map(|metadata| metadata.ino()).unwrap_or(0);
            if !before.contains(&(entry.file_name(), inode)) {
                given = given.and(give(&entry.path(), owner, DEPTH));
            }
        }
    }
    done.and(given)
}

fn names(folder: &Path) -> Vec<(std::ffi::OsString, u64)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name(), entry.metadata().map(|metadata| metadata.ino()).unwrap_or(0))).collect()
}

fn parse(text: &str) -> Result<(u32, u32)> {
    let ids = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    ids.ok_or_else(|| Error::new(Kind::Usage, format!("{OWNER_VARIABLE} is `{text}`, which is not `uid:gid`")))
}

/// What is root's, the entry itself and all below. Links are not followed.
fn give(path: &Path, owner: (u32, u32), depth: u32) -> Result<()> {
    let giving = || format!("giving {} to its owner", path.display());
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        // Another build may clean up.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(giving),
    };
    if metadata.is_dir() && depth > 0 {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            give(&entry.path(), owner, depth - 1)?;
        }
    }
    if metadata.uid() != 0 {
        return Ok(());
    }
    match std::os::unix::fs::lchown(path, Some(owner.0), Some(owner.1)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(giving),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_two_numbers() {
        assert_eq!(parse("1000:100").unwrap(), (1000, 100));
        for wrong in ["", "1000", "a:b", "1:2:3", "-1:0"] {
            assert_eq!(parse(wrong).unwrap_err().kind(), Kind::Usage, "{wrong}");
        }
    }

    #[test]
    fn what_is_roots_changes_hands() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: changing owners needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("mine"), "").unwrap();
        std::fs::write(inner.join("other"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", inner.join("link")).unwrap();
        std::os::unix::fs::chown(inner.join("other"), Some(7), Some(7)).unwrap();
        give(&dir.path().join("a"), (1234, 1235), DEPTH).unwrap();
        let owner = |path: &str| {
            std::fs::symlink_metadata(dir.path().join(path)).map(|found| (found.uid(), found.gid())).unwrap()
        };
        assert_eq!((owner("a"), owner("a/b/mine"), owner("a/b/link")), ((1234, 1235), (1234, 1235), (1234, 1235)));
        assert_eq!(owner("a/b/other"), (7, 7));
        assert_eq!(std::fs::metadata("/etc/passwd").unwrap().uid(), 0);
    }
}
