//! The superblock and the group descriptors: kernel documentation, filesystems/ext4, "Super Block" and "Block Group
//! Descriptors". Read and checked so that nothing after it can be led outside of the file system.

use uuid::Uuid;

use super::broken;
use crate::error::{Error, Result};
use crate::format::ext4::crc32c::crc32c;
use crate::inspect::fields::Fields;
use crate::inspect::source::Source;

/// Where the first superblock lies, and how long it is.
pub const OFFSET: u64 = 1024;
pub const LENGTH: usize = 1024;
const MAGIC: u16 = 0xEF53;

const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_MMP: u32 = 0x100;
const INCOMPAT_FLEX_BG: u32 = 0x200;
const INCOMPAT_EA_INODE: u32 = 0x400;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
const INCOMPAT_LARGEDIR: u32 = 0x4000;
/// What can be read. Left out: compression, journal device, inline data, encryption, case folding.
const SUPPORTED: u32 = INCOMPAT_FILETYPE
    | INCOMPAT_META_BG
    | INCOMPAT_EXTENTS
    | INCOMPAT_64BIT
    | INCOMPAT_MMP
    | INCOMPAT_FLEX_BG
    | INCOMPAT_EA_INODE
    | INCOMPAT_CSUM_SEED
    | INCOMPAT_LARGEDIR;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_BIGALLOC: u32 = 0x200;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;

#[derive(Debug, Clone)]
pub struct Superblock {
    pub raw: Vec<u8>,
    pub block_size: u64,
    pub blocks: u64,
    pub free_blocks: u64,
    pub inodes: u32,
    pub free_inodes: u32,
    pub first_data_block: u64,
    pub blocks_per_group: u64,
    pub inodes_per_group: u64,
    pub inode_size: u64,
    pub groups: u64,
    pub descriptor_size: u64,
    pub reserved_gdt_blocks: u64,
    pub uuid: Uuid,
    pub label: Vec<u8>,
    pub checksums: bool,
    /// Where checksums start.
    pub seed: u32,
    incompat: u32,
    ro_compat: u32,
    compat: u32,
}

impl Superblock {
    pub fn read(source: &dyn Source) -> Result<Superblock> {
        let raw = source.bytes(OFFSET, LENGTH)?;
        if raw.le16(0x38) != MAGIC {
            return Err(broken("there is no superblock"));
        }
        let (compat, incompat, ro_compat) = (raw.le32(0x5C), raw.le32(0x60), raw.le32(0x64));
        refuse_features(incompat, ro_compat)?;
        let checksums = ro_compat & RO_COMPAT_METADATA_CSUM != 0;
        if checksums && crc32c(!0, &raw[..1020]) != raw.le32(1020) {
            return Err(broken("the checksum of the superblock does not fit"));
        }
        let log_block_size = raw.le32(0x18);
        if log_block_size > 6 {
            return Err(broken("the block size is not one"));
        }
        let uuid = Uuid::from_bytes(raw.part(0x68));
        let high = |at: usize| if incompat & INCOMPAT_64BIT != 0 { u64::from(raw.le32(at)) << 32 } else { 0 };
        let revision_1 = raw.le32(0x4C) >= 1;
        let label: [u8; 16] = raw.part(0x78);
        let mut out = Superblock {
            block_size: 1024 << log_block_size,
            blocks: u64::from(raw.le32(0x04)) | high(0x150),
            free_blocks: u64::from(raw.le32(0x0C)) | high(0x158),
            inodes: raw.le32(0x00),
            free_inodes: raw.le32(0x10),
            first_data_block: u64::from(raw.le32(0x14)),
            blocks_per_group: u64::from(raw.le32(0x20)),
            inodes_per_group: u64::from(raw.le32(0x28)),
            inode_size: if revision_1 { u64::from(raw.le16(0x58)) } else { 128 },
            groups: 0,
            descriptor_size: if incompat & INCOMPAT_64BIT != 0 { u64::from(raw.le16(0xFE)) } else { 32 },
            reserved_gdt_blocks: u64::from(raw.le16(0xCE)),
            uuid,
            label: label.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
            checksums,
            seed: if incompat & INCOMPAT_CSUM_SEED != 0 { raw.le32(0x270) } else { crc32c(!0, uuid.as_bytes()) },
            incompat,
            ro_compat,
            compat,
            raw,
        };
        out.check(source.size())?;
        Ok(out)
    }

    /// All numbers that places are computed from; afterwards no product of them can overflow.
    fn check(&mut self, available: u64) -> Result<()> {
        let bits = self.block_size * 8;
        if self.blocks.checked_mul(self.block_size).is_none_or(|size| size > available) {
            let claimed = self.blocks.saturating_mul(self.block_size);
            return Err(broken(&format!("it claims {claimed} bytes, there are {available}")));
        }
        if self.blocks_per_group == 0 || self.blocks_per_group > bits || self.blocks_per_group % 8 != 0 {
            return Err(broken("the number of blocks per group is impossible"));
        }
        if self.inodes_per_group == 0 || self.inodes_per_group > bits || self.inodes_per_group % 8 != 0 {
            return Err(broken("the number of inodes per group is impossible"));
        }
        let inode_size_fits = (128..=self.block_size).contains(&self.inode_size) && self.inode_size.is_power_of_two();
        let wanted = if self.incompat & INCOMPAT_64BIT != 0 { 64 } else { 32 };
        let descriptor_fits = (wanted..=self.block_size).contains(&self.descriptor_size);
        if !inode_size_fits || !descriptor_fits || !self.descriptor_size.is_power_of_two() {
            return Err(broken("the size of inodes or descriptors is impossible"));
        }
        if self.first_data_block != u64::from(self.block_size == 1024) || self.blocks <= self.first_data_block {
            return Err(broken("the number of blocks is impossible"));
        }
        self.groups = (self.blocks - self.first_data_block).div_ceil(self.blocks_per_group);
        if u64::from(self.inodes) != self.groups.saturating_mul(self.inodes_per_group) {
            return Err(broken("the number of inodes does not fit the number of groups"));
        }
        Ok(())
    }

