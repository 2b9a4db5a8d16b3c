//! The file form of a lock (`docs/reference/lock.md`): one line a package, the hashed part apart from the evidence.
//!
//! Owns: [`Lock::to_yaml`], [`Lock::read`], [`Lock::hashed_text`] and [`Lock::from_hashed_part`]. `locked` holds the
//! hashed part, and `digest` is the SHA-256 digest of its text, so a change by hand is noticed. A lock comes from
//! outside, so everything in it is checked, and what is wrong is shown with its line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Deserializer};

use super::asked::{Asked, AskedRepository};
use super::{Evidence, LOCK_VERSION, Lock, LockedFile, LockedLayer, LockedPackage, LockedRepository, PackageRequest};
use crate::api::params::software::Layer;
use crate::document::{self, Diagnostic, Node, decode, needs_quotes};
use crate::error::{Context, Error, Kind, Result};
use crate::package::index::{check_path, check_version};
use crate::package::relation::is_name;
use crate::tree::Digest;

const HEAD: &str = "\
# Made by `imagebuilder lock`: what the image consists of, exactly. Commit it; change it with `imagebuilder lock --update`.
# `locked` decides the bytes of the image and is covered by `digest`; `evidence` says where and when it was found.
";

// ---- writing ----

impl Lock {
    /// The hashed part as one YAML document. The same lock gives the same text.
    pub fn hashed_text(&self) -> String {
        format!("lockVersion: {LOCK_VERSION}\n{}", self.locked_text())
    }

    /// The whole file.
    pub fn to_yaml(&self) -> String {
        let mut text = format!("{HEAD}lockVersion: {LOCK_VERSION}\ndigest: sha256:{}\nlocked:\n", self.digest());
        for line in self.locked_text().lines() {
            _ = writeln!(text, "  {line}");
        }
        text + &self.evidence_text()
    }

    fn locked_text(&self) -> String {
        let mut text = format!("image: {}\narchitecture: {}\n", scalar(&self.image), scalar(&self.architecture));
        if let Some(epoch) = self.epoch {
            _ = writeln!(text, "epoch: {epoch}");
        }
        block(
            &mut text,
            "recipes",
            "{}",
            self.recipes.iter().map(|(step, version)| format!("  {}: {version}", scalar(step))),
        );
        text += &asked_text(&self.asked);
        text += if self.layers.is_empty() { "layers: []\n" } else { "layers:\n" };
        for layer in &self.layers {
            _ = writeln!(text, "- layer: {}", layer.layer.name());
            let mut packages = String::new();
            block(&mut packages, "packages", "[]", layer.packages.iter().map(package_line));
            if !layer.manual.is_empty() {
                block(&mut packages, "manual", "[]", layer.manual.iter().map(|name| format!("- {}", scalar(name))));
            }
            packages.lines().for_each(|line| _ = writeln!(text, "  {line}"));
        }
        if !self.tools.is_empty() {
            block(&mut text, "tools", "[]", self.tools.iter().map(package_line));
        }
        let file = |file: &LockedFile| {
            format!(
                "- {{path: {}, size: {}, sha256: {}}}",
                quoted(&file.path),
                file.size,
                scalar(&file.sha256.to_hex())
            )
        };
        if !self.files.is_empty() {
            block(&mut text, "files", "[]", self.files.iter().map(file));
        }
        text
    }

