//! Block groups: where superblocks, descriptors, bitmaps and inode tables lie, and what is left for data; pure.

use std::ops::Range;

use super::Options;
use super::format::{
    BLOCK, BLOCKS_PER_GROUP, DESCRIPTORS_PER_BLOCK, FIRST_INODE, INODES_PER_BLOCK, POINTERS_PER_BLOCK,
};
use crate::error::{Error, Kind, Result};

/// mke2fs's: groups whose metadata lie together.
const LOG_GROUPS_PER_FLEX: u32 = 4;
/// A last group with less room than this behind its own metadata is not worth having.
const LEAST_DATA: u64 = 50;
/// The file system may grow online to so many times its size, as far as one indirect block reaches.
const GROWTH: u64 = 1024;
/// And to 2 TiB, unless it is so small that the room for that would weigh.
const GROWN: u64 = (2 << 40) / BLOCK;
const SMALL: u64 = (256 << 20) / BLOCK;

#[derive(Debug, Clone)]
pub struct Geometry {
    pub blocks: u64,
    pub groups: u64,
    pub inodes_per_group: u64,
    pub descriptor_blocks: u64,
    pub reserved_gdt_blocks: u64,
    pub log_groups_per_flex: u32,
    pub journal_blocks: u64,
}

impl Geometry {
    pub fn new(options: &Options) -> Result<Geometry> {
        let blocks = options.size / BLOCK;
        if blocks > u64::from(u32::MAX) {
            return Err(Error::build(format!("an ext4 file system of {} bytes is not supported", options.size)));
        }
        let journal_blocks = journal_blocks(blocks).ok_or_else(|| too_small(options.size))?;
        let wanted = options.inodes.unwrap_or_else(|| options.size / options.bytes_per_inode.max(1024));
        let mut found = Geometry { journal_blocks, ..Geometry::grouped(blocks, wanted)? };
        let tail = found.blocks - (found.groups - 1) * BLOCKS_PER_GROUP;
        let needed = found.super_blocks(found.groups - 1) + 2 + found.inode_table_blocks() + LEAST_DATA;
        if tail < needed {
            if found.groups == 1 {
                return Err(too_small(options.size));
            }
            found = Geometry { journal_blocks, ..Geometry::grouped((found.groups - 1) * BLOCKS_PER_GROUP, wanted)? };
        }
        found.fit_flex_groups()?;
        Ok(found)
    }

    fn grouped(blocks: u64, inodes: u64) -> Result<Geometry> {
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let inodes_per_group = inodes.max(u64::from(FIRST_INODE) + 1).div_ceil(groups);
        let inodes_per_group = inodes_per_group.next_multiple_of(INODES_PER_BLOCK);
        if inodes_per_group > BLOCKS_PER_GROUP {
            return Err(Error::build(format!("{inodes} inodes are too many for {groups} block groups")));
        }
        let descriptor_blocks = groups.div_ceil(DESCRIPTORS_PER_BLOCK);
        let least = if blocks < SMALL { 0 } else { GROWN };
        let grown = (blocks * GROWTH).max(least).min(u64::from(u32::MAX)).div_ceil(BLOCKS_PER_GROUP);
        let reserved = grown.div_ceil(DESCRIPTORS_PER_BLOCK).saturating_sub(descriptor_blocks);
        Ok(Geometry {
            blocks,
            groups,
            inodes_per_group,
            descriptor_blocks,
            reserved_gdt_blocks: reserved.min(POINTERS_PER_BLOCK),
            log_groups_per_flex: LOG_GROUPS_PER_FLEX,
            journal_blocks: 0,
        })
    }

