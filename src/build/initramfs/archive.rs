//! The initramfs as a file: archives end to end, the main one compressed.
//!
//! Owns: [`Packer`], which compresses the main archive with zstd where the target is configured for it but has no such
//! program, so that mkinitramfs falls back to gzip: the same archive, in a sixth of the time. Whether it comes from
//! mkinitramfs uncompressed ([`Packer::pack`]) or as gzip ([`Packer::repack`]), the result is the same. Sources:
//! Documentation/driver-api/early-userspace/buffer-format.rst of Linux, cpio(5) "New ASCII Format", RFC 1952, RFC 8878.

use std::io::{BufRead, Read, Write};

use crate::error::{Context, Error, Result};

/// What mkinitramfs says in every release when it falls back.
const MISSING: &str = "W: No zstd in ";
/// RFC 1952: magic and method.
const GZIP: [u8; 3] = [0x1F, 0x8B, 8];
/// RFC 8878.
pub(super) const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// cpio(5), "New ASCII Format", with and without checksums.
const CPIO: [&[u8; 6]; 2] = [b"070701", b"070702"];
const CPIO_HEADER: usize = 110;
/// zstd's own default, as for everything else that is compressed here.
const LEVEL: i32 = 3;
/// The compressor gets the archive in pieces of this size, wherever it comes from.
const CHUNK: usize = 1 << 20;
/// No initramfs is larger, unpacked.
const LIMIT: u64 = 2 << 30;

/// Whether a line of mkinitramfs says that zstd is asked for, but missing.
pub(super) fn says_missing(line: &str) -> bool {
    line.starts_with(MISSING) && line.ends_with(", using gzip")
}

/// Whether a kernel with this configuration reads an initramfs that is compressed with zstd.
pub(super) fn kernel_reads_zstd(config: &str) -> bool {
    config.lines().any(|line| line == "CONFIG_RD_ZSTD=y")
}

/// Compresses; how many threads there are does not change what comes out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packer {
    pub threads: u32,
}

impl Packer {
    pub(super) fn new() -> Self {
        Packer { threads: std::thread::available_parallelism().map_or(1, usize::from) as u32 }
    }

    /// Compresses what is written.
    pub(super) fn encoder(self) -> Result<zstd::Encoder<'static, Vec<u8>>> {
        let context = "compressing the initramfs";
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL).context(context)?;
        encoder.include_checksum(true).context(context)?;
        encoder.multithread(self.threads.max(1)).context(context)?;
        Ok(encoder)
    }

    /// One archive, compressed.
    pub(super) fn pack(self, archive: impl Read) -> Result<Vec<u8>> {
        let context = "compressing the initramfs";
        let mut encoder = self.encoder()?;
        let mut archive = archive.take(LIMIT + 1);
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut size = 0;
        loop {
            chunk.clear();
            (&mut archive).take(CHUNK as u64).read_to_end(&mut chunk).context(context)?;
            size += chunk.len() as u64;
            if size > LIMIT {
                return Err(Error::build("the initramfs is larger than 2 GiB")).context(context);
            }
            if chunk.is_empty() {
                return encoder.finish().context(context);
            }
            encoder.write_all(&chunk).context(context)?;
        }
    }

    /// An initramfs whose main archive is compressed with gzip, with zstd in its place; nothing if it is not of that form.
    pub(super) fn repack(self, initramfs: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(at) = main_archive(initramfs) else { return Ok(None) };
        let (early, mut rest) = initramfs.split_at(at);
        // Exactly one member: what follows it was appended by a hook.
        let packed = self.pack(flate2::bufread::GzDecoder::new(&mut rest))?;
        Ok(Some([early, &packed, rest.fill_buf().unwrap_or_default()].concat()))
    }
}

/// Where the first compressed archive begins, if it is gzip: after uncompressed ones, with zeros between them.
fn main_archive(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        match rest.first()? {
            0 => at += rest.iter().take_while(|byte| **byte == 0).count(),
            _ if rest.starts_with(&GZIP) => return Some(at),
            _ => at += archive_size(rest)?,
        }
    }
}

