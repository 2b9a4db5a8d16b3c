//! Compressed files, unpacked into a file without a name.
//!
//! Owns: [`Packing`] and [`unpack`]. gzip and zstd cannot be read from the middle, so the whole goes to the temporary
//! folder (`TMPDIR`) once and is gone when the program ends. Runs of zeros become holes; a limit guards against files
//! that unpack to more than any image has.

use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::source::{FileSource, SharedSource, Source};
use crate::error::{Context, Error, Result};
use crate::interrupt;

/// More than any Tree that was ever put into an image.
const LIMIT: u64 = 1 << 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Packing {
    /// By the first bytes.
    pub fn of(file: &dyn Source) -> Packing {
        match file.bytes(0, 4).as_deref() {
            Ok([0x1F, 0x8B, 8, _]) => Packing::Gzip,
            Ok([0x28, 0xB5, 0x2F, 0xFD]) => Packing::Zstd,
            _ => Packing::None,
        }
    }
}

/// The bytes of the file in it; the source itself when it is not compressed.
pub fn unpack(file: &SharedSource, packing: Packing) -> Result<SharedSource> {
    let packed = BufReader::with_capacity(1 << 20, Sequential { source: file.clone(), at: 0 });
    match packing {
        Packing::None => Ok(file.clone()),
        Packing::Gzip => spool(flate2::bufread::MultiGzDecoder::new(packed)),
        Packing::Zstd => spool(zstd::stream::read::Decoder::with_buffer(packed).context("unpacking zstd")?),
    }
    .context("unpacking the file")
}

fn spool(mut from: impl Read) -> Result<SharedSource> {
    let to = tempfile::tempfile().context("making a temporary file")?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0u64;
    loop {
        interrupt::check()?;
        let length = from.read(&mut buffer).context("reading the compressed bytes")?;
        if length == 0 {
            break;
        }
        if buffer[..length].iter().any(|byte| *byte != 0) {
            to.write_all_at(&buffer[..length], at).context("writing a temporary file")?;
        }
        at += length as u64;
        if at > LIMIT {
            return Err(Error::build(format!("the file unpacks to more than {LIMIT} bytes")));
        }
    }
    to.set_len(at).context("writing a temporary file")?;
    Ok(Arc::new(FileSource::new(Path::new("the unpacked file"), to)?))
}

/// A source from its start to its end.
struct Sequential {
    source: SharedSource,
    at: u64,
}

impl Read for Sequential {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = (self.source.size() - self.at).min(buffer.len() as u64) as usize;
        self.source.read_at(&mut buffer[..length], self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::inspect::source::MemorySource;

    #[test]
    fn what_was_packed_is_unpacked() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|at| if at < 2_000_000 { 0 } else { (at / 3) as u8 }).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::bulk::compress(&bytes, 3).unwrap();
        for (packed, packing) in [(gzip, Packing::Gzip), (zstd, Packing::Zstd), (bytes.clone(), Packing::None)] {
            let source: SharedSource = Arc::new(MemorySource(packed.clone()));
            assert_eq!(Packing::of(&*source), packing);
            assert!(unpack(&source, packing).unwrap().bytes(0, bytes.len()).unwrap() == bytes);
            let cut: SharedSource = Arc::new(MemorySource(packed[..packed.len() / 2].to_vec()));
            assert_eq!(unpack(&cut, packing).is_err(), packing != Packing::None);
        }
    }
}
