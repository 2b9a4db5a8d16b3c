//! From a Tree to the place of everything in the image; pure.
//!
//! Owns: [`Plan`]. Blocks are given out in this order: descriptors, boot catalog, path tables, folders, files, the EFI
//! system partition, the payload. What is not known before the payload has been written are numbers in blocks whose
//! places are.

use uuid::Uuid;

use super::format::{BLOCK, LARGEST_EXTENT, LONGEST_RECORD, Posix, Record, Time, attributes, link, name};
use super::names;
use super::seed;
use super::write::{Places, records};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::format::disk::DiskImage;
use crate::tree::{Content, Kind, Meta, Mtime, Tree, TreePath};

pub const MIB: u64 = 1 << 20;
/// Folders for its records are made this large: sixteen extents.
const LARGEST_PAYLOAD: u64 = 16 * LARGEST_EXTENT;
/// 6.8.2.1: the root is the first level.
const DEPTH: usize = 8;

/// Where the boot images show in the file system, as upstream calls them.
pub const BIOS_IMAGE: &str = "boot/grub/bios.img";
pub const EFI_IMAGE: &str = "boot/grub/efiboot.img";

/// GRUB's images for BIOS, as grub-mkimage and its packages have them.
#[derive(Debug, Clone)]
pub struct Bios {
    /// `boot_hybrid.img`: the boot sector when the image is on a disk.
    pub hybrid: Vec<u8>,
    /// A core image of the format `i386-pc-eltorito`.
    pub core: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Options {
    /// At most 32 characters.
    pub volume_id: String,
    /// Every time of the volume, and the latest of files; seconds since the epoch.
    pub time: i64,
    pub disk_guid: Uuid,
    pub esp_guid: Uuid,
    pub bios: Option<Bios>,
    /// The EFI system partition: a FAT file system.
    pub esp: Option<DiskImage>,
    /// Where the payload shows.
    pub payload: TreePath,
}

#[derive(Debug)]
pub enum Data {
    Content(Content),
    /// The BIOS boot image, which has its own place in it.
    Bios,
    Esp,
    Payload,
}

#[derive(Debug)]
pub enum NodeKind {
    /// Children in the order of their identifiers.
    Directory(Vec<usize>),
    /// Its records are in the seed area.
    Seed,
    File(Data),
    Symlink(Vec<u8>),
}

#[derive(Debug)]
pub struct Node {
    pub path: TreePath,
    /// As ISO 9660 has it.
    pub identifier: Vec<u8>,
    pub meta: Meta,
    pub kind: NodeKind,
    pub parent: usize,
    pub depth: usize,
    pub size: u64,
    pub block: u32,
    /// Of a folder: given out for its records.
    pub blocks: u64,
}

impl Node {
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, NodeKind::Directory(_) | NodeKind::Seed)
    }
}

/// An image of which everything is known but the size of the payload and the seed.
#[derive(Debug)]
pub struct Plan {
    pub(super) options: Options,
    /// The root first, then in the order of the paths.
    pub(super) nodes: Vec<Node>,
    /// Folders in the order of the path tables (9.4).
    pub(super) directories: Vec<usize>,
    pub(super) catalog: u32,
    pub(super) path_tables: [u32; 2],
    pub(super) path_table_size: u32,
    /// In bytes, like all offsets.
    pub(super) esp_offset: Option<u64>,
    payload_offset: u64,
}

impl Plan {
    /// `tree` has everything but the payload, the boot images and the seed.
    pub fn new(tree: &Tree, options: Options) -> Result<Plan> {
        let mut nodes = nodes(tree, &options)?;
        identify(&mut nodes)?;
        let directories = path_table_order(&nodes);
        let length = |index: &usize| 8 + nodes[*index].identifier.len().max(1).next_multiple_of(2);
        let path_table_size = directories.iter().map(length).sum::<usize>() as u32;
        let mut plan = Plan {
            options,
            nodes,
            directories,
            catalog: 19,
            path_tables: [0; 2],
            path_table_size,
            esp_offset: None,
            payload_offset: 0,
        };
        plan.place()?;
        Ok(plan)
    }

