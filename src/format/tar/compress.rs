//! Where the bytes of an archive go: plain, gzip or zstd, to the same bytes for any number of cores.

use std::io::{self, Write};

use flate2::{Compress, FlushCompress, Status};
use rayon::prelude::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    None,
    /// Every reader knows it.
    Gzip,
    /// Smaller and much faster.
    Zstd,
}

/// The usual trade of speed for size, as for qcow2.
const ZSTD_LEVEL: i32 = 3;
/// zlib's default.
const DEFLATE_LEVEL: u32 = 6;

/// A sink that must be finished.
pub enum Sink<W: Write> {
    Plain(io::BufWriter<W>),
    Gzip(Gzip<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Sink<W> {
    pub fn new(compression: Compression, threads: Option<usize>, to: W) -> io::Result<Sink<W>> {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        match compression {
            Compression::None => Ok(Sink::Plain(io::BufWriter::with_capacity(1 << 20, to))),
            Compression::Gzip => Gzip::new(to, threads).map(Sink::Gzip),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(to, ZSTD_LEVEL)?;
                // At least one worker: without any, zstd cuts its blocks elsewhere.
                encoder.multithread(threads.unwrap_or_else(available).max(1) as u32)?;
                encoder.include_checksum(true)?;
                Ok(Sink::Zstd(encoder))
            }
        }
    }

    pub fn finish(self) -> io::Result<()> {
        match self {
            Sink::Plain(writer) => writer.into_inner().map(drop).map_err(io::IntoInnerError::into_error),
            Sink::Gzip(writer) => writer.finish(),
            Sink::Zstd(encoder) => encoder.finish()?.flush(),
        }
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Plain(writer) => writer.write(bytes),
            Sink::Gzip(writer) => writer.write(bytes),
            Sink::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Plain(writer) => writer.flush(),
            // Would cut pieces by the caller's habits.
            Sink::Gzip(_) | Sink::Zstd(_) => Ok(()),
        }
    }
}

/// Bytes that are compressed by themselves.
const PIECE: usize = 1 << 20;
/// Pieces that wait until they are worked on together; more cores than this have nothing to do.
const PIECES: usize = 16;

/// One gzip member whose deflate stream is made of pieces: each but the last ends with an empty stored block (RFC 1951,
/// 3.2.4; zlib's Z_SYNC_FLUSH) and so on a whole byte, which lets them be made apart and put together.
pub struct Gzip<W: Write> {
    to: W,
    pool: Option<rayon::ThreadPool>,
    pending: Vec<u8>,
    checksum: crc32fast::Hasher,
    size: u64,
}

impl<W: Write> Gzip<W> {
    fn new(mut to: W, threads: Option<usize>) -> io::Result<Gzip<W>> {
        // RFC 1952, 2.3: deflate, no flags, no time, no hint of level, made on Unix.
        to.write_all(&[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3])?;
        let pool = threads.map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build());
        let pool = pool.transpose().map_err(io::Error::other)?;
        Ok(Gzip { to, pool, pending: Vec::new(), checksum: crc32fast::Hasher::new(), size: 0 })
    }

    fn pieces(&mut self, last: bool) -> io::Result<()> {
        let pending = &self.pending;
        self.checksum.update(pending);
        self.size += pending.len() as u64;
        let work = || pending.par_chunks(PIECE).map(|piece| deflate(piece, FlushCompress::Sync)).collect();
        let pieces: Vec<io::Result<Vec<u8>>> = match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        };
        for piece in pieces {
            self.to.write_all(&piece?)?;
        }
        if last {
            self.to.write_all(&deflate(&[], FlushCompress::Finish)?)?;
        }
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.pieces(true)?;
        self.to.write_all(&self.checksum.clone().finalize().to_le_bytes())?;
        // "Modulo 2^32".
        self.to.write_all(&(self.size as u32).to_le_bytes())?;
        self.to.flush()
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE * PIECES - self.pending.len();
        let taken = bytes.len().min(room);
        self.pending.extend(&bytes[..taken]);
        if self.pending.len() == PIECE * PIECES {
            self.pieces(false)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A raw deflate stream of its own, or a part that another one can follow.
fn deflate(bytes: &[u8], flush: FlushCompress) -> io::Result<Vec<u8>> {
    let mut deflate = Compress::new(flate2::Compression::new(DEFLATE_LEVEL), false);
    let mut out = Vec::with_capacity(bytes.len() / 2 + 1024);
    loop {
        let done = deflate.total_in() as usize;
        let status = deflate.compress_vec(&bytes[done..], &mut out, flush).map_err(io::Error::other)?;
        let complete = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            // All is out when room is left.
            _ => deflate.total_in() as usize == bytes.len() && out.len() < out.capacity(),
        };
        if complete {
            return Ok(out);
        }
        out.reserve(64 << 10);
    }
}
