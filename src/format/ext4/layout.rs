//! From a Tree to the place and the bytes of every inode, directory and extent; pure.
//!
//! Blocks from front to back: the resize inode's, the journal, metadata (folders, long links, attributes), data. See
//! [`super::zones`] for the order inside.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Options;
use super::alloc::{Run, Space};
use super::directory::{self, DirectoryEntry, Identity, Shape, file_type};
use super::extent::{self, Mapped};
use super::format::*;
use super::geometry::Geometry;
use super::xattr::{self, Placed};
use super::zones::{Row, Zones};
use crate::error::{Context, Error, Kind as ErrorKind, Result};
use crate::format::disk::{Extent, ExtentData};
use crate::format::nodes::{Node, nodes};
use crate::interrupt;
use crate::tree::{Content, Entry, Kind, Meta, Tree, TreePath};

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
    /// Blocks of all these.
    pub(super) used: Vec<Range<u64>>,
    pub(super) journal_data: [u8; 60],
    /// Some attributes have inodes of their own.
    pub(super) outside_values: bool,
}

/// A folder with more folders than this counts as one link ("dir_nlink").
const MAX_LINKS: u64 = 65000;
/// lost+found has room from the start, since e2fsck may need it when there is none.
const LOST_FOUND_BLOCKS: u64 = 4;
/// How generous zones are with slack, if there is room: as `zones::Zones::spread` has it.
const INODE_SLACK: u32 = 2;
const META_SLACK: u32 = 2;
const DATA_SLACK: u32 = 2;

/// Lays out a file system. Too small is [`ErrorKind::Space`], with the bytes required and available.
pub fn layout(tree: &Tree, options: &Options) -> Result<Plan> {
    if options.label.len() > 16 {
        return Err(Error::build(format!("the label `{}` is longer than 16 bytes", options.label)));
    }
    let geometry = Geometry::new(options)?;
    let made = made_lost_found(options);
    let nodes = nodes(tree, Some(&made))?;
    let seed = checksum_seed(&options.uuid);
    let space = Space::new(&geometry);
    let drafts = drafts(&nodes, &space, seed, options)?;
    let places = places(&nodes, &drafts, &geometry, &space, options)?;
    let mut writer = Writer {
        plan: Plan {
            geometry,
            seed,
            inodes: BTreeMap::new(),
            directories: BTreeMap::new(),
            extents: Vec::new(),
            used: Vec::new(),
            journal_data: [0; 60],
            outside_values: drafts.iter().any(|draft| !draft.xattrs.outside.is_empty()),
        },
        space,
        places,
    };
    writer.resize_inode(options);
    writer.journal(options)?;
    for (index, (node, draft)) in nodes.iter().zip(drafts).enumerate() {
        interrupt::check()?;
        writer.node(index, node, draft).with_context(|| format!("laying out {}", node.path))?;
    }
    let Writer { mut plan, space, .. } = writer;
    plan.used = space.used();
    Ok(plan)
}

/// The folder that e2fsck wants, at the root.
pub(super) fn lost_found() -> TreePath {
    TreePath::literal("lost+found")
}

pub(super) fn made_lost_found(options: &Options) -> (TreePath, Entry) {
    let meta = Meta { mtime: options.time, ..Meta::root(0o700) };
    (lost_found(), Entry { meta, kind: Kind::Directory, origin: "ext4".into() })
}

/// What is known of a node before its place.
pub(super) struct Draft<'a> {
    /// Of a folder.
    shape: Option<Shape<'a>>,
    xattrs: Placed,
    /// Inodes, blocks of metadata and of data.
    pub(super) inodes: u64,
    pub(super) meta: u64,
    data: u64,
}

pub(super) fn drafts<'a>(nodes: &[Node<'a>], space: &Space, seed: u32, options: &Options) -> Result<Vec<Draft<'a>>> {
    let draft = |node: &Node<'a>| {
        interrupt::check()?;
        draft(node, nodes, space, seed, options).with_context(|| format!("laying out {}", node.path))
    };
    nodes.iter().map(draft).collect()
}

