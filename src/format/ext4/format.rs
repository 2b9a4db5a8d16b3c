//! On-disk structures: kernel documentation, filesystems/ext4 ("Super Block", "Block Group Descriptors", "Index
//! Nodes", "Journal"). All little endian but for the journal.

use uuid::Uuid;

use super::crc32c::crc32c;
use crate::tree::{Meta, Mtime};

pub const BLOCK: u64 = 4096;
pub const INODE: u64 = 256;
pub const INODES_PER_BLOCK: u64 = BLOCK / INODE;
pub const BLOCKS_PER_GROUP: u64 = 8 * BLOCK;
pub const DESCRIPTOR: u64 = 64;
pub const DESCRIPTORS_PER_BLOCK: u64 = BLOCK / DESCRIPTOR;
/// Block numbers of four bytes in an indirect block.
pub const POINTERS_PER_BLOCK: u64 = BLOCK / 4;

pub const ROOT_INODE: u32 = 2;
pub const RESIZE_INODE: u32 = 7;
pub const JOURNAL_INODE: u32 = 8;
/// The first that is not reserved; lost+found by tradition.
pub const FIRST_INODE: u32 = 11;

pub const MODE_DIRECTORY: u16 = 0o040000;
pub const MODE_FILE: u16 = 0o100000;
pub const MODE_SYMLINK: u16 = 0o120000;
pub const MODE_CHAR: u16 = 0o020000;
pub const MODE_BLOCK: u16 = 0o060000;
pub const MODE_FIFO: u16 = 0o010000;
pub const MODE_SOCKET: u16 = 0o140000;

/// Inode flags: hashed directory, extents.
pub const FLAG_INDEX: u32 = 0x1000;
pub const FLAG_EXTENTS: u32 = 0x8_0000;
/// The inode is a value of an extended attribute.
pub const FLAG_EA_INODE: u32 = 0x20_0000;

/// Bytes of the inode after the first 128 that the kernel's structure takes; extended attributes follow.
pub const EXTRA_ISIZE: usize = 32;
pub const INODE_XATTRS: usize = 128 + EXTRA_ISIZE;

/// Group flags.
pub const GROUP_INODE_UNINIT: u16 = 1;
pub const GROUP_BLOCK_UNINIT: u16 = 2;
pub const GROUP_INODE_ZEROED: u16 = 4;

// has_journal, ext_attr, resize_inode, dir_index
const COMPAT: u32 = 0x4 | 0x8 | 0x10 | 0x20;
// filetype, extents, 64bit, flex_bg
const INCOMPAT: u32 = 0x2 | 0x40 | 0x80 | 0x200;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
const INCOMPAT_EA_INODE: u32 = 0x400;
// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
const RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;
// user_xattr, acl
const DEFAULT_MOUNT_OPTIONS: u32 = 0x4 | 0x8;

/// Little-endian fields at fixed offsets.
pub trait Put {
    fn put16(&mut self, at: usize, value: u16);
    fn put32(&mut self, at: usize, value: u32);
    /// The lower half at one place, the upper at another.
    fn put64(&mut self, low: usize, high: usize, value: u64);
}

