//! Long stretches of zeros in a file's bytes, which need no room on a disk.
//!
//! Owns: [`HoleFinder`]. What counts as a hole depends on the bytes alone, never on where a host's file system happens
//! to keep blocks, so that a sparse file gives the same image however it came here. A swap file keeps all its blocks,
//! as swapon(8) wants it.

use std::ops::Range;

/// Holes begin and end at multiples of this, or at the end of the file.
pub const BLOCK: u64 = 4096;
/// Shorter stretches of zeros are data.
pub const SHORTEST: u64 = 1 << 20;

/// The end of the first page of a swap file (mkswap(8)).
const SWAP: &[u8] = b"SWAPSPACE2";
const SWAP_OFFSET: usize = BLOCK as usize - SWAP.len();

/// Gets the bytes of a file in order.
#[derive(Default)]
pub struct HoleFinder {
    at: u64,
    /// Where the zeros begin that last until here.
    zeros: Option<u64>,
    holes: Vec<Range<u64>>,
    swap: bool,
}

impl HoleFinder {
    /// The holes of bytes that are all there.
    pub fn of(bytes: &[u8]) -> Vec<Range<u64>> {
        if (bytes.len() as u64) < SHORTEST {
            return Vec::new();
        }
        let mut finder = HoleFinder::default();
        finder.feed(bytes);
        finder.finish()
    }

    /// The next bytes; a multiple of [`BLOCK`], but for the last ones.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.at == 0 {
            self.swap = bytes.get(SWAP_OFFSET..BLOCK as usize) == Some(SWAP);
        }
        for block in bytes.chunks(BLOCK as usize) {
            if is_zero(block) {
                self.zeros.get_or_insert(self.at);
            } else {
                self.close();
            }
            self.at += block.len() as u64;
        }
    }

    fn close(&mut self) {
        if let Some(start) = self.zeros.take() {
            if self.at - start >= SHORTEST && !self.swap {
                self.holes.push(start..self.at);
            }
        }
    }

    /// Ascending.
    pub fn finish(mut self) -> Vec<Range<u64>> {
        self.close();
        self.holes
    }
}

/// Sixteen bytes at a time: this runs over many bytes, also in builds without optimisation.
pub fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(16);
    words.all(|word| word == [0; 16]) && words.remainder().iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_long_stretches_only() {
        let mut bytes = vec![0; 5 << 20];
        assert_eq!(HoleFinder::of(&bytes), std::slice::from_ref(&(0..5 << 20)));
        assert!(HoleFinder::of(&bytes[..(1 << 20) - 1]).is_empty());
        bytes[(2 << 20) + 5] = 1;
        bytes[3 << 20] = 1;
        assert_eq!(HoleFinder::of(&bytes), [0..2 << 20, (3 << 20) + 4096..5 << 20]);
        let mut pieces = HoleFinder::default();
        bytes.chunks(12288).for_each(|piece| pieces.feed(piece));
        assert_eq!(pieces.finish(), HoleFinder::of(&bytes));
        bytes[4086..4096].copy_from_slice(b"SWAPSPACE2");
        assert!(HoleFinder::of(&bytes).is_empty());
    }
}
