//! Everything that can fail on input, before the first byte of an image is built: the lock, and whether it fits.
//!
//! Owns: [`prepare`], [`Locking`] (where the lock comes from) and [`make_lock`], which the verb `lock` uses too. A lock
//! that is there is compared with the documents and this program first; only then anything is fetched, and an index
//! never is. Packages are fetched while others are built ([`delivery`](super::delivery)), or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::clock;
use super::pack::{Format, Live};
use super::run::{Options, output_folder};
use super::toolstree::{self, Program, Source};
use crate::api::image_configuration::ImageType;
use crate::boot::{Identity, Layout};
use crate::error::{Context, Error, Kind, Result};
use crate::format::squashfs;
use crate::package::fetch::deb_path;
use crate::package::lock::{Lock, LockedFile, LockedPackage, answers, newest_build_time};
use crate::package::{self, Environment, fetch, keyring};
use crate::plan::{self, Intent, LockedPlan, drift};
use crate::tree::Digest;
use crate::tree::store::Store;

/// Where the lock of a build comes from.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Locking {
    /// From beside the documents where there is one, else resolved afresh.
    #[default]
    IfThere,
    /// From beside the documents, or the build fails.
    Required,
    /// Resolved afresh, whatever lies beside the documents.
    Afresh,
    /// This one, for every image.
    Given(Box<Lock>),
}

/// An Intent with its packages resolved.
pub struct Prepared<'a> {
    pub intent: &'a Intent,
    /// Its epoch may be left open; [`Prepared::settle`] knows it.
    pub lock: Lock,
    pub layout: Layout,
    /// In the order of `lock.packages()`. Not there before they were fetched.
    pub debs: Vec<PathBuf>,
    /// What they are made into is not at hand.
    pub wanted: bool,
    settled: OnceLock<Settled>,
    fetched: AtomicBool,
    /// Keyrings that repositories name by path, for the image's own sources.
    pub keyrings: BTreeMap<String, Vec<u8>>,
    /// What checks the finished image, when that is asked for.
    pub tools: Option<(Source, Lock)>,
    /// Of an ISO: what it has beside the Tree.
    pub live: Option<Live>,
}

/// What is known of an image once its packages are there, or their times are known.
pub struct Settled {
    pub lock: Lock,
    pub plan: LockedPlan,
}

