//! What lies at an offset of a file system: so that a difference of two images has a name.
//!
//! Owns: [`Ext4::explain`]. Names are those of the kernel documentation, filesystems/ext4.

use super::Ext4;
use super::superblock::{LENGTH, OFFSET};
use crate::error::Result;
use crate::inspect::listing::Found;

const RESIZE_INODE: u32 = 7;
const JOURNAL_INODE: u32 = 8;

/// First byte and name of the fields that are worth one; a field lasts until the next.
const SUPERBLOCK: [(usize, &str); 34] = [
    (0x00, "inodes count"),
    (0x04, "blocks count"),
    (0x08, "reserved blocks count"),
    (0x0C, "free blocks count"),
    (0x10, "free inodes count"),
    (0x14, "first data block"),
    (0x18, "block size"),
    (0x20, "blocks per group"),
    (0x28, "inodes per group"),
    (0x2C, "mount time"),
    (0x30, "write time"),
    (0x34, "mount count"),
    (0x38, "magic"),
    (0x3A, "state"),
    (0x3C, "behaviour on errors"),
    (0x40, "check time"),
    (0x44, "check interval"),
    (0x48, "creator"),
    (0x50, "default owner of reserved blocks"),
    (0x54, "first inode"),
    (0x5C, "features"),
    (0x68, "uuid"),
    (0x78, "volume name"),
    (0x88, "last mount point"),
    (0xC8, "preallocation"),
    (0xE0, "journal inode"),
    (0xEC, "hash seed"),
    (0xFC, "hash version"),
    (0x100, "default mount options"),
    (0x108, "creation time"),
    (0x10C, "journal backup"),
    (0x150, "counts and sizes"),
    (0x178, "kilobytes written"),
    (0x3FC, "checksum"),
];

const INODE: [(usize, &str); 24] = [
    (0x00, "mode"),
    (0x02, "owner"),
    (0x04, "size"),
    (0x08, "access time"),
    (0x0C, "change time"),
    (0x10, "modification time"),
    (0x14, "deletion time"),
    (0x18, "group"),
    (0x1A, "links count"),
    (0x1C, "blocks count"),
    (0x20, "flags"),
    (0x24, "version"),
    (0x28, "block map"),
    (0x64, "generation"),
    (0x68, "attribute block"),
    (0x6C, "size"),
    (0x74, "blocks count"),
    (0x78, "owner"),
    (0x7C, "checksum"),
    (0x80, "extra size"),
    (0x82, "checksum"),
    (0x84, "change time"),
    (0x88, "modification time"),
    (0x8C, "access and creation time"),
];
/// Behind the fixed part: attributes.
const INODE_ATTRIBUTES: usize = 0xA0;

fn field<'a>(fields: &[(usize, &'a str)], at: usize) -> &'a str {
    let after = fields.partition_point(|(start, _)| *start <= at);
    fields[after.saturating_sub(1)].1
}

/// Which blocks belong to whom; ascending.
struct Owners(Vec<(u64, u64, String)>);

impl Owners {
    fn find(&self, block: u64) -> Option<&str> {
        let after = self.0.partition_point(|(start, ..)| *start <= block);
        let (_, end, name) = self.0.get(after.checked_sub(1)?)?;
        (block < *end).then_some(name.as_str())
    }
}

impl Ext4 {
    /// A name for the byte at an offset of the file system. Reads the whole directory tree.
    pub fn explain(&self, offset: u64) -> Result<String> {
        let superblock = &self.superblock;
        let block = offset / superblock.block_size;
        if block >= superblock.blocks {
            return Ok("the unused area behind the file system".to_owned());
        }
        if let Some(fixed) = self.fixed(offset) {
            return Ok(fixed);
        }
        for (number, group) in self.groups.iter().enumerate() {
            if block == group.block_bitmap {
                return Ok(format!("the block bitmap of group {number}"));
            }
            if block == group.inode_bitmap {
                return Ok(format!("the inode bitmap of group {number}"));
            }
            let table = group.inode_table * superblock.block_size;
            let length = superblock.inodes_per_group * superblock.inode_size;
            if (table..table + length).contains(&offset) {
                let index = (offset - table) / superblock.inode_size;
                let inode = number as u64 * superblock.inodes_per_group + index + 1;
                return self.explain_inode(inode, ((offset - table) % superblock.inode_size) as usize);
            }
        }
        let owners = self.owners()?;
        Ok(match owners.find(block) {
            Some(owner) => owner.to_owned(),
            None => format!("an unused area (block {block})"),
        })
    }

