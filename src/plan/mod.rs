//! What is going to be built, as plain data: [`Intent`] (what the documents ask for) and [`LockedPlan`] (the steps,
//! each with the digest of its inputs).
//!
//! Owns: the way from rendered documents to an Intent ([`load_entry_point`], [`load_bundle`], [`from_documents`]) and
//! from Intent and Lock to a LockedPlan ([`LockedPlan::new`]). Pure: reads documents (and, when asked, the files of a seed), never the network, the clock or
//! the environment. [`drift`] compares a lock with the documents. [`meta`] is what an image says about itself, [`seed`] what an ISO says about its site. May use compat, check, api, kustomize, document, and the
//! types of `package::lock`.

mod container;
pub mod drift;
pub mod intent;
mod load;
pub mod locked;
pub mod meta;
mod normalise;
mod outputs;
pub mod rebuild;
pub mod seed;
#[cfg(test)]
mod tests;

pub use container::{Container, Runtime, Volume};
pub use intent::{Compression, Intent, Output};
pub use load::{from_documents, load_bundle, load_entry_point, load_iso, load_iso_texts, load_texts};
pub use locked::{LockedPlan, Step, StepName};
pub use seed::SeedSource;
