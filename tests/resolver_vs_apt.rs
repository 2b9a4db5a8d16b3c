//! The resolver against apt itself: the same packages and versions for the lists we ship and some others.
//!
//! `recorded_*` run anywhere: small indexes (what the lists can reach, without descriptions) with apt's answers lie
//! under `tests/cases/resolver`. `live_*` ask the apt of this machine about today's archive, in a root of its own;
//! they are skipped, with a message, without apt or network. `IMAGEBUILDER_BLESS=1` makes the live tests write the
//! recordings anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use imagebuilder::api::params::software::Layer;
use imagebuilder::error::Kind;
use imagebuilder::package::Environment;
use imagebuilder::package::deb822::stanzas;
use imagebuilder::package::fetch::index::{Updated, update};
use imagebuilder::package::http::{Client, Patience, Proxies};
use imagebuilder::package::index::{Index, Relationship, Universe, VersionId};
use imagebuilder::package::lock::{LayerRequest, PackageRequest, Request};
use imagebuilder::package::resolve::resolve;
use imagebuilder::plan;
use imagebuilder::report::Reporter;
use serde::{Deserialize, Serialize};

/// The packages of a small bootable image, as used to compare image builders.
const SMALL: &str = "initramfs-tools systemd-sysv udev dbus e2fsprogs grub-pc-bin grub-efi-amd64-bin grub2-common \
    openssh-server cloud-init containerd sudo iproute2 ca-certificates curl chrony";

/// What the upstream image builder installs by default.
const UPSTREAM: &str = "apparmor apt-file apt-utils apt-transport-https arptables bash-completion bc bridge-utils chrony \
    cloud-init conntrack curl dbus dnsutils dosfstools e2fsprogs ebtables efivar ethtool file gawk gettext-base gnupg2 \
    grub2 grub-efi-amd64-signed ifenslave isc-dhcp-client iproute2 ipset iptables iputils-arping iputils-ping \
    iputils-tracepath ipvsadm kdump-tools keepalived kmod less live-boot locales locales-all logrotate lsb-release lsof \
    lvm2 man-db mawk mbr netplan.io net-tools networkd-dispatcher openssh-server passwd python3 python3-apt rsyslog \
    socat systemd systemd-sysv strace sudo tcpdump traceroute vim vlan wget xfsprogs xz-utils";

