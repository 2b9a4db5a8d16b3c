//! Tables: runs of metadata blocks, each of at most 8 KiB before compression, with a header of its own.

use super::Options;
use super::compress::Compressor;
use super::format::{METADATA, METADATA_RAW, Place};
use crate::error::Result;
use crate::format::disk::parallel::{Jobs, in_order};

/// Grows block by block; says where what comes next will lie.
pub struct Table<'a> {
    compressor: &'a mut Compressor,
    /// Whole blocks, as they will be on the disk.
    pub packed: Vec<u8>,
    /// Where each block begins among them; the last one is still open.
    starts: Vec<u64>,
    pending: Vec<u8>,
}

impl<'a> Table<'a> {
    pub fn new(compressor: &'a mut Compressor) -> Self {
        Table { compressor, packed: Vec::new(), starts: vec![0], pending: Vec::new() }
    }

    /// Begins with bytes whose blocks all cores make.
    pub fn begun(compressor: &'a mut Compressor, bytes: &[u8], options: &Options) -> Result<Self> {
        let (whole, rest) = bytes.split_at(bytes.len() / METADATA * METADATA);
        let mut table = Table::new(compressor);
        let mut put = |_, block: Vec<u8>| {
            table.packed.extend(block);
            table.starts.push(table.packed.len() as u64);
            Ok(())
        };
        let start = || Compressor::new(options.compression, options.block_size);
        let work = |compressor: &mut Compressor, index: u64| {
            pack(compressor, &whole[index as usize * METADATA..][..METADATA]).map(Some)
        };
        let jobs = Jobs { items: 0..(whole.len() / METADATA) as u64, batch: 16, threads: options.threads };
        in_order(jobs, &start, &work, &mut put, &|_| ())?;
        table.pending = rest.to_vec();
        Ok(table)
    }

    /// Where the next byte goes.
    pub fn place(&self) -> Place {
        self.place_of(self.position())
    }

    /// Bytes so far, before compression.
    pub fn position(&self) -> u64 {
        ((self.starts.len() - 1) * METADATA + self.pending.len()) as u64
    }

    /// Where a byte lies that is there already, or the next one.
    pub fn place_of(&self, position: u64) -> Place {
        let block = (position / METADATA as u64) as usize;
        Place { block: self.starts[block], offset: (position % METADATA as u64) as u16 }
    }

    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let taken = bytes.len().min(METADATA - self.pending.len());
            self.pending.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.pending.len() == METADATA {
                self.close()?;
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let block = pack(self.compressor, &self.pending)?;
        self.packed.extend(block);
        self.starts.push(self.packed.len() as u64);
        self.pending.clear();
        Ok(())
    }

    /// The blocks, and where each begins among them.
    pub fn finish(mut self) -> Result<(Vec<u8>, Vec<u64>)> {
        if !self.pending.is_empty() {
            self.close()?;
        }
        // The open one is empty.
        self.starts.pop();
        Ok((self.packed, self.starts))
    }
}

/// One block with its header.
pub fn pack(compressor: &mut Compressor, bytes: &[u8]) -> Result<Vec<u8>> {
    let (flag, body) = match compressor.compress(bytes)? {
        Some(packed) => (0, packed),
        None => (METADATA_RAW, bytes.to_vec()),
    };
    let mut out = (body.len() as u16 | flag).to_le_bytes().to_vec();
    out.extend(body);
    Ok(out)
}
