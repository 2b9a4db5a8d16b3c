//! Each rule on a Tree that breaks it, and the properties all of them share.

use super::*;
use crate::osconfig::fixture::{EPOCH, file, file_mode, link, rootfs, target, text};

/// What a careless build leaves: path, whether the seal takes it out.
const LEFT: [(&str, bool); 42] = [
    ("/dev/null", true),
    ("/etc/ssh/ssh_host_rsa_key", true),
    ("/etc/ssh/ssh_host_rsa_key.pub", true),
    ("/etc/ssh/sshd_config", false),
    ("/var/lib/systemd/random-seed", true),
    ("/var/lib/systemd/credential.secret", true),
    ("/etc/nvme/hostnqn", true),
    ("/etc/resolv.conf", true),
    ("/tmp/x/y", true),
    ("/var/tmp/x", true),
    ("/run/lock/x", true),
    ("/proc/x", true),
    ("/var/log/dpkg.log", true),
    ("/var/log/apt/term.log", true),
    ("/var/log/wtmp", false),
    ("/var/log/journal/0123/system.journal", true),
    ("/var/lib/apt/lists/deb_Packages", true),
    ("/var/lib/apt/extended_states", false),
    ("/var/cache/apt/archives/x.deb", true),
    ("/var/cache/apt/pkgcache.bin", true),
    ("/var/lib/dpkg/status", false),
    ("/var/lib/dpkg/status-old", true),
    ("/var/lib/dpkg/lock-frontend", true),
    ("/var/lib/dpkg/triggers/Lock", true),
    ("/var/lib/dpkg/info/lib-old.list", false),
    ("/var/backups/dpkg.status.0", true),
    ("/etc/x.conf.dpkg-new", true),
    ("/var/cache/ldconfig/aux-cache", true),
    ("/var/cache/debconf/config.dat", false),
    ("/var/cache/debconf/config.dat-old", true),
    ("/var/cache/man/index.db", true),
    ("/var/lib/ucf/hashfile", false),
    ("/var/lib/ucf/hashfile.0", true),
    ("/usr/lib/python3/a.py", false),
    ("/usr/lib/python3/__pycache__/a.cpython-311.pyc", true),
    ("/etc/passwd-", true),
    ("/etc/.pwd.lock", true),
    ("/root/.bash_history", true),
    ("/root/.bashrc", false),
    ("/var/lib/cloud/instances/i-1/obj.pkl", true),
    ("/var/lib/cloud/seed/nocloud/meta-data", false),
    ("/etc/netplan/50-cloud-init.yaml", true),
];

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn dirty() -> Tree {
    let mut tree = rootfs();
    for (name, _) in LEFT {
        file(&mut tree, name, "left over\n");
    }
    file_mode(&mut tree, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o644, 0);
    file(&mut tree, "/var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n");
    file_mode(&mut tree, "/etc/shadow", "root:*:30000:0:99999:7:::\nbin:*:19000:0:99999:7:::\n", 0o640, 42);
    let socket = Entry { meta: Meta::root(0o600), kind: Kind::Socket, origin: Arc::from("t") };
    tree.put(&path("/var/lib/x/socket"), socket).unwrap();
    let late = Meta { mtime: Mtime { seconds: EPOCH.seconds + 5, nanoseconds: 1 }, ..Meta::root(0o644) };
    tree.write_file(&path("/etc/late"), "x", late, &Arc::from("t")).unwrap();
    tree
}

#[test]
fn takes_out_what_chance_left() {
    let mut tree = dirty();
    seal(&mut tree, EPOCH, &[], b"meta\n").unwrap();
    for (name, gone) in LEFT {
        assert_eq!(!tree.contains(&path(name)), gone, "{name}");
    }
    assert_eq!(text(&tree, "/etc/machine-id").unwrap(), "");
    assert_eq!(tree.get(&path("/etc/machine-id")).unwrap().meta.mode, 0o444);
    assert_eq!(target(&tree, "/var/lib/dbus/machine-id").unwrap(), "/etc/machine-id");
    assert_eq!(text(&tree, "/var/log/wtmp").unwrap(), "");
    assert!(tree.contains(&path("/var/log/apt")) && !tree.contains(&path("/var/log/journal/0123")));
    assert!(tree.contains(&path("/var/cache/apt/archives")));
    assert!(!tree.contains(&path("/usr/lib/python3/__pycache__")) && !tree.contains(&path("/var/lib/x/socket")));
    assert_eq!(text(&tree, "/etc/shadow").unwrap(), "root:*:19675:0:99999:7:::\nbin:*:19000:0:99999:7:::\n");
    assert_eq!(tree.get(&path("/etc/late")).unwrap().meta.mtime, EPOCH);
    assert_eq!(tree.get(&path("/tmp")).unwrap().meta.mode, 0o1777);
    for folder in ["/tmp", "/var/tmp", "/run"] {
        assert_eq!(tree.get(&path(folder)).unwrap().meta.mtime, EPOCH, "{folder}");
    }
    assert_eq!(text(&tree, META).unwrap(), "meta\n");
}

#[test]
fn sealing_twice_is_sealing_once() {
    let mut tree = dirty();
    seal(&mut tree, EPOCH, &[], b"meta\n").unwrap();
    let once = tree.digest();
    seal(&mut tree, EPOCH, &[], b"meta\n").unwrap();
    assert_eq!(tree.digest(), once);
}

#[test]
fn declared_files_stay() {
    let mut tree = dirty();
    let declared = ["/etc/resolv.conf", "/var/log/apt-x", "/var/log/apt/term.log", "/etc/nvme"].map(path);
    seal(&mut tree, EPOCH, &declared, b"").unwrap();
    for name in ["/etc/resolv.conf", "/var/log/apt/term.log", "/etc/nvme/hostnqn"] {
        assert!(tree.contains(&path(name)), "{name}");
    }
    assert!(!tree.contains(&path("/var/log/dpkg.log")));
}

#[test]
fn a_link_to_the_resolver_stays() {
    let mut tree = rootfs();
    link(&mut tree, "/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    seal(&mut tree, EPOCH, &[], b"").unwrap();
    assert!(target(&tree, "/etc/resolv.conf").is_some());
}

#[test]
fn another_name_of_a_removed_file_keeps_its_bytes() {
    let mut tree = rootfs();
    file(&mut tree, "/tmp/a", "bytes");
    let entry = Entry { meta: Meta::root(0o644), kind: Kind::HardLink(path("/tmp/a")), origin: Arc::from("t") };
    tree.put(&path("/usr/share/a"), entry).unwrap();
    seal(&mut tree, EPOCH, &[], b"").unwrap();
    assert_eq!(text(&tree, "/usr/share/a").unwrap(), "bytes");
}

#[test]
fn the_reference_page_names_every_rule() {
    let page = include_str!("../../docs/reference/hygiene.md");
    for rule in RULES {
        assert!(page.contains(&format!("| `{}` | {} |", rule.id, rule.description)), "{} is missing", rule.id);
    }
}