    /// Superblocks and descriptors, which lie where the group number says.
    fn fixed(&self, offset: u64) -> Option<String> {
        let superblock = &self.superblock;
        let size = superblock.block_size;
        if offset < OFFSET {
            return Some("the boot area before the superblock".to_owned());
        }
        let block = offset / size;
        let group = block.checked_sub(superblock.first_data_block)? / superblock.blocks_per_group;
        if !superblock.has_super(group) {
            return None;
        }
        let start = superblock.group_start(group) * size;
        // The first one leaves room for a boot sector in front of it.
        let start_of_super = if group == 0 { OFFSET } else { start };
        let copy = if group == 0 { String::new() } else { format!(" (copy in group {group})") };
        if (start_of_super..start_of_super + LENGTH as u64).contains(&offset) {
            let name = field(&SUPERBLOCK, (offset - start_of_super) as usize);
            return Some(format!("the superblock{copy}, field `{name}`"));
        }
        let descriptors = start + size;
        let end = descriptors + superblock.descriptor_blocks() * size;
        if (descriptors..end).contains(&offset) {
            return Some(format!("group descriptor {}{copy}", (offset - descriptors) / superblock.descriptor_size));
        }
        (end..end + superblock.reserved_gdt_blocks * size)
            .contains(&offset)
            .then(|| format!("the blocks reserved for more group descriptors{copy}"))
    }

    fn explain_inode(&self, number: u64, at: usize) -> Result<String> {
        let path = match number as u32 {
            RESIZE_INODE => Some("the resize inode".to_owned()),
            JOURNAL_INODE => Some("the journal".to_owned()),
            _ => {
                let listing = self.listing()?;
                listing.iter().find(|(_, item)| item.number == number).map(|(path, _)| path.to_string())
            }
        };
        let name = if at >= INODE_ATTRIBUTES { "attributes" } else { field(&INODE, at) };
        Ok(match path {
            Some(path) => format!("inode {number} ({path}), field `{name}`"),
            None => format!("inode {number} (of no path)"),
        })
    }

    fn owners(&self) -> Result<Owners> {
        let mut owners = Vec::new();
        for (number, name) in [(JOURNAL_INODE, "the journal"), (RESIZE_INODE, "the resize inode's block")] {
            self.add(number, name.to_owned(), name, &mut owners);
        }
        for (path, item) in self.listing()?.iter() {
            let name = match &item.found {
                Found::Directory => format!("a directory block of {path}"),
                Found::File(_) => format!("the content of {path}"),
                Found::Symlink(_) => format!("the target of {path}"),
                Found::HardLink(_) => continue,
                _ => String::new(),
            };
            self.add(item.number as u32, name, &path.to_string(), &mut owners);
        }
        owners.sort();
        Ok(Owners(owners))
    }

    /// The blocks of an inode. One that cannot be read owns nothing: its damage is told by whoever reads it.
    fn add(&self, number: u32, data: String, path: &str, owners: &mut Vec<(u64, u64, String)>) {
        let Ok(inode) = self.inode(number) else { return };
        if inode.xattr_block() != 0 {
            owners.push((inode.xattr_block(), inode.xattr_block() + 1, format!("the extended attributes of {path}")));
        }
        let Ok(mapped) = self.map(&inode) else { return };
        let size = self.superblock.block_size;
        owners.extend(mapped.nodes.iter().map(|node| (*node, *node + 1, format!("the extent tree of {path}"))));
        let run = |run: &crate::inspect::listing::Run| {
            (run.physical / size, (run.physical + run.length) / size, data.clone())
        };
        owners.extend(mapped.runs.iter().map(run));
    }
}
