//! The resolver against apt itself: the same packages and versions for the lists we ship and some others.
//!
//! `recorded_*` run anywhere: small indexes (what the lists can reach, without descriptions) with apt's answers and
//! marks lie under `tests/cases/resolver`. `live_*` ask an apt about today's archive; they are skipped, with a message,
//! without apt or network. `IMAGEBUILDER_ORACLE=1` makes it the release's own apt (as root: a minimal root of the
//! release is built for it), else it is that of this machine. `IMAGEBUILDER_BLESS=1` makes the live tests write the
//! recordings anew; it needs `IMAGEBUILDER_ORACLE=1`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::Path;
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
use imagebuilder::tree::Digest;
use serde::{Deserialize, Serialize};

#[path = "support/release_apt.rs"]
mod release_apt;

use release_apt::{Apt, Found};

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

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct CaseLayer {
    layer: Layer,
    request: Vec<String>,
    /// apt's answer, `name=version`, sorted.
    answer: Vec<String>,
    /// The packages that apt has marked as automatically installed after this layer and those before.
    automatic: BTreeSet<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Recording {
    /// The apt that was asked, and the distribution it belongs to.
    oracle: String,
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
        let layer = CaseLayer { layer: Layer::Base, request, ..CaseLayer::default() };
        Case { name: name.to_owned(), unapproved: BTreeSet::new(), layers: vec![layer] }
    }

    /// A dependency of the lower layer that the upper one asks for by its name.
    fn promoted() -> Self {
        let layer = |layer, name: &str| CaseLayer { layer, request: vec![name.into()], ..CaseLayer::default() };
        let layers = vec![layer(Layer::Base, "systemd-sysv"), layer(Layer::Role, "systemd")];
        Case { name: "promoted".into(), unapproved: BTreeSet::new(), layers }
    }

    fn shipped(role: &str, request: &Request) -> Self {
        let layer = |layer: &LayerRequest| CaseLayer {
            layer: layer.layer,
            request: layer.packages.iter().map(|package| package.name.clone()).collect(),
            ..CaseLayer::default()
        };
        Case {
            name: role.to_owned(),
            unapproved: request.unapproved.clone(),
            layers: request.layers.iter().map(layer).collect(),
        }
    }
}

/// Our answer to one layer of a case.
struct Ours {
    /// What the layer adds, as `name=version`.
    shown: BTreeSet<String>,
    /// What is marked as automatically installed after this layer and those before.
    automatic: BTreeSet<String>,
}

fn ours(universe: &Universe<'_>, case: &Case) -> Vec<Ours> {
    let layers =
        resolve(universe, &case.requests(), &case.unapproved).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let name = |id: u32| universe.name(id).name;
    let mut automatic: BTreeSet<String> = BTreeSet::new();
    let mut all = Vec::new();
    for layer in layers {
        for manual in &layer.manual {
            assert!(automatic.remove(name(*manual)), "{} was not automatic", name(*manual));
        }
        let dependencies = layer.packages.iter().filter(|chosen| chosen.automatic);
        automatic.extend(dependencies.map(|chosen| name(universe.version(chosen.version).name).to_owned()));
        let show = |id: VersionId| format!("{}={}", name(universe.version(id).name), universe.version(id).version);
        let shown = layer.packages.iter().map(|chosen| show(chosen.version)).collect();
        all.push(Ours { shown, automatic: automatic.clone() });
    }
    all
}

fn assert_same(case: &str, what: &str, ours: &BTreeSet<String>, apt: &BTreeSet<String>) {
    let only_ours: Vec<_> = ours.difference(apt).collect();
    let only_apt: Vec<_> = apt.difference(ours).collect();
    assert!(
        only_ours.is_empty() && only_apt.is_empty(),
        "{case}, {what}: only with us {only_ours:?}, only with apt {only_apt:?}"
    );
}

fn compare(case: &str, layer: &CaseLayer, ours: &Ours) {
    let name = layer.layer.name();
    assert_same(case, &format!("packages of layer {name}"), &ours.shown, &layer.answer.iter().cloned().collect());
    assert_same(case, &format!("automatic after layer {name}"), &ours.automatic, &layer.automatic);
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
        for (layer, ours) in case.layers.iter().zip(ours(&universe, case)) {
            assert!(!layer.answer.is_empty() || layer.layer != Layer::Base);
            assert!(!layer.automatic.is_empty());
            compare(&case.name, layer, &ours);
        }
    }
    let promoted = recording.cases.iter().find(|case| case.name == "promoted").unwrap();
    let marked = |at: usize| promoted.layers[at].automatic.contains("systemd");
    assert!(marked(0) && !marked(1), "{}: apt marks what is asked for as manual", recording.oracle);
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
    let Some(oracle) = Oracle::choose() else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("resolver").join(release);
    let environment = environment(&folder);
    let Some(updated) = updated(request, &environment) else { return };
    let apt = match oracle {
        Oracle::Host => Apt::of_host(&folder.join("apt"), request),
        Oracle::Release => {
            let Some(signed) = signed(request, &updated, &environment) else { return };
            let repositories = request.repositories.iter().zip(updated.iter().zip(&signed));
            let found: Vec<Found<'_>> = repositories
                .map(|((name, repository), (updated, signed))| {
                    (name.as_str(), repository, &updated.locked, signed.as_slice())
                })
                .collect();
            Apt::of_release(&folder.join("apt"), request, &found, &environment)
        }
    };
    let mut texts = Vec::new();
    let mut pins = Vec::new();
    for updated in updated {
        pins.extend(updated.texts.iter().map(|_| updated.pin));
        texts.extend(updated.texts);
    }
    let indexes = indexes(&texts, &pins);
    let universe = Universe::read("amd64", &indexes).unwrap();
    let mut cases: Vec<Case> = lists.iter().map(|(role, request)| Case::shipped(role, request)).collect();
    cases.push(Case::flat("small", SMALL, &universe));
    cases.push(Case::flat("upstream", UPSTREAM, &universe));
    cases.push(Case::flat("varied", VARIED, &universe));
    cases.push(Case::promoted());
    ask(&apt, &universe, &texts, &mut cases);
    for case in &cases {
        for (layer, ours) in case.layers.iter().zip(ours(&universe, case)) {
            compare(&format!("{release} {}", case.name), layer, &ours);
        }
        let count: usize = case.layers.iter().map(|layer| layer.answer.len()).sum();
        eprintln!("{release} {}: {count} packages, the same as {}", case.name, apt.version());
    }
    if std::env::var_os("IMAGEBUILDER_BLESS").is_some() {
        assert!(matches!(oracle, Oracle::Release), "recordings are made with the release's own apt");
        record(release, &universe, &texts, pins.clone(), cases, format!("{release}: {}", apt.version()));
        recorded(release);
    }
}

