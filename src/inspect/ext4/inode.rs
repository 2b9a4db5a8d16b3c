//! Inodes: kernel documentation, filesystems/ext4, "Index Nodes".

use super::{Ext4, broken};
use crate::error::{Error, Result};
use crate::format::ext4::crc32c::crc32c;
use crate::inspect::fields::Fields;
use crate::tree::Mtime;

pub const FLAG_INDEX: u32 = 0x1000;
pub const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_ENCRYPT: u32 = 0x800;
const FLAG_EA_INODE: u32 = 0x20_0000;
const FLAG_INLINE_DATA: u32 = 0x1000_0000;

pub const TYPE_MASK: u16 = 0o170000;
pub const TYPE_FIFO: u16 = 0o010000;
pub const TYPE_CHAR: u16 = 0o020000;
pub const TYPE_DIRECTORY: u16 = 0o040000;
pub const TYPE_BLOCK: u16 = 0o060000;
pub const TYPE_FILE: u16 = 0o100000;
pub const TYPE_SYMLINK: u16 = 0o120000;
pub const TYPE_SOCKET: u16 = 0o140000;

#[derive(Debug, Clone)]
pub struct Inode {
    pub number: u32,
    pub raw: Vec<u8>,
    /// Where checksums of what belongs to it start.
    pub seed: u32,
}

impl Inode {
    pub fn mode(&self) -> u16 {
        self.raw.le16(0x00)
    }
    pub fn kind(&self) -> u16 {
        self.mode() & TYPE_MASK
    }
    pub fn uid(&self) -> u32 {
        u32::from(self.raw.le16(0x02)) | u32::from(self.raw.le16(0x78)) << 16
    }
    pub fn gid(&self) -> u32 {
        u32::from(self.raw.le16(0x18)) | u32::from(self.raw.le16(0x7A)) << 16
    }
    pub fn size(&self) -> u64 {
        self.raw.split32(0x04, 0x6C)
    }
    pub fn links(&self) -> u16 {
        self.raw.le16(0x1A)
    }
    pub fn flags(&self) -> u32 {
        self.raw.le32(0x20)
    }
    /// Block map, extent tree, device number or short link target.
    pub fn data(&self) -> [u8; 60] {
        self.raw.part(0x28)
    }
    pub fn xattr_block(&self) -> u64 {
        u64::from(self.raw.le32(0x68)) | u64::from(self.raw.le16(0x76)) << 32
    }
    /// Bytes in use behind the first 128.
    pub fn extra_size(&self) -> usize {
        if self.raw.len() > 128 { usize::from(self.raw.le16(0x80)) } else { 0 }
    }

    pub fn mtime(&self) -> Mtime {
        let seconds = i64::from(self.raw.le32(0x10) as i32);
        // "Inode Timestamps": two more bits of seconds, then nanoseconds.
        let extra = if self.extra_size() >= 12 { self.raw.le32(0x88) } else { 0 };
        Mtime { seconds: seconds + (i64::from(extra & 3) << 32), nanoseconds: (extra >> 2).min(999_999_999) }
    }

    /// Major and minor number, in the old or the new form.
    pub fn device(&self) -> (u32, u32) {
        let data = self.data();
        match data.le32(0) {
            0 => {
                let new = data.le32(4);
                (new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xF_FF00)
            }
            old => (old >> 8 & 0xFF, old & 0xFF),
        }
    }
}

impl Ext4 {
    /// Reads and checks an inode that a directory points to.
    pub fn inode(&self, number: u32) -> Result<Inode> {
        let inode = self.any_inode(number)?;
        let refused = inode.flags() & (FLAG_ENCRYPT | FLAG_EA_INODE | FLAG_INLINE_DATA);
        if refused != 0 {
            return Err(Error::build(format!(
                "inode {number} of the ext4 file system uses features that this program does not read ({refused:#x})"
            )));
        }
        Ok(inode)
    }

    /// Reads and checks an inode that holds the value of an extended attribute.
    pub fn value_inode(&self, number: u32) -> Result<Inode> {
        let inode = self.any_inode(number)?;
        match inode.flags() & (FLAG_ENCRYPT | FLAG_EA_INODE | FLAG_INLINE_DATA) {
            FLAG_EA_INODE => Ok(inode),
            _ => Err(broken(&format!("inode {number} is not the value of an extended attribute"))),
        }
    }

    fn any_inode(&self, number: u32) -> Result<Inode> {
        let superblock = &self.superblock;
        if number == 0 || number > superblock.inodes {
            return Err(broken(&format!("inode {number} does not exist")));
        }
        let offset = self.inode_offset(number);
        let raw = self.source.bytes(offset, superblock.inode_size as usize)?;
        let mut inode = Inode { number, raw, seed: 0 };
        if inode.extra_size() > inode.raw.len() - 128 {
            return Err(broken(&format!("the size of inode {number} is impossible")));
        }
        inode.seed = crc32c(crc32c(superblock.seed, &number.to_le_bytes()), &inode.raw[0x64..0x68]);
        if superblock.checksums {
            check_checksum(&inode)?;
        }
        Ok(inode)
    }

    /// Where an existing inode lies, in bytes.
    pub fn inode_offset(&self, number: u32) -> u64 {
        let index = u64::from(number) - 1;
        let per_group = self.superblock.inodes_per_group;
        let table = self.groups.get((index / per_group) as usize).map_or(0, |group| group.inode_table);
        table * self.superblock.block_size + index % per_group * self.superblock.inode_size
    }
}

fn check_checksum(inode: &Inode) -> Result<()> {
    let mut blank = inode.raw.clone();
    let mut stored = u32::from(blank.le16(0x7C));
    blank[0x7C..0x7E].fill(0);
    // The upper half has a place only in inodes that reach behind it.
    let wide = inode.extra_size() >= 4;
    if wide {
        stored |= u32::from(blank.le16(0x82)) << 16;
        blank[0x82..0x84].fill(0);
    }
    let computed = crc32c(inode.seed, &blank);
    let computed = if wide { computed } else { computed & 0xFFFF };
    if stored == computed {
        Ok(())
    } else {
        Err(broken(&format!("the checksum of inode {} does not fit", inode.number)))
    }
}
