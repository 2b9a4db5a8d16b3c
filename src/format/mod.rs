//! Everything that turns data into bytes of an image: one folder a format.
//!
//! In each: `format.rs` the on-disk structures with their section of the specification, `layout.rs` pure (data to
//! offsets), `write.rs` streams, `mod.rs` what is supported and what is left out. [`disk`] is what they share: a
//! sparse disk or partition as data; [`nodes`] is what file systems with inodes share.

pub mod disk;
pub mod ext4;
pub mod fat;
pub mod gpt;
pub mod iso9660;
mod nodes;
pub mod oci;
pub mod qcow2;
pub mod raw;
pub mod squashfs;
pub mod tar;
pub mod vhd;
pub mod vmdk;
