//! Archives read back by Python's tarfile and, as root, unpacked by GNU tar; sameness for any number of threads.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::format::disk::testing::noise;
use crate::tree::{Content, Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];
/// cap_net_raw=ep, version 2 (linux/capability.h).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn path(name: impl AsRef<[u8]>) -> TreePath {
    TreePath::new(name).unwrap()
}

/// One of each kind, and names, times and owners that need records.
fn tree() -> Tree {
    let origin: Origin = "test".into();
    let mut tree = Tree::new();
    let mtime = Mtime { seconds: 1_600_000_000, nanoseconds: 0 };
    tree.get_mut(&TreePath::root()).unwrap().meta.mtime = mtime;
    let mut put = |name: &[u8], kind: Kind, meta: Meta| {
        tree.put(&path(name), Entry { meta, kind, origin: origin.clone() }).unwrap();
    };
    let file = |bytes: &[u8]| Kind::File(Content::inline(bytes));
    let meta = |mode: u16| Meta { mtime, ..Meta::root(mode) };
    let mut special = Meta { uid: 1234, gid: 3_000_000, ..meta(0o4711) };
    special.xattrs.insert(b"security.capability".to_vec(), CAPABILITY.to_vec());
    special.xattrs.insert(b"user.a=b%".to_vec(), b"line\nline\0".to_vec());
    put(b"usr/bin/special", file(b"content"), special.clone());
    put(b"usr/bin/twin", Kind::HardLink(path("usr/bin/special")), special);
    put(b"usr/empty", file(b""), meta(0));
    put(b"usr/large", file(&noise(3_000_001, 5)), meta(0o644));
    put(b"usr/text", file(&b"the quick brown fox ".repeat(1 << 20)), meta(0o600));
    put(b"bin", Kind::Symlink(b"usr/bin".to_vec()), meta(0o777));
    put(b"long", Kind::Symlink([b'x'; 300].to_vec()), meta(0o777));
    put(b"dev/console", Kind::CharDevice { major: 5, minor: 1 }, meta(0o622));
    put(b"dev/sda", Kind::BlockDevice { major: 8, minor: 1_000_000 }, meta(0o660));
    put(b"run/fifo", Kind::Fifo, meta(0o600));
    let odd = Mtime { seconds: -5, nanoseconds: 9 };
    put(b"odd/caf\xc3\xa9 \"\n'", file(b"1"), meta(0o644));
    put(b"odd/old", file(b"1"), Meta { mtime: odd, ..Meta::root(0o644) });
    put(b"odd/\xff\xfe", file(b"2"), Meta { mtime: Mtime { seconds: 5, nanoseconds: 120 }, ..Meta::root(0o644) });
    let deep = [&[b'd'; 200][..], b"/", &[b'e'; 200], b"/\xff", &[b'f'; 199]].concat();
    put(&deep, file(b"deep"), Meta { uid: u32::MAX - 1, ..meta(0o644) });
    let parted = [&[b'p'; 90][..], b"/", &[b'q'; 90]].concat();
    put(&parted, file(b"parted"), meta(0o644));
    tree
}

fn archive(tree: &Tree, compression: Compression, threads: usize) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    write(tree, file.as_file(), &Options { compression, threads: Some(threads) }, &|_| ()).unwrap();
    file
}

fn plain(file: &mut tempfile::NamedTempFile, compression: Compression) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = file.as_file_mut();
    file.rewind().unwrap();
    match compression {
        Compression::None => file.read_to_end(&mut bytes).unwrap(),
        // A reader of one member only: all must be in it.
        Compression::Gzip => flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap(),
        Compression::Zstd => zstd::Decoder::new(file).unwrap().single_frame().read_to_end(&mut bytes).unwrap(),
    };
    bytes
}

