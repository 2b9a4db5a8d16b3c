//! Writes a [`DiskImage`] as a sparse file.

use std::fs::File;

use crate::error::{Context, Result};
use crate::format::disk::{DiskImage, sparse};

/// Writes `disk` into `file`, which must be empty. `progress` gets the number of bytes read since the last call;
/// together they are [`DiskImage::data_size`].
pub fn write(disk: &DiskImage, file: &File, progress: &dyn Fn(u64)) -> Result<()> {
    file.set_len(disk.size()).context("sizing the raw image")?;
    sparse::copy(disk, file, progress).context("writing the raw image")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

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
