//! Bringing files from mirrors into the cache: package indexes and packages.
//!
//! Owns: [`fetch_all`] and the layout of `<cache>/debs`. A package lies under its digest, so any number of processes
//! and builds share it; it appears there complete and verified or not at all.

mod download;
pub mod index;
pub mod plain;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Kind, Result};
use crate::report::Unit;
use crate::tree::Digest;

use super::Environment;
use super::lock::{LockedPackage, LockedRepository};
use download::{Expected, download, is_present};

/// Connections to one host at a time.
const PER_HOST: usize = 6;

/// Where the store of a cache folder keeps the package of this digest.
pub fn deb_path(cache: &Path, sha256: &Digest) -> PathBuf {
    let hex = sha256.to_hex();
    cache.join("debs/sha256").join(&hex[..2]).join(format!("{hex}.deb"))
}

/// Makes sure that all packages are in the store; their files, in the order of `packages`.
///
/// `repositories` are those of the lock's evidence ([`Lock::repositories_at`](super::lock::Lock::repositories_at) has
/// the addresses of the documents). Every file was compared with its digest in this call. A package whose place is not
/// known has to be in the store.
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
            match job.fetch(environment, &|bytes| step.advance(bytes)) {
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
    /// Nothing where the lock does not say it.
    url: Option<String>,
    expected: Expected,
    path: PathBuf,
}

impl Job {
    /// Whether it had to be downloaded.
    fn fetch(&self, environment: &Environment, progress: &dyn Fn(u64)) -> Result<bool> {
        if let Some(url) = &self.url {
            return download(environment, url, &self.expected, &self.path, progress);
        }
        if !is_present(&self.path, &self.expected, &environment.reporter)? {
            return Err(Error::new(Kind::Network, "it is not in the store, and the lock does not say where to get it")
                .hint(format!(
                    "put the file with SHA-256 digest {} at {}",
                    self.expected.sha256,
                    self.path.display()
                )));
        }
        progress(self.expected.size);
        Ok(false)
    }
}

fn job(
    package: &LockedPackage,
    repositories: &BTreeMap<String, LockedRepository>,
    environment: &Environment,
) -> Result<Job> {
    let repository = repositories.get(&package.repository);
    if repository.is_none() && !package.repository.is_empty() {
        return Err(Error::documents(format!(
            "package {} is locked to repository `{}`, which is unknown",
            package.name, package.repository
        )));
    }
    let source = repository.map(|repository| repository.source.trim_end_matches('/'));
    let url = match source {
        None => None,
        Some(source) => {
            super::index::check_path(&package.path)?;
            Some(format!("{source}/{}", package.path.trim_start_matches("./")))
        }
    };
    Ok(Job {
        name: package.name.clone(),
        host: source.and_then(|source| source.split('/').nth(2)).unwrap_or_default().to_owned(),
        url,
        expected: Expected { size: package.size, sha256: package.sha256 },
        path: deb_path(&environment.cache, &package.sha256),
    })
}
