//! Reads VMware virtual disks: VMware's technical note "Virtual Disk Format 5.0", hosted sparse extents.
//!
//! Owns: [`Vmdk`]. `monolithicSparse` and `streamOptimized`, with the descriptor inside the file. Refused: disks that
//! are split over several files, ESXi's own kinds, snapshots.

use std::ops::Range;

use super::cache::Cache;
use crate::error::{Context, Error, Result};
use crate::format::vmdk::format::{
    COMPRESSION_DEFLATE, DIRECTORY_AT_END, FLAG_COMPRESSED, MAGIC, MARKER_FOOTER, SECTOR,
};
use crate::inspect::fields::Fields;
use crate::inspect::source::{SharedSource, Source, check};

/// `flags`: an entry of 1 in a grain table stands for a grain of zeros.
const FLAG_ZERO_GRAINS: u32 = 1 << 2;
/// `parentCID` of a disk without parent.
const NO_PARENT: &str = "ffffffff";
const MAX_DESCRIPTOR: u64 = 1 << 20;
const MAX_DIRECTORY: u64 = 64 << 20;
const MAX_GRAIN: u64 = 16 << 20;
const CACHE: usize = 64 << 20;

fn broken(what: &str) -> Error {
    Error::build(format!("the VMDK is damaged: {what}"))
}

pub struct Vmdk {
    file: SharedSource,
    size: u64,
    pub grain: u64,
    per_table: u64,
    pub compressed: bool,
    zero_grains: bool,
    /// `createType` of the descriptor.
    pub create_type: String,
    pub directory_offset: u64,
    directory: Vec<u32>,
    tables: Cache,
    grains: Cache,
}

impl Vmdk {
    pub fn probe(file: &dyn Source) -> bool {
        file.bytes(0, 4).is_ok_and(|magic| magic == MAGIC.to_le_bytes())
    }

    pub fn open(file: SharedSource) -> Result<Vmdk> {
        let mut header = file.bytes(0, SECTOR as usize).map_err(|_| broken("there is no header"))?;
        let descriptor = descriptor(&*file, &header)?;
        if header.le64(56) == DIRECTORY_AT_END {
            // "Stream-Optimized Compressed": marker, footer and end-of-stream are the last three sectors.
            let end = file.size().checked_sub(3 * SECTOR).ok_or_else(|| broken("there is no footer"))?;
            let tail = file.bytes(end, 2 * SECTOR as usize)?;
            if tail.le32(12) != MARKER_FOOTER {
                return Err(broken("there is no footer"));
            }
            header = tail[SECTOR as usize..].to_vec();
        }
        let (version, flags) = (header.le32(4), header.le32(8));
        if header.le32(0) != MAGIC || !(1..=3).contains(&version) {
            return Err(broken("the header is none"));
        }
        let compressed = flags & FLAG_COMPRESSED != 0;
        if compressed && header.le16(77) != COMPRESSION_DEFLATE {
            return Err(Error::build("the VMDK has an unknown compression"));
        }
        let bytes = |sectors: u64| sectors.checked_mul(SECTOR).ok_or_else(|| broken("a number is impossible"));
        let (size, grain) = (bytes(header.le64(12))?, bytes(header.le64(20))?);
        let per_table = u64::from(header.le32(44));
        if !grain.is_power_of_two() || !(4096..=MAX_GRAIN).contains(&grain) || !(1..=1 << 16).contains(&per_table) {
            return Err(broken("the size of grains or tables is impossible"));
        }
        let entries = size.div_ceil(grain * per_table);
        let directory_offset = bytes(header.le64(56))?;
        if entries * 4 > MAX_DIRECTORY {
            return Err(broken("the directory is too large"));
        }
        let directory =
            file.bytes(directory_offset, entries as usize * 4).context("reading the directory of a VMDK")?;
        Ok(Vmdk {
            file,
            size,
            grain,
            per_table,
            compressed,
            zero_grains: flags & FLAG_ZERO_GRAINS != 0,
            create_type: descriptor,
            directory_offset,
            directory: directory.chunks_exact(4).map(|entry| entry.le32(0)).collect(),
            tables: Cache::new(CACHE / 8),
            grains: Cache::new(CACHE),
        })
    }

    /// Where the table of some grains lies, in bytes; `None` when all of them are zero.
    pub fn table_offset(&self, index: u64) -> Option<u64> {
        let sector = self.directory.get((index / self.per_table) as usize).copied().unwrap_or(0);
        (sector != 0).then(|| u64::from(sector) * SECTOR)
    }

    pub fn table_size(&self) -> u64 {
        self.per_table * 4
    }

    /// Where a grain lies, in bytes.
    pub fn grain_offset(&self, index: u64) -> Result<Option<u64>> {
        let Some(table) = self.table_offset(index) else { return Ok(None) };
        let bytes = self.tables.get(table, || {
            self.file.bytes(table, self.table_size() as usize).map_err(|_| broken("a table is outside"))
        })?;
        match bytes.le32((index % self.per_table) as usize * 4) {
            0 => Ok(None),
            1 if self.zero_grains => Ok(None),
            sector => Ok(Some(u64::from(sector) * SECTOR)),
        }
    }

