//! For tests: a small root file system and documents that touch every setting.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Facts;
use crate::api::Params;
use crate::error::Result;
use crate::tree::{Kind, Meta, Mtime, Origin, Tree, TreePath};

pub(crate) const HASH: &str = "$6$rounds=5000$saltsalt$0123456789abcdefghijklmnopqrstuvwxyz";
/// 2023-11-14; day 19675.
pub(crate) const EPOCH: Mtime = Mtime { seconds: 1_700_000_000, nanoseconds: 0 };

fn origin() -> Origin {
    Arc::from("package")
}

pub(crate) fn file(tree: &mut Tree, path: &str, text: &str) {
    file_mode(tree, path, text, 0o644, 0);
}

pub(crate) fn file_mode(tree: &mut Tree, path: &str, text: &str, mode: u16, gid: u32) {
    let meta = Meta { gid, ..Meta::root(mode) };
    tree.write_file(&TreePath::new(path).unwrap(), text, meta, &origin()).unwrap();
}

pub(crate) fn link(tree: &mut Tree, path: &str, target: &str) {
    tree.write_symlink(&TreePath::new(path).unwrap(), target, Mtime::default(), &origin()).unwrap();
}

pub(crate) fn remove(tree: &mut Tree, path: &str) {
    assert!(tree.remove(&TreePath::new(path).unwrap()).unwrap());
}

pub(crate) fn text(tree: &Tree, path: &str) -> Option<String> {
    tree.read_file(&TreePath::new(path).unwrap()).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
}

pub(crate) fn target(tree: &Tree, path: &str) -> Option<String> {
    let at = tree.resolve_parent(&TreePath::new(path).unwrap()).unwrap();
    match &tree.get(&at)?.kind {
        Kind::Symlink(target) => Some(String::from_utf8(target.clone()).unwrap()),
        _ => None,
    }
}

/// What the packages of a node leave, as far as settings look at it.
pub(crate) fn rootfs() -> Tree {
    let mut tree = Tree::new();
    for folder in ["usr/bin", "usr/sbin", "usr/lib", "etc/initramfs-tools", "root"] {
        tree.make_directories(&TreePath::new(folder).unwrap(), Mtime::default(), &origin()).unwrap();
    }
    for (path, to) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib")] {
        link(&mut tree, path, to);
    }
    for program in
        ["bin/bash", "bin/cloud-init", "bin/growpart", "sbin/netplan", "sbin/nologin", "sbin/sfdisk", "sbin/sshd"]
    {
        file_mode(&mut tree, &format!("/usr/{program}"), "#!", 0o755, 0);
    }
    file_mode(&mut tree, "/usr/bin/sudo", "#!", 0o4755, 0);
    file_mode(&mut tree, "/etc/shadow", "root:*:19000:0:99999:7:::\nbin:*:19000:0:99999:7:::\n", 0o640, 42);
    file_mode(&mut tree, "/etc/gshadow", "root:*::\nsudo:*::\nshadow:*::\n", 0o640, 42);
    let install = |target: &str| format!("[Service]\nExecStart=/bin/true\n[Install]\nWantedBy={target}\n");
    let files = [
        ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nbin:x:2:2:bin:/bin:/usr/sbin/nologin\n".to_owned()),
        ("/etc/group", "root:x:0:\nbin:x:2:\nsudo:x:27:\nshadow:x:42:\n".to_owned()),
        ("/etc/subuid", "old:100000:65536\n".to_owned()),
        ("/etc/subgid", "old:100000:65536\n".to_owned()),
        ("/etc/login.defs", "# HOME_MODE 0700\nUMASK\t\t022\nUID_MIN 1000\n".to_owned()),
        ("/etc/skel/.bashrc", "# skel\n".to_owned()),
        ("/etc/sudoers", "@includedir /etc/sudoers.d\n".to_owned()),
        ("/usr/share/keyrings/debian-archive-keyring.gpg", "key".to_owned()),
        ("/usr/share/zoneinfo/Etc/UTC", "TZif".to_owned()),
        (
            "/var/lib/dpkg/status",
            "Package: bash\nVersion: 5\n\nPackage: containerd\nVersion: 1.6.20~ds1-1\n".to_owned(),
        ),
        ("/usr/lib/systemd/system/ssh.service", install("multi-user.target")),
        ("/usr/lib/systemd/system/ssh.socket", install("sockets.target")),
        ("/usr/lib/systemd/system/containerd.service", install("multi-user.target")),
        ("/usr/lib/systemd/system/systemd-networkd.service", install("multi-user.target")),
        ("/usr/lib/systemd/system/systemd-resolved.service", install("sysinit.target")),
    ];
    for (path, text) in files {
        file(&mut tree, path, &text);
    }
    tree
}

/// Something in every area.
pub(crate) fn params() -> Params {
    let value = serde_json::json!({
        "distribution": {"name": "debian", "release": "bookworm", "repositories": {
            "debian": {"source": "http://deb.debian.org/debian", "suite": "bookworm",
                       "components": {"contrib": {}, "main": {}}, "keyring": "debian-archive"},
            "local": {"source": "http://localhost/x", "suite": "./", "keyring": "/k.gpg",
                      "register_repo_with_rootfs": false}}},
        "software": {"unapproved_packages": {"unattended-upgrades": {}}},
        "kernel": {
            "sysctl": {"kernel.pid_max": "4194303", "net.ipv4.tcp_rmem": "4096 87380 6291456"},
            "modules": {"bonding": {"options": {"mode": "4", "max_bonds": "0"}}, "krbd": {"blacklist": true}}},
        "limits": {"open-files": {"domain": "*", "type": "soft", "item": "nofile", "value": "65536"}},
        "kubernetes": {"containerd": {"enabled": true}},
        "systemd": {
            "hello.service": {"file_content": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
                              "enabled": true},
            "ssh.socket": {"masked": true},
            "ssh.service": {"dropIns": {"nice": "[Service]\nNice=-5\n"}}},
        "users": {
            "ops": {"password": HASH, "comment": "Operations", "groups": {"docker": {}, "sudo": {}},
                    "sudo": "ALL=(ALL) NOPASSWD:ALL",
                    "authorizedKeys": {"a": "ssh-ed25519 AAAAC3Nz a", "b": "from=\"10.*\" ssh-rsa AAAAB3Nz b"}},
            "zed": {"uid": 1500, "password_lock": true}},
        "files": {"/etc/issue": {"file_content": "hello\n"}}
    });
    serde_json::from_value(value).unwrap()
}

pub(crate) fn with_facts<T>(act: impl FnOnce(&Facts) -> T) -> T {
    let keyrings = BTreeMap::new();
    let origins = |path: &[&str]| (path == ["kernel", "modules", "bonding"]).then(|| "profile.yaml:7".to_owned());
    act(&Facts { image: "data-plane", epoch: EPOCH, origins: &origins, keyrings: &keyrings })
}

pub(crate) fn apply(tree: &mut Tree, params: &Params) -> Result<()> {
    with_facts(|facts| super::apply(tree, params, facts))
}
