//! GUID partition tables: UEFI specification 2.10, chapter 5.
//!
//! Supported: 512-byte sectors, 128 entries, protective MBR with boot code, primary and backup table.
//! Left out: 4096-byte sectors, hybrid MBRs, reading.

mod format;
mod layout;

pub use format::{ENTRY_COUNT, SECTOR};
pub use layout::{FIRST_USABLE, Partition, Table, Tables, last_usable};

#[cfg(test)]
mod tests;
