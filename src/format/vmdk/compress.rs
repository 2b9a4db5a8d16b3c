//! One grain in, a zlib stream out (RFC 1950); each grain by itself, so that the result does not depend on the order.

use flate2::{Compress, FlushCompress, Status};

use super::format::GRAIN;
use crate::error::{Error, Result};

/// zlib's default.
const LEVEL: u32 = 6;

/// A compressor with its working memory, one for each thread.
pub struct Compressor {
    deflate: Compress,
    room: Vec<u8>,
}

impl Compressor {
    pub fn new() -> Compressor {
        // What does not shrink grows by a few bytes in each stored block; readers allow for twice the size.
        Compressor { deflate: Compress::new(flate2::Compression::new(LEVEL), true), room: vec![0; 2 * GRAIN as usize] }
    }

    pub fn compress(&mut self, grain: &[u8]) -> Result<&[u8]> {
        self.deflate.reset();
        match self.deflate.compress(grain, &mut self.room, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => Ok(&self.room[..self.deflate.total_out() as usize]),
            other => Err(Error::build(format!("cannot compress a grain: {other:?}"))),
        }
    }
}