#[derive(Clone, Copy)]
enum Oracle {
    Host,
    Release,
}

impl Oracle {
    fn choose() -> Option<Self> {
        if std::env::var_os("IMAGEBUILDER_ORACLE").is_some() {
            if rustix::process::geteuid().is_root() {
                return Some(Oracle::Release);
            }
            eprintln!("skipped: a root for the release's own apt is made by root only");
            return None;
        }
        if Command::new("apt-get").arg("--version").output().is_ok_and(|output| output.status.success()) {
            return Some(Oracle::Host);
        }
        eprintln!("skipped: there is no apt-get on this machine");
        None
    }
}

/// Asks for packages layer by layer, and then for the marks in the same way.
fn ask(apt: &Apt, universe: &Universe<'_>, texts: &[String], cases: &mut [Case]) {
    let names = |universe: &Universe<'_>, case: &Case, at: usize| {
        let base = base_set(universe, &case.unapproved);
        let mut names: Vec<String> = if at == 0 { base.clone() } else { Vec::new() };
        names.extend(case.layers[at].request.iter().filter(|name| !base.contains(name) || at > 0).cloned());
        names
    };
    for case in &mut *cases {
        for at in 0..case.layers.len() {
            let installed = status(case.layers[..at].iter(), texts);
            case.layers[at].answer = apt.install(&names(universe, case, at), &case.unapproved, &installed);
        }
    }
    apt.prepare_marks(texts);
    for case in cases {
        apt.clear_marks();
        for at in 0..case.layers.len() {
            let installed = status(case.layers[..at].iter(), texts);
            case.layers[at].automatic = apt.marks(&names(universe, case, at), &case.unapproved, &installed);
        }
    }
}

fn environment(folder: &Path) -> Environment {
    let patience = Patience { attempts: 2, ..Patience::default() };
    Environment {
        cache: folder.join("cache"),
        now: jiff::Timestamp::now().as_second(),
        reporter: Reporter::quiet(),
        http: Client::new(Proxies::from_variables(std::env::vars()), patience).unwrap(),
    }
}

/// The indexes of today, or `None` where the mirror cannot be reached.
fn updated(request: &Request, environment: &Environment) -> Option<Vec<Updated>> {
    let mut all = Vec::new();
    for (name, repository) in &request.repositories {
        match update(name, repository, "amd64", environment) {
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

/// The signed indexes that the resolver saw; `None` if a mirror has published another one since.
fn signed(request: &Request, updated: &[Updated], environment: &Environment) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for (repository, updated) in request.repositories.values().zip(updated) {
        let url = format!("{}/dists/{}/InRelease", repository.source.trim_end_matches('/'), repository.suite);
        let mut bytes = Vec::new();
        environment.http.get(&url, 0).unwrap().body.take(32 << 20).read_to_end(&mut bytes).unwrap();
        if Digest::of(&bytes) != updated.locked.release {
            eprintln!("skipped: {url} changed while we looked, try again");
            return None;
        }
        all.push(bytes);
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

const OF_ARCHIVE: [&str; 7] = ["Filename", "Size", "MD5sum", "SHA1", "SHA256", "SHA512", "Description-md5"];

/// A dpkg status file in which apt's answers of these layers are installed.
fn status<'a>(layers: impl Iterator<Item = &'a CaseLayer>, texts: &[String]) -> String {
    let wanted: BTreeSet<(&str, &str)> =
        layers.flat_map(|layer| &layer.answer).map(|one| one.split_once('=').unwrap()).collect();
    let mut written = BTreeSet::new();
    let mut status = String::new();
    for stanza in texts.iter().flat_map(|text| stanzas(text)) {
        let key = (stanza.get("Package").unwrap_or_default(), stanza.get("Version").unwrap_or_default());
        if wanted.contains(&key) && written.insert(key) {
            // As dpkg writes it: what belongs to the archive would make apt take it for another build of the version.
            for (name, value) in stanza.fields().filter(|(name, _)| !OF_ARCHIVE.contains(name)) {
                writeln!(status, "{name}: {value}").unwrap();
            }
            writeln!(status, "Status: install ok installed\n").unwrap();
        }
    }
    assert_eq!(written.len(), wanted.len());
    status
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
fn record(release: &str, universe: &Universe<'_>, texts: &[String], pins: Vec<i32>, cases: Vec<Case>, oracle: String) {
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
    let recording = serde_json::to_string(&Recording { oracle, pins, cases }).unwrap();
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
