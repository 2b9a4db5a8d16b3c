//! The last step: a final Tree becomes image files.
//!
//! Owns: cutting the Tree into file systems, the order of work, and what goes where on the disk. Formats are written
//! by `format`, boot images made by `boot`. Nothing is written before it is known to fit.

mod inode_times;
pub mod mke2fs;
pub mod space;
pub mod split;
pub mod tools;