impl Prepared<'_> {
    /// Brings all packages into the store, unless they are known to be there.
    pub fn fetch(&self, environment: &Environment) -> Result<()> {
        if !self.fetched.load(Ordering::Relaxed) {
            let packages: Vec<_> = self.lock.packages().cloned().collect();
            fetch_packages(self.intent, &self.lock, &packages, environment)?;
            self.fetched.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Brings the packages of one layer, lowest first, if they are wanted. `there` are those that this run has brought.
    pub fn fetch_layer(&self, layer: usize, there: &mut BTreeSet<Digest>, environment: &Environment) -> Result<()> {
        let all = &self.lock.layers[layer].packages;
        if !self.wanted || all.is_empty() {
            return Ok(());
        }
        let packages: Vec<_> = all.iter().filter(|package| !there.contains(&package.sha256)).cloned().collect();
        if !packages.is_empty() {
            fetch_packages(self.intent, &self.lock, &packages, environment)?;
            there.extend(packages.iter().map(|package| package.sha256));
        }
        if layer + 1 == self.lock.layers.len() {
            self.fetched.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The identities of the layers, bottom to top.
    pub fn layer_keys(&self) -> Vec<Digest> {
        plan::locked::layer_digests(self.intent, &self.lock).into_iter().map(|(_, digest)| digest).collect()
    }

    /// To be called when all packages are there: the epoch, and with it the plan.
    pub fn settle(&self, environment: &Environment) -> Result<&Settled> {
        if let Some(settled) = self.settled.get() {
            return Ok(settled);
        }
        let newest = match answers::recall_time(&self.lock, environment) {
            Some(newest) => newest,
            None => {
                let newest = newest_build_time(&self.debs)?;
                answers::keep_time(&self.lock, newest, environment)?;
                newest
            }
        };
        let settled = settled(self.intent, &self.lock, newest, environment)?;
        Ok(self.settled.get_or_init(|| settled))
    }
}

/// `newest` is the time of the newest package.
fn settled(intent: &Intent, lock: &Lock, newest: i64, environment: &Environment) -> Result<Settled> {
    clock::check(environment.now, lock.epoch.into_iter().chain([newest]))?;
    let lock = Lock { epoch: lock.epoch.or(Some(newest)), ..lock.clone() };
    let plan = LockedPlan::new(intent, &lock)?;
    Ok(Settled { lock, plan })
}

pub fn prepare<'a>(intent: &'a Intent, options: &Options<'_>, store: &Store) -> Result<Prepared<'a>> {
    let environment = &options.environment;
    for finding in &intent.warnings {
        environment.reporter.warning(Error::from(finding.diagnostic.clone()).to_string());
    }
    let identity = Identity { site: intent.site.clone(), image: intent.image.clone() };
    let layout = Layout::new(&intent.params.storage, &identity)?;
    for output in &intent.outputs {
        let held = Format::of(output)?.check_size(layout.disk_size);
        held.map_err(|error| error.about(&["storage", "qcow_capacity"]))?;
    }
    let keyrings = keyring_files(intent)?;
    let live = live(intent, identity, options)?;
    let (lock, is_new) = match existing(intent, options)? {
        Some(lock) => {
            if let Locking::Given(_) = options.locking {
                // That of an image: nobody can bring it up to date.
                drift::check(intent, &lock).map_err(|error| error.only_hint(plan::rebuild::ANOTHER_VERSION))?;
            }
            check(intent, &lock, options.epoch, &keyrings)?;
            (lock, false)
        }
        None => {
            let lock = package::lock::resolve(&toolstree::image_request(intent), environment)?;
            (completed(intent, lock, options.epoch)?, true)
        }
    };
    let debs = lock.packages().map(|package| deb_path(&environment.cache, &package.sha256)).collect();
    clock::check(environment.now, lock.epoch)?;
    let mut one = Prepared {
        intent,
        lock,
        layout,
        debs,
        wanted: true,
        settled: OnceLock::new(),
        fetched: false.into(),
        keyrings,
        tools: None,
        live,
    };
    if answers::recall_time(&one.lock, environment).is_some() {
        one.settle(environment)?;
        if one.layer_keys().last().is_some_and(|top| store.has(*top)) {
            environment.reporter.note("packages: not needed, what they make is in the cache");
            one.wanted = false;
        }
    }
    if options.verify {
        one.tools = Some(tools(intent, &one.lock, is_new, environment)?);
    }
    Ok(one)
}

/// What an ISO has beside its Tree; whatever is wrong with it is known before anything is built.
fn live(intent: &Intent, identity: Identity, options: &Options<'_>) -> Result<Option<Live>> {
    let Some(output) = intent.outputs.iter().find(|output| output.kind.is_live()) else { return Ok(None) };
    let source = intent.seed.as_ref().ok_or_else(|| Error::build("the ISO has no place for its seed"))?;
    let seed = source.load()?;
    for secret in &seed.secrets {
        options.environment.reporter.warning(format!("everybody who gets the ISO can read a secret: {secret}"));
    }
    let name = match output.compression {
        plan::Compression::Lz4 => "lz4",
        plan::Compression::Xz => "xz",
        plan::Compression::Gzip => "gzip",
        _ => "zstd",
    };
    let compression = squashfs::Compression::named(name, output.level)?;
    let threads = output.threads.map(|threads| threads as usize).filter(|threads| *threads > 0);
    let iso = intent.outputs.iter().find(|output| output.kind == ImageType::Iso);
    let earlier = iso.map(|output| output_folder(intent, options).join(&output.file_name));
    Ok(Some(Live { identity, seed, compression, threads, earlier }))
}

/// The programs that check the image. Its lock names them, so no index is needed.
fn tools(intent: &Intent, lock: &Lock, is_new: bool, environment: &Environment) -> Result<(Source, Lock)> {
    let source = Source::of(intent);
    if let Some(tools) = toolstree::of_image(lock, &Program::ALL) {
        fetch::fetch_all(&lock.tools, &lock.repositories_at(&intent.package_request())?, environment)
            .context("fetching the tools")?;
        return Ok((source, tools));
    }
    if is_new {
        // Says what the repositories lack.
        let request = source.request(&Program::ALL);
        package::lock::resolve(&request, environment).context("choosing the packages of the tools")?;
    }
    Err(Error::new(Kind::Drift, "the lock does not name the programs that `--verify` needs")
        .hint("`imagebuilder lock` on these documents adds them and moves nothing else"))
}

/// The lock that the build has to use, if there is one.
fn existing(intent: &Intent, options: &Options<'_>) -> Result<Option<Lock>> {
    let read = || lock_beside(intent);
    let lock = match &options.locking {
        Locking::Afresh => return Ok(None),
        Locking::Given(lock) => return Ok(Some((**lock).clone())),
        Locking::IfThere => read()?,
        Locking::Required => Some(read()?.ok_or_else(|| missing(intent))?),
    };
    if let (Some(lock), Some(path)) = (&lock, &intent.lock_path) {
        let count = lock.packages().count();
        options.environment.reporter.note(format!("using lock {} ({count} packages)", path.display()));
    }
    Ok(lock)
}

/// Reads the lock beside the documents; nothing when there is none.
pub fn lock_beside(intent: &Intent) -> Result<Option<Lock>> {
    match &intent.lock_path {
        Some(path) if path.symlink_metadata().is_ok() => Lock::read(path).map(Some),
        _ => Ok(None),
    }
}

/// The error for a lock that has to be there.
pub fn missing(intent: &Intent) -> Error {
    let error = match &intent.lock_path {
        Some(path) => Error::new(Kind::Drift, format!("there is no lock {}", path.display())),
        None => Error::new(Kind::Drift, "these documents have no place for a lock"),
    };
    error.hint("make it with `imagebuilder lock` on the same documents, and commit it")
}

fn fetch_packages(
    intent: &Intent,
    lock: &Lock,
    packages: &[LockedPackage],
    environment: &Environment,
) -> Result<Vec<PathBuf>> {
    let repositories = lock.repositories_at(&intent.package_request())?;
    fetch::fetch_all(packages, &repositories, environment).map_err(|error| match error.kind() {
        Kind::Network => error.hint(
            "archives drop packages when newer ones come: `imagebuilder lock --update` takes those; a `snapshot` \
             of the repository, or a store that has them, keeps the old ones",
        ),
        _ => error,
    })
}

/// Whether a lock fits documents, program, `SOURCE_DATE_EPOCH` and the keyrings of this machine. No network.
pub fn check(intent: &Intent, lock: &Lock, epoch: Option<i64>, keyrings: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    drift::check(intent, lock)?;
    lock.clone().ask_epoch(epoch)?;
    let now = locked_files(keyrings);
    let all =
        lock.files.iter().chain(now.iter().filter(|file| !lock.files.iter().any(|known| known.path == file.path)));
    for file in all {
        let known = lock.files.iter().find(|known| known.path == file.path);
        let here = now.iter().find(|here| here.path == file.path);
        if known != here {
            let problem = match (known, here) {
                (Some(_), Some(_)) => "is another one than in the lock",
                (None, _) => "is not in the lock",
                (_, None) => "is in the lock, and no repository names it",
            };
            return Err(Error::new(Kind::Drift, format!("keyring {} {problem}", file.path))
                .hint("`imagebuilder lock` on these documents brings the lock up to date"));
        }
    }
    Ok(())
}

/// Makes a freshly resolved lock complete: fetches what it names, settles the epoch. Its packages come back too.
pub fn make_lock(
    intent: &Intent,
    lock: Lock,
    epoch: Option<i64>,
    environment: &Environment,
) -> Result<(Lock, Vec<PathBuf>)> {
    let mut lock = completed(intent, lock, epoch)?;
    let packages: Vec<_> = lock.packages().cloned().collect();
    let debs = fetch::fetch_all(&packages, &lock.repositories_at(&intent.package_request())?, environment)?;
    lock.settle_epoch(&debs)?;
    Ok((lock, debs))
}

/// Everything in a freshly resolved lock that does not need its packages.
fn completed(intent: &Intent, mut lock: Lock, epoch: Option<i64>) -> Result<Lock> {
    plan::locked::complete(&mut lock, intent);
    lock.files = locked_files(&keyring_files(intent)?);
    lock.ask_epoch(epoch)?;
    Ok(lock)
}

fn locked_files(keyrings: &BTreeMap<String, Vec<u8>>) -> Vec<LockedFile> {
    let file = |(path, bytes): (&String, &Vec<u8>)| LockedFile {
        path: path.clone(),
        size: bytes.len() as u64,
        sha256: Digest::of(bytes),
    };
    keyrings.iter().map(file).collect()
}

/// The keyrings that repositories name by path. They enter the image with its own sources.
pub fn keyring_files(intent: &Intent) -> Result<BTreeMap<String, Vec<u8>>> {
    let repositories = &intent.params.distribution.repositories;
    let mut files = BTreeMap::new();
    for (name, repository) in repositories.iter().filter(|(_, repository)| repository.keyring.starts_with('/')) {
        let path = &repository.keyring;
        let bytes = keyring::read_file(Path::new(path))
            .map_err(|error| error.about(&["distribution", "repositories", name, "keyring"]))
            .with_context(|| format!("reading keyring {path}"))?;
        files.insert(path.clone(), bytes);
    }
    Ok(files)
}
