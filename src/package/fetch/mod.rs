//! Bringing files from mirrors into the cache: package indexes and packages.
//!
//! Owns: [`fetch_all`] and the layout of `<cache>/debs`. A package lies under its digest, so any number of processes
//! and builds share it; it appears there complete and verified or not at all.

mod download;
pub mod index;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::report::Unit;
use crate::tree::Digest;

use super::Environment;
use super::lock::{LockedPackage, LockedRepository};
use download::{Expected, download};

/// Connections to one host at a time.
const PER_HOST: usize = 6;

/// Where the store of a cache folder keeps the package of this digest.
pub fn deb_path(cache: &Path, sha256: &Digest) -> PathBuf {
    let hex = sha256.to_hex();
    cache.join("debs/sha256").join(&hex[..2]).join(format!("{hex}.deb"))
}

/// Makes sure that all packages are in the store; their files, in the order of `packages`.
///
/// `repositories` are those of the lock's evidence. Every file was compared with its digest in this call.
pub fn fetch_all(
    packages: &[LockedPackage],
    repositories: &BTreeMap<String, LockedRepository>,
    environment: &Environment,
) -> Result<Vec<PathBuf>> {
    let jobs = packages.iter().map(|package| job(package, repositories, environment)).collect::<Result<Vec<_>>>()?;
    let total = packages.iter().map(|package| package.size).sum();
    let step = environment.reporter.step_of("fetch packages", total, Unit::Bytes);
    let downloaded = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let failure: Mutex<Option<Error>> = Mutex::default();
    let work = |jobs: &[&Job], next: &AtomicUsize| {
        while !stop.load(Ordering::Relaxed) {
            let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            match download(&environment.http, &job.url, &job.expected, &job.path, &|bytes| step.advance(bytes)) {
                Ok(true) => _ = downloaded.fetch_add(1, Ordering::Relaxed),
                Ok(false) => {}
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    let mut slot = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    // The first failure is the cause; what other threads report after it is noise.
                    slot.get_or_insert(error.add_context(format!("fetching package {}", job.name)));
                }
            }
        }
    };
    let mut hosts: BTreeMap<&str, Vec<&Job>> = BTreeMap::new();
    for job in &jobs {
        hosts.entry(&job.host).or_default().push(job);
    }
    let hosts: Vec<(Vec<&Job>, AtomicUsize)> = hosts.into_values().map(|jobs| (jobs, AtomicUsize::new(0))).collect();
    std::thread::scope(|scope| {
        for (jobs, next) in &hosts {
            for _ in 0..PER_HOST.min(jobs.len()) {
                scope.spawn(|| work(jobs, next));
            }
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    step.finish(format!("{} packages, {} of them downloaded", packages.len(), downloaded.into_inner()));
    Ok(jobs.into_iter().map(|job| job.path).collect())
}

struct Job {
    name: String,
    host: String,
    url: String,
    expected: Expected,
    path: PathBuf,
}

fn job(
    package: &LockedPackage,
    repositories: &BTreeMap<String, LockedRepository>,
    environment: &Environment,
) -> Result<Job> {
    let repository = repositories.get(&package.repository).ok_or_else(|| {
        Error::documents(format!(
            "package {} is locked to repository `{}`, which is unknown",
            package.name, package.repository
        ))
    })?;
    super::index::check_path(&package.path)?;
    let source = repository.source.trim_end_matches('/');
    let host = source.split('/').nth(2).unwrap_or_default();
    Ok(Job {
        name: package.name.clone(),
        host: host.to_owned(),
        url: format!("{source}/{}", package.path.trim_start_matches("./")),
        expected: Expected { size: package.size, sha256: package.sha256 },
        path: deb_path(&environment.cache, &package.sha256),
    })
}
