//! From a Tree to a plan: inodes and their numbers, which block holds what. Pure; where blocks lie is known only when
//! they are compressed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::Options;
use super::xattr::Sets;
use crate::error::{Context, Error, Result};
use crate::format::nodes::{Node, nodes};
use crate::tree::{Content, Digest, Kind, Tree};

/// As in Linux (`NAME_MAX`, and `PATH_MAX` with the zero at the end).
const LONGEST_NAME: usize = 255;
const LONGEST_TARGET: usize = 4095;

pub struct Plan<'a> {
    /// Ascending by path.
    pub nodes: Vec<Node<'a>>,
    pub inodes: Vec<Inode>,
    /// Nodes by their numbers, from 1 on: the contents of a folder side by side.
    pub order: Vec<usize>,
    /// Each content once, in the order of its first file.
    pub contents: Vec<Stored<'a>>,
    /// Contents that share a block.
    pub fragments: Vec<Fragment>,
    /// In the order in which they lie on the disk.
    pub jobs: Vec<Job>,
    /// User and group ids, ascending.
    pub ids: Vec<u32>,
    pub xattrs: Sets<'a>,
}

/// What a node gets besides what it is.
pub struct Inode {
    pub number: u32,
    pub uid: u16,
    pub gid: u16,
    pub xattrs: u32,
    /// Place in the list of contents.
    pub content: Option<usize>,
}

pub struct Stored<'a> {
    pub content: &'a Content,
    pub room: Room,
    /// Blocks of its own; none for those that lie in holes.
    pub jobs: Range<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    Empty,
    Blocks,
    Fragment { index: u32, offset: u32 },
}

/// Some whole contents, one behind another.
#[derive(Default)]
pub struct Fragment {
    pub members: Vec<usize>,
    pub size: u32,
    /// Which job writes it.
    pub job: usize,
}

/// One block of data.
#[derive(Clone, Copy)]
pub enum Job {
    /// Number `block` of a content.
    Block {
        content: usize,
        block: u32,
        size: u32,
    },
    Fragment {
        index: u32,
        size: u32,
    },
}

impl Job {
    pub fn size(&self) -> u32 {
        match self {
            Job::Block { size, .. } | Job::Fragment { size, .. } => *size,
        }
    }
}

pub fn layout<'a>(tree: &'a Tree, options: &Options) -> Result<Plan<'a>> {
    if !options.block_size.is_power_of_two() || !(4096..=1 << 20).contains(&options.block_size) {
        return Err(Error::build(format!("a squashfs cannot have blocks of {} bytes", options.block_size))
            .hint("a power of two from 4096 to 1048576"));
    }
    let nodes = nodes(tree, None)?;
    nodes.iter().try_for_each(|node| check(node).with_context(|| format!("laying out {}", node.path)))?;
    let order = order(&nodes);
    let ids: BTreeSet<u32> = nodes.iter().flat_map(|node| [node.meta.uid, node.meta.gid]).collect();
    let ids: Vec<u32> = ids.into_iter().collect();
    if ids.len() > usize::from(u16::MAX) {
        return Err(Error::build("a squashfs cannot hold more than 65535 different owners"));
    }
    let id = |wanted: u32| ids.partition_point(|id| *id < wanted) as u16;
    let mut xattrs = Sets::default();
    let mut inodes = Vec::with_capacity(nodes.len());
    for node in &nodes {
        let xattrs = xattrs.number(&node.meta.xattrs).with_context(|| format!("laying out {}", node.path))?;
        inodes.push(Inode { number: 0, uid: id(node.meta.uid), gid: id(node.meta.gid), xattrs, content: None });
    }
    for (number, node) in (1..).zip(&order) {
        inodes[*node].number = number;
    }
    let mut data = Data { block_size: options.block_size, ..Data::default() };
    for node in &order {
        if let Kind::File(content) = nodes[*node].kind {
            let place = data.add(content).with_context(|| format!("laying out {}", nodes[*node].path))?;
            inodes[*node].content = Some(place);
        }
    }
    data.close();
    let Data { contents, fragments, jobs, .. } = data;
    Ok(Plan { nodes, inodes, order, contents, fragments, jobs, ids, xattrs })
}

fn check(node: &Node<'_>) -> Result<()> {
    if node.path.file_name().len() > LONGEST_NAME {
        return Err(Error::build("the name is longer than 255 bytes"));
    }
    if node.entries.iter().any(|(name, _)| name.len() > LONGEST_NAME) {
        return Err(Error::build("a name in it is longer than 255 bytes"));
    }
    match node.kind {
        Kind::Symlink(target) if target.len() > LONGEST_TARGET || target.is_empty() => {
            Err(Error::build(format!("the target of the symbolic link has {} bytes", target.len())))
        }
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }
            if *major >= 1 << 12 || *minor >= 1 << 20 =>
        {
            Err(Error::build(format!("no file system of Linux can hold the device number {major}:{minor}")))
        }
        _ => Ok(()),
    }
}

/// The root, then what is in each folder, side by side.
fn order(nodes: &[Node<'_>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(nodes.len());
    let mut seen = vec![false; nodes.len()];
    order.push(0);
    for node in nodes {
        for (_, place) in &node.entries {
            if !std::mem::replace(&mut seen[*place], true) {
                order.push(*place);
            }
        }
    }
    order
}

#[derive(Default)]
struct Data<'a> {
    block_size: u32,
    contents: Vec<Stored<'a>>,
    known: BTreeMap<Digest, usize>,
    fragments: Vec<Fragment>,
    /// The one that is being filled.
    open: Fragment,
    jobs: Vec<Job>,
}

impl<'a> Data<'a> {
    fn add(&mut self, content: &'a Content) -> Result<usize> {
        if let Some(known) = self.known.get(&content.digest()) {
            return Ok(*known);
        }
        let place = self.contents.len();
        self.known.insert(content.digest(), place);
        let size = content.size();
        let first = self.jobs.len();
        let room = if size == 0 {
            Room::Empty
        } else if size < u64::from(self.block_size) {
            self.share(place, size as u32)
        } else {
            self.own(place, content)?;
            Room::Blocks
        };
        let jobs = if room == Room::Blocks { first..self.jobs.len() } else { 0..0 };
        self.contents.push(Stored { content, room, jobs });
        Ok(place)
    }

    /// As files come, without looking for the best fit: what lies in one folder is read together.
    fn share(&mut self, place: usize, size: u32) -> Room {
        if self.open.size + size > self.block_size {
            self.close();
        }
        let room = Room::Fragment { index: self.fragments.len() as u32, offset: self.open.size };
        self.open.members.push(place);
        self.open.size += size;
        room
    }

    fn close(&mut self) {
        if self.open.size > 0 {
            self.open.job = self.jobs.len();
            self.jobs.push(Job::Fragment { index: self.fragments.len() as u32, size: self.open.size });
            self.fragments.push(std::mem::take(&mut self.open));
        }
    }

    fn own(&mut self, place: usize, content: &Content) -> Result<()> {
        let block_size = u64::from(self.block_size);
        let blocks = content.size().div_ceil(block_size);
        if blocks > u64::from(u32::MAX >> 3) {
            return Err(Error::build(format!("a file of {} bytes is too large for a squashfs", content.size())));
        }
        let mut next = 0;
        for range in content.data() {
            for block in next.max(range.start / block_size)..range.end.div_ceil(block_size) {
                let size = (content.size() - block * block_size).min(block_size) as u32;
                self.jobs.push(Job::Block { content: place, block: block as u32, size });
                next = block + 1;
            }
        }
        Ok(())
    }
}