    pub fn group_start(&self, group: u64) -> u64 {
        self.first_data_block + group * self.blocks_per_group
    }

    /// Blocks of a group; the last one may have fewer.
    pub fn group_blocks(&self, group: u64) -> u64 {
        self.blocks.saturating_sub(self.group_start(group)).min(self.blocks_per_group)
    }

    pub fn inode_table_blocks(&self) -> u64 {
        (self.inodes_per_group * self.inode_size).div_ceil(self.block_size)
    }

    pub fn descriptors_per_block(&self) -> u64 {
        self.block_size / self.descriptor_size
    }

    /// Whether a group starts with a copy of the superblock.
    pub fn has_super(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat & COMPAT_SPARSE_SUPER2 != 0 {
            return [self.raw.le32(0x24C), self.raw.le32(0x250)].map(u64::from).contains(&group);
        }
        self.ro_compat & RO_COMPAT_SPARSE_SUPER == 0
            || group == 1
            || [3, 5, 7].iter().any(|base| is_power(group, *base))
    }

    /// Blocks of descriptors behind each copy of the superblock; those of meta groups lie elsewhere.
    pub fn descriptor_blocks(&self) -> u64 {
        let all = self.groups.div_ceil(self.descriptors_per_block());
        if self.incompat & INCOMPAT_META_BG != 0 { all.min(u64::from(self.raw.le32(0x104))) } else { all }
    }

    /// The block with the given part of the descriptors.
    fn descriptor_block(&self, index: u64) -> u64 {
        if index < self.descriptor_blocks() {
            return self.first_data_block + 1 + index;
        }
        let group = index * self.descriptors_per_block();
        self.group_start(group) + u64::from(self.has_super(group))
    }

    pub fn meta_groups(&self) -> bool {
        self.incompat & INCOMPAT_META_BG != 0
    }
}

fn is_power(mut value: u64, base: u64) -> bool {
    while value % base == 0 {
        value /= base;
    }
    value == 1
}

fn refuse_features(incompat: u32, ro_compat: u32) -> Result<()> {
    if incompat & INCOMPAT_RECOVER != 0 {
        return Err(Error::build("the ext4 file system was not unmounted cleanly: its journal holds changes")
            .hint("replay the journal with `e2fsck`, or shut the machine down cleanly, then look again"));
    }
    let unknown = incompat & !SUPPORTED;
    if unknown != 0 || incompat & INCOMPAT_FILETYPE == 0 || ro_compat & RO_COMPAT_BIGALLOC != 0 {
        return Err(Error::build(format!(
            "the ext4 file system uses features that this program does not read (incompatible {unknown:#x}, \
             read-only {ro_compat:#x})"
        )));
    }
    Ok(())
}

/// What a reader needs of a group descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: u64,
    pub flags: u16,
}

/// All descriptors, checked.
pub fn groups(source: &dyn Source, superblock: &Superblock) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    let per_block = superblock.descriptors_per_block();
    for index in 0..superblock.groups.div_ceil(per_block) {
        crate::interrupt::check()?;
        let block = superblock.descriptor_block(index);
        let bytes = source.bytes(block.saturating_mul(superblock.block_size), superblock.block_size as usize)?;
        let left = superblock.groups - index * per_block;
        for raw in bytes.chunks_exact(superblock.descriptor_size as usize).take(left.min(per_block) as usize) {
            groups.push(group(raw, groups.len() as u64, superblock)?);
        }
    }
    Ok(groups)
}

fn group(raw: &[u8], number: u64, superblock: &Superblock) -> Result<Group> {
    if superblock.checksums {
        let mut blank = raw.to_vec();
        blank[0x1E..0x20].fill(0);
        let checksum = crc32c(crc32c(superblock.seed, &(number as u32).to_le_bytes()), &blank);
        if checksum as u16 != raw.le16(0x1E) {
            return Err(broken(&format!("the checksum of group descriptor {number} does not fit")));
        }
    }
    let wide = raw.len() >= 64;
    let place = |low, high| if wide { raw.split32(low, high) } else { u64::from(raw.le32(low)) };
    let group = Group {
        block_bitmap: place(0x00, 0x20),
        inode_bitmap: place(0x04, 0x24),
        inode_table: place(0x08, 0x28),
        flags: raw.le16(0x12),
    };
    let table_end = group.inode_table.checked_add(superblock.inode_table_blocks());
    let inside = table_end.is_some_and(|end| end <= superblock.blocks)
        && group.block_bitmap < superblock.blocks
        && group.inode_bitmap < superblock.blocks;
    if !inside {
        return Err(broken(&format!("group descriptor {number} points outside of the file system")));
    }
    Ok(group)
}