    /// Makes flex groups smaller until the metadata of each fits into its first group.
    fn fit_flex_groups(&mut self) -> Result<()> {
        while self.log_groups_per_flex > 0 {
            let size = 1 << self.log_groups_per_flex;
            let metadata = size.min(self.groups) * (2 + self.inode_table_blocks());
            if self.super_blocks(0) + metadata + LEAST_DATA <= self.group_blocks(0) {
                return Ok(());
            }
            self.log_groups_per_flex -= 1;
        }
        if self.super_blocks(0) + 2 + self.inode_table_blocks() + LEAST_DATA > self.group_blocks(0) {
            return Err(Error::build("there are too many inodes for the size of the block groups"));
        }
        Ok(())
    }

    pub fn inodes(&self) -> u64 {
        self.inodes_per_group * self.groups
    }

    pub fn inode_table_blocks(&self) -> u64 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    pub fn group_start(&self, group: u64) -> u64 {
        group * BLOCKS_PER_GROUP
    }

    pub fn group_blocks(&self, group: u64) -> u64 {
        (self.blocks - self.group_start(group)).min(BLOCKS_PER_GROUP)
    }

    /// sparse_super: groups 0 and 1 and the powers of 3, 5 and 7.
    pub fn has_super(group: u64) -> bool {
        let power = |base: u64| {
            let mut value = base;
            while value < group {
                value *= base;
            }
            value == group
        };
        group <= 1 || power(3) || power(5) || power(7)
    }

    /// Groups with a copy of superblock and descriptors, but for the first.
    pub fn backup_groups(&self) -> impl Iterator<Item = u64> {
        (1..self.groups).filter(|group| Self::has_super(*group))
    }

    /// Superblock, descriptors and the room for more descriptors at the start of a group.
    pub fn super_blocks(&self, group: u64) -> u64 {
        if Self::has_super(group) { 1 + self.descriptor_blocks + self.reserved_gdt_blocks } else { 0 }
    }

    /// The first group and the size of the flex group of a group.
    fn flex(&self, group: u64) -> (u64, u64) {
        let first = group >> self.log_groups_per_flex << self.log_groups_per_flex;
        (first, (1 << self.log_groups_per_flex).min(self.groups - first))
    }

    pub fn block_bitmap(&self, group: u64) -> u64 {
        let (first, _) = self.flex(group);
        self.group_start(first) + self.super_blocks(first) + (group - first)
    }

    pub fn inode_bitmap(&self, group: u64) -> u64 {
        self.block_bitmap(group) + self.flex(group).1
    }

    pub fn inode_table(&self, group: u64) -> u64 {
        let (first, size) = self.flex(group);
        self.block_bitmap(first) + 2 * size + (group - first) * self.inode_table_blocks()
    }

    /// Blocks at the start of a group that hold metadata (for the first of a flex group, those of all of it).
    pub fn metadata(&self, group: u64) -> Range<u64> {
        let (first, size) = self.flex(group);
        let flex = if first == group { size * (2 + self.inode_table_blocks()) } else { 0 };
        let start = self.group_start(group);
        start..start + self.super_blocks(group) + flex
    }

    /// Where an inode lies, in bytes.
    pub fn inode_offset(&self, number: u32) -> u64 {
        let index = u64::from(number) - 1;
        let within = index % self.inodes_per_group * super::format::INODE;
        self.inode_table(index / self.inodes_per_group) * BLOCK + within
    }
}

/// mke2fs's table: about 1/64 of small file systems, up to 1 GiB for large ones.
fn journal_blocks(blocks: u64) -> Option<u64> {
    let table = [
        (32 << 10, 1024),
        (256 << 10, 4096),
        (512 << 10, 8192),
        (4 << 20, 16384),
        (8 << 20, 32768),
        (16 << 20, 65536),
        (32 << 20, 131_072),
        (u64::MAX, 262_144),
    ];
    if blocks < 2048 {
        return None;
    }
    table.iter().find(|(limit, _)| blocks < *limit).map(|(_, size)| *size)
}

fn too_small(size: u64) -> Error {
    Error::new(Kind::Space, format!("{size} bytes are too few for an ext4 file system with a journal"))
        .hint("give the partition at least 16 MiB")
}
