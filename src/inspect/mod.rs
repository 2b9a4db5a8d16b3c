//! Looking at finished images.
//!
//! Owns: [`boot`], which starts one in QEMU and talks to it.

pub mod boot;
