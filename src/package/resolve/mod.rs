//! Choosing packages the way `apt-get install --no-install-recommends` does.
//!
//! Owns: [`resolve`]. `mark` holds the marking of packages and their dependencies, `explain` the words for a request
//! that has no solution. The rules: what is installed or chosen wins, then the first alternative that can be
//! installed, a real package before one that provides the name, the candidate (highest pin, then highest version)
//! of each package only. Lower layers are installed for the layers above them and never change.

mod explain;
mod mark;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::api::params::software::Layer;
use crate::error::{Context, Error, Kind, Result};

use super::index::{NameId, Priority, Universe, VersionId};
use super::lock::{LayerRequest, PackageRequest};
use mark::Marks;
pub use mark::best;

/// A package chosen for a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    pub version: VersionId,
    /// It came in as a dependency.
    pub automatic: bool,
}

#[derive(Debug, Clone)]
pub struct ResolvedLayer {
    pub layer: Layer,
    /// Sorted by package name.
    pub packages: Vec<Chosen>,
    /// Asked for here; a lower layer has them as dependencies. Sorted by package name.
    pub manual: Vec<NameId>,
}

/// Resolves layer by layer. The first layer also gets every Essential or `Priority: required` package.
pub fn resolve(
    universe: &Universe<'_>,
    layers: &[LayerRequest],
    unapproved: &BTreeSet<String>,
) -> Result<Vec<ResolvedLayer>> {
    // Dependencies are followed by recursion; a chain may be longer than a small thread's stack.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("resolve".into())
            .stack_size(mark::STACK)
            .spawn_scoped(scope, || resolve_layers(universe, layers, unapproved))
            .context("starting the resolver's thread")?;
        thread.join().unwrap_or_else(|_| Err(Error::build("the resolver stopped unexpectedly")))
    })
}

fn resolve_layers(
    universe: &Universe<'_>,
    layers: &[LayerRequest],
    unapproved: &BTreeSet<String>,
) -> Result<Vec<ResolvedLayer>> {
    let mut installed: Vec<Option<VersionId>> = vec![None; universe.len()];
    let mut automatic: BTreeSet<NameId> = BTreeSet::new();
    let mut resolved = Vec::with_capacity(layers.len());
    for (at, request) in layers.iter().enumerate() {
        let context = || format!("choosing the packages of layer {}", request.layer.name());
        let mut marks = Marks::new(universe, &installed, unapproved);
        let mut wanted = if at == 0 { base_set(universe, &marks)? } else { Vec::new() };
        for package in &request.packages {
            let name = marks.request(package, unapproved).with_context(context)?;
            if !wanted.contains(&name) {
                wanted.push(name);
            }
        }
        marks.install_all(&wanted)?;
        if let Some(broken) = marks.first_broken(&wanted) {
            return Err(explain::no_solution(&marks, &wanted, unapproved, broken)).with_context(context);
        }
        marks.drop_unneeded();
        let packages = marks.newly_installed();
        let mut manual: Vec<NameId> = wanted.into_iter().filter(|name| automatic.remove(name)).collect();
        manual.sort_by_key(|name| universe.name(*name).name);
        let dependencies = packages.iter().filter(|chosen| chosen.automatic);
        automatic.extend(dependencies.map(|chosen| universe.version(chosen.version).name));
        resolved.push(ResolvedLayer { layer: request.layer, packages, manual });
        installed = marks.into_installed();
    }
    Ok(resolved)
}

/// What debootstrap and mmdebstrap start from.
fn base_set(universe: &Universe<'_>, marks: &Marks<'_, '_>) -> Result<Vec<NameId>> {
    let mut base: Vec<NameId> = Vec::new();
    for (id, _) in universe.names() {
        if let Some(candidate) = marks.candidate(id) {
            let version = universe.version(candidate);
            if version.essential || version.priority == Priority::Required {
                base.push(id);
            }
        }
    }
    if base.is_empty() {
        return Err(Error::new(Kind::Build, "the repositories hold no Essential and no required package")
            .hint("the first repository of a distribution has to be its release itself, with component `main`"));
    }
    base.sort_by_key(|id| universe.name(*id).name);
    Ok(base)
}

impl Marks<'_, '_> {
    /// The package a request means; sets its candidate when a version is asked for.
    fn request(&mut self, request: &PackageRequest, unapproved: &BTreeSet<String>) -> Result<NameId> {
        let universe = self.universe;
        let name = request.name.as_str();
        if unapproved.contains(name) {
            return Err(Error::documents(format!("package `{name}` is asked for and unapproved at the same time"))
                .about(&explain::package(name))
                .hint(format!("take `{name}` out of `software.packages` or of `software.unapproved_packages`")));
        }
        let Some(id) = universe.find(name) else { return Err(explain::unknown(universe, name)) };
        if universe.name(id).versions.is_empty() {
            return self.only_provider(id, name);
        }
        let Some(wanted) = request.version.as_deref() else {
            return match self.candidate(id) {
                Some(_) => Ok(id),
                None => Err(Error::documents(format!("package `{name}` has no version that may be installed"))
                    .about(&explain::package(name))
                    .hint("the pin `priority` of its repository keeps it out")),
            };
        };
        let versions = &universe.name(id).versions;
        let Some(version) = versions.iter().find(|version| universe.version(**version).version == wanted) else {
            return Err(explain::unknown_version(universe, id, wanted));
        };
        self.choose_candidate(id, *version).map_err(|installed| {
            Error::documents(format!(
                "package `{name}` is asked for in version {wanted}, a lower layer has {installed}"
            ))
            .about(&explain::package(name))
            .hint("ask for that version in the lower layer")
        })?;
        Ok(id)
    }

    /// A name that no package has may stand for the one package that provides it.
    fn only_provider(&self, id: NameId, name: &str) -> Result<NameId> {
        let universe = self.universe;
        let mut owners: Vec<NameId> = Vec::new();
        for (version, _) in &universe.name(id).providers {
            let owner = universe.version(*version).name;
            if self.candidate(owner) == Some(*version) && !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        match owners[..] {
            [] => Err(explain::unknown(universe, name)),
            [only] => Ok(only),
            _ => {
                owners.sort_by_key(|id| universe.name(*id).name);
                let names: Vec<&str> = owners.iter().map(|id| universe.name(*id).name).collect();
                Err(Error::documents(format!("`{name}` is not a package but provided by several"))
                    .about(&explain::package(name))
                    .hint(format!("ask for one of them: {}", names.join(", "))))
            }
        }
    }
}
