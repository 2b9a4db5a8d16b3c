//! The lock: exactly which packages and files an image is made of.
//!
//! Owns: the request that is resolved and [`Lock`]. Its file form is [`mod@text`]'s, the request as a lock remembers
//! it [`asked`]'s. The hashed part (packages by digest, in order, recipes, epoch) decides bytes of the image; the
//! evidence part (where and when it was found) does not and is left out of [`Lock::digest`].

pub mod answers;
pub mod asked;
pub mod diff;
pub mod keep;
pub mod places;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use crate::api::params::distribution::Repository;
use crate::api::params::software::Layer;
use crate::error::{Context, Error, Kind, Result};
use crate::tree::Digest;

use super::Environment;
use super::fetch::index::{self, Signed, Updated};
use super::index::{Index, Universe};
use super::resolve;
use super::snapshot::address;
use answers::{Answer, Question};
use asked::Asked;

/// What is asked for: which repositories, and which packages in which layer.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Debian architecture name of the image.
    pub architecture: String,
    /// By the name they have in the documents.
    pub repositories: BTreeMap<String, Repository>,
    /// Bottom to top. The first one also gets all Essential and `Priority: required` packages.
    pub layers: Vec<LayerRequest>,
    /// Packages that must never be chosen, whatever wants them.
    pub unapproved: BTreeSet<String>,
    /// Packages of the tools tree, which stands on the first layer beside the image. Repositories that do not have
    /// them are no error: an image can be made without.
    pub tools: Vec<PackageRequest>,
}

#[derive(Debug, Clone)]
pub struct LayerRequest {
    pub layer: Layer,
    /// In the order in which apt would see them on its command line.
    pub packages: Vec<PackageRequest>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRequest {
    pub name: String,
    /// Exactly this version, else the candidate.
    pub version: Option<String>,
}

/// The version of the file form.
pub const LOCK_VERSION: u32 = 2;

/// The result of resolving a [`Request`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lock {
    /// Name of the image it was made for.
    pub image: String,
    pub architecture: String,
    /// `SOURCE_DATE_EPOCH` of the build, and the only place that says it: as the user asked ([`Lock::ask_epoch`]), else
    /// the newest modification time inside the locked packages, known once they have been fetched
    /// ([`Lock::settle_epoch`]).
    pub epoch: Option<i64>,
    /// Versions of our own steps, by their names: a step of another version may give other bytes.
    pub recipes: BTreeMap<String, u32>,
    /// What was asked for when it was made.
    pub asked: Asked,
    /// Bottom to top; the packages of one layer are installed on top of those before.
    pub layers: Vec<LockedLayer>,
    /// Packages of the tools tree above the first layer, sorted by name; none when the repositories do not have them.
    /// They are never part of the image.
    pub tools: Vec<LockedPackage>,
    /// What else enters the image from outside of the documents, sorted by path.
    pub files: Vec<LockedFile>,
    pub evidence: Evidence,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LockedLayer {
    pub layer: Layer,
    /// Sorted by name.
    pub packages: Vec<LockedPackage>,
    /// Packages of lower layers that came in as dependencies there and are asked for here, sorted: no automatic
    /// removal takes them any more.
    pub manual: Vec<String>,
}

/// One package. `repository` and `path` are evidence: another mirror may deliver the same bytes. Both are empty in a
/// lock that was read without its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPackage {
    pub name: String,
    pub version: String,
    /// Its own architecture: that of the image, or `all`.
    pub architecture: String,
    pub size: u64,
    pub sha256: Digest,
    /// Nobody asked for it by name: it came in as a dependency (apt's `extended_states`).
    pub automatic: bool,
    /// The key of [`Evidence::repositories`] it was found in.
    pub repository: String,
    /// Relative to the repository's address (`Filename` of the index).
    pub path: String,
}

/// One file of the build machine that the image takes in (a keyring named by its path).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedFile {
    pub path: String,
    pub size: u64,
    pub sha256: Digest,
}

/// Where and when the lock was made, and by what. Changes no byte of the image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// The program and its version.
    pub builder: String,
    /// `Date` of the newest index: what was locked is what could be had then.
    pub time: String,
    pub repositories: BTreeMap<String, LockedRepository>,
}

/// One repository as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct LockedRepository {
    /// Without user name and password.
    pub source: String,
    pub suite: String,
    /// `Date` of its signed index, as written there.
    pub date: String,
    /// Fingerprint of the key that signed it.
    pub signed_by: String,
    /// SHA-256 of the signed file.
    pub release: Digest,
    /// Package indexes by their path below the suite.
    pub indexes: BTreeMap<String, Digest>,
}

