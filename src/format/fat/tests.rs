//! File systems checked by fsck.fat and read back by mtools, where installed.

use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::error::Kind;
use crate::format::disk::DiskImage;
use crate::tree::{Content, Entry, Meta, Mtime, TreePath};

fn options(size: u64) -> Options {
    Options {
        size,
        fat_type: FatType::Auto,
        volume_id: 0x1234_ABCD,
        label: "ESP".into(),
        hidden_sectors: 2048,
        latest: Mtime { seconds: 1_700_000_000, nanoseconds: 0 },
    }
}

fn tree(files: &[(&str, usize)]) -> Tree {
    let mut tree = Tree::new();
    for (index, (path, size)) in files.iter().enumerate() {
        let bytes: Vec<u8> = (0..*size).map(|at| (at / 7 + index) as u8).collect();
        let meta = Meta { mtime: Mtime { seconds: 1_600_000_000, nanoseconds: 0 }, ..Meta::root(0o644) };
        tree.write_file(&TreePath::new(path).unwrap(), bytes, meta, &Arc::from("t")).unwrap();
    }
    tree
}

fn esp() -> Tree {
    let mut files = vec![
        ("EFI/BOOT/BOOTX64.EFI", 900_000),
        ("EFI/BOOT/grubx64.efi", 2_500_001),
        ("EFI/debian/grub.cfg", 126),
        ("EFI/debian/shimx64.efi.signed", 4096),
        ("EFI/debian/a very long name that needs several entries.configuration", 4097),
        ("EFI/debian/grün.txt", 3),
        ("empty", 0),
    ];
    let many: Vec<String> = (0..700).map(|number| format!("many/file number {number}.txt")).collect();
    files.extend(many.iter().map(|name| (name.as_str(), 10)));
    tree(&files)
}

fn image(disk: &DiskImage) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    crate::format::raw::write(disk, file.as_file(), &|_| ()).unwrap();
    file
}

