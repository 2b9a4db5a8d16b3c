//! The root file system against apt and dpkg: the same packages, installed by mmdebstrap into a chroot, must give the
//! same files, owners, modes, links, capabilities and dpkg database. What may differ is written down in
//! `docs/decisions/0004-rootfs-differences.md` and in [`EXPECTED`]. The initramfs against the distribution's mkinitramfs.
//!
//! Runs with `IMAGEBUILDER_ORACLE=1` as root where mmdebstrap and the Debian mirror can be reached (some minutes);
//! otherwise it says that it is skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use imagebuilder::api::params::distribution::{Empty, Repository};
use imagebuilder::api::params::software::Layer;
use imagebuilder::build::initramfs;
use imagebuilder::build::rootfs::{self, Workshop};
use imagebuilder::package::Environment;
use imagebuilder::package::fetch::fetch_all;
use imagebuilder::package::http::{Client, Patience, Proxies};
use imagebuilder::package::lock::{self, LayerRequest, Lock, PackageRequest, Request};
use imagebuilder::report::Reporter;
use imagebuilder::sandbox::{Job, Namespaces, Sandbox};
use imagebuilder::tree::clusters::Clusters;
use imagebuilder::tree::host::Folder;
use imagebuilder::tree::store::Store;
use imagebuilder::tree::{Digest, Entry, Kind, Mtime, Tree, TreePath};

/// Services, capabilities, users, alternatives, diversions, certificates, byte-compiled Python, setuid programs, locales.
const PACKAGES: &str = "systemd-sysv dbus udev iputils-ping e2fsprogs ca-certificates openssh-server sudo chrony \
    python3-yaml libpam-systemd kmod locales tzdata";

const MIRROR: &str = "http://deb.debian.org/debian";

/// Paths (or everything below) that differ, each with its reason.
const EXPECTED: &[(&str, &str)] = &[
    ("dev", "the chroot tool makes nodes there, the node's kernel makes its own"),
    ("run", "scripts leave empty folders there; it is a tmpfs on the node, and the chroot tool empties it"),
    ("tmp", "emptied by the chroot tool"),
    ("etc/hostname", "copied from the host by the chroot tool"),
    ("etc/resolv.conf", "copied from the host by the chroot tool"),
    ("etc/fstab", "written by the chroot tool"),
    ("etc/apt/sources.list", "written by the chroot tool"),
    ("etc/apt/apt.conf.d/99mmdebstrap", "written by the chroot tool"),
    ("etc/machine-id", "random"),
    ("var/lib/dbus/machine-id", "random"),
    ("etc/ssh/ssh_host_ecdsa_key", "random"),
    ("etc/ssh/ssh_host_ecdsa_key.pub", "random"),
    ("etc/ssh/ssh_host_ed25519_key", "random"),
    ("etc/ssh/ssh_host_ed25519_key.pub", "random"),
    ("etc/ssh/ssh_host_rsa_key", "random"),
    ("etc/ssh/ssh_host_rsa_key.pub", "random"),
    ("etc/chrony/chrony.keys", "random"),
    ("var/cache", "indexes and caches"),
    ("var/log", "logs"),
    ("var/lib/apt", "indexes of the chroot tool's apt; extended_states is ours to write"),
    ("var/lib/dpkg/available", "empty here, made by the chroot tool or not"),
    ("var/lib/dpkg/arch", "the chroot tool writes the native architecture, dpkg does not"),
    ("var/lib/dpkg/lock", "made by whoever takes it"),
    ("var/lib/dpkg/lock-frontend", "made by apt"),
    ("var/lib/dpkg/diversions-old", "backup of an earlier state"),
    ("var/lib/dpkg/statoverride-old", "backup of an earlier state"),
    ("var/lib/dpkg/status-old", "backup of an earlier state"),
    ("etc/passwd-", "backup of an earlier state"),
    ("etc/group-", "backup of an earlier state"),
    ("etc/shadow-", "backup of an earlier state"),
    ("etc/gshadow-", "backup of an earlier state"),
    ("usr/bin/uncompress", "a hard link in the package; the chroot tool's way of unpacking twice breaks it"),
];

/// Files that hold a set of lines; their order, and the numbers of users made by scripts, follow the order of
/// configuration, which Debian leaves open.
const LINE_SETS: [&str; 6] =
    ["etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/shells", "var/lib/dpkg/triggers/File"];

