//! The container of a binary package: an `ar` archive with a control and a data member (deb(5)).
//!
//! Owns: [`Deb`]. The control member is read into memory, the data member comes as a stream; both are bounded. What is
//! in them is up to [`super::tar`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use liblzma::stream::{IGNORE_CHECK, MtStreamBuilder, Stream};

use super::tar::{Archive, Kind};
use crate::error::{Context, Error, Result};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: u64 = 60;
/// Decompressed; the largest packages of the archive stay well below.
const DATA_BYTES: u64 = 8 << 30;
const CONTROL_BYTES: u64 = 64 << 20;
/// What xz may take to decompress: the strongest of its presets takes 65 MiB.
const XZ_MEMORY: u64 = 512 << 20;
/// From which size on the blocks of a compressed member are decompressed side by side: xz(1) makes blocks of 24 MiB when
/// it is allowed threads, and dpkg-deb allows it.
const XZ_SIDE_BY_SIDE: u64 = 4 << 20;
/// What blocks side by side may take; with less there are fewer threads.
const XZ_SIDE_BY_SIDE_MEMORY: u64 = 192 << 20;
/// More threads would not find the memory.
const XZ_THREADS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    offset: u64,
    size: u64,
    compression: Compression,
}

/// An opened package file.
#[derive(Debug)]
pub struct Deb {
    path: PathBuf,
    file: File,
    control: Member,
    data: Member,
}

/// One file of the control member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    pub bytes: Vec<u8>,
    pub mode: u16,
}

impl Deb {
    pub fn open(path: &Path) -> Result<Self> {
        let context = || format!("reading package {}", path.display());
        let file = File::open(path).with_context(context)?;
        let (control, data) = members(&file).with_context(context)?;
        Ok(Deb { path: path.to_path_buf(), file, control, data })
    }

    /// The files of the control member, by name.
    pub fn control(&self) -> Result<BTreeMap<String, ControlFile>> {
        let context = || format!("reading control member of {}", self.path.display());
        let mut archive = Archive::new(self.read(self.control, CONTROL_BYTES).with_context(context)?);
        let mut files = BTreeMap::new();
        while let Some(entry) = archive.next_entry().with_context(context)? {
            let Kind::File(_) = entry.kind else { continue };
            let name = entry.name.strip_prefix(b"./").unwrap_or(&entry.name);
            let name = std::str::from_utf8(name).ok().filter(|name| is_control_name(name));
            let name =
                name.ok_or_else(|| Error::build("a control file has an impossible name")).with_context(context)?;
            let mut bytes = Vec::new();
            archive.file().read_to_end(&mut bytes).with_context(context)?;
            files.insert(name.to_string(), ControlFile { bytes, mode: entry.mode });
        }
        archive.finish().with_context(context)?;
        Ok(files)
    }

    /// Bytes of the data member as it lies in the file.
    pub fn data_size(&self) -> u64 {
        self.data.size
    }

    /// The data member, decompressed, for [`super::tar::Archive`].
    pub fn data(&self) -> Result<impl Read + '_> {
        self.read(self.data, DATA_BYTES).with_context(|| format!("reading data member of {}", self.path.display()))
    }

    fn read(&self, member: Member, limit: u64) -> Result<Limited<'_>> {
        let raw = std::io::BufReader::with_capacity(1 << 18, Section { file: &self.file, member, position: 0 });
        let reader: Box<dyn Read + '_> = match member.compression {
            Compression::None => Box::new(raw),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
            Compression::Xz => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                let stream = xz(member.size, cores).map_err(std::io::Error::from).context("starting xz")?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(raw, stream))
            }
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(raw).context("starting zstd")?),
        };
        // Headers are read in small pieces.
        Ok(Limited { reader: std::io::BufReader::with_capacity(1 << 17, reader), limit, left: limit })
    }
}

/// A decompressor for a member of `size` bytes on a machine with so many cores.
fn xz(size: u64, cores: usize) -> std::result::Result<Stream, liblzma::stream::Error> {
    // The other half has other packages to decompress.
    let threads = cores / 2;
    if size < XZ_SIDE_BY_SIDE || threads < 2 {
        // All bytes of the file were compared with its digest, which says more than the sums inside.
        return Stream::new_stream_decoder(XZ_MEMORY, IGNORE_CHECK);
    }
    let mut builder = MtStreamBuilder::new();
    builder
        .threads(threads.min(XZ_THREADS) as u32)
        .memlimit_threading(XZ_SIDE_BY_SIDE_MEMORY)
        .memlimit_stop(XZ_MEMORY)
        .decoder()
}

