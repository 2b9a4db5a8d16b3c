//! ISO 9660 file systems that also boot from a disk: ECMA-119 (4th edition), SUSP 1.12 and RRIP 1.12 ("Rock Ridge"), the El
//! Torito specification 1.0, with an MBR and a GPT in the unused first 32 KiB (UEFI 2.10, chapter 5).
//!
//! Supported: one-shot from a [`Tree`](crate::tree::Tree) of files, folders and symbolic links; owners, modes and times by
//! Rock Ridge; files of any size (interchange level 3: several extents); a BIOS boot image and an EFI system partition,
//! both for a CD and for a disk or USB stick with the same bytes.
//! Left out: Joliet, names and link targets of more than about 130 bytes, folders deeper than eight levels, hard links,
//! devices and extended attributes (errors but for the last), reading (but for the seed).
//!
//! ```text
//! block 0      MBR and primary GPT; 16 volume descriptors, boot catalog, path tables, folders
//!              files in the order of the Tree, boot images among them
//! 1 MiB * n    the EFI system partition, a FAT file system
//! 1 MiB * n    the payload: the one large file, whose size is known when it has been written
//! 1 MiB * n    the seed: 8 MiB, see below
//! last 1 MiB   backup GPT, at its end
//! ```
//!
//! **The seed can be replaced.** Everything that depends on a site (the files of one folder, `openstack/latest`, and that
//! folder's own records with their sizes) lies in one place of fixed size, the [`seed`] area. Its first block, which no
//! folder names, says what the rest of the image is and has the states of both digests at that point. So another
//! seed changes no byte outside of the area: putting a seed into a finished image gives the bytes of making the image
//! with that seed, and the checksums of the whole without reading the whole.

mod format;
mod layout;
mod names;
pub mod seed;
mod write;

pub use format::BLOCK;
pub use layout::{Bios, Options, Plan};
pub use write::Frame;

#[cfg(test)]
mod tests;
