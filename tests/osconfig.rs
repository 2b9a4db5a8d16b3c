//! OS configuration against the real programs: units against `systemctl --root`, accounts against `useradd --prefix`.
//! `IMAGEBUILDER_ROOTFS=<folder>` (and `IMAGEBUILDER_DISTRO=debian_trixie` ...) runs the shipped documents on a real
//! root file system as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use imagebuilder::api::Params;
use imagebuilder::check::hygiene;
use imagebuilder::osconfig::unit::Systemd;
use imagebuilder::osconfig::{self, Facts};
use imagebuilder::tree::{Content, Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

/// Files, folders and links of a folder; hard links as files of their own.
fn scan(folder: &Path) -> Tree {
    fn walk(tree: &mut Tree, host: &Path, at: &TreePath) {
        for child in fs::read_dir(host).unwrap() {
            let child = child.unwrap();
            let name = std::os::unix::ffi::OsStrExt::as_bytes(child.file_name().as_os_str()).to_vec();
            let path = at.append(&TreePath::new(&name).unwrap());
            let stat = fs::symlink_metadata(child.path()).unwrap();
            let kind = if stat.is_symlink() {
                let target = fs::read_link(child.path()).unwrap();
                Kind::Symlink(std::os::unix::ffi::OsStrExt::as_bytes(target.as_os_str()).to_vec())
            } else if stat.is_dir() {
                Kind::Directory
            } else if stat.is_file() {
                Kind::File(Content::inline(fs::read(child.path()).unwrap()))
            } else {
                continue;
            };
            let mtime = Mtime { seconds: stat.mtime(), nanoseconds: 0 };
            let (mode, uid, gid) = ((stat.mode() & 0o7777) as u16, stat.uid(), stat.gid());
            let meta = Meta { mode, uid, gid, mtime, ..Meta::root(0) };
            let folder = kind == Kind::Directory;
            tree.insert_raw(path.clone(), Entry { meta, kind, origin: Arc::from("host") });
            if folder {
                walk(tree, &child.path(), &path);
            }
        }
    }
    let mut tree = Tree::new();
    walk(&mut tree, folder, &TreePath::root());
    tree
}

/// All links below /etc/systemd/system, by path.
fn links(tree: &Tree) -> BTreeMap<String, String> {
    let folder = TreePath::literal("etc/systemd/system");
    let links = tree.below(&folder).filter_map(|(path, entry)| match &entry.kind {
        // Whether the packages' folder is spelled with /usr depends on the release systemctl was built for.
        Kind::Symlink(target) => {
            Some((path.to_string(), String::from_utf8_lossy(target).replace("/usr/lib/", "/lib/")))
        }
        _ => None,
    });
    links.collect()
}

fn present(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: `{program}` is not installed here");
    }
    found
}

const UNITS: [(&str, &str); 9] = [
    (
        "plain.service",
        "[Install]\nWantedBy=multi-user.target\nRequiredBy=other.service another.service\nAlias=nick.service\n",
    ),
    ("also.service", "[Install]\nAlso=also.socket deep.service\n"),
    ("also.socket", "[Install]\nWantedBy=sockets.target\nAlso=also.service\n"),
    ("deep.service", "[Unit]\nDescription=\\\n  WantedBy=x\n[Install]\nWantedBy = a.target\\\n b.target\n"),
    ("tpl@.service", "[Install]\nDefaultInstance=one\nWantedBy=%p-%i.target %j.target\n"),
    ("noinst@.service", "[Install]\nWantedBy=getty.target\n"),
    ("reset.service", "[Install]\nWantedBy=gone.target\nWantedBy=\nWantedBy=%N.target\n# WantedBy=no.target\n"),
    ("masked.service", "[Install]\nWantedBy=multi-user.target\n"),
    ("dropped.service", "[Service]\nExecStart=/bin/true\n"),
];

#[test]
fn units_are_enabled_as_systemctl_does() {
    if !present("systemctl") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    fs::create_dir_all(root.path().join("etc/systemd/system/dropped.service.d")).unwrap();
    std::os::unix::fs::symlink("usr/lib", root.path().join("lib")).unwrap();
    for (name, text) in UNITS {
        fs::write(units.join(name), text).unwrap();
    }
    fs::write(
        root.path().join("etc/systemd/system/dropped.service.d/install.conf"),
        "[Install]\nWantedBy=multi-user.target\n",
    )
    .unwrap();
    let names = [
        "plain.service",
        "also.service",
        "tpl@.service",
        "tpl@two.service",
        "noinst@x.service",
        "reset.service",
        "dropped.service",
    ];
    compare(root.path(), &names);
}

