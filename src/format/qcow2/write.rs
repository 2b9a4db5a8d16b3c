//! Streams a [`DiskImage`] into a qcow2 file: threads read and compress, one writes in order.
//!
//! Thread k of n takes batches k, k + n, k + 2n ... and has a short queue of its own; the writer empties the queues in
//! turn. That bounds the memory and fixes the order, so the bytes are the same for any n.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::compress::{Compression, Compressor};
use super::format::{CLUSTER, Header, L2_COVERS, L2_ENTRIES, MAX_VIRTUAL_SIZE, SECTOR, compressed_entry, plain_entry};
use super::layout::Allocator;
use crate::error::{Context, Error, Result};
use crate::format::disk::DiskImage;
use crate::interrupt;

#[derive(Debug, Clone, Default)]
pub struct Options {
    pub compression: Compression,
    /// All cores when `None`. Does not change the result.
    pub threads: Option<usize>,
}

/// Clusters that a thread works on before it hands over.
const BATCH: usize = 16;
/// Finished batches that may wait in the queue of each thread.
const QUEUE: usize = 4;

/// What became of a cluster.
enum Cluster {
    Zero,
    Compressed(Vec<u8>),
    Plain(Vec<u8>),
}

type Batch = Result<Vec<(u64, Cluster)>>;

/// Writes `disk` into `file`, which must be empty. `progress` gets the number of bytes of the disk done since the last
/// call; together they are close to [`DiskImage::data_size`].
pub fn write(disk: &DiskImage, file: &File, options: &Options, progress: &dyn Fn(u64)) -> Result<()> {
    let available = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or_else(available).max(1);
    let mut image = Image::new(disk.size(), options.compression, file)?;
    std::thread::scope(|scope| {
        let queues: Vec<Receiver<Batch>> = (0..threads)
            .map(|thread| {
                let (sender, receiver) = sync_channel(QUEUE);
                scope.spawn(move || compress_batches(disk, options.compression, thread, threads, &sender));
                receiver
            })
            .collect();
        // A queue that ends means that there is no batch for this turn, hence none for any later one. On an error the
        // queues are dropped, and the threads stop at their next hand-over.
        for queue in queues.iter().cycle() {
            let Ok(batch) = queue.recv() else { break };
            interrupt::check()?;
            let batch = batch?;
            let done = batch.len() as u64 * CLUSTER;
            for (index, cluster) in batch {
                image.put(index, &cluster)?;
            }
            progress(done);
        }
        drop(queues);
        image.finish()
    })
}

/// The work of one thread: every `threads`-th batch of touched clusters.
fn compress_batches(
    disk: &DiskImage,
    compression: Compression,
    thread: usize,
    threads: usize,
    queue: &SyncSender<Batch>,
) {
    let mut compressor = match Compressor::new(compression) {
        Ok(compressor) => compressor,
        Err(error) => return drop(queue.send(Err(error))),
    };
    let mut clusters = disk.touched_blocks(CLUSTER);
    let mut buffer = vec![0; CLUSTER as usize];
    let mut turn = 0;
    loop {
        let batch: Vec<u64> = clusters.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return;
        }
        let mine = turn == thread;
        turn = (turn + 1) % threads;
        if !mine {
            continue;
        }
        let result = batch
            .into_iter()
            .map(|index| Ok((index, compress_cluster(disk, index, &mut buffer, &mut compressor)?)))
            .collect::<Batch>();
        let failed = result.is_err();
        if queue.send(result).is_err() || failed {
            return;
        }
    }
}

fn compress_cluster(disk: &DiskImage, index: u64, buffer: &mut [u8], compressor: &mut Compressor) -> Result<Cluster> {
    disk.read_at(buffer, index * CLUSTER)?;
    if is_zero(buffer) {
        return Ok(Cluster::Zero);
    }
    Ok(match compressor.compress(buffer) {
        Some(bytes) => Cluster::Compressed(bytes.to_vec()),
        None => Cluster::Plain(buffer.to_vec()),
    })
}

/// Sixteen bytes at a time: this runs over every byte of the disk, also in builds without optimisation.
fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(16);
    words.all(|word| word == [0; 16]) && words.remainder().iter().all(|byte| *byte == 0)
}

/// The file that grows: data, L2 tables as soon as they are complete, at last everything that points to them.
struct Image<'a> {
    file: &'a File,
    compression: Compression,
    size: u64,
    l1: Vec<u64>,
    /// The table that fills up, and its place in L1.
    l2: Vec<u64>,
    l2_index: usize,
    allocator: Allocator,
}

impl<'a> Image<'a> {
    fn new(size: u64, compression: Compression, file: &'a File) -> Result<Image<'a>> {
        if size == 0 || size > MAX_VIRTUAL_SIZE {
            return Err(Error::build(format!("a qcow2 image cannot have a virtual size of {size} bytes")));
        }
        let size = size.next_multiple_of(SECTOR);
        let l1_entries = size.div_ceil(L2_COVERS);
        let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
        let allocator = Allocator::new(1 + l1_clusters);
        let (l1, l2) = (vec![0; l1_entries as usize], vec![0; L2_ENTRIES as usize]);
        Ok(Image { file, compression, size, l1, l2, l2_index: 0, allocator })
    }

    /// The next cluster; indices ascend.
    fn put(&mut self, index: u64, cluster: &Cluster) -> Result<()> {
        let l1_index = (index / L2_ENTRIES) as usize;
        if l1_index != self.l2_index {
            self.flush_l2()?;
            self.l2_index = l1_index;
        }
        self.l2[(index % L2_ENTRIES) as usize] = match cluster {
            Cluster::Zero => 0,
            Cluster::Compressed(bytes) => {
                let offset = self.allocator.packed(bytes.len() as u64);
                self.write(bytes, offset)?;
                compressed_entry(offset, bytes.len() as u64)
            }
            Cluster::Plain(bytes) => {
                let offset = self.allocator.clusters(1);
                self.write(bytes, offset)?;
                plain_entry(offset)
            }
        };
        Ok(())
    }

    fn flush_l2(&mut self) -> Result<()> {
        if self.l2.iter().all(|entry| *entry == 0) {
            return Ok(());
        }
        let offset = self.allocator.clusters(1);
        self.write(&big_endian(&self.l2), offset)?;
        self.l1[self.l2_index] = plain_entry(offset);
        self.l2.fill(0);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.flush_l2()?;
        let refcounts = std::mem::replace(&mut self.allocator, Allocator::new(0)).finish();
        for (index, block) in refcounts.blocks().enumerate() {
            self.write(&block, refcounts.blocks_offset + index as u64 * CLUSTER)?;
        }
        self.write(&refcounts.table(), refcounts.table_offset)?;
        self.write(&big_endian(&self.l1), CLUSTER)?;
        let header = Header {
            compression: self.compression,
            size: self.size,
            l1_entries: self.l1.len() as u64,
            l1_offset: CLUSTER,
            refcount_table_offset: refcounts.table_offset,
            refcount_table_clusters: refcounts.table_clusters,
        };
        // Last, so that a torn file is not mistaken for an image.
        self.write(&header.encode(), 0)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).context("writing the qcow2 image")
    }
}

fn big_endian(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}
