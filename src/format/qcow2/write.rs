//! Streams a [`DiskImage`] into a qcow2 file: threads read and compress, one writes in order.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::compress::{Compression, Compressor};
use super::format::{CLUSTER, Header, L2_COVERS, L2_ENTRIES, MAX_VIRTUAL_SIZE, SECTOR, compressed_entry, plain_entry};
use super::layout::Allocator;
use crate::error::{Context, Error, Result};
use crate::format::disk::DiskImage;
use crate::format::disk::parallel::{self, Work};

#[derive(Debug, Clone, Default)]
pub struct Options {
    pub compression: Compression,
    /// All cores when `None`. Does not change the result.
    pub threads: Option<usize>,
}

/// What became of a cluster that is not zero.
enum Cluster {
    Compressed(Vec<u8>),
    Plain(Vec<u8>),
}

/// Writes `disk` into `file`, which must be empty. `progress` gets the number of bytes of the disk done since the last
/// call; together they are close to [`DiskImage::data_size`].
pub fn write(disk: &DiskImage, file: &File, options: &Options, progress: &dyn Fn(u64)) -> Result<()> {
    let mut image = Image::new(disk.size(), options.compression, file)?;
    let work = Work {
        disk,
        block: CLUSTER,
        threads: options.threads,
        start: || Compressor::new(options.compression),
        work: |compressor: &mut Compressor, _, cluster: &[u8]| {
            Ok(match compressor.compress(cluster) {
                Some(bytes) => Cluster::Compressed(bytes.to_vec()),
                None => Cluster::Plain(cluster.to_vec()),
            })
        },
    };
    parallel::blocks(&work, &mut |index, cluster| image.put(index, &cluster), progress)?;
    image.finish()
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
