//! Streams a Tree into a file: the blocks as they are compressed, then the tables, at last the superblock.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Options;
use super::compress::Compressor;
use super::directory::{Name, listing};
use super::format::*;
use super::inode::{self, Data, Listing, seconds};
use super::kept::{Keeper, Packed};
use super::layout::{Job, Plan, Room, layout};
use super::metadata::Table;
use crate::error::{Context, Error, Result};
use crate::format::disk::parallel::{Jobs, in_order};
use crate::interrupt;
use crate::tree::clusters::Clusters;
use crate::tree::holes::is_zero;
use crate::tree::{Tree, begin_to_flush};

/// What has become of a Tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes in the file, a multiple of 4096.
    pub size: u64,
    /// Without what fills up the last 4096.
    pub used: u64,
    pub inodes: u32,
    pub blocks: Blocks,
}

/// How many blocks of data there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Blocks {
    /// Compressed for this file system.
    pub made: u64,
    /// Compressed before, for an earlier one.
    pub kept: u64,
}

/// Writes a file system that holds the Tree into `file`, from `at` on. What is there already is overwritten, nothing
/// before `at` is touched, and the file is not cut behind it. `progress` gets the number of bytes of files done since the
/// last call.
pub fn write(tree: &Tree, file: &File, at: u64, options: &Options, progress: &dyn Fn(u64)) -> Result<Written> {
    start(tree, file, at, options, None, progress)
}

/// As [`write()`], to the same bytes, with blocks that were kept when an earlier file system was written; keeps the others.
pub fn write_kept(
    tree: &Tree,
    file: &File,
    at: u64,
    options: &Options,
    clusters: &Clusters,
    progress: &dyn Fn(u64),
) -> Result<Written> {
    let keeper = Keeper::new(clusters, options)?;
    let written = start(tree, file, at, options, Some(&keeper), progress)?;
    keeper.finish()?;
    Ok(written)
}

/// Compresses blocks and keeps them, until `stop` is set: what [`write_kept`] finds then of the same contents. Nothing is
/// written.
pub fn prepare(tree: &Tree, options: &Options, clusters: &Clusters, stop: &AtomicBool) -> Result<()> {
    let keeper = Keeper::new(clusters, options)?;
    let plan = layout(tree, options)?;
    let work = |worker: &mut Worker, index: u64| {
        if !stop.load(Ordering::Relaxed) {
            block(&plan, plan.jobs[index as usize], options.block_size, Some(&keeper), worker)?;
        }
        Ok(None::<()>)
    };
    let jobs = Jobs { items: 0..plan.jobs.len() as u64, batch: BATCH, threads: options.threads };
    in_order(jobs, &|| Worker::new(options), &work, &mut |_, ()| Ok(()), &|_| ())?;
    keeper.finish()
}

fn start(
    tree: &Tree,
    file: &File,
    at: u64,
    options: &Options,
    keeper: Option<&Keeper<'_>>,
    progress: &dyn Fn(u64),
) -> Result<Written> {
    let context = "writing the squashfs";
    let plan = layout(tree, options).context(context)?;
    let output = Output { file, base: at, at: 0, buffer: Vec::with_capacity(BUFFER) };
    let flags = FLAG_DUPLICATES | FLAG_EXPORT;
    Writer { plan: &plan, options, keeper, output, flags, count: Blocks::default() }.run(progress).context(context)
}

/// Written at a time.
const BUFFER: usize = 1 << 20;
/// Blocks that a thread works on before it hands over.
const BATCH: usize = 4;

struct Output<'a> {
    file: &'a File,
    base: u64,
    /// From the base on, with what is in the buffer.
    at: u64,
    buffer: Vec<u8>,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.at += bytes.len() as u64;
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let start = self.base + self.at - self.buffer.len() as u64;
        self.file.write_all_at(&self.buffer, start).context("writing")?;
        begin_to_flush(self.file, start, self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }
}

/// Nodes, and where the inode of each begins before compression.
type Starts = Vec<(usize, u64)>;

/// Where blocks have ended up, by job; those of zeros have size 0.
#[derive(Clone, Copy, Default)]
struct Block {
    start: u64,
    size: u32,
}