fn draft<'a>(node: &Node<'a>, nodes: &[Node<'a>], space: &Space, seed: u32, options: &Options) -> Result<Draft<'a>> {
    let xattrs = xattr::place(&node.meta.xattrs, seed, options.features.ea_inode)?;
    let outside = &xattrs.outside;
    let mut draft = Draft {
        inodes: outside.len() as u64 + u64::from(fixed_number(node).is_none()),
        meta: u64::from(xattrs.needs_block()) + outside.iter().map(|one| blocks(one.value.len() as u64)).sum::<u64>(),
        data: 0,
        shape: None,
        xattrs,
    };
    match node.kind {
        Kind::Directory => {
            let entry = |(name, node): &(&'a [u8], usize)| DirectoryEntry {
                node: *node,
                file_type: file_type(nodes[*node].kind),
                name,
            };
            let shape = Shape::new(node.entries.iter().map(entry).collect(), options.hash_seed.as_bytes())?;
            draft.meta += folder_blocks(node, &shape);
            draft.shape = Some(shape);
        }
        Kind::File(content) => draft.data = content_blocks(content) + tree_room(content, space),
        Kind::Symlink(target) if target.is_empty() || target.len() as u64 >= BLOCK => {
            return Err(Error::build(format!("a symbolic link cannot have a target of {} bytes", target.len())));
        }
        Kind::Symlink(target) => draft.meta += u64::from(target.len() >= 60),
        _ => {}
    }
    Ok(draft)
}

fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK)
}

fn folder_blocks(node: &Node<'_>, shape: &Shape<'_>) -> u64 {
    let least = if fixed_number(node) == Some(FIRST_INODE) && !shape.indexed() { LOST_FOUND_BLOCKS } else { 1 };
    shape.blocks().max(least)
}

pub(super) fn content_blocks(content: &Content) -> u64 {
    content.data().map(|range| blocks(range.end - range.start)).sum()
}

/// How many blocks an extent tree may need, before it is known where the gaps are.
pub(super) fn tree_room(content: &Content, space: &Space) -> u64 {
    let stretches = content.data().count() as u64;
    extent::tree_blocks(stretches + space.most_cuts(content_blocks(content)))
}

/// Root and lost+found have their numbers.
fn fixed_number(node: &Node<'_>) -> Option<u32> {
    match node.path {
        path if path.is_root() => Some(ROOT_INODE),
        path if *path == lost_found() => Some(FIRST_INODE),
        _ => None,
    }
}

/// Where the three rows begin, and in them every node.
struct Places {
    inodes: Row,
    meta: Row,
    data: Row,
    /// By node.
    numbers: Vec<u32>,
    journal: u64,
    journal_room: u64,
    meta_start: u64,
    data_start: u64,
}