    /// Where the payload goes, a multiple of one MiB.
    pub fn payload_offset(&self) -> u64 {
        self.payload_offset
    }

    /// Where the seed goes when the payload has that size.
    pub(super) fn seed_offset(&self, payload: u64) -> Result<u64> {
        if payload > LARGEST_PAYLOAD {
            let path = &self.options.payload;
            return Err(Error::new(
                ErrorKind::Space,
                format!("{path} has {payload} bytes, an ISO image takes {LARGEST_PAYLOAD}"),
            )
            .hint("leave packages out, or build a disk image"));
        }
        Ok((self.payload_offset + payload).next_multiple_of(MIB))
    }

    fn place(&mut self) -> Result<()> {
        let mut next = u64::from(self.catalog) + 1;
        let mut take = |bytes: u64| {
            let first = next;
            next += bytes.div_ceil(BLOCK);
            u32::try_from(first).map_err(|_| Error::new(ErrorKind::Space, "the image is larger than ISO 9660 can hold"))
        };
        for table in &mut self.path_tables {
            *table = take(u64::from(self.path_table_size))?;
        }
        let worst = Places { payload: LARGEST_PAYLOAD, seed_block: 0 };
        for at in 0..self.directories.len() {
            let index = self.directories[at];
            if matches!(self.nodes[index].kind, NodeKind::Directory(_)) {
                let blocks = records(self, index, &worst)?.len() as u64 / BLOCK;
                self.nodes[index].block = take(blocks * BLOCK)?;
                self.nodes[index].blocks = blocks;
            }
        }
        for node in &mut self.nodes {
            if matches!(node.kind, NodeKind::File(Data::Content(_) | Data::Bios)) {
                node.block = take(node.size)?;
            }
        }
        let mut offset = (next * BLOCK).next_multiple_of(MIB);
        if let Some(esp) = &self.options.esp {
            self.esp_offset = Some(offset);
            let block = (offset / BLOCK) as u32;
            self.nodes.iter_mut().filter(|node| matches!(node.kind, NodeKind::File(Data::Esp))).for_each(|node| {
                node.block = block;
            });
            offset = (offset + esp.size()).next_multiple_of(MIB);
        }
        self.payload_offset = offset;
        let block = u32::try_from(offset / BLOCK);
        let block = block.map_err(|_| Error::new(ErrorKind::Space, "the files beside the payload are too large"))?;
        self.nodes.iter_mut().filter(|node| matches!(node.kind, NodeKind::File(Data::Payload))).for_each(|node| {
            node.block = block;
        });
        Ok(())
    }

    /// What Rock Ridge says about a node.
    pub(super) fn attributes(&self, index: usize) -> Vec<u8> {
        let node = &self.nodes[index];
        let (kind, links) = match &node.kind {
            NodeKind::Directory(children) => {
                (0o040_000, 2 + children.iter().filter(|child| self.nodes[**child].is_directory()).count())
            }
            NodeKind::Seed => (0o040_000, 2),
            NodeKind::File(_) => (0o100_000, 1),
            NodeKind::Symlink(_) => (0o120_000, 1),
        };
        let posix = Posix {
            mode: kind | u32::from(node.meta.mode),
            links: links as u32,
            uid: node.meta.uid,
            gid: node.meta.gid,
            serial: index as u32 + 1,
        };
        attributes(posix, self.time(index))
    }

    pub(super) fn time(&self, index: usize) -> Time {
        Time::new(self.nodes[index].meta.mtime.seconds.min(self.options.time))
    }

    /// The system use field of a node in its parent's records.
    pub(super) fn system_use(&self, index: usize) -> Result<Vec<u8>> {
        let node = &self.nodes[index];
        let mut out = self.attributes(index);
        out.extend(name(node.path.file_name()));
        if let NodeKind::Symlink(target) = &node.kind {
            out.extend(link(target));
        }
        if Record::length(node.identifier.len(), out.len()) > LONGEST_RECORD {
            return Err(Error::build(format!("the name or link target of {} is too long for an ISO image", node.path)));
        }
        Ok(out)
    }
}

