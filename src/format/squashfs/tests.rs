//! File systems looked at and unpacked by unsquashfs, where installed.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::error::Kind as ErrorKind;
use crate::report::Reporter;
use crate::tree::clusters::Clusters;
use crate::tree::{Content, Entry, Kind, Meta, Tree, TreePath, Xattrs};

fn put(tree: &mut Tree, path: &str, kind: Kind) {
    let mtime = Mtime { seconds: 1_600_000_000, nanoseconds: 123_456_789 };
    let meta = Meta { mtime, uid: 70_000, gid: 12, ..Meta::root(0o640) };
    tree.put(&TreePath::new(path).unwrap(), Entry { meta, kind, origin: "t".into() }).unwrap();
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 5 % 251) as u8).collect()
}

/// Bytes that no compressor makes fewer.
fn noise(length: usize) -> Vec<u8> {
    (0..length.div_ceil(32))
        .flat_map(|at| *crate::tree::Digest::of(&at.to_le_bytes()).as_bytes())
        .take(length)
        .collect()
}

/// Something of everything.
fn zoo() -> Tree {
    let mut tree = Tree::new();
    for (index, size) in [0, 1, 4095, 4096, 131_071, 131_072, 131_073, 5_000_000].into_iter().enumerate() {
        put(&mut tree, &format!("files/{index}"), Kind::File(Content::inline(pattern(size))));
        put(&mut tree, &format!("noise/{index}"), Kind::File(Content::inline(noise(size))));
        put(&mut tree, &format!("zeros/{index}"), Kind::File(Content::inline(vec![0; size])));
    }
    let mut sparse = vec![0; 3_500_000];
    sparse[2_000_000..2_000_300].fill(7);
    put(&mut tree, "zeros/sparse", Kind::File(Content::inline(sparse)));
    put(&mut tree, "twice/same", Kind::File(Content::inline(pattern(5_000_000))));
    put(&mut tree, "links/one", Kind::HardLink(TreePath::literal("files/1")));
    put(&mut tree, "zlinks/two", Kind::HardLink(TreePath::literal("files/1")));
    put(&mut tree, "links/fast", Kind::Symlink(b"../files/1".to_vec()));
    put(&mut tree, "links/long", Kind::Symlink(vec![b'z'; 4000]));
    put(&mut tree, "dev/null", Kind::CharDevice { major: 1, minor: 3 });
    put(&mut tree, "dev/large", Kind::BlockDevice { major: 259, minor: 70_000 });
    put(&mut tree, "dev/fifo", Kind::Fifo);
    put(&mut tree, "dev/socket", Kind::Socket);
    for number in 0..1200 {
        put(&mut tree, &format!("many/file-{number}"), Kind::File(Content::inline(format!("{number}").into_bytes())));
    }
    for number in 0..300 {
        put(&mut tree, &format!("folders/{number}/x"), Kind::Fifo);
    }
    let mut set = |path: &str, xattrs: &[(&[u8], Vec<u8>)]| {
        let xattrs: Xattrs = xattrs.iter().map(|(name, value)| (name.to_vec(), value.clone())).collect();
        tree.get_mut(&TreePath::new(path).unwrap()).unwrap().meta.xattrs = xattrs;
    };
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set("files/2", &[(b"security.capability", capability.to_vec())]);
    set("files/3", &[(b"user.big", pattern(30_000)), (b"user.empty", Vec::new()), (b"trusted.t", b"odd".to_vec())]);
    set("many", &[(b"user.on-a-folder", b"yes".to_vec())]);
    tree
}

fn image(tree: &Tree, options: &Options) -> (tempfile::NamedTempFile, Written) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let written = write(tree, file.as_file(), 0, options, &|_| ()).unwrap();
    assert_eq!(file.as_file().metadata().unwrap().len(), written.size);
    (file, written)
}

fn with(name: &str) -> Options {
    let time = Mtime { seconds: 1_700_000_000, nanoseconds: 0 };
    Options { compression: Compression::named(name, None).unwrap(), time, ..Options::default() }
}

