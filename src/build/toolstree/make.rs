//! A tools tree from its lock: fetched, installed layer by layer, kept in the store.
//!
//! Owns: [`tree`].

use std::path::Path;

use super::request::Source;
use crate::build::rootfs::{self, Layer, Workshop};
use crate::error::{Context, Result};
use crate::package::Environment;
use crate::package::fetch;
use crate::package::lock::Lock;
use crate::plan::locked::rootfs_digests;
use crate::sandbox::Sandbox;
use crate::tree::Tree;
use crate::tree::host::Folder;
use crate::tree::store::Store;

/// The tools that `lock` names, from the store or installed now. `scratch` is an empty folder of a work area.
pub fn tree(
    source: &Source,
    lock: &Lock,
    environment: &Environment,
    store: &Store,
    sandbox: &dyn Sandbox,
    scratch: &Path,
) -> Result<Tree> {
    let keys = rootfs_digests(&lock.architecture, &source.unapproved, &lock.layers);
    if let Some(key) = keys.last() {
        if let Some(tree) = store.load(*key)? {
            return Ok(tree);
        }
    }
    let packages: Vec<_> = lock.packages().cloned().collect();
    let repositories = lock.repositories_at(&source.request(&[]))?;
    let debs = fetch::fetch_all(&packages, &repositories, environment).context("fetching the tools")?;
    let mut rest = debs.as_slice();
    let mut layers = Vec::new();
    for (locked, key) in lock.layers.iter().zip(keys) {
        let (own, above) = rest.split_at(locked.packages.len());
        rest = above;
        layers.push(Layer { key, locked, debs: own });
    }
    let mut folder = Folder::create(&scratch.join("install"))?;
    let reporter = &environment.reporter;
    let (arrived, now) = (&|_| Ok(()), environment.now);
    let mut workshop =
        Workshop { store, sandbox, folder: &mut folder, scratch, arrived, now, plain: false, clusters: None, reporter };
    rootfs::build(&layers, &mut workshop).context("installing the tools")
}
