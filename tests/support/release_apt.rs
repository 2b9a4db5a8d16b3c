//! apt in a root of its own, that knows nothing of the host: the oracle of `resolver_vs_apt`.
//!
//! [`Apt::of_release`] asks the release's own apt: a minimal root with it is made by this crate and the program runs
//! in the sandbox, on the signed indexes that the resolver read. [`Apt::of_host`] asks the apt of this machine, about
//! what the mirror says.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use imagebuilder::api::params::distribution::Repository;
use imagebuilder::api::params::software::Layer;
use imagebuilder::build::rootfs::{self, Workshop};
use imagebuilder::package::Environment;
use imagebuilder::package::deb822::stanzas;
use imagebuilder::package::fetch::fetch_all;
use imagebuilder::package::lock::{self, LayerRequest, LockedRepository, PackageRequest, Request};
use imagebuilder::sandbox::{Bind, Job, Namespaces, Sandbox};
use imagebuilder::tree::host::Folder;
use imagebuilder::tree::store::Store;
use imagebuilder::tree::{Digest, TreePath};

/// Where the release's apt finds its files in its root.
const INSIDE: &str = "/oracle";

/// A package that apt downloads for all others when only its marks are asked for.
const DUMMY: &str = "no package\n";

pub struct Apt {
    /// Configuration, state and repositories.
    folder: PathBuf,
    /// The same folder, as apt sees it.
    seen_as: String,
    /// The root of the release; `None`: the apt of this machine.
    root: Option<PathBuf>,
}

/// One repository: its name, what the documents say, what was found there.
pub type Found<'a> = (&'a str, &'a Repository, &'a LockedRepository, &'a [u8]);

impl Apt {
    pub fn of_host(folder: &Path, request: &Request) -> Self {
        let apt = Apt { folder: folder.to_owned(), seen_as: folder.display().to_string(), root: None };
        apt.prepare();
        let sources = request.repositories.values().map(|repository| apt.source(repository, &repository.source));
        apt.write("etc/apt/sources.list", &sources.collect::<String>());
        apt.run(&["update"]);
        apt
    }

    /// `found` are the repositories with their signed index, as the resolver read them.
    pub fn of_release(folder: &Path, request: &Request, found: &[Found<'_>], environment: &Environment) -> Self {
        let root = make_root(&folder.with_file_name("root"), request, environment);
        let apt = Apt { folder: folder.to_owned(), seen_as: INSIDE.into(), root: Some(root) };
        apt.prepare();
        let mut sources = String::new();
        for (name, repository, locked, signed) in found {
            let suite = folder.join("mirror").join(name).join("dists").join(&locked.suite);
            std::fs::create_dir_all(&suite).unwrap();
            std::fs::write(suite.join("InRelease"), signed).unwrap();
            for (path, digest) in &locked.indexes {
                let path = suite.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let kept = environment.cache.join("indexes/sha256").join(digest.to_hex());
                std::fs::hard_link(kept, path).unwrap();
            }
            sources.push_str(&apt.source(repository, &format!("file:{INSIDE}/mirror/{name}")));
        }
        apt.write("etc/apt/sources.list", &sources);
        apt.run(&["update"]);
        apt
    }

    fn prepare(&self) {
        _ = std::fs::remove_dir_all(&self.folder);
        for part in ["etc/apt/preferences.d", "etc/apt/apt.conf.d", "state/lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(self.folder.join(part)).unwrap();
        }
        for name in ["debian-archive.asc", "ubuntu-archive.asc"] {
            let keyring = Path::new(env!("CARGO_MANIFEST_DIR")).join("functions/keyrings").join(name);
            std::fs::copy(keyring, self.folder.join(name)).unwrap();
        }
        self.write("apt.conf", &self.configuration());
        self.write("status", "");
    }

    fn source(&self, repository: &Repository, address: &str) -> String {
        let components: Vec<&str> = repository.components.keys().map(String::as_str).collect();
        let (suite, keyring) = (&repository.suite, format!("{}/{}.asc", self.seen_as, repository.keyring));
        format!("deb [arch=amd64 signed-by={keyring}] {address} {suite} {}\n", components.join(" "))
    }

    fn configuration(&self) -> String {
        let here = &self.seen_as;
        format!(
            "Dir \"{here}\";\nDir::Etc \"{here}/etc/apt\";\nDir::State \"{here}/state\";\nDir::Cache \"{here}/cache\";\n\
             Dir::State::status \"{here}/status\";\nDir::Log \"{here}\";\nDir::Bin::methods \"/usr/lib/apt/methods\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\nAPT::Install-Recommends \"false\";\n\
             APT::Get::Always-Include-Phased-Updates \"true\";\nAcquire::Languages \"none\";\n\
             APT::Sandbox::User \"root\";\nDebug::NoLocking \"true\";\n"
        )
    }

    /// `apt 2.6.1 (amd64)`.
    pub fn version(&self) -> String {
        self.run(&["--version"]).lines().next().unwrap_or_default().to_owned()
    }

    /// `apt-get -s install`: what would be newly installed, as `name=version`, sorted.
    pub fn install(&self, names: &[String], unapproved: &BTreeSet<String>, status: &str) -> Vec<String> {
        if names.is_empty() {
            return Vec::new();
        }
        self.pin(unapproved);
        self.write("status", status);
        let mut arguments = vec!["-s", "install", "--no-install-recommends", "-y"];
        arguments.extend(names.iter().map(String::as_str));
        let mut answer: Vec<String> = Vec::new();
        for line in self.run(&arguments).lines() {
            assert!(!line.starts_with("Remv "), "apt would remove a package: {line}");
            let Some(rest) = line.strip_prefix("Inst ") else { continue };
            let (name, rest) = rest.split_once(' ').unwrap();
            let version = rest.split_once('(').unwrap().1.split(' ').next().unwrap();
            // The version that is installed, once more from another index whose entry reads a little differently
            // (apt 2.8 compares entries, not only versions): nothing new.
            if rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).is_some_and(|(old, _)| old == version) {
                continue;
            }
            answer.push(format!("{name}={version}"));
        }
        answer.sort();
        answer
    }

