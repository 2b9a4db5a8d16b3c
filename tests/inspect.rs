//! Images through our writers, read back and compared; differences named by path or by structure.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use imagebuilder::api::params::storage::{FilesystemType, Storage};
use imagebuilder::api::scalar::Size;
use imagebuilder::boot::Layout;
use imagebuilder::boot::fstab;
use imagebuilder::boot::layout::Identity;
use imagebuilder::build::pack::{file_system, split};
use imagebuilder::format::disk::DiskImage;
use imagebuilder::format::{gpt, qcow2, raw, vhd, vmdk};
use imagebuilder::inspect::compare::{self, Limits, What};
use imagebuilder::inspect::image::{FileSystem, Image};
use imagebuilder::inspect::{Difference, difference};
use imagebuilder::report::Reporter;
use imagebuilder::tree::{Content, Entry, Kind, Meta, Mtime, Tree, TreePath};
use uuid::Uuid;

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn layout() -> Layout {
    let storage = Storage { qcow_capacity: Size(1400 << 20).into(), ..Storage::default() };
    Layout::new(&storage, &Identity { site: "s".into(), image: "i".into() }).unwrap()
}

const MTIME: Mtime = Mtime { seconds: 1_700_000_000, nanoseconds: 0 };

fn put(tree: &mut Tree, at: &str, bytes: &[u8], mode: u16) {
    let kind = Kind::File(Content::inline(bytes.to_vec()));
    let meta = Meta { mtime: MTIME, ..Meta::root(mode) };
    tree.put(&path(at), Entry { meta, kind, origin: "t".into() }).unwrap();
}

/// A small system on three file systems.
fn system() -> Tree {
    let mut tree = Tree::new();
    put(&mut tree, "etc/fstab", fstab::render(&layout()).as_bytes(), 0o644);
    put(&mut tree, "usr/lib/os-release", b"PRETTY_NAME=\"Test GNU/Linux 1\"\n", 0o644);
    put(&mut tree, "var/lib/dpkg/status", b"Package: a\nStatus: install ok installed\nVersion: 1\n\n", 0o644);
    put(&mut tree, "boot/vmlinuz-6.1.0", &[7; 100_000], 0o600);
    put(&mut tree, "boot/efi/EFI/BOOT/BOOTX64.EFI", &[9; 50_000], 0o644);
    put(&mut tree, "usr/bin/su", b"#!/bin/sh\n", 0o4755);
    for number in 0..500 {
        put(&mut tree, &format!("srv/{number:03}"), format!("{number}\n").repeat(900).as_bytes(), 0o644);
    }
    for (at, kind) in [("usr/bin/zz", Kind::HardLink(path("usr/bin/su"))), ("lib", Kind::Symlink(b"usr/lib".to_vec()))]
    {
        let meta = Meta { mtime: MTIME, ..Meta::root(if at == "lib" { 0o777 } else { 0o4755 }) };
        tree.put(&path(at), Entry { meta, kind, origin: "t".into() }).unwrap();
    }
    // FAT keeps neither: folders and the root of the ESP are root's, 0755, without a time.
    let efi = path("boot/efi");
    for (at, entry) in tree.iter_mut() {
        entry.meta.mtime = if *at == efi { Mtime::default() } else { MTIME };
    }
    tree
}

fn disk(tree: &Tree) -> DiskImage {
    let layout = layout();
    let parts = split::split(tree, &layout).unwrap();
    let images = file_system::make_all(&parts, MTIME.seconds, &|_| None, &Reporter::quiet()).unwrap();
    let mut disk = DiskImage::empty(layout.disk_size);
    for (part, image) in parts.iter().zip(images) {
        disk.place(part.partition.start, image).unwrap();
    }
    let partitions = layout.partitions.iter().map(|partition| gpt::Partition {
        type_guid: partition.type_guid,
        guid: partition.guid,
        first_lba: partition.start / 512,
        last_lba: partition.end() / 512 - 1,
        attributes: partition.attributes,
        name: partition.name.clone(),
    });
    let (disk_size, disk_guid) = (layout.disk_size, layout.disk_guid);
    let table = gpt::Table { disk_size, disk_guid, partitions: partitions.collect(), boot_code: vec![1; 440] };
    let tables = table.layout().unwrap();
    disk.write(0, tables.primary).unwrap();
    disk.write(tables.backup_offset, tables.backup).unwrap();
    disk
}