/// A decompressor that gives an error beyond its limit.
struct Limited<'a> {
    reader: std::io::BufReader<Box<dyn Read + 'a>>,
    limit: u64,
    left: u64,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(std::io::Error::other(format!("more than {} MiB when decompressed", self.limit >> 20))),
        }
        Ok(read)
    }
}

/// A word of letters, digits and a few marks; it becomes part of a file name.
fn is_control_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+'))
}

struct Section<'a> {
    file: &'a File,
    member: Member,
    position: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = (self.member.size - self.position).min(buffer.len() as u64) as usize;
        let read = self.file.read_at(&mut buffer[..left], self.member.offset + self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

fn broken(what: impl Into<String>) -> Error {
    Error::build(format!("not a Debian package: {}", what.into()))
}

/// Finds control and data member. Members whose name starts with `_` are to be skipped (deb(5)).
fn members(file: &File) -> Result<(Member, Member)> {
    let length = file.metadata().context("looking at its size")?.len();
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, 0).map_err(|_| broken("too short"))?;
    if magic != MAGIC {
        return Err(broken("no `ar` archive"));
    }
    let (mut version, mut control, mut data) = (false, None, None);
    let mut at = MAGIC.len() as u64;
    while at < length && data.is_none() {
        let mut header = [0; HEADER as usize];
        file.read_exact_at(&mut header, at).map_err(|_| broken("a member header is cut off"))?;
        let (name, size) = member_header(&header)?;
        let offset = at + HEADER;
        let end = offset.checked_add(size).filter(|end| *end <= length).ok_or_else(|| broken("a member is cut off"))?;
        let member = |compression| Member { offset, size, compression };
        if name == "debian-binary" {
            version = read_version(file, offset, size)?;
        } else if let Some(suffix) = name.strip_prefix("control.tar").filter(|_| version && control.is_none()) {
            control = Some(member(compression(suffix)?));
        } else if let Some(suffix) = name.strip_prefix("data.tar").filter(|_| control.is_some()) {
            data = Some(member(compression(suffix)?));
        } else if !name.starts_with('_') {
            return Err(broken(format!("member `{name}` in an unexpected place")));
        }
        at = end + (end & 1);
    }
    control.zip(data).ok_or_else(|| broken("control or data member missing"))
}

fn member_header(header: &[u8; HEADER as usize]) -> Result<(String, u64)> {
    let wrong = || broken("a member header is damaged");
    if header[58..] != *b"`\n" {
        return Err(wrong());
    }
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).map(str::trim).map_err(|_| wrong());
    let name = text(0..16)?.trim_end_matches('/').to_string();
    let size = text(48..58)?.parse().map_err(|_| wrong())?;
    Ok((name, size))
}

fn read_version(file: &File, offset: u64, size: u64) -> Result<bool> {
    let mut text = vec![0; size.min(16) as usize];
    file.read_exact_at(&mut text, offset).map_err(|_| broken("too short"))?;
    if text.starts_with(b"2.") { Ok(true) } else { Err(broken("format version other than 2")) }
}

