//! `verify` on images that are sound and on images that are not, through the real program.
//!
//! The images are small disks of our own writers. Without tools everything runs everywhere; the test with independent
//! readers needs a mirror and is for `cargo test -- --ignored` (`IMAGEBUILDER_CACHE_DIR` saves its downloads).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use imagebuilder::api::params::storage::{Filesystem, FilesystemType, Fstab, Partition, Storage};
use imagebuilder::api::scalar::Size;
use imagebuilder::boot::{Identity, Layout};
use imagebuilder::build::evidence::{Checksums, ImageRecord, output_metadata};
use imagebuilder::build::pack::{file_system, split};
use imagebuilder::format::disk::DiskImage;
use imagebuilder::format::disk::sums::Digests;
use imagebuilder::format::{gpt, qcow2, raw, tar};
use imagebuilder::report::Reporter;
use imagebuilder::tree::{Meta, Origin, Tree, TreePath};
use serde_json::Value;

/// A disk as builds make them, without boot loader: GPT, ext4, FAT.
fn disk() -> (DiskImage, Layout) {
    let origin: Origin = "test".into();
    let mut tree = Tree::new();
    for (path, size) in
        [("etc/hostname", 7), ("usr/bin/tool", 3_000_000), ("boot/vmlinuz", 99_999), ("boot/efi/EFI/x", 9)]
    {
        tree.write_file(&TreePath::new(path).unwrap(), vec![7; size], Meta::root(0o644), &origin).unwrap();
    }
    let partition = |mount: &str, start: &str, end: &str, kind| Partition {
        mount: mount.into(),
        part_start: Some(start.into()),
        part_end: Some(end.into()),
        size: None,
        headroom: None,
        flags: Vec::new(),
        mount_order: None,
        filesystem: Some(Filesystem { kind, fstab: Fstab::default() }),
    };
    let partitions = vec![
        partition("/", "34MiB", "100%", FilesystemType::Ext4),
        partition("/boot", "1MiB", "18MiB", FilesystemType::Ext4),
        partition("/boot/efi", "18MiB", "34MiB", FilesystemType::Vfat),
    ];
    let storage = Storage { qcow_capacity: Size(64 << 20).into(), partitions, ..Storage::default() };
    let layout = Layout::new(&storage, &Identity { site: "s".into(), image: "i".into() }).unwrap();
    let parts = split::split(&tree, &layout).unwrap();
    let mut disk = DiskImage::empty(layout.disk_size);
    for (part, image) in parts.iter().zip(file_system::make_all(&parts, 0, &|_| None, &Reporter::quiet()).unwrap()) {
        disk.place(part.partition.start, image).unwrap();
    }
    let partition = |partition: &imagebuilder::boot::layout::Partition| gpt::Partition {
        type_guid: partition.type_guid,
        guid: partition.guid,
        first_lba: partition.start / gpt::SECTOR,
        last_lba: partition.end() / gpt::SECTOR - 1,
        attributes: partition.attributes,
        name: partition.name.clone(),
    };
    let table = gpt::Table {
        disk_size: layout.disk_size,
        disk_guid: layout.disk_guid,
        partitions: layout.partitions.iter().map(partition).collect(),
        boot_code: Vec::new(),
    };
    let tables = table.layout().unwrap();
    disk.write(0, tables.primary).unwrap();
    disk.write(tables.backup_offset, tables.backup).unwrap();
    (disk, layout)
}

fn publish(folder: &Path, format: &str) -> PathBuf {
    let (disk, layout) = disk();
    let name = format!("node.{format}");
    let path = folder.join(&name);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    match format {
        "qcow2" => {
            let options = qcow2::Options { compression: qcow2::Compression::Zstd, threads: None };
            qcow2::write(&disk, &file, &options, &|_| {}).unwrap();
        }
        _ => raw::write(&disk, &file, &|_| {}).unwrap(),
    }
    describe(&path, format, layout.disk_size);
    path
}

/// The files beside an image.
fn describe(path: &Path, format: &str, virtual_size: impl Into<Option<u64>>) {
    let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap().to_string_lossy().into_owned());
    let checksums = Checksums::of(path, Digests::BOTH).unwrap();
    std::fs::write(folder.join(format!("{name}.sha256")), format!("{}\n", checksums.sha256.clone().unwrap())).unwrap();
    std::fs::write(folder.join(format!("{name}.md5sum")), format!("{}\n", checksums.md5.clone().unwrap())).unwrap();
    let record = ImageRecord { file_name: name, format: format.into(), virtual_size: virtual_size.into(), checksums };
    std::fs::write(folder.join("node.output-metadata.yaml"), output_metadata(folder, &[record])).unwrap();
}