/// Fetches and verifies the indexes of all repositories and chooses the packages of every layer.
pub fn resolve(request: &Request, environment: &Environment) -> Result<Lock> {
    let step = environment.reporter.step("resolve packages");
    let signed = check_all(request, environment)?;
    let question = Question::new(request, &signed, environment);
    let lock = match question.recall() {
        Some(answer) => new_lock(request, answer, signed.into_iter().map(|(name, one)| (name, one.date, one.locked))),
        None => {
            let updated = read_all(signed, request, environment)?;
            let (kept, answer) = rayon::join(|| keep_all(&updated, environment), || answer(request, &updated));
            kept?;
            let answer = answer?;
            question.keep(&answer)?;
            lock_of(request, answer, updated)
        }
    };
    step.finish(format!("{} packages", lock.packages().count()));
    Ok(lock)
}

fn answer(request: &Request, updated: &[(String, Updated)]) -> Result<Answer> {
    let universe = Universe::read(&request.architecture, &indexes(updated))?;
    Ok(Answer { layers: choose(request, &universe)?, tools: choose_tools(request, &universe) })
}

fn keep_all(updated: &[(String, Updated)], environment: &Environment) -> Result<()> {
    updated.iter().try_for_each(|(_, one)| one.keep(environment))
}

fn indexes(updated: &[(String, Updated)]) -> Vec<Index<'_>> {
    let mut indexes = Vec::new();
    for (name, repository) in updated {
        let of_repository = |text| Index { repository: name, pin: repository.pin, text };
        indexes.extend(repository.texts.iter().map(|text| of_repository(text.as_str())));
    }
    indexes
}

fn choose(request: &Request, universe: &Universe<'_>) -> Result<Vec<LockedLayer>> {
    let layers = resolve::resolve(universe, &request.layers, &request.unapproved)?;
    let layer = |layer: &resolve::ResolvedLayer| LockedLayer {
        layer: layer.layer,
        packages: layer.packages.iter().map(|chosen| locked(universe, chosen)).collect(),
        manual: layer.manual.iter().map(|name| universe.name(*name).name.to_owned()).collect(),
    };
    Ok(layers.iter().map(layer).collect())
}

/// The packages of the tools tree that the first layer does not have. None when they cannot be had.
fn choose_tools(request: &Request, universe: &Universe<'_>) -> Vec<LockedPackage> {
    let Some(base) = request.layers.first().filter(|_| !request.tools.is_empty()) else { return Vec::new() };
    let tools = LayerRequest { layer: Layer::Role, packages: request.tools.clone() };
    match resolve::resolve(universe, &[base.clone(), tools], &request.unapproved) {
        Ok(layers) => {
            let chosen = layers.last().map(|layer| layer.packages.as_slice()).unwrap_or_default();
            chosen.iter().map(|chosen| locked(universe, chosen)).collect()
        }
        Err(error) => {
            tracing::debug!("the lock will name no tools: {error}");
            Vec::new()
        }
    }
}

fn lock_of(request: &Request, answer: Answer, updated: Vec<(String, Updated)>) -> Lock {
    new_lock(request, answer, updated.into_iter().map(|(name, one)| (name, one.date, one.locked)))
}

/// `seen` are name, date and evidence of each repository.
fn new_lock(request: &Request, answer: Answer, seen: impl Iterator<Item = (String, i64, LockedRepository)>) -> Lock {
    let seen: Vec<_> = seen.collect();
    let newest = seen.iter().max_by_key(|(_, date, _)| *date).map(|(_, _, locked)| locked.date.clone());
    let repositories = seen.into_iter().map(|(name, _, locked)| (name, locked)).collect();
    Lock {
        architecture: request.architecture.clone(),
        asked: Asked::of(request),
        layers: answer.layers,
        tools: answer.tools,
        evidence: Evidence { time: newest.unwrap_or_default(), repositories, ..Evidence::default() },
        ..Lock::default()
    }
}

/// Fetches and verifies the signed indexes of all repositories and reads what they name.
fn update_all(request: &Request, environment: &Environment) -> Result<Vec<(String, Updated)>> {
    let updated = read_all(check_all(request, environment)?, request, environment)?;
    keep_all(&updated, environment)?;
    Ok(updated)
}

fn check_all(request: &Request, environment: &Environment) -> Result<Vec<(String, Signed)>> {
    if request.repositories.is_empty() {
        return Err(Error::documents("no repository is defined").hint("fill `distribution.repositories`"));
    }
    let repositories = request.repositories.iter().map(|(name, repository)| (name.clone(), repository)).collect();
    side_by_side(repositories, |name, repository| index::check(name, repository, &request.architecture, environment))
}

