//! What a run has seen of repositories: images that are made side by side see each archive as it was at one moment.
//!
//! Owns: [`Seen`].

use std::sync::{Mutex, PoisonError};

use super::Environment;
use crate::api::params::distribution::Repository;
use crate::error::Result;
use crate::package::fetch::index::{self, Signed};

/// Signed indexes that were fetched and verified in this run.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Vec<(Repository, String, Signed)>>);

impl Seen {
    /// The signed index of a repository: fetched and verified, unless that was done.
    pub(super) fn check(
        &self,
        name: &str,
        repository: &Repository,
        architecture: &str,
        environment: &Environment,
    ) -> Result<Signed> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |(seen, of, _): &&(Repository, String, Signed)| seen == repository && of == architecture;
        if let Some((_, _, signed)) = known.iter().find(is_it) {
            return Ok(signed.clone());
        }
        drop(known);
        let signed = index::check(name, repository, architecture, environment)?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.push((repository.clone(), architecture.to_owned(), signed.clone()));
        Ok(signed)
    }
}
