//! Trees through our writer and mke2fs, read back; and damaged file systems, which give errors and nothing worse.

use std::process::Command;
use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::format::disk::DiskImage;
use crate::format::ext4 as writer;
use crate::inspect::source::{FileSource, MemorySource, Patched};
use crate::tree::{Content, Entry, Kind, Mtime, Tree, Xattrs};

fn options(size: u64) -> writer::Options {
    writer::Options {
        size,
        uuid: Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8888),
        hash_seed: Uuid::from_u128(0x9999_AAAA_BBBB_CCCC_DDDD_EEEE_FFFF_0001),
        label: "root".into(),
        time: Mtime { seconds: 1_700_000_000, nanoseconds: 0 },
        bytes_per_inode: 16384,
        inodes: None,
        reserved_percent: 5,
        features: writer::Features::default(),
    }
}

fn put(tree: &mut Tree, path: &str, kind: Kind) {
    let mtime = Mtime { seconds: 5_600_000_000, nanoseconds: 123_456_789 };
    let meta = Meta { mtime, uid: 70_000, gid: 12, ..Meta::root(0o4640) };
    tree.put(&TreePath::new(path).unwrap(), Entry { meta, kind, origin: Arc::from("t") }).unwrap();
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 5 % 251) as u8).collect()
}

/// Something of everything; hard links sort behind their targets, as in every Tree.
fn zoo(many: usize) -> Tree {
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
    put(&mut tree, "odd/\n\u{1}%", Kind::Fifo);
    for number in 0..many {
        put(&mut tree, &format!("many/file-{number}"), Kind::Fifo);
        put(&mut tree, &format!("zz/{number}-{}", "ä".repeat(100)), Kind::HardLink(TreePath::literal("dev/fifo")));
    }
    let mut set = |path: &str, xattrs: &[(&[u8], Vec<u8>)]| {
        let xattrs: Xattrs = xattrs.iter().map(|(name, value)| (name.to_vec(), value.clone())).collect();
        tree.get_mut(&TreePath::new(path).unwrap()).unwrap().meta.xattrs = xattrs;
    };
    let acl = |tag: u8, permission: u8, id: u32| [&[tag, 0, permission, 0][..], &id.to_le_bytes()].concat();
    let acl = [
        2u32.to_le_bytes().to_vec(),
        acl(1, 6, !0),
        acl(2, 4, 1000),
        acl(4, 4, !0),
        acl(0x10, 4, !0),
        acl(0x20, 0, !0),
    ];
    set("files/1", &[(b"security.capability", pattern(20))]);
    set("files/2", &[(b"user.big", pattern(3000)), (b"user.empty", Vec::new()), (b"trusted.t", b"odd".to_vec())]);
    set("files/3", &[(b"system.posix_acl_access", acl.concat())]);
    set("files", &[(b"user.on-a-folder", b"yes".to_vec())]);
    tree
}

fn read(source: SharedSource) -> Result<Tree> {
    Ext4::open(source)?.listing()?.without_lost_found().tree(&Arc::from("read"))
}

/// Names the first difference, which `assert_eq` on Trees would bury.
fn assert_same(left: &Tree, right: &Tree) {
    let strip = |entry: &Entry| Entry { origin: Arc::from(""), ..entry.clone() };
    for (path, entry) in left.iter() {
        let other = right.get(path).unwrap_or_else(|| panic!("{path} is missing"));
        assert_eq!(strip(entry), strip(other), "{path}");
    }
    assert_eq!(left.len(), right.len());
    assert_eq!(left.digest(), right.digest());
}

#[test]
fn what_our_writer_wrote_is_read() {
    for (size, many) in [(64 << 20, 50), (600 << 20, 9000)] {
        let tree = zoo(many);
        for metadata_csum_seed in [false, true] {
            let features = writer::Features { metadata_csum_seed, ..Default::default() };
            let options = writer::Options { features, ..options(size) };
            let back = read(Arc::new(writer::make(&tree, &options).unwrap())).unwrap();
            assert_same(&tree, &back);
            let five = TreePath::literal("files/5");
            assert!(back.read_file(&five).unwrap().unwrap() == pattern(5_000_000));
        }
    }
}

/// A folder of this machine through `mke2fs -d`, in every block size and with old and new features.
#[test]
fn what_mke2fs_wrote_is_read() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("in");
    std::fs::create_dir_all(folder.join("a/b")).unwrap();
    std::fs::write(folder.join("a/hello"), "hello\n").unwrap();
    std::fs::write(folder.join("a/b/big"), pattern(3_000_001)).unwrap();
    std::fs::hard_link(folder.join("a/hello"), folder.join("z")).unwrap();
    std::os::unix::fs::symlink("a/hello", folder.join("link")).unwrap();
    std::os::unix::fs::symlink("x".repeat(300), folder.join("long")).unwrap();
    for number in 0..2000 {
        std::fs::write(folder.join(format!("a/b/a-name-of-some-length-{number}")), "").unwrap();
    }
    let sparse = std::fs::File::create(folder.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (40 << 20) - 3).unwrap();
    let variants = [
        "-b 4096 -O metadata_csum,64bit",
        "-b 1024 -O ^metadata_csum,^64bit,^flex_bg -I 128",
        "-b 2048 -O metadata_csum,^resize_inode,meta_bg -I 512",
        "-b 4096 -O ^has_journal,sparse_super2,metadata_csum",
    ];
    for variant in variants {
        let image = scratch.path().join("image");
        let _ = std::fs::remove_file(&image);
        let made = Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-d"])
            .arg(&folder)
            .args(variant.split(' '))
            .arg(&image)
            .arg("64M")
            .output();
        let Ok(made) = made else {
            println!("skipped: mke2fs is not installed");
            return;
        };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let tree = read(Arc::new(FileSource::open(&image).unwrap())).unwrap();
        let file = |path: &'static str| tree.read_file(&TreePath::literal(path)).unwrap().unwrap();
        assert_eq!(file("a/hello"), b"hello\n", "{variant}");
        assert!(file("a/b/big") == pattern(3_000_001), "{variant}");
        assert!(file("sparse").ends_with(b"\0\0end") && file("sparse").len() == 40 << 20, "{variant}");
        let kind = |path: &'static str| tree.get(&TreePath::literal(path)).unwrap().kind.clone();
        assert_eq!(kind("z"), Kind::HardLink(TreePath::literal("a/hello")));
        assert_eq!(kind("long"), Kind::Symlink(vec![b'x'; 300]));
        assert_eq!(tree.len(), 2000 + 9, "{variant}");
    }
}

