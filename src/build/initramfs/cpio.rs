//! The archive of an initramfs: `find . | LC_ALL=C sort | cpio --reproducible -o -H newc` as native code, the same bytes.
//!
//! Owns: [`Archive`]. Sources: Documentation/driver-api/early-userspace/buffer-format.rst of Linux and cpio(5), "New
//! ASCII Format", for the form; cpio(1L), "--reproducible", for device numbers (none) and inode numbers (of the order).
//! What the program treats in a way of its own (hard links, devices) is left to it.

use std::io::{Read, Write};

use rustix::fs::{FileType, Stat};

use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::package::root::{Root, name};
use crate::tree::TreePath;

const TRAILER: &[u8] = b"TRAILER!!!";
/// cpio fills its last block.
const BLOCK: u64 = 512;

/// What goes into an archive, in its order.
pub(super) struct Archive<'a> {
    root: &'a Root,
    /// Path below the folder, path in the target.
    entries: Vec<(Vec<u8>, TreePath, Stat)>,
}

impl<'a> Archive<'a> {
    /// Everything below a folder; nothing if some of it is unusual.
    pub(super) fn of(root: &'a Root, folder: &TreePath) -> Result<Option<Self>> {
        let Some(stat) = root.stat(folder)? else { return Ok(None) };
        let mut entries = vec![(b".".to_vec(), folder.clone(), stat)];
        let mut todo = vec![folder.clone()];
        while let Some(place) = todo.pop() {
            interrupt::check()?;
            for child in root.names(&place)? {
                let path = place.join(&child);
                let Some(stat) = root.stat(&path)? else { return Ok(None) };
                let kind = FileType::from_raw_mode(stat.st_mode);
                let usual = match kind {
                    FileType::Directory | FileType::Symlink => true,
                    FileType::RegularFile => stat.st_nlink == 1 && u32::try_from(stat.st_size).is_ok(),
                    _ => false,
                };
                let relative = path.strip_prefix(folder).filter(|path| !path.as_bytes().contains(&b'\n'));
                let (Some(relative), true) = (relative, usual) else { return Ok(None) };
                if kind == FileType::Directory {
                    todo.push(path.clone());
                }
                entries.push((relative.as_bytes().to_vec(), path, stat));
            }
        }
        // All of them begin with `./` for find, but the first; so that is how they are sorted, too.
        entries.sort_by(|(one, ..), (two, ..)| (one != b".", one).cmp(&(two != b".", two)));
        Ok(Some(Archive { root, entries }))
    }

    pub(super) fn write(&self, out: impl Write) -> Result<()> {
        let mut out = Counted { out, written: 0 };
        for (number, (relative, path, stat)) in self.entries.iter().enumerate() {
            interrupt::check()?;
            let context = || format!("putting {path} of the target into the archive");
            let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let size = if folder { 0 } else { stat.st_size as u64 };
            let number = u32::try_from(number).map_err(|_| Error::build("too many files")).with_context(context)?;
            let (mode, links, time) = (stat.st_mode, stat.st_nlink as u32, stat.st_mtime as u32);
            out.header([number, mode, stat.st_uid, stat.st_gid, links, time, size as u32], relative)?;
            let copied = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    let parent = self.root.parent(path)?;
                    let target =
                        rustix::fs::readlinkat(&parent, name(path), Vec::new()).with_context(context)?.into_bytes();
                    out.write_all(&target).with_context(context)?;
                    target.len() as u64
                }
                FileType::RegularFile => {
                    let file = self.root.open_file(path)?.ok_or_else(|| Error::build("it is gone"));
                    std::io::copy(&mut file.with_context(context)?.take(size), &mut out).with_context(context)?
                }
                _ => 0,
            };
            if copied != size {
                return Err(Error::build("it has changed meanwhile")).with_context(context);
            }
            out.fill(4)?;
        }
        out.trailer()
    }
}

struct Counted<W> {
    out: W,
    written: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Counted<W> {
    fn trailer(&mut self) -> Result<()> {
        self.header([0, 0, 0, 0, 1, 0, 0], TRAILER)?;
        self.fill(BLOCK)
    }

    /// `fields` are inode, mode, owner, group, links, time and size. Device numbers and the checksum are zero.
    fn header(&mut self, fields: [u32; 7], name: &[u8]) -> Result<()> {
        let mut header = b"070701".to_vec();
        let after = [0, 0, 0, 0, name.len() as u32 + 1, 0];
        for field in fields.iter().chain(&after) {
            header.extend(format!("{field:08X}").bytes());
        }
        header.extend(name);
        header.push(0);
        self.write_all(&header).context("writing the archive")?;
        self.fill(4)
    }

    fn fill(&mut self, multiple: u64) -> Result<()> {
        let missing = self.written.next_multiple_of(multiple) - self.written;
        self.write_all(&[0; BLOCK as usize][..missing as usize]).context("writing the archive")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    fn folder() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join("d").join(path);
        for folder in ["usr/lib/a", "usr/lib-x", "empty", "usr/b"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for (path, text) in
            [("init", "#!/bin/sh\n"), ("usr/lib/a/one", ""), ("usr/lib-x/two", "12345"), ("usr/b.c", "x")]
        {
            fs::write(at(path), text).unwrap();
        }
        symlink("usr/lib", at("lib")).unwrap();
        root
    }

    fn ours(root: &Path) -> Option<Vec<u8>> {
        let root = Root::open(root).unwrap();
        let archive = Archive::of(&root, &TreePath::literal("d")).unwrap()?;
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        Some(bytes)
    }

    #[test]
    fn the_same_bytes_as_the_programs() {
        let root = folder();
        let ours = ours(root.path()).unwrap();
        assert_eq!(ours.len() % 512, 0);
        assert!(ours.starts_with(b"07070100000000000041"));
        if Command::new("cpio").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: no cpio here");
            return;
        }
        let script = "find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc";
        let theirs = Command::new("sh").args(["-c", script]).current_dir(root.path().join("d")).output().unwrap();
        assert!(theirs.status.success() && theirs.stdout == ours);
    }

    #[test]
    fn what_is_unusual_is_left_to_the_program() {
        let root = folder();
        fs::hard_link(root.path().join("d/init"), root.path().join("d/second")).unwrap();
        assert!(ours(root.path()).is_none());
        fs::remove_file(root.path().join("d/second")).unwrap();
        fs::write(root.path().join("d/a\nb"), "").unwrap();
        assert!(ours(root.path()).is_none());
        let root = tempfile::tempdir().unwrap();
        assert!(ours(root.path()).is_none());
    }
}