/// The Tree's entries and what is added to them, in the order of the paths.
fn nodes(tree: &Tree, options: &Options) -> Result<Vec<Node>> {
    let mut tree = tree.clone();
    let time = Mtime { seconds: options.time, nanoseconds: 0 };
    let origin = "iso".into();
    let mut added = vec![(options.payload.clone(), Data::Payload, 0)];
    if let Some(bios) = &options.bios {
        added.push((TreePath::literal(BIOS_IMAGE), Data::Bios, bios.core.len() as u64));
    }
    if let Some(esp) = &options.esp {
        added.push((TreePath::literal(EFI_IMAGE), Data::Esp, esp.size()));
    }
    tree.make_directories(&TreePath::literal(seed::FOLDER), time, &origin)?;
    for (path, _, _) in &added {
        tree.write_file(path, "", Meta { mtime: time, ..Meta::root(0o644) }, &origin)?;
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(tree.len());
    for (path, entry) in tree.iter() {
        let (kind, size) = match &entry.kind {
            Kind::Directory if path.as_bytes() == seed::FOLDER.as_bytes() => (NodeKind::Seed, BLOCK),
            Kind::Directory => (NodeKind::Directory(Vec::new()), 0),
            Kind::Symlink(target) => (NodeKind::Symlink(target.clone()), 0),
            Kind::File(content) => match added.iter().position(|(place, _, _)| place == path) {
                Some(at) => {
                    let (_, data, size) = added.swap_remove(at);
                    (NodeKind::File(data), size)
                }
                None => (NodeKind::File(Data::Content(content.clone())), content.size()),
            },
            _ => return Err(Error::build(format!("{path} is neither a file nor a folder nor a symbolic link"))),
        };
        let parent = path.parent().and_then(|parent| nodes.iter().position(|node| node.path == parent)).unwrap_or(0);
        let depth = if path.is_root() { 1 } else { nodes[parent].depth + 1 };
        if depth > DEPTH && entry.kind == Kind::Directory {
            return Err(Error::build(format!("{path} is more than {DEPTH} folders deep in an ISO image")));
        }
        let index = nodes.len();
        let (path, meta) = (path.clone(), entry.meta.clone());
        nodes.push(Node { path, identifier: Vec::new(), meta, kind, parent, depth, size, block: 0, blocks: 0 });
        if index > 0 {
            match &mut nodes[parent].kind {
                NodeKind::Directory(children) => children.push(index),
                _ => return Err(Error::build(format!("{} is for the seed alone", seed::FOLDER))),
            }
        }
    }
    Ok(nodes)
}

/// Gives identifiers and sorts the children of every folder by them.
fn identify(nodes: &mut [Node]) -> Result<()> {
    for index in 0..nodes.len() {
        let NodeKind::Directory(children) = &nodes[index].kind else { continue };
        let mut children = children.clone();
        let named: Vec<(&[u8], bool)> =
            children.iter().map(|child| (nodes[*child].path.file_name(), nodes[*child].is_directory())).collect();
        let identifiers = names::identifiers(&named)?;
        for (child, identifier) in children.iter().zip(identifiers) {
            nodes[*child].identifier = identifier;
        }
        children.sort_by_key(|child| names::key(&nodes[*child].identifier));
        nodes[index].kind = NodeKind::Directory(children);
    }
    Ok(())
}

/// 6.9.1: by level, then by the parent's number, then by identifier.
fn path_table_order(nodes: &[Node]) -> Vec<usize> {
    let mut order = vec![0];
    let mut next = 0;
    while let Some(index) = order.get(next).copied() {
        if let NodeKind::Directory(children) = &nodes[index].kind {
            order.extend(children.iter().filter(|child| nodes[**child].is_directory()));
        }
        next += 1;
    }
    order
}
