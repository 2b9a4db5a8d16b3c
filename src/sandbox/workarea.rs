//! Where trees lie while scripts run in them: memory when there is enough of it, else a folder.
//!
//! Owns: [`WorkArea`]. In memory it is a tmpfs mounted in this process's private mount namespace
//! ([`super::userns::enter`]), so that even a killed build leaves nothing but an empty folder; on disk it is a folder
//! that the next build removes if this one could not. Either way a lock marks it as in use.

use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::{Context, Result};
use crate::report::{Reporter, words};

const PREFIX: &str = "work-";
/// What a machine needs beside the work area.
pub const RESERVE: u64 = 1 << 30;

#[derive(Debug)]
pub struct WorkArea {
    folder: PathBuf,
    in_memory: bool,
    _lock: File,
}

impl WorkArea {
    /// Makes a work area for about `need` bytes of files below `parent`, which should lie on a file system that can
    /// take them when memory cannot. Without `mounts`, it is a folder there, whatever that lies on.
    pub fn new(parent: &Path, need: u64, mounts: bool, reporter: &Reporter) -> Result<Self> {
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        let (folder, lock) = claim_after_sweep(parent)?;
        let mut area = WorkArea { folder, in_memory: false, _lock: lock };
        if !mounts {
            super::check_work_folder(&area.folder)?;
            return Ok(area);
        }
        let available = available_memory();
        if available < need.saturating_add(RESERVE) {
            reporter.note(format!(
                "working on disk in {}: {} of memory are free, {} would be needed",
                area.folder.display(),
                words::bytes(available),
                words::bytes(need.saturating_add(RESERVE))
            ));
            return Ok(area);
        }
        // The size is a limit, not a reservation; what is over `need` is for scripts that write more than expected.
        let size = need.saturating_mul(2).min(available - RESERVE / 2);
        let options = CString::new(format!("mode=755,nr_inodes=0,size={size}")).expect("digits hold no NUL");
        match rustix::mount::mount("tmpfs", &area.folder, "tmpfs", MountFlags::NODEV, &*options) {
            Ok(()) => area.in_memory = true,
            Err(error) => {
                reporter
                    .note(format!("working on disk in {}: mounting a tmpfs failed ({error})", area.folder.display()));
            }
        }
        Ok(area)
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    pub fn in_memory(&self) -> bool {
        self.in_memory
    }
}

impl Drop for WorkArea {
    fn drop(&mut self) {
        if self.in_memory {
            let _ = rustix::mount::unmount(&self.folder, UnmountFlags::DETACH);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Whether a path lies on a tmpfs.
pub fn is_in_memory(path: &Path) -> Result<bool> {
    let stat = rustix::fs::statfs(path).with_context(|| format!("looking at {}", path.display()))?;
    // TMPFS_MAGIC of linux/magic.h.
    Ok(stat.f_type == 0x0102_1994)
}

fn claim_after_sweep(parent: &Path) -> Result<(PathBuf, File)> {
    // One process at a time, so that none sweeps a folder that another has made and not locked yet.
    let turn = File::open(parent).with_context(|| format!("opening {}", parent.display()))?;
    flock(&turn, FlockOperation::LockExclusive).with_context(|| format!("locking {}", parent.display()))?;
    sweep(parent);
    claim(parent)
}

/// A fresh folder, locked through its own descriptor.
fn claim(parent: &Path) -> Result<(PathBuf, File)> {
    let folder = tempfile::Builder::new()
        .prefix(PREFIX)
        .tempdir_in(parent)
        .with_context(|| format!("making a work area in {}", parent.display()))?;
    let lock = File::open(folder.path()).with_context(|| format!("opening {}", folder.path().display()))?;
    flock(&lock, FlockOperation::NonBlockingLockShared)
        .with_context(|| format!("locking {}", folder.path().display()))?;
    // A folder is found by others with mode 0700; programs that drop their rights must get through it.
    let path = folder.keep();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .with_context(|| format!("opening up {}", path.display()))?;
    Ok((path, lock))
}

/// Removes work areas of builds that are gone. What cannot be removed (another user's) stays.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(handle) = File::open(entry.path()) else { continue };
        if flock(&handle, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// `MemAvailable`, within the limit of this process's control group where one is set; 0 if unknown.
pub fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let host = parse_available(&text).unwrap_or(0);
    let limit = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let used = limit("/sys/fs/cgroup/memory.current").unwrap_or(0);
    match limit("/sys/fs/cgroup/memory.max") {
        Some(most) => host.min(most.saturating_sub(used)),
        None => host,
    }
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_available_memory() {
        assert_eq!(parse_available("MemTotal: 1 kB\nMemAvailable:   2048 kB\n"), Some(2048 * 1024));
        assert_eq!(parse_available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn abandoned_areas_are_swept_and_live_ones_are_not() {
        let parent = tempfile::tempdir().unwrap();
        let abandoned = parent.path().join("work-old");
        std::fs::create_dir_all(abandoned.join("root/etc")).unwrap();
        std::fs::create_dir(parent.path().join("other")).unwrap();
        // More than any machine has, so that the test does not mount.
        let one = WorkArea::new(parent.path(), u64::MAX, true, &Reporter::quiet()).unwrap();
        assert!(!abandoned.exists() && !one.in_memory());
        let two = WorkArea::new(parent.path(), u64::MAX, true, &Reporter::quiet()).unwrap();
        assert!(one.path().is_dir() && two.path().is_dir() && parent.path().join("other").exists());
        let path = one.path().to_path_buf();
        drop(one);
        assert!(!path.exists());
    }
}
