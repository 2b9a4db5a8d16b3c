//! Access and change times of a fresh ext4 file system.
//!
//! Owns: [`settle`], which makes them equal to the modification time. `mke2fs -d` copies them from the source folder,
//! where nobody can set the change time: without this, no two builds would be equal. Only what [`super::mke2fs`] makes
//! is understood. On-disk format: kernel documentation, filesystems/ext4 (super block, group descriptors, inode,
//! metadata checksums).

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Context, Error, Result};
use crate::interrupt;

const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
const FIRST_FREE_INODE: u32 = 11;
const ROOT_INODE: u32 = 2;
/// Both times of an inode: 32 bits of seconds, and 32 bits with nanoseconds and the upper seconds.
const MTIME: (usize, usize) = (0x10, 0x88);
const FOLLOWERS: [(usize, usize); 2] = [(0x08, 0x8c), (0x0c, 0x84)];
const CHECKSUM_LOW: usize = 0x7c;
const CHECKSUM_HIGH: usize = 0x82;

struct Geometry {
    block: u64,
    inodes: u32,
    inodes_per_group: u32,
    inode_size: usize,
    descriptor_size: u64,
    first_data_block: u64,
    /// Checksum of the UUID, which all others begin with.
    seed: u32,
}

/// Works on a file system that nobody else has open.
pub fn settle(file: &File) -> Result<()> {
    let context = "settling the times of an ext4 file system";
    let mut superblock = [0; 1024];
    file.read_exact_at(&mut superblock, SUPERBLOCK).context(context)?;
    let geometry = Geometry::read(&superblock).context(context)?;
    for group in 0..geometry.inodes.div_ceil(geometry.inodes_per_group) {
        interrupt::check()?;
        settle_group(file, &geometry, group).context(context)?;
    }
    Ok(())
}

impl Geometry {
    fn read(superblock: &[u8; 1024]) -> Result<Geometry> {
        let log_block = u32_at(superblock, 0x18);
        let geometry = Geometry {
            block: 1024u64.checked_shl(log_block).unwrap_or(0),
            inodes: u32_at(superblock, 0x00),
            inodes_per_group: u32_at(superblock, 0x28),
            inode_size: usize::from(u16_at(superblock, 0x58)),
            descriptor_size: u64::from(u16_at(superblock, 0xfe)),
            first_data_block: u64::from(u32_at(superblock, 0x14)),
            seed: crc32c(!0, &superblock[0x68..0x78]),
        };
        let plausible = u16_at(superblock, 0x38) == MAGIC
            && log_block <= 6
            && geometry.inode_size == 256
            && geometry.descriptor_size == 64
            && geometry.inodes_per_group > 0;
        if plausible { Ok(geometry) } else { Err(Error::build("not an ext4 file system of the expected kind")) }
    }
}

fn settle_group(file: &File, geometry: &Geometry, group: u32) -> Result<()> {
    let mut descriptor = [0; 64];
    let descriptors = (geometry.first_data_block + 1) * geometry.block;
    let at = descriptors + u64::from(group) * geometry.descriptor_size;
    file.read_exact_at(&mut descriptor, at).context("reading a group descriptor")?;
    let table = u64::from(u32_at(&descriptor, 0x08)) | u64::from(u32_at(&descriptor, 0x28)) << 32;
    let unused = u32::from(u16_at(&descriptor, 0x1c)) | u32::from(u16_at(&descriptor, 0x32)) << 16;
    let used = geometry.inodes_per_group.saturating_sub(unused);
    let offset = table.checked_mul(geometry.block).ok_or_else(|| Error::build("an inode table lies nowhere"))?;
    let mut inodes = vec![0; used as usize * geometry.inode_size];
    file.read_exact_at(&mut inodes, offset).context("reading an inode table")?;
    let mut changed = false;
    for (index, inode) in (0u32..).zip(inodes.chunks_exact_mut(geometry.inode_size)) {
        let number = group * geometry.inodes_per_group + index + 1;
        let own = number >= FIRST_FREE_INODE || number == ROOT_INODE;
        if own && u16_at(inode, 0) != 0 {
            settle_inode(inode, number, geometry.seed);
            changed = true;
        }
    }
    if changed { file.write_all_at(&inodes, offset).context("writing an inode table") } else { Ok(()) }
}

fn settle_inode(inode: &mut [u8], number: u32, seed: u32) {
    for (seconds, extra) in FOLLOWERS {
        inode.copy_within(MTIME.0..MTIME.0 + 4, seconds);
        inode.copy_within(MTIME.1..MTIME.1 + 4, extra);
    }
    inode[CHECKSUM_LOW..CHECKSUM_LOW + 2].fill(0);
    inode[CHECKSUM_HIGH..CHECKSUM_HIGH + 2].fill(0);
    let generation = u32_at(inode, 0x64);
    let mut sum = crc32c(seed, &number.to_le_bytes());
    sum = crc32c(sum, &generation.to_le_bytes());
    sum = crc32c(sum, inode);
    let bytes = sum.to_le_bytes();
    inode[CHECKSUM_LOW..CHECKSUM_LOW + 2].copy_from_slice(&bytes[..2]);
    inode[CHECKSUM_HIGH..CHECKSUM_HIGH + 2].copy_from_slice(&bytes[2..]);
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// CRC-32C (Castagnoli), reflected, without the final inversion, as ext4 has it.
fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |sum, byte| TABLE[usize::from(sum as u8 ^ byte)] ^ sum >> 8)
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of CRC-32C, before the final inversion.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn refuses_anything_else() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        assert!(settle(&file).is_err());
    }
}
