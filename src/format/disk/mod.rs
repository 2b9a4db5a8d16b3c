//! A disk, or one partition of it, as data: a size and the extents that are not zero.
//!
//! Owns: [`DiskImage`]. File systems make one, [`DiskImage::place`] puts it on a disk, the image writers read the
//! whole. Holes are known without reading anything, so an empty terabyte costs nothing. Bytes lie in memory or in the
//! content store. What the image writers have in common is here too: [`parallel`]
//! takes blocks through threads in order, [`sparse`] leaves out zeros, [`sums`] hashes a file as it is written, with
//! [`md5`] for one of the digests.

mod md5;
pub mod parallel;
pub mod sparse;
pub mod sums;
#[cfg(test)]
pub mod testing;

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::tree::{Content, Digest};

/// Where the bytes of an extent are.
#[derive(Debug, Clone)]
pub enum ExtentData {
    /// As long as the extent.
    Bytes(Arc<[u8]>),
    /// From `offset` of the content on.
    Content { content: Content, offset: u64 },
}

/// A stretch of the disk that is not (known to be) zero.
#[derive(Debug, Clone)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
    pub data: ExtentData,
}

impl Extent {
    pub fn bytes(offset: u64, bytes: impl Into<Arc<[u8]>>) -> Extent {
        let bytes = bytes.into();
        Extent { offset, length: bytes.len() as u64, data: ExtentData::Bytes(bytes) }
    }

    /// A whole content, its first byte at `offset`.
    pub fn content(offset: u64, content: Content) -> Extent {
        Extent { offset, length: content.size(), data: ExtentData::Content { content, offset: 0 } }
    }

    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Fills `buffer` from `skip` bytes into the extent; the caller stays inside it.
    fn read(&self, buffer: &mut [u8], skip: u64, checked: bool) -> Result<()> {
        match &self.data {
            ExtentData::Bytes(bytes) => {
                let start = skip as usize;
                let from = bytes.get(start..start + buffer.len());
                buffer.copy_from_slice(from.ok_or_else(|| Error::build("an extent is longer than its bytes"))?);
                Ok(())
            }
            ExtentData::Content { content, offset } if checked => content.read_at(buffer, offset + skip),
            ExtentData::Content { content, offset } => content.read_unchecked_at(buffer, offset + skip),
        }
    }
}

/// A sparse disk. Extents are sorted by offset, not empty, do not overlap and lie inside the size.
#[derive(Debug, Clone)]
pub struct DiskImage {
    size: u64,
    extents: Vec<Extent>,
    /// What certain contents make of the blocks that hold them.
    holds: BTreeMap<Digest, Holds>,
}

/// What a block holds; the last of these that anything in it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    Files,
    LateFiles,
    Other,
}

impl DiskImage {
    /// All zero.
    pub fn empty(size: u64) -> DiskImage {
        DiskImage { size, extents: Vec::new(), holds: BTreeMap::new() }
    }

    /// From extents in any order. Empty ones are dropped; overlaps and what lies outside are errors.
    pub fn new(size: u64, extents: Vec<Extent>) -> Result<DiskImage> {
        let mut disk = DiskImage { size, extents, holds: BTreeMap::new() };
        disk.settle()?;
        Ok(disk)
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The sum of the extents: an upper bound of what has to be read.
    pub fn data_size(&self) -> u64 {
        self.extents.iter().map(|extent| extent.length).sum()
    }

    /// Puts another image (a partition) at `offset` of this one.
    pub fn place(&mut self, offset: u64, image: DiskImage) -> Result<()> {
        if offset.checked_add(image.size).is_none_or(|end| end > self.size) {
            return Err(Error::build(format!(
                "{} bytes at offset {offset} do not fit on a disk of {} bytes",
                image.size, self.size
            )));
        }
        let moved = image.extents.into_iter().map(|extent| Extent { offset: extent.offset + offset, ..extent });
        self.extents.extend(moved);
        self.holds.extend(image.holds);
        self.settle()
    }

    /// Puts bytes at `offset`.
    pub fn write(&mut self, offset: u64, bytes: impl Into<Arc<[u8]>>) -> Result<()> {
        self.extents.push(Extent::bytes(offset, bytes));
        self.settle()
    }

    /// Fills `buffer` with the bytes at `offset`; zero where there is no extent and behind the end of the disk.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.read(buffer, offset, true)
    }

