//! Reads GUID partition tables: UEFI specification 2.10, chapter 5.
//!
//! Owns: [`Gpt`]. Primary and backup table are both read; if only one of them is whole, it counts, and what is wrong
//! with the other is told. 512-byte sectors.

use uuid::Uuid;

use super::fields::Fields;
use super::source::{SharedSource, Source, Window};
use crate::error::{Error, Result};
use crate::format::gpt::SECTOR;

/// Entries of 128 bytes; more than the 128 that everybody makes are read, up to this.
const MAX_ENTRIES: u32 = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Counts from 1; the place in the table.
    pub number: u32,
    pub type_guid: Uuid,
    pub guid: Uuid,
    pub attributes: u64,
    pub name: String,
    /// In bytes from the start of the disk.
    pub start: u64,
    pub size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpt {
    pub disk_guid: Uuid,
    pub partitions: Vec<Partition>,
    /// What is wrong with the table that was not used, or with the protective MBR; empty for a sound disk.
    pub complaints: Vec<String>,
    /// Where the two tables lie: headers and entries, in bytes.
    pub places: [Place; 2],
}

/// Where a header and its entries lie, in bytes from the start of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub header: u64,
    pub entries: u64,
    pub entries_size: u64,
}

struct Half {
    disk_guid: Uuid,
    first_usable: u64,
    last_usable: u64,
    alternate: u64,
    entries: Vec<u8>,
    entry_size: usize,
    place: Place,
}

impl Gpt {
    /// Whether the disk says that it has such a table.
    pub fn probe(disk: &dyn Source) -> bool {
        disk.bytes(SECTOR, 8).is_ok_and(|magic| magic == b"EFI PART")
    }

    pub fn read(disk: &dyn Source) -> Result<Gpt> {
        let sectors = disk.size() / SECTOR;
        let mut complaints = Vec::new();
        if let Err(error) = protective_mbr(disk, sectors) {
            complaints.push(error.to_string());
        }
        let primary = half(disk, 1);
        let backup_at = primary.as_ref().map_or(sectors.saturating_sub(1), |primary| primary.alternate);
        let backup = half(disk, backup_at);
        let (used, other) = match (primary, backup) {
            (Ok(primary), Ok(backup)) => {
                if primary.entries != backup.entries || primary.disk_guid != backup.disk_guid {
                    complaints.push("primary and backup partition table differ".to_owned());
                }
                if backup_at != sectors - 1 {
                    complaints.push(format!("the backup partition table is not at the end of the disk ({backup_at})"));
                }
                let place = backup.place;
                (primary, Some(place))
            }
            (Ok(primary), Err(error)) => {
                complaints.push(format!("backup partition table: {error}"));
                (primary, None)
            }
            (Err(error), Ok(backup)) => {
                complaints.push(format!("primary partition table: {error}"));
                (backup, None)
            }
            (Err(error), Err(_)) => return Err(error),
        };
        let partitions = partitions(&used, disk.size())?;
        let places = [used.place, other.unwrap_or(used.place)];
        Ok(Gpt { disk_guid: used.disk_guid, partitions, complaints, places })
    }
}

impl Partition {
    pub fn end(&self) -> u64 {
        self.start + self.size
    }

    pub fn open(&self, disk: &SharedSource) -> Result<Window> {
        Window::new(disk.clone(), self.start, self.size)
    }
}

fn broken(what: &str) -> Error {
    Error::build(format!("the partition table is damaged: {what}"))
}

/// Section 5.2.3; or a hybrid one, whose protective record ends where its first other partition begins.
fn protective_mbr(disk: &dyn Source, sectors: u64) -> Result<()> {
    let mbr = disk.bytes(0, SECTOR as usize)?;
    if mbr[510..512] != [0x55, 0xAA] {
        return Err(broken("the protective MBR has no signature"));
    }
    let record = mbr[446..510].chunks_exact(16).find(|record| record[4] == 0xEE);
    let record = record.ok_or_else(|| broken("the MBR protects nothing"))?;
    let covered = u64::from(record.le32(12));
    let others = mbr[446..510].chunks_exact(16).filter(|record| ![0, 0xEE].contains(&record[4]));
    let end = others.map(|record| u64::from(record.le32(8))).min().unwrap_or(sectors);
    let wanted = end.clamp(1, sectors.max(1)).saturating_sub(1).min(u64::from(u32::MAX));
    if record.le32(8) != 1 || covered != wanted && covered != u64::from(u32::MAX) {
        return Err(broken("the MBR protects another size than that of the disk"));
    }
    Ok(())
}

/// Header and entries at a sector (sections 5.3.2 and 5.3.3).
fn half(disk: &dyn Source, lba: u64) -> Result<Half> {
    let at = lba.checked_mul(SECTOR).ok_or_else(|| broken("a header outside of the disk"))?;
    let header = disk.bytes(at, SECTOR as usize)?;
    let size = header.le32(12) as usize;
    if !header.starts_with(b"EFI PART") || !(92..=SECTOR as usize).contains(&size) {
        return Err(broken("there is no header"));
    }
    let mut blank = header[..size].to_vec();
    blank[16..20].fill(0);
    if crc32fast::hash(&blank) != header.le32(16) {
        return Err(broken("the checksum of the header does not fit"));
    }
    if header.le64(24) != lba {
        return Err(broken("the header is not where it says"));
    }
    let (count, entry_size) = (header.le32(80), header.le32(84));
    if count > MAX_ENTRIES || !(128..=1024).contains(&entry_size) || entry_size % 128 != 0 {
        return Err(broken("the number or size of the entries is impossible"));
    }
    let entries_at = header.le64(72).checked_mul(SECTOR).ok_or_else(|| broken("entries outside of the disk"))?;
    let entries = disk.bytes(entries_at, count as usize * entry_size as usize)?;
    if crc32fast::hash(&entries) != header.le32(88) {
        return Err(broken("the checksum of the entries does not fit"));
    }
    Ok(Half {
        disk_guid: Uuid::from_bytes_le(header.part(56)),
        first_usable: header.le64(40),
        last_usable: header.le64(48),
        alternate: header.le64(32),
        entry_size: entry_size as usize,
        place: Place { header: at, entries: entries_at, entries_size: entries.len() as u64 },
        entries,
    })
}