/// Standard output of unsquashfs, which must succeed; `None` where it is not installed.
fn unsquashfs(arguments: &[&str], file: &Path) -> Option<String> {
    let Ok(output) = Command::new("unsquashfs").args(arguments).arg(file).env("TZ", "UTC").output() else {
        println!("skipped: unsquashfs is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "unsquashfs {arguments:?}: {said}{errors}");
    Some(said)
}

/// Everything that could be unpacked here is as in the Tree.
fn compare(tree: &Tree, root: &Path, owners: bool) {
    for (path, entry) in tree.iter() {
        let host = root.join(path.to_host());
        let about = host.symlink_metadata().unwrap_or_else(|error| panic!("{path}: {error}"));
        let wanted = tree.inode(path).unwrap().1;
        assert!(
            matches!(entry.kind, Kind::Symlink(_)) || about.mode() & 0o7777 == u32::from(wanted.meta.mode),
            "{path}"
        );
        assert_eq!(about.mtime(), wanted.meta.mtime.seconds, "{path}");
        if owners {
            assert_eq!((about.uid(), about.gid()), (wanted.meta.uid, wanted.meta.gid), "{path}");
        }
        let kind = about.file_type();
        match &wanted.kind {
            Kind::File(content) => assert!(std::fs::read(&host).unwrap() == content.bytes().unwrap(), "{path}"),
            Kind::Symlink(target) => {
                use std::os::unix::ffi::OsStrExt;
                assert_eq!(std::fs::read_link(&host).unwrap().as_os_str().as_bytes(), target, "{path}");
            }
            Kind::Directory => assert!(kind.is_dir(), "{path}"),
            Kind::Fifo => assert!(kind.is_fifo(), "{path}"),
            Kind::Socket => assert!(kind.is_socket(), "{path}"),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                let device = (rustix::fs::major(about.rdev()), rustix::fs::minor(about.rdev()));
                assert_eq!(device, (*major, *minor), "{path}");
            }
            Kind::HardLink(_) => unreachable!("an inode is no link"),
        }
    }
    let links = root.join("files/1").metadata().unwrap().nlink();
    assert_eq!(links, 3);
}

#[test]
fn unsquashfs_unpacks_the_same() {
    let tree = zoo();
    let root = rustix::process::geteuid().is_root();
    for name in Compression::NAMES {
        let (file, written) = image(&tree, &with(name));
        let Some(said) = unsquashfs(&["-stat"], file.path()) else { return };
        for line in [
            format!("Compression {name}"),
            format!("Number of inodes {}", written.inodes),
            "Filesystem is exportable via NFS".into(),
            "Duplicates are removed".into(),
            "Block size 131072".into(),
            "Creation or last append time Tue Nov 14 22:13:20 2023".into(),
        ] {
            assert!(said.contains(&line), "{line}: {said}");
        }
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("root");
        // Devices need root.
        let kept = if root {
            tree.clone()
        } else {
            tree.iter().fold(Tree::new(), |mut kept, (path, entry)| {
                if !matches!(entry.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) {
                    kept.insert_raw(path.clone(), entry.clone());
                }
                kept
            })
        };
        let (file, _) = image(&kept, &with(name));
        unsquashfs(&["-no-xattrs", "-quiet", "-no-progress", "-dest", target.to_str().unwrap()], file.path());
        compare(&kept, &target, root);
    }
}

#[test]
fn any_number_of_threads_gives_the_same() {
    let tree = zoo();
    let bytes = |threads: usize, at: u64| {
        let file = tempfile::tempfile().unwrap();
        let options = Options { threads: Some(threads), ..with("zstd") };
        let written = write(&tree, &file, at, &options, &|_| ()).unwrap();
        let mut bytes = vec![0; written.size as usize];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, at).unwrap();
        bytes
    };
    let one = bytes(1, 0);
    assert!(one == bytes(3, 0));
    assert!(one == bytes(2, 2048 * 77));
}

