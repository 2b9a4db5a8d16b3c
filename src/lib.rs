//! imagebuilder turns Airship-style documents into bootable operating-system images.
//!
//! Data flows one way through the rooms below; a room may use the rooms under it, never those above
//! (`tests/house.rs` reads the `use crate::` edges):
//!
//! cli -> serve, phase -> build -> engine -> plan -> compat -> check -> api -> kustomize -> document
//!                       -> seed, seal -> osconfig, boot -> package -> registry, sandbox -> inspect, format -> tree -> report, error

// Libraries report; only the command line prints, in one place.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod boot;
pub mod build;
pub mod check;
pub mod cli;
pub mod compat;
pub mod document;
pub mod engine;
pub mod error;
pub mod format;
pub mod inspect;
pub mod interrupt;
pub mod kustomize;
pub mod osconfig;
pub mod package;
pub mod phase;
pub mod plan;
pub mod registry;
pub mod report;
pub mod sandbox;
pub mod seal;
pub mod seed;
pub mod serve;
#[cfg(test)]
mod testing;
pub mod tree;
