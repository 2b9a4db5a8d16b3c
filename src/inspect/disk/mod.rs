//! Disks inside files: each format of image as a [`Source`](super::source::Source) of the bytes that a machine sees.
//!
//! Owns: one file a format, the cache of unpacked pieces and the search for data that they share. Images that need
//! another file (backing file, external data, parent) are refused: what is looked at is one file.

mod cache;
pub mod qcow2;
pub mod vhd;
pub mod vmdk;

use std::ops::Range;

use crate::error::Result;

/// What is known of a cluster, grain or block without reading it.
pub enum Piece {
    Data,
    /// This one and those after it, up to the given index, hold zeros.
    ZeroUntil(u64),
}

/// Fills `buffer` from `offset` on out of units of one size: `fill` gets the index of each, where in it to begin, and the
/// part of the buffer.
fn by_unit(buffer: &mut [u8], offset: u64, unit: u64, fill: impl Fn(u64, u64, &mut [u8]) -> Result<()>) -> Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        let within = at % unit;
        let length = (unit - within).min((buffer.len() - done) as u64) as usize;
        fill(at / unit, within, &mut buffer[done..done + length])?;
        done += length;
    }
    Ok(())
}

/// Longer stretches of data are given in parts.
const LONGEST: u64 = 1 << 30;

/// [`Source::data_after`](super::source::Source::data_after) of a disk in pieces of one size.
fn next_data(
    offset: u64,
    size: u64,
    piece: u64,
    count: u64,
    about: impl Fn(u64) -> Result<Piece>,
) -> Result<Option<Range<u64>>> {
    let mut index = offset / piece;
    let mut start = None;
    while index < count {
        match (about(index)?, start) {
            (Piece::Data, None) => {
                start = Some((index * piece).max(offset));
                index += 1;
            }
            (Piece::Data, Some(from)) if index * piece - from < LONGEST => index += 1,
            (Piece::ZeroUntil(next), None) => index = next.max(index + 1),
            (_, Some(_)) => break,
        }
    }
    Ok(start.map(|start| start..(index * piece).min(size)).filter(|range| !range.is_empty()))
}

#[cfg(test)]
pub(super) mod tests {
    use crate::format::disk::{DiskImage, Extent};
    use crate::inspect::source::Source;

    /// Compressible and other data, and a lot of nothing.
    pub fn disk() -> DiskImage {
        let mixed: Vec<u8> = (0..300_000u64).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let plain: Vec<u8> = (0..200_000u32).map(|at| (at / 1000) as u8).collect();
        let end = Extent::bytes((6 << 30) - 3, *b"end");
        DiskImage::new(6 << 30, vec![Extent::bytes(1000, plain), Extent::bytes(5 << 30, mixed), end]).unwrap()
    }

    pub fn assert_same(disk: &DiskImage, read: &dyn Source) {
        assert_eq!(read.size(), disk.size());
        for (offset, length) in [(0, 300_000), (5 << 30, 400_000), ((6 << 30) - 70_000, 70_000), (1 << 30, 10)] {
            let mut wanted = vec![0; length];
            disk.read_at(&mut wanted, offset).unwrap();
            assert!(read.bytes(offset, length).unwrap() == wanted, "at {offset}");
        }
        let (mut at, mut data) = (0, 0);
        while let Some(range) = read.data_after(at).unwrap() {
            assert!(range.start >= at && !range.is_empty());
            data += range.end - range.start;
            at = range.end;
        }
        assert!((500_000..12 << 20).contains(&data), "{data}");
    }
}
