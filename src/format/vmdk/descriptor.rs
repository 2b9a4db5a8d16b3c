//! The text that describes the disk to people and products; VDF, "The Descriptor File".

use uuid::Uuid;

use super::format::{DESCRIPTOR_SECTORS, SECTOR};

/// `parentCID` of a disk without parent (`CID_NOPARENT`).
const NO_PARENT: u32 = u32::MAX;
/// "The Disk Database": geometry of SCSI disks.
const HEADS: u64 = 255;
const SECTORS: u64 = 63;
const MAX_CYLINDERS: u64 = 65535;

/// As bytes of the descriptor's sectors, filled up with zeros.
pub fn encode(capacity_sectors: u64, uuid: &Uuid) -> Vec<u8> {
    let mut out = text(capacity_sectors, uuid).into_bytes();
    debug_assert!(out.len() < (DESCRIPTOR_SECTORS * SECTOR) as usize);
    out.resize((DESCRIPTOR_SECTORS * SECTOR) as usize, 0);
    out
}

/// The extent is this file itself, so its name says nothing; a fixed one keeps the bytes apart from the file's name.
fn text(capacity_sectors: u64, uuid: &Uuid) -> String {
    let cylinders = (capacity_sectors / (HEADS * SECTORS)).clamp(1, MAX_CYLINDERS);
    format!(
        "# Disk DescriptorFile\n\
         version=1\n\
         CID={:08x}\n\
         parentCID={NO_PARENT:08x}\n\
         createType=\"streamOptimized\"\n\
         \n\
         # Extent description\n\
         RDONLY {capacity_sectors} SPARSE \"disk.vmdk\"\n\
         \n\
         # The Disk Data Base\n\
         #DDB\n\
         \n\
         ddb.adapterType = \"lsilogic\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"{HEADS}\"\n\
         ddb.geometry.sectors = \"{SECTORS}\"\n\
         ddb.longContentID = \"{}\"\n\
         ddb.uuid = \"{}\"\n\
         ddb.virtualHWVersion = \"4\"\n",
        content_id(uuid),
        long_content_id(uuid),
        disk_uuid(uuid),
    )
}

/// 32 bits that tell whether a parent changed: the last of the long form. Two values mean something else.
fn content_id(uuid: &Uuid) -> u32 {
    match uuid.as_u128() as u32 {
        id if id >= NO_PARENT - 1 => id - 2,
        id => id,
    }
}

fn long_content_id(uuid: &Uuid) -> String {
    format!("{:024x}{:08x}", uuid.as_u128() >> 32, content_id(uuid))
}

/// What the guest sees as the disk's world-wide name: VMware writes sixteen bytes that start with `60 00 C2 9` (NAA 6
/// with its company id); the rest is ours.
fn disk_uuid(uuid: &Uuid) -> String {
    let mut bytes = *uuid.as_bytes();
    bytes[..3].copy_from_slice(&[0x60, 0x00, 0xC2]);
    bytes[3] = 0x90 | bytes[3] & 0x0F;
    let group = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    format!("{}-{}", group(&bytes[..8]), group(&bytes[8..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_come_from_the_disk_and_avoid_what_has_a_meaning() {
        let uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(content_id(&uuid), 0x89ab_cdef);
        assert_eq!(long_content_id(&uuid), "0123456789abcdef0123456789abcdef");
        assert_eq!(disk_uuid(&uuid), "60 00 c2 97 89 ab cd ef-01 23 45 67 89 ab cd ef");
        assert_eq!(content_id(&Uuid::max()), 0xffff_fffd);
        assert_eq!(content_id(&Uuid::from_u128(0xffff_fffe)), 0xffff_fffc);
    }

    #[test]
    fn largest_and_smallest_fit() {
        for sectors in [1, u64::MAX] {
            assert!(text(sectors, &Uuid::max()).len() < (DESCRIPTOR_SECTORS * SECTOR) as usize);
        }
    }
}
