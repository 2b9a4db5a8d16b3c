//! Disks inside files: each format of image as a [`Source`](super::source::Source) of the bytes that a machine sees.
//!
//! Owns: one file a format, and the cache of unpacked pieces that they share. Images that need another file (backing
//! file, external data, parent) are refused: what is looked at is one file.

mod cache;
pub mod qcow2;
