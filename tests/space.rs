//! Disks that run full, at more than twenty points of a build: the error is one about space (exit code 6), nothing half
//! written can be taken for something whole, and with more room the same work succeeds.
//!
//! Each point is a small tmpfs, mounted in a mount namespace of this test ([`inside`] is the test program once more, under
//! `unshare`). Where namespaces cannot be made, it says that it is skipped. `IMAGEBUILDER_SPACE=<cache with downloads>
//! cargo test --test space -- --ignored --nocapture real` does it to whole builds.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use imagebuilder::build::pack::{Format, Output, Source};
use imagebuilder::build::publish::{FileSet, Staging};
use imagebuilder::error::{Kind, Result};
use imagebuilder::format::disk::sums::Digests;
use imagebuilder::format::{ext4, qcow2, tar};
use imagebuilder::package::binary::Binary;
use imagebuilder::package::database::Database;
use imagebuilder::package::root::Root;
use imagebuilder::package::stage::Stage;
use imagebuilder::package::unpack::{Conffiles, Unpacker};
use imagebuilder::report::Reporter;
use imagebuilder::tree::host::Folder;
use imagebuilder::tree::records::Record;
use imagebuilder::tree::store::Store;
use imagebuilder::tree::{Digest, Meta, Mtime, Tree, TreePath};
use rustix::mount::{MountFlags, UnmountFlags};

const INSIDE: &str = "IMAGEBUILDER_TEST_SPACE";
const KIB: u64 = 1 << 10;

/// A tmpfs of a size, for as long as it lives.
struct Disk(PathBuf);

impl Disk {
    fn new(folder: &Path, size: u64) -> Disk {
        let at = folder.join("disk");
        std::fs::create_dir_all(&at).unwrap();
        let options = std::ffi::CString::new(format!("mode=755,size={size}")).unwrap();
        rustix::mount::mount("tmpfs", &at, "tmpfs", MountFlags::empty(), &*options).unwrap();
        Disk(at)
    }

    fn grow(&self) {
        rustix::mount::mount_remount(&self.0, MountFlags::empty(), "size=64m").unwrap();
    }

    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec![self.0.clone()];
        while let Some(folder) = todo.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    todo.push(path);
                } else {
                    found.push(path.strip_prefix(&self.0).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let digests = (0..).map(|number: u64| Digest::of(&[seed.to_le_bytes(), number.to_le_bytes()].concat()));
    digests.flat_map(|digest| *digest.as_bytes()).take(length).collect()
}

/// Ten files, about 600 KiB.
fn tree() -> Tree {
    let mut tree = Tree::new();
    for number in 0..10u64 {
        let path = TreePath::new(format!("folder/{number}")).unwrap();
        tree.write_file(&path, noise(number, 60 << 10), Meta::root(0o644), &"test".into()).unwrap();
    }
    tree
}

/// Fails for want of space on every disk of these sizes, leaves only what `harmless` knows, and works when it grows.
fn points(name: &str, sizes: &[u64], work: &dyn Fn(&Path) -> Result<()>, harmless: &dyn Fn(&str) -> bool) -> usize {
    for size in sizes {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path(), *size);
        let error = work(&disk.0).expect_err(&format!("{name} on {size} bytes"));
        assert_eq!(error.kind(), Kind::Space, "{name} on {size} bytes: {error}");
        let left: Vec<String> = disk.files().into_iter().filter(|file| !harmless(file)).collect();
        assert!(left.is_empty(), "{name} on {size} bytes leaves {left:?}");
        disk.grow();
        work(&disk.0).unwrap_or_else(|error| panic!("{name} with more room: {error}"));
    }
    sizes.len()
}

fn store(disk: &Path) -> Result<()> {
    let store = Store::open(disk)?;
    let key = Digest::of(b"step");
    assert!(store.load(key)?.is_none(), "a step that was never finished is there");
    assert!(store.record(key).is_none(), "what was kept with it is there");
    let writer = store.writer(key)?;
    let content = writer.add(b"kept")?;
    writer.keep(key, Record { bytes: noise(99, 60 << 10), contents: vec![content] });
    let saved = writer.save(&tree())?;
    assert_eq!(store.load(key)?.unwrap().digest(), saved.digest());
    assert_eq!(store.record(key).unwrap().contents[0].bytes()?, b"kept");
    Ok(())
}

