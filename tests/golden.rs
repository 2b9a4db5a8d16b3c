//! Golden digests: a fixed Tree and a fixed layout through every writer, compared with what is pinned in
//! `tests/golden/`. Nothing here depends on an archive, a mirror or the day, so a digest changes only when a writer (or
//! a compressor in `Cargo.lock`) gives other bytes for the same input. That is allowed, but never by accident: raise the
//! recipe of the step in `plan::StepName::recipe`, then `UPDATE_GOLDEN=1 cargo test --test golden`.

#[path = "support/disk.rs"]
mod disk;
#[path = "support/times.rs"]
mod times;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use disk::params;
use imagebuilder::boot::{Identity, Layout};
use imagebuilder::build::pack::{self, Format, Output, Request};
use imagebuilder::format::disk::sums::Digests;
use imagebuilder::format::{qcow2, tar, vhd};
use imagebuilder::report::Reporter;
use imagebuilder::sandbox::Namespaces;
use imagebuilder::tree::{Digest, Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

const EPOCH: i64 = 1_700_000_000;

fn path(text: &[u8]) -> TreePath {
    TreePath::new(text).unwrap()
}

/// Bytes that do not compress, the same on every run.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| byte()).collect()
}

/// A little of everything that a writer treats in a way of its own.
fn tree() -> Tree {
    let origin: Origin = "golden".into();
    let mut tree = Tree::new();
    let at = |seconds| Mtime { seconds, nanoseconds: 123_456_789 };
    let meta = |mode, seconds| Meta { mtime: at(seconds), ..Meta::root(mode) };
    for folder in ["boot/efi/EFI/BOOT", "usr/bin", "usr/lib/shim", "usr/lib/grub/x86_64-efi-signed", "many", "dev"] {
        tree.make_directories(&path(folder.as_bytes()), at(EPOCH - 5), &origin).unwrap();
    }
    tree.write_symlink(&path(b"bin"), "usr/bin", at(1), &origin).unwrap();
    tree.write_symlink(&path(b"long-link"), "x/".repeat(100), at(2), &origin).unwrap();
    for number in 0..700 {
        let name = format!("many/a rather long name, so that the folder gets an index {number}");
        tree.write_file(&path(name.as_bytes()), format!("{number}\n"), meta(0o644, number), &origin).unwrap();
    }
    let mut attributed = Meta { uid: 1234, gid: 70_000, ..meta(0o4711, 1_234_567_890) };
    attributed.xattrs.insert(b"user.note".to_vec(), b"kept".to_vec());
    attributed.xattrs.insert(b"user.large".to_vec(), noise(3000, 7));
    tree.write_file(&path(b"usr/bin/attributed"), noise(5000, 1), attributed.clone(), &origin).unwrap();
    let kind = Kind::HardLink(path(b"usr/bin/attributed"));
    tree.insert_raw(path(b"usr/bin/twin"), Entry { meta: attributed, kind, origin: origin.clone() });
    tree.write_file(&path(b"empty"), "", meta(0o600, -1), &origin).unwrap();
    tree.write_file(&path(b"zeros"), vec![0; 300_000], meta(0o600, EPOCH), &origin).unwrap();
    tree.write_file(&path(b"noise"), noise(3 << 20, 2), meta(0o600, EPOCH), &origin).unwrap();
    let mut holes = noise(200_000, 3);
    holes[4096..150_000].fill(0);
    tree.write_file(&path(b"holes"), holes, meta(0o600, EPOCH), &origin).unwrap();
    tree.write_file(&path(b"odd \xff\n\"name"), "odd", meta(0o644, EPOCH), &origin).unwrap();
    for (name, kind) in [
        (&b"dev/console"[..], Kind::CharDevice { major: 5, minor: 1 }),
        (b"dev/disk", Kind::BlockDevice { major: 259, minor: 70_000 }),
        (b"dev/fifo", Kind::Fifo),
    ] {
        tree.insert_raw(path(name), Entry { meta: meta(0o620, 3), kind, origin: origin.clone() });
    }
    for (file, size) in [
        ("boot/vmlinuz-1", 70_000),
        ("boot/efi/EFI/BOOT/BOOTX64.EFI", 90_000),
        ("boot/efi/EFI/BOOT/a long name.txt", 9),
        ("usr/lib/shim/shimx64.efi.signed", 10),
        ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", 10),
    ] {
        tree.write_file(&path(file.as_bytes()), noise(size, 4), meta(0o644, EPOCH), &origin).unwrap();
    }
    tree
}