#[test]
fn compression_and_threads_change_nothing_inside() {
    let tree = tree();
    let wanted = std::fs::read(archive(&tree, Compression::None, 1).path()).unwrap();
    assert_eq!(wanted.len() % 10240, 0);
    for compression in ALL {
        let mut one = archive(&tree, compression, 1);
        assert!(plain(&mut one, compression) == wanted, "{compression:?}");
        let one = std::fs::read(one.path()).unwrap();
        for threads in [2, 3, 8] {
            assert!(std::fs::read(archive(&tree, compression, threads).path()).unwrap() == one, "{compression:?}");
        }
    }
}

/// What Python's tarfile (an implementation of its own) says about every member.
#[test]
fn python_sees_every_member() {
    const SCRIPT: &str = r#"
import sys, tarfile
for m in tarfile.open(sys.argv[1], encoding="utf-8", errors="surrogateescape"):
    name = m.name.encode("utf-8", "surrogateescape").hex()
    link = m.linkname.encode("utf-8", "surrogateescape").hex()
    xattrs = sum(1 for key in m.pax_headers if key.startswith("SCHILY.xattr."))
    print(name or "-", m.type.decode(), oct(m.mode), m.uid, m.gid, m.size, link or "-", m.devmajor, m.devminor,
          "%.9f" % float(m.mtime), xattrs, m.uname + m.gname + ".")
"#;
    let tree = tree();
    let file = archive(&tree, Compression::Gzip, 2);
    let ran = Command::new("python3").args(["-c", SCRIPT]).arg(file.path()).output();
    let Ok(ran) = ran else { return println!("skipped: python3 is not installed") };
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let said = String::from_utf8(ran.stdout).unwrap();
    let mut wanted = String::new();
    for (path, entry) in tree.iter() {
        let meta = &entry.meta;
        let dotted = |path: &TreePath| [b"./", path.as_bytes()].concat();
        let name = if path.is_root() { b".".to_vec() } else { dotted(path) };
        let (kind, size, link, device) = match &entry.kind {
            Kind::Directory => (5, 0, Vec::new(), (0, 0)),
            Kind::File(content) => (0, content.size(), Vec::new(), (0, 0)),
            Kind::HardLink(target) => (1, 0, dotted(target), (0, 0)),
            Kind::Symlink(target) => (2, 0, target.clone(), (0, 0)),
            Kind::CharDevice { major, minor } => (3, 0, Vec::new(), (*major, *minor)),
            Kind::BlockDevice { major, minor } => (4, 0, Vec::new(), (*major, *minor)),
            Kind::Fifo => (6, 0, Vec::new(), (0, 0)),
            Kind::Socket => unreachable!(),
        };
        let link = if link.is_empty() { "-".into() } else { hex::encode(link) };
        let xattrs = if kind == 1 { 0 } else { meta.xattrs.len() };
        let time = meta.mtime.seconds as f64 + f64::from(meta.mtime.nanoseconds) / 1e9;
        wanted += &format!(
            "{} {kind} 0o{:o} {} {} {size} {link} {} {} {time:.9} {xattrs} .\n",
            hex::encode(name),
            meta.mode,
            meta.uid,
            meta.gid,
            device.0,
            device.1,
        );
    }
    assert_eq!(said, wanted);
}

fn tar(arguments: &[&str], folder: &Path, archive: &Path) -> Option<String> {
    let mut command = Command::new("tar");
    command.arg("-C").arg(folder).args(["--numeric-owner", "--xattrs", "--xattrs-include=*"]).args(arguments);
    let ran = command.arg("-f").arg(archive).stdin(Stdio::null()).output();
    let Ok(ran) = ran else {
        println!("skipped: tar is not installed");
        return None;
    };
    // GNU tar tells that it does not know the record which says that a name is not UTF-8, and takes the name all the
    // same; and it wonders about times before 1970.
    let said = String::from_utf8_lossy(&ran.stderr).into_owned() + &String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}");
    let told = |line: &&str| !["hdrcharset", "implausibly old"].iter().any(|part| line.contains(part));
    Some(said.lines().filter(told).map(|line| format!("{line}\n")).collect())
}

