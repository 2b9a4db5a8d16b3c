//! VMware virtual disks, `streamOptimized`: VMware's technical note "Virtual Disk Format 5.0" (VDF below).
//!
//! Supported: writing a whole image in one go and in order: sparse extent with embedded descriptor, compressed grains of
//! 64 KiB with markers, footer, end-of-stream; what OVF packages and ESXi imports take. All cores compress, and the bytes
//! do not depend on how many there are. Grains of zeros take no space. A size that is no multiple of 512 is rounded up, as
//! for qcow2. Content id and UUID come from the identity of the disk, never from clock or chance.
//! Left out: the other kinds (monolithic, split, ESXi), snapshots, reading (see `inspect`).

mod compress;
pub mod descriptor;
pub mod format;
mod write;

pub use format::GRAIN;
pub use write::{Options, check_size, write};

#[cfg(test)]
mod tests;