fn read_all(
    signed: Vec<(String, Signed)>,
    request: &Request,
    environment: &Environment,
) -> Result<Vec<(String, Updated)>> {
    side_by_side(signed, |name, signed| match request.repositories.get(name) {
        Some(repository) => signed.read(name, repository, environment),
        None => Err(Error::build(format!("repository {name} was not asked for"))),
    })
}

/// All repositories at once: most of the time goes into waiting for answers and decompressing.
fn side_by_side<T: Send, R: Send>(
    all: Vec<(String, T)>,
    work: impl Fn(&str, T) -> Result<R> + Sync,
) -> Result<Vec<(String, R)>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = all
            .into_iter()
            .map(|(name, one)| {
                let of_thread = name.clone();
                (name, scope.spawn(move || work(&of_thread, one)))
            })
            .collect();
        // All are joined before the first error is passed on.
        let results: Vec<_> = threads.into_iter().map(|(name, thread)| (name, thread.join())).collect();
        results
            .into_iter()
            .map(|(name, result)| {
                let result =
                    result.unwrap_or_else(|_| Err(Error::build("reading the indexes stopped unexpectedly")))?;
                Ok((name, result))
            })
            .collect()
    })
}

fn locked(universe: &Universe<'_>, chosen: &resolve::Chosen) -> LockedPackage {
    let version = universe.version(chosen.version);
    LockedPackage {
        name: universe.name(version.name).name.to_owned(),
        version: version.version.to_owned(),
        architecture: version.architecture.to_owned(),
        size: version.size,
        sha256: version.sha256,
        automatic: chosen.automatic,
        repository: version.repository.to_owned(),
        path: version.path.to_owned(),
    }
}