fn write(disk: &DiskImage, folder: &Path, name: &str) -> PathBuf {
    let at = folder.join(name);
    let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(&at).unwrap();
    let uuid = Uuid::from_u128(7);
    match name.rsplit('.').next().unwrap() {
        "raw" => raw::write(disk, &file, &|_| ()).unwrap(),
        "qcow2" => qcow2::write(disk, &file, &qcow2::Options::default(), &|_| ()).unwrap(),
        "vmdk" => vmdk::write(disk, &file, &vmdk::Options { uuid, threads: None }, &|_| ()).unwrap(),
        "vhd" => {
            let options = vhd::Options { subformat: vhd::Subformat::Dynamic, uuid, seconds: 0 };
            vhd::write(disk, &file, &options, &|_| ()).unwrap();
        }
        other => panic!("{other}"),
    }
    at
}

#[test]
fn every_format_gives_the_tree_back() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, disk) = (system(), disk(&system()));
    for name in ["a.raw", "a.qcow2", "a.vmdk", "a.vhd"] {
        let file = write(&disk, scratch.path(), name);
        let image = Image::open(&file).unwrap();
        assert_eq!(image.container.name(), name.rsplit('.').next().unwrap());
        assert_eq!(image.volumes.len(), 4);
        let mounts: Vec<String> = image.mounted().unwrap().mounts.iter().map(|(_, at)| at.to_string()).collect();
        assert_eq!(mounts, ["/", "/boot", "/boot/efi"]);
        let back = image.tree().unwrap();
        for (at, entry) in tree.iter() {
            let other = back.get(at).unwrap_or_else(|| panic!("{name}: {at} is missing"));
            // FAT has no times for its root and rounds none of ours.
            assert_eq!((&entry.kind, entry.meta.mode), (&other.kind, other.meta.mode), "{name}: {at}");
            assert_eq!(entry.meta.mtime, other.meta.mtime, "{name}: {at}");
        }
        assert_eq!(back.len(), tree.len());
        assert_eq!(difference(&file, &file).unwrap(), None);
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_difference_of_the_trees_is_named_by_its_path() {
    let scratch = tempfile::tempdir().unwrap();
    let base = write(&disk(&system()), scratch.path(), "base.qcow2");
    let changed = |edit: &dyn Fn(&mut Tree)| {
        let mut tree = system();
        edit(&mut tree);
        let other = write(&disk(&tree), scratch.path(), "other.qcow2");
        difference(&base, &other).unwrap().unwrap().to_string()
    };
    let meta = |at: &'static str, edit: fn(&mut Meta)| {
        changed(&|tree| edit(&mut tree.get_mut(&TreePath::literal(at)).unwrap().meta))
    };
    assert_eq!(meta("srv/007", |meta| meta.mode = 0o600), "/srv/007: mode 0644 -> 0600");
    assert_eq!(meta("srv/007", |meta| meta.gid = 5), "/srv/007: owner 0:0 -> 0:5");
    assert!(meta("boot", |meta| meta.mtime.seconds += 1).starts_with("/boot: mtime 1700000000.0"));
    let capability = meta("srv/007", |meta| {
        meta.xattrs.insert(b"security.capability".to_vec(), vec![1, 2]);
    });
    assert_eq!(capability, "/srv/007: xattr security.capability none -> 0102");
    let mut longer = String::new();
    for (edit, wanted) in [
        (
            &(|tree: &mut Tree| put(tree, "srv/007", &[&b"7"[..], &[0xff; 1799]].concat(), 0o644))
                as &dyn Fn(&mut Tree),
            "/srv/007: content ",
        ),
        (&|tree: &mut Tree| put(tree, "srv/007", b"x", 0o644), "/srv/007: size 1800 -> 1"),
        (&|tree: &mut Tree| put(tree, "srv/new", b"x", 0o644), "/srv/new is in the second only"),
        (&|tree: &mut Tree| assert!(tree.remove(&path("srv/007")).unwrap()), "/srv/007 is in the first only"),
    ] {
        let said = changed(edit);
        assert!(said.starts_with(wanted), "{said}");
        longer.push_str(&said);
    }
    assert!(longer.contains("at byte 1:") || longer.contains("at byte 1 "), "{longer}");
}

