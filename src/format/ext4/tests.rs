//! File systems checked by e2fsck and read back by debugfs, where installed.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::error::Kind as ErrorKind;
use crate::tree::{Content, Digest, Entry, Kind, Meta, TreePath, Xattrs};

fn options(size: u64) -> Options {
    Options {
        size,
        uuid: Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8888),
        hash_seed: Uuid::from_u128(0x9999_AAAA_BBBB_CCCC_DDDD_EEEE_FFFF_0001),
        label: "root".into(),
        time: Mtime { seconds: 1_700_000_000, nanoseconds: 0 },
        bytes_per_inode: 16384,
        inodes: None,
        reserved_percent: 5,
        features: Features::default(),
    }
}

fn put(tree: &mut Tree, path: &str, kind: Kind) {
    let mtime = Mtime { seconds: 1_600_000_000, nanoseconds: 123_456_789 };
    let meta = Meta { mtime, uid: 70_000, gid: 12, ..Meta::root(0o640) };
    tree.put(&TreePath::new(path).unwrap(), Entry { meta, kind, origin: Arc::from("t") }).unwrap();
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 5 % 251) as u8).collect()
}

/// Something of everything.
fn zoo() -> Tree {
    let mut tree = Tree::new();
    for (index, size) in [0, 1, 4095, 4096, 4097, 5_000_000].into_iter().enumerate() {
        put(&mut tree, &format!("files/{index}"), Kind::File(Content::inline(pattern(size))));
    }
    for name in ["links/one", "links/two", "zlinks/three"] {
        put(&mut tree, name, Kind::HardLink(TreePath::literal("files/5")));
    }
    put(&mut tree, "links/fast", Kind::Symlink(b"../files/1".to_vec()));
    put(&mut tree, "links/fast59", Kind::Symlink(vec![b'x'; 59]));
    put(&mut tree, "links/slow60", Kind::Symlink(vec![b'y'; 60]));
    put(&mut tree, "links/slow", Kind::Symlink(vec![b'z'; 4000]));
    put(&mut tree, "dev/null", Kind::CharDevice { major: 1, minor: 3 });
    put(&mut tree, "dev/large", Kind::BlockDevice { major: 259, minor: 70_000 });
    put(&mut tree, "dev/fifo", Kind::Fifo);
    put(&mut tree, "dev/socket", Kind::Socket);
    for number in 0..3000 {
        put(&mut tree, &format!("many/file-{number}"), Kind::Fifo);
        put(&mut tree, &format!("folders/{number}/x"), Kind::Fifo);
    }
    for number in 0..9000 {
        let name = format!("deep/{number}-{}", "ä".repeat(100));
        put(&mut tree, &name, Kind::HardLink(TreePath::literal("dev/fifo")));
    }
    let mut set = |path: &str, xattrs: &[(&[u8], Vec<u8>)]| {
        let xattrs: Xattrs = xattrs.iter().map(|(name, value)| (name.to_vec(), value.clone())).collect();
        tree.get_mut(&TreePath::new(path).unwrap()).unwrap().meta.xattrs = xattrs;
    };
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let acl = |tag: u8, permission: u8, id: u32| [&[tag, 0, permission, 0][..], &id.to_le_bytes()].concat();
    let acl = [
        2u32.to_le_bytes().to_vec(),
        acl(1, 6, !0),
        acl(2, 4, 1000),
        acl(4, 4, !0),
        acl(0x10, 4, !0),
        acl(0x20, 0, !0),
    ];
    set("files/1", &[(b"security.capability", capability.to_vec())]);
    set("files/2", &[(b"user.big", pattern(3000)), (b"user.empty", Vec::new()), (b"trusted.t", b"odd".to_vec())]);
    set("files/3", &[(b"system.posix_acl_access", acl.concat())]);
    set("files", &[(b"user.on-a-folder", b"yes".to_vec())]);
    tree
}

fn image(disk: &DiskImage) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    crate::format::raw::write(disk, file.as_file(), &|_| ()).unwrap();
    file
}

