//! Raw images: the bytes of the disk, nothing else.
//!
//! Supported: any size; holes stay holes, and blocks of zeros inside extents become holes too.
//! Left out: nothing.

mod write;

pub use write::write;