/// Every kind of file that is written, by the name its digest is pinned under.
fn formats() -> Vec<(&'static str, Format)> {
    vec![
        ("raw", Format::Raw),
        ("qcow2", Format::Qcow2(qcow2::Compression::None)),
        ("qcow2-zlib", Format::Qcow2(qcow2::Compression::Zlib)),
        ("qcow2-zstd", Format::Qcow2(qcow2::Compression::Zstd)),
        ("vmdk", Format::Vmdk),
        ("vhd", Format::Vhd(vhd::Subformat::Dynamic)),
        ("vhd-fixed", Format::Vhd(vhd::Subformat::Fixed)),
        ("tar", Format::Tar(tar::Compression::None)),
        ("tar.gz", Format::Tar(tar::Compression::Gzip)),
        ("tar.zst", Format::Tar(tar::Compression::Zstd)),
    ]
}

fn digest(file: &Path) -> String {
    Digest::of(&std::fs::read(file).unwrap()).to_hex()
}

/// Packs the Tree in every format and gives the digest of each file, and of each partition of the raw one.
fn pack(folder: &Path) -> BTreeMap<String, String> {
    let params = params();
    let layout = Layout::new(&params.storage, &Identity { site: "golden".into(), image: "golden".into() }).unwrap();
    let scratch = folder.join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let request = Request {
        tree: &tree(),
        live_tree: None,
        params: &params,
        layout: &layout,
        places: &|_| None,
        epoch: EPOCH,
        sandbox: &Namespaces::new(),
        scratch: &scratch,
        live: None,
        clusters: None,
        digests: Digests::BOTH,
        reporter: &Reporter::quiet(),
    };
    let outputs: Vec<Output> =
        formats().into_iter().map(|(name, format)| Output { format, path: folder.join(name) }).collect();
    pack::pack(&request, &outputs).unwrap();
    let mut digests: BTreeMap<String, String> =
        formats().into_iter().map(|(name, _)| (format!("image {name}"), digest(&folder.join(name)))).collect();
    let raw = File::open(folder.join("raw")).unwrap();
    for partition in &layout.partitions {
        let mut bytes = vec![0; partition.size as usize];
        raw.read_exact_at(&mut bytes, partition.start).unwrap();
        digests.insert(partition.describe(), Digest::of(&bytes).to_hex());
    }
    digests.insert("tree".into(), tree().digest().to_hex());
    digests
}

#[test]
fn the_same_tree_gives_the_pinned_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let digests = pack(folder.path());
    let text: String = digests.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/digests.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let pinned = std::fs::read_to_string(&file).unwrap();
    let changed: Vec<&str> = text.lines().filter(|line| !pinned.lines().any(|other| other == *line)).collect();
    assert!(
        changed.is_empty() && pinned.lines().count() == text.lines().count(),
        "other bytes than those pinned in {}:\n{}\nif that is meant, raise the recipe in `plan::StepName::recipe` and \
         run this test with UPDATE_GOLDEN=1",
        file.display(),
        changed.join("\n")
    );
}

#[test]
fn no_structure_of_the_disk_is_later_than_the_epoch() {
    let folder = tempfile::tempdir().unwrap();
    pack(folder.path());
    let found = times::of_disk(&File::open(folder.path().join("raw")).unwrap());
    // Both kinds of file system have been read, down to a file in a folder.
    for known in ["ext4 superblock s_wtime", "ext4 inode 2 crtime", "FAT entry /EFI/BOOT/BOOTX64 EFI"] {
        assert!(found.iter().any(|(place, _)| place.contains(known)), "{known} was not looked at");
    }
    assert!(found.iter().any(|(_, time)| *time == EPOCH), "times are read from the wrong place");
    let late: Vec<_> = found.iter().filter(|(_, time)| *time > EPOCH).take(10).collect();
    assert!(late.is_empty(), "later than {EPOCH}: {late:?}");
}
