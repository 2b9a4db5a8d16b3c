//! The lock: exactly which packages an image is made of, layer by layer.
//!
//! Owns: the request that is resolved, [`Lock`] and its file form. The hashed part (packages by digest, in order)
//! decides bytes of the image; the evidence part (where and when it was found) does not and is left out of
//! [`Lock::digest`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::api::params::distribution::Repository;
use crate::api::params::software::Layer;
use crate::error::{Context, Error, Kind, Result};
use crate::tree::Digest;

use super::Environment;
use super::fetch::index::{Updated, update};
use super::index::{Index, Universe};
use super::resolve;

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
pub const LOCK_VERSION: u32 = 1;

/// The result of resolving a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    pub lock_version: u32,
    pub architecture: String,
    /// Bottom to top; the packages of one layer are installed on top of those before.
    pub layers: Vec<LockedLayer>,
    /// `SOURCE_DATE_EPOCH` of the build: as the user asked ([`Lock::ask_epoch`]), else the newest modification time
    /// inside the locked packages, known once they have been fetched ([`Lock::settle_epoch`]).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub epoch: Option<i64>,
    pub evidence: Evidence,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedLayer {
    pub layer: Layer,
    /// Sorted by name.
    pub packages: Vec<LockedPackage>,
    /// Packages of lower layers that came in as dependencies there and are asked for here, sorted: no automatic
    /// removal takes them any more.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub manual: Vec<String>,
}

/// One package. `repository` and `path` are evidence: another mirror may deliver the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedPackage {
    pub name: String,
    pub version: String,
    /// Its own architecture: that of the image, or `all`.
    pub architecture: String,
    pub size: u64,
    #[serde(with = "hex_digest")]
    pub sha256: Digest,
    /// Nobody asked for it by name: it came in as a dependency (apt's `extended_states`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub automatic: bool,
    /// The key of [`Evidence::repositories`] it was found in.
    pub repository: String,
    /// Relative to the repository's address (`Filename` of the index).
    pub path: String,
}

/// Where and when the lock was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    pub repositories: BTreeMap<String, LockedRepository>,
}

/// One repository as it was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedRepository {
    pub source: String,
    pub suite: String,
    /// `Date` of its signed index, as written there.
    pub date: String,
    /// Fingerprint of the key that signed it.
    pub signed_by: String,
    /// SHA-256 of the signed file.
    #[serde(with = "hex_digest")]
    pub release: Digest,
    /// Package indexes by their path below the suite.
    #[serde(with = "hex_digest_map")]
    pub indexes: BTreeMap<String, Digest>,
}

/// Fetches and verifies the indexes of all repositories and chooses the packages of every layer.
pub fn resolve(request: &Request, environment: &Environment) -> Result<Lock> {
    let step = environment.reporter.step("resolve packages");
    let updated = update_all(request, environment)?;
    let mut indexes = Vec::new();
    for (name, repository) in &updated {
        let of_repository = |text| Index { repository: name, pin: repository.pin, text };
        indexes.extend(repository.texts.iter().map(|text| of_repository(text.as_str())));
    }
    let universe = Universe::read(&request.architecture, &indexes)?;
    let layers = resolve::resolve(&universe, &request.layers, &request.unapproved)?;
    let layers: Vec<LockedLayer> = layers
        .iter()
        .map(|layer| LockedLayer {
            layer: layer.layer,
            packages: layer.packages.iter().map(|chosen| locked(&universe, chosen)).collect(),
            manual: layer.manual.iter().map(|name| universe.name(*name).name.to_owned()).collect(),
        })
        .collect();
    let count: usize = layers.iter().map(|layer| layer.packages.len()).sum();
    drop((universe, indexes));
    let repositories = updated.into_iter().map(|(name, updated)| (name, updated.locked)).collect();
    step.finish(format!("{count} packages"));
    Ok(Lock {
        lock_version: LOCK_VERSION,
        architecture: request.architecture.clone(),
        layers,
        epoch: None,
        evidence: Evidence { repositories },
    })
}

