//! Bytes into a file of the host, blocks of zeros left out.
//!
//! Owns: [`write_at`], [`copy`] and [`is_zero`].

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::DiskImage;
use crate::error::{Context, Result};
use crate::interrupt;

/// Read at a time.
const CHUNK: usize = 1 << 20;
/// Zeros of this length become a hole: the block size of the common file systems.
const BLOCK: usize = 4096;

/// Sixteen bytes at a time: this runs over every byte of the disk, also in builds without optimisation.
pub fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(16);
    words.all(|word| word == [0; 16]) && words.remainder().iter().all(|byte| *byte == 0)
}

/// Writes the extents of a disk to their own offsets in a file of holes. `progress` gets the number of bytes read since
/// the last call; together they are [`DiskImage::data_size`].
pub fn copy(disk: &DiskImage, file: &File, progress: &dyn Fn(u64)) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    for extent in disk.extents() {
        let mut position = extent.offset;
        while position < extent.end() {
            interrupt::check()?;
            // Up to the next multiple of the chunk, so that blocks of zeros line up with those of the file.
            let length = (extent.end() - position).min(CHUNK as u64 - position % CHUNK as u64) as usize;
            disk.read_at(&mut buffer[..length], position)?;
            write_at(file, &buffer[..length], position).context("writing the disk")?;
            position += length as u64;
            progress(length as u64);
        }
    }
    Ok(())
}

/// Writes the stretches of `buffer` between blocks of zeros; where those are, the file must have a hole.
pub fn write_at(file: &File, buffer: &[u8], offset: u64) -> std::io::Result<()> {
    let head = (BLOCK - (offset % BLOCK as u64) as usize) % BLOCK;
    let (head, rest) = buffer.split_at(head.min(buffer.len()));
    let mut pending = 0..0;
    let mut position = 0;
    for block in std::iter::once(head).chain(rest.chunks(BLOCK)) {
        let end = position + block.len();
        if !is_zero(block) {
            pending = if pending.end == position { pending.start..end } else { position..end };
        } else if !block.is_empty() {
            flush(file, buffer, &pending, offset)?;
            pending = end..end;
        }
        position = end;
    }
    flush(file, buffer, &pending, offset)
}

fn flush(file: &File, buffer: &[u8], range: &Range<usize>, offset: u64) -> std::io::Result<()> {
    if range.is_empty() { Ok(()) } else { file.write_all_at(&buffer[range.clone()], offset + range.start as u64) }
}