fn partitions(half: &Half, disk_size: u64) -> Result<Vec<Partition>> {
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(half.entries.chunks_exact(half.entry_size)) {
        let type_guid = Uuid::from_bytes_le(entry.part(0));
        if type_guid.is_nil() {
            continue;
        }
        let (first, last) = (entry.le64(32), entry.le64(40));
        let end = last.checked_add(1).and_then(|end| end.checked_mul(SECTOR)).filter(|end| *end <= disk_size);
        let inside = first >= half.first_usable && last <= half.last_usable && first <= last;
        let Some(end) = end.filter(|_| inside) else {
            return Err(broken(&format!("partition {number} is not inside the disk")));
        };
        let units: Vec<u16> = entry[56..128].chunks_exact(2).map(|unit| unit.le16(0)).collect();
        let name = units.split(|unit| *unit == 0).next().unwrap_or_default();
        let start = first * SECTOR;
        partitions.push(Partition {
            number,
            type_guid,
            guid: Uuid::from_bytes_le(entry.part(16)),
            attributes: entry.le64(48),
            name: String::from_utf16_lossy(name),
            start,
            size: end - start,
        });
    }
    let mut sorted: Vec<&Partition> = partitions.iter().collect();
    sorted.sort_by_key(|partition| partition.start);
    match sorted.windows(2).find(|pair| pair[0].end() > pair[1].start) {
        Some(pair) => Err(broken(&format!("partitions {} and {} overlap", pair[0].number, pair[1].number))),
        None => Ok(partitions),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::gpt as writer;
    use crate::inspect::source::MemorySource;

    fn disk() -> Vec<u8> {
        let partition = |number: u128, first_lba, last_lba| writer::Partition {
            type_guid: Uuid::from_u128(0xC12A_7328),
            guid: Uuid::from_u128(number),
            first_lba,
            last_lba,
            attributes: 4,
            name: format!("part {number} ä"),
        };
        let table = writer::Table {
            disk_size: 1 << 20,
            disk_guid: Uuid::from_u128(7),
            partitions: vec![partition(1, 100, 199), partition(2, 34, 99)],
            boot_code: vec![1; 440],
        };
        let tables = table.layout().unwrap();
        let mut bytes = vec![0; 1 << 20];
        bytes[..tables.primary.len()].copy_from_slice(&tables.primary);
        bytes[tables.backup_offset as usize..].copy_from_slice(&tables.backup);
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let source: SharedSource = Arc::new(MemorySource(disk()));
        let gpt = Gpt::read(&*source).unwrap();
        assert!(gpt.complaints.is_empty(), "{:?}", gpt.complaints);
        assert_eq!(gpt.disk_guid, Uuid::from_u128(7));
        assert_eq!(gpt.partitions.len(), 2);
        let first = &gpt.partitions[0];
        assert_eq!((first.number, first.start, first.size, first.attributes), (1, 51200, 51200, 4));
        assert_eq!((first.name.as_str(), first.guid), ("part 1 ä", Uuid::from_u128(1)));
        assert_eq!(first.open(&source).unwrap().size(), 51200);
    }

    #[test]
    fn one_table_is_enough_and_the_other_is_named() {
        let complaint = |at: usize| {
            let mut bytes = disk();
            bytes[at] ^= 1;
            let gpt = Gpt::read(&MemorySource(bytes)).unwrap();
            assert_eq!(gpt.partitions.len(), 2);
            gpt.complaints.join("; ")
        };
        assert!(complaint(512 + 60).contains("primary partition table: the partition table is damaged: the checksum"));
        assert!(complaint(1024 + 5).contains("checksum of the entries"));
        let end = 1 << 20;
        assert!(complaint(end - 512 + 60).contains("backup partition table"));
        assert!(complaint(510).contains("signature"));
        let mut both = disk();
        both[512 + 60] ^= 1;
        both[end - 512 + 60] ^= 1;
        assert!(Gpt::read(&MemorySource(both)).is_err());
        assert!(!Gpt::probe(&MemorySource(vec![0; 100])) && Gpt::read(&MemorySource(Vec::new())).is_err());
    }

    #[test]
    fn hostile_headers_do_no_harm() {
        let good = disk();
        let fix = |bytes: &mut [u8]| {
            // Both checksums made to fit again, so that the values themselves are looked at.
            let entries = crc32fast::hash(&bytes[1024..1024 + 16384]);
            bytes[512 + 88..512 + 92].copy_from_slice(&entries.to_le_bytes());
            bytes[512 + 16..512 + 20].fill(0);
            let header = crc32fast::hash(&bytes[512..512 + 92]);
            bytes[512 + 16..512 + 20].copy_from_slice(&header.to_le_bytes());
        };
        for at in (512 + 24..512 + 88).chain(1024 + 32..1024 + 48) {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut bytes = good.clone();
                bytes[at] = value;
                fix(&mut bytes);
                let _ = Gpt::read(&MemorySource(bytes));
            }
        }
        let mut overlap = good.clone();
        overlap[1024 + 32] = 50;
        fix(&mut overlap);
        let last = (1 << 20) - 512;
        overlap[last] = 0;
        assert!(Gpt::read(&MemorySource(overlap)).unwrap_err().to_string().contains("overlap"));
    }
}
