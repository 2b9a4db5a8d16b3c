//! Streams a [`DiskImage`] into a qcow2 file: threads read and compress, one writes in order.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::compress::{Compression, Compressor};
use super::format::CLUSTER;
use super::tables::{Piece, Tables};
use crate::error::{Context, Result};
use crate::format::disk::DiskImage;
use crate::format::disk::parallel::{Jobs, in_order};
use crate::format::disk::sparse::is_zero;

/// Clusters that a thread works on before it hands over.
const BATCH: usize = 16;

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
/// call; together they are [`DiskImage::touched_size`] of clusters.
pub fn write(disk: &DiskImage, file: &File, options: &Options, progress: &dyn Fn(u64)) -> Result<()> {
    let mut tables = Tables::new(disk.size(), options.compression)?;
    let (order, steady) = disk.steady_first(CLUSTER);
    let start = || Ok((Compressor::new(options.compression)?, vec![0; CLUSTER as usize]));
    let work = |(compressor, cluster): &mut (Compressor, Vec<u8>), turn: u64| {
        disk.read_at(cluster, order[turn as usize] * CLUSTER)?;
        if is_zero(cluster) {
            return Ok(None);
        }
        Ok(Some(match compressor.compress(cluster) {
            Some(bytes) => Cluster::Compressed(bytes.to_vec()),
            None => Cluster::Plain(cluster.clone()),
        }))
    };
    let mut settled = false;
    let put = &mut |turn: u64, cluster| {
        if turn >= steady as u64 && !settled {
            tables.settle();
            settled = true;
        }
        let (compressed, bytes) = match cluster {
            Cluster::Compressed(bytes) => (Some(bytes.len() as u64), bytes),
            Cluster::Plain(bytes) => (None, bytes),
        };
        let offset = tables.put(order[turn as usize], compressed);
        write_piece(file, &Piece { offset, bytes })
    };
    let jobs = Jobs { items: 0..order.len() as u64, batch: BATCH, threads: options.threads };
    in_order(jobs, &start, &work, put, &|done| progress(done as u64 * CLUSTER))?;
    if !settled {
        tables.settle();
    }
    tables.finish()?.iter().try_for_each(|piece| write_piece(file, piece))
}

fn write_piece(file: &File, piece: &Piece) -> Result<()> {
    file.write_all_at(&piece.bytes, piece.offset).context("writing the qcow2 image")
}
