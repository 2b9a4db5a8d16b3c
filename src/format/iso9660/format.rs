//! On-disk structures. Section numbers are those of ECMA-119; SUSP and RRIP as said; El Torito by figure.

use crate::format::fat::civil;

/// Logical block and logical sector (6.1.2, 6.2.2).
pub const BLOCK: u64 = 2048;
/// The first volume descriptor (6.2.1): what lies before is the system area.
pub const FIRST_DESCRIPTOR: u64 = 16;

pub const FLAG_DIRECTORY: u8 = 0x02;
/// Another record of the same file follows (9.1.6).
pub const FLAG_MORE_EXTENTS: u8 = 0x80;
/// A record's length has one byte, and it is even (9.1.1, 9.1.12).
pub const LONGEST_RECORD: usize = 254;
/// The largest extent that is not the last one: whole blocks, in 32 bits.
pub const LARGEST_EXTENT: u64 = 0xFFFF_F800;

/// 7.2.3: a 16-bit number in both byte orders.
pub fn both16(value: u16) -> [u8; 4] {
    let (little, big) = (value.to_le_bytes(), value.to_be_bytes());
    [little[0], little[1], big[0], big[1]]
}

/// 7.3.3: a 32-bit number in both byte orders.
pub fn both32(value: u32) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&value.to_le_bytes());
    out[4..].copy_from_slice(&value.to_be_bytes());
    out
}

/// A point in time in UTC, as far as this format can say it: 1970 to 2155.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    year: i64,
    /// Month, day, hour, minute, second.
    rest: [u8; 5],
}

impl Time {
    pub fn new(seconds: i64) -> Time {
        const LAST: i64 = 5_869_583_999; // 2155-12-31 23:59:59
        let seconds = seconds.clamp(0, LAST);
        let (year, month, day) = civil(seconds / 86400);
        let second = seconds % 86400;
        let rest = [month, day, second / 3600, second / 60 % 60, second % 60].map(|part| part as u8);
        Time { year, rest }
    }

    /// 9.1.5: seven bytes.
    pub fn short(self) -> [u8; 7] {
        let [month, day, hour, minute, second] = self.rest;
        [(self.year - 1900) as u8, month, day, hour, minute, second, 0]
    }

    /// 8.4.26.1: seventeen bytes.
    pub fn long(self) -> [u8; 17] {
        let [month, day, hour, minute, second] = self.rest;
        let text = format!("{:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00", self.year);
        let mut out = [0; 17];
        out[..16].copy_from_slice(text.as_bytes());
        out
    }
}

/// 9.1: a directory record.
pub struct Record<'a> {
    pub identifier: &'a [u8],
    pub block: u32,
    pub size: u32,
    pub time: Time,
    pub flags: u8,
    pub system_use: &'a [u8],
}

impl Record<'_> {
    /// What a record takes with that many bytes of name and system use.
    pub fn length(identifier: usize, system_use: usize) -> usize {
        (33 + identifier).next_multiple_of(2) + system_use.next_multiple_of(2)
    }

    /// The caller has seen to it that the length fits.
    pub fn encode(&self) -> Vec<u8> {
        let length = Self::length(self.identifier.len(), self.system_use.len());
        let mut out = Vec::with_capacity(length);
        out.extend([length as u8, 0]);
        out.extend(both32(self.block));
        out.extend(both32(self.size));
        out.extend(self.time.short());
        out.extend([self.flags, 0, 0]);
        out.extend(both16(1));
        out.push(self.identifier.len() as u8);
        out.extend(self.identifier);
        out.resize(out.len().next_multiple_of(2), 0);
        out.extend(self.system_use);
        out.resize(length, 0);
        out
    }
}

/// SUSP 5.3: the first entry of the root's own record.
pub const SP: [u8; 7] = [b'S', b'P', 7, 1, 0xBE, 0xEF, 0];

/// SUSP 5.5 with RRIP 4.3: which extension follows.
pub fn extension_reference() -> Vec<u8> {
    const ID: &[u8] = b"IEEE_P1282";
    const DESCRIPTION: &[u8] = b"ROCK RIDGE INTERCHANGE PROTOCOL";
    const SOURCE: &[u8] = b"IEEE P1282";
    let lengths = [ID, DESCRIPTION, SOURCE].map(|text| text.len() as u8);
    let length = 8 + lengths.iter().sum::<u8>();
    let head = [b'E', b'R', length, 1, lengths[0], lengths[1], lengths[2], 1];
    [&head, ID, DESCRIPTION, SOURCE].concat()
}

/// What `stat` shows of a file.
#[derive(Debug, Clone, Copy)]
pub struct Posix {
    /// With the type of the file.
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub serial: u32,
}

/// RRIP 4.1.1 and 4.1.6: PX, and TF with modification, access and attribute change.
pub fn attributes(posix: Posix, time: Time) -> Vec<u8> {
    let mut out = vec![b'P', b'X', 44, 1];
    for value in [posix.mode, posix.links, posix.uid, posix.gid, posix.serial] {
        out.extend(both32(value));
    }
    out.extend([b'T', b'F', 26, 1, 0x0E]);
    for _ in 0..3 {
        out.extend(time.short());
    }
    out
}

/// RRIP 4.1.4: the name.
pub fn name(name: &[u8]) -> Vec<u8> {
    let mut out = vec![b'N', b'M', (5 + name.len()).min(255) as u8, 1, 0];
    out.extend(name);
    out
}