    fn evidence_text(&self) -> String {
        let evidence = &self.evidence;
        let mut text =
            format!("evidence:\n  builder: {}\n  time: {}\n", scalar(&evidence.builder), scalar(&evidence.time));
        text += if evidence.repositories.is_empty() { "  repositories: {}\n" } else { "  repositories:\n" };
        for (name, repository) in &evidence.repositories {
            _ = writeln!(text, "    {}:", scalar(name));
            for (key, value) in [
                ("source", &repository.source),
                ("suite", &repository.suite),
                ("date", &repository.date),
                ("signedBy", &repository.signed_by),
                ("release", &repository.release.to_hex()),
            ] {
                _ = writeln!(text, "      {key}: {}", scalar(value));
            }
            let mut lists = String::new();
            let line = |(path, digest): (&String, &Digest)| format!("  {}: {}", scalar(path), scalar(&digest.to_hex()));
            block(&mut lists, "indexes", "{}", repository.indexes.iter().map(line));
            // By path, so that one package is one line that moves little; twice the same file is one line.
            let of_it = self.all_packages().filter(|package| package.repository == *name && !package.path.is_empty());
            let paths: BTreeMap<&str, Digest> = of_it.map(|package| (package.path.as_str(), package.sha256)).collect();
            let line = |(path, digest): (&&str, &Digest)| format!("  {}: {}", scalar(path), scalar(&digest.to_hex()));
            block(&mut lists, "packages", "{}", paths.iter().map(line));
            lists.lines().for_each(|line| _ = writeln!(text, "      {line}"));
        }
        text
    }
}

/// `key:` and its lines below it; `empty` stands for none.
fn block(text: &mut String, key: &str, empty: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    _ = if lines.is_empty() { writeln!(text, "{key}: {empty}") } else { writeln!(text, "{key}:") };
    lines.iter().for_each(|line| _ = writeln!(text, "{line}"));
}

fn asked_text(asked: &Asked) -> String {
    let list = |names: &BTreeSet<String>| names.iter().map(|name| scalar(name)).collect::<Vec<_>>().join(", ");
    let mut text = String::from("asked:\n");
    text += if asked.repositories.is_empty() { "  repositories: {}\n" } else { "  repositories:\n" };
    for (name, repository) in &asked.repositories {
        _ = write!(text, "    {}: {{suite: {}", scalar(name), scalar(&repository.suite));
        _ = write!(text, ", components: [{}]", list(&repository.components));
        _ = write!(text, ", keyring: {}", scalar(&repository.keyring));
        if let Some(priority) = repository.priority {
            _ = write!(text, ", priority: {priority}");
        }
        if let Some(snapshot) = &repository.snapshot {
            _ = write!(text, ", snapshot: {}", scalar(snapshot));
        }
        text += "}\n";
    }
    text += if asked.packages.is_empty() { "  packages: {}\n" } else { "  packages:\n" };
    for (layer, packages) in &asked.packages {
        _ = writeln!(text, "    {}:", layer.name());
        for package in packages {
            _ = match &package.version {
                None => writeln!(text, "    - {{name: {}}}", scalar(&package.name)),
                Some(version) => {
                    writeln!(text, "    - {{name: {}, version: {}}}", scalar(&package.name), quoted(version))
                }
            };
        }
    }
    if !asked.unapproved.is_empty() {
        _ = writeln!(text, "  unapproved: [{}]", list(&asked.unapproved));
    }
    text
}

fn package_line(package: &LockedPackage) -> String {
    format!(
        "- {{name: {}, version: {}, architecture: {}, size: {}, sha256: {}{}}}",
        scalar(&package.name),
        quoted(&package.version),
        scalar(&package.architecture),
        package.size,
        scalar(&package.sha256.to_hex()),
        if package.automatic { ", automatic: true" } else { "" },
    )
}

/// Plain where every YAML reader takes it for this text, else quoted.
fn scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'+' | b'-' | b'~');
    let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'/');
    if starts && text.bytes().all(plain) && !needs_quotes(text) { text.to_owned() } else { quoted(text) }
}

/// A JSON string, which is a double-quoted YAML scalar.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

