//! tar archives in the pax interchange format: POSIX.1-2017, pax(1), "pax Interchange Format" and "ustar Interchange
//! Format" (TAR below), with the extended attribute records that star, GNU tar and libarchive share.
//!
//! Supported: a whole [`Tree`](crate::tree::Tree) in its own order: `tar --numeric-owner --xattrs --xattrs-include='*' -xp`
//! makes the Tree again. Owners as numbers only, extended attributes and capabilities, hard links, devices, any name,
//! any size, times to the nanosecond; plain, gzip (RFC 1952) or zstd (RFC 8878), compressed by all cores to the same bytes
//! for any number of them.
//! Left out: holes of files, sockets (an error: no tar format has them), reading (see `inspect`).

mod compress;
pub mod format;
mod write;

pub use compress::{Compression, Sink};
pub use write::{Options, write};

#[cfg(test)]
mod tests;