    /// "Grain marker": the first sector of the grain, the length of the stream, the stream.
    fn unpack(&self, index: u64, offset: u64) -> Result<Vec<u8>> {
        let marker = self.file.bytes(offset, 12)?;
        let length = u64::from(marker.le32(8));
        if marker.le64(0).checked_mul(SECTOR) != Some(index * self.grain) || length > 2 * self.grain + 1024 {
            return Err(broken(&format!("grain {index} has no marker")));
        }
        let packed = self.file.bytes(offset + 12, length as usize)?;
        let mut out = vec![0; self.grain as usize];
        let mut inflate = flate2::Decompress::new(true);
        // The last grain may end with the disk.
        let wanted = self.grain.min(self.size - index * self.grain);
        match inflate.decompress(&packed, &mut out, flate2::FlushDecompress::Finish) {
            Ok(_) if inflate.total_out() >= wanted => Ok(out),
            _ => Err(broken(&format!("grain {index} cannot be decompressed"))),
        }
    }
}

/// Checks the descriptor inside the file; gives `createType`.
fn descriptor(file: &dyn Source, header: &[u8]) -> Result<String> {
    let (sector, sectors) = (header.le64(28), header.le64(36));
    let unsupported = |what: &str| Error::build(format!("the VMDK {what}, which is not read here"));
    if sector == 0 || sectors == 0 {
        return Err(unsupported("keeps its descriptor in another file"));
    }
    let offset = sector.checked_mul(SECTOR).ok_or_else(|| broken("the descriptor is outside"))?;
    let length = sectors.saturating_mul(SECTOR).min(MAX_DESCRIPTOR);
    let bytes = file.bytes(offset, length as usize).context("reading the descriptor of a VMDK")?;
    let text = String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let value = |key: &str| {
        let line = text.lines().filter_map(|line| line.split_once('=')).find(|(name, _)| name.trim() == key);
        line.map(|(_, value)| value.trim().trim_matches('"').to_owned())
    };
    if value("parentCID").is_some_and(|parent| !parent.eq_ignore_ascii_case(NO_PARENT)) {
        return Err(unsupported("is a snapshot of another one"));
    }
    let kind = value("createType").ok_or_else(|| broken("the descriptor says no type"))?;
    if !["monolithicSparse", "streamOptimized"].contains(&kind.as_str()) {
        return Err(unsupported(&format!("is of the kind `{kind}`")));
    }
    Ok(kind)
}

impl Source for Vmdk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check(self.size, offset, buffer.len())?;
        super::by_unit(buffer, offset, self.grain, |index, within, target| match self.grain_offset(index)? {
            None => {
                target.fill(0);
                Ok(())
            }
            Some(host) if self.compressed => {
                let grain = self.grains.get(index, || self.unpack(index, host))?;
                target.copy_from_slice(&grain[within as usize..within as usize + target.len()]);
                Ok(())
            }
            Some(host) => {
                check(self.file.size(), host + within, target.len()).map_err(|_| broken("a grain is outside"))?;
                self.file.read_at(target, host + within)
            }
        })
    }

    fn data_after(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let grains = self.size.div_ceil(self.grain);
        super::next_data(offset, self.size, self.grain, grains, |index| match self.table_offset(index) {
            None => Ok(super::Piece::ZeroUntil((index / self.per_table + 1) * self.per_table)),
            Some(_) => Ok(self.grain_offset(index)?.map_or(super::Piece::ZeroUntil(index + 1), |_| super::Piece::Data)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use uuid::Uuid;

    use super::super::tests::{assert_same, disk};
    use super::*;
    use crate::format::disk::{DiskImage, Extent};
    use crate::format::vmdk as writer;
    use crate::inspect::source::{FileSource, MemorySource};

    fn made(disk: &DiskImage) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let options = writer::Options { uuid: Uuid::from_u128(7), threads: None };
        writer::write(disk, file.as_file(), &options, &|_| ()).unwrap();
        file
    }

    #[test]
    fn what_our_writer_wrote_is_read() {
        let disk = disk();
        let file = made(&disk);
        let source = Arc::new(FileSource::open(file.path()).unwrap());
        assert!(Vmdk::probe(&*source));
        let read = Vmdk::open(source).unwrap();
        assert_eq!(read.create_type, "streamOptimized");
        assert_same(&disk, &read);
    }

    #[test]
    fn what_qemu_wrote_is_read_or_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let (raw, out) = (scratch.path().join("raw"), scratch.path().join("out.vmdk"));
        let disk = disk();
        crate::format::raw::write(&disk, &std::fs::File::create(&raw).unwrap(), &|_| ()).unwrap();
        for (kind, readable) in [("monolithicSparse", true), ("streamOptimized", true), ("twoGbMaxExtentSparse", false)]
        {
            let option = format!("subformat={kind}");
            let run = Command::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", "vmdk", "-o", &option])
                .arg(&raw)
                .arg(&out)
                .output();
            if !run.is_ok_and(|run| run.status.success()) {
                println!("skipped: qemu-img cannot write {kind}");
                continue;
            }
            let source = Arc::new(FileSource::open(&out).unwrap());
            if readable {
                assert_same(&disk, &Vmdk::open(source).unwrap());
            } else {
                assert!(!Vmdk::probe(&*source));
            }
        }
    }

    #[test]
    fn hostile_images_do_no_harm() {
        let disk = DiskImage::new(1 << 20, vec![Extent::bytes(1000, vec![7; 300_000])]).unwrap();
        let good = std::fs::read(made(&disk).path()).unwrap();
        let mut failed = 0;
        for at in (0..100).chain(512..900).chain(65_536..good.len()).step_by(3) {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let read = Vmdk::open(Arc::new(MemorySource(bytes)));
                let all = read.and_then(|image| image.data_after(0).and_then(|_| image.bytes(0, 1 << 20)));
                failed += usize::from(all.is_err());
            }
        }
        assert!(failed > 50, "{failed}");
    }
}
