//! A clean image passes; every check finds the one thing that breaks it.

use super::*;
use crate::osconfig::fixture::{self, EPOCH, file, file_mode, link};

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// As a build makes it: configured and sealed.
fn finished(params: &Params) -> Tree {
    let mut tree = fixture::rootfs();
    file_mode(&mut tree, "/usr/bin/sh", "#!", 0o755, 0);
    file_mode(&mut tree, "/usr/sbin/init", "#!", 0o755, 0);
    file(&mut tree, "/etc/os-release", "ID=debian\n");
    file(&mut tree, "/boot/vmlinuz-6.1", "kernel");
    file(&mut tree, "/boot/initrd.img-6.1", "initrd");
    file(
        &mut tree,
        "/usr/lib/modules/6.1/modules.order",
        "kernel/bonding.ko\nkernel/overlay.ko\nkernel/br_netfilter.ko\n",
    );
    file(&mut tree, "/var/lib/dpkg/info/sudo.list", "/.\n/usr\n/bin/sudo\n");
    fixture::apply(&mut tree, params).unwrap();
    crate::seal::seal(&mut tree, EPOCH, &[], b"").unwrap();
    tree
}

fn findings(tree: &Tree, params: &Params) -> Vec<Finding> {
    run(tree, &Declared { params, epoch: EPOCH, known: None }).unwrap()
}

#[test]
fn a_finished_image_is_clean() {
    let params = fixture::params();
    assert_eq!(findings(&finished(&params), &params), []);
}