    /// Gives apt the indexes with every package replaced by a dummy of a few bytes, so that it can go through with
    /// an installation (by a dpkg that does nothing) and write down its marks.
    pub fn prepare_marks(&self, texts: &[String]) {
        let mut sources = String::new();
        let dummy = format!("Filename: ./dummy.deb\nSize: {}\nSHA256: {}\n", DUMMY.len(), Digest::of(DUMMY.as_bytes()));
        for (number, text) in texts.iter().enumerate() {
            let mut index = String::with_capacity(text.len());
            for stanza in stanzas(text) {
                let replaced =
                    ["Filename", "Size", "MD5sum", "SHA1", "SHA256", "SHA512", "Description", "Description-md5"];
                for (name, value) in stanza.fields().filter(|(name, _)| !replaced.contains(name)) {
                    writeln!(index, "{name}: {value}").unwrap();
                }
                writeln!(index, "{dummy}").unwrap();
            }
            self.write_new(&format!("dummies/{number}/Packages"), &index);
            self.write_new(&format!("dummies/{number}/dummy.deb"), DUMMY);
            writeln!(sources, "deb [trusted=yes] file:{}/dummies/{number} ./", self.seen_as).unwrap();
        }
        self.write("etc/apt/sources.list", &sources);
        self.run(&["update"]);
        self.write_new("dpkg", "#!/bin/sh\nexit 0\n");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(self.folder.join("dpkg"), executable).unwrap();
    }

    /// Forgets all marks.
    pub fn clear_marks(&self) {
        _ = std::fs::remove_file(self.folder.join("state/extended_states"));
    }

    /// Installs as far as apt can tell; the names it has marked as automatic since [`Apt::clear_marks`].
    pub fn marks(&self, names: &[String], unapproved: &BTreeSet<String>, status: &str) -> BTreeSet<String> {
        self.pin(unapproved);
        self.write("status", status);
        if !names.is_empty() {
            let dpkg = format!("Dir::Bin::dpkg={}/dpkg", self.seen_as);
            let mut arguments = vec!["install", "--no-install-recommends", "-y", "-o", &dpkg];
            arguments.extend(names.iter().map(String::as_str));
            self.run(&arguments);
        }
        let text = std::fs::read_to_string(self.folder.join("state/extended_states")).unwrap_or_default();
        let automatic = stanzas(&text).filter(|stanza| stanza.get("Auto-Installed") == Some("1"));
        automatic.map(|stanza| stanza.get("Package").unwrap().to_owned()).collect()
    }

    fn pin(&self, unapproved: &BTreeSet<String>) {
        let pins: String =
            unapproved.iter().map(|name| format!("Package: {name}\nPin: release *\nPin-Priority: -1\n\n")).collect();
        self.write("etc/apt/preferences.d/unapproved", &pins);
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.folder.join(path), text).unwrap();
    }

    fn write_new(&self, path: &str, text: &str) {
        std::fs::create_dir_all(self.folder.join(path).parent().unwrap()).unwrap();
        self.write(path, text);
    }

    fn run(&self, arguments: &[&str]) -> String {
        let Some(root) = &self.root else {
            let output = Command::new("apt-get")
                .args(arguments)
                .env("APT_CONFIG", self.folder.join("apt.conf"))
                .env("LC_ALL", "C.UTF-8")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "apt-get: {text}{}", String::from_utf8_lossy(&output.stderr));
            return text;
        };
        let mut job = Job::new(["apt-get"].iter().chain(arguments).copied());
        job.environment = vec![("APT_CONFIG".into(), format!("{INSIDE}/apt.conf"))];
        job.binds = vec![Bind { source: self.folder.clone(), target: TreePath::literal("oracle"), read_only: false }];
        let mut text = String::new();
        let finished = Namespaces::new()
            .run(root, &job, &mut |line| {
                text.push_str(line);
                text.push('\n');
            })
            .unwrap();
        let end: Vec<&str> = text.lines().rev().take(30).collect();
        assert!(finished.success, "apt-get: {}, last lines first: {end:#?}", finished.status);
        text
    }
}

/// A root file system with the release's Essential and required packages and its apt.
fn make_root(path: &Path, request: &Request, environment: &Environment) -> PathBuf {
    let packages = vec![PackageRequest { name: "apt".into(), version: None }];
    let layers = vec![LayerRequest { layer: Layer::Base, packages }];
    let lock = lock::resolve(&Request { layers, unapproved: BTreeSet::new(), ..request.clone() }, environment).unwrap();
    let layer = &lock.layers[0];
    let debs = fetch_all(&layer.packages, &lock.evidence.repositories, environment).unwrap();
    let store = Store::open(&environment.cache).unwrap();
    _ = std::fs::remove_dir_all(path);
    let mut folder = Folder::create(path).unwrap();
    let sandbox = Namespaces::new();
    let scratch = tempfile::tempdir().unwrap();
    let mut workshop = Workshop {
        store: &store,
        sandbox: &sandbox,
        folder: &mut folder,
        scratch: scratch.path(),
        arrived: &|_| Ok(()),
        now: environment.now,
        plain: false,
        clusters: None,
        reporter: &environment.reporter,
    };
    let layer = rootfs::Layer { key: layer.digest(), locked: layer, debs: &debs };
    let tree = rootfs::build(&[layer], &mut workshop).unwrap();
    folder.show(&tree).unwrap();
    path.to_owned()
}
