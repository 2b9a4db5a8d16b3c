//! One cluster in, fewer bytes out; each cluster by itself, so that the result does not depend on the order.

use flate2::{Compress, FlushCompress, Status};

use super::format::CLUSTER;
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Small and fast; needs QEMU 5.1 (2020) to read.
    #[default]
    Zstd,
    /// Raw deflate; any QEMU reads it.
    Zlib,
    None,
}

/// The usual trade of speed for size, also what qemu-img uses.
const ZSTD_LEVEL: i32 = 3;
/// zlib's default.
const DEFLATE_LEVEL: u32 = 6;
/// QEMU inflates with a window of 4 KiB.
const DEFLATE_WINDOW_BITS: u8 = 12;

/// A compressor with its working memory, one for each thread.
pub enum Compressor {
    Zstd(Box<zstd::bulk::Compressor<'static>>, Vec<u8>),
    Zlib(Box<Compress>, Vec<u8>),
    None,
}

impl Compressor {
    pub fn new(compression: Compression) -> Result<Compressor> {
        let room = vec![0; CLUSTER as usize];
        match compression {
            Compression::Zstd => {
                let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)
                    .map_err(|error| Error::build(format!("cannot set up zstd: {error}")))?;
                Ok(Compressor::Zstd(Box::new(zstd), room))
            }
            Compression::Zlib => {
                let level = flate2::Compression::new(DEFLATE_LEVEL);
                let deflate = Compress::new_with_window_bits(level, false, DEFLATE_WINDOW_BITS);
                Ok(Compressor::Zlib(Box::new(deflate), room))
            }
            Compression::None => Ok(Compressor::None),
        }
    }

    /// `None` when the result would not be smaller than the cluster.
    pub fn compress(&mut self, cluster: &[u8]) -> Option<&[u8]> {
        // The output buffer is one sector smaller than a cluster: what does not fit is not worth compressing.
        match self {
            Compressor::Zstd(zstd, room) => {
                let limit = room.len() - 512;
                let length = zstd.compress_to_buffer(cluster, &mut room[..limit]).ok()?;
                Some(&room[..length])
            }
            Compressor::Zlib(deflate, room) => {
                deflate.reset();
                let limit = room.len() - 512;
                match deflate.compress(cluster, &mut room[..limit], FlushCompress::Finish) {
                    Ok(Status::StreamEnd) => Some(&room[..deflate.total_out() as usize]),
                    _ => None,
                }
            }
            Compressor::None => None,
        }
    }
}