impl Lock {
    /// Sets the epoch to what the user asks for, if anything. One that is set already must be the same.
    pub fn ask_epoch(&mut self, wanted: Option<i64>) -> Result<()> {
        match (self.epoch, wanted) {
            (Some(locked), Some(wanted)) if locked != wanted => {
                Err(Error::new(Kind::Drift, format!("the lock says epoch {locked}, SOURCE_DATE_EPOCH is {wanted}"))
                    .hint("unset SOURCE_DATE_EPOCH, or make the lock again with it"))
            }
            (None, Some(wanted)) => {
                self.epoch = Some(wanted);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Sets the epoch, unless it is set, to the newest modification time inside the given packages (all of the
    /// lock's, as [`fetch_all`](super::fetch::fetch_all) returned them).
    pub fn settle_epoch<P: AsRef<Path>>(&mut self, debs: impl IntoIterator<Item = P>) -> Result<()> {
        if self.epoch.is_none() {
            self.epoch = Some(newest_build_time(debs)?);
        }
        Ok(())
    }

    /// All packages, bottom layer first, by name within a layer.
    pub fn packages(&self) -> impl Iterator<Item = &LockedPackage> {
        self.layers.iter().flat_map(|layer| &layer.packages)
    }

    /// The repositories of the evidence under the addresses that the documents have now: a lock holds no password, and
    /// any mirror may deliver what it names.
    pub fn repositories_at(&self, request: &Request) -> Result<BTreeMap<String, LockedRepository>> {
        let mut repositories = self.evidence.repositories.clone();
        for (name, seen) in &mut repositories {
            if let Some(repository) = request.repositories.get(name) {
                let of_it = |error: Error| error.within(&["distribution", "repositories", name]);
                seen.source = address(repository).map_err(of_it)?;
            }
        }
        Ok(repositories)
    }

    pub fn layer(&self, layer: Layer) -> Option<&LockedLayer> {
        self.layers.iter().find(|locked| locked.layer == layer)
    }

    /// Those of the image and those of the tools tree.
    pub fn all_packages(&self) -> impl Iterator<Item = &LockedPackage> {
        self.packages().chain(&self.tools)
    }

    /// The identity of the hashed part. Two locks with one digest give the same bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(self.hashed_text().as_bytes())
    }
}

impl LockedLayer {
    /// The identity of this layer's packages alone.
    pub fn digest(&self) -> Digest {
        Digest::of(self.hashed_text().as_bytes())
    }

    /// No field can hold a space or a line break: the index parser refuses them.
    fn hashed_text(&self) -> String {
        let mut text = format!("layer {}\n", self.layer.name());
        for package in &self.packages {
            let mark = if package.automatic { "automatic" } else { "manual" };
            text.push_str(&format!(
                "{} {} {} {} {} {mark}\n",
                package.name, package.version, package.architecture, package.size, package.sha256
            ));
        }
        for name in &self.manual {
            text.push_str(&format!("{name} manual\n"));
        }
        text
    }
}

/// The newest [`build_time`] of package files.
pub fn newest_build_time<P: AsRef<Path>>(debs: impl IntoIterator<Item = P>) -> Result<i64> {
    let mut newest = 0;
    for deb in debs {
        let deb = deb.as_ref();
        newest = newest.max(build_time(deb).with_context(|| format!("reading {}", deb.display()))?);
    }
    Ok(newest)
}

/// The time stamp of the first member of the `ar` archive (deb(5)): no file inside a package is newer than that.
pub fn build_time(deb: &Path) -> Result<i64> {
    let mut head = [0; 8 + 60];
    std::fs::File::open(deb).and_then(|mut file| file.read_exact(&mut head)).context("reading its head")?;
    let stamp = std::str::from_utf8(&head[24..36]).ok().and_then(|text| text.trim().parse().ok());
    stamp.filter(|_| head.starts_with(b"!<arch>\n")).ok_or_else(|| Error::build("it is not a Debian package"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn package(name: &str, version: &str) -> LockedPackage {
        LockedPackage {
            name: name.into(),
            version: version.into(),
            architecture: "amd64".into(),
            size: 12,
            sha256: Digest::of(format!("{name} {version}").as_bytes()),
            automatic: false,
            repository: "main".into(),
            path: format!("pool/{name}_{version}.deb"),
        }
    }

    /// A small one in which everything occurs.
    pub fn lock() -> Lock {
        let repository = LockedRepository {
            source: "http://mirror/debian".into(),
            suite: "bookworm".into(),
            date: "Sat, 11 Jul 2026 10:16:37 UTC".into(),
            signed_by: "ABCDEF".into(),
            release: Digest::of(b"release"),
            indexes: BTreeMap::from([("main/binary-amd64/Packages.xz".into(), Digest::of(b"index"))]),
        };
        let automatic = LockedPackage { automatic: true, ..package("libc6", "2.36-9+deb12u7") };
        Lock {
            image: "node".into(),
            architecture: "amd64".into(),
            epoch: Some(1_700_000_000),
            recipes: BTreeMap::from([("rootfs".into(), 1), ("pack".into(), 2)]),
            asked: Asked::default(),
            layers: vec![
                LockedLayer {
                    layer: Layer::Base,
                    packages: vec![package("hello", "1:2.10-3"), automatic],
                    manual: vec![],
                },
                LockedLayer { layer: Layer::Role, packages: vec![], manual: vec!["libc6".into()] },
            ],
            tools: vec![package("mtools", "4.0")],
            files: vec![LockedFile { path: "/usr/share/keyrings/x.gpg".into(), size: 3, sha256: Digest::of(b"key") }],
            evidence: Evidence {
                builder: "imagebuilder 0.1.0".into(),
                time: "Sat, 11 Jul 2026 10:16:37 UTC".into(),
                repositories: BTreeMap::from([("main".into(), repository)]),
            },
        }
    }

    #[test]
    fn evidence_is_not_part_of_the_digest() {
        let mut other = lock();
        other.layers[0].packages[0].repository = "mirror".into();
        other.layers[0].packages[0].path = "elsewhere/hello.deb".into();
        other.evidence = Evidence::default();
        assert_eq!(lock().digest(), other.digest());
        for change in [
            |lock: &mut Lock| lock.layers[0].packages[0].version = "1:2.10-4".into(),
            |lock: &mut Lock| lock.layers[0].packages[0].automatic = true,
            |lock: &mut Lock| lock.layers[1].manual.clear(),
            |lock: &mut Lock| lock.epoch = Some(1),
            |lock: &mut Lock| _ = lock.recipes.insert("pack".into(), 3),
            |lock: &mut Lock| lock.tools.clear(),
            |lock: &mut Lock| lock.files.clear(),
            |lock: &mut Lock| lock.image = "other".into(),
            |lock: &mut Lock| _ = lock.asked.unapproved.insert("telnet".into()),
        ] {
            let mut other = lock();
            change(&mut other);
            assert_ne!(lock().digest(), other.digest());
        }
    }

    #[test]
    fn the_epoch_of_a_lock_is_not_changed() {
        let mut lock = Lock { epoch: None, ..lock() };
        lock.ask_epoch(None).unwrap();
        assert_eq!(lock.epoch, None);
        lock.ask_epoch(Some(7)).unwrap();
        lock.ask_epoch(Some(7)).unwrap();
        lock.settle_epoch::<&Path>([]).unwrap();
        assert_eq!(lock.epoch, Some(7));
        assert_eq!(lock.ask_epoch(Some(8)).unwrap_err().kind(), Kind::Drift);
    }
}