impl Put for [u8] {
    fn put16(&mut self, at: usize, value: u16) {
        self[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    fn put32(&mut self, at: usize, value: u32) {
        self[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    fn put64(&mut self, low: usize, high: usize, value: u64) {
        self.put32(low, value as u32);
        self.put32(high, (value >> 32) as u32);
    }
}

/// The checksum of the UUID, from which all others start.
pub fn checksum_seed(uuid: &Uuid) -> u32 {
    crc32c(!0, uuid.as_bytes())
}

/// Where checksums of things that belong to an inode start; the generation is always 0.
pub fn inode_seed(seed: u32, number: u32) -> u32 {
    crc32c(crc32c(seed, &number.to_le_bytes()), &[0; 4])
}

pub struct Superblock {
    pub blocks: u64,
    pub reserved_blocks: u64,
    pub free_blocks: u64,
    pub inodes: u32,
    pub free_inodes: u32,
    pub inodes_per_group: u32,
    pub reserved_gdt_blocks: u16,
    pub log_groups_per_flex: u8,
    pub uuid: Uuid,
    pub hash_seed: Uuid,
    pub label: Vec<u8>,
    /// Seconds since the epoch.
    pub time: u32,
    pub csum_seed_feature: bool,
    pub ea_inode_feature: bool,
    /// `i_block` of the journal and its size, so that a damaged inode can be replaced.
    pub journal_blocks: [u8; 60],
    pub journal_size: u64,
    pub kilobytes_written: u64,
}

impl Superblock {
    /// The copy for a group: 1024 bytes.
    pub fn encode(&self, group: u64) -> Vec<u8> {
        let mut out = vec![0; 1024];
        out.put32(0x00, self.inodes);
        out.put64(0x04, 0x150, self.blocks);
        out.put64(0x08, 0x154, self.reserved_blocks);
        out.put64(0x0C, 0x158, self.free_blocks);
        out.put32(0x10, self.free_inodes);
        // Blocks and clusters of 1 KiB shifted by this.
        out.put32(0x18, 2);
        out.put32(0x1C, 2);
        out.put32(0x20, BLOCKS_PER_GROUP as u32);
        out.put32(0x24, BLOCKS_PER_GROUP as u32);
        out.put32(0x28, self.inodes_per_group);
        out.put32(0x30, self.time);
        // No check after a number of mounts.
        out.put16(0x36, 0xFFFF);
        out.put16(0x38, 0xEF53);
        // Clean; on errors mount read-only.
        out.put16(0x3A, 1);
        out.put16(0x3C, 2);
        out.put32(0x40, self.time);
        // Dynamic revision.
        out.put32(0x4C, 1);
        out.put32(0x54, FIRST_INODE);
        out.put16(0x58, INODE as u16);
        out.put16(0x5A, group as u16);
        out.put32(0x5C, COMPAT);
        let option = |set, flag| if set { flag } else { 0 };
        let optional =
            option(self.csum_seed_feature, INCOMPAT_CSUM_SEED) | option(self.ea_inode_feature, INCOMPAT_EA_INODE);
        out.put32(0x60, INCOMPAT | optional);
        out.put32(0x64, RO_COMPAT);
        out[0x68..0x78].copy_from_slice(self.uuid.as_bytes());
        out[0x78..0x78 + self.label.len()].copy_from_slice(&self.label);
        out.put16(0xCE, self.reserved_gdt_blocks);
        out.put32(0xE0, JOURNAL_INODE);
        out[0xEC..0xFC].copy_from_slice(self.hash_seed.as_bytes());
        // Half MD4; the journal is backed up below.
        out[0xFC] = 1;
        out[0xFD] = 1;
        out.put16(0xFE, DESCRIPTOR as u16);
        out.put32(0x100, DEFAULT_MOUNT_OPTIONS);
        out.put32(0x108, self.time);
        out[0x10C..0x148].copy_from_slice(&self.journal_blocks);
        out.put64(0x14C, 0x148, self.journal_size);
        out.put16(0x15C, EXTRA_ISIZE as u16);
        out.put16(0x15E, EXTRA_ISIZE as u16);
        // Directory hashes take bytes as signed.
        out.put32(0x160, 1);
        out[0x174] = self.log_groups_per_flex;
        // CRC-32C.
        out[0x175] = 1;
        out.put64(0x178, 0x17C, self.kilobytes_written);
        if self.csum_seed_feature {
            out.put32(0x270, checksum_seed(&self.uuid));
        }
        let checksum = crc32c(!0, &out[..1020]);
        out.put32(1020, checksum);
        out
    }
}

#[derive(Debug, Clone, Default)]
pub struct Descriptor {
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: u64,
    pub free_blocks: u32,
    pub free_inodes: u32,
    pub directories: u32,
    pub unused_inodes: u32,
    pub flags: u16,
    pub block_bitmap_checksum: u32,
    pub inode_bitmap_checksum: u32,
}

impl Descriptor {
    pub fn encode(&self, group: u64, seed: u32) -> [u8; DESCRIPTOR as usize] {
        let mut out = [0; DESCRIPTOR as usize];
        let halves = |out: &mut [u8], low: usize, high: usize, value: u32| {
            out.put16(low, value as u16);
            out.put16(high, (value >> 16) as u16);
        };
        out.put64(0x00, 0x20, self.block_bitmap);
        out.put64(0x04, 0x24, self.inode_bitmap);
        out.put64(0x08, 0x28, self.inode_table);
        halves(&mut out, 0x0C, 0x2C, self.free_blocks);
        halves(&mut out, 0x0E, 0x2E, self.free_inodes);
        halves(&mut out, 0x10, 0x30, self.directories);
        out.put16(0x12, self.flags);
        halves(&mut out, 0x18, 0x38, self.block_bitmap_checksum);
        halves(&mut out, 0x1A, 0x3A, self.inode_bitmap_checksum);
        halves(&mut out, 0x1C, 0x32, self.unused_inodes);
        // Its own field counts as zero.
        let checksum = crc32c(crc32c(seed, &(group as u32).to_le_bytes()), &out);
        out.put16(0x1E, checksum as u16);
        out
    }
}

/// An inode as far as it is not derived from its [`Meta`].
pub struct Inode {
    /// Type and permissions.
    pub mode: u16,
    pub links: u16,
    pub size: u64,
    /// Blocks in use, with those of extents and attributes.
    pub blocks: u64,
    pub flags: u32,
    /// Extents, block numbers, device number or the target of a short link.
    pub data: [u8; 60],
    /// The block of extended attributes, or 0.
    pub xattr_block: u64,
    /// What lies behind the fixed part; at most 96 bytes.
    pub inline_xattrs: Vec<u8>,
    /// For a value of an extended attribute: its hash.
    pub value_hash: Option<u32>,
}

impl Inode {
    pub fn encode(&self, number: u32, meta: &Meta, seed: u32) -> [u8; INODE as usize] {
        let mut out = [0; INODE as usize];
        out.put16(0x00, self.mode);
        out.put16(0x02, meta.uid as u16);
        out.put64(0x04, 0x6C, self.size);
        out.put16(0x18, meta.gid as u16);
        out.put16(0x1A, self.links);
        let sectors = self.blocks * (BLOCK / 512);
        out.put32(0x1C, sectors as u32);
        out.put16(0x74, (sectors >> 32) as u16);
        out.put32(0x20, self.flags);
        out[0x28..0x64].copy_from_slice(&self.data);
        out.put32(0x68, self.xattr_block as u32);
        out.put16(0x76, (self.xattr_block >> 32) as u16);
        out.put16(0x78, (meta.uid >> 16) as u16);
        out.put16(0x7A, (meta.gid >> 16) as u16);
        out.put16(0x80, EXTRA_ISIZE as u16);
        // Access, change, modification and creation are one and the same time.
        let (seconds, extra) = encode_time(meta.mtime);
        for (low, high) in [(0x08, 0x8C), (0x0C, 0x84), (0x10, 0x88), (0x90, 0x94)] {
            out.put32(low, seconds);
            out.put32(high, extra);
        }
        if let Some(hash) = self.value_hash {
            // The hash in place of the access time; version and change time are the reference count.
            out.put64(0x08, 0x8C, u64::from(hash));
            out.put64(0x0C, 0x84, 0);
            out.put32(0x24, 1);
        }
        out[INODE_XATTRS..INODE_XATTRS + self.inline_xattrs.len()].copy_from_slice(&self.inline_xattrs);
        let checksum = crc32c(inode_seed(seed, number), &out);
        out.put16(0x7C, checksum as u16);
        out.put16(0x82, (checksum >> 16) as u16);
        out
    }
}

/// Signed seconds of 32 bits, then two more bits of them below the nanoseconds ("Inode Timestamps").
fn encode_time(time: Mtime) -> (u32, u32) {
    const LAST: i64 = 0x3_7FFF_FFFF;
    let seconds = time.seconds.clamp(i64::from(i32::MIN), LAST);
    let epoch = (seconds - i64::from(seconds as i32)) >> 32;
    (seconds as u32, time.nanoseconds << 2 | epoch as u32)
}

/// `i_block[0]` and `i_block[1]` of a device; `None` for one that Linux has no number for.
pub fn encode_device(major: u32, minor: u32) -> Option<[u8; 60]> {
    let mut out = [0; 60];
    if major > 0xFFF || minor > 0xF_FFFF {
        return None;
    }
    if major < 256 && minor < 256 {
        out.put32(0, major << 8 | minor);
    } else {
        out.put32(4, minor & 0xFF | major << 8 | (minor & !0xFF) << 12);
    }
    Some(out)
}

/// The first block of an empty journal (big endian): superblock version 2.
pub fn encode_journal(blocks: u64, uuid: &Uuid) -> Vec<u8> {
    let mut out = vec![0; BLOCK as usize];
    let mut put = |at: usize, value: u32| out[at..at + 4].copy_from_slice(&value.to_be_bytes());
    put(0x00, 0xC03B_3998);
    put(0x04, 4);
    put(0x0C, BLOCK as u32);
    put(0x10, blocks as u32);
    // The first block of the log, and the first transaction expected in it.
    put(0x14, 1);
    put(0x18, 1);
    put(0x40, 1);
    out[0x30..0x40].copy_from_slice(uuid.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_2038() {
        let at = |seconds| encode_time(Mtime { seconds, nanoseconds: 1 });
        assert_eq!(at(-1), (0xFFFF_FFFF, 4));
        assert_eq!(at(0x7FFF_FFFF), (0x7FFF_FFFF, 4));
        assert_eq!(at(0x8000_0000), (0x8000_0000, 5));
        assert_eq!(at(i64::MAX), (0x7FFF_FFFF, 7));
    }
}
