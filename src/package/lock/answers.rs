//! Answers of the resolver, kept: what a request got from exactly these signed indexes.
//!
//! Owns: `<cache>/answers-v1/<key>`, one text file an answer, SHA-256 of the rest in its last line. Beside them lie the
//! build times of sets of packages ([`recall_time`]), so that an epoch can be told without the packages. The key covers all
//! that the resolver looks at: digests and pins of the package indexes, the request, and [`RECIPE`]. The signed index
//! itself is fetched and checked each time; only reading what it names and choosing from it is saved. A file that is
//! damaged counts as absent.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::{Lock, LockedLayer, LockedPackage, PackageRequest, Request};
use crate::api::params::software::Layer;
use crate::error::{Context, Result};
use crate::package::Environment;
use crate::package::fetch::index::Signed;
use crate::tree::Digest;

/// Raised when the resolver or the reader of indexes begins to answer otherwise.
const RECIPE: u32 = 1;
pub const FOLDER: &str = "answers-v1";
/// An answer has some hundred lines.
const LIMIT: u64 = 64 << 20;

/// Where the answer to this question is kept.
pub struct Question {
    path: PathBuf,
    /// Names of repositories, in the order of their numbers in the file.
    repositories: Vec<String>,
    /// The clock of the run.
    now: i64,
}

/// What the resolver answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub layers: Vec<LockedLayer>,
    pub tools: Vec<LockedPackage>,
}

fn asked(package: &PackageRequest) -> String {
    let version = package.version.as_ref().map_or_else(String::new, |version| format!("={version}"));
    format!("{}{version}", package.name)
}

impl Question {
    pub fn new(request: &Request, signed: &[(String, Signed)], environment: &Environment) -> Question {
        let mut parts = vec![format!("{RECIPE}"), request.architecture.clone()];
        for (name, signed) in signed {
            parts.push(format!("repository {name}"));
            parts.push(signed.pin.to_string());
            // In the order of the components: the first index to name a package numbers it.
            parts.extend(signed.indexes().map(|(path, digest)| format!("{path} {digest}")));
        }
        for layer in &request.layers {
            parts.push(format!("layer {}", layer.layer.name()));
            parts.extend(layer.packages.iter().map(asked));
        }
        parts.push("tools".into());
        parts.extend(request.tools.iter().map(asked));
        parts.push("unapproved".into());
        parts.extend(request.unapproved.iter().cloned());
        // JSON keeps the parts apart whatever is in them.
        let key = Digest::of(serde_json::Value::from(parts).to_string().as_bytes());
        let repositories = signed.iter().map(|(name, _)| name.clone()).collect();
        Question { path: environment.cache.join(FOLDER).join(key.to_hex()), repositories, now: environment.now }
    }

    /// The answer of before, if there is one and it is whole.
    pub fn recall(&self) -> Option<Answer> {
        self.parse(&read(&self.path, self.now)?)
    }

    fn parse(&self, body: &str) -> Option<Answer> {
        let mut answer = Answer { layers: Vec::new(), tools: Vec::new() };
        let mut tools = false;
        for line in body.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["layer", name] => {
                    let layer = Layer::ALL.into_iter().find(|layer| layer.name() == name)?;
                    answer.layers.push(LockedLayer { layer, packages: Vec::new(), manual: Vec::new() });
                }
                ["tools"] => tools = true,
                ["manual", name] => answer.layers.last_mut()?.manual.push(name.to_owned()),
                [..] if tools => answer.tools.push(self.package(&words)?),
                [..] => answer.layers.last_mut()?.packages.push(self.package(&words)?),
            }
        }
        Some(answer)
    }

    fn package(&self, words: &[&str]) -> Option<LockedPackage> {
        let [mark, name, version, architecture, size, sha256, repository, path] = *words else { return None };
        Some(LockedPackage {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: architecture.to_owned(),
            size: size.parse().ok()?,
            sha256: Digest::from_hex(sha256)?,
            automatic: mark == "automatic",
            repository: self.repositories.get(repository.parse::<usize>().ok()?)?.clone(),
            path: path.to_owned(),
        })
    }

    /// Keeps an answer.
    pub fn keep(&self, answer: &Answer) -> Result<()> {
        self.write(answer).map_or(Ok(()), |text| write(&self.path, text))
    }

    /// Nothing where a word would fall apart; the index parser lets no such word through.
    fn write(&self, answer: &Answer) -> Option<String> {
        let mut text = String::new();
        for layer in &answer.layers {
            text.push_str(&format!("layer {}\n", layer.layer.name()));
            for package in &layer.packages {
                text.push_str(&self.line(package)?);
            }
            for name in &layer.manual {
                text.push_str(&format!("manual {}\n", plain(name)?));
            }
        }
        text.push_str("tools\n");
        for package in &answer.tools {
            text.push_str(&self.line(package)?);
        }
        Some(text)
    }

    fn line(&self, package: &LockedPackage) -> Option<String> {
        let repository = self.repositories.iter().position(|name| *name == package.repository)?;
        let mark = if package.automatic { "automatic" } else { "asked" };
        let [name, version, architecture, path] =
            [&package.name, &package.version, &package.architecture, &package.path].map(|word| plain(word));
        let (name, version, architecture, path) = (name?, version?, architecture?, path?);
        Some(format!(
            "{mark} {name} {version} {architecture} {} {} {repository} {path}\n",
            package.size, package.sha256
        ))
    }
}