/// All repositories at once: most of the time goes into waiting for answers and decompressing.
fn update_all(request: &Request, environment: &Environment) -> Result<Vec<(String, Updated)>> {
    if request.repositories.is_empty() {
        return Err(Error::documents("no repository is defined").hint("fill `distribution.repositories`"));
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = request
            .repositories
            .iter()
            .map(|(name, repository)| {
                (name, scope.spawn(move || update(name, repository, &request.architecture, environment)))
            })
            .collect();
        // All are joined before the first error is passed on.
        let results: Vec<_> = threads.into_iter().map(|(name, thread)| (name, thread.join())).collect();
        results
            .into_iter()
            .map(|(name, result)| {
                let updated =
                    result.unwrap_or_else(|_| Err(Error::build("reading the indexes stopped unexpectedly")))?;
                Ok((name.clone(), updated))
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
            let mut newest = 0;
            for deb in debs {
                let deb = deb.as_ref();
                newest = newest.max(build_time(deb).with_context(|| format!("reading {}", deb.display()))?);
            }
            self.epoch = Some(newest);
        }
        Ok(())
    }

    /// All packages, bottom layer first, by name within a layer.
    pub fn packages(&self) -> impl Iterator<Item = &LockedPackage> {
        self.layers.iter().flat_map(|layer| &layer.packages)
    }

    pub fn layer(&self, layer: Layer) -> Option<&LockedLayer> {
        self.layers.iter().find(|locked| locked.layer == layer)
    }

    /// The identity of the hashed part. Two locks with one digest give the same bytes.
    pub fn digest(&self) -> Digest {
        let mut text = format!("imagebuilder lock {}\narchitecture {}\n", self.lock_version, self.architecture);
        if let Some(epoch) = self.epoch {
            text.push_str(&format!("epoch {epoch}\n"));
        }
        for layer in &self.layers {
            text.push_str(&layer.hashed_text());
        }
        Digest::of(text.as_bytes())
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

/// The time stamp of the first member of the `ar` archive (deb(5)): no file inside a package is newer than that.
pub fn build_time(deb: &Path) -> Result<i64> {
    let mut head = [0; 8 + 60];
    std::fs::File::open(deb).and_then(|mut file| file.read_exact(&mut head)).context("reading its head")?;
    let stamp = std::str::from_utf8(&head[24..36]).ok().and_then(|text| text.trim().parse().ok());
    stamp.filter(|_| head.starts_with(b"!<arch>\n")).ok_or_else(|| Error::build("it is not a Debian package"))
}

fn is_false(value: &bool) -> bool {
    !value
}

mod hex_digest {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::tree::Digest;

    pub fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::from_hex(&text).ok_or_else(|| D::Error::custom("expected a SHA-256 digest: 64 hexadecimal digits"))
    }
}

mod hex_digest_map {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::tree::Digest;

    pub fn serialize<S: Serializer>(map: &BTreeMap<String, Digest>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(key, digest)| (key, digest.to_hex())))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Digest>, D::Error> {
        BTreeMap::<String, String>::deserialize(deserializer)?
            .into_iter()
            .map(|(key, text)| match Digest::from_hex(&text) {
                Some(digest) => Ok((key, digest)),
                None => Err(D::Error::custom("expected a SHA-256 digest: 64 hexadecimal digits")),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        let package = LockedPackage {
            name: "hello".into(),
            version: "1:2.10-3".into(),
            architecture: "amd64".into(),
            size: 12,
            sha256: Digest::of(b"hello"),
            automatic: false,
            repository: "main".into(),
            path: "pool/h/hello.deb".into(),
        };
        Lock {
            lock_version: LOCK_VERSION,
            architecture: "amd64".into(),
            layers: vec![LockedLayer { layer: Layer::Base, packages: vec![package], manual: Vec::new() }],
            epoch: None,
            evidence: Evidence::default(),
        }
    }

    #[test]
    fn evidence_is_not_part_of_the_digest() {
        let mut other = lock();
        other.layers[0].packages[0].repository = "mirror".into();
        other.layers[0].packages[0].path = "elsewhere/hello.deb".into();
        assert_eq!(lock().digest(), other.digest());
        other.layers[0].packages[0].version = "1:2.10-4".into();
        assert_ne!(lock().digest(), other.digest());
    }

    #[test]
    fn the_epoch_of_a_lock_is_not_changed() {
        let mut lock = lock();
        lock.ask_epoch(None).unwrap();
        assert_eq!(lock.epoch, None);
        lock.ask_epoch(Some(7)).unwrap();
        lock.ask_epoch(Some(7)).unwrap();
        lock.settle_epoch::<&Path>([]).unwrap();
        assert_eq!(lock.epoch, Some(7));
        assert_eq!(lock.ask_epoch(Some(8)).unwrap_err().kind(), Kind::Drift);
    }

    #[test]
    fn the_file_form_reads_back_as_it_was() {
        let text = serde_json::to_string_pretty(&lock()).unwrap();
        assert_eq!(serde_json::from_str::<Lock>(&text).unwrap(), lock());
        assert_eq!(text, serde_json::to_string_pretty(&serde_json::from_str::<Lock>(&text).unwrap()).unwrap());
        let broken = text.replace(&Digest::of(b"hello").to_hex(), "00");
        assert!(serde_json::from_str::<Lock>(&broken).unwrap_err().to_string().contains("64 hexadecimal digits"));
    }
}