#[test]
fn packages_and_paths_are_all_reported() {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = system();
    put(&mut tree, "var/lib/dpkg/status", b"Package: a\nStatus: install ok installed\nVersion: 2\n\nPackage: b\nStatus: install ok installed\nVersion: 1\n", 0o644);
    put(&mut tree, "usr/bin/su", b"#!/bin/bash\n", 0o755);
    let (one, two) = (disk(&system()), disk(&tree));
    let one = Image::open(&write(&one, scratch.path(), "one.raw")).unwrap();
    let two = Image::open(&write(&two, scratch.path(), "two.vmdk")).unwrap();
    let report = compare::report(&one, &two, Limits::default()).unwrap();
    let packages: Vec<String> = report.packages.iter().map(|change| change.to_string()).collect();
    assert_eq!(packages, ["a 1 -> 2", "b none -> 1"]);
    assert_eq!(report.disk[0].to_string(), "format raw -> vmdk");
    let paths: Vec<String> = report.paths.iter().map(|change| change.path.to_string()).collect();
    assert_eq!(paths, ["/usr/bin/su", "/usr/bin/zz", "/var/lib/dpkg/status"]);
    // A small text by its first line that differs.
    let What::Changed(aspects) = &report.paths[0].what else { panic!("{:?}", report.paths[0]) };
    let line = aspects.last().unwrap().to_string();
    assert!(aspects.len() == 3 && line.starts_with("line 1 `") && line.ends_with("` -> `#!/bin/bash`"), "{line}");
    assert!(!report.is_equal());
}

/// Equal paths, other bytes: every kind of structure has a name.
#[test]
fn a_difference_of_the_bytes_is_named_by_its_structure() {
    let scratch = tempfile::tempdir().unwrap();
    let base = write(&disk(&system()), scratch.path(), "base.raw");
    let other = scratch.path().join("other.raw");
    let image = Image::open(&base).unwrap();
    let root = image.volumes[0].partition.as_ref().unwrap().start;
    let esp = image
        .volumes
        .iter()
        .find(|volume| matches!(volume.file_system(), Some(FileSystem::Fat(_))))
        .and_then(|volume| volume.partition.as_ref())
        .unwrap()
        .start;
    assert!(matches!(image.volumes[0].file_system(), Some(FileSystem::Ext4(_))));
    let end = image.disk.size();
    let hurt = |at: u64| {
        let run = Command::new("cp").args(["--sparse=always"]).arg(&base).arg(&other).status().unwrap();
        assert!(run.success());
        let file = fs::File::options().read(true).write(true).open(&other).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
        difference(&base, &other).unwrap().unwrap().to_string()
    };
    for (at, wanted) in [
        (5, "the protective MBR, boot code"),
        (512 + 60, "the primary GPT header, field `disk identifier`"),
        (1024 + 130, "entry 2 of the primary GPT"),
        (end - 512 + 17, "the backup GPT header, field `header checksum`"),
        (root + 5, "partition 1: the boot area before the superblock"),
        (root + 1024 + 0x30, "partition 1: the superblock, field `write time`"),
        (root + 4096 + 65, "partition 1: group descriptor 1"),
        (esp + 3, "the FAT boot sector"),
    ] {
        let said = hurt(at);
        assert!(said.contains(wanted) && said.contains(&format!("byte {at} ")), "{said} instead of {wanted}");
    }
    // Nothing looks behind the end of the last file system's blocks, or into what no file uses.
    let said = hurt(image.volumes[3].partition.as_ref().unwrap().end() - 1);
    assert!(said.contains("unused area"), "{said}");
}

