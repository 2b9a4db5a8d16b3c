//! QEMU copy-on-write images, version 3: QEMU's docs/interop/qcow2.txt.
//!
//! Supported: writing a whole image in one go, clusters of 64 KiB, compressed with zstd (QEMU 5.1 and newer) or
//! deflate (any QEMU) or not at all; all cores compress, and the bytes do not depend on how many there are. Clusters
//! of zeros take no space; what does not shrink is stored plain. A size that is no multiple of 512 is rounded up, as
//! qemu-img does. Clusters that hold nothing but files come first, so that images that differ little begin alike; what
//! [`write_kept`] gives is the same, with clusters and checksums that earlier images have left, or
//! [`prepare`] for this one.
//! Left out: backing files, snapshots, encryption, external data files, other cluster sizes, reading.

mod ahead;
mod compress;
mod format;
mod kept;
mod layout;
mod resume;
mod stream;
mod tables;
mod write;

pub use ahead::prepare;
pub use compress::Compression;
pub use format::CLUSTER;
pub use kept::write_kept;
pub use write::{Options, write};

#[cfg(test)]
mod tests;