/// Runs a program on an image; `None` where it is not installed.
fn run(program: &str, before: &[&str], file: &tempfile::NamedTempFile, after: &[&str]) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    let output =
        command.args(before).arg(file.path()).args(after).env("MTOOLS_SKIP_CHECK", "1").env("TZ", "UTC").output();
    let Ok(output) = output else {
        println!("skipped: {program} is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {said}{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

#[test]
fn fsck_finds_nothing() {
    for size in [10 << 20, 20 << 20, 33 << 20, 40 << 20, 261 << 20, 511 << 20, 2 << 30, 40 << 30] {
        for label in ["", "ESP"] {
            let options = Options { label: label.into(), ..options(size) };
            let Some(said) = run("fsck.fat", &["-n", "-v"], &image(&make(&esp(), &options).unwrap()), &[]) else {
                return;
            };
            let said = String::from_utf8_lossy(&said).into_owned();
            assert!(!said.contains("differ") && !said.contains("wrong") && !said.contains("Dirty"), "{said}");
            assert!(said.contains("/12") || said.contains(" files, "), "{said}");
        }
    }
}

#[test]
fn mtools_reads_everything_back() {
    for (size, fat_type) in [(511 << 20, FatType::Fat32), (60 << 20, FatType::Fat16), (600 << 20, FatType::Fat16)] {
        let tree = esp();
        let file = image(&make(&tree, &Options { fat_type, ..options(size) }).unwrap());
        for (path, entry) in tree.iter() {
            let crate::tree::Kind::File(content) = &entry.kind else { continue };
            if path.to_string().contains("ü") || path.to_string().ends_with("9.txt") {
                continue;
            }
            let name = format!("::{path}");
            let Some(bytes) = run("mtype", &["-i"], &file, &[&name]) else { return };
            assert!(bytes == content.bytes().unwrap(), "{path}");
        }
        let listing = run("mdir", &["-i"], &file, &["::/EFI/debian"]).unwrap();
        let listing = String::from_utf8_lossy(&listing).into_owned();
        assert!(listing.contains("1234-ABCD") && listing.contains("ESP"), "{listing}");
        assert!(listing.contains("2020-09-13  12:26"), "{listing}");
        assert!(listing.contains("a very long name that needs several entries.configuration"), "{listing}");
    }
}

#[test]
fn an_esp_of_the_default_size_is_fat32_and_sparse() {
    let disk = make(&esp(), &options(511 << 20)).unwrap();
    let mut sector = [0; 512];
    disk.read_at(&mut sector, 0).unwrap();
    assert_eq!(&sector[82..90], b"FAT32   ");
    assert_eq!(sector[13], 8, "clusters of 4 KiB");
    assert!(disk.data_size() < 4 << 20);
    let mut backup = [0; 512];
    disk.read_at(&mut backup, 6 * 512).unwrap();
    assert_eq!(sector, backup);
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let read = |disk: DiskImage| {
        let mut bytes = vec![0; 40 << 20];
        disk.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    assert!(read(make(&esp(), &options(40 << 20)).unwrap()) == read(make(&esp(), &options(40 << 20)).unwrap()));
}

#[test]
fn too_much_content_says_how_much() {
    let error = make(&tree(&[("big", 30 << 20)]), &options(20 << 20)).err().unwrap();
    assert_eq!(error.kind(), Kind::Space);
    assert!(error.message().contains("needs 31") && error.message().contains("has 20971520"), "{error}");
    assert_eq!(make(&Tree::new(), &options(1 << 20)).err().unwrap().kind(), Kind::Space);
}

#[test]
fn just_full_is_not_too_much() {
    let free = {
        let layout = layout::Layout::new(&Tree::new(), &options(40 << 20)).unwrap();
        (layout.geometry.clusters - layout.used) * layout.geometry.cluster_size()
    };
    let disk = make(&tree(&[("big", free as usize)]), &options(40 << 20)).unwrap();
    run("fsck.fat", &["-n"], &image(&disk), &[]);
    assert!(make(&tree(&[("big", free as usize + 1)]), &options(40 << 20)).is_err());
}

#[test]
fn what_fat_cannot_hold_is_an_error() {
    let mut linked = tree(&[("a", 1)]);
    linked.write_symlink(&TreePath::literal("b"), "a", Mtime::default(), &Arc::from("t")).unwrap();
    assert!(make(&linked, &options(40 << 20)).err().unwrap().to_string().contains("/b is a link"));
    let clash = make(&tree(&[("d/x", 1), ("d/X", 1)]), &options(40 << 20)).err().unwrap().to_string();
    assert!(clash.contains("naming the files of /d") && clash.contains("case alone"), "{clash}");
    let mut orphan = Tree::new();
    let kind = crate::tree::Kind::File(Content::inline(*b"x"));
    orphan.insert_raw(TreePath::literal("a/b"), Entry { meta: Meta::root(0o644), kind, origin: Arc::from("t") });
    assert!(make(&orphan, &options(40 << 20)).is_err());
    assert!(make(&Tree::new(), &Options { label: "lower".into(), ..options(40 << 20) }).is_err());
}

#[test]
fn the_size_that_is_required_is_exact() {
    let origin: crate::tree::Origin = "test".into();
    for (files, bytes) in [(0, 0), (1, 100), (3, 3 << 20), (700, 10), (5, 20 << 20)] {
        for fat_type in [FatType::Auto, FatType::Fat16, FatType::Fat32] {
            let mut tree = Tree::new();
            for number in 0..files {
                let path = TreePath::new(format!("EFI/file-{number}")).unwrap();
                tree.write_file(&path, vec![1; bytes], Meta::root(0o644), &origin).unwrap();
            }
            let options = |size| Options { fat_type, ..options(size) };
            let size = required(&tree, &options(0)).unwrap();
            assert!(make(&tree, &options(size)).is_ok(), "{fat_type:?} {size}");
            let error = make(&tree, &options(size - 512)).err().unwrap();
            assert_eq!(error.kind(), crate::error::Kind::Space, "{fat_type:?} {size}");
            assert_eq!(required(&tree, &options(200 << 20)).unwrap(), 200 << 20);
        }
    }
}
