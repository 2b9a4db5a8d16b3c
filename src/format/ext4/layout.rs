//! From a Tree to the place and the bytes of every inode, directory and extent; pure.

use std::collections::BTreeMap;

use super::Options;
use super::alloc::{Allocator, Run};
use super::directory::{self, Shape};
use super::extent;
use super::format::*;
use super::geometry::Geometry;
use super::nodes::{Node, nodes};
use super::xattr::{self, Placed};
use crate::error::{Context, Error, Kind as ErrorKind, Result};
use crate::format::disk::{Extent, ExtentData};
use crate::interrupt;
use crate::tree::{Content, Kind, Meta, Tree};

/// A file system that is complete but for superblocks, descriptors and bitmaps, which follow from it.
pub struct Plan {
    pub(super) geometry: Geometry,
    pub(super) seed: u32,
    /// By number.
    pub(super) inodes: BTreeMap<u32, [u8; INODE as usize]>,
    /// Folders in each group.
    pub(super) directories: BTreeMap<u64, u32>,
    /// Directories, links, attributes, files.
    pub(super) extents: Vec<Extent>,
    pub(super) allocator: Allocator,
    pub(super) journal_data: [u8; 60],
}

/// A folder with more folders than this counts as one link ("dir_nlink").
const MAX_LINKS: u64 = 65000;
/// lost+found has room from the start, since e2fsck may need it when there is none.
const LOST_FOUND_BLOCKS: u64 = 4;

/// Lays out a file system. Too small is [`ErrorKind::Space`], with the bytes required and available.
pub fn layout(tree: &Tree, options: &Options) -> Result<Plan> {
    if options.label.len() > 16 {
        return Err(Error::build(format!("the label `{}` is longer than 16 bytes", options.label)));
    }
    let geometry = Geometry::new(options)?;
    let nodes = nodes(tree, options)?;
    let highest = nodes.iter().map(|node| node.number).max().unwrap_or(FIRST_INODE);
    if u64::from(highest) > geometry.inodes() {
        // The way to more inodes is a larger file system.
        let required = u64::from(highest).saturating_mul(options.size.div_ceil(geometry.inodes()));
        let message = format!(
            "the content needs {required} bytes for {highest} files and folders, the file system has {}",
            options.size
        );
        return Err(Error::new(ErrorKind::Space, message).hint("make the partition larger"));
    }
    let allocator = Allocator::new(&geometry);
    let seed = checksum_seed(&options.uuid);
    let (inodes, directories, extents) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut plan = Plan { geometry, seed, inodes, directories, extents, allocator, journal_data: [0; 60] };
    plan.resize_inode(options);
    // Folders first, so that looking up a path stays in one corner of the disk.
    for folders in [true, false] {
        for node in nodes.iter().filter(|node| matches!(node.kind, Kind::Directory) == folders) {
            interrupt::check()?;
            plan.node(node, options).with_context(|| format!("laying out {}", node.path))?;
        }
    }
    plan.journal(options)?;
    plan.check_space()?;
    Ok(plan)
}

impl Plan {
    fn check_space(&self) -> Result<()> {
        let Allocator { asked, total, .. } = self.allocator;
        if asked <= total {
            return Ok(());
        }
        let available = self.geometry.blocks * BLOCK;
        let required = (self.geometry.blocks - total + asked) * BLOCK;
        let message = format!("the content needs {required} bytes, the file system has {available}");
        Err(Error::new(ErrorKind::Space, message).hint("make the partition larger"))
    }

    fn node(&mut self, node: &Node, options: &Options) -> Result<()> {
        let xattrs = xattr::place(&node.meta.xattrs)?;
        let mut inode = match &node.kind {
            Kind::Directory => self.directory(node, options)?,
            Kind::File(content) => self.file(node.number, content)?,
            Kind::Symlink(target) => self.symlink(node.number, target)?,
            Kind::CharDevice { major, minor } => bare(MODE_CHAR, encode_device(*major, *minor)),
            Kind::BlockDevice { major, minor } => bare(MODE_BLOCK, encode_device(*major, *minor)),
            Kind::Fifo => bare(MODE_FIFO, [0; 60]),
            Kind::Socket => bare(MODE_SOCKET, [0; 60]),
            Kind::HardLink(_) => return Err(Error::build("a hard link is no inode")),
        };
        inode.mode |= node.meta.mode & 0o7777;
        inode.links = match (&node.kind, node.links) {
            (Kind::Directory, links) if links > MAX_LINKS => 1,
            (_, links) => u16::try_from(links)
                .ok()
                .filter(|links| u64::from(*links) <= MAX_LINKS)
                .ok_or_else(|| Error::build(format!("{links} hard links are more than ext4 can count")))?,
        };
        match xattrs {
            Placed::InInode(bytes) => inode.inline_xattrs = bytes,
            Placed::InBlock(mut block) => {
                inode.xattr_block = self.allocator.take_one();
                inode.blocks += 1;
                xattr::seal(&mut block, inode.xattr_block, self.seed);
                self.put_block(inode.xattr_block, block);
            }
        }
        self.inodes.insert(node.number, inode.encode(node.number, &node.meta, self.seed));
        Ok(())
    }

    fn put_block(&mut self, number: u64, block: Vec<u8>) {
        self.extents.push(Extent::bytes(number * BLOCK, block));
    }