struct Writer<'a> {
    plan: &'a Plan<'a>,
    options: &'a Options,
    keeper: Option<&'a Keeper<'a>>,
    output: Output<'a>,
    flags: u16,
    count: Blocks,
}

/// What became of a block.
struct Done {
    /// Else it was kept.
    new: bool,
    /// With the flag of their size; nothing for zeros.
    bytes: Option<(u32, Vec<u8>)>,
}

/// What a thread works with.
struct Worker {
    compressor: Compressor,
    buffer: Vec<u8>,
}

impl Worker {
    fn new(options: &Options) -> Result<Worker> {
        let compressor = Compressor::new(options.compression, options.block_size)?;
        Ok(Worker { compressor, buffer: Vec::with_capacity(options.block_size as usize) })
    }
}

impl Writer<'_> {
    fn run(mut self, progress: &dyn Fn(u64)) -> Result<Written> {
        let plan = self.plan;
        let mut compressor = self.compressor()?;
        self.output.put(&[0; SUPERBLOCK])?;
        if let Some(options) = self.options.compression.options() {
            self.flags |= FLAG_COMPRESSOR_OPTIONS;
            self.output.put(&(options.len() as u16 | METADATA_RAW).to_le_bytes())?;
            self.output.put(&options)?;
        }
        let blocks = self.blocks(progress)?;
        let inode_table = self.output.at;
        let (places, listings) = self.inodes(&blocks, &mut compressor)?;
        let directory_table = self.output.at;
        self.output.put(&listings)?;
        let fragment_table = self.table(&self.fragments(&blocks), &mut compressor)?;
        let export_table = self.table(&self.exports(&places), &mut compressor)?;
        let mut ids = Bytes::default();
        for id in &plan.ids {
            ids.u32(*id);
        }
        let id_table = self.table(&ids.0, &mut compressor)?;
        let xattr_table = self.xattrs(&mut compressor)?;
        let superblock = Superblock {
            inodes: plan.nodes.len() as u32,
            time: seconds(self.options.time.seconds),
            block_size: self.options.block_size,
            fragments: plan.fragments.len() as u32,
            compressor: self.options.compression.id(),
            flags: self.flags,
            ids: plan.ids.len() as u16,
            root: places[0].reference(),
            bytes_used: self.output.at,
            id_table,
            xattr_table,
            inode_table,
            directory_table,
            fragment_table,
            export_table,
        };
        self.finish(&superblock)
    }

    fn finish(mut self, superblock: &Superblock) -> Result<Written> {
        let used = self.output.at;
        let size = used.next_multiple_of(PADDING);
        self.output.put(&vec![0; (size - used) as usize])?;
        self.output.flush()?;
        self.output.file.write_all_at(&superblock.encode(), self.output.base).context("writing")?;
        Ok(Written { size, used, inodes: superblock.inodes, blocks: self.count })
    }

    fn compressor(&self) -> Result<Compressor> {
        Compressor::new(self.options.compression, self.options.block_size)
    }

    /// All blocks of data, in the order of the jobs.
    fn blocks(&mut self, progress: &dyn Fn(u64)) -> Result<Vec<Block>> {
        let plan = self.plan;
        let mut blocks = vec![Block::default(); plan.jobs.len()];
        let (keeper, options) = (self.keeper, self.options);
        let work = |worker: &mut Worker, index: u64| {
            block(plan, plan.jobs[index as usize], options.block_size, keeper, worker).map(Some)
        };
        let (output, count) = (&mut self.output, &mut self.count);
        let mut put = |index: u64, done: Done| {
            *(if done.new { &mut count.made } else { &mut count.kept }) += 1;
            let Some((flag, bytes)) = done.bytes else { return Ok(()) };
            blocks[index as usize] = Block { start: output.at, size: bytes.len() as u32 | flag };
            output.put(&bytes)
        };
        let jobs = Jobs { items: 0..plan.jobs.len() as u64, batch: BATCH, threads: self.options.threads };
        let next = Cell::new(0);
        let done = |count: usize| {
            let batch = &plan.jobs[next.get()..next.get() + count];
            next.set(next.get() + count);
            progress(batch.iter().map(|job| u64::from(job.size())).sum());
        };
        in_order(jobs, &|| Worker::new(options), &work, &mut put, &done)?;
        Ok(blocks)
    }

    /// The inode table goes out; where each node is in it, and the bytes of the directory table.
    fn inodes(&mut self, blocks: &[Block], compressor: &mut Compressor) -> Result<(Vec<Place>, Vec<u8>)> {
        let plan = self.plan;
        let (bytes, starts) = self.plain_inodes(blocks)?;
        // A directory has to know where what is in it lies: they come after all others, the deepest first.
        let mut inodes = Table::begun(compressor, &bytes, self.options)?;
        let mut listing_compressor = self.compressor()?;
        let mut listings = Table::new(&mut listing_compressor);
        let mut places = vec![Place::default(); plan.nodes.len()];
        for (node, start) in starts {
            places[node] = inodes.place_of(start);
        }
        for node in (0..plan.nodes.len()).rev().filter(|node| plan.nodes[*node].is_folder()) {
            interrupt::check()?;
            let bytes = self.directory(node, &places, &mut listings);
            let bytes = bytes.with_context(|| format!("listing {}", plan.nodes[node].path))?;
            places[node] = inodes.place();
            inodes.push(&bytes)?;
        }
        self.output.put(&inodes.finish()?.0)?;
        Ok((places, listings.finish()?.0))
    }

    /// The inodes of all that are not directories, and where each begins.
    fn plain_inodes(&self, blocks: &[Block]) -> Result<(Vec<u8>, Starts)> {
        let plan = self.plan;
        let (mut out, mut starts) = (Bytes::default(), Vec::with_capacity(plan.nodes.len()));
        for node in plan.order.iter().copied().filter(|node| !plan.nodes[*node].is_folder()) {
            interrupt::check()?;
            starts.push((node, out.0.len() as u64));
            let (about, inode) = (&plan.nodes[node], &plan.inodes[node]);
            match inode.content {
                None => inode::other(&mut out, about, inode),
                Some(content) => self.file(&mut out, node, content, blocks),
            }
        }
        Ok((out.0, starts))
    }

    fn file(&self, out: &mut Bytes, node: usize, content: usize, blocks: &[Block]) {
        let plan = self.plan;
        let stored = &plan.contents[content];
        let block_size = u64::from(self.options.block_size);
        let size = stored.content.size();
        let count = if stored.room == Room::Blocks { size.div_ceil(block_size) } else { 0 };
        let mut sizes = vec![0; count as usize];
        let (mut start, mut filled) = (None, 0);
        for job in stored.jobs.clone() {
            let Job::Block { block, size, .. } = plan.jobs[job] else { continue };
            if blocks[job].size != 0 {
                start.get_or_insert(blocks[job].start);
                sizes[block as usize] = blocks[job].size;
                filled += u64::from(size);
            }
        }
        let sparse = if stored.room == Room::Blocks { size - filled } else { 0 };
        let data = Data { size, start: start.unwrap_or(0), room: stored.room, sizes: &sizes, sparse };
        inode::file(out, &plan.nodes[node], &plan.inodes[node], &data);
    }

    /// Lists a directory and gives its inode.
    fn directory(&self, node: usize, places: &[Place], listings: &mut Table<'_>) -> Result<Vec<u8>> {
        let plan = self.plan;
        let about = &plan.nodes[node];
        let names: Vec<Name<'_>> = about
            .entries
            .iter()
            .map(|(name, child)| Name {
                name,
                number: plan.inodes[*child].number,
                kind: inode::short_type(plan.nodes[*child].kind),
                inode: places[*child],
            })
            .collect();
        let (bytes, marks) = listing(&names);
        let size = u32::try_from(bytes.len()).ok().filter(|size| *size < u32::MAX - 3);
        let size = size.ok_or_else(|| Error::build("there is too much in one folder"))?;
        let (position, place) = (listings.position(), listings.place());
        listings.push(&bytes)?;
        let mark_blocks: Vec<u64> =
            marks.iter().map(|mark| listings.place_of(position + u64::from(mark.position)).block).collect();
        // As mksquashfs has it, the root lies in a folder with the next number.
        let parent = if node == 0 { plan.nodes.len() as u32 + 1 } else { plan.inodes[about.parent].number };
        let listing = Listing { place, size, parent, marks: &marks, names: &names, mark_blocks: &mark_blocks };
        let mut out = Bytes::default();
        inode::directory(&mut out, about, &plan.inodes[node], &listing);
        Ok(out.0)
    }

    fn fragments(&self, blocks: &[Block]) -> Vec<u8> {
        let mut out = Bytes::default();
        for fragment in &self.plan.fragments {
            let Block { start, size } = blocks[fragment.job];
            out.u64(start).u32(size).u32(0);
        }
        out.0
    }

    /// Where each inode is, by its number.
    fn exports(&self, places: &[Place]) -> Vec<u8> {
        let mut out = Bytes::default();
        for node in &self.plan.order {
            out.u64(places[*node].reference());
        }
        out.0
    }

    /// Metadata blocks and then where each begins; gives the place of that list.
    fn table(&mut self, bytes: &[u8], compressor: &mut Compressor) -> Result<u64> {
        let first = self.output.at;
        let (packed, starts) = Table::begun(compressor, bytes, self.options)?.finish()?;
        self.output.put(&packed)?;
        let list = self.output.at;
        self.index(first, &starts)?;
        Ok(list)
    }

    fn index(&mut self, first: u64, starts: &[u64]) -> Result<()> {
        let mut out = Bytes::default();
        for start in starts {
            out.u64(first + start);
        }
        self.output.put(&out.0)
    }

    /// Pairs, sets, and a header of its own before the list of places.
    fn xattrs(&mut self, compressor: &mut Compressor) -> Result<u64> {
        let xattrs = &self.plan.xattrs;
        if xattrs.sets.is_empty() {
            return Ok(NO_TABLE);
        }
        let first = self.output.at;
        let mut sets = Bytes::default();
        let pairs = Table::begun(compressor, &xattrs.pairs, self.options)?;
        for set in &xattrs.sets {
            sets.u64(pairs.place_of(set.start).reference()).u32(set.pairs).u32(set.size);
        }
        self.output.put(&pairs.finish()?.0)?;
        let sets_at = self.output.at;
        let (packed, starts) = Table::begun(compressor, &sets.0, self.options)?.finish()?;
        self.output.put(&packed)?;
        let list = self.output.at;
        let mut header = Bytes::default();
        header.u64(first).u32(xattrs.sets.len() as u32).u32(0);
        self.output.put(&header.0)?;
        self.index(sets_at, &starts)?;
        Ok(list)
    }
}

