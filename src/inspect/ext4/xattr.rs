//! Extended attributes: kernel documentation, filesystems/ext4, "Extended Attributes".

use super::inode::Inode;
use super::{Ext4, broken};
use crate::error::{Error, Result};
use crate::format::ext4::crc32c::crc32c;
use crate::inspect::fields::Fields;
use crate::tree::Xattrs;

const MAGIC: u32 = 0xEA02_0000;
const BLOCK_HEADER: usize = 32;
/// The kernel's limit for a value (`XATTR_SIZE_MAX`, linux/limits.h).
const LARGEST_VALUE: usize = 65_536;

impl Ext4 {
    /// Those in the inode and those in its block.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs> {
        let mut out = Xattrs::new();
        let start = 128 + inode.extra_size();
        if inode.raw.len() > 128 && inode.raw.le32(start) == MAGIC {
            // Values count from the first entry.
            self.read(inode, inode.raw.get(start + 4..).unwrap_or_default(), 0, &mut out)?;
        }
        let number = inode.xattr_block();
        if number == 0 {
            return Ok(out);
        }
        let block = self.block(number)?;
        if block.le32(0) != MAGIC || block.le32(8) != 1 {
            return Err(wrong(inode, "are damaged"));
        }
        if self.superblock.checksums {
            let mut blank = block.clone();
            blank[16..20].fill(0);
            if crc32c(crc32c(self.superblock.seed, &number.to_le_bytes()), &blank) != block.le32(16) {
                return Err(wrong(inode, "are damaged: the checksum does not fit"));
            }
        }
        self.read(inode, &block, BLOCK_HEADER, &mut out)?;
        Ok(out)
    }

    /// Entries from `start` on, values at offsets into `area`.
    fn read(&self, inode: &Inode, area: &[u8], start: usize, out: &mut Xattrs) -> Result<()> {
        let mut at = start;
        // Four zero bytes end the list; so does the end of the area.
        while at + 4 <= area.len() && area.le32(at) != 0 {
            let name_length = usize::from(area.u8_at(at));
            let (offset, size) = (usize::from(area.le16(at + 2)), area.le32(at + 8) as usize);
            let name = area.get(at + 16..at + 16 + name_length).ok_or_else(|| wrong(inode, "are damaged"))?;
            let outside = match area.le32(at + 4) {
                0 => None,
                number => Some(self.outside_value(inode, number, size)?),
            };
            let value = match &outside {
                Some(value) => value.as_slice(),
                None if size == 0 => &[],
                None => area.get(offset..offset.saturating_add(size)).ok_or_else(|| wrong(inode, "are damaged"))?,
            };
            let index = area.u8_at(at + 1);
            let full = full_name(index, name).ok_or_else(|| wrong(inode, "have an unknown name"))?;
            let value = match index {
                2 | 3 => acl(value).ok_or_else(|| wrong(inode, "hold a malformed access list"))?,
                _ => value.to_vec(),
            };
            if out.insert(full, value).is_some() {
                return Err(wrong(inode, "have one name twice"));
            }
            at += (16 + name_length).next_multiple_of(4);
        }
        Ok(())
    }

    /// A value in an inode of its own, which knows its checksum instead of an access time.
    fn outside_value(&self, inode: &Inode, number: u32, size: usize) -> Result<Vec<u8>> {
        let value = self.value_inode(number)?;
        if value.size() != size as u64 || size > LARGEST_VALUE {
            return Err(wrong(inode, "have a value of another size"));
        }
        let bytes = self.data(&value)?.bytes(LARGEST_VALUE as u64)?;
        if self.superblock.checksums && crc32c(self.superblock.seed, &bytes) != value.raw.le32(0x08) {
            return Err(wrong(inode, "are damaged: the checksum of a value does not fit"));
        }
        Ok(bytes)
    }
}

fn wrong(inode: &Inode, what: &str) -> Error {
    broken(&format!("the extended attributes of inode {} {what}", inode.number))
}

fn full_name(index: u8, name: &[u8]) -> Option<Vec<u8>> {
    let prefix: &[u8] = match index {
        1 => b"user.",
        2 => b"system.posix_acl_access",
        3 => b"system.posix_acl_default",
        4 => b"trusted.",
        6 => b"security.",
        7 => b"system.",
        _ => return None,
    };
    if matches!(index, 2 | 3) != name.is_empty() {
        return None;
    }
    Some([prefix, name].concat())
}

/// From the form of the disk (version 1; only named users and groups have an id) to that of the system calls
/// (version 2; all have one).
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    let (version, mut rest) = value.split_at_checked(4)?;
    if version != 1u32.to_le_bytes() {
        return None;
    }
    let mut out = 2u32.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let named = matches!(rest.le16(0), 0x02 | 0x08);
        let (entry, after) = rest.split_at_checked(if named { 8 } else { 4 })?;
        out.extend(entry);
        if !named {
            out.extend([0xFF; 4]);
        }
        rest = after;
    }
    Some(out)
}
