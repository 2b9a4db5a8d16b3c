//! Starting an image in QEMU without changing a byte of it, and talking to it over its serial line.
//!
//! Owns: the programs and firmware files that this needs ([`firmware`]). Nothing here needs privileges.

pub mod firmware;
