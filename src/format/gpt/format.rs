//! On-disk structures of a GPT: UEFI 2.10 sections 5.2.3 (protective MBR), 5.3.2 (header), 5.3.3 (entries).

use uuid::Uuid;

pub const SECTOR: u64 = 512;
/// As every tool makes them; the least that section 5.3.1 allows (16,384 bytes).
pub const ENTRY_COUNT: u32 = 128;
pub const ENTRY_SIZE: usize = 128;
pub const ENTRIES_SECTORS: u64 = ENTRY_COUNT as u64 * ENTRY_SIZE as u64 / SECTOR;

/// Room for code in the first sector, up to the disk signature (table 5.1).
pub const BOOT_CODE_SIZE: usize = 440;
/// UTF-16 code units of a partition name (table 5.6).
pub const NAME_UNITS: usize = 36;

const HEADER_SIZE: u32 = 92;
const REVISION: u32 = 0x0001_0000;

/// Table 5.5.
pub struct Header {
    pub my_lba: u64,
    pub alternate_lba: u64,
    pub first_usable: u64,
    pub last_usable: u64,
    pub disk_guid: Uuid,
    pub entries_lba: u64,
    pub entries_crc: u32,
}

impl Header {
    /// One sector.
    pub fn encode(&self) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        sector[0..8].copy_from_slice(b"EFI PART");
        sector[8..12].copy_from_slice(&REVISION.to_le_bytes());
        sector[12..16].copy_from_slice(&HEADER_SIZE.to_le_bytes());
        sector[24..32].copy_from_slice(&self.my_lba.to_le_bytes());
        sector[32..40].copy_from_slice(&self.alternate_lba.to_le_bytes());
        sector[40..48].copy_from_slice(&self.first_usable.to_le_bytes());
        sector[48..56].copy_from_slice(&self.last_usable.to_le_bytes());
        sector[56..72].copy_from_slice(&self.disk_guid.to_bytes_le());
        sector[72..80].copy_from_slice(&self.entries_lba.to_le_bytes());
        sector[80..84].copy_from_slice(&ENTRY_COUNT.to_le_bytes());
        sector[84..88].copy_from_slice(&(ENTRY_SIZE as u32).to_le_bytes());
        sector[88..92].copy_from_slice(&self.entries_crc.to_le_bytes());
        // Computed with its own field zero.
        let crc = crc32fast::hash(&sector[..HEADER_SIZE as usize]);
        sector[16..20].copy_from_slice(&crc.to_le_bytes());
        sector
    }
}

/// Table 5.6. The name has at most [`NAME_UNITS`] units.
pub fn encode_entry(partition: &super::Partition, name: &[u16]) -> [u8; ENTRY_SIZE] {
    let mut entry = [0; ENTRY_SIZE];
    entry[0..16].copy_from_slice(&partition.type_guid.to_bytes_le());
    entry[16..32].copy_from_slice(&partition.guid.to_bytes_le());
    entry[32..40].copy_from_slice(&partition.first_lba.to_le_bytes());
    entry[40..48].copy_from_slice(&partition.last_lba.to_le_bytes());
    entry[48..56].copy_from_slice(&partition.attributes.to_le_bytes());
    for (slot, unit) in entry[56..].chunks_exact_mut(2).zip(name) {
        slot.copy_from_slice(&unit.to_le_bytes());
    }
    entry
}

/// Section 5.2.3: one partition of type 0xEE over the whole disk.
pub fn encode_protective_mbr(sectors: u64, boot_code: &[u8]) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    sector[..boot_code.len()].copy_from_slice(boot_code);
    let record = &mut sector[446..462];
    // Cylinder, head, sector of sector 1; then "not representable", which also every disk beyond 8 GB needs.
    record[1..4].copy_from_slice(&[0x00, 0x02, 0x00]);
    record[4] = 0xEE;
    record[5..8].copy_from_slice(&[0xFF, 0xFF, 0xFF]);
    record[8..12].copy_from_slice(&1u32.to_le_bytes());
    record[12..16].copy_from_slice(&u32::try_from(sectors - 1).unwrap_or(u32::MAX).to_le_bytes());
    sector[510..512].copy_from_slice(&[0x55, 0xAA]);
    sector
}
