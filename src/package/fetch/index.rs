//! The indexes of a repository: fetched, verified, kept in the cache.
//!
//! Owns: [`update`], its halves [`check`] and [`Signed::read`], and the layout of `<cache>/indexes`: `sha256/<digest>`
//! holds index files as downloaded, [`plain`] their text, `seen/<repository>` the date of the newest signed index seen, so that a mirror
//! cannot go back in time.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::api::params::distribution::Repository;
use crate::error::{Context, Error, Kind, Result};
use crate::package::Environment;
use crate::package::http::redact;
use crate::package::keyring::Keyring;
use crate::package::lock::LockedRepository;
use crate::package::release::Release;
use crate::package::snapshot::{Snapshot, address};
use crate::tree::Digest;

use super::download::{Expected, download, download_small, is_present};
use super::plain;

/// A signed index larger than this is refused (Debian's largest are below 2 MiB).
const RELEASE_LIMIT: u64 = 32 << 20;

/// Package indexes larger than this are refused, compressed or not.
const INDEX_LIMIT: u64 = 2 << 30;

/// Compressions of package indexes, the one wanted most first.
const FORMS: [(&str, Form); 3] = [(".xz", Form::Xz), (".gz", Form::Gzip), ("", Form::Plain)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Xz,
    Gzip,
    Plain,
}

/// The verified indexes of one repository.
#[derive(Debug)]
pub struct Updated {
    pub pin: i32,
    /// `Date` of the signed index, in seconds since the epoch.
    pub date: i64,
    /// Decompressed package indexes, in the order of the components.
    pub texts: Vec<String>,
    pub locked: LockedRepository,
    /// Of each text whether it is new: [`Updated::keep`].
    unkept: Vec<Option<Expected>>,
}

impl Updated {
    /// Keeps texts that were decompressed now, so that the next run need not. Can be done while they are looked at.
    pub fn keep(&self, environment: &Environment) -> Result<()> {
        let new = self.texts.iter().zip(&self.unkept).filter_map(|(text, new)| Some((text, new.as_ref()?)));
        new.into_iter().try_for_each(|(text, expected)| plain::keep(&environment.cache, expected, text))
    }
}

/// A repository's signed index, verified and fresh. Of the package indexes it names nothing was read yet.
#[derive(Debug)]
pub struct Signed {
    pub pin: i32,
    /// `Date` of the signed index, in seconds since the epoch.
    pub date: i64,
    pub locked: LockedRepository,
    place: Place,
    release: Release,
    /// The package indexes, in the order of the components.
    wanted: Vec<(String, Form, Expected)>,
    snapshot: Option<Snapshot>,
}

/// Fetches and verifies what a repository offers for one architecture.
pub fn update(name: &str, repository: &Repository, architecture: &str, environment: &Environment) -> Result<Updated> {
    let updated = check(name, repository, architecture, environment)?.read(name, repository, environment)?;
    updated.keep(environment)?;
    Ok(updated)
}

/// The first half of [`update`]: signature, freshness, and which package indexes there are.
pub fn check(name: &str, repository: &Repository, architecture: &str, environment: &Environment) -> Result<Signed> {
    check_inner(repository, architecture, environment).map_err(|error| located(error, name, repository))
}

fn located(error: Error, name: &str, repository: &Repository) -> Error {
    let doing = format!("updating repository {name} ({} {})", redact(&repository.source), repository.suite);
    error.within(&["distribution", "repositories", name]).add_context(doing)
}

impl Signed {
    /// Path and digest of each package index, in the order in which they are read.
    pub fn indexes(&self) -> impl Iterator<Item = (&str, Digest)> {
        self.wanted.iter().map(|(path, _, expected)| (path.as_str(), expected.sha256))
    }

    /// The second half of [`update`]: the package indexes, from the cache where they are there. [`Updated::keep`] is left.
    pub fn read(self, name: &str, repository: &Repository, environment: &Environment) -> Result<Updated> {
        let texts = self.texts(environment).map_err(|error| located(error, name, repository))?;
        let (texts, unkept) = texts.into_iter().unzip();
        Ok(Updated { pin: self.pin, date: self.date, texts, locked: self.locked, unkept })
    }

    fn texts(&self, environment: &Environment) -> Result<Vec<(String, Option<Expected>)>> {
        let read = |(path, form, expected): &(String, Form, Expected)| {
            read_index(&self.place, &self.release, path, *form, *expected, environment)
                .map_err(|error| not_from_elsewhere(error, self.snapshot.as_ref()))
        };
        self.wanted.iter().map(read).collect()
    }
}

