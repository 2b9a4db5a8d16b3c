//! What several test programs share.

pub mod mirror;
pub mod trees;
