//! Reads qcow2 images: QEMU's docs/interop/qcow2.txt, versions 2 and 3.
//!
//! Owns: [`Qcow2`]. Plain, zero and compressed clusters (deflate and zstd); snapshots are not looked at. Refused:
//! backing files, external data files, encryption, extended L2 entries, images marked as corrupt.

use std::ops::Range;
use std::sync::Arc;

use super::cache::Cache;
use crate::error::{Context, Error, Result};
use crate::inspect::fields::Fields;
use crate::inspect::source::{SharedSource, Source, check};

const MAGIC: &[u8] = b"QFI\xfb";
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_EXTERNAL_DATA: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
/// The "dirty" bit says that reference counts may be wrong, which reading does not need.
const INCOMPATIBLE_DIRTY: u64 = 1;
const OFFSET_MASK: u64 = 0x00FF_FFFF_FFFF_FE00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;
/// As in QEMU (`QCOW_MAX_L1_SIZE`).
const MAX_L1_BYTES: u64 = 32 << 20;
const CACHE: usize = 64 << 20;

fn broken(what: &str) -> Error {
    Error::build(format!("the qcow2 image is damaged: {what}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Deflate,
    Zstd,
}

pub struct Qcow2 {
    file: SharedSource,
    size: u64,
    pub version: u32,
    pub cluster_bits: u32,
    pub packing: Packing,
    pub l1_offset: u64,
    l1: Vec<u64>,
    pub refcount_table: Range<u64>,
    tables: Cache,
    clusters: Cache,
}

/// What an L2 entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cluster {
    Zero,
    Plain(u64),
    Compressed { offset: u64, length: u64 },
}

impl Qcow2 {
    pub fn probe(file: &dyn Source) -> bool {
        file.bytes(0, 4).is_ok_and(|magic| magic == MAGIC)
    }

    pub fn open(file: SharedSource) -> Result<Qcow2> {
        let header = file.bytes(0, 72).map_err(|_| broken("there is no header"))?;
        if !header.starts_with(MAGIC) {
            return Err(broken("there is no header"));
        }
        let version = header.be32(4);
        // Zeros where an older or shorter header ends.
        let length = if version >= 3 { file.bytes(100, 4)?.be32(0) } else { 72 };
        let rest = if version >= 3 { file.bytes(72, 40).or_else(|_| file.bytes(72, 32))? } else { Vec::new() };
        let packing = refuse(&header, version, &rest, length)?;
        let cluster_bits = header.be32(20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(broken("the size of clusters is impossible"));
        }
        let (size, cluster) = (header.be64(24), 1u64 << cluster_bits);
        let covered = cluster * (cluster / 8);
        let (entries, l1_offset) = (u64::from(header.be32(36)), header.be64(40));
        if entries * 8 > MAX_L1_BYTES || entries < size.div_ceil(covered) {
            return Err(broken("the size of the first table does not fit that of the disk"));
        }
        let l1 = file.bytes(l1_offset, entries as usize * 8).context("reading the first table of a qcow2 image")?;
        let table = header.be64(48);
        let table_end = table.saturating_add(u64::from(header.be32(56)).saturating_mul(cluster));
        Ok(Qcow2 {
            file,
            size,
            version,
            cluster_bits,
            packing,
            l1_offset,
            l1: l1.chunks_exact(8).map(|entry| entry.be64(0)).collect(),
            refcount_table: table..table_end,
            tables: Cache::new(CACHE / 4),
            clusters: Cache::new(CACHE),
        })
    }

    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    pub fn l1(&self) -> &[u64] {
        &self.l1
    }

    /// Where the second table is that an entry of the first points to.
    pub fn l2_offset(entry: u64) -> u64 {
        entry & OFFSET_MASK
    }

    /// What is known about the cluster with that index.
    pub fn cluster(&self, index: u64) -> Result<Cluster> {
        let per_table = self.cluster_size() / 8;
        let entry = self.l1.get((index / per_table) as usize).copied().unwrap_or(0);
        let table = entry & OFFSET_MASK;
        if table == 0 {
            return Ok(Cluster::Zero);
        }
        if table % self.cluster_size() != 0 {
            return Err(broken("a second table is not aligned"));
        }
        let bytes = self.tables.get(table, || {
            self.file.bytes(table, self.cluster_size() as usize).map_err(|_| broken("a second table is outside"))
        })?;
        let entry = bytes.be64((index % per_table) as usize * 8);
        if entry & COMPRESSED != 0 {
            // "Compressed Cluster Descriptor".
            let bits = 62 - (self.cluster_bits - 8);
            let offset = entry & ((1 << bits) - 1);
            let sectors = (entry & (COMPRESSED - 1)) >> bits;
            return Ok(Cluster::Compressed { offset, length: (sectors + 1) * 512 - offset % 512 });
        }
        let offset = entry & OFFSET_MASK;
        if offset == 0 || self.version >= 3 && entry & ZERO != 0 {
            return Ok(Cluster::Zero);
        }
        if offset % self.cluster_size() != 0 {
            return Err(broken("a cluster is not aligned"));
        }
        Ok(Cluster::Plain(offset))
    }

    /// Whether any cluster is compressed.
    pub fn has_compressed(&self) -> Result<bool> {
        let mut at = 0;
        while let Some(range) = self.data_after(at)? {
            for index in range.start / self.cluster_size()..range.end.div_ceil(self.cluster_size()) {
                if matches!(self.cluster(index)?, Cluster::Compressed { .. }) {
                    return Ok(true);
                }
            }
            at = range.end;
        }
        Ok(false)
    }

    fn unpack(&self, index: u64, offset: u64, length: u64) -> Result<Vec<u8>> {
        // The last sector may be cut off by the end of the file.
        let length = length.min(self.file.size().saturating_sub(offset));
        let packed = self.file.bytes(offset, length as usize)?;
        let mut out = vec![0; self.cluster_size() as usize];
        let done = match self.packing {
            Packing::Deflate => inflate(&packed, &mut out),
            Packing::Zstd => unzstd(&packed, &mut out),
        };
        if done.is_none_or(|length| length != out.len()) {
            return Err(broken(&format!("cluster {index} cannot be decompressed")));
        }
        Ok(out)
    }
}

/// Refuses what cannot be read; tells how clusters are compressed.
fn refuse(header: &[u8], version: u32, rest: &[u8], length: u32) -> Result<Packing> {
    let unsupported = |what: &str| Err(Error::build(format!("the qcow2 image {what}, which is not read here")));
    if !(2..=3).contains(&version) {
        return unsupported(&format!("has version {version}"));
    }
    if header.be64(8) != 0 {
        return unsupported("has a backing file");
    }
    if header.be32(32) != 0 {
        return unsupported("is encrypted");
    }
    let features = rest.be64(0);
    if features & INCOMPATIBLE_CORRUPT != 0 {
        return Err(broken("it is marked as corrupt"));
    }
    if features & INCOMPATIBLE_EXTERNAL_DATA != 0 {
        return unsupported("keeps its data in another file");
    }
    if features & INCOMPATIBLE_EXTENDED_L2 != 0 {
        return unsupported("has extended L2 entries");
    }
    if features & !(INCOMPATIBLE_DIRTY | INCOMPATIBLE_COMPRESSION) != 0 {
        return unsupported("has unknown features");
    }
    match rest.u8_at(32) {
        0 => Ok(Packing::Deflate),
        1 if length > 104 && features & INCOMPATIBLE_COMPRESSION != 0 => Ok(Packing::Zstd),
        _ => unsupported("has an unknown compression"),
    }
}

fn inflate(packed: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut inflate = flate2::Decompress::new(false);
    inflate.decompress(packed, out, flate2::FlushDecompress::Finish).ok()?;
    Some(inflate.total_out() as usize)
}

/// One frame; what follows in the last sector belongs to somebody else.
fn unzstd(packed: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).ok()?.single_frame();
    let mut done = 0;
    while done < out.len() {
        match std::io::Read::read(&mut decoder, &mut out[done..]).ok()? {
            0 => break,
            length => done += length,
        }
    }
    Some(done)
}