fn check_inner(repository: &Repository, architecture: &str, environment: &Environment) -> Result<Signed> {
    let snapshot = Snapshot::of(repository)?;
    if let Some(snapshot) = snapshot.as_ref().filter(|snapshot| snapshot.time > environment.now) {
        return Err(Error::documents(format!("snapshot {} lies in the future", snapshot.stamp))
            .about(&["snapshot"])
            .hint("what an archive will be then, nobody knows"));
    }
    let source = address(repository)?;
    let place = Place::of(&source, &repository.suite)?;
    // A snapshot is judged as of its time: that its index has expired since is what snapshots are for.
    let now = snapshot.as_ref().map_or(environment.now, |snapshot| snapshot.time);
    let keyring = Keyring::load(&repository.keyring).map_err(|error| error.about(&["keyring"]))?;
    let bytes = download_small(&environment.http, &place.url("InRelease"), RELEASE_LIMIT)
        .map_err(|error| not_from_elsewhere(error, snapshot.as_ref()).about(&["source"]))?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| Error::new(Kind::Authenticity, "the signed index is not text"))?;
    let verified = keyring.verify_as_of(text, now, environment.now).map_err(|error| error.about(&["keyring"]))?;
    let release = Release::parse(&verified.text)?;
    release.check(&repository.suite, now).map_err(|error| error.about(&["source"]))?;
    if let Some(snapshot) = snapshot.as_ref().filter(|snapshot| release.date > snapshot.time) {
        let message = format!("the index is newer ({}) than snapshot {}", release.date_text, snapshot.stamp);
        return Err(Error::new(Kind::Authenticity, message)
            .about(&["snapshot"])
            .hint("what answers is not that snapshot: perhaps the live archive, or a cache on the way"));
    }
    refuse_rollback(repository, snapshot.as_ref(), &release, &environment.cache)
        .map_err(|error| error.about(&["source"]))?;
    let mut wanted = Vec::new();
    for folder in folders(repository, &release, architecture)? {
        wanted.push(choose(&release, &folder).ok_or_else(|| missing(&folder, &release))?);
    }
    let locked = LockedRepository {
        source: redact(&source),
        suite: repository.suite.clone(),
        date: release.date_text.clone(),
        signed_by: verified.signed_by,
        release: Digest::of(&bytes),
        indexes: wanted.iter().map(|(path, _, expected)| (path.clone(), expected.sha256)).collect(),
    };
    let pin = repository.priority.unwrap_or(release.default_pin);
    Ok(Signed { pin, date: release.date, locked, place, release, wanted, snapshot })
}

/// The address of a suite. A suite that ends in `/` is a flat repository: no `dists`, no components.
#[derive(Debug)]
struct Place {
    base: String,
}

impl Place {
    fn of(source: &str, suite: &str) -> Result<Self> {
        let source = source.trim_end_matches('/');
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/' | b'+' | b'~' | b':');
        if suite.is_empty() || !suite.bytes().all(plain) || suite.split('/').any(|part| part == "..") {
            return Err(Error::documents(format!("`{suite}` is not the name of a suite")).about(&["suite"]));
        }
        let base = match suite.strip_suffix('/') {
            Some("" | ".") => source.to_owned(),
            Some(folder) => format!("{source}/{}", folder.trim_matches('/')),
            None => format!("{source}/dists/{suite}"),
        };
        Ok(Place { base })
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }
}

/// The folders below the suite that hold package indexes: per component, this architecture and perhaps `all`.
fn folders(repository: &Repository, release: &Release, architecture: &str) -> Result<Vec<String>> {
    if repository.suite.ends_with('/') {
        return Ok(vec![String::new()]);
    }
    if repository.components.is_empty() {
        return Err(Error::documents("no component is asked for")
            .about(&["components"])
            .hint(format!("the suite has {}", release.components.join(", "))));
    }
    let mut folders = Vec::new();
    for component in repository.components.keys() {
        if !release.components.is_empty() && !release.components.contains(component) {
            return Err(Error::documents(format!("the suite has no component `{component}`"))
                .about(&["components", component])
                .hint(format!("it has {}", release.components.join(", "))));
        }
        folders.push(format!("{component}/binary-{architecture}/"));
        let all = format!("{component}/binary-all/");
        if release.separate_all && choose(release, &all).is_some() {
            folders.push(all);
        }
    }
    Ok(folders)
}

fn choose(release: &Release, folder: &str) -> Option<(String, Form, Expected)> {
    FORMS.iter().find_map(|(extension, form)| {
        let path = format!("{folder}Packages{extension}");
        let (size, sha256) = *release.files.get(&path)?;
        Some((path, *form, Expected { size, sha256 }))
    })
}

fn missing(folder: &str, release: &Release) -> Error {
    let known: Vec<&str> = release
        .files
        .keys()
        .filter_map(|path| path.rsplit_once('/').filter(|(_, file)| file.starts_with("Packages")))
        .map(|(folder, _)| folder)
        .collect();
    let mut known: Vec<&str> = known.into_iter().filter(|folder| folder.contains("binary-")).collect();
    known.dedup();
    known.truncate(12);
    Error::documents(format!("the suite has no package index `{folder}Packages` with a SHA-256 digest"))
        .hint(format!("it has {}", known.join(", ")))
}

