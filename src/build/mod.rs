//! Running a build plan: steps in order, their results kept in the store, files published at the end.
//!
//! Owns: the order of the steps and what each gets. What a step does belongs to the rooms below.

mod ahead;
pub mod cache;
mod clock;
mod crew;
mod delivery;
pub mod evidence;
pub mod initramfs;
pub mod pack;
pub mod prepare;
pub mod publish;
mod readahead;
pub mod reseed;
pub mod rootfs;
pub mod run;
mod several;
mod space;
pub mod toolstree;
mod turns;
pub mod verify;
mod workplace;

pub use crate::plan::meta;
pub use prepare::Locking;
pub use run::{Built, Options, run};
