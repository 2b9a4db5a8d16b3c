//! On-disk structures of FAT16 and FAT32; section names are those of Microsoft's specification.

use crate::tree::Mtime;

pub const SECTOR: u64 = 512;
pub const ENTRY: usize = 32;
/// Characters of a long name in one entry.
pub const LONG_UNITS: usize = 13;
/// The cluster counts that separate the types ("FAT Type Determination").
pub const FAT16_MIN_CLUSTERS: u64 = 4085;
pub const FAT32_MIN_CLUSTERS: u64 = 65525;
/// "Long Name Limits": a folder is at most 2 MiB.
pub const MAX_ENTRIES: usize = 65536;

pub const ATTRIBUTE_VOLUME: u8 = 0x08;
pub const ATTRIBUTE_DIRECTORY: u8 = 0x10;
pub const ATTRIBUTE_ARCHIVE: u8 = 0x20;
const ATTRIBUTE_LONG: u8 = 0x0F;

const MEDIA: u8 = 0xF8;
pub const FSINFO_SECTOR: u64 = 1;
pub const BACKUP_SECTOR: u64 = 6;
const SIGNATURE: [u8; 2] = [0x55, 0xAA];

/// "Boot Sector and BPB".
pub struct BootSector {
    pub fat32: bool,
    pub sectors_per_cluster: u8,
    pub reserved_sectors: u16,
    pub root_entries: u16,
    pub sectors: u32,
    pub fat_sectors: u32,
    pub hidden_sectors: u32,
    pub volume_id: u32,
    pub label: [u8; 11],
}

impl BootSector {
    pub fn encode(&self) -> [u8; SECTOR as usize] {
        let mut out = [0; SECTOR as usize];
        out[3..11].copy_from_slice(b"MSWIN4.1");
        out[11..13].copy_from_slice(&(SECTOR as u16).to_le_bytes());
        out[13] = self.sectors_per_cluster;
        out[14..16].copy_from_slice(&self.reserved_sectors.to_le_bytes());
        out[16] = 2;
        out[17..19].copy_from_slice(&self.root_entries.to_le_bytes());
        match u16::try_from(self.sectors) {
            Ok(sectors) if !self.fat32 => out[19..21].copy_from_slice(&sectors.to_le_bytes()),
            _ => out[32..36].copy_from_slice(&self.sectors.to_le_bytes()),
        }
        out[21] = MEDIA;
        // Sectors per track and heads, as for any large disk.
        out[24..26].copy_from_slice(&63u16.to_le_bytes());
        out[26..28].copy_from_slice(&255u16.to_le_bytes());
        out[28..32].copy_from_slice(&self.hidden_sectors.to_le_bytes());
        let extended = if self.fat32 {
            out[36..40].copy_from_slice(&self.fat_sectors.to_le_bytes());
            out[44..48].copy_from_slice(&ROOT_CLUSTER.to_le_bytes());
            out[48..50].copy_from_slice(&(FSINFO_SECTOR as u16).to_le_bytes());
            out[50..52].copy_from_slice(&(BACKUP_SECTOR as u16).to_le_bytes());
            64
        } else {
            out[22..24].copy_from_slice(&(self.fat_sectors as u16).to_le_bytes());
            36
        };
        out[extended] = 0x80;
        out[extended + 2] = 0x29;
        out[extended + 3..extended + 7].copy_from_slice(&self.volume_id.to_le_bytes());
        out[extended + 7..extended + 18].copy_from_slice(&self.label);
        out[extended + 18..extended + 26].copy_from_slice(if self.fat32 { b"FAT32   " } else { b"FAT16   " });
        // Jump over the table to: int 18h (no system here, try the next device), halt.
        let code = extended + 26;
        out[0..3].copy_from_slice(&[0xEB, code as u8 - 2, 0x90]);
        out[code..code + 5].copy_from_slice(&[0xCD, 0x18, 0xF4, 0xEB, 0xFD]);
        out[510..512].copy_from_slice(&SIGNATURE);
        out
    }
}

/// The first cluster of the data area.
pub const ROOT_CLUSTER: u32 = 2;

/// "FAT32 FSInfo Sector Structure".
pub fn encode_fsinfo(free_clusters: u32, next_free: u32) -> [u8; SECTOR as usize] {
    let mut out = [0; SECTOR as usize];
    out[0..4].copy_from_slice(b"RRaA");
    out[484..488].copy_from_slice(b"rrAa");
    out[488..492].copy_from_slice(&free_clusters.to_le_bytes());
    out[492..496].copy_from_slice(&next_free.to_le_bytes());
    out[510..512].copy_from_slice(&SIGNATURE);
    out
}

/// The two entries of the FAT that stand for no cluster: media byte, and "clean, no errors" with end of chain.
pub fn reserved_entries(fat32: bool) -> Vec<u8> {
    if fat32 {
        [0x0FFF_FFF8u32, 0x0FFF_FFFF].iter().flat_map(|entry| entry.to_le_bytes()).collect()
    } else {
        [0xFFF8u16, 0xFFFF].iter().flat_map(|entry| entry.to_le_bytes()).collect()
    }
}

