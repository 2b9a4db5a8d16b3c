//! Where the packages of a lock can be fetched, when the lock does not say it.
//!
//! Owns: [`find`], for locks that were read without their evidence ([`Lock::from_hashed_part`]). Packages that are in
//! the store already need no place; for the others the signed indexes of the repositories are searched by digest. The
//! tools, which are no part of the image, are not looked for.

use std::collections::{BTreeMap, BTreeSet};

use super::{Lock, LockedPackage, Request, update_all};
use crate::error::{Error, Kind, Result};
use crate::package::Environment;
use crate::package::fetch::deb_path;
use crate::package::index::{Index, Universe};
use crate::tree::Digest;

/// More missing packages than this are counted, not named.
const NAMED: usize = 20;

/// Gives every package that is not in the store its repository and path. One that no repository has any more is an
/// error that names it. Without missing packages no network is needed.
pub fn find(lock: &mut Lock, request: &Request, environment: &Environment) -> Result<()> {
    let absent = |package: &LockedPackage| !deb_path(&environment.cache, &package.sha256).is_file();
    let wanted: BTreeSet<Digest> =
        lock.packages().filter(|package| absent(package)).map(|package| package.sha256).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let step = environment.reporter.step(format!("find {} packages", wanted.len()));
    let updated = update_all(request, environment)?;
    let mut indexes = Vec::new();
    for (name, repository) in &updated {
        let of_repository = |text| Index { repository: name, pin: repository.pin, text };
        indexes.extend(repository.texts.iter().map(|text| of_repository(text.as_str())));
    }
    let universe = Universe::read(&request.architecture, &indexes)?;
    let mut places: BTreeMap<Digest, (String, String)> = BTreeMap::new();
    for (_, name) in universe.names() {
        for version in name.versions.iter().map(|version| universe.version(*version)) {
            if wanted.contains(&version.sha256) {
                let place = || (version.repository.to_owned(), version.path.to_owned());
                places.entry(version.sha256).or_insert_with(place);
            }
        }
    }
    drop((universe, indexes));
    let mut gone = Vec::new();
    for package in lock.layers.iter_mut().flat_map(|layer| &mut layer.packages) {
        match places.get(&package.sha256) {
            Some((repository, path)) => {
                package.repository.clone_from(repository);
                package.path.clone_from(path);
            }
            None if wanted.contains(&package.sha256) => {
                gone.push(format!("{} {} ({})", package.name, package.version, package.sha256));
            }
            None => {}
        }
    }
    if !gone.is_empty() {
        return Err(missing(&gone, environment));
    }
    lock.evidence.repositories = updated.into_iter().map(|(name, updated)| (name, updated.locked)).collect();
    step.finish(format!("in {} repositories", lock.evidence.repositories.len()));
    Ok(())
}

fn missing(gone: &[String], environment: &Environment) -> Error {
    let mut lines: Vec<String> = gone.iter().take(NAMED).map(|one| format!("  - {one}")).collect();
    if gone.len() > NAMED {
        lines.push(format!("  and {} more", gone.len() - NAMED));
    }
    let folder = environment.cache.join("debs/sha256");
    let message = match gone {
        [one] => format!("package {one} is neither in the store nor in any of the repositories"),
        several => format!("{} packages are neither in the store nor in any of the repositories", several.len()),
    };
    let error = Error::new(Kind::Network, message).hint(format!(
        "archives drop packages when newer ones come: put the files into {} as <first two digits>/<digest>.deb",
        folder.display()
    ));
    if gone.len() > 1 { error.snippet(lines.join("\n")) } else { error }
}