fn is_expected(path: &TreePath) -> bool {
    let text = String::from_utf8_lossy(path.as_bytes()).into_owned();
    // Compiled with SOURCE_DATE_EPOCH set: checked by digest instead of by time (PEP 552).
    let compiled = text.ends_with(".pyc");
    compiled || EXPECTED.iter().any(|(known, _)| text == *known || text.starts_with(&format!("{known}/")))
}

fn request() -> Request {
    // More of them, for who wants to know about these.
    request_of(PACKAGES, &std::env::var("IMAGEBUILDER_ORACLE_PACKAGES").unwrap_or_default())
}

fn request_of(packages: &str, more: &str) -> Request {
    let repository = |suite: &str| Repository {
        source: MIRROR.into(),
        suite: suite.into(),
        components: BTreeMap::from([("main".into(), Empty {})]),
        keyring: "debian-archive".into(),
        ..Repository::default()
    };
    let packages = packages.split_whitespace().chain(more.split_whitespace());
    let packages = packages.map(|name| PackageRequest { name: name.into(), version: None }).collect();
    Request {
        architecture: "amd64".into(),
        repositories: BTreeMap::from([("main".into(), repository("bookworm"))]),
        layers: vec![
            LayerRequest { layer: Layer::Base, packages: Vec::new() },
            LayerRequest { layer: Layer::Role, packages },
        ],
        unapproved: BTreeSet::new(),
        tools: Vec::new(),
    }
}

