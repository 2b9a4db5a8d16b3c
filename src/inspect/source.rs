//! Random access to the bytes of a disk, of a partition, of a file in it.
//!
//! Owns: [`Source`] and the small ones: a file of the host, a window into another source. Everything that reads an
//! image is written against it. Whoever reads is asked to stay inside; going outside is an error, never a panic.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::SeekFrom;

use crate::error::{Context, Error, Result};

pub trait Source: Send + Sync {
    /// In bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` with the bytes at `offset`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;

    /// The first stretch at or after `offset` that may hold something else than zeros; `None` if only zeros are left.
    /// Never empty, starts at `offset` at the earliest.
    fn data_after(&self, offset: u64) -> Result<Option<Range<u64>>> {
        Ok((offset < self.size()).then(|| offset..self.size()))
    }

    /// `length` bytes at `offset`, after checking that there are so many.
    fn bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        check(self.size(), offset, length)?;
        let mut buffer = vec![0; length];
        self.read_at(&mut buffer, offset)?;
        Ok(buffer)
    }
}

/// Shared by all who read from it, also from several threads.
pub type SharedSource = Arc<dyn Source>;

/// Fails unless `length` bytes at `offset` lie inside `size`.
pub fn check(size: u64, offset: u64, length: usize) -> Result<()> {
    if offset.checked_add(length as u64).is_none_or(|end| end > size) {
        return Err(Error::build(format!("{length} bytes at offset {offset} lie behind the end at {size}")));
    }
    Ok(())
}

/// A file or block device of the host, byte for byte.
pub struct FileSource {
    path: PathBuf,
    file: File,
    size: u64,
}

impl FileSource {
    pub fn open(path: &Path) -> Result<FileSource> {
        let context = || format!("opening {}", path.display());
        FileSource::new(path, File::open(path).with_context(context)?)
    }

    /// Takes an open file; `path` is for messages only.
    pub fn new(path: &Path, file: File) -> Result<FileSource> {
        let context = || format!("opening {}", path.display());
        // The end also tells the size of a block device, whose metadata say 0.
        let size = rustix::fs::seek(&file, SeekFrom::End(0)).with_context(context)?;
        Ok(FileSource { path: path.to_owned(), file, size })
    }
}

impl Source for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).with_context(|| format!("reading {}", self.path.display()))
    }

    fn data_after(&self, offset: u64) -> Result<Option<Range<u64>>> {
        if offset >= self.size {
            return Ok(None);
        }
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(None),
            // The file system cannot tell.
            Err(_) => return Ok(Some(offset..self.size)),
        };
        let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start)).unwrap_or(self.size).min(self.size);
        Ok((start < end).then_some(start..end))
    }
}

/// Bytes in memory: small files and tests.
pub struct MemorySource(pub Vec<u8>);

impl Source for MemorySource {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check(self.size(), offset, buffer.len())?;
        let start = offset as usize;
        buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
        Ok(())
    }
}

/// Bytes with some of them changed: damaged images without a copy of each.
#[cfg(test)]
pub struct Patched {
    pub base: Arc<Vec<u8>>,
    pub patches: Vec<(u64, u8)>,
}

#[cfg(test)]
impl Source for Patched {
    fn size(&self) -> u64 {
        self.base.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check(self.size(), offset, buffer.len())?;
        buffer.copy_from_slice(&self.base[offset as usize..offset as usize + buffer.len()]);
        for (at, byte) in &self.patches {
            if let Some(place) = at.checked_sub(offset).and_then(|at| buffer.get_mut(at as usize)) {
                *place = *byte;
            }
        }
        Ok(())
    }
}

/// Our own disks, before they are written to a file.
impl Source for crate::format::disk::DiskImage {
    fn size(&self) -> u64 {
        crate::format::disk::DiskImage::size(self)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check(self.size(), offset, buffer.len())?;
        crate::format::disk::DiskImage::read_at(self, buffer, offset)
    }

    fn data_after(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let first = self.extents().partition_point(|extent| extent.end() <= offset);
        Ok(self.extents().get(first).map(|extent| extent.offset.max(offset)..extent.end()))
    }
}

/// A part of another source: a partition.
pub struct Window {
    source: SharedSource,
    start: u64,
    size: u64,
}

impl Window {
    pub fn new(source: SharedSource, start: u64, size: u64) -> Result<Window> {
        if start.checked_add(size).is_none_or(|end| end > source.size()) {
            return Err(Error::build(format!(
                "{size} bytes at offset {start} lie behind the end of the disk at {}",
                source.size()
            )));
        }
        Ok(Window { source, start, size })
    }
}

impl Source for Window {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check(self.size, offset, buffer.len())?;
        self.source.read_at(buffer, self.start + offset)
    }

    fn data_after(&self, offset: u64) -> Result<Option<Range<u64>>> {
        if offset >= self.size {
            return Ok(None);
        }
        let found = self.source.data_after(self.start + offset)?;
        let end = self.start + self.size;
        Ok(found
            .filter(|range| range.start < end)
            .map(|range| range.start - self.start..range.end.min(end) - self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::disk::{DiskImage, Extent};

    #[test]
    fn windows_stay_inside() {
        let disk: SharedSource = Arc::new(MemorySource(b"0123456789".to_vec()));
        let window = Window::new(disk.clone(), 2, 5).unwrap();
        assert_eq!(window.bytes(1, 3).unwrap(), b"345");
        assert!(window.bytes(3, 3).is_err() && window.bytes(u64::MAX, 1).is_err());
        assert!(Window::new(disk.clone(), 8, 3).is_err() && Window::new(disk, u64::MAX, 2).is_err());
    }

    #[test]
    fn holes_are_known_from_the_outside() {
        let disk = DiskImage::new(1000, vec![Extent::bytes(100, *b"abc"), Extent::bytes(500, *b"d")]).unwrap();
        let window = Window::new(Arc::new(disk), 101, 500).unwrap();
        assert_eq!(window.data_after(0).unwrap(), Some(0..2));
        assert_eq!(window.data_after(2).unwrap(), Some(399..400));
        assert_eq!(window.data_after(400).unwrap(), None);
        let scratch = tempfile::NamedTempFile::new().unwrap();
        scratch.as_file().set_len(64 << 20).unwrap();
        scratch.as_file().write_all_at(b"x", 32 << 20).unwrap();
        let file = FileSource::open(scratch.path()).unwrap();
        let found = file.data_after(0).unwrap().unwrap();
        assert!(found.contains(&(32 << 20)));
    }
}