/// One entry of the FAT: the next cluster, or the end of the chain.
pub fn push_fat_entry(out: &mut Vec<u8>, fat32: bool, next: Option<u32>) {
    if fat32 {
        out.extend(next.unwrap_or(0x0FFF_FFFF).to_le_bytes());
    } else {
        out.extend((next.unwrap_or(0xFFFF) as u16).to_le_bytes());
    }
}

/// "FAT Directory Structure".
pub struct ShortEntry {
    pub name: [u8; 11],
    pub attributes: u8,
    pub time: Timestamp,
    pub cluster: u32,
    pub size: u32,
}

impl ShortEntry {
    pub fn encode(&self) -> [u8; ENTRY] {
        let mut out = [0; ENTRY];
        out[0..11].copy_from_slice(&self.name);
        out[11] = self.attributes;
        out[14..16].copy_from_slice(&self.time.time.to_le_bytes());
        out[16..18].copy_from_slice(&self.time.date.to_le_bytes());
        out[18..20].copy_from_slice(&self.time.date.to_le_bytes());
        out[20..22].copy_from_slice(&((self.cluster >> 16) as u16).to_le_bytes());
        out[22..24].copy_from_slice(&self.time.time.to_le_bytes());
        out[24..26].copy_from_slice(&self.time.date.to_le_bytes());
        out[26..28].copy_from_slice(&(self.cluster as u16).to_le_bytes());
        out[28..32].copy_from_slice(&self.size.to_le_bytes());
        out
    }
}

/// "FAT Long Directory Entries": the entries before the short one, last part first.
pub fn encode_long(units: &[u16], short: &[u8; 11]) -> Vec<u8> {
    let checksum = short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut out = Vec::new();
    for (index, part) in units.chunks(LONG_UNITS).enumerate().rev() {
        let last = (index + 1) * LONG_UNITS >= units.len();
        let mut entry = [0; ENTRY];
        entry[0] = (index as u8 + 1) | if last { 0x40 } else { 0 };
        entry[11] = ATTRIBUTE_LONG;
        entry[13] = checksum;
        // A zero ends the name, 0xFFFF fills up.
        let padded = part.iter().copied().chain([0]).chain(std::iter::repeat(0xFFFF));
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        for (place, unit) in places.zip(padded) {
            entry[place..place + 2].copy_from_slice(&unit.to_le_bytes());
        }
        out.extend(entry);
    }
    out
}

/// "Date and Time Formats": two-second steps from 1980 to 2107.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    pub date: u16,
    pub time: u16,
}

impl Timestamp {
    /// In UTC; what FAT cannot express becomes the nearest that it can.
    pub fn new(at: Mtime) -> Timestamp {
        const FIRST: i64 = 315_532_800; // 1980-01-01
        const LAST: i64 = 4_354_819_198; // 2107-12-31 23:59:58
        let seconds = at.seconds.clamp(FIRST, LAST);
        let (day, second) = (seconds / 86400, seconds % 86400);
        let (year, month, day) = civil(day);
        Timestamp {
            date: ((year - 1980) << 9 | month << 5 | day) as u16,
            time: (((second / 3600) << 11) | ((second / 60 % 60) << 5) | (second % 60 / 2)) as u16,
        }
    }
}

/// Year, month and day of a day since 1970-01-01 (not before it), in the Gregorian calendar.
pub fn civil(mut day: i64) -> (i64, i64, i64) {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if day < length {
            break;
        }
        day -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let at = |seconds| {
            let stamp = Timestamp::new(Mtime { seconds, nanoseconds: 0 });
            let (date, time) = (stamp.date, stamp.time);
            (1980 + (date >> 9), date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, (time & 31) * 2)
        };
        assert_eq!(at(0), (1980, 1, 1, 0, 0, 0));
        assert_eq!(at(951_827_696), (2000, 2, 29, 12, 34, 56));
        assert_eq!(at(1_735_689_599), (2024, 12, 31, 23, 59, 58));
        assert_eq!(at(i64::MAX), (2107, 12, 31, 23, 59, 58));
    }

    #[test]
    fn a_long_name_is_split_from_its_end() {
        let units: Vec<u16> = "a-name-of-14-c".encode_utf16().collect();
        let long = encode_long(&units, b"A-NAME~1   ");
        assert_eq!(long.len(), 64);
        assert_eq!((long[0], long[1], long[3], long[5]), (0x42, b'c', 0, 0xFF));
        assert_eq!((long[32], long[33], long[13]), (1, b'a', long[45]));
        // A name that fills its entry has no terminator.
        assert_eq!(encode_long(&units[..13], b"A-NAME~1   ").len(), 32);
    }
}