/// Alternatives, virtual packages and large parts of the archive.
const VARIED: &str = "default-mta mailutils apache2 postgresql nginx git build-essential python3-pip docker.io \
    network-manager xorg openjdk-17-jre-headless emacs-nox debhelper perl ruby php";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Case {
    name: String,
    unapproved: BTreeSet<String>,
    layers: Vec<CaseLayer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CaseLayer {
    layer: Layer,
    request: Vec<String>,
    /// apt's answer, `name=version`, sorted.
    answer: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Recording {
    pins: Vec<i32>,
    cases: Vec<Case>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Case {
    fn requests(&self) -> Vec<LayerRequest> {
        let package = |name: &String| PackageRequest { name: name.clone(), version: None };
        let layer = |layer: &CaseLayer| LayerRequest {
            layer: layer.layer,
            packages: layer.request.iter().map(package).collect(),
        };
        self.layers.iter().map(layer).collect()
    }

    fn flat(name: &str, list: &str, universe: &Universe<'_>) -> Self {
        // A list may name packages that a release does not have; virtual ones are apt's own affair.
        let there = |name: &&str| universe.find(name).is_some_and(|id| !universe.name(id).versions.is_empty());
        let request = list.split_whitespace().filter(there).map(str::to_owned).collect();
        let layer = CaseLayer { layer: Layer::Base, request, answer: Vec::new() };
        Case { name: name.to_owned(), unapproved: BTreeSet::new(), layers: vec![layer] }
    }

    fn shipped(role: &str, request: &Request) -> Self {
        let layer = |layer: &LayerRequest| CaseLayer {
            layer: layer.layer,
            request: layer.packages.iter().map(|package| package.name.clone()).collect(),
            answer: Vec::new(),
        };
        Case {
            name: role.to_owned(),
            unapproved: request.unapproved.clone(),
            layers: request.layers.iter().map(layer).collect(),
        }
    }
}

/// Our answer to a case, layer by layer.
fn ours(universe: &Universe<'_>, case: &Case) -> Vec<Vec<VersionId>> {
    let layers =
        resolve(universe, &case.requests(), &case.unapproved).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    layers.iter().map(|layer| layer.packages.iter().map(|chosen| chosen.version).collect()).collect()
}

fn shown(universe: &Universe<'_>, versions: &[VersionId]) -> Vec<String> {
    let show = |id: &VersionId| {
        let version = universe.version(*id);
        format!("{}={}", universe.name(version.name).name, version.version)
    };
    versions.iter().map(show).collect()
}

fn assert_same(case: &str, layer: Layer, ours: &[String], apt: &[String]) {
    let (ours, apt): (BTreeSet<&String>, BTreeSet<&String>) = (ours.iter().collect(), apt.iter().collect());
    let only_ours: Vec<_> = ours.difference(&apt).collect();
    let only_apt: Vec<_> = apt.difference(&ours).collect();
    assert!(
        only_ours.is_empty() && only_apt.is_empty(),
        "{case}, layer {}: only we chose {only_ours:?}, only apt chose {only_apt:?}",
        layer.name()
    );
}

// ---- recorded ----

fn recorded(release: &str) {
    let folder = root().join("tests/cases/resolver").join(release);
    let recording: Recording = serde_json::from_slice(&std::fs::read(folder.join("answers.json")).unwrap()).unwrap();
    assert!(!recording.cases.is_empty());
    let texts: Vec<String> = (0..recording.pins.len())
        .map(|at| {
            let mut text = String::new();
            let file = std::fs::File::open(folder.join(format!("{at}.xz"))).unwrap();
            liblzma::read::XzDecoder::new(file).read_to_string(&mut text).unwrap();
            text
        })
        .collect();
    let indexes = indexes(&texts, &recording.pins);
    let universe = Universe::read("amd64", &indexes).unwrap();
    for case in &recording.cases {
        for (layer, chosen) in case.layers.iter().zip(ours(&universe, case)) {
            assert!(!layer.answer.is_empty() || layer.layer != Layer::Base);
            assert_same(&case.name, layer.layer, &shown(&universe, &chosen), &layer.answer);
        }
    }
}

fn indexes<'a>(texts: &'a [String], pins: &[i32]) -> Vec<Index<'a>> {
    texts.iter().zip(pins).map(|(text, pin)| Index { repository: "recorded", pin: *pin, text }).collect()
}

// ---- live ----

fn live(release: &str, distro: &str) {
    let lists: Vec<(&str, Request)> = ["control-plane", "data-plane"]
        .map(|role| (role, plan::load_bundle(&root().join("config"), role, distro).unwrap().package_request()))
        .to_vec();
    let request = &lists[0].1;
    if !Command::new("apt-get").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no apt-get on this machine");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("resolver").join(release);
    let Some(updated) = updated(&folder, request) else { return };
    let mut texts = Vec::new();
    let mut pins = Vec::new();
    for updated in updated {
        pins.extend(updated.texts.iter().map(|_| updated.pin));
        texts.extend(updated.texts);
    }
    let indexes = indexes(&texts, &pins);
    let universe = Universe::read("amd64", &indexes).unwrap();
    let apt = Apt::new(&folder.join("apt"), request);
    let mut cases: Vec<Case> = lists.iter().map(|(role, request)| Case::shipped(role, request)).collect();
    cases.push(Case::flat("small", SMALL, &universe));
    cases.push(Case::flat("upstream", UPSTREAM, &universe));
    cases.push(Case::flat("varied", VARIED, &universe));
    for case in &mut cases {
        let chosen = ours(&universe, case);
        let base = base_set(&universe, &case.unapproved);
        let mut installed: Vec<VersionId> = Vec::new();
        for (at, layer) in case.layers.iter_mut().enumerate() {
            let mut names: Vec<String> = if at == 0 { base.clone() } else { Vec::new() };
            names.extend(layer.request.iter().filter(|name| !base.contains(name) || at > 0).cloned());
            layer.answer = apt.install(&names, &case.unapproved, &status(&universe, &installed, &texts));
            assert_same(
                &format!("{release} {}", case.name),
                layer.layer,
                &shown(&universe, &chosen[at]),
                &layer.answer,
            );
            installed.extend(&chosen[at]);
        }
        let count: usize = case.layers.iter().map(|layer| layer.answer.len()).sum();
        eprintln!("{release} {}: {count} packages, the same as apt", case.name);
    }
    if std::env::var_os("IMAGEBUILDER_BLESS").is_some() {
        record(release, &universe, &texts, pins.clone(), cases);
        recorded(release);
    }
}

/// The indexes of today, or `None` where the mirror cannot be reached.
fn updated(folder: &Path, request: &Request) -> Option<Vec<Updated>> {
    let patience = Patience { attempts: 2, ..Patience::default() };
    let environment = Environment {
        cache: folder.join("cache"),
        now: jiff::Timestamp::now().as_second(),
        reporter: Reporter::quiet(),
        http: Client::new(Proxies::from_variables(std::env::vars()), patience).unwrap(),
    };
    let mut all = Vec::new();
    for (name, repository) in &request.repositories {
        match update(name, repository, "amd64", &environment) {
            Ok(updated) => all.push(updated),
            Err(error) if error.kind() == Kind::Network => {
                eprintln!("skipped: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        }
    }
    Some(all)
}

/// What the resolver starts from, worked out once more here.
fn base_set(universe: &Universe<'_>, unapproved: &BTreeSet<String>) -> Vec<String> {
    let mut base = Vec::new();
    for (_, name) in universe.names() {
        // All pins of the shipped repositories are the same, so the latest version is the candidate.
        let Some(version) = name.versions.first().map(|id| universe.version(*id)) else { continue };
        let required = version.priority == imagebuilder::package::index::Priority::Required;
        if (version.essential || required) && !unapproved.contains(name.name) {
            base.push(name.name.to_owned());
        }
    }
    base.sort();
    base
}

/// A dpkg status file that has these versions installed.
fn status(universe: &Universe<'_>, installed: &[VersionId], texts: &[String]) -> String {
    let wanted: BTreeSet<(&str, &str)> = installed
        .iter()
        .map(|id| (universe.name(universe.version(*id).name).name, universe.version(*id).version))
        .collect();
    let mut written = BTreeSet::new();
    let mut status = String::new();
    for stanza in texts.iter().flat_map(|text| stanzas(text)) {
        let key = (stanza.get("Package").unwrap_or_default(), stanza.get("Version").unwrap_or_default());
        if wanted.contains(&key) && written.insert(key) {
            writeln!(status, "{}\nStatus: install ok installed\n", stanza.text()).unwrap();
        }
    }
    assert_eq!(written.len(), wanted.len());
    status
}

/// apt in a root of its own, that knows nothing of the host.
struct Apt {
    root: PathBuf,
}

impl Apt {
    fn new(folder: &Path, request: &Request) -> Self {
        _ = std::fs::remove_dir_all(folder);
        let apt = Apt { root: folder.to_owned() };
        for part in ["etc/apt/preferences.d", "etc/apt/apt.conf.d", "state/lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(folder.join(part)).unwrap();
        }
        apt.write("apt.conf", &apt.configuration());
        let mut sources = String::new();
        for repository in request.repositories.values() {
            let components: Vec<&str> = repository.components.keys().map(String::as_str).collect();
            let keyring = root().join("functions/keyrings").join(format!("{}.asc", repository.keyring));
            writeln!(
                sources,
                "deb [arch=amd64 signed-by={}] {} {} {}",
                keyring.display(),
                repository.source,
                repository.suite,
                components.join(" ")
            )
            .unwrap();
        }
        apt.write("etc/apt/sources.list", &sources);
        apt.write("status", "");
        apt.run(&["update"]);
        apt
    }

    fn configuration(&self) -> String {
        let root = self.root.display();
        format!(
            "Dir \"{root}\";\nDir::Etc \"{root}/etc/apt\";\nDir::State \"{root}/state\";\nDir::Cache \"{root}/cache\";\n\
             Dir::State::status \"{root}/status\";\nDir::Log \"{root}\";\nDir::Bin::methods \"/usr/lib/apt/methods\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\nAPT::Install-Recommends \"false\";\n\
             APT::Get::Always-Include-Phased-Updates \"true\";\nAcquire::Languages \"none\";\n\
             APT::Sandbox::User \"root\";\nDebug::NoLocking \"true\";\n"
        )
    }

    /// `apt-get -s install`: what would be newly installed.
    fn install(&self, names: &[String], unapproved: &BTreeSet<String>, status: &str) -> Vec<String> {
        if names.is_empty() {
            return Vec::new();
        }
        let pins: String =
            unapproved.iter().map(|name| format!("Package: {name}\nPin: release *\nPin-Priority: -1\n\n")).collect();
        self.write("etc/apt/preferences.d/unapproved", &pins);
        self.write("status", status);
        let mut arguments = vec!["-s", "install", "--no-install-recommends", "-y"];
        arguments.extend(names.iter().map(String::as_str));
        let mut answer: Vec<String> = Vec::new();
        for line in self.run(&arguments).lines() {
            assert!(!line.starts_with("Remv "), "apt would remove a package: {line}");
            let Some(rest) = line.strip_prefix("Inst ") else { continue };
            let (name, rest) = rest.split_once(' ').unwrap();
            let version = rest.split_once('(').unwrap().1.split(' ').next().unwrap();
            answer.push(format!("{name}={version}"));
        }
        answer.sort();
        answer
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.root.join(path), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("apt-get")
            .args(arguments)
            .env("APT_CONFIG", self.root.join("apt.conf"))
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "apt-get: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

// ---- recording ----

const KEPT: [&str; 16] = [
    "Package",
    "Version",
    "Architecture",
    "Multi-Arch",
    "Priority",
    "Essential",
    "Important",
    "Protected",
    "Pre-Depends",
    "Depends",
    "Conflicts",
    "Breaks",
    "Recommends",
    "Provides",
    "Suggests",
    "Enhances",
];

/// Writes the part of the indexes that the cases can reach, and the answers.
fn record(release: &str, universe: &Universe<'_>, texts: &[String], pins: Vec<i32>, cases: Vec<Case>) {
    let folder = root().join("tests/cases/resolver").join(release);
    _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let reached = reachable(universe, &cases);
    for (at, text) in texts.iter().enumerate() {
        let mut small = String::new();
        for stanza in stanzas(text) {
            if !reached.contains(stanza.get("Package").unwrap_or_default()) {
                continue;
            }
            for (name, value) in stanza.fields().filter(|(name, _)| KEPT.contains(name)) {
                let value = match name {
                    // Kept short: they only matter when something is dropped again.
                    "Suggests" | "Recommends" | "Enhances" => mentioned(value, &reached),
                    _ => value.to_owned(),
                };
                if !value.is_empty() {
                    writeln!(small, "{name}: {value}").unwrap();
                }
            }
            writeln!(small, "Filename: x\nSize: 1\nSHA256: {}\n", "0".repeat(64)).unwrap();
        }
        let mut packed =
            liblzma::write::XzEncoder::new(std::fs::File::create(folder.join(format!("{at}.xz"))).unwrap(), 9);
        packed.write_all(small.as_bytes()).unwrap();
        packed.finish().unwrap();
    }
    let recording = serde_json::to_string(&Recording { pins, cases }).unwrap();
    std::fs::write(folder.join("answers.json"), recording.replace("\"],", "\"],\n") + "\n").unwrap();
}

fn mentioned(field: &str, reached: &BTreeSet<&str>) -> String {
    let known = |group: &&str| {
        group
            .split('|')
            .all(|one| reached.contains(one.split([' ', ':', '(']).find(|word| !word.is_empty()).unwrap_or("")))
    };
    field.split(',').map(str::trim).filter(known).collect::<Vec<_>>().join(", ")
}

/// Every package that a case asks for or that could become a dependency of one that is reached.
fn reachable<'a>(universe: &Universe<'a>, cases: &[Case]) -> BTreeSet<&'a str> {
    let mut open: Vec<u32> = Vec::new();
    for (id, name) in universe.names() {
        let asked =
            cases.iter().flat_map(|case| &case.layers).any(|layer| layer.request.iter().any(|one| one == name.name));
        let base = name.versions.iter().any(|version| {
            let version = universe.version(*version);
            version.essential || version.priority == imagebuilder::package::index::Priority::Required
        });
        if asked || base {
            open.push(id);
        }
    }
    let mut seen: BTreeSet<u32> = open.iter().copied().collect();
    let mut reached = BTreeMap::new();
    while let Some(id) = open.pop() {
        let name = universe.name(id);
        if !name.versions.is_empty() {
            reached.insert(name.name, ());
        }
        let mut follow: Vec<u32> = name.providers.iter().map(|(version, _)| universe.version(*version).name).collect();
        if let Some(version) = name.versions.first() {
            for group in universe.groups(*version) {
                if matches!(group.kind, Relationship::Depends | Relationship::PreDepends) {
                    follow.extend(universe.alternatives(group).iter().map(|one| one.target));
                }
            }
        }
        for id in follow {
            if seen.insert(id) {
                open.push(id);
            }
        }
    }
    reached.into_keys().collect()
}

macro_rules! releases {
    ($($release:ident $distro:literal $recorded:ident $live:ident),* $(,)?) => {
        $(
            #[test]
            fn $recorded() {
                recorded(stringify!($release));
            }

            #[test]
            fn $live() {
                live(stringify!($release), $distro);
            }
        )*
    };
}

releases! {
    bookworm "debian_bookworm" recorded_bookworm live_bookworm,
    trixie "debian_trixie" recorded_trixie live_trixie,
    focal "ubuntu_focal" recorded_focal live_focal,
    jammy "ubuntu_jammy" recorded_jammy live_jammy,
    noble "ubuntu_noble" recorded_noble live_noble,
}