/// The newest build time of a lock's packages, if these were looked at before.
pub fn recall_time(lock: &Lock, environment: &Environment) -> Option<i64> {
    let body = read(&time_path(lock, environment), environment.now)?;
    body.strip_prefix("newest ")?.trim_end().parse().ok()
}

/// Keeps it.
pub fn keep_time(lock: &Lock, newest: i64, environment: &Environment) -> Result<()> {
    write(&time_path(lock, environment), format!("newest {newest}\n"))
}

fn time_path(lock: &Lock, environment: &Environment) -> PathBuf {
    let packages: Vec<String> = lock.packages().map(|package| package.sha256.to_hex()).collect();
    let key = Digest::of(format!("newest build time\n{}", packages.join("\n")).as_bytes());
    environment.cache.join(FOLDER).join(key.to_hex())
}

/// What is before the digest, if that is right.
fn read(path: &Path, now: i64) -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    (&file).take(LIMIT).read_to_string(&mut text).ok()?;
    let cut = text.len().checked_sub(65)?;
    let whole = *text.get(cut..)? == format!("{}\n", Digest::of(text.get(..cut)?.as_bytes()));
    // Says when it was used last. Where that fails it only seems older than it is.
    _ = file.set_modified(UNIX_EPOCH + Duration::from_secs(u64::try_from(now).unwrap_or(0)));
    text.truncate(cut);
    whole.then_some(text)
}

fn write(path: &Path, mut text: String) -> Result<()> {
    text.push_str(&format!("{}\n", Digest::of(text.as_bytes())));
    let folder = path.parent().unwrap_or(Path::new("."));
    let context = || format!("writing {}", path.display());
    std::fs::create_dir_all(folder).with_context(context)?;
    let mut file = tempfile::Builder::new().prefix(".answer-").tempfile_in(folder).with_context(context)?;
    file.write_all(text.as_bytes()).with_context(context)?;
    // Not synced: a torn one is noticed by its digest.
    file.persist(path).map_err(|error| error.error).with_context(context)?;
    Ok(())
}

/// What stays one word.
fn plain(word: &str) -> Option<&str> {
    (!word.is_empty() && !word.contains([' ', '\n', '\r'])).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::lock::tests::lock;

    fn answer() -> Answer {
        let lock = lock();
        let tools = lock.tools.into_iter().map(|tool| LockedPackage { repository: "other one".into(), ..tool });
        Answer { layers: lock.layers, tools: tools.collect() }
    }

    fn question(folder: &Path) -> Question {
        Question { path: folder.join("x/key"), repositories: vec!["other one".into(), "main".into()], now: 5 }
    }

    #[test]
    fn an_answer_comes_back_as_it_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let question = question(folder.path());
        assert!(question.recall().is_none());
        question.keep(&answer()).unwrap();
        assert_eq!(question.recall().unwrap(), answer());
    }

    #[test]
    fn a_damaged_answer_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let question = question(folder.path());
        question.keep(&answer()).unwrap();
        let good = std::fs::read(&question.path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&question.path, &bad).unwrap();
            assert!(question.recall().is_none(), "flipped bit at {at}");
            std::fs::write(&question.path, &good[..at]).unwrap();
            assert!(question.recall().is_none(), "cut at {at}");
        }
    }

    #[test]
    fn a_word_that_would_fall_apart_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let question = question(folder.path());
        let mut odd = answer();
        odd.layers[0].packages[0].path = "pool/a b.deb".into();
        question.keep(&odd).unwrap();
        assert!(question.recall().is_none());
    }
}
