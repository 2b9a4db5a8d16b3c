//! GRUB in the sectors a BIOS reads: `boot.img` in the first sector, `core.img` in the BIOS boot partition.
//!
//! Owns: [`embed`], which patches both as grub-bios-setup(8) does. Pure. Offsets: GRUB source,
//! `include/grub/i386/pc/boot.h` (boot sector, block list) and `include/grub/offsets.h` (load segment).

use crate::error::{Error, Kind, Result};

const SECTOR: usize = 512;

/// `GRUB_BOOT_MACHINE_KERNEL_SECTOR`: where boot.img finds the first sector of core.img (64 bits).
const KERNEL_SECTOR: usize = 0x5c;
/// `GRUB_BOOT_MACHINE_DRIVE_CHECK`: a jump; two NOPs make boot.img distrust drive numbers below 0x80, which buggy
/// BIOSes pass for a disk.
const DRIVE_CHECK: usize = 0x66;
const NOPS: [u8; 2] = [0x90, 0x90];
/// `GRUB_BOOT_MACHINE_WINDOWS_NT_MAGIC`: the disk signature; boot code ends before it.
const CODE_END: usize = 0x1b8;
/// The block list at the end of diskboot.img, the first sector of core.img: start (64 bits), count (16 bits), segment
/// (16 bits), `GRUB_BOOT_MACHINE_LIST_SIZE` = 12 bytes.
const BLOCK_LIST: usize = SECTOR - 12;
/// The rest of core.img is loaded right behind its first sector: `GRUB_BOOT_MACHINE_KERNEL_SEG` 0x800, plus 0x20.
const LOAD_SEGMENT: u16 = 0x820;

/// What goes to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedded {
    /// The boot code of the first sector; the partition table after it stays.
    pub boot_code: [u8; CODE_END],
    /// From the first byte of the BIOS boot partition; whole sectors.
    pub core: Vec<u8>,
}

/// Prepares both for a BIOS boot partition at `start` of `size` bytes.
pub fn embed(boot_image: &[u8], core_image: &[u8], start: u64, size: u64) -> Result<Embedded> {
    if boot_image.len() != SECTOR || boot_image[0x1fe..] != [0x55, 0xaa] {
        return Err(Error::build("GRUB's boot.img is not a boot sector"));
    }
    let sectors = core_image.len().div_ceil(SECTOR);
    if sectors < 2 || core_image[BLOCK_LIST + 10..SECTOR] != LOAD_SEGMENT.to_le_bytes() {
        return Err(Error::build("GRUB's core image does not begin with its disk loader"));
    }
    let needed = (sectors * SECTOR) as u64;
    if needed > size {
        return Err(Error::new(
            Kind::Space,
            format!("GRUB's core image needs {needed} bytes, the `bios_grub` partition has {size}"),
        )
        .hint("make the partition with flag `bios_grub` larger"));
    }
    let first = start / SECTOR as u64;
    let rest = u16::try_from(sectors - 1).map_err(|_| Error::build("GRUB's core image is too large"))?;

    let mut boot_code = [0; CODE_END];
    boot_code.copy_from_slice(&boot_image[..CODE_END]);
    boot_code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&first.to_le_bytes());
    boot_code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&NOPS);

    let mut core = core_image.to_vec();
    core.resize(sectors * SECTOR, 0);
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(first + 1).to_le_bytes());
    core[BLOCK_LIST + 8..BLOCK_LIST + 10].copy_from_slice(&rest.to_le_bytes());
    Ok(Embedded { boot_code, core })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> (Vec<u8>, Vec<u8>) {
        let mut boot = vec![0x11; SECTOR];
        boot[0x1fe..].copy_from_slice(&[0x55, 0xaa]);
        let mut core = vec![0x22; 3 * SECTOR + 1];
        core[BLOCK_LIST + 10..SECTOR].copy_from_slice(&LOAD_SEGMENT.to_le_bytes());
        (boot, core)
    }

    #[test]
    fn points_the_boot_sector_to_the_core_and_the_core_to_its_rest() {
        let (boot, core) = images();
        let embedded = embed(&boot, &core, 1 << 20, 4 << 20).unwrap();
        assert_eq!(embedded.boot_code[KERNEL_SECTOR..KERNEL_SECTOR + 8], 2048u64.to_le_bytes());
        assert_eq!(embedded.boot_code[DRIVE_CHECK..DRIVE_CHECK + 2], NOPS);
        assert_eq!(embedded.core.len(), 4 * SECTOR);
        assert_eq!(embedded.core[BLOCK_LIST..BLOCK_LIST + 8], 2049u64.to_le_bytes());
        assert_eq!(embedded.core[BLOCK_LIST + 8..BLOCK_LIST + 10], 3u16.to_le_bytes());
    }

    #[test]
    fn refuses_what_does_not_fit_or_is_no_image() {
        let (boot, core) = images();
        assert_eq!(embed(&boot, &core, 1 << 20, 1024).unwrap_err().kind(), Kind::Space);
        assert!(embed(&boot[..100], &core, 1 << 20, 4 << 20).is_err());
        assert!(embed(&boot, &[0; 2048], 1 << 20, 4 << 20).is_err());
    }
}