    /// The same for a caller who compares the bytes with a checksum of his own: contents of the store are not compared
    /// with their digests.
    pub fn read_unchecked_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.read(buffer, offset, false)
    }

    fn read(&self, buffer: &mut [u8], offset: u64, checked: bool) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        let first = self.extents.partition_point(|extent| extent.end() <= offset);
        let mut done = 0;
        for extent in self.extents[first..].iter().take_while(|extent| extent.offset < end) {
            let (from, to) = (extent.offset.max(offset), extent.end().min(end));
            let place = (from - offset) as usize..(to - offset) as usize;
            buffer[done..place.start].fill(0);
            done = place.end;
            extent.read(&mut buffer[place], from - extent.offset, checked)?;
        }
        buffer[done..].fill(0);
        Ok(())
    }

    /// What `length` bytes at `offset` are made of, as one digest: the same one means the same bytes. Contents are known
    /// by theirs, so no file is read.
    pub fn identity(&self, offset: u64, length: u64) -> Digest {
        let mut hash = Sha256::new();
        let end = offset.saturating_add(length);
        hash.update(length.to_le_bytes());
        let first = self.extents.partition_point(|extent| extent.end() <= offset);
        for extent in self.extents[first..].iter().take_while(|extent| extent.offset < end) {
            let (from, to) = (extent.offset.max(offset), extent.end().min(end));
            let skip = from - extent.offset;
            hash.update((from - offset).to_le_bytes());
            hash.update((to - from).to_le_bytes());
            match &extent.data {
                ExtentData::Content { content, offset } => {
                    hash.update(b"c");
                    hash.update(content.digest().as_bytes());
                    hash.update((offset + skip).to_le_bytes());
                }
                ExtentData::Bytes(bytes) => {
                    hash.update(b"b");
                    let range = skip as usize..(skip + to - from) as usize;
                    hash.update(Digest::of(bytes.get(range).unwrap_or_default()).as_bytes());
                }
            }
        }
        Digest::from_bytes(hash.finalize().into())
    }

    /// The indices of all blocks of `block` bytes that an extent touches, ascending, each once. Reads nothing.
    pub fn touched_blocks(&self, block: u64) -> impl Iterator<Item = u64> + Clone + Send + '_ {
        let mut next = 0;
        self.extents.iter().flat_map(move |extent| {
            let first = (extent.offset / block).max(next);
            let last = (extent.end() - 1) / block;
            next = next.max(last + 1);
            first..=last
        })
    }

    /// The bytes of all [`DiskImage::touched_blocks`].
    pub fn touched_size(&self, block: u64) -> u64 {
        self.touched_blocks(block).count() as u64 * block
    }

    /// Says which contents are made last, when the rest of the disk is known. [`DiskImage::steady_first`] has them behind
    /// the steady blocks, so that those can be written and hashed before.
    pub fn made_last(&mut self, contents: impl IntoIterator<Item = Digest>) {
        self.holds.extend(contents.into_iter().map(|content| (content, Holds::LateFiles)));
    }

    /// Says which contents are other ones in the next image. [`DiskImage::steady_first`] treats them as if they were no
    /// files.
    pub fn made_for_it(&mut self, contents: impl IntoIterator<Item = Digest>) {
        self.holds.extend(contents.into_iter().map(|content| (content, Holds::Other)));
    }

    /// All blocks of `block` bytes that an extent touches, each once: first the steady ones, of which a small edit
    /// changes none or few, then those with files that are made last, then the others; each ascending. How many the first
    /// are. They hold nothing but files that many images have, and their number is a round one: what is written last, which is also what changes
    /// most, is not among them, and a file more or less does not change where they end.
    pub fn steady_first(&self, block: u64) -> (Vec<u64>, usize) {
        let mut blocks: Vec<(u64, Holds)> = Vec::new();
        for extent in &self.extents {
            let holds = match &extent.data {
                ExtentData::Content { content, .. } => {
                    self.holds.get(&content.digest()).copied().unwrap_or(Holds::Files)
                }
                ExtentData::Bytes(_) => Holds::Other,
            };
            let (mut first, last) = (extent.offset / block, (extent.end() - 1) / block);
            // Only the first can hold the end of an extent before.
            if let Some((_, known)) = blocks.last_mut().filter(|(known, _)| *known == first) {
                *known = holds.max(*known);
                first += 1;
            }
            blocks.extend((first..=last).map(|index| (index, holds)));
        }
        let those = |wanted| blocks.iter().filter(move |(_, holds)| *holds == wanted).map(|(index, _)| *index);
        let mut order: Vec<u64> = those(Holds::Files).collect();
        let mut other: Vec<u64> = those(Holds::Other).collect();
        // Some of the last are left out, and between nothing and a 64th of the rest.
        let most = order.len() - order.len().div_ceil(64);
        let round = 1 << (order.len() / 64).max(1).ilog2();
        let count = most / round * round;
        other.extend(order.drain(count..));
        other.sort_unstable();
        order.extend(those(Holds::LateFiles));
        order.append(&mut other);
        (order, count)
    }

    fn settle(&mut self) -> Result<()> {
        self.extents.retain(|extent| extent.length > 0);
        self.extents.sort_by_key(|extent| extent.offset);
        for extent in &self.extents {
            if extent.offset.checked_add(extent.length).is_none_or(|end| end > self.size) {
                return Err(Error::build(format!(
                    "{} bytes at offset {} lie outside of a disk of {} bytes",
                    extent.length, extent.offset, self.size
                )));
            }
        }
        match self.extents.windows(2).find(|pair| pair[0].end() > pair[1].offset) {
            None => Ok(()),
            Some(pair) => Err(Error::build(format!(
                "two extents overlap: {} to {} and {} to {}",
                pair[0].offset,
                pair[0].end(),
                pair[1].offset,
                pair[1].end()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_across_extents_and_holes() {
        let disk = DiskImage::new(100, vec![Extent::bytes(20, *b"cdef"), Extent::bytes(8, *b"ab")]).unwrap();
        let mut buffer = [b'x'; 16];
        disk.read_at(&mut buffer, 7).unwrap();
        assert_eq!(&buffer, b"\0ab\0\0\0\0\0\0\0\0\0\0cde");
        disk.read_at(&mut buffer, 95).unwrap();
        assert_eq!(buffer, [0; 16]);
        assert_eq!(disk.data_size(), 6);
    }

    #[test]
    fn blocks_of_files_come_first() {
        let file = |offset, size| Extent::content(offset, Content::inline(vec![1; size]));
        // In blocks of 10,000 bytes.
        let extents = vec![
            file(0, 4_000),
            file(5_000, 4_000),
            file(12_000, 4_000),
            Extent::bytes(19_000, [1; 4_000]),
            file(30_000, 12_000),
            Extent::bytes(43_000, *b"x"),
            file(44_000, 16_000),
            Extent::bytes(70_000, *b"y"),
            file(75_000, 4_000),
            file(99_000, 4_000),
        ];
        let mut disk = DiskImage::new(1 << 20, extents).unwrap();
        let (order, steady) = disk.steady_first(10_000);
        assert_eq!((&order[..steady], &order[steady..]), (&[0, 3, 5, 9][..], &[1, 2, 4, 7, 10][..]));
        // Of 16,000 bytes; shares a block with other bytes, and is in one with files alone.
        disk.made_last([Digest::of(&[1; 16_000])]);
        let (order, steady) = disk.steady_first(10_000);
        assert_eq!((&order[..steady], &order[steady..]), (&[0, 3, 9][..], &[5, 1, 2, 4, 7, 10][..]));
        // Also the one that shares a block with another: both wait.
        disk.made_for_it([Digest::of(&[1; 12_000])]);
        let (order, steady) = disk.steady_first(10_000);
        assert_eq!((&order[..steady], &order[steady..]), (&[0, 9][..], &[5, 1, 2, 3, 4, 7, 10][..]));
        assert_eq!(disk.touched_size(10_000), 90_000);
        assert_eq!(DiskImage::empty(5).steady_first(1), (Vec::new(), 0));
    }

    #[test]
    fn a_file_more_seldom_changes_how_many_blocks_come_first() {
        let count = |blocks: usize| {
            let disk = DiskImage::new(1 << 40, vec![Extent::content(0, Content::inline(vec![1; blocks]))]).unwrap();
            let (order, steady) = disk.steady_first(1);
            assert_eq!(order, (0..blocks as u64).collect::<Vec<_>>());
            steady
        };
        assert_eq!([1, 2, 3, 31, 32, 65].map(count), [0, 1, 2, 30, 31, 63]);
        let counts: Vec<usize> = (10_000..16_000).map(count).collect();
        assert!((10_000..).zip(&counts).all(|(blocks, count)| *count > blocks * 19 / 20 && *count < blocks));
        assert!(counts.windows(2).filter(|pair| pair[0] != pair[1]).count() <= 6_000 / 128 + 1, "{counts:?}");
    }

    #[test]
    fn touched_blocks_come_once() {
        let disk =
            DiskImage::new(100, vec![Extent::bytes(8, *b"abc"), Extent::bytes(12, *b"d"), Extent::bytes(47, *b"ef")])
                .unwrap();
        assert_eq!(disk.touched_blocks(10).collect::<Vec<_>>(), [0, 1, 4]);
        assert_eq!(disk.touched_blocks(1000).collect::<Vec<_>>(), [0]);
        assert_eq!(DiskImage::empty(100).touched_blocks(10).count(), 0);
    }

    #[test]
    fn refuses_what_cannot_be() {
        assert!(DiskImage::new(10, vec![Extent::bytes(0, *b"ab"), Extent::bytes(1, *b"c")]).is_err());
        assert!(DiskImage::new(10, vec![Extent::bytes(9, *b"ab")]).is_err());
        let huge = Extent { offset: u64::MAX, length: 2, data: ExtentData::Bytes(Arc::from(*b"ab")) };
        assert!(DiskImage::new(10, vec![huge]).is_err());
        assert!(DiskImage::empty(10).place(5, DiskImage::empty(6)).is_err());
    }

    #[test]
    fn a_partition_keeps_its_holes() {
        let mut disk = DiskImage::empty(1 << 40);
        disk.place(1 << 39, DiskImage::new(1 << 30, vec![Extent::bytes(4096, *b"x")]).unwrap()).unwrap();
        assert_eq!(disk.extents()[0].offset, (1 << 39) + 4096);
        assert_eq!(disk.touched_blocks(65536).collect::<Vec<_>>(), [(1 << 39) / 65536]);
    }
}