fn show(disk: &Path) -> Result<()> {
    let place = disk.join("root");
    let _ = std::fs::remove_dir_all(&place);
    let shown = Folder::create(&place).and_then(|mut folder| folder.show(&tree()));
    if shown.is_err() {
        // A work area goes as a whole.
        std::fs::remove_dir_all(&place).unwrap();
    }
    shown
}

fn package(folder: &Path) -> PathBuf {
    let archive = |files: &[(&str, Vec<u8>)]| {
        let mut tar = ::tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let control = "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b>\nDescription: x\n";
    let names: Vec<String> = (0..10).map(|number| format!("./{number}")).collect();
    let data: Vec<(&str, Vec<u8>)> =
        names.iter().enumerate().map(|(seed, name)| (name.as_str(), noise(seed as u64, 60 << 10))).collect();
    let mut deb = b"!<arch>\n".to_vec();
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", archive(&[("./control", control.into())])),
        ("data.tar", archive(&data)),
    ];
    for (name, bytes) in members {
        deb.extend_from_slice(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, bytes.len()).as_bytes(),
        );
        deb.extend_from_slice(&bytes);
    }
    let path = folder.join("a.deb");
    std::fs::write(&path, deb).unwrap();
    path
}

/// `memory` bytes are kept in memory instead: then the target runs full, not the folder where files are prepared.
fn unpack(disk: &Path, deb: &Path, memory: u64) -> Result<()> {
    let place = disk.join("root");
    for folder in ["info", "updates", "triggers"] {
        std::fs::create_dir_all(place.join("var/lib/dpkg").join(folder)).unwrap();
    }
    let unpacked = || -> Result<()> {
        let stage = Stage::new(&disk.join("stage"), memory)?;
        let binary = Binary::open(deb)?;
        let staged = stage.prepare(&binary, None)?;
        let root = Root::open(&place)?;
        let mut database = Database::load(&root)?;
        Unpacker::new(&root, &mut database, Conffiles::Beside)?.unpack(&binary, staged)?;
        database.save(&root)
    };
    let result = unpacked();
    if result.is_err() {
        std::fs::remove_dir_all(&place).unwrap();
    }
    result
}

fn image(disk: &Path, format: Format) -> Result<()> {
    let tree = tree();
    let options = ext4::Options {
        size: 8 << 20,
        uuid: uuid::Uuid::from_u128(1),
        hash_seed: uuid::Uuid::from_u128(2),
        label: String::new(),
        time: Mtime::default(),
        bytes_per_inode: 16384,
        inodes: None,
        reserved_percent: 5,
        features: ext4::Features { metadata_csum_seed: false, ea_inode: false },
    };
    let disk_image = ext4::make(&tree, &options)?;
    let staging = Staging::open(disk, "node")?;
    let path = staging.path("node.img");
    let source = Source {
        tree: &tree,
        disk: Some((&disk_image, uuid::Uuid::from_u128(3))),
        epoch: 0,
        clusters: None,
        digests: Digests::BOTH,
    };
    Output { format, path }.write(&source, &Reporter::quiet()).map(drop)?;
    staging.publish(&FileSet { images: vec!["node.img".into()], side_files: Vec::new() }).map(drop)
}

/// An older set is there; it stays until the new one is whole.
fn publish(disk: &Path) -> Result<()> {
    let old = disk.join("node.img");
    if !old.exists() {
        std::fs::write(&old, "old").unwrap();
    }
    let new = || -> Result<()> {
        let staging = Staging::open(disk, "node")?;
        staging.write("node.img", &noise(1, 100 << 10))?;
        staging.write("node.img.sha256", &noise(2, 100 << 10))?;
        let set = FileSet { images: vec!["node.img".into()], side_files: vec!["node.img.sha256".into()] };
        staging.publish(&set).map(drop)
    };
    let result = new();
    let size = if result.is_ok() { 100 << 10 } else { 3 };
    assert_eq!(old.metadata().unwrap().size(), size);
    result
}

