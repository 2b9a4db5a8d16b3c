//! Unpacking generated packages: against `dpkg --unpack` where the host has dpkg, and against hostile members.
//!
//! Packages are put together here (ar and tar by hand and by the `tar` crate), so nothing but root is needed for the
//! hostile cases. Comparing with dpkg needs Debian's `dpkg` on the host; without it the test says that it is skipped.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use imagebuilder::package::binary::{Binary, Source};
use imagebuilder::package::database::Database;
use imagebuilder::package::root::Root;
use imagebuilder::package::stage::Stage;
use imagebuilder::package::unpack::{Conffiles, Unpacker};
use imagebuilder::tree::store::Store;
use imagebuilder::tree::{Digest, Tree};
use tar::{Builder, EntryType, Header};

fn privileged() -> bool {
    let yes = rustix::process::geteuid().is_root();
    if !yes {
        eprintln!("skipped: setting owners needs root");
    }
    yes
}

/// One member of a data archive.
struct Member {
    name: &'static str,
    kind: EntryType,
    mode: u32,
    owner: (u64, &'static str),
    link: &'static str,
    bytes: Vec<u8>,
}

fn member(name: &'static str, kind: EntryType, mode: u32) -> Member {
    Member { name, kind, mode, owner: (0, "root"), link: "", bytes: Vec::new() }
}

fn folder(name: &'static str) -> Member {
    member(name, EntryType::Directory, 0o755)
}

fn file(name: &'static str, text: &str) -> Member {
    Member { bytes: text.into(), ..member(name, EntryType::Regular, 0o644) }
}

fn symlink(name: &'static str, link: &'static str) -> Member {
    Member { link, ..member(name, EntryType::Symlink, 0o777) }
}

fn hard_link(name: &'static str, link: &'static str) -> Member {
    Member { link, ..member(name, EntryType::Link, 0o644) }
}

fn archive(members: &[Member]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for member in members {
        let mut header = Header::new_gnu();
        header.set_entry_type(member.kind);
        header.set_mode(member.mode);
        header.set_uid(member.owner.0);
        header.set_gid(member.owner.0);
        header.set_username(member.owner.1).unwrap();
        header.set_groupname(member.owner.1).unwrap();
        header.set_mtime(1_600_000_000);
        header.set_size(member.bytes.len() as u64);
        // By hand: the crate refuses the names that we want to see refused.
        let name = member.name.as_bytes();
        if name.len() > 100 {
            builder.append_data(&mut header, member.name, &member.bytes[..]).unwrap();
            continue;
        }
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.as_mut_bytes()[157..157 + member.link.len()].copy_from_slice(member.link.as_bytes());
        header.set_cksum();
        builder.append(&header, &member.bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A package from its control files and data members.
fn deb(folder: &Path, control: &[(&'static str, &str)], data: &[Member]) -> PathBuf {
    let control: Vec<Member> = control.iter().map(|(name, text)| file(name, text)).collect();
    let path = folder.join(format!("{}.deb", std::fs::read_dir(folder).unwrap().count()));
    let mut out = std::fs::File::create(&path).unwrap();
    out.write_all(b"!<arch>\n").unwrap();
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", archive(&control)),
        ("data.tar.zst", zstd::encode_all(&archive(data)[..], 1).unwrap()),
    ];
    for (name, bytes) in members {
        writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100644, bytes.len()).unwrap();
        out.write_all(&bytes).unwrap();
        if bytes.len() % 2 == 1 {
            out.write_all(b"\n").unwrap();
        }
    }
    path
}

fn simple(name: &str) -> String {
    format!("Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b>\nDescription: x\n")
}

/// An empty target with a dpkg database.
fn target(folder: &Path, name: &str) -> PathBuf {
    let root = folder.join(name);
    for part in ["alternatives", "info", "parts", "triggers", "updates"] {
        std::fs::create_dir_all(root.join("var/lib/dpkg").join(part)).unwrap();
    }
    for file in ["status", "available"] {
        std::fs::write(root.join("var/lib/dpkg").join(file), "").unwrap();
    }
    std::fs::write(root.join("var/lib/dpkg/info/format"), "1\n").unwrap();
    std::fs::create_dir(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nodd:x:77:78::/:/bin/sh\n").unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nodd:x:79:\n").unwrap();
    root
}

fn unpack(root: &Path, debs: &[PathBuf], conffiles: Conffiles) -> imagebuilder::error::Result<()> {
    let root = Root::open(root)?;
    let mut database = Database::load(&root)?;
    let aside = tempfile::tempdir_in(root.path().parent().unwrap()).unwrap();
    let stage = Stage::new(&aside.path().join("stage"), 12)?;
    for deb in debs {
        let binary = Binary::open(deb)?;
        // One file in memory, the others in the folder.
        let staged = stage.prepare(&binary, None)?;
        Unpacker::new(&root, &mut database, conffiles)?.unpack(&binary, staged)?;
    }
    let left = std::fs::read_dir(aside.path().join("stage")).unwrap().count();
    assert_eq!(left, 0, "files are left where they were prepared");
    database.save(&root)
}

/// Everything that can be seen of a target, one line each.
fn picture(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    let mut inodes: BTreeMap<u64, String> = BTreeMap::new();
    while let Some(directory) = todo.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
            let mut line = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
            if meta.is_symlink() {
                line += &format!(" -> {} {}", std::fs::read_link(&path).unwrap().display(), meta.mtime());
            } else if meta.is_file() {
                let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
                let time = if name.starts_with("var/lib/dpkg/") { 0 } else { meta.mtime() };
                line += &format!(" = {first} {time}\n{}", String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
            } else if meta.is_dir() {
                todo.push(path);
            }
            lines.insert(name, line);
        }
    }
    // An empty list of pending triggers is as good as none.
    lines.retain(|name, line| !(name.ends_with("triggers/Unincorp") && line.ends_with('\n')));
    // Locks, backups and logs come and go.
    lines.retain(|name, _| !["lock", "Lock", "-old", "dpkg.log"].iter().any(|end| name.ends_with(end)));
    lines.retain(|name, _| !["var/log", "var/lib/dpkg/lock-frontend"].contains(&name.as_str()));
    lines
}

/// Two packages that between them show most of what unpacking has to know.
fn pair(folder_path: &Path) -> [PathBuf; 2] {
    let long = "./usr/share/a/a-name-that-is-longer-than-the-hundred-bytes-that-a-plain-header-has-room-for-so-that-a-long-name-member-is-needed";
    let control = "Package: a\nSource: src (1.0)\nVersion: 1:2.0-1\nArchitecture: amd64\nMaintainer: A <a@b>\n\
        Installed-Size: 12\nDepends: libc6 (>= 2.34),\n x | y\nPre-Depends: z\nSection: misc\nPriority: optional\n\
        Multi-Arch: same\nHomepage: https://example.org\nDescription: short\n long text\n .\n more\n";
    let triggers = "interest /usr/share/trig\ninterest-noawait named\nactivate other\n";
    let one = deb(
        folder_path,
        &[
            ("control", control),
            ("conffiles", "/etc/a.conf\n/etc/diverted.conf\n"),
            ("triggers", triggers),
            ("shlibs", "liba 1 a\n"),
        ],
        &[
            folder("./"),
            folder("./etc/"),
            file("./etc/a.conf", "setting = 1\n"),
            file("./etc/diverted.conf", "mine\n"),
            folder("./usr/"),
            folder("./usr/bin/"),
            Member { mode: 0o4755, ..file("./usr/bin/su", "#!/bin/sh\n") },
            hard_link("./usr/bin/su2", "./usr/bin/su"),
            symlink("./usr/bin/link", "su"),
            Member { owner: (6, "stranger"), ..file("./usr/bin/stranger", "s") },
            file("./usr/bin/overridden", "v"),
            file("./usr/bin/diverted", "d"),
            folder("./usr/share/"),
            folder("./usr/share/a/"),
            file(long, "long"),
            file("./usr/share/a/moves", "old"),
            symlink("./usr/share/kept-folder", "elsewhere"),
            folder("./usr/share/kept-link/"),
            file("./usr/share/kept-link/through", "t"),
        ],
    );
    let control = "Package: b\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b>\nReplaces: a (<< 1:3)\n\
        Description: second\n";
    let two = deb(
        folder_path,
        &[("control", control), ("md5sums", "00000000000000000000000000000000  usr/share/a/moves\n")],
        &[
            folder("./"),
            folder("./usr/"),
            folder("./usr/share/"),
            Member { mode: 0o700, ..folder("./usr/share/a/") },
            file("./usr/share/a/moves", "new"),
            folder("./usr/share/trig/"),
            file("./usr/share/trig/b", "b"),
        ],
    );
    [one, two]
}

fn prepare(root: &Path) {
    let database = root.join("var/lib/dpkg");
    std::fs::write(database.join("diversions"), "/usr/bin/diverted\n/usr/bin/diverted.real\nother\n").unwrap();
    std::fs::write(database.join("statoverride"), "#77 #79 2750 /usr/bin/overridden\n").unwrap();
    std::fs::create_dir_all(root.join("usr/share/kept-folder")).unwrap();
    std::fs::create_dir_all(root.join("usr/share/linked-to")).unwrap();
    std::os::unix::fs::symlink("linked-to", root.join("usr/share/kept-link")).unwrap();
    // Both roots are made at different seconds.
    Command::new("touch").args(["-h", "-d", "@5"]).arg(root.join("usr/share/kept-link")).status().unwrap();
}

#[test]
fn unpacking_leaves_what_dpkg_leaves() {
    if !privileged() {
        return;
    }
    if Command::new("dpkg").arg("--version").output().is_err() {
        eprintln!("skipped: needs dpkg");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let debs_folder = scratch.path().join("debs");
    std::fs::create_dir(&debs_folder).unwrap();
    let debs = pair(&debs_folder);
    let (ours, theirs) = (target(scratch.path(), "ours"), target(scratch.path(), "theirs"));
    for root in [&ours, &theirs] {
        prepare(root);
        for name in ["etc/passwd", "etc/group"] {
            Command::new("touch").args(["-d", "@5"]).arg(root.join(name)).status().unwrap();
        }
    }
    unpack(&ours, &debs, Conffiles::Beside).unwrap();
    for deb in &debs {
        let output = Command::new("dpkg")
            .arg(format!("--root={}", theirs.display()))
            .args(["--force-depends", "--force-unsafe-io", "--no-triggers", "--unpack"])
            .arg(deb)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (ours, theirs) = (picture(&ours), picture(&theirs));
    for (name, line) in &theirs {
        assert_eq!(ours.get(name), Some(line), "{name}");
    }
    let more: Vec<_> = ours.keys().filter(|name| !theirs.contains_key(*name)).collect();
    assert!(more.is_empty(), "only here: {more:?}");
}

/// Unpacks one package into a fresh target and gives the error.
fn refused(members: &[Member]) -> (String, tempfile::TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    let debs = scratch.path().join("debs");
    std::fs::create_dir(&debs).unwrap();
    let deb = deb(&debs, &[("control", &simple("hostile"))], members);
    let root = target(scratch.path(), "root");
    let error = unpack(&root, &[deb], Conffiles::Beside).unwrap_err().to_string();
    (error, scratch)
}

#[test]
fn members_cannot_leave_the_target() {
    if !privileged() {
        return;
    }
    let (error, scratch) = refused(&[folder("./"), file("../escaped", "x")]);
    assert!(error.contains("leaves the root"), "{error}");
    assert!(!scratch.path().join("escaped").exists());
    let (error, scratch) = refused(&[folder("./"), file("./a/../../../escaped", "x")]);
    assert!(error.contains("leaves the root"), "{error}");
    assert!(!scratch.path().join("escaped").exists());
    let (error, _scratch) = refused(&[folder("./"), hard_link("./passwd", "/etc/passwd")]);
    assert!(error.contains("not in the package before it"), "{error}");
    let (error, _scratch) = refused(&[folder("./"), hard_link("./passwd", "../../etc/passwd")]);
    assert!(error.contains("leaves the root"), "{error}");
}

#[test]
fn links_are_followed_inside_the_target_only() {
    if !privileged() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let place: &'static str = Box::leak(outside.path().to_str().unwrap().to_string().into_boxed_str());
    let scratch = tempfile::tempdir().unwrap();
    let debs = scratch.path().join("debs");
    std::fs::create_dir(&debs).unwrap();
    let links = deb(
        &debs,
        &[("control", &simple("links"))],
        &[folder("./"), symlink("./out", place), symlink("./up", "../../../..")],
    );
    // The host's folder exists, the target's does not.
    let through = deb(&debs, &[("control", &simple("through"))], &[folder("./"), file("./out/x", "x")]);
    let root = target(scratch.path(), "out");
    let error = unpack(&root, &[links.clone(), through], Conffiles::Beside).unwrap_err().to_string();
    assert!(error.contains("there is no folder"), "{error}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    // An absolute name and a climbing link end at the target's own root.
    let members = [folder("./"), file("./up/inside", "x"), file("/absolute", "y")];
    let climber = deb(&debs, &[("control", &simple("climber"))], &members);
    let root = target(scratch.path(), "up");
    unpack(&root, &[links, climber], Conffiles::Beside).unwrap();
    assert!(root.join("inside").exists() && root.join("absolute").exists());
}

#[test]
fn a_second_name_of_a_link_does_not_reach_the_host() {
    if !privileged() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    std::fs::set_permissions(outside.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let place = leak(outside.path().to_str().unwrap().to_string());
    let scratch = tempfile::tempdir().unwrap();
    let debs = scratch.path().join("debs");
    std::fs::create_dir(&debs).unwrap();
    // The target has a folder of the same name, so the link leads to a folder there, too.
    let mut members = vec![folder("./")];
    let ends = place.match_indices('/').map(|(at, _)| at).skip(1).chain([place.len()]);
    members.extend(ends.map(|end| folder(leak(format!(".{}", &place[..end])))));
    members.push(symlink("./out", place));
    let first = deb(&debs, &[("control", &simple("first"))], &members);
    let second = [folder("./"), folder("./out"), Member { mode: 0o777, ..hard_link("./second", "./out") }];
    let second = deb(&debs, &[("control", &simple("second"))], &second);
    let error = unpack(&target(scratch.path(), "root"), &[first, second], Conffiles::Beside).unwrap_err().to_string();
    assert!(error.contains("which is not a file"), "{error}");
    assert_eq!(outside.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn owners_go_by_the_names_that_the_target_knows() {
    if !privileged() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let debs = scratch.path().join("debs");
    std::fs::create_dir(&debs).unwrap();
    let owned = |name, owner| Member { owner, ..file(name, "x") };
    let members = [folder("./"), owned("./odd", (5, "odd")), owned("./stranger", (6, "stranger"))];
    let deb = deb(&debs, &[("control", &simple("owned"))], &members);
    let root = target(scratch.path(), "root");
    unpack(&root, &[deb], Conffiles::Beside).unwrap();
    let owner = |name: &str| root.join(name).metadata().map(|meta| (meta.uid(), meta.gid())).unwrap();
    assert_eq!((owner("odd"), owner("stranger")), ((77, 79), (6, 6)));
}

#[test]
fn conflicts_and_repetitions_are_errors() {
    if !privileged() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let debs = scratch.path().join("debs");
    std::fs::create_dir(&debs).unwrap();
    let members = || [folder("./"), file("./same", "x")];
    let one = deb(&debs, &[("control", &simple("one"))], &members());
    let two = deb(&debs, &[("control", &simple("two"))], &members());
    let root = target(scratch.path(), "root");
    let error = unpack(&root, &[one.clone(), two], Conffiles::Beside).unwrap_err().to_string();
    assert!(error.contains("trying to overwrite `/same`, which is also in package `one` 1"), "{error}");
    let root = target(scratch.path(), "again");
    let error = unpack(&root, &[one.clone(), one], Conffiles::Beside).unwrap_err().to_string();
    assert!(error.contains("package `one` is in the target already"), "{error}");
    let over = deb(&debs, &[("control", &simple("over"))], &[folder("./"), file("./etc", "x")]);
    let root = target(scratch.path(), "folder");
    let error = unpack(&root, &[over], Conffiles::Beside).unwrap_err().to_string();
    assert!(error.contains("trying to overwrite folder `/etc`"), "{error}");
}

#[test]
fn the_package_that_is_replaced_may_come_second() {
    if !privileged() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let debs = scratch.path().join("debs");
    std::fs::create_dir(&debs).unwrap();
    let [one, two] = pair(&debs);
    let root = target(scratch.path(), "root");
    prepare(&root);
    unpack(&root, &[two, one], Conffiles::Beside).unwrap();
    assert_eq!(std::fs::read_to_string(root.join("usr/share/a/moves")).unwrap(), "new");
    let list = std::fs::read_to_string(root.join("var/lib/dpkg/info/a:amd64.list")).unwrap();
    assert!(!list.contains("moves"), "{list}");
    assert_eq!(root.join("usr/share/a").metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn the_first_packages_get_their_configuration_at_once() {
    if !privileged() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let debs = scratch.path().join("debs");
    std::fs::create_dir(&debs).unwrap();
    let [one, _] = pair(&debs);
    let root = target(scratch.path(), "root");
    prepare(&root);
    unpack(&root, &[one], Conffiles::InPlace).unwrap();
    assert_eq!(std::fs::read_to_string(root.join("etc/a.conf")).unwrap(), "setting = 1\n");
    let status = std::fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap();
    let sum = Command::new("md5sum").arg(root.join("etc/a.conf")).output().unwrap();
    let sum = String::from_utf8_lossy(&sum.stdout)[..32].to_string();
    assert!(status.contains(&format!("Conffiles:\n /etc/a.conf {sum}\n")), "{status}");
}

/// Set for the child of [`a_very_large_package_is_never_in_memory_as_a_whole`].
const LARGE: &str = "IMAGEBUILDER_TEST_LARGE";

/// Ten files of 52 MiB, as firmware and kernels have them, behind a compression that takes next to no time.
fn large_deb(path: &Path) {
    let mut data = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let block: Vec<u8> = (0..1u32 << 20).map(|at| (at / 5) as u8).collect();
    for number in 0..10 {
        let mut header = ::tar::Header::new_gnu();
        header.set_path(format!("./large-{number}")).unwrap();
        header.set_mode(0o644);
        header.set_size(52 << 20);
        header.set_cksum();
        data.write_all(header.as_bytes()).unwrap();
        for _ in 0..52 {
            data.write_all(&block).unwrap();
        }
    }
    let control = archive(&[file("./control", &simple("large"))]);
    let mut out = std::fs::File::create(path).unwrap();
    out.write_all(b"!<arch>\n").unwrap();
    let members =
        [("debian-binary", b"2.0\n".to_vec()), ("control.tar", control), ("data.tar.zst", data.finish().unwrap())];
    for (name, mut bytes) in members {
        writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, bytes.len()).unwrap();
        if bytes.len() % 2 == 1 {
            bytes.push(b'\n');
        }
        out.write_all(&bytes).unwrap();
    }
}

/// What the child does: decompresses the package, keeps it, and prepares it again of what is kept.
#[test]
fn large_package_in_a_process_of_its_own() {
    let Some(folder) = std::env::var_os(LARGE).map(PathBuf::from) else { return };
    let deb = folder.join("large.deb");
    let sha256 = Digest::of(b"its name in the store");
    let store = Store::open(&folder.join("cache")).unwrap();
    for turn in ["decompressed", "kept"] {
        let binary = Binary::open_known(&deb, sha256, &store).unwrap();
        assert_eq!(matches!(binary.source, Source::Kept(_)), turn == "kept");
        let stage = Stage::new(&folder.join(turn), 160 << 20).unwrap();
        let pack = store.writer(Digest::of(turn.as_bytes())).unwrap();
        let staged = stage.prepare(&binary, Some(&pack)).unwrap();
        assert_eq!(staged.size, 520 << 20);
        drop(staged);
        pack.save(&Tree::new()).unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    println!("peak {peak} KiB");
    assert!(peak.parse::<u64>().unwrap() < 100 << 10, "{peak} KiB for a package of 520 MiB");
}

#[test]
fn a_very_large_package_is_never_in_memory_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    large_deb(&folder.path().join("large.deb"));
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "large_package_in_a_process_of_its_own", "--nocapture"]).env(LARGE, folder.path());
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("peak "), "{said}");
}
