//! Writes a [`DiskImage`] as a sparse file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Context, Result};
use crate::format::disk::DiskImage;
use crate::interrupt;

/// Read at a time.
const CHUNK: usize = 1 << 20;
/// Zeros of this length become a hole: the block size of the common file systems.
const BLOCK: usize = 4096;

/// Writes `disk` into `file`, which must be empty. `progress` gets the number of bytes read since the last call;
/// together they are [`DiskImage::data_size`].
pub fn write(disk: &DiskImage, file: &File, progress: &dyn Fn(u64)) -> Result<()> {
    file.set_len(disk.size()).context("sizing the raw image")?;
    let mut buffer = vec![0; CHUNK];
    for extent in disk.extents() {
        let mut position = extent.offset;
        while position < extent.end() {
            interrupt::check()?;
            // Up to the next multiple of the chunk, so that blocks of zeros line up with those of the file.
            let length = (extent.end() - position).min(CHUNK as u64 - position % CHUNK as u64) as usize;
            disk.read_at(&mut buffer[..length], position)?;
            write_data(file, &buffer[..length], position).context("writing the raw image")?;
            position += length as u64;
            progress(length as u64);
        }
    }
    Ok(())
}

/// Writes the stretches of `buffer` between blocks of zeros.
fn write_data(file: &File, buffer: &[u8], offset: u64) -> std::io::Result<()> {
    let head = (BLOCK - (offset % BLOCK as u64) as usize) % BLOCK;
    let (head, rest) = buffer.split_at(head.min(buffer.len()));
    let mut pending = 0..0;
    let mut position = 0;
    for block in std::iter::once(head).chain(rest.chunks(BLOCK)) {
        let end = position + block.len();
        if block.iter().any(|byte| *byte != 0) {
            pending = if pending.end == position { pending.start..end } else { position..end };
        } else if !block.is_empty() {
            flush(file, buffer, &pending, offset)?;
            pending = end..end;
        }
        position = end;
    }
    flush(file, buffer, &pending, offset)
}

fn flush(file: &File, buffer: &[u8], range: &std::ops::Range<usize>, offset: u64) -> std::io::Result<()> {
    if range.is_empty() { Ok(()) } else { file.write_all_at(&buffer[range.clone()], offset + range.start as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::disk::Extent;

    #[test]
    fn zeros_become_holes_and_nothing_is_lost() {
        let mut bytes = vec![0u8; 3 << 20];
        bytes[0] = 1;
        bytes[5000..9000].fill(2);
        bytes[(3 << 20) - 1] = 3;
        let size = 9 << 20;
        let disk = DiskImage::new(size, vec![Extent::bytes(777, bytes), Extent::bytes(8 << 20, *b"end")]).unwrap();
        let file = tempfile::tempfile().unwrap();
        let done = std::cell::Cell::new(0);
        write(&disk, &file, &|bytes| done.set(done.get() + bytes)).unwrap();
        assert_eq!(done.get(), disk.data_size());
        let (mut written, mut wanted) = (vec![0; size as usize], vec![0; size as usize]);
        file.read_exact_at(&mut written, 0).unwrap();
        disk.read_at(&mut wanted, 0).unwrap();
        assert!(written == wanted);
        assert_eq!(file.metadata().unwrap().len(), size);
    }
}