#[test]
#[ignore = "run by `a_full_disk_is_an_error_about_space`"]
fn inside() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let deb = package(folder.path());
    let lock = |file: &str| file == "in-use" || file.ends_with(".lock") || file.ends_with("/.gate");
    let nothing = |_: &str| false;
    let mut count = points("the store", &[64 * KIB, 200 * KIB, 400 * KIB, 560 * KIB, 640 * KIB], &store, &lock);
    count += points("a tree on the host", &[40 * KIB, 150 * KIB, 300 * KIB, 500 * KIB], &show, &nothing);
    count += points("preparing", &[40 * KIB, 200 * KIB, 450 * KIB], &|disk| unpack(disk, &deb, 0), &nothing);
    count += points("unpacking", &[40 * KIB, 200 * KIB, 450 * KIB], &|disk| unpack(disk, &deb, 1 << 30), &nothing);
    for format in [
        Format::Raw,
        Format::Qcow2(qcow2::Compression::Zstd),
        Format::Qcow2(qcow2::Compression::None),
        Format::Vmdk,
        Format::Tar(tar::Compression::Zstd),
    ] {
        count += points("an image", &[40 * KIB, 300 * KIB], &|disk| image(disk, format), &nothing);
    }
    count += points("publishing", &[40 * KIB, 150 * KIB], &publish, &|file| file == "node.img");
    println!("{count} points");
    assert!(count >= 20);
}

/// This test program again, where it may mount.
fn unshared(test: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg(std::env::current_exe().unwrap()).args(["--exact", "--ignored", "--nocapture", test]);
    command.env(INSIDE, "1");
    command
}

#[test]
fn a_full_disk_is_an_error_about_space() {
    let mut able = Command::new("unshare");
    able.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        able.args(["--user", "--map-root-user"]);
    }
    able.args(["mount", "-t", "tmpfs", "x", "/tmp"]);
    if !able.output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: `unshare` and `mount` do not work here");
    }
    let output = unshared("inside").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(" points"), "{said}");
}

/// The whole program on the package set of the example image: the cache runs full, then the output folder.
#[test]
#[ignore = "builds real images: needs IMAGEBUILDER_SPACE and minutes"]
fn real() {
    let Some(cache) = std::env::var_os("IMAGEBUILDER_SPACE").map(PathBuf::from) else {
        return eprintln!("skipped: IMAGEBUILDER_SPACE is not set");
    };
    if std::env::var_os(INSIDE).is_none() {
        let status = unshared("real").status().unwrap();
        assert!(status.success());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let build = |size: u64, output: &Path, cache_is_full: bool| {
        let disk = Disk::new(folder.path(), size);
        let at = match cache_is_full {
            true => {
                for part in ["debs", "indexes"] {
                    std::os::unix::fs::symlink(cache.join(part), disk.0.join(part)).unwrap();
                }
                disk.0.clone()
            }
            false => cache.clone(),
        };
        let output = if cache_is_full { output.to_path_buf() } else { disk.0.join("out") };
        let ran = Command::new(env!("CARGO_BIN_EXE_imagebuilder"))
            .args(["build", "--config", "config", "--bundle", "data-plane", "--progress", "quiet", "--cache-dir"])
            .arg(at)
            .arg("--output-dir")
            .arg(&output)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(6), "{size} bytes: {said}");
        assert!(said.contains(" bytes required, ") && said.contains(" bytes available"), "{size} bytes: {said}");
        let left: Vec<_> = std::fs::read_dir(&output).map(|entries| entries.flatten().collect()).unwrap_or_default();
        assert!(left.is_empty(), "{left:?}");
        eprintln!("{size} bytes: {}", said.lines().next().unwrap_or_default());
        drop(disk);
    };
    let output = folder.path().join("out");
    for size in [1u64 << 20, 60 << 20, 150 << 20, 300 << 20, 700 << 20] {
        build(size, &output, true);
    }
    for size in [1u64 << 20, 100 << 20, 300 << 20] {
        build(size, &output, false);
    }
}