#[test]
fn every_check_finds_what_it_is_for() {
    type Break = fn(&mut Tree, &mut Params);
    let cases: &[(&str, Break)] = &[
        ("no-host-keys", |tree, _| file(tree, "/etc/ssh/ssh_host_rsa_key", "x")),
        ("no-private-keys", |tree, _| file(tree, "/root/id", "-----BEGIN OPENSSH PRIVATE KEY-----\n")),
        ("no-seeds", |tree, _| file(tree, "/var/lib/systemd/random-seed", "x")),
        ("machine-id-empty", |tree, _| file(tree, "/etc/machine-id", "0123\n")),
        ("passwords-declared", |_, params| params.users.get_mut("ops").unwrap().password = None),
        ("root-locked", |tree, _| {
            let text = fixture::text(tree, "/etc/shadow").unwrap().replace("root:*:", "root:$y$j9T$x$y:");
            file_mode(tree, "/etc/shadow", &text, 0o640, 42);
        }),
        ("no-proxies", |tree, _| file(tree, "/etc/apt/apt.conf.d/p", "Acquire::http::Proxy \"http://p:3128\";\n")),
        ("no-caches", |tree, _| file(tree, "/var/lib/apt/lists/x", "x")),
        ("no-logs", |tree, _| file(tree, "/var/log/dpkg.log", "x")),
        ("no-runtime-files", |tree, _| file(tree, "/run/x", "x")),
        ("no-resolv-conf", |tree, _| file(tree, "/etc/resolv.conf", "nameserver 10.0.0.1\n")),
        ("no-backups", |tree, _| file(tree, "/etc/shadow-", "x")),
        ("no-instance-data", |tree, _| file(tree, "/var/lib/cloud/instances/i/x", "x")),
        ("no-late-times", |tree, _| {
            let late = crate::tree::Mtime { nanoseconds: 1, ..EPOCH };
            tree.get_mut(&path("/etc/os-release")).unwrap().meta.mtime = late;
        }),
        ("no-late-times", |tree, _| {
            let text = fixture::text(tree, "/etc/shadow").unwrap().replace("root:*:", "root:*:30000:#");
            file_mode(tree, "/etc/shadow", &text, 0o640, 42);
        }),
        ("no-late-times", |tree, _| {
            let gzip = [&[0x1f, 0x8b, 8, 0][..], &(EPOCH.seconds as u32 + 1).to_le_bytes()].concat();
            tree.write_file(&path("/var/x.gz"), gzip, crate::tree::Meta::root(0o644), &"script".into()).unwrap();
        }),
        ("no-late-initramfs", |tree, _| {
            let header =
                format!("070701{}{:08x}{}{:08x}{:08x}x\0", "0".repeat(40), EPOCH.seconds + 1, "0".repeat(40), 2, 0);
            file(tree, "/boot/initrd.img-6.1", &header);
        }),
        ("no-world-writable", |tree, _| file_mode(tree, "/etc/open", "x", 0o666, 0)),
        ("setuid-known", |tree, _| file_mode(tree, "/usr/bin/evil", "x", 0o4755, 0)),
        ("setuid-kept", |tree, _| file_mode(tree, "/usr/bin/sudo", "x", 0o755, 0)),
        ("sensitive-modes", |tree, _| tree.get_mut(&path("etc/gshadow")).unwrap().meta.mode = 0o644),
        ("kernels-complete", |tree, _| fixture::remove(tree, "/boot/initrd.img-6.1")),
        ("essential-links", |tree, _| link(tree, "/vmlinuz", "boot/vmlinuz-5")),
        ("unit-links", |tree, _| link(tree, "/etc/systemd/system/a.target.wants/b.service", "/usr/lib/b.service")),
        ("packages-configured", |tree, _| {
            file(tree, "/var/lib/dpkg/status", "Package: x\nStatus: install ok half-configured\n");
        }),
        ("accounts-consistent", |tree, _| file(tree, "/etc/group", "root:x:0:\n")),
        ("shells-exist", |tree, _| fixture::remove(tree, "/usr/sbin/nologin")),
        ("sysctl-in-force", |tree, _| file(tree, "/etc/sysctl.d/99-z.conf", "kernel/pid_max = 1\n")),
        ("modules-in-force", |tree, _| fixture::remove(tree, "/etc/modules-load.d/99-bonding.conf")),
        ("modules-exist", |tree, _| file(tree, "/etc/modules-load.d/x.conf", "nosuch\n")),
        ("users-in-force", |tree, _| tree.get_mut(&path("home/ops/.ssh")).unwrap().meta.mode = 0o777),
        ("files-in-force", |tree, _| file(tree, "/etc/issue", "other\n")),
        ("units-in-force", |tree, _| {
            fixture::remove(tree, "/etc/systemd/system/multi-user.target.wants/hello.service");
        }),
    ];
    for rule in rules() {
        assert!(cases.iter().any(|(id, _)| *id == rule.id), "no case for {}", rule.id);
    }
    for (id, spoil) in cases {
        let mut params = fixture::params();
        let mut tree = finished(&params);
        spoil(&mut tree, &mut params);
        let found = findings(&tree, &params);
        assert!(found.iter().any(|one| one.rule == *id), "{id} found nothing: {found:?}");
    }
}

#[test]
fn declared_files_are_no_findings() {
    let mut params = fixture::params();
    let mut tree = finished(&params);
    file(&mut tree, "/etc/ssl/own.key", "-----BEGIN PRIVATE KEY-----\n");
    let entry = crate::api::params::FileEntry {
        file_content: Some("-----BEGIN PRIVATE KEY-----\n".into()),
        ..Default::default()
    };
    params.files.insert("/etc/ssl/own.key".into(), entry);
    assert_eq!(findings(&tree, &params), []);
}

#[test]
fn errors_stop_the_build_and_warnings_do_not() {
    let finding = |severity, message: &str| Finding { rule: "r", severity, message: message.into() };
    let warnings = enforce(vec![finding(Severity::Warning, "w")]).unwrap();
    assert_eq!(warnings.len(), 1);
    let many = (0..30).map(|number| finding(Severity::Error, &number.to_string())).collect();
    let error = enforce(many).unwrap_err();
    assert_eq!((error.kind().exit_code(), error.hints().len()), (8, 21));
    assert_eq!(error.to_string(), "checking the finished image: 0 (check `r`)");
}

#[test]
fn the_reference_page_names_every_check() {
    let page = include_str!("../../../docs/reference/hygiene.md");
    for rule in rules() {
        let row = format!("| `{}` | {} | {} |", rule.id, rule.severity.name(), rule.description);
        assert!(page.contains(&row), "missing: {row}");
    }
}
