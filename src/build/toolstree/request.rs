//! Which packages the tools are: the request, and its lock.
//!
//! Owns: [`Source`], where tools come from, [`image_request`] and [`of_image`] (a lock of an image names its tools, too),
//! and [`lock`] for tools without an image. The tools are a layer of their own on a base layer, so that
//! an image of the same release shares its base with them. A lock is kept in `<cache>/tools` under the digest of its
//! request: the same tools until somebody removes it, and no network needed once they are in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Program;
use crate::api::NodeProfile;
use crate::api::params::distribution::{Empty, Repository};
use crate::api::params::software::Layer;
use crate::document;
use crate::error::{Context, Error, Result};
use crate::package::Environment;
use crate::package::lock::{
    self as package_lock, LOCK_VERSION, LayerRequest, Lock, LockedLayer, PackageRequest, Request,
};
use crate::plan::Intent;
use crate::tree::Digest;

/// What a lock of tools is for.
const NAME: &str = "tools";

/// The release that tools come from when no documents say otherwise: those of the default image.
const DEFAULT: &str = include_str!("../../../functions/images/debian-bookworm/distribution.yaml");

/// Where tools come from: the repositories, and the base layer that they stand on.
#[derive(Debug, Clone)]
pub struct Source {
    pub architecture: String,
    pub repositories: BTreeMap<String, Repository>,
    /// Packages of the base layer beside Essential and required ones.
    pub base: Vec<PackageRequest>,
    pub unapproved: BTreeMap<String, Empty>,
}

impl Source {
    /// The repositories and the base layer of an image.
    pub fn of(intent: &Intent) -> Self {
        let request = intent.package_request();
        Source {
            architecture: request.architecture,
            repositories: request.repositories,
            base: request.layers.into_iter().next().map(|layer| layer.packages).unwrap_or_default(),
            unapproved: intent.params.software.unapproved_packages.clone(),
        }
    }

    /// Debian 12 from its own mirrors, for checking an image whose documents are not at hand.
    pub fn shipped() -> Result<Self> {
        let documents = document::load_str("debian-bookworm/distribution.yaml", DEFAULT)?;
        let profile = documents.first().ok_or_else(|| Error::build("the shipped tools release is empty"))?;
        let profile: NodeProfile = document::decode(profile)?;
        let distribution = &profile.spec.distribution;
        Ok(Source {
            architecture: distribution.architecture().to_owned(),
            repositories: distribution.repositories.clone(),
            base: Vec::new(),
            unapproved: BTreeMap::new(),
        })
    }

    /// A base layer and, on it, the packages of the programs.
    pub fn request(&self, programs: &[Program]) -> Request {
        Request {
            architecture: self.architecture.clone(),
            repositories: self.repositories.clone(),
            layers: vec![
                LayerRequest { layer: Layer::Base, packages: self.base.clone() },
                LayerRequest { layer: Layer::Role, packages: packages(programs) },
            ],
            unapproved: self.unapproved.keys().cloned().collect(),
            tools: Vec::new(),
        }
    }
}

/// What an image asks for, and beside it the programs that check it.
pub fn image_request(intent: &Intent) -> Request {
    Request { tools: packages(&Program::ALL), ..intent.package_request() }
}

fn packages(programs: &[Program]) -> Vec<PackageRequest> {
    let names: BTreeSet<&str> = programs.iter().map(|program| program.package()).collect();
    names.into_iter().map(|name| PackageRequest { name: name.to_owned(), version: None }).collect()
}

/// The lock of the tools that the lock of an image names; nothing where it does not name all of the programs.
pub fn of_image(lock: &Lock, programs: &[Program]) -> Option<Lock> {
    let base = lock.layers.first()?;
    let has = |name: &str| lock.tools.iter().chain(&base.packages).any(|package| package.name == name);
    let tools = LockedLayer { layer: Layer::Role, packages: lock.tools.clone(), manual: Vec::new() };
    programs.iter().all(|program| has(program.package())).then(|| Lock {
        image: NAME.to_owned(),
        architecture: lock.architecture.clone(),
        layers: vec![base.clone(), tools],
        evidence: lock.evidence.clone(),
        ..Lock::default()
    })
}

/// The packages of the programs: as locked before on this cache, else resolved now.
pub fn lock(source: &Source, programs: &[Program], environment: &Environment) -> Result<Lock> {
    let request = source.request(programs);
    let path = lock_path(&request, &environment.cache);
    // One that is damaged or of another version is made again.
    if let Some(lock) = path.is_file().then(|| Lock::read(&path).ok()).flatten() {
        return Ok(lock);
    }
    let mut lock = package_lock::resolve(&request, environment).context("choosing the packages of the tools")?;
    lock.image = NAME.to_owned();
    write(&path, &lock)?;
    Ok(lock)
}

fn lock_path(request: &Request, cache: &Path) -> PathBuf {
    // Names hold no line break; JSON delimits the rest.
    let mut text = format!("tools {LOCK_VERSION}\n{}\n", request.architecture);
    text += &serde_json::to_string(&request.repositories).expect("repositories serialise to JSON");
    for layer in &request.layers {
        text += &format!("\nlayer {}", layer.layer.name());
        for package in &layer.packages {
            text += &format!("\n{} {}", package.name, package.version.as_deref().unwrap_or_default());
        }
    }
    for name in &request.unapproved {
        text += &format!("\nnot {name}");
    }
    cache.join("tools").join(format!("{}.lock.yaml", Digest::of(text.as_bytes())))
}

fn write(path: &Path, lock: &Lock) -> Result<()> {
    let context = || format!("writing {}", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(context)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(context)?;
    std::io::Write::write_all(&mut file, lock.to_yaml().as_bytes()).with_context(context)?;
    file.persist(path).map_err(|error| error.error).with_context(context)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_source_is_the_default_release() {
        let source = Source::shipped().unwrap();
        assert_eq!(source.repositories["debian"].suite, "bookworm");
        assert_eq!(source.repositories["debian-security"].keyring, "debian-archive");
        let request = source.request(&Program::ALL);
        let names: Vec<&str> = request.layers[1].packages.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["dosfstools", "e2fsprogs", "gdisk", "qemu-utils"]);
    }

    #[test]
    fn a_lock_is_found_by_what_was_asked_for() {
        let cache = tempfile::tempdir().unwrap();
        let mut source = Source::shipped().unwrap();
        let path = |source: &Source, programs: &[Program]| lock_path(&source.request(programs), cache.path());
        let all = path(&source, &Program::ALL);
        assert_ne!(path(&source, &[Program::Sgdisk]), all);
        let lock = package_lock::tests::lock();
        write(&all, &lock).unwrap();
        assert_eq!(Lock::read(&all).unwrap(), lock);
        source.repositories.get_mut("debian").unwrap().source = "http://mirror.example/debian".into();
        assert_ne!(path(&source, &Program::ALL), all);
    }
}