/// Exit code, and what failed: check and part.
fn verify(image: &Path, arguments: &[&str]) -> (i32, Vec<String>, Vec<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
    command.arg("verify").arg(image).args(arguments).args(["-o", "json", "--progress", "quiet"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows: Vec<Value> =
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let failed = rows.iter().filter(|row| row["verdict"] == "failed").map(|row| {
        let part = row["part"].as_str().unwrap_or_default();
        format!("{} {part}", row["check"].as_str().unwrap()).trim().to_owned()
    });
    (output.status.code().unwrap(), failed.collect(), rows.clone())
}

/// Changes bytes of a partition and lets the files beside the image say so.
fn damage(image: &Path, offset: u64, bytes: &[u8]) {
    File::options().write(true).open(image).unwrap().write_all_at(bytes, offset).unwrap();
    describe(image, "raw", image.metadata().unwrap().len());
}

fn start_of(number: u32) -> u64 {
    let (_, layout) = disk();
    layout.partitions.iter().find(|partition| partition.number == number).unwrap().start
}

#[test]
fn an_archive_is_read_to_its_end_and_knows_its_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.tar.zst");
    let mut tree = Tree::new();
    let (usr, origin) = (TreePath::new("usr/file").unwrap(), Origin::from("test"));
    let noise: Vec<u8> =
        (0..100_000u32).map(|at| (at.wrapping_mul(at).wrapping_mul(0x9E37_79B9) >> 23) as u8).collect();
    tree.write_file(&usr, noise, Meta::root(0o644), &origin).unwrap();
    let options = tar::Options { compression: tar::Compression::Zstd, threads: None };
    tar::write(&tree, &File::create(&path).unwrap(), &options, &|_| ()).unwrap();
    describe(&path, "tar", None);
    let (code, failed, rows) = verify(&path, &["--no-tools"]);
    assert_eq!((code, failed), (0, vec![]));
    let detail = |check: &str| rows.iter().find(|row| row["check"] == check).unwrap()["detail"].clone();
    assert_eq!((detail("container"), detail("output-metadata")), ("tar, 3 entries".into(), "1 images".into()));
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(path.metadata().unwrap().len() - 3).unwrap();
    describe(&path, "tar", None);
    assert_eq!(verify(&path, &["--no-tools"]).1, ["container"]);
}

#[test]
fn a_sound_image_is_ok_and_a_changed_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let image = publish(folder.path(), "raw");
    let (code, failed, rows) = verify(&image, &["--no-tools"]);
    assert_eq!((code, failed), (0, vec![]));
    let checks: Vec<&str> = rows.iter().map(|row| row["check"].as_str().unwrap()).collect();
    assert!(checks.contains(&"partition-table") && checks.contains(&"file-system"), "{checks:?}");
    // Without telling the files beside it.
    let file = File::options().write(true).open(&image).unwrap();
    file.write_all_at(b"x", 1 << 20).unwrap();
    assert_eq!(verify(&image, &["--no-tools"]).1, ["sha256", "md5sum", "output-metadata"]);
    damage(&image, 1024 + 56, b"\0");
    let (code, failed, _) = verify(&image, &["--no-tools"]);
    assert_eq!((code, failed), (8, vec!["partition-table".to_owned()]));
    publish(folder.path(), "raw");
    // More blocks than the partition has.
    damage(&image, start_of(1) + 1024 + 4, &[0xFF, 0xFF, 0xFF, 0x0F]);
    assert_eq!(verify(&image, &["--no-tools"]).1, ["file-system partition 1"]);
}

#[test]
fn a_qcow2_that_needs_another_file_is_not_ok() {
    let folder = tempfile::tempdir().unwrap();
    let image = publish(folder.path(), "qcow2");
    assert_eq!(verify(&image, &["--no-tools"]).0, 0);
    let file = File::options().write(true).open(&image).unwrap();
    file.write_all_at(&[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 9], 8).unwrap();
    let size = disk().1.disk_size;
    describe(&image, "qcow2", size);
    assert_eq!(verify(&image, &["--no-tools"]).1, ["container"]);
}

#[test]
fn what_is_no_image_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.raw");
    let run = || {
        let output =
            Command::new(env!("CARGO_BIN_EXE_imagebuilder")).arg("verify").arg(&path).arg("--no-tools").output();
        output.unwrap().status.code()
    };
    assert_eq!(run(), Some(1), "it is not there");
    std::fs::write(&path, "short").unwrap();
    assert_eq!(run(), Some(2));
}

#[test]
#[ignore = "gets Debian packages from a mirror"]
fn independent_readers_agree() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["qcow2", "raw"] {
        let (code, failed, rows) = verify(&publish(folder.path(), format), &[]);
        assert_eq!((code, failed), (0, vec![]), "{format}: {rows:?}");
        for check in ["qemu-img", "sgdisk", "e2fsck", "fsck.fat"] {
            let row = rows.iter().find(|row| row["check"] == check).unwrap();
            assert_eq!(row["verdict"], "ok", "{format}: {row}");
        }
    }
    let image = folder.path().join("node.raw");
    // A field of the superblock that its checksum covers; a free cluster that no file has; a header of the table.
    for (offset, bytes, expected) in [
        (start_of(1) + 1024 + 0x34, &[1u8, 2, 3, 4][..], "e2fsck partition 1"),
        (start_of(3) + 512 * 40, &[0xFFu8; 64][..], "fsck.fat partition 3"),
        (1024 + 56, &[0u8][..], "sgdisk"),
    ] {
        publish(folder.path(), "raw");
        damage(&image, offset, bytes);
        let (code, failed, rows) = verify(&image, &[]);
        assert_eq!(code, 8, "{rows:?}");
        assert!(failed.iter().any(|failed| failed == expected), "{expected}: {failed:?} {rows:?}");
    }
}