// ---- reading ----

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "lockVersion")]
    _version: u32,
    #[serde(deserialize_with = "prefixed")]
    digest: Digest,
    locked: Locked,
    evidence: EvidenceForm,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Locked {
    /// Only where the hashed part stands alone.
    #[serde(rename = "lockVersion", default)]
    _version: u32,
    image: String,
    #[serde(deserialize_with = "word")]
    architecture: String,
    #[serde(default)]
    epoch: Option<i64>,
    recipes: BTreeMap<String, u32>,
    asked: AskedForm,
    layers: Vec<LayerForm>,
    #[serde(default)]
    tools: Vec<PackageForm>,
    #[serde(default)]
    files: Vec<FileForm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AskedForm {
    repositories: BTreeMap<String, RepositoryForm>,
    packages: BTreeMap<Layer, Vec<RequestForm>>,
    #[serde(default)]
    unapproved: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RepositoryForm {
    suite: String,
    components: BTreeSet<String>,
    keyring: String,
    #[serde(default)]
    priority: Option<i32>,
    #[serde(default)]
    snapshot: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestForm {
    #[serde(deserialize_with = "name")]
    name: String,
    #[serde(default)]
    version: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerForm {
    layer: Layer,
    packages: Vec<PackageForm>,
    #[serde(default)]
    manual: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PackageForm {
    #[serde(deserialize_with = "name")]
    name: String,
    #[serde(deserialize_with = "version")]
    version: String,
    #[serde(deserialize_with = "word")]
    architecture: String,
    size: u64,
    #[serde(deserialize_with = "digest")]
    sha256: Digest,
    #[serde(default)]
    automatic: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    path: String,
    size: u64,
    #[serde(deserialize_with = "digest")]
    sha256: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceForm {
    builder: String,
    time: String,
    repositories: BTreeMap<String, SeenForm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SeenForm {
    source: String,
    suite: String,
    date: String,
    signed_by: String,
    #[serde(deserialize_with = "digest")]
    release: Digest,
    indexes: BTreeMap<String, Hex>,
    packages: BTreeMap<FilePath, Hex>,
}

/// A digest where it is the value of a map.
#[derive(Deserialize)]
#[serde(transparent)]
struct Hex(#[serde(deserialize_with = "digest")] Digest);

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
struct FilePath(#[serde(deserialize_with = "file_path")] String);

fn text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    read: impl FnOnce(&str) -> Option<T>,
    expected: &str,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    read(&text).ok_or_else(|| serde::de::Error::custom(format!("expected {expected}")))
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    text(deserializer, Digest::from_hex, "a SHA-256 digest: 64 hexadecimal digits")
}

fn prefixed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    let read = |text: &str| text.strip_prefix("sha256:").and_then(Digest::from_hex);
    text(deserializer, read, "`sha256:` and 64 hexadecimal digits")
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer, |text| (is_name(text) && !text.contains(':')).then(|| text.to_owned()), "the name of a package")
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer, |text| check_version(text).is_ok().then(|| text.to_owned()), "the version of a package")
}

fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let is_word =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    text(deserializer, |text| is_word(text).then(|| text.to_owned()), "the name of an architecture")
}

fn file_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer, |text| check_path(text).is_ok().then(|| text.to_owned()), "a path below a repository")
}

impl Lock {
    /// Reads a lock file. What cannot be read as one is an error of kind `Documents`; one of another version, or one
    /// that was changed by hand, is drift.
    pub fn read(path: &Path) -> Result<Lock> {
        let bytes = document::read_limited(path).with_context(|| format!("reading lock {}", path.display()))?;
        Lock::parse(&path.display().to_string(), &bytes)
    }

    /// The same for its text; `shown` is its name in messages.
    pub fn parse(shown: &str, bytes: &[u8]) -> Result<Lock> {
        let node = only_document(shown, bytes)?;
        check_version_of(&node)?;
        let file: File = decode(&node).map_err(truncated)?;
        let mut lock = into_lock(file.locked, &node, &["locked"])?;
        if lock.digest() != file.digest {
            let at = node.get("digest").unwrap_or(&node);
            return Err(drift(at, "the lock was changed after it was made: its digest does not fit what it says").hint(
                "take the change back, or make the lock anew: `imagebuilder lock --update`; `imagebuilder lock diff` compares two",
            ));
        }
        add_evidence(&mut lock, file.evidence, &node)?;
        Ok(lock)
    }

    /// Reads a hashed part that stands alone, as an image carries it. Nothing is known of repositories then: such
    /// packages can be taken from the store, or their places be found again ([`super::resolve`] does that for a new
    /// lock).
    pub fn from_hashed_part(shown: &str, text: &str) -> Result<Lock> {
        let node = only_document(shown, text.as_bytes())?;
        check_version_of(&node)?;
        into_lock(decode(&node)?, &node, &[])
    }
}

fn only_document(shown: &str, bytes: &[u8]) -> Result<Node> {
    let loaded = document::Loader::default().text(shown, bytes).map_err(truncated)?;
    let count = loaded.documents.len();
    match loaded.documents.into_iter().next() {
        Some(node) if count == 1 => Ok(node),
        _ => Err(truncated(Error::documents(format!("{shown}: a lock is one document, here are {count}")))),
    }
}

/// What can be done about a file that is no lock any more.
fn truncated(error: Error) -> Error {
    error.hint("the file is damaged or not a lock: fetch it again, or make it anew with `imagebuilder lock --update`")
}

fn drift(at: &Node, message: &str) -> Error {
    Diagnostic::on(at, "").attach(Error::new(Kind::Drift, message))
}

fn check_version_of(node: &Node) -> Result<()> {
    let at = node
        .get("lockVersion")
        .ok_or_else(|| truncated(Diagnostic::on(node, "no `lockVersion`: this is not a lock").into()))?;
    match at.text().and_then(|text| text.parse::<u32>().ok()) {
        Some(LOCK_VERSION) => Ok(()),
        Some(older) if older < LOCK_VERSION => {
            Err(drift(at, &format!("the lock has version {older}; this program needs version {LOCK_VERSION}"))
                .hint("make it anew: `imagebuilder lock --update`"))
        }
        Some(newer) => {
            Err(drift(at, &format!("the lock has version {newer}; this program knows up to {LOCK_VERSION}"))
                .hint("it was made by a newer imagebuilder: use that one"))
        }
        None => Err(truncated(Diagnostic::on(at, "expected a version number").into())),
    }
}

/// `path` is where the hashed part stands in the document.
fn into_lock(locked: Locked, node: &Node, path: &[&str]) -> Result<Lock> {
    let part = node.at(path).unwrap_or(node);
    let item = |list: &str, at: usize| part.get(list).and_then(Node::as_sequence).and_then(|list| list.get(at));
    let mut layers: Vec<LockedLayer> = Vec::new();
    for (at, layer) in locked.layers.into_iter().enumerate() {
        let node = item("layers", at).unwrap_or(part);
        if layers.last().is_some_and(|below| below.layer >= layer.layer) {
            return Err(Diagnostic::on(node, "layers stand in their order, each one once").into());
        }
        let packages = packages(layer.packages, node.get("packages").unwrap_or(node), &locked.architecture)?;
        layers.push(LockedLayer { layer: layer.layer, packages, manual: layer.manual.into_iter().collect() });
    }
    let tools = packages(locked.tools, part.get("tools").unwrap_or(part), &locked.architecture)?;
    let mut files: Vec<LockedFile> = Vec::new();
    for (at, FileForm { path, size, sha256 }) in locked.files.into_iter().enumerate() {
        if files.last().is_some_and(|before| before.path >= path) {
            let node = item("files", at).unwrap_or(part);
            return Err(Diagnostic::on(node, "files stand in the order of their paths, each one once").into());
        }
        files.push(LockedFile { path, size, sha256 });
    }
    Ok(Lock {
        image: locked.image,
        architecture: locked.architecture,
        epoch: locked.epoch,
        recipes: locked.recipes,
        asked: asked(locked.asked),
        layers,
        tools,
        files,
        evidence: Evidence::default(),
    })
}

fn packages(forms: Vec<PackageForm>, list: &Node, architecture: &str) -> Result<Vec<LockedPackage>> {
    let mut packages: Vec<LockedPackage> = Vec::with_capacity(forms.len());
    for (at, form) in forms.into_iter().enumerate() {
        let node = list.as_sequence().and_then(|list| list.get(at)).unwrap_or(list);
        if packages.last().is_some_and(|before| before.name >= form.name) {
            return Err(Diagnostic::on(node, "packages stand in the order of their names, each one once").into());
        }
        if form.architecture != architecture && form.architecture != "all" {
            let message = format!("package for `{}` in a lock for `{architecture}`", form.architecture);
            return Err(Diagnostic::on(node.get("architecture").unwrap_or(node), message).into());
        }
        packages.push(LockedPackage {
            name: form.name,
            version: form.version,
            architecture: form.architecture,
            size: form.size,
            sha256: form.sha256,
            automatic: form.automatic,
            repository: String::new(),
            path: String::new(),
        });
    }
    Ok(packages)
}

fn asked(form: AskedForm) -> Asked {
    let repository = |form: RepositoryForm| AskedRepository {
        suite: form.suite,
        components: form.components,
        keyring: form.keyring,
        priority: form.priority,
        snapshot: form.snapshot,
    };
    let request = |form: RequestForm| PackageRequest { name: form.name, version: form.version };
    Asked {
        repositories: form.repositories.into_iter().map(|(name, form)| (name, repository(form))).collect(),
        packages: form
            .packages
            .into_iter()
            .map(|(layer, list)| (layer, list.into_iter().map(request).collect()))
            .collect(),
        unapproved: form.unapproved,
    }
}

/// Gives every package its place; one without is an error.
fn add_evidence(lock: &mut Lock, evidence: EvidenceForm, node: &Node) -> Result<()> {
    let mut places: BTreeMap<Digest, (String, String)> = BTreeMap::new();
    for (name, seen) in evidence.repositories {
        for (path, sha256) in seen.packages {
            places.entry(sha256.0).or_insert_with(|| (name.clone(), path.0));
        }
        let repository = LockedRepository {
            source: seen.source,
            suite: seen.suite,
            date: seen.date,
            signed_by: seen.signed_by,
            release: seen.release,
            indexes: seen.indexes.into_iter().map(|(path, digest)| (path, digest.0)).collect(),
        };
        lock.evidence.repositories.insert(name, repository);
    }
    (lock.evidence.builder, lock.evidence.time) = (evidence.builder, evidence.time);
    let of_image = lock.layers.iter_mut().flat_map(|layer| &mut layer.packages);
    for package in of_image.chain(&mut lock.tools) {
        let Some((repository, path)) = places.get(&package.sha256) else {
            let at = node.at(&["evidence", "repositories"]).unwrap_or(node);
            let message = format!("no repository here has package {} {}", package.name, package.version);
            return Err(truncated(Diagnostic::on(at, message).into()));
        };
        (package.repository, package.path) = (repository.clone(), path.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::lock::tests::lock;

    fn fails(text: &str, kind: Kind, words: &[&str]) {
        let error = Lock::parse("x.lock.yaml", text.as_bytes()).unwrap_err();
        let all = format!("{error}\n{}\n{:?}", error.rendered_snippet().unwrap_or_default(), error.hints());
        assert_eq!(error.kind(), kind, "{all}");
        words.iter().for_each(|word| assert!(all.contains(word), "`{word}` is not in:\n{all}"));
    }

    fn rich() -> Lock {
        let mut lock = lock();
        let repository = AskedRepository {
            suite: "bookworm".into(),
            components: ["main".into(), "non-free-firmware".into()].into(),
            keyring: "debian-archive".into(),
            priority: Some(-1),
            snapshot: Some("20261101T000000Z".into()),
        };
        lock.asked.repositories.insert("debian".into(), repository);
        let request = |version: Option<&str>| PackageRequest { name: "hello".into(), version: version.map(Into::into) };
        lock.asked.packages.insert(Layer::Base, vec![request(None)]);
        lock.asked.packages.insert(Layer::Role, vec![request(Some("1:2.10-3"))]);
        lock.asked.unapproved.insert("no".into());
        lock
    }

    #[test]
    fn the_file_form_reads_back_as_it_was() {
        for lock in [rich(), lock()] {
            let text = lock.to_yaml();
            let again = Lock::parse("x", text.as_bytes()).unwrap();
            assert_eq!(again, lock, "{text}");
            assert_eq!(again.to_yaml(), text);
        }
        let line = "    - {name: hello, version: \"1:2.10-3\", architecture: amd64, size: 12, sha256: ";
        assert!(rich().to_yaml().contains(line), "{}", rich().to_yaml());
    }

    #[test]
    fn the_hashed_part_stands_alone() {
        let mut lock = rich();
        let text = lock.hashed_text();
        lock.evidence = Evidence::default();
        for package in lock.layers.iter_mut().flat_map(|layer| &mut layer.packages).chain(&mut lock.tools) {
            (package.repository, package.path) = (String::new(), String::new());
        }
        assert_eq!(Lock::from_hashed_part("meta", &text).unwrap(), lock);
        assert_eq!(Digest::of(text.as_bytes()), lock.digest());
        let bare = Lock::default();
        assert_eq!(
            Lock::parse("x", bare.to_yaml().replace("ture: \"\"", "ture: amd64").as_bytes()).unwrap_err().kind(),
            Kind::Drift
        );
    }

    #[test]
    fn a_change_by_hand_is_noticed() {
        let text = rich().to_yaml();
        fails(
            &text.replace("size: 12,", "size: 13,"),
            Kind::Drift,
            &["x.lock.yaml:4:9", "was changed", "lock --update"],
        );
        fails(&text.replace("epoch: 1700000000", "epoch: 1700000001"), Kind::Drift, &["was changed"]);
        fails(&text.replace("unapproved: [\"no\"]", "unapproved: []"), Kind::Drift, &["was changed"]);
        // Comments and the evidence change no byte of an image.
        let harmless = text.replace("http://mirror/debian", "http://other/debian") + "# note\n";
        Lock::parse("x", harmless.as_bytes()).unwrap();
    }

    #[test]
    fn other_versions_say_what_to_do() {
        let text = lock().to_yaml();
        fails(&text.replace("Version: 2", "Version: 1"), Kind::Drift, &["x.lock.yaml:3:14", "version 1", "anew"]);
        fails(&text.replace("Version: 2", "Version: 3"), Kind::Drift, &["version 3", "newer imagebuilder"]);
        fails(&text.replace("Version: 2", "Version: x"), Kind::Documents, &["x.lock.yaml:3:14", "version number"]);
        fails("layers: []\n", Kind::Documents, &["not a lock"]);
        fails("", Kind::Documents, &["one document"]);
    }

    /// Wherever it ends too early.
    #[test]
    fn a_truncated_lock_is_refused() {
        let text = rich().to_yaml();
        for (at, _) in text.char_indices().filter(|(at, _)| *at < text.len() - 1) {
            assert!(Lock::parse("x", &text.as_bytes()[..at]).is_err(), "cut at {at}:\n{}", &text[..at]);
        }
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        let text = lock().to_yaml();
        let line = |wanted: &str| {
            let at = text.lines().position(|line| line.contains(wanted)).unwrap() + 1;
            format!("x.lock.yaml:{at}:")
        };
        let hello = line("name: hello");
        for (from, to, words) in [
            ("name: hello", "name: ../hello", vec![hello.as_str(), "the name of a package"]),
            ("1:2.10-3\"", "1 2\"", vec![&hello, "the version of a package"]),
            ("size: 12,", "size: -1,", vec![&hello, "not negative"]),
            ("size: 12,", "size: 12, extra: 1,", vec![&hello, "unknown field `extra`"]),
            ("architecture: amd64, size: 12", "architecture: riscv64, size: 12", vec![&hello, "`riscv64`"]),
            ("name: libc6", "name: aaa", vec!["in the order of their names"]),
            ("pool/hello_1:2.10-3.deb", "../../etc/passwd", vec!["a path below a repository"]),
            ("layer: role", "layer: base", vec!["in their order"]),
            ("layer: role", "layer: rolle", vec![&line("layer: role"), "did you mean `role`?"]),
        ] {
            fails(&text.replacen(from, to, 1), Kind::Documents, &words);
        }
        let sha = Digest::of(b"hello 1:2.10-3").to_hex();
        fails(&text.replacen(&sha, "00", 1), Kind::Documents, &[&hello, "64 hexadecimal digits"]);
    }
}
