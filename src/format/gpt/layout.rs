//! From a list of partitions to the bytes of the tables; pure.

use uuid::Uuid;

use super::format::{
    BOOT_CODE_SIZE, ENTRIES_SECTORS, ENTRY_COUNT, ENTRY_SIZE, Header, NAME_UNITS, SECTOR, encode_entry,
    encode_protective_mbr,
};
use crate::error::{Error, Result};
use crate::format::disk::Extent;

/// The first sector behind MBR, header and entries.
pub const FIRST_USABLE: u64 = 2 + ENTRIES_SECTORS;

/// The last sector before the backup entries and header of a disk of that many sectors.
pub fn last_usable(sectors: u64) -> u64 {
    sectors.saturating_sub(ENTRIES_SECTORS + 2)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub type_guid: Uuid,
    pub guid: Uuid,
    pub first_lba: u64,
    /// Inclusive.
    pub last_lba: u64,
    pub attributes: u64,
    /// At most 36 UTF-16 units.
    pub name: String,
}

/// What a disk shall look like.
#[derive(Debug, Clone)]
pub struct Table {
    /// In bytes; a multiple of the sector size.
    pub disk_size: u64,
    pub disk_guid: Uuid,
    /// Numbered in this order, from 1.
    pub partitions: Vec<Partition>,
    /// Code for the first sector (GRUB's boot.img), at most 440 bytes.
    pub boot_code: Vec<u8>,
}

/// The bytes of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// Protective MBR, header and entries, from the start of the disk.
    pub primary: Vec<u8>,
    /// Entries and header at the end of the disk.
    pub backup: Vec<u8>,
    /// In bytes.
    pub backup_offset: u64,
}

impl Tables {
    pub fn extents(self) -> [Extent; 2] {
        [Extent::bytes(0, self.primary), Extent::bytes(self.backup_offset, self.backup)]
    }
}

impl Table {
    /// Lays out both copies, after checking that the partitions can be on the disk.
    pub fn layout(&self) -> Result<Tables> {
        let sectors = self.sectors()?;
        self.check(sectors)?;
        let entries = self.entries()?;
        let entries_crc = crc32fast::hash(&entries);
        let header = |my_lba, alternate_lba, entries_lba| {
            let (first_usable, last_usable) = (FIRST_USABLE, last_usable(sectors));
            let disk_guid = self.disk_guid;
            Header { my_lba, alternate_lba, first_usable, last_usable, disk_guid, entries_lba, entries_crc }.encode()
        };
        let backup_entries = last_usable(sectors) + 1;
        let mut primary = encode_protective_mbr(sectors, &self.boot_code).to_vec();
        primary.extend(header(1, sectors - 1, 2));
        primary.extend(&entries);
        let mut backup = entries;
        backup.extend(header(sectors - 1, 1, backup_entries));
        Ok(Tables { primary, backup, backup_offset: backup_entries * SECTOR })
    }

    fn sectors(&self) -> Result<u64> {
        let sectors = self.disk_size / SECTOR;
        if self.disk_size % SECTOR != 0 || sectors <= FIRST_USABLE + ENTRIES_SECTORS + 1 {
            return Err(Error::build(format!("a disk of {} bytes cannot hold a partition table", self.disk_size)));
        }
        Ok(sectors)
    }

    fn check(&self, sectors: u64) -> Result<()> {
        if self.boot_code.len() > BOOT_CODE_SIZE {
            let size = self.boot_code.len();
            return Err(Error::build(format!("boot code of {size} bytes, room is for {BOOT_CODE_SIZE}")));
        }
        if self.partitions.len() > ENTRY_COUNT as usize {
            return Err(Error::build(format!("{} partitions, room is for {ENTRY_COUNT}", self.partitions.len())));
        }
        let mut sorted: Vec<(usize, &Partition)> = self.partitions.iter().enumerate().collect();
        sorted.sort_by_key(|(_, partition)| partition.first_lba);
        let mut free = FIRST_USABLE;
        let mut before = None;
        for (index, partition) in sorted {
            let number = index + 1;
            let (first, last) = (partition.first_lba, partition.last_lba);
            if last < first || first < FIRST_USABLE || last > last_usable(sectors) {
                return Err(Error::build(format!(
                    "partition {number} (sectors {first} to {last}) is not inside {FIRST_USABLE} to {}",
                    last_usable(sectors)
                )));
            }
            if let Some(other) = before.filter(|_| first < free) {
                return Err(Error::build(format!("partitions {other} and {number} overlap")));
            }
            (free, before) = (last + 1, Some(number));
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<u8>> {
        let mut entries = Vec::with_capacity(ENTRY_COUNT as usize * ENTRY_SIZE);
        for (index, partition) in self.partitions.iter().enumerate() {
            let name: Vec<u16> = partition.name.encode_utf16().collect();
            if name.len() > NAME_UNITS {
                let number = index + 1;
                return Err(Error::build(format!("the name of partition {number} is longer than {NAME_UNITS} units")));
            }
            entries.extend(encode_entry(partition, &name));
        }
        entries.resize(ENTRY_COUNT as usize * ENTRY_SIZE, 0);
        Ok(entries)
    }
}