fn block(plan: &Plan<'_>, job: Job, block_size: u32, keeper: Option<&Keeper<'_>>, worker: &mut Worker) -> Result<Done> {
    let keeper = keeper.map(|keeper| (keeper, keeper.key(plan, job)));
    let known = keeper.as_ref().and_then(|(keeper, key)| keeper.find(key));
    let new = known.is_none();
    if !matches!(known, Some(Packed::Compressed(_) | Packed::Zeros)) {
        read(plan, job, block_size, &mut worker.buffer)?;
    }
    let packed = match known {
        Some(packed) => packed,
        None => {
            let packed = match job {
                Job::Block { .. } if is_zero(&worker.buffer) => Packed::Zeros,
                _ => worker.compressor.compress(&worker.buffer)?.map_or(Packed::Raw, Packed::Compressed),
            };
            keeper.map_or(Ok(()), |(keeper, key)| keeper.keep(key, &packed, &worker.buffer))?;
            packed
        }
    };
    let bytes = match packed {
        Packed::Zeros => None,
        Packed::Raw => Some((DATA_RAW, worker.buffer.clone())),
        Packed::Compressed(bytes) => Some((0, bytes)),
    };
    Ok(Done { new, bytes })
}

/// The bytes of a block before compression.
fn read(plan: &Plan<'_>, job: Job, block_size: u32, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.resize(job.size() as usize, 0);
    match job {
        Job::Block { content, block, .. } => {
            plan.contents[content].content.read_at(buffer, u64::from(block) * u64::from(block_size))
        }
        Job::Fragment { index, .. } => {
            let mut rest = &mut buffer[..];
            for member in &plan.fragments[index as usize].members {
                let content = plan.contents[*member].content;
                let (now, later) = rest.split_at_mut(content.size() as usize);
                content.read_at(now, 0)?;
                rest = later;
            }
            Ok(())
        }
    }
}