/// Standard output of a program that must succeed; `None` where it is not installed.
fn run(program: &str, arguments: &[&str], file: &Path) -> Option<String> {
    let Ok(output) = Command::new(program).args(arguments).arg(file).env("LC_ALL", "C").env("TZ", "UTC").output()
    else {
        println!("skipped: {program} is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {said}{}", String::from_utf8_lossy(&output.stderr));
    Some(said)
}

fn check(file: &Path) {
    if let Some(said) = run("e2fsck", &["-f", "-n"], file) {
        assert!(!said.contains("Fix?") && !said.contains("optimized"), "{said}");
    }
}

fn debugfs(command: &str, file: &Path) -> Option<String> {
    run("debugfs", &["-R", command], file)
}

#[test]
fn e2fsck_finds_nothing_at_any_size() {
    let empty = Tree::new();
    for size in [8 << 20, 16 << 20, 100 << 20, (128 << 20) + 4096, (129 << 20) + 999, 511 << 20, 19 << 30, 600 << 30] {
        for metadata_csum_seed in [false, true] {
            let options = Options { features: Features { metadata_csum_seed, ..Features::default() }, ..options(size) };
            check(image(&make(&empty, &options).unwrap()).path());
        }
    }
    for size in [600 << 20, 19 << 30] {
        check(image(&make(&zoo(), &options(size)).unwrap()).path());
    }
}

#[test]
fn unusual_numbers_of_inodes() {
    for (size, inodes) in [(64 << 20, 16_000), (600 << 20, 16), (600 << 20, 160_000), (2 << 30, 524_288)] {
        let options = Options { inodes: Some(inodes), ..options(size) };
        check(image(&make(&Tree::new(), &options).unwrap()).path());
    }
}

#[test]
fn debugfs_reads_everything_back() {
    let file = image(&make(&zoo(), &options(600 << 20)).unwrap());
    let Some(said) = debugfs("stat /files/5", file.path()) else { return };
    for part in [
        "Mode:  0640",
        "User: 70000",
        "Group:    12",
        "Links: 4",
        "Size: 5000000",
        ":1d6f3454 -- Sun Sep 13 12:26:40 2020",
    ] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    let ask = |command: &str| debugfs(command, file.path()).unwrap();
    assert!(ask("stat /links/fast").contains("Fast link dest: \"../files/1\""));
    assert_eq!(ask("cat /links/slow"), "z".repeat(4000));
    assert!(ask("stat /dev/null").contains("01:03"));
    assert!(ask("stat /dev/large").contains("259:70000"), "{}", ask("stat /dev/large"));
    assert!(ask("ea_get /files/1 security.capability").contains("01 00 00 02 00 20"));
    assert!(ask("ea_get /files/2 user.empty").contains("user.empty (0)"));
    assert!(ask("ea_list /files/3").contains("system.posix_acl_access (28)"), "{}", ask("ea_list /files/3"));
    assert!(ask("ea_list /files").contains("user.on-a-folder (3) = \"yes\""));
    // Looked up by hash in a tree of two levels.
    let name = format!("stat /deep/8999-{}", "ä".repeat(100));
    assert!(ask(&name).contains("Type: FIFO"));
    assert!(ask("htree_dump /deep").contains("Indirect levels: 1"));
    let out = tempfile::tempdir().unwrap();
    for (index, size) in [0, 1, 4095, 4096, 4097, 5_000_000].into_iter().enumerate() {
        let path = out.path().join("x");
        ask(&format!("dump /files/{index} {}", path.display()));
        assert!(std::fs::read(&path).unwrap() == pattern(size), "file {index}");
    }
    let summary = run("dumpe2fs", &["-h"], file.path()).unwrap();
    for part in ["11112222-3333-4444-5555-666677778888", "volume name:   root", "state:         clean", "half_md4"] {
        assert!(summary.contains(part), "no `{part}` in {summary}");
    }
}

#[test]
fn resize2fs_grows_it() {
    let file = image(&make(&zoo(), &options(600 << 20)).unwrap());
    for size in [5u64 << 30, 2 << 40] {
        file.as_file().set_len(size).unwrap();
        if run("resize2fs", &["-f"], file.path()).is_none() {
            return;
        }
        check(file.path());
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes_and_little_of_them() {
    let read = || {
        let disk = make(&zoo(), &options(600 << 20)).unwrap();
        let mut bytes = vec![0; 64 << 20];
        disk.read_at(&mut bytes, 0).unwrap();
        (bytes, disk.data_size())
    };
    let (one, two) = (read(), read());
    assert!(one == two);
    let empty = make(&Tree::new(), &options(19 << 30)).unwrap();
    assert!(empty.data_size() < 8 << 20, "{}", empty.data_size());
}

#[test]
fn too_small_says_how_much() {
    let mut tree = Tree::new();
    put(&mut tree, "big", Kind::File(Content::inline(vec![1; 40 << 20])));
    let error = make(&tree, &options(32 << 20)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Space);
    assert!(error.message().contains("the file system has 33554432"), "{error}");
    assert_eq!(make(&Tree::new(), &options(1 << 20)).err().unwrap().kind(), ErrorKind::Space);
    let few = Options { inodes: Some(16), ..options(600 << 20) };
    assert_eq!(make(&zoo(), &few).err().unwrap().kind(), ErrorKind::Space);
}

#[test]
fn what_cannot_be_is_an_error() {
    let mut long = Tree::new();
    put(&mut long, &"n".repeat(256), Kind::Fifo);
    assert!(make(&long, &options(64 << 20)).is_err());
    let mut dangling = Tree::new();
    put(&mut dangling, "a", Kind::HardLink(TreePath::literal("none")));
    assert!(make(&dangling, &options(64 << 20)).is_err());
    let mut attribute = Tree::new();
    put(&mut attribute, "a", Kind::Fifo);
    let entry = attribute.get_mut(&TreePath::literal("a")).unwrap();
    entry.meta.xattrs.insert(b"unknown.name".to_vec(), Vec::new());
    assert!(make(&attribute, &options(64 << 20)).is_err());
    assert!(make(&Tree::new(), &Options { label: "x".repeat(17), ..options(64 << 20) }).is_err());
}

/// A file of this machine whose digest nobody has computed.
struct HostFile(std::fs::File);

impl crate::tree::ReadAt for HostFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> crate::error::Result<()> {
        self.0.read_exact_at(buffer, offset).unwrap();
        Ok(())
    }
}

/// A folder of this machine as a Tree whose contents stay where they are.
fn scan(root: &Path) -> Tree {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::FileTypeExt;
    let mut tree = Tree::new();
    let mut todo = vec![(root.to_owned(), TreePath::root())];
    let mut linked: BTreeMap<u64, TreePath> = BTreeMap::new();
    let mut found = Vec::new();
    while let Some((folder, at)) = todo.pop() {
        for item in std::fs::read_dir(&folder).unwrap() {
            let item = item.unwrap();
            let path = at.append(&TreePath::new(item.file_name().as_bytes()).unwrap());
            if item.file_type().unwrap().is_dir() {
                todo.push((item.path(), path.clone()));
            }
            found.push((path, item.path()));
        }
    }
    found.sort();
    for (path, host) in found {
        let about = host.symlink_metadata().unwrap();
        let kind = if about.is_dir() {
            Kind::Directory
        } else if about.is_symlink() {
            Kind::Symlink(std::fs::read_link(&host).unwrap().as_os_str().as_bytes().to_vec())
        } else if about.is_file() {
            match linked.get(&about.ino()) {
                Some(first) => Kind::HardLink(first.clone()),
                None => {
                    linked.insert(about.ino(), path.clone());
                    // Too many files to keep them open: read small ones, and the bytes are compared below anyway.
                    let file = std::fs::File::open(&host).unwrap();
                    Kind::File(if about.len() < 1 << 20 {
                        Content::inline(std::fs::read(&host).unwrap())
                    } else {
                        let bytes = Arc::new(HostFile(file));
                        Content::elsewhere(Digest::of(path.as_bytes()), about.len(), bytes)
                    })
                }
            }
        } else if about.file_type().is_fifo() {
            Kind::Fifo
        } else {
            continue;
        };
        let meta = Meta {
            mode: (about.mode() & 0o7777) as u16,
            uid: about.uid(),
            gid: about.gid(),
            mtime: Mtime { seconds: about.mtime(), nanoseconds: about.mtime_nsec() as u32 },
            xattrs: Xattrs::new(),
        };
        tree.insert_raw(path, Entry { meta, kind, origin: Arc::from("host") });
    }
    tree
}

/// A whole system: `EXT4_SCAN=/usr EXT4_IMAGE=/dev/shm/x.img cargo test ext4 -- --ignored`; the image stays there, to
/// be mounted and compared.
#[test]
#[ignore = "needs a folder to scan"]
fn a_real_tree() {
    let (Some(root), Some(target)) = (std::env::var_os("EXT4_SCAN"), std::env::var_os("EXT4_IMAGE")) else { return };
    let tree = scan(Path::new(&root));
    println!("{} entries", tree.len());
    let file = std::fs::File::create(&target).unwrap();
    let disk = make(&tree, &options(18 << 30)).unwrap();
    crate::format::raw::write(&disk, &file, &|_| ()).unwrap();
    check(Path::new(&target));
    let mut magic = [0; 2];
    std::fs::File::open(&target).unwrap().read_exact_at(&mut magic, 1024 + 0x38).unwrap();
    assert_eq!(magic, [0x53, 0xEF]);
}
