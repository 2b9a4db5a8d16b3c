//! Looking at finished images: any image -> Tree again.
//!
//! Owns: [`image`], an image file as a whole; the readers of containers ([`disk`], [`tar`]), of partition tables
//! ([`gpt`]) and of file systems ([`ext4`], [`fat`], [`squashfs`], [`iso9660`]); [`compare`], which names what differs; and [`boot`], which starts
//! an image in QEMU and talks to it. Whatever is read here is hostile: sizes are bounded, arithmetic is checked, nothing
//! follows a pointer twice. Readers share constants with `format`, but no logic: they are what its writers are judged
//! by. The way through is [`source`] (bytes), [`listing`] (paths), [`Tree`](crate::tree::Tree).

pub mod boot;
pub mod compare;
pub mod disk;
pub mod ext4;
pub mod fat;
pub mod fields;
pub mod gpt;
pub mod image;
pub mod iso9660;
pub mod listing;
pub mod source;
pub mod squashfs;
pub mod tar;
pub mod unpack;

pub use compare::{Difference, difference};
