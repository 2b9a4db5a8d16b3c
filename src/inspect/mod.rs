//! Looking at finished images: any image -> Tree again.
//!
//! Owns: the readers of disks ([`gpt`]), of file systems ([`ext4`]), and [`boot`], which
//! starts an image in QEMU and talks to it. Whatever is read here is hostile: sizes are bounded, arithmetic is checked,
//! nothing follows a pointer twice. Readers share constants with `format`, but no logic: they are what its writers are
//! judged by.

pub mod boot;
pub mod disk;
pub mod ext4;
pub mod fat;
pub mod fields;
pub mod gpt;
pub mod listing;
pub mod source;