fn bytes_of(disk: &DiskImage) -> Vec<u8> {
    let mut bytes = vec![0; disk.size() as usize];
    disk.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// A generator of our own (xorshift64), so that a failure can be repeated.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Every single damaged byte of the metadata is found by a checksum; what is not covered changes nothing but content.
#[test]
fn damaged_metadata_is_found() {
    let good = writer::make(&zoo(50), &options(32 << 20)).unwrap();
    let bytes = bytes_of(&good);
    let opened = Ext4::open(Arc::new(MemorySource(bytes.clone()))).unwrap();
    let mut damaged = 0;
    let hurt = |at: u64| {
        let mut bytes = bytes.clone();
        bytes[at as usize] ^= 0x10;
        read(Arc::new(MemorySource(bytes))).err().map(|error| error.to_string())
    };
    // Superblock, descriptors, the root's inode, the first inodes of files.
    let places = [1024 + 0x70, 1024 + 0x300, 4096 + 8, opened.inode_offset(2) + 4, opened.inode_offset(14) + 40];
    for at in places {
        let error = hurt(at).unwrap_or_else(|| panic!("offset {at}"));
        assert!(error.contains("checksum"), "{error}");
        damaged += 1;
    }
    let root = opened.map(&opened.inode(2).unwrap()).unwrap().runs[0].physical;
    assert!(hurt(root + 30).unwrap().contains("checksum"));
    assert_eq!(damaged, 5);
}

/// Without checksums in the way: random bytes in the metadata must give a Tree or an error, and end.
#[test]
fn hostile_metadata_does_no_harm() {
    let disk = writer::make(&zoo(50), &options(16 << 20)).unwrap();
    let mut bytes = bytes_of(&disk);
    // Switch checksums off, so that the damage is seen by the code behind them.
    bytes[1024 + 0x65] &= !0x04;
    let opened = Ext4::open(Arc::new(MemorySource(bytes.clone()))).unwrap();
    assert!(!opened.superblock.checksums);
    let interesting: Vec<(u64, u64)> = {
        let mut places = vec![(1024, 1024), (4096, 64)];
        for number in (2..3).chain(11..60) {
            places.push((opened.inode_offset(number), 256));
            let Ok(inode) = opened.inode(number) else { continue };
            if inode.kind() == inode::TYPE_DIRECTORY {
                places.extend(opened.map(&inode).unwrap().runs.iter().map(|run| (run.physical, 200)));
            }
            if inode.xattr_block() != 0 {
                places.push((inode.xattr_block() * 4096, 100));
            }
        }
        places
    };
    let base = Arc::new(bytes);
    let (mut state, mut failed) = (0x1234_5678_9ABC_DEF1, 0);
    for _ in 0..1500 {
        let mut patches = Vec::new();
        for _ in 0..1 + random(&mut state) % 3 {
            let (start, length) = interesting[random(&mut state) as usize % interesting.len()];
            let at = start + random(&mut state) % length;
            let byte = match random(&mut state) % 4 {
                0 => 0,
                1 => 0xFF,
                2 => base[at as usize] ^ 1,
                _ => random(&mut state) as u8,
            };
            patches.push((at, byte));
        }
        let source = Arc::new(Patched { base: base.clone(), patches });
        failed += usize::from(Ext4::open(source).and_then(|opened| opened.listing()).is_err());
    }
    assert!(failed > 100, "{failed}");
}

#[test]
fn what_is_no_ext4_is_refused() {
    assert!(!Ext4::probe(&MemorySource(vec![0; 100])));
    assert!(Ext4::open(Arc::new(MemorySource(vec![0; 100]))).is_err());
    let mut bytes = bytes_of(&writer::make(&Tree::new(), &options(16 << 20)).unwrap());
    assert!(Ext4::probe(&MemorySource(bytes.clone())));
    let short = bytes[..8 << 20].to_vec();
    assert!(Ext4::open(Arc::new(MemorySource(short))).err().unwrap().to_string().contains("it claims"));
    // A journal that must be replayed.
    bytes[1024 + 0x60] |= 4;
    let error = Ext4::open(Arc::new(MemorySource(bytes))).err().unwrap();
    assert!(error.to_string().contains("unmounted cleanly") && !error.hints().is_empty());
}