/// `tar -x` and `tar -d` of GNU, then the file system read entry by entry.
#[test]
fn unpacked_by_gnu_tar_it_is_the_tree() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can make devices and give files away");
    }
    let mut tree = tree();
    // What no file system gives back: the number of links of a folder, and the largest owner.
    let deep = tree.iter().find(|(_, entry)| entry.meta.uid > 1 << 30).map(|(path, _)| path.clone()).unwrap();
    tree.get_mut(&deep).unwrap().meta.uid = 4_000_000_000;
    let folder = tempfile::tempdir().unwrap();
    let file = archive(&tree, Compression::None, 2);
    if !tar(&["-xp"], folder.path(), file.path()).is_some_and(|said| {
        assert_eq!(said, "");
        true
    }) {
        return;
    }
    assert_eq!(tar(&["-d"], folder.path(), file.path()).unwrap(), "");
    let mut inodes: BTreeMap<u64, TreePath> = BTreeMap::new();
    for (path, entry) in tree.iter() {
        let at = folder.path().join(path.to_host());
        let found = std::fs::symlink_metadata(&at).unwrap();
        let meta = &entry.meta;
        if !matches!(entry.kind, Kind::Symlink(_)) {
            assert_eq!(found.mode() & 0o7777, u32::from(meta.mode), "{path}");
        }
        assert_eq!((found.uid(), found.gid()), (meta.uid, meta.gid), "{path}");
        assert_eq!((found.mtime(), found.mtime_nsec()), (meta.mtime.seconds, meta.mtime.nanoseconds.into()), "{path}");
        let target = inodes.entry(found.ino()).or_insert_with(|| path.clone());
        match &entry.kind {
            Kind::Directory => assert!(found.is_dir()),
            Kind::File(content) => assert!(std::fs::read(&at).unwrap() == content.bytes().unwrap(), "{path}"),
            Kind::HardLink(wanted) => assert_eq!(target, wanted),
            Kind::Symlink(wanted) => assert_eq!(std::fs::read_link(&at).unwrap().as_os_str().as_bytes(), wanted),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                assert_eq!(found.rdev(), rustix::fs::makedev(*major, *minor));
            }
            Kind::Fifo | Kind::Socket => {}
        }
        for (name, value) in meta.xattrs.iter() {
            let name = std::str::from_utf8(name).unwrap();
            let mut buffer = vec![0; 4096];
            match rustix::fs::lgetxattr(&at, name, &mut buffer) {
                Ok(length) => assert_eq!(&buffer[..length], value, "{path} {name}"),
                Err(rustix::io::Errno::OPNOTSUPP) => println!("skipped: no {name} on this file system"),
                Err(error) => panic!("{path} {name}: {error}"),
            }
        }
    }
}

#[test]
fn what_no_archive_can_hold_is_an_error() {
    let origin: Origin = "test".into();
    let fails = |kind: Kind| {
        let mut tree = Tree::new();
        tree.insert_raw(path("x"), Entry { meta: Meta::root(0o644), kind, origin: origin.clone() });
        let file = tempfile::tempfile().unwrap();
        write(&tree, &file, &Options::default(), &|_| ()).unwrap_err().to_string()
    };
    assert!(fails(Kind::Socket).contains("/x: a tar archive cannot hold a socket"));
    assert!(fails(Kind::CharDevice { major: 1, minor: 1 << 22 }).contains("device number 1:4194304"));
}

/// Sizes from 8 GiB on do not fit into the field of the header.
#[test]
fn a_file_of_nine_gigabytes_has_its_size_in_a_record() {
    let member = super::format::Member {
        name: b"./x",
        kind: super::format::TYPE_FILE,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 9 << 30,
        seconds: 0,
        nanoseconds: 0,
        link: b"",
        device: (0, 0),
        xattrs: Vec::new(),
    };
    let header = member.encode().unwrap();
    assert_eq!(header.len(), 3 * 512);
    assert!(header[512..].starts_with(b"19 size=9663676416\n"));
}
