//! Numbers at fixed places of on-disk structures.
//!
//! Owns: [`Fields`]. Structures come from outside, so no access can panic: what lies behind the end of the bytes reads
//! as zero. Readers check lengths where that would matter.

pub trait Fields {
    fn part<const N: usize>(&self, at: usize) -> [u8; N];

    fn u8_at(&self, at: usize) -> u8 {
        self.part::<1>(at)[0]
    }
    fn le16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.part(at))
    }
    fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.part(at))
    }
    fn le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.part(at))
    }
    fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.part(at))
    }
    fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.part(at))
    }
    fn be64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.part(at))
    }
    /// The lower half at one place, the upper at another.
    fn split32(&self, low: usize, high: usize) -> u64 {
        u64::from(self.le32(low)) | u64::from(self.le32(high)) << 32
    }
}

impl Fields for [u8] {
    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        for (index, byte) in out.iter_mut().enumerate() {
            *byte = at.checked_add(index).and_then(|at| self.get(at)).copied().unwrap_or(0);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_the_end_is_zero() {
        let bytes = [1, 2, 3, 4, 5];
        assert_eq!((bytes.le16(0), bytes.le32(3), bytes.be32(1)), (0x0201, 0x0504, 0x0203_0405));
        assert_eq!((bytes.le64(usize::MAX), bytes.split32(0, 4)), (0, 0x5_0403_0201));
    }
}