fn oracle(root: &Path, lock: &Lock) {
    let names: Vec<String> = lock.packages().map(|package| format!("{}={}", package.name, package.version)).collect();
    let output = Command::new("mmdebstrap")
        .args(["--mode=root", "--variant=custom", "--format=directory", "--skip=cleanup/apt,cleanup/reproducible"])
        .arg(format!("--include={}", names.join(",")))
        .args(["bookworm", root.to_str().unwrap(), MIRROR])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Names instead of numbers, so that the order in which users were made does not matter.
struct Names {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Names {
    fn of(tree: &Tree) -> Self {
        let read = |path: &'static str| {
            let text = tree.read_file(&TreePath::literal(path)).unwrap().unwrap();
            let text = String::from_utf8(text).unwrap();
            let pair = |line: &str| {
                let mut fields = line.split(':');
                let name = fields.next()?.to_string();
                Some((fields.nth(1)?.parse().ok()?, name))
            };
            text.lines().filter_map(pair).collect()
        };
        Names { users: read("etc/passwd"), groups: read("etc/group") }
    }

    fn describe(&self, path: &TreePath, entry: &Entry) -> String {
        let name = |names: &BTreeMap<u32, String>, id: u32| names.get(&id).cloned().unwrap_or(id.to_string());
        let (user, group) = (name(&self.users, entry.meta.uid), name(&self.groups, entry.meta.gid));
        let kind = match &entry.kind {
            Kind::File(content) if LINE_SETS.contains(&path.to_string().trim_start_matches('/')) => {
                let text = String::from_utf8(content.bytes().unwrap()).unwrap();
                let accounts = path.to_string().starts_with("/etc/") && !path.to_string().ends_with("shells");
                let line = |line: &str| -> String {
                    let fields: Vec<&str> = line.split(':').collect();
                    // Numbers of users and days of the last change are left out.
                    if accounts {
                        fields.iter().filter(|field| field.parse::<u32>().is_err()).copied().collect()
                    } else {
                        line.into()
                    }
                };
                let lines: BTreeSet<String> = text.lines().map(line).collect();
                format!("lines {lines:?}")
            }
            other => format!("{other:?}"),
        };
        format!("{:o} {user}:{group} {:?} {kind}", entry.meta.mode, entry.meta.xattrs)
    }
}

#[test]
fn the_same_packages_give_the_same_root() {
    if std::env::var_os("IMAGEBUILDER_ORACLE").is_none() {
        eprintln!("skipped: set IMAGEBUILDER_ORACLE=1 to compare with mmdebstrap (needs root and the network)");
        return;
    }
    if !rustix::process::geteuid().is_root() || Command::new("mmdebstrap").arg("--version").output().is_err() {
        eprintln!("skipped: needs root and mmdebstrap");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let environment = environment(scratch.path());
    let lock = lock::resolve(&request(), &environment).unwrap();
    let ours = build(&lock, &environment, scratch.path(), How::default());
    let store = Store::open(scratch.path()).unwrap();
    let mut folder = Folder::create(&scratch.path().join("theirs")).unwrap();
    oracle(folder.path(), &lock);
    let pack = store.writer(Digest::of(b"oracle")).unwrap();
    let theirs = folder.scan(&pack, &|_| Arc::from("dpkg")).unwrap();
    // Contents of a pack that is not saved yet can be read all the same.
    let differences = differences(&ours, &theirs);
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// What is random, or tells of the run, in layers; seal takes it out of every image.
const OF_THE_RUN: [&str; 7] = [
    "/etc/ssh/ssh_host_",
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    "/etc/chrony/chrony.keys",
    "/var/log/",
    "/var/cache/ldconfig/aux-cache",
    "/var/lib/systemd/random-seed",
];

/// Native helpers of scripts, workers beside dpkg, and byte code of an earlier build leave what the distribution's own
/// programs leave, one after the other: every file with its bytes, owner, mode and time.
#[test]
fn helpers_of_scripts_change_nothing() {
    if std::env::var_os("IMAGEBUILDER_ORACLE").is_none() || !rustix::process::geteuid().is_root() {
        eprintln!("skipped: set IMAGEBUILDER_ORACLE=1 to build with and without helpers (needs root and the network)");
        return;
    }
    let folders: [_; 4] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let [one, two, three, kept] = folders.each_ref().map(|folder| folder.path());
    let environment = environment(one);
    let lock = lock::resolve(&request(), &environment).unwrap();
    let plain = build(&lock, &environment, two, How { plain: true, clusters: None });
    let clusters = || Clusters::open(kept, environment.now, &environment.reporter).unwrap();
    let first = build(&lock, &environment, one, How { plain: false, clusters: Some(&clusters()) });
    let again = build(&lock, &environment, three, How { plain: false, clusters: Some(&clusters()) });
    assert!(plain.iter().any(|(path, _)| path.to_string().ends_with(".pyc")));
    for (name, native) in [("native", first), ("with byte code that was kept", again)] {
        let paths: BTreeSet<&TreePath> = native.iter().chain(plain.iter()).map(|(path, _)| path).collect();
        let counts = |path: &&&TreePath| !OF_THE_RUN.iter().any(|known| path.to_string().starts_with(known));
        let mut found = Vec::new();
        for path in paths.iter().filter(counts) {
            let [one, two] = [&native, &plain].map(|tree| tree.get(path).map(|entry| (&entry.meta, &entry.kind)));
            if one != two {
                found.push(format!("{path}\n  {name} {one:?}\n  plain  {two:?}"));
            }
        }
        assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
    }
}

/// With hooks of several packages (not that of mdadm, which writes the time into a file). No zstd, which mkinitramfs is
/// configured for.
const INITRAMFS_PACKAGES: &str =
    "linux-image-amd64 initramfs-tools systemd-sysv udev e2fsprogs busybox lvm2 cryptsetup-initramfs";

/// Our initramfs, whose hooks ask native code, holds what the distribution's own program puts in: paths, kinds, modes,
/// owners, bytes.
#[test]
fn the_initramfs_holds_what_the_distributions_own_holds() {
    if std::env::var_os("IMAGEBUILDER_ORACLE").is_none() || !rustix::process::geteuid().is_root() {
        eprintln!("skipped: set IMAGEBUILDER_ORACLE=1 to compare with mkinitramfs (needs root and the network)");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let environment = environment(scratch.path());
    let lock = lock::resolve(&request_of(INITRAMFS_PACKAGES, ""), &environment).unwrap();
    let tree = build(&lock, &environment, scratch.path(), How::default());
    let mut folder = Folder::create(&scratch.path().join("target")).unwrap();
    folder.show(&tree).unwrap();
    let root = folder.path().to_path_buf();
    let sandbox = Namespaces::new();
    let run = |words: &[&str]| {
        let finished = sandbox.run(&root, &Job::new(words.iter().copied()), &mut |_| {}).unwrap();
        assert!(finished.success, "{words:?}: {}\n{}", finished.status, finished.tail);
    };
    let version = initramfs::kernel_versions(&tree).remove(0);
    run(&["mkinitramfs", "-o", "/var/tmp/theirs.img", &version]);
    let theirs = std::fs::read(root.join("var/tmp/theirs.img")).unwrap();

    let store = Store::open(scratch.path()).unwrap();
    let pack = store.writer(Digest::of(b"initramfs")).unwrap();
    let epoch = Mtime { seconds: environment.now, nanoseconds: 0 };
    let reporter = &environment.reporter;
    let workshop = initramfs::Workshop { root: &root, sandbox: &sandbox, epoch, plain: false, reporter };
    let overlay = initramfs::build(&tree, &workshop, &pack).unwrap();
    let path = TreePath::new(format!("boot/initrd.img-{version}")).unwrap();
    let ours = overlay.read_file(&path).unwrap().unwrap();

    let mut gzip = Vec::new();
    flate2::read::GzDecoder::new(theirs.as_slice()).read_to_end(&mut gzip).expect("theirs is gzip, there is no zstd");
    let zstd = zstd::decode_all(ours.as_slice()).expect("ours is zstd all the same");
    let [theirs, ours] = [("theirs", gzip), ("ours", zstd)].map(|(name, archive)| {
        std::fs::write(root.join(format!("var/tmp/{name}.cpio")), archive).unwrap();
        run(&[
            "sh",
            "-c",
            &format!("mkdir /var/tmp/{name} && cd /var/tmp/{name} && cpio -idm --quiet <../{name}.cpio"),
        ]);
        contents(&root.join("var/tmp").join(name))
    });
    assert!(ours.keys().filter(|path| path.ends_with(".ko")).count() > 100 && ours.len() > 1000, "{}", ours.len());
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let differences: Vec<_> = paths.into_iter().filter(|path| ours.get(*path) != theirs.get(*path)).collect();
    assert!(differences.is_empty(), "{} differences: {differences:?}", differences.len());
}

/// Everything below a folder: mode with kind, owner, and digest of bytes or target of a link.
fn contents(folder: &Path) -> BTreeMap<String, (u32, u32, u32, String)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![folder.to_path_buf()];
    while let Some(place) = todo.pop() {
        for entry in std::fs::read_dir(&place).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let what = if meta.is_dir() {
                todo.push(path.clone());
                String::new()
            } else if meta.is_symlink() {
                path.read_link().unwrap().display().to_string()
            } else {
                Digest::of(&std::fs::read(&path).unwrap()).to_hex()
            };
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            found.insert(name, (meta.mode(), meta.uid(), meta.gid(), what));
        }
    }
    found
}

/// Downloads lie in the folder, or where `IMAGEBUILDER_ORACLE_CACHE` says.
fn environment(scratch: &Path) -> Environment {
    let reporter = Reporter::plain();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let proxies = Proxies::from_variables(std::env::vars());
    let http = Client::new(proxies, Patience::default()).unwrap();
    let cache = std::env::var_os("IMAGEBUILDER_ORACLE_CACHE").map_or(scratch.to_path_buf(), Into::into);
    Environment { cache, now, reporter, http }
}

/// How scripts are run.
#[derive(Default)]
struct How<'a> {
    plain: bool,
    clusters: Option<&'a Clusters>,
}

fn build(lock: &Lock, environment: &Environment, scratch: &Path, how: How<'_>) -> Tree {
    let store = Store::open(scratch).unwrap();
    let fetch =
        |layer: &lock::LockedLayer| fetch_all(&layer.packages, &lock.evidence.repositories, environment).unwrap();
    let debs: Vec<_> = lock.layers.iter().map(fetch).collect();
    let pairs = lock.layers.iter().zip(&debs);
    let layers: Vec<_> = pairs.map(|(locked, debs)| rootfs::Layer { key: locked.digest(), locked, debs }).collect();
    let mut folder = Folder::create(&scratch.join("ours")).unwrap();
    let sandbox = Namespaces::new();
    let mut workshop = Workshop {
        store: &store,
        sandbox: &sandbox,
        folder: &mut folder,
        scratch,
        arrived: &|_| Ok(()),
        now: environment.now,
        plain: how.plain,
        clusters: how.clusters,
        reporter: &environment.reporter,
    };
    rootfs::build(&layers, &mut workshop).unwrap()
}

fn differences(ours: &Tree, theirs: &Tree) -> Vec<String> {
    let (our_names, their_names) = (Names::of(ours), Names::of(theirs));
    let paths: BTreeSet<&TreePath> = ours.iter().chain(theirs.iter()).map(|(path, _)| path).collect();
    let mut found = Vec::new();
    for path in paths.into_iter().filter(|path| !path.is_root() && !is_expected(path)) {
        let one = ours.get(path).map(|entry| our_names.describe(path, entry));
        let two = theirs.get(path).map(|entry| their_names.describe(path, entry));
        if one != two {
            found.push(format!("{path}\n  here  {}\n  there {}", one.unwrap_or_default(), two.unwrap_or_default()));
        }
    }
    found
}
