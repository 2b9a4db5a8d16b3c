//! A file of the host as a source of extents, with the holes its file system knows.
//!
//! Owns: [`HostFile`]. Holes come from `SEEK_DATA` and `SEEK_HOLE` (lseek(2)); where the file system cannot tell, the
//! whole file counts as data.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

use crate::error::{Context, Result};

/// An open file that nobody writes to any more.
#[derive(Debug)]
pub struct HostFile {
    path: PathBuf,
    file: File,
    size: u64,
}

impl HostFile {
    pub fn open(path: &Path) -> Result<HostFile> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        Self::new(path, file)
    }

    /// Takes an open file; `path` is for messages only.
    pub fn new(path: &Path, file: File) -> Result<HostFile> {
        let size = file.metadata().with_context(|| format!("reading the size of {}", path.display()))?.len();
        Ok(HostFile { path: path.to_owned(), file, size })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).with_context(|| format!("reading {}", self.path.display()))
    }

    /// Everything that is not a hole, ascending.
    pub(super) fn data_ranges(&self) -> Result<Vec<Range<u64>>> {
        let mut ranges = Vec::new();
        let mut position = 0;
        while position < self.size {
            let start = match rustix::fs::seek(&self.file, SeekFrom::Data(position)) {
                Ok(start) => start,
                // Only a hole is left.
                Err(rustix::io::Errno::NXIO) => break,
                Err(_) if position == 0 => return Ok(std::iter::once(0..self.size).collect()),
                Err(error) => {
                    return Err(error).with_context(|| format!("looking for data in {}", self.path.display()));
                }
            };
            let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start))
                .with_context(|| format!("looking for holes in {}", self.path.display()))?;
            ranges.push(start..end.min(self.size));
            position = end;
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::super::DiskImage;
    use super::*;

    #[test]
    fn holes_are_kept() {
        let scratch = tempfile::NamedTempFile::new().unwrap();
        scratch.as_file().set_len(64 << 20).unwrap();
        scratch.as_file().write_all_at(b"hello", 32 << 20).unwrap();
        let disk = DiskImage::from_host_file(HostFile::open(scratch.path()).unwrap()).unwrap();
        assert_eq!(disk.size(), 64 << 20);
        let mut buffer = [0; 6];
        disk.read_at(&mut buffer, (32 << 20) - 1).unwrap();
        assert_eq!(&buffer, b"\0hello");
        // Where the file system knows holes (all that we meet do), only the written block is data.
        assert!(disk.data_size() <= 64 << 20);
    }
}