fn places(
    nodes: &[Node<'_>],
    drafts: &[Draft<'_>],
    geometry: &Geometry,
    space: &Space,
    options: &Options,
) -> Result<Places> {
    let column = |size: fn(&Draft<'_>) -> u64| drafts.iter().map(size).collect::<Vec<u64>>();
    let (inodes, meta, data) = (column(|one| one.inodes), column(|one| one.meta), column(|one| one.data));
    let (meta_sum, data_sum): (u64, u64) = (meta.iter().sum(), data.iter().sum());
    check_inodes(u64::from(FIRST_INODE) + inodes.iter().sum::<u64>(), geometry, options)?;
    let (journal_room, meta_start) = reserved(geometry, space);
    let asked = meta_start + meta_sum + data_sum;
    if asked > space.total {
        return Err(too_small((geometry.blocks - space.total + asked) * BLOCK, geometry));
    }
    let zones = Zones::new(nodes);
    let inodes = zones.fit(&inodes, INODE_SLACK, geometry.inodes() - u64::from(FIRST_INODE));
    let spare = space.total - asked;
    let meta = zones.fit(&meta, META_SLACK, meta_sum + spare / 2);
    // Data begin at one of few places, whatever the length of the metadata.
    let rounded = meta.length.next_multiple_of(1 << meta.length.max(1).ilog2());
    let data_start = meta_start + rounded.min(space.total - meta_start - data_sum).max(meta.length);
    let data = zones.fit(&data, DATA_SLACK, space.total - data_start);
    let number = |(node, start): (&Node<'_>, &u64)| fixed_number(node).unwrap_or(FIRST_INODE + 1 + *start as u32);
    let numbers = nodes.iter().zip(&inodes.starts).map(number).collect();
    Ok(Places { inodes, meta, data, numbers, journal: 1, journal_room, meta_start, data_start })
}

/// Blocks that the journal's own extents may need, and those before metadata: of resize inode and journal.
pub(super) fn reserved(geometry: &Geometry, space: &Space) -> (u64, u64) {
    let journal_room = extent::tree_blocks(1 + space.most_cuts(geometry.journal_blocks));
    (journal_room, 1 + journal_room + geometry.journal_blocks)
}

fn check_inodes(highest: u64, geometry: &Geometry, options: &Options) -> Result<()> {
    if highest <= geometry.inodes() {
        return Ok(());
    }
    // The way to more inodes is a larger file system.
    let required = highest.saturating_mul(options.size.div_ceil(geometry.inodes()));
    let message = format!(
        "the content needs {required} bytes for {highest} files and folders, the file system has {}",
        options.size
    );
    Err(Error::new(ErrorKind::Space, message).hint("make the partition larger"))
}

fn too_small(required: u64, geometry: &Geometry) -> Error {
    let available = geometry.blocks * BLOCK;
    let message = format!("the content needs {required} bytes, the file system has {available}");
    Error::new(ErrorKind::Space, message).hint("make the partition larger")
}

/// The plan as it grows.
struct Writer {
    plan: Plan,
    space: Space,
    places: Places,
}

/// Blocks for one node: data with the room for their extent tree in front.
struct Room {
    at: u64,
    tree: u64,
}

impl Writer {
    fn node(&mut self, index: usize, node: &Node<'_>, draft: Draft<'_>) -> Result<()> {
        let number = self.places.numbers[index];
        let mut at = self.places.meta_start + self.places.meta.starts[index];
        let mut inode = match node.kind {
            Kind::Directory => {
                let shape = draft.shape.ok_or_else(|| Error::build("a folder without a shape"))?;
                let parent = self.places.numbers[node.parent];
                let blocks = self.folder(node, number, parent, &shape);
                self.mapped_blocks(number, MODE_DIRECTORY, shape.indexed(), &mut at, blocks)?
            }
            Kind::File(content) => {
                let room = Room {
                    at: self.places.data_start + self.places.data.starts[index],
                    tree: tree_room(content, &self.space),
                };
                self.file(number, content, &room)?
            }
            Kind::Symlink(target) => self.symlink(number, target, &mut at)?,
            Kind::CharDevice { major, minor } => bare(MODE_CHAR, device(*major, *minor)?),
            Kind::BlockDevice { major, minor } => bare(MODE_BLOCK, device(*major, *minor)?),
            Kind::Fifo => bare(MODE_FIFO, [0; 60]),
            Kind::Socket => bare(MODE_SOCKET, [0; 60]),
            Kind::HardLink(_) => return Err(Error::build("a hard link is no inode")),
        };
        inode.mode |= node.meta.mode & 0o7777;
        inode.links = match (node.kind, node.links) {
            (Kind::Directory, links) if links > MAX_LINKS => 1,
            (_, links) => u16::try_from(links)
                .ok()
                .filter(|links| u64::from(*links) <= MAX_LINKS)
                .ok_or_else(|| Error::build(format!("{links} hard links are more than ext4 can count")))?,
        };
        let values =
            FIRST_INODE + 1 + self.places.inodes.starts[index] as u32 + u32::from(fixed_number(node).is_none());
        self.xattrs(&mut inode, draft.xattrs, values, &mut at, node.meta)?;
        self.plan.inodes.insert(number, inode.encode(number, node.meta, self.plan.seed));
        Ok(())
    }

    fn put_block(&mut self, number: u64, block: Vec<u8>) {
        self.plan.extents.push(Extent::bytes(number * BLOCK, block));
    }

    /// Attributes go behind what else the node has at `at`; outside values are inodes from `first` on.
    fn xattrs(&mut self, inode: &mut Inode, mut xattrs: Placed, first: u32, at: &mut u64, meta: &Meta) -> Result<()> {
        xattrs.number(first);
        for (value, number) in std::mem::take(&mut xattrs.outside).into_iter().zip(first..) {
            let size = value.value.len() as u64;
            let chunks = value.value.chunks(BLOCK as usize).map(<[u8]>::to_vec).collect();
            let mut own = self.mapped_blocks(number, MODE_FILE | 0o600, false, at, chunks)?;
            own.flags |= FLAG_EA_INODE;
            (own.size, own.links, own.value_hash) = (size, 1, Some(value.hash));
            inode.blocks += own.blocks;
            let meta = Meta { xattrs: Default::default(), ..meta.clone() };
            self.plan.inodes.insert(number, own.encode(number, &meta, self.plan.seed));
        }
        let (inline, block) = xattrs.parts();
        inode.inline_xattrs = inline;
        if let Some(mut block) = block {
            let number = self.take_one(*at);
            xattr::seal(&mut block, number, self.plan.seed);
            inode.xattr_block = number;
            inode.blocks += 1;
            self.put_block(number, block);
        }
        Ok(())
    }

    fn take_one(&mut self, at: u64) -> u64 {
        // The row is as long as was asked for.
        self.space.take(at, 1).first().map_or(0, |run| run.start)
    }

    /// An inode with the given runs as its content.
    fn mapped(&mut self, number: u32, mode: u16, size: u64, runs: &[Mapped], room: &Room) -> Result<Inode> {
        let needed = extent::tree_blocks(runs.len() as u64);
        if needed > room.tree {
            return Err(Error::build("a file is too scattered for the room of its extent tree"));
        }
        let tree = self.space.take(room.at + room.tree - needed, needed);
        let mut tree = tree.iter().flat_map(|run| run.start..run.start + run.length);
        let extents = extent::tree(runs, number, self.plan.seed, &mut tree)?;
        let mut inode = bare(mode, extents.data);
        (inode.size, inode.flags) = (size, FLAG_EXTENTS);
        inode.blocks = runs.iter().map(|mapped| mapped.run.length).sum::<u64>() + needed;
        for (number, block) in extents.blocks {
            self.put_block(number, block);
        }
        Ok(inode)
    }

    /// An inode with new blocks of metadata, whole but for the last; moves `at` behind them.
    fn mapped_blocks(
        &mut self,
        number: u32,
        mode: u16,
        indexed: bool,
        at: &mut u64,
        blocks: Vec<Vec<u8>>,
    ) -> Result<Inode> {
        let runs = self.space.take(*at, blocks.len() as u64);
        *at += blocks.len() as u64;
        let size = blocks.len() as u64 * BLOCK;
        let mut inode = self.mapped(number, mode, size, &in_order(&runs), &Room { at: *at, tree: 0 })?;
        let numbers = runs.iter().flat_map(|run| run.start..run.start + run.length);
        for (number, block) in numbers.zip(blocks) {
            self.put_block(number, block);
        }
        inode.flags |= if indexed { FLAG_INDEX } else { 0 };
        Ok(inode)
    }

    fn folder(&mut self, node: &Node<'_>, number: u32, parent: u32, shape: &Shape<'_>) -> Vec<Vec<u8>> {
        let group = (u64::from(number) - 1) / self.plan.geometry.inodes_per_group;
        *self.plan.directories.entry(group).or_default() += 1;
        let seed = inode_seed(self.plan.seed, number);
        let numbers = &self.places.numbers;
        let mut blocks = shape.encode(&Identity { inode: number, parent, seed, number: &|node| numbers[node] });
        blocks.resize_with(folder_blocks(node, shape) as usize, || directory::empty_leaf(seed));
        blocks
    }

    fn file(&mut self, number: u32, content: &Content, room: &Room) -> Result<Inode> {
        let mut at = room.at + room.tree;
        let mut mapped = Vec::new();
        for range in content.data() {
            let count = blocks(range.end - range.start);
            let mut offset = range.start;
            for run in self.space.take(at, count) {
                let length = (run.length * BLOCK).min(content.size() - offset);
                let data = ExtentData::Content { content: content.clone(), offset };
                self.plan.extents.push(Extent { offset: run.start * BLOCK, length, data });
                mapped.push(Mapped { logical: offset / BLOCK, run });
                offset += run.length * BLOCK;
            }
            at += count;
        }
        self.mapped(number, MODE_FILE, content.size(), &mapped, room)
    }

    fn symlink(&mut self, number: u32, target: &[u8], at: &mut u64) -> Result<Inode> {
        let mut inode = if target.len() < 60 {
            let mut inode = bare(MODE_SYMLINK, [0; 60]);
            inode.data[..target.len()].copy_from_slice(target);
            inode
        } else {
            self.mapped_blocks(number, MODE_SYMLINK, false, at, vec![target.to_vec()])?
        };
        inode.size = target.len() as u64;
        Ok(inode)
    }

    fn journal(&mut self, options: &Options) -> Result<()> {
        let blocks = self.plan.geometry.journal_blocks;
        let room = Room { at: self.places.journal, tree: self.places.journal_room };
        let runs = self.space.take(room.at + room.tree, blocks);
        if let Some(run) = runs.first() {
            self.put_block(run.start, encode_journal(blocks, &options.uuid));
        }
        let mut inode = self.mapped(JOURNAL_INODE, MODE_FILE | 0o600, blocks * BLOCK, &in_order(&runs), &room)?;
        inode.links = 1;
        self.plan.journal_data = inode.data;
        let meta = Meta { mtime: options.time, ..Meta::root(0o600) };
        self.plan.inodes.insert(JOURNAL_INODE, inode.encode(JOURNAL_INODE, &meta, self.plan.seed));
        Ok(())
    }

    /// The inode that owns the room for more group descriptors: a double indirect block points to the reserved blocks
    /// behind the primary descriptors, each of which points to its copies in the other groups ("resize_inode").
    fn resize_inode(&mut self, options: &Options) {
        let geometry = self.plan.geometry.clone();
        let reserved = geometry.reserved_gdt_blocks;
        let mut indirect = vec![0; BLOCK as usize];
        for index in geometry.descriptor_blocks..geometry.descriptor_blocks + reserved {
            let primary = 1 + index;
            // Block numbers fit: the resize inode reaches 2^32 blocks.
            indirect.put32((index % POINTERS_PER_BLOCK) as usize * 4, primary as u32);
            let mut block = vec![0; BLOCK as usize];
            for (slot, group) in geometry.backup_groups().enumerate() {
                block.put32(slot * 4, (geometry.group_start(group) + primary) as u32);
            }
            self.put_block(primary, block);
        }
        let number = self.take_one(0);
        let mut inode = bare(MODE_FILE | 0o600, [0; 60]);
        inode.links = 1;
        inode.blocks = 1 + reserved * (1 + geometry.backup_groups().count() as u64);
        // As if every pointer of the direct, indirect and double indirect blocks were in use.
        inode.size = (12 + POINTERS_PER_BLOCK + POINTERS_PER_BLOCK * POINTERS_PER_BLOCK) * BLOCK;
        inode.data.put32(13 * 4, number as u32);
        let meta = Meta { mtime: options.time, ..Meta::root(0o600) };
        self.put_block(number, indirect);
        self.plan.inodes.insert(RESIZE_INODE, inode.encode(RESIZE_INODE, &meta, self.plan.seed));
    }
}

/// Runs one after the other, from the start of a file.
fn in_order(runs: &[Run]) -> Vec<Mapped> {
    let mut logical = 0;
    let mapped = |run: &Run| {
        logical += run.length;
        Mapped { logical: logical - run.length, run: *run }
    };
    runs.iter().map(mapped).collect()
}

fn device(major: u32, minor: u32) -> Result<[u8; 60]> {
    encode_device(major, minor).ok_or_else(|| Error::build(format!("there is no device {major}:{minor} on Linux")))
}

/// An inode without blocks.
fn bare(mode: u16, data: [u8; 60]) -> Inode {
    let inline_xattrs = Vec::new();
    Inode { mode, links: 0, size: 0, blocks: 0, flags: 0, data, xattr_block: 0, inline_xattrs, value_hash: None }
}
