//! What unit tests of several rooms share.
//!
//! Owns: [`executable`].

use std::path::Path;
use std::process::Command;

/// Writes a program that the test is going to run. Another process does it: this one's tests start programs side by side,
/// a program that was just started has all files open that were being written here, and the kernel runs no file that
/// somebody could still write to (`ETXTBSY`, execve(2)).
pub fn executable(path: &Path, bytes: impl AsRef<[u8]>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let status = Command::new("install").args(["-m", "755"]).args([file.path(), path]).status().unwrap();
    assert!(status.success(), "installing {}", path.display());
}