/// One index: from the cache when its digest is known there, else from the mirror; decompressed. With what it has to be
/// if it is to be kept in that form.
fn read_index(
    place: &Place,
    release: &Release,
    path: &str,
    form: Form,
    expected: Expected,
    environment: &Environment,
) -> Result<(String, Option<Expected>)> {
    // The empty index of an empty component may have no bytes to compress.
    if expected.size > INDEX_LIMIT {
        return Err(Error::new(Kind::Authenticity, format!("index {path} is said to have {} bytes", expected.size)));
    }
    let plain_path = path.trim_end_matches(".xz").trim_end_matches(".gz");
    let plain = release.files.get(plain_path).map(|(size, sha256)| Expected { size: *size, sha256: *sha256 });
    let plain = plain.filter(|plain| form != Form::Plain && plain.size <= INDEX_LIMIT);
    if let Some(text) = plain.as_ref().and_then(|plain| plain::recall(&environment.cache, plain, environment.now)) {
        return Ok((text, None));
    }
    let file = environment.cache.join("indexes/sha256").join(expected.sha256.to_hex());
    // Nothing is said of an index that is at hand; every further image of a build finds it so.
    if !is_present(&file, &expected, &environment.reporter)? {
        fetch_index(place, release, path, &expected, &file, environment)?;
    }
    let limit = plain.map_or(INDEX_LIMIT, |plain| plain.size);
    let text = decompress(&file, form, limit).with_context(|| format!("reading index {path}"))?;
    Ok((text, plain))
}

fn fetch_index(
    place: &Place,
    release: &Release,
    path: &str,
    expected: &Expected,
    file: &Path,
    environment: &Environment,
) -> Result<()> {
    let plain = place.url(path);
    let folder = plain.rsplit_once('/').map_or("", |(folder, _)| folder);
    let by_hash = format!("{folder}/by-hash/SHA256/{}", expected.sha256);
    let step =
        environment.reporter.step_of(format!("fetch {}", redact(&plain)), expected.size, crate::report::Unit::Bytes);
    let get = |url: &str| download(environment, url, expected, file, &|bytes| step.advance(bytes));
    // By hash first: that file does not change while we look. Some mirrors announce it and do not have it.
    match (release.by_hash, release.by_hash.then(|| get(&by_hash))) {
        (true, Some(Ok(_))) => {}
        (true, Some(Err(error))) if error.kind() == Kind::Network => _ = get(&plain).map_err(|_| error)?,
        (true, Some(Err(error))) => return Err(error),
        _ => _ = get(&plain)?,
    }
    step.finish("downloaded");
    Ok(())
}

fn decompress(file: &Path, form: Form, limit: u64) -> Result<String> {
    let input = std::io::BufReader::with_capacity(
        256 << 10,
        File::open(file).with_context(|| format!("opening {}", file.display()))?,
    );
    let reader: Box<dyn Read> = match form {
        Form::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(input)),
        Form::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Form::Plain => Box::new(input),
    };
    let mut bytes = Vec::with_capacity(usize::try_from(limit).unwrap_or(0).min(256 << 20));
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes).context("decompressing")?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(Kind::Authenticity, format!("it is longer than the signed {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| Error::build("it is not UTF-8 text"))
}

/// Says that there is no way around a snapshot that cannot be had.
fn not_from_elsewhere(error: Error, snapshot: Option<&Snapshot>) -> Error {
    match snapshot {
        Some(snapshot) if error.kind() == Kind::Network => error
            .hint(format!("snapshot {} has to have every repository; the live archive is not asked", snapshot.stamp)),
        _ => error,
    }
}

/// Compares the date of the signed index with the newest one seen from this repository, and remembers it.
fn refuse_rollback(
    repository: &Repository,
    snapshot: Option<&Snapshot>,
    release: &Release,
    cache: &Path,
) -> Result<()> {
    let folder = cache.join("indexes/seen");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    // The suite and not the mirror: changing the mirror is one way to go back in time. The keyring is part of it, so
    // that two archives with a suite of one name stay apart.
    let mut key = format!("{}\n{}\n{}", repository.keyring, repository.suite, archive_path(&repository.source));
    if let Some(snapshot) = snapshot {
        // Older than the live archive on purpose, but the same each time.
        key += &format!("\n{}", snapshot.stamp);
    }
    let path = folder.join(&Digest::of(key.as_bytes()).to_hex()[..32]);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("locking {}", path.display()))?;
    let mut seen = String::new();
    (&mut file).take(64).read_to_string(&mut seen).with_context(|| format!("reading {}", path.display()))?;
    let newest: Option<i64> = seen.trim().parse().ok();
    if newest.is_some_and(|newest| release.date < newest) {
        return Err(Error::new(
            Kind::Authenticity,
            format!("the index is older ({}) than one seen before from this archive", release.date_text),
        )
        .hint(format!("the mirror is behind, use another one; to accept it all the same, remove {}", path.display())));
    }
    if newest != Some(release.date) {
        let text = format!("{:<20}\n", release.date);
        std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), 0)
            .and_then(|()| file.flush())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The part of an address that mirrors of one archive have in common: `debian`, `debian-security`, `ubuntu`.
fn archive_path(source: &str) -> &str {
    source.trim_end_matches('/').rsplit('/').next().unwrap_or(source)
}
