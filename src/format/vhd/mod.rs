//! Virtual hard disks: Microsoft's "Virtual Hard Disk Image Format Specification", version 1.0 (2006; VHD below).
//!
//! Supported: writing a whole image in one go, fixed (the disk and a footer; holes stay holes in the host's file) or
//! dynamic (blocks of 2 MiB that hold data). The disk has exactly the size asked for: the footer names a creator whose
//! images every reader sizes by "current size" instead of by the rounded geometry. A size that is no multiple of 512 is
//! rounded up, as for qcow2. Time stamp and unique id are given, never taken from clock or chance.
//! Left out: differencing disks, VHDX, saved states, reading (see `inspect`).

pub mod format;
mod geometry;
mod write;

pub use format::BLOCK;
pub use write::{Options, Subformat, check_size, write};

#[cfg(test)]
mod tests;