/// The size of an uncompressed archive with its trailer; nothing if it is damaged.
fn archive_size(bytes: &[u8]) -> Option<usize> {
    let mut at: usize = 0;
    loop {
        let header = bytes.get(at..at.checked_add(CPIO_HEADER)?)?;
        if !CPIO.iter().any(|magic| header.starts_with(*magic)) {
            return None;
        }
        let field = |index: usize| {
            let digits = std::str::from_utf8(&header[6 + index * 8..14 + index * 8]).ok()?;
            usize::from_str_radix(digits, 16).ok()
        };
        let (size, name_size) = (field(6)?, field(11)?);
        let name = bytes.get(at + CPIO_HEADER..(at + CPIO_HEADER).checked_add(name_size)?)?;
        let content = (at + CPIO_HEADER + name_size).next_multiple_of(4);
        at = content.checked_add(size)?.checked_next_multiple_of(4)?;
        if name == b"TRAILER!!!\0" {
            return Some(at.min(bytes.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpio(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, content) in files.iter().chain(&[("TRAILER!!!", &b""[..])]) {
            let fields = [1, 0o100644, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
            out.extend_from_slice(b"070701");
            fields.iter().for_each(|field| out.extend(format!("{field:08x}").bytes()));
            for bytes in [[name.as_bytes(), b"\0"].concat(), content.to_vec()] {
                out.extend(bytes);
                out.resize(out.len().next_multiple_of(4), 0);
            }
        }
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A few MiB that compress by half, so that several threads have work.
    fn noise() -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 28) as u8
        };
        (0..5 << 20).map(|_| next()).collect()
    }

    #[test]
    fn both_ways_and_any_number_of_threads_give_the_same_bytes() {
        let main = cpio(&[("init", b"#!/bin/sh\n"), ("noise", &noise())]);
        let packed = Packer { threads: 1 }.pack(main.as_slice()).unwrap();
        assert_eq!(zstd::decode_all(packed.as_slice()).unwrap(), main);
        let mut encoder = Packer { threads: 2 }.encoder().unwrap();
        main.chunks(1234).for_each(|chunk| encoder.write_all(chunk).unwrap());
        assert_eq!(encoder.finish().unwrap(), packed);
        let early = cpio(&[("kernel/x86/microcode", b"12345")]);
        let (overlay, gzipped) = (b"\x1f\x8b\x08appended by a hook".as_slice(), gzip(&main));
        for threads in [2, 3, 7] {
            assert_eq!(Packer { threads }.pack(main.as_slice()).unwrap(), packed);
            for before in [&b""[..], &early] {
                let whole = [before, &gzipped, overlay].concat();
                let repacked = Packer { threads }.repack(&whole).unwrap().unwrap();
                assert!(repacked == [before, &packed, overlay].concat(), "{threads} threads");
            }
        }
    }

    #[test]
    fn what_is_not_gzip_stays() {
        let main = cpio(&[("init", b"x")]);
        for other in
            [&b""[..], b"\0\0", b"nonsense", &main, &main[..40], &[main.as_slice(), b"\x28\xb5\x2f\xfd"].concat()]
        {
            assert_eq!(Packer { threads: 1 }.repack(other).unwrap(), None);
        }
        let cut = gzip(&main);
        assert!(Packer { threads: 1 }.repack(&cut[..cut.len() - 9]).is_err());
    }

    #[test]
    fn only_the_fallback_from_zstd_counts() {
        assert!(says_missing("W: No zstd in /usr/bin:/sbin:/bin, using gzip"));
        assert!(!says_missing("W: No lz4 in /usr/bin:/sbin:/bin, using gzip"));
        assert!(kernel_reads_zstd("CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n"));
        assert!(!kernel_reads_zstd("# CONFIG_RD_ZSTD is not set\nCONFIG_RD_ZSTD=m\n"));
    }
}