/// Every unit of this machine's packages.
#[test]
fn the_machine_s_own_units_are_enabled_as_systemctl_does() {
    let folder = Path::new("/usr/lib/systemd/system");
    if !present("systemctl") || !folder.is_dir() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    std::os::unix::fs::symlink("usr/lib", root.path().join("lib")).unwrap();
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (name, kind) = (entry.file_name().into_string().unwrap(), entry.file_type().unwrap());
        if kind.is_file() && name.contains('.') {
            let text = fs::read_to_string(entry.path()).unwrap();
            fs::write(units.join(&name), &text).unwrap();
            if text.contains("\n[Install]") {
                names.insert(name);
            }
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), units.join(&name)).unwrap();
        }
    }
    assert!(names.len() > 10);
    compare(root.path(), &names.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Enables units one by one with both, then disables them.
fn compare(root: &Path, names: &[&str]) {
    let origin: Origin = Arc::from("test");
    let mut tree = scan(root);
    let systemctl = |verb: &str, name: &str| {
        let output = Command::new("systemctl").arg("--root").arg(root).args([verb, name]).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mut enabled = Vec::new();
    for name in names {
        let before = links(&scan(root));
        let (success, said) = systemctl("enable", name);
        let theirs = links(&scan(root));
        let ours = Systemd::new(&mut tree, Mtime::default(), &origin).unwrap().enable(name);
        match (&ours, success) {
            (Err(_), _) if theirs == before => continue,
            (Err(error), true) => panic!("{name}: systemctl enables it, we say: {error}"),
            (Ok(()), false) => panic!("{name}: we enable it, systemctl says: {said}"),
            (Err(_), false) => {
                // Both stop at a conflict; how much was linked before differs, so start again from what is there.
                tree = scan(root);
                continue;
            }
            _ => {}
        }
        assert_eq!(links(&tree), theirs, "after enabling {name}");
        enabled.push(*name);
    }
    assert!(!enabled.is_empty());
    println!("{} units enabled alike", enabled.len());
    for name in enabled {
        systemctl("disable", name);
        Systemd::new(&mut tree, Mtime::default(), &origin).unwrap().disable(name).unwrap();
        assert_eq!(links(&tree), links(&scan(root)), "after disabling {name}");
    }
}

const EPOCH: Mtime = Mtime { seconds: 1_700_000_000, nanoseconds: 0 };

fn apply(tree: &mut Tree, params: &Params) -> imagebuilder::error::Result<()> {
    let keyrings = BTreeMap::new();
    let facts = Facts { image: "data-plane", epoch: EPOCH, origins: &|_| None, keyrings: &keyrings };
    osconfig::apply(tree, params, &facts)
}

#[test]
fn accounts_are_made_as_useradd_does() {
    if !present("useradd") || !rustix::process::geteuid().is_root() {
        println!("skipped: needs `useradd` and root");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let etc = root.path().join("etc");
    fs::create_dir_all(etc.join("skel/.config")).unwrap();
    fs::create_dir_all(root.path().join("home")).unwrap();
    fs::create_dir_all(root.path().join("bin")).unwrap();
    fs::write(root.path().join("bin/bash"), "#!").unwrap();
    let files = [
        ("passwd", "root:x:0:0:root:/root:/bin/bash\nbin:x:2:2:bin:/bin:/bin/bash\n"),
        ("shadow", "root:*:19000:0:99999:7:::\nbin:*:19000:0:99999:7:::\n"),
        ("group", "root:x:0:\nbin:x:2:\nsudo:x:27:\n"),
        ("gshadow", "root:*::\nbin:*::\nsudo:*::\n"),
        ("subuid", ""),
        ("subgid", ""),
        ("skel/.bashrc", "# skel\n"),
        ("skel/.config/x", "y\n"),
        ("login.defs", &fs::read_to_string("/etc/login.defs").unwrap()),
    ];
    for (name, text) in files {
        fs::write(etc.join(name), text).unwrap();
    }
    let hash = "$6$saltsalt$0123456789abcdefghijklmnopqrstuvwxyz";
    let params: Params = serde_json::from_value(serde_json::json!({
        "users": {
            "alice": {"comment": "Alice", "groups": {"sudo": {}}, "password": hash},
            "bob": {"shell": "/bin/bash", "password_lock": true},
            "carol": {"uid": 4242, "home": "/srv/carol", "password_lock": true}},
    }))
    .unwrap();
    let mut tree = scan(root.path());
    apply(&mut tree, &params).unwrap();
    // With --prefix alone, useradd takes the skeleton of this machine.
    let skeleton = etc.join("skel");
    let useradd = |arguments: &[&str]| {
        let output = Command::new("useradd")
            .arg("--prefix")
            .arg(root.path())
            .arg("-k")
            .arg(&skeleton)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    fs::create_dir_all(root.path().join("srv")).unwrap();
    // Declared numbers come first with us; useradd would count on from 4242, so its calls come in the other order.
    useradd(&["-m", "-s", "/bin/bash", "-c", "Alice", "-G", "sudo", "-p", hash, "alice"]);
    useradd(&["-m", "-s", "/bin/bash", "bob"]);
    useradd(&["-m", "-s", "/bin/bash", "-u", "4242", "-d", "/srv/carol", "carol"]);
    let theirs = scan(root.path());
    let read = |tree: &Tree, name: &str| {
        let text = tree.read_file(&TreePath::new(name).unwrap()).unwrap().unwrap_or_default();
        let mut lines: Vec<String> = String::from_utf8(text).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for name in ["etc/passwd", "etc/group", "etc/gshadow"] {
        assert_eq!(read(&tree, name), read(&theirs, name), "{name}");
    }
    // The day of the change is ours; the subordinate ranges go by order.
    let without_day = |lines: Vec<String>| -> Vec<String> {
        let blank = |line: &String| {
            line.split(':').enumerate().map(|(i, s)| if i == 2 { "" } else { s }).collect::<Vec<_>>().join(":")
        };
        lines.iter().map(blank).collect()
    };
    assert_eq!(without_day(read(&tree, "etc/shadow")), without_day(read(&theirs, "etc/shadow")));
    assert_eq!(read(&tree, "etc/subuid").len(), read(&theirs, "etc/subuid").len());
    for path in ["home/alice", "home/alice/.bashrc", "home/alice/.config/x", "home/bob", "srv/carol"] {
        let meta = |tree: &Tree| {
            let meta = &tree.get(&TreePath::new(path).unwrap()).unwrap_or_else(|| panic!("{path}")).meta;
            (meta.mode, meta.uid, meta.gid)
        };
        assert_eq!(meta(&tree), meta(&theirs), "{path}");
    }
}

/// The shipped documents on a real root file system, sealed and checked.
#[test]
fn a_real_root_file_system_comes_out_clean() {
    let Some(folder) = std::env::var_os("IMAGEBUILDER_ROOTFS") else {
        println!("skipped: IMAGEBUILDER_ROOTFS names no root file system");
        return;
    };
    let original = scan(Path::new(&folder));
    let distro = std::env::var("IMAGEBUILDER_DISTRO").unwrap_or_else(|_| "debian_bookworm".into());
    for role in ["control-plane", "data-plane"] {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let intent = imagebuilder::plan::load_bundle(&config, role, &distro).unwrap();
        let mut params = intent.params.clone();
        params.users.extend(people());
        let keyrings = BTreeMap::new();
        let origins = |path: &[&str]| intent.origin(path);
        let facts = Facts { image: &intent.image, epoch: EPOCH, origins: &origins, keyrings: &keyrings };
        let mut tree = original.clone();
        osconfig::apply(&mut tree, &params, &facts).unwrap();
        imagebuilder::seal::seal(&mut tree, EPOCH, &osconfig::declared_paths(&params), b"meta\n").unwrap();
        let origin = &tree.get(&TreePath::literal("etc/sysctl.d/99-imagebuilder.conf")).unwrap().origin;
        assert!(origin.contains(".yaml:"), "{origin}");
        assert!(links(&tree).contains_key("/etc/systemd/system/multi-user.target.wants/containerd.service"));
        let findings = hygiene::run(&tree, &hygiene::Declared { params: &params, epoch: EPOCH, known: None }).unwrap();
        for finding in &findings {
            println!("{role}: {:?} {}: {}", finding.severity, finding.rule, finding.message);
        }
        assert_eq!(findings.iter().filter(|one| one.severity == imagebuilder::check::Severity::Error).count(), 0);
        if let Some(out) = std::env::var_os("IMAGEBUILDER_ROOTFS_OUT") {
            write_changed(&tree, &Path::new(&out).join(role));
        }
    }
}

fn people() -> BTreeMap<String, imagebuilder::api::params::User> {
    serde_json::from_value(serde_json::json!({"ops": {
        "groups": {"sudo": {}}, "sudo": "ALL=(ALL) NOPASSWD:ALL", "authorizedKeys": {"a": "ssh-ed25519 AAAAC3Nz a"}}}))
    .unwrap()
}

/// What OS configuration wrote, for a look with other programs.
fn write_changed(tree: &Tree, out: &Path) {
    for (path, entry) in tree.iter().filter(|(_, entry)| &*entry.origin != "host") {
        let at = out.join(path.to_host());
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        match &entry.kind {
            Kind::Directory => fs::create_dir_all(&at).unwrap(),
            Kind::File(content) => fs::write(&at, content.bytes().unwrap()).unwrap(),
            Kind::Symlink(target) => std::os::unix::fs::symlink(String::from_utf8_lossy(target).as_ref(), &at).unwrap(),
            _ => {}
        }
    }
}
