//! What was asked for when a lock was made, in the words of the documents and without mirror addresses.
//!
//! Owns: [`Asked`], which a lock keeps so that drift between it and the documents is found exactly and explained.
//! A mirror is not part of it: every mirror of an archive serves the same signed index.

use std::collections::{BTreeMap, BTreeSet};

use super::{PackageRequest, Request};
use crate::api::params::distribution::Repository;
use crate::api::params::software::Layer;
use crate::tree::Digest;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    pub repositories: BTreeMap<String, AskedRepository>,
    /// By name, in the layer they are asked for.
    pub packages: BTreeMap<Layer, Vec<PackageRequest>>,
    pub unapproved: BTreeSet<String>,
}

/// What makes a repository this one and no other, whichever mirror serves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AskedRepository {
    pub suite: String,
    pub components: BTreeSet<String>,
    /// The name of a shipped keyring, a path, or the digest of a key block.
    pub keyring: String,
    pub priority: Option<i32>,
    pub snapshot: Option<String>,
}

impl Asked {
    pub fn of(request: &Request) -> Self {
        let packages = request.layers.iter().filter(|layer| !layer.packages.is_empty()).map(|layer| {
            let mut packages = layer.packages.clone();
            packages.sort_by(|a, b| a.name.cmp(&b.name));
            (layer.layer, packages)
        });
        let repository = |(name, repository): (&String, &Repository)| (name.clone(), AskedRepository::of(repository));
        Asked {
            repositories: request.repositories.iter().map(repository).collect(),
            packages: packages.collect(),
            unapproved: request.unapproved.clone(),
        }
    }
}

impl AskedRepository {
    fn of(repository: &Repository) -> Self {
        let keyring = match repository.keyring.contains('\n') {
            true => format!("sha256:{}", Digest::of(repository.keyring.trim().as_bytes())),
            false => repository.keyring.clone(),
        };
        AskedRepository {
            suite: repository.suite.clone(),
            components: repository.components.keys().cloned().collect(),
            keyring,
            priority: repository.priority,
            snapshot: repository.snapshot.clone(),
        }
    }
}
