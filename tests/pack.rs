//! From a Tree to a disk, judged by independent readers: e2fsck, debugfs, fsck.fat, mtools, sgdisk, qemu-img.
//!
//! The target root is made of this machine's mke2fs and its libraries. Needs root (the sandbox) and says so where it
//! is missing; a reader that is not installed is skipped with a message.

use std::path::Path;
use std::process::{Command, Output as Ran};

use imagebuilder::api::image_configuration::QcowCompression;
use imagebuilder::api::params::Params;
use imagebuilder::api::params::storage::{Filesystem, FilesystemType, Fstab, Partition};
use imagebuilder::api::scalar::Size;
use imagebuilder::boot::{Identity, Layout};
use imagebuilder::build::pack::{self, Format, Output, Request};
use imagebuilder::report::Reporter;
use imagebuilder::sandbox::Namespaces;
use imagebuilder::tree::{Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

const EPOCH: i64 = 1_700_000_000;
const MIB: u64 = 1 << 20;

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// Runs a reader; `None` (and a message) where it is not installed.
fn reader(program: &str, arguments: &[&str]) -> Option<Ran> {
    match Command::new(program).args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output() {
        Ok(ran) => Some(ran),
        Err(_) => {
            eprintln!("skipped: {program} is not installed");
            None
        }
    }
}

fn assert_clean(program: &str, arguments: &[&str]) {
    if let Some(ran) = reader(program, arguments) {
        let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{program} {arguments:?}: {text}");
    }
}

fn text(ran: &Ran) -> String {
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// This machine's mke2fs with its libraries as a Tree, and the files that the test looks for.
fn target() -> Option<Tree> {
    let libraries = reader("ldd", &["/usr/sbin/mke2fs"]).filter(|ran| ran.status.success())?;
    let origin: Origin = "test".into();
    let mut tree = Tree::new();
    for name in ["bin", "sbin", "lib", "lib64"] {
        tree.write_symlink(&path(name), format!("usr/{name}"), Mtime::default(), &origin).unwrap();
    }
    for folder in ["boot/efi", "mnt", "media", "usr/bin", "usr/lib64", "usr/lib"] {
        tree.make_directories(&path(folder), Mtime { seconds: 5, nanoseconds: 0 }, &origin).unwrap();
    }
    let output = text(&libraries);
    let files = output.split_whitespace().filter(|word| word.starts_with('/')).chain(["/usr/sbin/mke2fs"]);
    for file in files {
        tree.write_file(&path(file), std::fs::read(file).unwrap(), Meta::root(0o755), &origin).unwrap();
    }
    let mtime = Mtime { seconds: 1_234_567_890, nanoseconds: 0 };
    let mut meta = Meta { mtime, uid: 1234, gid: 567, ..Meta::root(0o4711) };
    meta.xattrs.insert(b"user.note".to_vec(), b"kept".to_vec());
    tree.write_file(&path("usr/bin/special"), "content", meta.clone(), &origin).unwrap();
    let kind = Kind::HardLink(path("usr/bin/special"));
    tree.insert_raw(path("usr/bin/twin"), Entry { meta, kind, origin: origin.clone() });
    for file in [
        "boot/vmlinuz-1",
        "boot/efi/EFI/BOOT/BOOTX64.EFI",
        "usr/lib/shim/shimx64.efi.signed",
        "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    ] {
        tree.write_file(&path(file), file, Meta::root(0o644), &origin).unwrap();
    }
    Some(tree)
}

fn params() -> Params {
    let partition = |mount: &str, start: u64, end: u64, flag: Option<&str>, kind| Partition {
        mount: mount.into(),
        part_start: format!("{start}MiB"),
        part_end: format!("{end}MiB"),
        flags: flag.into_iter().map(str::to_owned).collect(),
        mount_order: None,
        filesystem: Some(Filesystem { kind, fstab: Fstab::default() }),
    };
    let mut params = Params::default();
    params.distribution.name = "debian".into();
    params.storage.qcow_capacity = Size(300 * MIB);
    params.storage.partitions = vec![
        partition("/", 100, 299, None, FilesystemType::Ext4),
        partition("/boot/efi", 1, 41, Some("esp"), FilesystemType::Vfat),
        partition("/boot", 41, 100, None, FilesystemType::Ext4),
    ];
    params
}

fn layout(params: &Params) -> Layout {
    Layout::new(&params.storage, &Identity { site: "test".into(), image: "pack".into() }).unwrap()
}

fn pack(tree: &Tree, folder: &Path) {
    let params = params();
    let scratch = folder.join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let request = Request {
        tree,
        params: &params,
        layout: &layout(&params),
        epoch: EPOCH,
        sandbox: &Namespaces::new(),
        scratch: &scratch,
        reporter: &Reporter::quiet(),
    };
    let output = |format, name: &str| Output { format, path: folder.join(name) };
    let outputs = [
        output(Format::Raw, "disk.raw"),
        output(Format::Qcow2(Some(QcowCompression::Zstd)), "disk.qcow2"),
        output(Format::Qcow2(None), "plain.qcow2"),
    ];
    pack::pack(&request, &outputs).unwrap();
}

/// Cuts a partition out of the raw image.
fn cut(folder: &Path, number: usize) -> String {
    let partition = &layout(&params()).partitions[number - 1];
    let disk = std::fs::read(folder.join("disk.raw")).unwrap();
    let file = folder.join(format!("partition-{number}"));
    std::fs::write(&file, &disk[partition.start as usize..partition.end() as usize]).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_disk_that_independent_readers_accept() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let Some(tree) = target() else { return eprintln!("skipped: no mke2fs on this machine") };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    pack(&tree, folder);
    let name = |name: &str| folder.join(name).to_str().unwrap().to_owned();

    assert_clean("sgdisk", &["-v", &name("disk.raw")]);
    for image in ["disk.qcow2", "plain.qcow2"] {
        assert_clean("qemu-img", &["check", &name(image)]);
        assert_clean("qemu-img", &["compare", &name(image), &name("disk.raw")]);
    }
    let (root, esp, boot) = (cut(folder, 1), cut(folder, 2), cut(folder, 3));
    assert_clean("e2fsck", &["-fn", &root]);
    assert_clean("e2fsck", &["-fn", &boot]);
    assert_clean("fsck.fat", &["-n", &esp]);
    check_root(&root);
    if let Some(ran) = reader("debugfs", &["-R", "ls -l /", &boot]) {
        let listing = text(&ran);
        assert!(listing.contains("vmlinuz-1") && listing.contains("efi"), "{listing}");
    }
    if let Some(ran) = reader("mtype", &["-i", &esp, "::/EFI/BOOT/BOOTX64.EFI"]) {
        assert_eq!(text(&ran), "boot/efi/EFI/BOOT/BOOTX64.EFI");
    }
}

fn check_root(image: &str) {
    let mounted = layout(&params()).root().unwrap().uuid.to_string();
    if let Some(ran) = reader("dumpe2fs", &["-h", image]) {
        let header = text(&ran);
        assert!(header.contains(&mounted), "{header}");
        for newer in ["metadata_csum_seed", "orphan_file"] {
            assert!(!header.contains(newer), "old GRUBs do not read {newer}");
        }
    }
    let Some(ran) = reader("debugfs", &["-R", "stat /usr/bin/special", image]) else { return };
    let stat = text(&ran);
    for part in ["Mode:  04711", "User:  1234", "Group:   567", "Links: 2", "user.note (4) = \"kept\""] {
        assert!(stat.contains(part), "no `{part}` in {stat}");
    }
    // 1234567890 in hexadecimal digits: all three times, whenever the test runs
    assert_eq!(stat.matches("0x499602d2").count(), 3, "{stat}");
    // What lies on other partitions is not here, nor what the sandbox needed.
    let listing = reader("debugfs", &["-R", "ls -l /boot", image]).map(|ran| text(&ran)).unwrap_or_default();
    assert!(!listing.contains("vmlinuz"), "{listing}");
    let top = reader("debugfs", &["-R", "ls -l /", image]).map(|ran| text(&ran)).unwrap_or_default();
    assert!(!top.contains("proc") && !top.contains(" dev"), "{top}");
}

#[test]
fn twice_the_same_bytes() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let Some(tree) = target() else { return eprintln!("skipped: no mke2fs on this machine") };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    pack(&tree, one.path());
    pack(&tree, two.path());
    for name in ["disk.raw", "disk.qcow2", "plain.qcow2"] {
        let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join(name)).unwrap();
        assert!(read(&one) == read(&two), "{name} differs");
    }
}

#[test]
fn too_small_is_said_before_anything_is_written() {
    let origin: Origin = "test".into();
    let mut tree = Tree::new();
    tree.make_directories(&path("boot/efi"), Mtime::default(), &origin).unwrap();
    tree.write_file(&path("big"), vec![1; 250 << 20], Meta::root(0o644), &origin).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let params = params();
    let request = Request {
        tree: &tree,
        params: &params,
        layout: &layout(&params),
        epoch: EPOCH,
        sandbox: &Namespaces::new(),
        scratch: folder.path(),
        reporter: &Reporter::quiet(),
    };
    let error = pack::disk(&request).unwrap_err();
    assert_eq!(error.kind().exit_code(), 6);
    assert!(error.to_string().contains("partition 1 (/) needs "), "{error}");
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
}
