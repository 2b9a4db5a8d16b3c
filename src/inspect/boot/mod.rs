//! Starting an image in QEMU without changing a byte of it, and talking to it over its serial line.
//!
//! Owns: the virtual machine ([`machine`]), its firmware ([`firmware`]), the NoCloud seed that gives it a name and a
//! user ([`seed`]), the serial line ([`console`]), and the checks every image of ours must pass ([`checks`]). Used by
//! the verb `boot` and by the boot tests. Needs QEMU and no privileges. Uses error, interrupt.

pub mod checks;
pub mod console;
pub mod firmware;
pub mod machine;
pub mod seed;

pub use checks::Outcome;
pub use console::{CommandResult, Console};
pub use firmware::Firmware;
pub use machine::{Accel, Machine, Options};
pub use seed::Seed;