impl Source for Qcow2 {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check(self.size, offset, buffer.len())?;
        super::by_unit(buffer, offset, self.cluster_size(), |index, within, target| match self.cluster(index)? {
            Cluster::Zero => {
                target.fill(0);
                Ok(())
            }
            // The last cluster of a file may be shorter than a cluster.
            Cluster::Plain(host) if host + within + target.len() as u64 > self.file.size() => {
                read_cut(&*self.file, target, host + within)
            }
            Cluster::Plain(host) => self.file.read_at(target, host + within),
            Cluster::Compressed { offset, length } => {
                let bytes: Arc<[u8]> = self.clusters.get(index, || self.unpack(index, offset, length))?;
                target.copy_from_slice(&bytes[within as usize..within as usize + target.len()]);
                Ok(())
            }
        })
    }

    fn data_after(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let size = self.cluster_size();
        let per_table = size / 8;
        super::next_data(offset, self.size, size, self.size.div_ceil(size), |index| {
            let entry = self.l1.get((index / per_table) as usize).copied().unwrap_or(0);
            if entry & OFFSET_MASK == 0 {
                return Ok(super::Piece::ZeroUntil((index / per_table + 1) * per_table));
            }
            Ok(match self.cluster(index)? {
                Cluster::Zero => super::Piece::ZeroUntil(index + 1),
                _ => super::Piece::Data,
            })
        })
    }
}