fn compression(suffix: &str) -> Result<Compression> {
    match suffix {
        "" => Ok(Compression::None),
        ".gz" => Ok(Compression::Gzip),
        ".xz" => Ok(Compression::Xz),
        ".zst" => Ok(Compression::Zstd),
        other => Err(broken(format!("compression `{other}` is not known"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use liblzma::stream::Check;

    use super::*;

    fn archive(members: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(MAGIC).unwrap();
        for (name, bytes) in members {
            writeln!(file, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100644, bytes.len()).unwrap();
            file.write_all(bytes).unwrap();
            if bytes.len() % 2 == 1 {
                file.write_all(b"\n").unwrap();
            }
        }
        file
    }

    #[test]
    fn every_compression_is_read() {
        let tar = vec![0; 1024];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&tar).unwrap();
        let xz = xz.finish().unwrap();
        let zstd = zstd::encode_all(&tar[..], 1).unwrap();
        for (suffix, bytes) in [("", &tar), (".gz", &gzip), (".xz", &xz), (".zst", &zstd)] {
            let (control, data) = (format!("control.tar{suffix}"), format!("data.tar{suffix}"));
            let file = archive(&[("debian-binary", b"2.0\n"), ("_new", b"x"), (&control, bytes), (&data, bytes)]);
            let deb = Deb::open(file.path()).unwrap();
            let mut data = Vec::new();
            deb.data().unwrap().read_to_end(&mut data).unwrap();
            assert_eq!(data, tar, "{suffix}");
            assert!(deb.control().unwrap().is_empty());
        }
    }

    /// As dpkg-deb has it made: several blocks with their sizes.
    #[test]
    fn blocks_are_decompressed_side_by_side() {
        let tar = crate::format::disk::testing::noise(8 << 20, 1);
        let threads = MtStreamBuilder::new().threads(2).preset(0).check(Check::Crc64).block_size(1 << 20).encoder();
        let mut xz = liblzma::write::XzEncoder::new_stream(Vec::new(), threads.unwrap());
        xz.write_all(&tar).unwrap();
        let mut xz = xz.finish().unwrap();
        assert!(xz.len() as u64 > XZ_SIDE_BY_SIDE);
        for cores in [1, 2, 4, 64] {
            let read = |xz: &[u8]| {
                let stream = super::xz(xz.len() as u64, cores).unwrap();
                let mut data = Vec::new();
                liblzma::bufread::XzDecoder::new_stream(xz, stream).read_to_end(&mut data).map(|_| data)
            };
            assert!(read(&xz).unwrap() == tar, "{cores} cores");
            assert!(read(&xz[..xz.len() / 2]).is_err(), "{cores} cores");
        }
        let middle = xz.len() / 2;
        xz[middle] ^= 0x55;
        let mut stream = liblzma::bufread::XzDecoder::new_stream(&xz[..], super::xz(xz.len() as u64, 4).unwrap());
        assert!(stream.read_to_end(&mut Vec::new()).is_err());
    }

    /// A dictionary that nobody makes: the header of the first block says 3 GiB (xz file format, 3.1 and 5.3.1).
    #[test]
    fn xz_does_not_take_all_memory() {
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&[0; 1024]).unwrap();
        let mut xz = xz.finish().unwrap();
        let header = 12..12 + (usize::from(xz[12]) + 1) * 4;
        assert_eq!(xz[14..16], [0x21, 1], "LZMA2, with one byte of properties");
        xz[16] = 39;
        let sum = crc32fast::hash(&xz[header.start..header.end - 4]);
        xz[header.end - 4..header.end].copy_from_slice(&sum.to_le_bytes());
        for (size, cores) in [(xz.len() as u64, 2), (XZ_SIDE_BY_SIDE, 64)] {
            let stream = super::xz(size, cores).unwrap();
            let mut reader = liblzma::bufread::XzDecoder::new_stream(&xz[..], stream);
            let error = reader.read_to_end(&mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains("memory"), "{error}");
        }
    }

    #[test]
    fn damaged_containers_are_errors() {
        let fails = |members: &[(&str, &[u8])]| Deb::open(archive(members).path()).unwrap_err().to_string();
        assert!(fails(&[("debian-binary", b"3.0\n")]).contains("version"));
        assert!(fails(&[("debian-binary", b"2.0\n"), ("data.tar", b"")]).contains("unexpected place"));
        assert!(fails(&[("debian-binary", b"2.0\n"), ("control.tar.lz", b"")]).contains("compression"));
        assert!(fails(&[("debian-binary", b"2.0\n"), ("control.tar", b"")]).contains("missing"));
        let cut = archive(&[("debian-binary", b"2.0\n"), ("control.tar", &[0; 100])]);
        cut.as_file().set_len(150).unwrap();
        assert!(Deb::open(cut.path()).unwrap_err().to_string().contains("cut off"));
        let bad = archive(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"junk"), ("data.tar.gz", b"junk")]);
        let deb = Deb::open(bad.path()).unwrap();
        assert!(deb.control().is_err());
        assert!(deb.data().unwrap().read_to_end(&mut Vec::new()).is_err());
    }
}
