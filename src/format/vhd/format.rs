//! On-disk structures, all big-endian; section names are those of VHD.

use uuid::Uuid;

use super::geometry::Geometry;

pub const SECTOR: u64 = 512;
/// "Dynamic Disk Header Format", block size: the default.
pub const BLOCK: u64 = 2 << 20;
/// "Block Allocation Table and Data Blocks": one bit for each sector of a block, in whole sectors.
pub const BITMAP: u64 = BLOCK / SECTOR / 8;
/// BAT entry of a block without data.
pub const UNUSED: u32 = u32::MAX;
/// "Overview": the largest disk, 2040 GiB.
pub const MAX_VIRTUAL_SIZE: u64 = 2040 << 30;

/// "Hard Disk Footer Format", data offset of fixed disks; "Dynamic Disk Header Format", data offset, not used.
const NOWHERE: u64 = u64::MAX;
/// "Hard Disk Footer Format", features: reserved, always set.
const FEATURES: u32 = 2;
/// File format version, header version: 1.0.
const VERSION: u32 = 0x0001_0000;
/// Creator application of Hyper-V, with a version of ours. Readers take the size of its disks from "current size"; for
/// creators they do not know QEMU and Virtual PC compute it from the geometry, which cannot express every size.
const CREATOR: [u8; 4] = *b"win ";
const CREATOR_VERSION: u32 = 0x000A_0000;
/// Creator host OS: one of two values that the specification has.
const CREATOR_OS: [u8; 4] = *b"Wi2k";
/// Time stamps count from 2000-01-01 00:00:00 UTC.
const EPOCH: i64 = 946_684_800;

/// "Hard Disk Footer Format", disk type.
pub const TYPE_FIXED: u32 = 2;
pub const TYPE_DYNAMIC: u32 = 3;

pub const FOOTER: usize = 512;
pub const DYNAMIC_HEADER: usize = 1024;
/// Where the copy of the footer ends and the dynamic header starts.
pub const DYNAMIC_HEADER_OFFSET: u64 = FOOTER as u64;
pub const TABLE_OFFSET: u64 = DYNAMIC_HEADER_OFFSET + DYNAMIC_HEADER as u64;

/// "Hard Disk Footer Format". `seconds` count from 1970.
pub fn footer(size: u64, disk_type: u32, seconds: i64, uuid: &Uuid) -> [u8; FOOTER] {
    let mut out = [0; FOOTER];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"conectix");
    put(8, &FEATURES.to_be_bytes());
    put(12, &VERSION.to_be_bytes());
    put(16, &(if disk_type == TYPE_FIXED { NOWHERE } else { DYNAMIC_HEADER_OFFSET }).to_be_bytes());
    put(24, &timestamp(seconds).to_be_bytes());
    put(28, &CREATOR);
    put(32, &CREATOR_VERSION.to_be_bytes());
    put(36, &CREATOR_OS);
    // Original and current size.
    put(40, &size.to_be_bytes());
    put(48, &size.to_be_bytes());
    let geometry = Geometry::of(size / SECTOR);
    put(56, &geometry.cylinders.to_be_bytes());
    put(58, &[geometry.heads, geometry.sectors]);
    put(60, &disk_type.to_be_bytes());
    put(68, uuid.as_bytes());
    seal(&mut out, 64);
    out
}

/// "Dynamic Disk Header Format".
pub fn dynamic_header(blocks: u32) -> [u8; DYNAMIC_HEADER] {
    let mut out = [0; DYNAMIC_HEADER];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"cxsparse");
    put(8, &NOWHERE.to_be_bytes());
    put(16, &TABLE_OFFSET.to_be_bytes());
    put(24, &VERSION.to_be_bytes());
    put(28, &blocks.to_be_bytes());
    put(32, &(BLOCK as u32).to_be_bytes());
    // No parent.
    seal(&mut out, 36);
    out
}

/// "Checksum": the one's complement of the sum of all bytes but its own.
fn seal(out: &mut [u8], at: usize) {
    let sum = out.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    out[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
}

/// What the field cannot express becomes the nearest that it can.
fn timestamp(seconds: i64) -> u32 {
    seconds.saturating_sub(EPOCH).clamp(0, i64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_outside_of_the_field_are_clamped() {
        assert_eq!(timestamp(EPOCH + 5), 5);
        assert_eq!(timestamp(0), 0);
        assert_eq!(timestamp(i64::MIN), 0);
        assert_eq!(timestamp(i64::MAX), u32::MAX);
    }

    #[test]
    fn the_sum_of_all_bytes_checks() {
        let footer = footer(3 << 20, TYPE_FIXED, 0, &Uuid::max());
        let own: u32 = footer[64..68].iter().map(|byte| u32::from(*byte)).sum();
        let all: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(!(all - own), u32::from_be_bytes(footer[64..68].try_into().unwrap()));
    }
}
