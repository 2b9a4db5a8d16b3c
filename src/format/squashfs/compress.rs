//! The compressors that the kernel can undo, each block by itself.

use flate2::{Compress, FlushCompress, Status};
use liblzma::stream::{Action, Check, Filters, LzmaOptions, Stream};

use super::format::Bytes;
use crate::error::{Context, Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Level 1 to 9.
    Gzip { level: u32 },
    /// The fast form.
    Lz4,
    /// Preset 6 with a dictionary of the block's size.
    Xz,
    /// Level 1 to 22.
    Zstd { level: i32 },
}

impl Compression {
    pub const GZIP_LEVEL: u32 = 9;
    pub const ZSTD_LEVEL: i32 = 15;
    /// The names, as `mksquashfs -comp` has them.
    pub const NAMES: [&str; 4] = ["zstd", "lz4", "xz", "gzip"];

    /// By its name, at its usual level or at a given one.
    pub fn named(name: &str, level: Option<u32>) -> Result<Compression> {
        let within = |limit: u32, usual: u32| match level {
            None => Ok(usual),
            Some(level) if (1..=limit).contains(&level) => Ok(level),
            Some(level) => Err(Error::documents(format!("{name} has no compression level {level}"))
                .hint(format!("levels go from 1 to {limit}; the usual one is {usual}"))),
        };
        match name {
            "gzip" => Ok(Compression::Gzip { level: within(9, Self::GZIP_LEVEL)? }),
            "zstd" => Ok(Compression::Zstd { level: within(22, Self::ZSTD_LEVEL as u32)? as i32 }),
            "lz4" | "xz" if level.is_some() => {
                Err(Error::documents(format!("{name} has no compression levels here")).hint("leave the level out"))
            }
            "lz4" => Ok(Compression::Lz4),
            "xz" => Ok(Compression::Xz),
            _ => Err(Error::documents(format!("unknown compression `{name}` of a squashfs"))
                .hint(format!("known are {}", Self::NAMES.join(", ")))),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip { .. } => "gzip",
            Compression::Lz4 => "lz4",
            Compression::Xz => "xz",
            Compression::Zstd { .. } => "zstd",
        }
    }

    /// The number in the superblock.
    pub(super) fn id(self) -> u16 {
        match self {
            Compression::Gzip { .. } => 1,
            Compression::Xz => 4,
            Compression::Lz4 => 5,
            Compression::Zstd { .. } => 6,
        }
    }

    /// What follows the superblock, where it is not what readers assume.
    pub(super) fn options(self) -> Option<Vec<u8>> {
        let mut out = Bytes::default();
        match self {
            // The window's size as a power of two; no strategies but the usual one.
            Compression::Gzip { level } if level != Self::GZIP_LEVEL => out.u32(level).u16(15).u16(0),
            // Version 1 of the format, no flags; readers insist on it.
            Compression::Lz4 => out.u32(1).u32(0),
            Compression::Zstd { level } if level != Self::ZSTD_LEVEL => out.u32(level as u32),
            _ => return None,
        };
        Some(out.0)
    }
}

impl Default for Compression {
    fn default() -> Self {
        Compression::Zstd { level: Self::ZSTD_LEVEL }
    }
}

/// Kept by a thread from block to block.
pub enum Compressor {
    Gzip(Compress),
    Lz4(Vec<u8>),
    Xz(Filters),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    pub fn new(compression: Compression, block_size: u32) -> Result<Compressor> {
        let context = "starting the compressor";
        Ok(match compression {
            Compression::Gzip { level } => Compressor::Gzip(Compress::new(flate2::Compression::new(level), true)),
            Compression::Lz4 => Compressor::Lz4(Vec::new()),
            Compression::Xz => {
                let mut options = LzmaOptions::new_preset(6).map_err(std::io::Error::other).context(context)?;
                // The kernel keeps no larger one.
                options.dict_size(block_size.max(8192));
                let mut filters = Filters::new();
                filters.lzma2(&options);
                Compressor::Xz(filters)
            }
            Compression::Zstd { level } => Compressor::Zstd(zstd::bulk::Compressor::new(level).context(context)?),
        })
    }

    /// `None` when the bytes do not become fewer.
    pub fn compress(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
        let context = "compressing";
        let packed = match self {
            Compressor::Gzip(deflate) => {
                deflate.reset();
                let mut out = Vec::with_capacity(bytes.len());
                let status = deflate.compress_vec(bytes, &mut out, FlushCompress::Finish);
                let ended = status.map_err(std::io::Error::other).context(context)? == Status::StreamEnd;
                ended.then_some(out)
            }
            Compressor::Lz4(out) => {
                out.resize(lz4_flex::block::get_maximum_output_size(bytes.len()), 0);
                let length = lz4_flex::block::compress_into(bytes, out);
                let length = length.map_err(std::io::Error::other).context(context)?;
                Some(out[..length].to_vec())
            }
            Compressor::Xz(filters) => {
                let stream = Stream::new_stream_encoder(filters, Check::Crc32);
                let mut stream = stream.map_err(std::io::Error::other).context(context)?;
                let mut out = Vec::with_capacity(bytes.len());
                let status = stream.process_vec(bytes, &mut out, Action::Finish);
                let status = status.map_err(std::io::Error::other).context(context)?;
                matches!(status, liblzma::stream::Status::StreamEnd).then_some(out)
            }
            Compressor::Zstd(zstd) => Some(zstd.compress(bytes).context(context)?),
        };
        Ok(packed.filter(|packed| packed.len() < bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_levels() {
        for name in Compression::NAMES {
            assert_eq!(Compression::named(name, None).unwrap().name(), name);
        }
        assert_eq!(Compression::named("zstd", Some(3)).unwrap(), Compression::Zstd { level: 3 });
        assert_eq!(Compression::default().options(), None);
        for (name, level, message) in [
            ("brotli", None, "unknown compression `brotli` of a squashfs"),
            ("gzip", Some(10), "gzip has no compression level 10"),
            ("zstd", Some(0), "zstd has no compression level 0"),
            ("xz", Some(6), "xz has no compression levels here"),
        ] {
            assert_eq!(Compression::named(name, level).unwrap_err().message(), message);
        }
    }

    #[test]
    fn what_does_not_shrink_is_left() {
        let noise: Vec<u8> = (0..40_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let noise: Vec<u8> =
            noise.chunks(64).flat_map(|chunk| crate::tree::Digest::of(chunk).as_bytes().to_vec()).collect();
        for name in Compression::NAMES {
            let mut compressor = Compressor::new(Compression::named(name, None).unwrap(), 1 << 17).unwrap();
            assert!(compressor.compress(&noise).unwrap().is_none(), "{name}");
            let one = compressor.compress(&[b'x'; 9000]).unwrap().unwrap();
            assert!(one.len() < 200, "{name}");
            assert_eq!(compressor.compress(&[b'x'; 9000]).unwrap().unwrap(), one, "{name}");
            assert!(compressor.compress(b"x").unwrap().is_none(), "{name}");
        }
    }
}