/// The same disk, packed otherwise.
#[test]
fn a_difference_of_the_files_alone_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = disk(&system());
    let one = write(&disk, scratch.path(), "one.qcow2");
    let two = scratch.path().join("two.qcow2");
    let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(&two).unwrap();
    let options = qcow2::Options { compression: qcow2::Compression::Zlib, threads: None };
    qcow2::write(&disk, &file, &options, &|_| ()).unwrap();
    match difference(&one, &two).unwrap().unwrap() {
        Difference::File(spot) => assert_eq!(spot.structure, "the qcow2 header"),
        other => panic!("{other:?}"),
    }
    let (text, longer) = (scratch.path().join("a"), scratch.path().join("b"));
    fs::write(&text, "one\ntwo\n").unwrap();
    fs::write(&longer, "one\ntwi\n").unwrap();
    assert_eq!(difference(&text, &longer).unwrap().unwrap().to_string(), "line 2 (byte 6 of the file)");
}

#[test]
fn the_command_line_shows_copies_and_compares() {
    let scratch = tempfile::tempdir().unwrap();
    let one = write(&disk(&system()), scratch.path(), "one.qcow2");
    let mut tree = system();
    put(&mut tree, "srv/007", b"x", 0o644);
    let two = write(&disk(&tree), scratch.path(), "two.qcow2");
    let run = |arguments: &[&std::ffi::OsStr]| {
        let out = Command::new(env!("CARGO_BIN_EXE_imagebuilder")).args(arguments).output().unwrap();
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).into_owned(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    let inspect = |rest: &[&str]| {
        let mut arguments: Vec<&std::ffi::OsStr> = vec!["inspect".as_ref(), one.as_os_str()];
        arguments.extend(rest.iter().map(|text| std::ffi::OsStr::new(*text)));
        run(&arguments)
    };
    let (code, out, _) = inspect(&[]);
    assert_eq!(code, Some(0));
    for part in ["qcow2", "Test GNU/Linux 1", "6.1.0", "EFI system", "fat32", "/boot/efi", "1.47 GB"] {
        assert!(out.contains(part), "no `{part}` in {out}");
    }
    let summary: serde_json::Value = serde_json::from_str(&inspect(&["-o", "json"]).1).unwrap();
    assert_eq!(summary["partitions"][0]["mountedAt"], "/");
    assert_eq!(summary["system"]["packages"], 1);
    assert_eq!(inspect(&["--cat", "/lib/os-release"]).1, "PRETTY_NAME=\"Test GNU/Linux 1\"\n");
    let (_, out, _) = inspect(&["--ls", "/usr/bin"]);
    assert!(out.contains("-rwsr-xr-x") && out.contains("/usr/bin/zz = /usr/bin/su"), "{out}");
    assert_eq!(inspect(&["--cat", "/none"]).0, Some(1));
    assert_eq!(inspect(&["--cat", "/usr"]).0, Some(1));
    assert_eq!(inspect(&["--definition"]).0, Some(1));
    let diff = |other: &Path| run(&["diff".as_ref(), "image".as_ref(), one.as_os_str(), other.as_os_str()]);
    assert_eq!(diff(&one), (Some(0), "identical\n".into(), String::new()));
    let (code, out, error) = diff(&two);
    assert_eq!(code, Some(8));
    assert!(out.contains("~ /srv/007: size 3600 -> 1") || out.contains("~ /srv/007: size"), "{out}");
    assert!(error.contains("/srv/007"), "{error}");
    let text = scratch.path().join("text");
    fs::write(&text, "no image").unwrap();
    let (code, _, error) = run(&["inspect".as_ref(), text.as_os_str()]);
    assert!(code == Some(1) && error.contains("neither a partition table"), "{error}");
}

#[test]
fn vfat_is_what_the_layout_calls_it() {
    let efi =
        layout().partitions.into_iter().filter_map(|one| one.mounted).find(|one| one.kind == FilesystemType::Vfat);
    assert_eq!(efi.unwrap().at, path("boot/efi"));
}
