//! Reads virtual hard disks: Microsoft's "Virtual Hard Disk Image Format Specification", version 1.0.
//!
//! Owns: [`Vhd`]. Fixed and dynamic; the size is the footer's "current size". Sectors of a block whose bit in the
//! bitmap is not set are read as they are (they hold zeros), as QEMU does. Refused: differencing disks.

use std::ops::Range;

use crate::error::{Context, Error, Result};
use crate::format::vhd::format::{DYNAMIC_HEADER, FOOTER, SECTOR, TYPE_DYNAMIC, TYPE_FIXED, UNUSED};
use crate::inspect::fields::Fields;
use crate::inspect::source::{SharedSource, Source, check};

const MAX_TABLE: u64 = 64 << 20;

fn broken(what: &str) -> Error {
    Error::build(format!("the VHD is damaged: {what}"))
}

pub struct Vhd {
    file: SharedSource,
    size: u64,
    /// `None` for a fixed disk.
    pub blocks: Option<Blocks>,
}

/// Where the blocks of a dynamic disk are.
pub struct Blocks {
    pub size: u64,
    pub table_offset: u64,
    /// Sectors of the bitmap in front of a block.
    pub bitmap: u64,
    pub table: Vec<u32>,
}

impl Blocks {
    /// Where the bytes of a block lie.
    pub fn offset(&self, index: u64) -> Option<u64> {
        let entry = self.table.get(index as usize).copied().unwrap_or(UNUSED);
        (entry != UNUSED).then(|| (u64::from(entry) + self.bitmap) * SECTOR)
    }
}

impl Vhd {
    /// The footer is at the end; dynamic disks start with a copy.
    pub fn probe(file: &dyn Source) -> bool {
        let end = file.size().saturating_sub(FOOTER as u64);
        [end, 0].iter().any(|at| file.bytes(*at, 8).is_ok_and(|cookie| cookie == b"conectix"))
    }

    pub fn open(file: SharedSource) -> Result<Vhd> {
        let end = file.size().checked_sub(FOOTER as u64).ok_or_else(|| broken("there is no footer"))?;
        let footer = match structure(&*file, end, FOOTER, b"conectix", 64) {
            Ok(footer) => footer,
            // What was cut off at the end may still be told by the copy.
            Err(error) => structure(&*file, 0, FOOTER, b"conectix", 64).map_err(|_| error)?,
        };
        let size = footer.be64(48);
        let blocks = match footer.be32(60) {
            TYPE_FIXED if size <= end => None,
            TYPE_FIXED => return Err(broken("the file is shorter than the disk")),
            TYPE_DYNAMIC => Some(blocks(&*file, footer.be64(16), size)?),
            _ => return Err(Error::build("the VHD needs a parent, which is not read here")),
        };
        Ok(Vhd { file, size, blocks })
    }
}

/// A structure with its cookie and its checksum: the one's complement of the sum of all bytes but its own.
fn structure(file: &dyn Source, at: u64, length: usize, cookie: &[u8], checksum: usize) -> Result<Vec<u8>> {
    let bytes = file.bytes(at, length)?;
    let own = &bytes[checksum..checksum + 4];
    let sum = |bytes: &[u8]| bytes.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    if !bytes.starts_with(cookie) || !sum(&bytes).wrapping_sub(sum(own)) != own.be32(0) {
        return Err(broken(&format!("the structure at {at} has no cookie or a wrong checksum")));
    }
    Ok(bytes)
}

fn blocks(file: &dyn Source, at: u64, disk: u64) -> Result<Blocks> {
    let header = structure(file, at, DYNAMIC_HEADER, b"cxsparse", 36)?;
    let (table_offset, entries, size) = (header.be64(16), u64::from(header.be32(28)), u64::from(header.be32(32)));
    if !size.is_power_of_two() || size < 4096 || entries < disk.div_ceil(size) || entries * 4 > MAX_TABLE {
        return Err(broken("the size of the blocks or of their table is impossible"));
    }
    let table = file.bytes(table_offset, entries as usize * 4).context("reading the block table of a VHD")?;
    let table = table.chunks_exact(4).map(|entry| entry.be32(0)).collect();
    Ok(Blocks { size, table_offset, bitmap: (size / SECTOR).div_ceil(8).div_ceil(SECTOR), table })
}