#[test]
fn blocks_of_an_earlier_file_system_are_used_again() {
    let (tree, cache) = (zoo(), tempfile::tempdir().unwrap());
    let kept = |options: &Options| {
        let clusters = Clusters::open(cache.path(), 0, &Reporter::quiet()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let written = write_kept(&tree, file.as_file(), 0, options, &clusters, &|_| ()).unwrap();
        (std::fs::read(file.path()).unwrap(), written.blocks)
    };
    for name in Compression::NAMES {
        let plan = layout::layout(&tree, &with(name)).unwrap();
        let count = plan.jobs.len() as u64;
        let (file, written) = image(&tree, &with(name));
        assert_eq!(written.blocks, Blocks { made: count, kept: 0 });
        let wanted = std::fs::read(file.path()).unwrap();
        let (bytes, blocks) = kept(&with(name));
        assert!(bytes == wanted, "{name}");
        assert_eq!(blocks, Blocks { made: count, kept: 0 }, "{name}: no block is that of another compressor");
        let (bytes, blocks) = kept(&Options { threads: Some(3), ..with(name) });
        assert!(bytes == wanted, "{name}");
        assert_eq!(blocks, Blocks { made: 0, kept: count }, "{name}");
    }
    let level = Options { compression: Compression::Zstd { level: 3 }, ..with("zstd") };
    assert_eq!(kept(&level).1.kept, 0, "nor of another level");
}

#[test]
fn blocks_made_ahead_are_those_of_the_file_system() {
    let (tree, options) = (zoo(), with("zstd"));
    let (file, written) = image(&tree, &options);
    let count = written.blocks.made;
    for (stopped, expected) in [(true, Blocks { made: count, kept: 0 }), (false, Blocks { made: 0, kept: count })] {
        let cache = tempfile::tempdir().unwrap();
        let clusters = || Clusters::open(cache.path(), 0, &Reporter::quiet()).unwrap();
        prepare(&tree, &options, &clusters(), &AtomicBool::new(stopped)).unwrap();
        let again = tempfile::NamedTempFile::new().unwrap();
        let written = write_kept(&tree, again.as_file(), 0, &options, &clusters(), &|_| ()).unwrap();
        assert_eq!(written.blocks, expected);
        assert!(std::fs::read(again.path()).unwrap() == std::fs::read(file.path()).unwrap());
    }
}

#[test]
fn what_is_there_twice_or_nothing_takes_no_room() {
    let size = |files: &[(&str, Vec<u8>)]| {
        let mut tree = Tree::new();
        files.iter().for_each(|(path, bytes)| put(&mut tree, path, Kind::File(Content::inline(bytes.clone()))));
        let (file, written) = image(&tree, &with("lz4"));
        unsquashfs(&["-stat"], file.path());
        written.used
    };
    let once = size(&[("a", noise(1_000_000))]);
    assert!(size(&[("a", noise(1_000_000)), ("b", noise(1_000_000))]) < once + 100);
    assert!(size(&[("a", vec![0; 1 << 30])]) < 2000);
}

#[test]
fn an_empty_tree_is_a_file_system() {
    for block_size in [4096, 1 << 20] {
        let (file, written) = image(&Tree::new(), &Options { block_size, ..Options::default() });
        assert_eq!((written.inodes, written.size), (1, 4096));
        let said = unsquashfs(&["-lln"], file.path());
        assert!(said.is_none_or(|said| said.contains("drwxr-xr-x 0/0")));
    }
}

#[test]
fn progress_adds_up() {
    let tree = zoo();
    let done = std::cell::Cell::new(0);
    write(&tree, &tempfile::tempfile().unwrap(), 0, &with("lz4"), &|now| done.set(done.get() + now)).unwrap();
    let plan = layout::layout(&tree, &with("lz4")).unwrap();
    assert_eq!(done.get(), plan.jobs.iter().map(|job| u64::from(job.size())).sum::<u64>());
}

#[test]
fn what_cannot_be_is_an_error() {
    let made = |tree: &Tree, options: &Options| write(tree, &tempfile::tempfile().unwrap(), 0, options, &|_| ());
    let mut long = Tree::new();
    put(&mut long, &"n".repeat(256), Kind::Fifo);
    assert!(made(&long, &Options::default()).is_err());
    let mut device = Tree::new();
    put(&mut device, "d", Kind::CharDevice { major: 5000, minor: 1 });
    assert!(made(&device, &Options::default()).is_err());
    let mut attribute = Tree::new();
    put(&mut attribute, "a", Kind::Fifo);
    let entry = attribute.get_mut(&TreePath::literal("a")).unwrap();
    entry.meta.xattrs.insert(b"system.posix_acl_access".to_vec(), Vec::new());
    let error = made(&attribute, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("laying out /a: squashfs cannot hold the extended attribute"), "{error}");
    assert!(made(&Tree::new(), &Options { block_size: 5000, ..Options::default() }).is_err());
}

#[test]
fn a_full_disk_is_a_matter_of_space() {
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else {
        return println!("skipped: there is no /dev/full");
    };
    let error = write(&zoo(), &full, 0, &with("lz4"), &|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Space, "{error}");
}
