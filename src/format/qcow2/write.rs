//! Streams a [`DiskImage`] into a qcow2 file: threads read and compress, one writes in order.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::compress::{Compression, Compressor};
use super::format::CLUSTER;
use super::tables::{Piece, Tables};
use crate::error::{Context, Result};
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
    let mut tables = Tables::new(disk.size(), options.compression)?;
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
    let put = &mut |index, cluster| {
        let (compressed, bytes) = match cluster {
            Cluster::Compressed(bytes) => (Some(bytes.len() as u64), bytes),
            Cluster::Plain(bytes) => (None, bytes),
        };
        let (offset, complete) = tables.put(index, compressed);
        complete.map_or(Ok(()), |table| write_piece(file, &table))?;
        write_piece(file, &Piece { offset, bytes })
    };
    parallel::blocks(&work, put, progress)?;
    tables.finish().iter().try_for_each(|piece| write_piece(file, piece))
}

fn write_piece(file: &File, piece: &Piece) -> Result<()> {
    file.write_all_at(&piece.bytes, piece.offset).context("writing the qcow2 image")
}