impl Source for Vhd {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check(self.size, offset, buffer.len())?;
        let Some(blocks) = &self.blocks else { return self.file.read_at(buffer, offset) };
        super::by_unit(buffer, offset, blocks.size, |index, within, target| match blocks.offset(index) {
            None => {
                target.fill(0);
                Ok(())
            }
            Some(host) => {
                check(self.file.size(), host + within, target.len()).map_err(|_| broken("a block is outside"))?;
                self.file.read_at(target, host + within)
            }
        })
    }

    fn data_after(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let Some(blocks) = &self.blocks else {
            let found = self.file.data_after(offset)?.filter(|range| range.start < self.size);
            return Ok(found.map(|range| range.start..range.end.min(self.size)));
        };
        super::next_data(offset, self.size, blocks.size, self.size.div_ceil(blocks.size), |index| {
            Ok(blocks.offset(index).map_or(super::Piece::ZeroUntil(index + 1), |_| super::Piece::Data))
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
    use crate::format::vhd as writer;
    use crate::inspect::source::{FileSource, MemorySource};

    fn made(disk: &DiskImage, subformat: writer::Subformat) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let options = writer::Options { subformat, uuid: Uuid::from_u128(7), seconds: 0 };
        writer::write(disk, file.as_file(), &options, &|_| ()).unwrap();
        file
    }

    #[test]
    fn what_our_writer_wrote_is_read() {
        let disk = disk();
        for subformat in [writer::Subformat::Fixed, writer::Subformat::Dynamic] {
            let file = made(&disk, subformat);
            let source = Arc::new(FileSource::open(file.path()).unwrap());
            assert!(Vhd::probe(&*source));
            assert_same(&disk, &Vhd::open(source).unwrap());
        }
    }

    #[test]
    fn what_qemu_wrote_is_read() {
        let scratch = tempfile::tempdir().unwrap();
        let (raw, out) = (scratch.path().join("raw"), scratch.path().join("out.vhd"));
        let disk = disk();
        crate::format::raw::write(&disk, &std::fs::File::create(&raw).unwrap(), &|_| ()).unwrap();
        for kind in ["dynamic", "fixed"] {
            let option = format!("subformat={kind},force_size=on");
            let run = Command::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", "vpc", "-o", &option])
                .arg(&raw)
                .arg(&out)
                .output();
            if !run.is_ok_and(|run| run.status.success()) {
                println!("skipped: qemu-img cannot write {kind}");
                continue;
            }
            assert_same(&disk, &Vhd::open(Arc::new(FileSource::open(&out).unwrap())).unwrap());
        }
    }

    #[test]
    fn hostile_images_do_no_harm() {
        let disk = DiskImage::new(8 << 20, vec![Extent::bytes(1000, vec![7; 300_000])]).unwrap();
        let good = std::fs::read(made(&disk, writer::Subformat::Dynamic).path()).unwrap();
        let mut failed = 0;
        for at in (0..1600).chain(good.len() - 512..good.len()) {
            for value in [0, 1, 0xFF] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let all = Vhd::open(Arc::new(MemorySource(bytes)));
                let all = all.and_then(|image| image.data_after(0).and_then(|_| image.bytes(0, 1 << 20)));
                failed += usize::from(all.is_err());
            }
        }
        assert!(failed > 50, "{failed}");
        for length in [0, 511, 513, 5000] {
            let _ = Vhd::open(Arc::new(MemorySource(good[..length].to_vec())));
        }
    }
}