/// RRIP 4.1.3: the target of a symbolic link, in components.
pub fn link(target: &[u8]) -> Vec<u8> {
    let mut components = Vec::new();
    let relative = match target.strip_prefix(b"/") {
        Some(rest) => {
            components.extend([0x08, 0]);
            rest
        }
        None => target,
    };
    for part in relative.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        match part {
            b"." => components.extend([0x02, 0]),
            b".." => components.extend([0x04, 0]),
            part => {
                components.extend([0, part.len().min(255) as u8]);
                components.extend(part);
            }
        }
    }
    let mut out = vec![b'S', b'L', (5 + components.len()).min(255) as u8, 1, 0];
    out.extend(components);
    out
}

/// 8.4: the primary volume descriptor.
pub struct Volume<'a> {
    pub id: &'a str,
    /// In blocks.
    pub size: u32,
    pub path_table_size: u32,
    /// Little-endian, big-endian.
    pub path_tables: [u32; 2],
    /// The root's own record, 34 bytes.
    pub root: Vec<u8>,
    pub time: Time,
}

impl Volume<'_> {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK as usize);
        out.extend(b"\x01CD001\x01\x00");
        text(&mut out, "", 32);
        text(&mut out, self.id, 32);
        out.extend([0; 8]);
        out.extend(both32(self.size));
        out.extend([0; 32]);
        out.extend(both16(1));
        out.extend(both16(1));
        out.extend(both16(BLOCK as u16));
        out.extend(both32(self.path_table_size));
        out.extend(self.path_tables[0].to_le_bytes());
        out.extend([0; 4]);
        out.extend(self.path_tables[1].to_be_bytes());
        out.extend([0; 4]);
        out.extend(&self.root);
        for (value, length) in [("", 128), ("", 128), ("", 128), ("IMAGEBUILDER", 128), ("", 37), ("", 37), ("", 37)] {
            text(&mut out, value, length);
        }
        // Made, changed; no expiry; in force since.
        let time = self.time.long();
        let mut never = [b'0'; 17];
        never[16] = 0;
        for time in [time, time, never, time] {
            out.extend(time);
        }
        out.extend([1, 0]);
        out.resize(BLOCK as usize, 0);
        out
    }
}

/// Left-justified, filled with blanks.
fn text(out: &mut Vec<u8>, value: &str, length: usize) {
    let end = out.len() + length;
    out.extend(value.bytes().take(length));
    out.resize(end, b' ');
}

/// 8.3.
pub fn terminator() -> Vec<u8> {
    let mut out = b"\xFFCD001\x01".to_vec();
    out.resize(BLOCK as usize, 0);
    out
}

/// El Torito figure 7: the boot record volume descriptor, always in block 17.
pub fn boot_record(catalog: u32) -> Vec<u8> {
    let mut out = b"\x00CD001\x01EL TORITO SPECIFICATION".to_vec();
    out.resize(71, 0);
    out.extend(catalog.to_le_bytes());
    out.resize(BLOCK as usize, 0);
    out
}

/// One way to boot from a CD.
pub struct BootEntry {
    /// El Torito figure 2: 0 for a PC with a BIOS; 0xEF for UEFI (UEFI 2.10, 13.3.2.1).
    pub platform: u8,
    pub block: u32,
    /// In units of 512 bytes.
    pub sectors: u16,
}

/// El Torito figures 2 to 5: the boot catalog, one block.
pub fn boot_catalog(entries: &[BootEntry]) -> Vec<u8> {
    let mut out = vec![0; 32];
    out[0] = 1;
    out[1] = entries.first().map_or(0, |entry| entry.platform);
    out[30..32].copy_from_slice(&[0x55, 0xAA]);
    // All words together are zero.
    let sum = out.chunks_exact(2).fold(0u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
    out[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            let last = index + 1 == entries.len();
            let mut header = [0; 32];
            header[0] = if last { 0x91 } else { 0x90 };
            header[1] = entry.platform;
            header[2] = 1;
            out.extend(header);
        }
        // Bootable, without emulation of a floppy or hard disk.
        let mut line = [0; 32];
        line[0] = 0x88;
        line[6..8].copy_from_slice(&entry.sectors.to_le_bytes());
        line[8..12].copy_from_slice(&entry.block.to_le_bytes());
        out.extend(line);
    }
    out.resize(BLOCK as usize, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(&Time::new(1_700_000_000).long()[..16], b"2023111422132000");
        assert_eq!(Time::new(0).short(), [70, 1, 1, 0, 0, 0, 0]);
        assert_eq!(Time::new(i64::MAX).short(), [255, 12, 31, 23, 59, 59, 0]);
        assert_eq!(Time::new(i64::MIN).short(), [70, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_link_is_components() {
        assert_eq!(link(b"/a//../b"), b"SL\x0F\x01\x00\x08\x00\x00\x01a\x04\x00\x00\x01b");
        assert_eq!(link(b"./c"), b"SL\x0A\x01\x00\x02\x00\x00\x01c");
    }

    #[test]
    fn the_catalog_adds_up_to_nothing() {
        let bios = BootEntry { platform: 0, block: 40, sectors: 4 };
        let catalog = boot_catalog(&[bios, BootEntry { platform: 0xEF, block: 512, sectors: 20480 }]);
        let sum = catalog[..32].chunks_exact(2).map(|w| u16::from_le_bytes([w[0], w[1]])).fold(0, u16::wrapping_add);
        assert_eq!(sum, 0);
        assert_eq!((catalog[32], catalog[64], catalog[65], catalog[96]), (0x88, 0x91, 0xEF, 0x88));
    }

    #[test]
    fn the_descriptor_is_one_block() {
        let volume = Volume {
            id: "config-2",
            size: 7,
            path_table_size: 10,
            path_tables: [20, 21],
            root: vec![0; 34],
            time: Time::new(0),
        };
        let block = volume.encode();
        assert_eq!(block.len() as u64, BLOCK);
        assert_eq!(&block[40..48], b"config-2");
        assert_eq!(&block[813..829], b"1970010100000000");
        assert_eq!(block[881], 1);
    }
}