    /// An inode with `size` bytes in new blocks, and where they are.
    fn mapped(&mut self, number: u32, mode: u16, size: u64) -> Result<(Inode, Vec<Run>)> {
        let blocks = size.div_ceil(BLOCK);
        let runs = self.allocator.take(blocks);
        let extents = extent::tree(&runs, number, self.seed, &mut self.allocator)?;
        let mut inode = bare(mode, extents.data);
        (inode.size, inode.flags) = (size, FLAG_EXTENTS);
        inode.blocks = blocks + extents.blocks.len() as u64;
        for (number, block) in extents.blocks {
            self.put_block(number, block);
        }
        Ok((inode, runs))
    }

    /// As [`Plan::mapped`], with the blocks' bytes.
    fn mapped_blocks(&mut self, number: u32, mode: u16, size: u64, blocks: Vec<Vec<u8>>) -> Result<Inode> {
        let (inode, runs) = self.mapped(number, mode, size)?;
        let numbers = runs.iter().flat_map(|run| run.start..run.start + run.length);
        for (number, block) in numbers.zip(blocks) {
            self.put_block(number, block);
        }
        Ok(inode)
    }

    fn directory(&mut self, node: &Node, options: &Options) -> Result<Inode> {
        let shape = Shape::new(node.entries.clone(), options.hash_seed.as_bytes())?;
        let seed = inode_seed(self.seed, node.number);
        let mut blocks = shape.encode(node.number, node.parent, seed);
        if node.number == FIRST_INODE && !shape.indexed() {
            blocks.resize_with(LOST_FOUND_BLOCKS as usize, || directory::leaf(std::iter::empty(), seed));
        }
        let size = blocks.len() as u64 * BLOCK;
        let mut inode = self.mapped_blocks(node.number, MODE_DIRECTORY, size, blocks)?;
        if shape.indexed() {
            inode.flags |= FLAG_INDEX;
        }
        let group = (u64::from(node.number) - 1) / self.geometry.inodes_per_group;
        *self.directories.entry(group).or_default() += 1;
        Ok(inode)
    }

    fn file(&mut self, number: u32, content: &Content) -> Result<Inode> {
        let (inode, runs) = self.mapped(number, MODE_FILE, content.size())?;
        let mut offset = 0;
        for run in runs {
            let length = (run.length * BLOCK).min(content.size() - offset);
            let data = ExtentData::Content { content: content.clone(), offset };
            self.extents.push(Extent { offset: run.start * BLOCK, length, data });
            offset += length;
        }
        Ok(inode)
    }

    fn symlink(&mut self, number: u32, target: &[u8]) -> Result<Inode> {
        if target.is_empty() || target.len() as u64 >= BLOCK {
            return Err(Error::build(format!("a symbolic link cannot have a target of {} bytes", target.len())));
        }
        if target.len() < 60 {
            let mut inode = bare(MODE_SYMLINK, [0; 60]);
            inode.data[..target.len()].copy_from_slice(target);
            inode.size = target.len() as u64;
            return Ok(inode);
        }
        self.mapped_blocks(number, MODE_SYMLINK, target.len() as u64, vec![target.to_vec()])
    }

    fn journal(&mut self, options: &Options) -> Result<()> {
        let blocks = self.geometry.journal_blocks;
        let first = encode_journal(blocks, &options.uuid);
        let mut inode = self.mapped_blocks(JOURNAL_INODE, MODE_FILE | 0o600, blocks * BLOCK, vec![first])?;
        inode.links = 1;
        self.journal_data = inode.data;
        let meta = Meta { mtime: options.time, ..Meta::root(0o600) };
        self.inodes.insert(JOURNAL_INODE, inode.encode(JOURNAL_INODE, &meta, self.seed));
        Ok(())
    }

    /// The inode that owns the room for more group descriptors: a double indirect block points to the reserved blocks
    /// behind the primary descriptors, each of which points to its copies in the other groups ("resize_inode").
    fn resize_inode(&mut self, options: &Options) {
        let geometry = &self.geometry;
        let reserved = geometry.reserved_gdt_blocks;
        let (mut backups, mut extents) = (0, Vec::new());
        let mut indirect = vec![0; BLOCK as usize];
        for index in geometry.descriptor_blocks..geometry.descriptor_blocks + reserved {
            let primary = 1 + index;
            // Block numbers fit: the resize inode reaches 2^32 blocks.
            indirect.put32((index % POINTERS_PER_BLOCK) as usize * 4, primary as u32);
            let mut block = vec![0; BLOCK as usize];
            backups = 0;
            for (slot, group) in geometry.backup_groups().enumerate() {
                block.put32(slot * 4, (geometry.group_start(group) + primary) as u32);
                backups += 1;
            }
            extents.push(Extent::bytes(primary * BLOCK, block));
        }
        let number = self.allocator.take_one();
        let mut inode = bare(MODE_FILE | 0o600, [0; 60]);
        inode.links = 1;
        inode.blocks = 1 + reserved * (1 + backups);
        // As if every pointer of the direct, indirect and double indirect blocks were in use.
        inode.size = (12 + POINTERS_PER_BLOCK + POINTERS_PER_BLOCK * POINTERS_PER_BLOCK) * BLOCK;
        inode.data.put32(13 * 4, number as u32);
        let meta = Meta { mtime: options.time, ..Meta::root(0o600) };
        self.extents.append(&mut extents);
        self.put_block(number, indirect);
        self.inodes.insert(RESIZE_INODE, inode.encode(RESIZE_INODE, &meta, self.seed));
    }
}

/// An inode without blocks.
fn bare(mode: u16, data: [u8; 60]) -> Inode {
    Inode { mode, links: 0, size: 0, blocks: 0, flags: 0, data, xattr_block: 0, inline_xattrs: Vec::new() }
}