/// As much as there is, zeros behind.
fn read_cut(file: &dyn Source, target: &mut [u8], offset: u64) -> Result<()> {
    let there = file.size().saturating_sub(offset).min(target.len() as u64) as usize;
    if there == 0 {
        return Err(broken("a cluster lies behind the end of the file"));
    }
    file.read_at(&mut target[..there], offset)?;
    target[there..].fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::tests::{assert_same, disk};
    use super::*;
    use crate::format::disk::{DiskImage, Extent};
    use crate::format::qcow2 as writer;
    use crate::inspect::source::{FileSource, MemorySource};

    #[test]
    fn what_our_writer_wrote_is_read() {
        let disk = disk();
        for compression in [writer::Compression::Zstd, writer::Compression::Zlib, writer::Compression::None] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let options = writer::Options { compression, threads: None };
            writer::write(&disk, file.as_file(), &options, &|_| ()).unwrap();
            let source = Arc::new(FileSource::open(file.path()).unwrap());
            assert!(Qcow2::probe(&*source));
            assert_same(&disk, &Qcow2::open(source).unwrap());
        }
    }

    #[test]
    fn what_qemu_wrote_is_read_or_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let raw = scratch.path().join("raw");
        let disk = disk();
        crate::format::raw::write(&disk, &std::fs::File::create(&raw).unwrap(), &|_| ()).unwrap();
        let convert = |options: &[&str]| {
            let out = scratch.path().join("out");
            let _ = std::fs::remove_file(&out);
            let run = Command::new("qemu-img").args(options).arg(&raw).arg(&out).output();
            run.is_ok_and(|run| run.status.success()).then_some(out)
        };
        for options in
            ["compat=0.10", "compat=1.1,cluster_size=4k", "compat=1.1,cluster_size=2M", "compression_type=zstd"]
        {
            for compressed in [None, Some("-c")] {
                let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
                arguments.extend(compressed);
                let Some(out) = convert(&arguments) else {
                    println!("skipped: qemu-img cannot write with {options}");
                    continue;
                };
                let image = Qcow2::open(Arc::new(FileSource::open(&out).unwrap())).unwrap();
                let bytes = image.bytes(5 << 30, 300_000).unwrap();
                let mut wanted = vec![0; 300_000];
                disk.read_at(&mut wanted, 5 << 30).unwrap();
                assert!(bytes == wanted, "{options} {compressed:?}");
                assert!(image.bytes((6 << 30) - 3, 3).unwrap() == b"end");
            }
        }
        let overlay = scratch.path().join("overlay");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(&raw)
            .arg(&overlay)
            .output();
        if made.is_ok_and(|run| run.status.success()) {
            let error = Qcow2::open(Arc::new(FileSource::open(&overlay).unwrap())).err().unwrap();
            assert!(error.to_string().contains("backing file"), "{error}");
        }
    }

    #[test]
    fn hostile_images_do_no_harm() {
        let disk = DiskImage::new(1 << 20, vec![Extent::bytes(1000, vec![7; 300_000])]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        writer::write(&disk, file.as_file(), &writer::Options::default(), &|_| ()).unwrap();
        let good = std::fs::read(file.path()).unwrap();
        let mut failed = 0;
        let tables: Vec<usize> = (0..120).chain(65536..65544).chain(131_072..131_200).collect();
        for at in tables {
            for value in [0, 1, 0x40, 0x7F, 0xFF] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let read = Qcow2::open(Arc::new(MemorySource(bytes)));
                failed +=
                    usize::from(read.and_then(|image| image.bytes(0, 1 << 20).map(|_| image.data_after(0))).is_err());
            }
        }
        assert!(failed > 50, "{failed}");
        for length in [0, 3, 50, 100, 70_000, good.len() - 1] {
            let read = Qcow2::open(Arc::new(MemorySource(good[..length].to_vec())));
            let _ = read.and_then(|image| image.bytes(0, 1 << 20));
        }
    }
}
