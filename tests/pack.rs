//! From a Tree to a disk, judged by independent readers: e2fsck, debugfs, fsck.fat, mtools, sgdisk, qemu-img.
//!
//! With a signed boot chain and without BIOS boot nothing of the target runs, so this works for everybody; a reader that
//! is not installed is skipped with a message.

#[path = "support/disk.rs"]
mod disk;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output as Ran};

use disk::{MIB, params};
use imagebuilder::api::params::Params;
use imagebuilder::api::scalar::{AutoSize, Headroom, Size};
use imagebuilder::boot::{Identity, Layout};
use imagebuilder::build::pack::{self, Format, Output, Request, file_system, iso::Live, sizing, split};
use imagebuilder::format::disk::sums::Digests;
use imagebuilder::format::{qcow2, squashfs, tar, vhd};
use imagebuilder::report::Reporter;
use imagebuilder::sandbox::Namespaces;
use imagebuilder::seed;
use imagebuilder::tree::{Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

/// Disk images beside the raw one, and what qemu-img calls them.
const DISKS: [(&str, &str); 5] = [
    ("disk.qcow2", "qcow2"),
    ("plain.qcow2", "qcow2"),
    ("disk.vmdk", "vmdk"),
    ("disk.vhd", "vpc"),
    ("fixed.vhd", "vpc"),
];
const EPOCH: i64 = 1_700_000_000;
/// cap_net_raw=ep, version 2 (linux/capability.h).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

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

/// The files that the test looks for.
fn target() -> Tree {
    let origin: Origin = "test".into();
    let mut tree = Tree::new();
    for name in ["bin", "sbin", "lib", "lib64"] {
        tree.write_symlink(&path(name), format!("usr/{name}"), Mtime::default(), &origin).unwrap();
    }
    for folder in ["boot/efi", "mnt", "media", "usr/bin", "usr/lib64", "usr/lib"] {
        tree.make_directories(&path(folder), Mtime { seconds: 5, nanoseconds: 0 }, &origin).unwrap();
    }
    let device =
        Entry { meta: Meta::root(0o666), kind: Kind::CharDevice { major: 5, minor: 1 }, origin: origin.clone() };
    tree.insert_raw(path("usr/lib/console"), device);
    let mtime = Mtime { seconds: 1_234_567_890, nanoseconds: 0 };
    let mut meta = Meta { mtime, uid: 1234, gid: 567, ..Meta::root(0o4711) };
    meta.xattrs.insert(b"user.note".to_vec(), b"kept".to_vec());
    meta.xattrs.insert(b"security.capability".to_vec(), CAPABILITY.to_vec());
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
    tree
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
        live_tree: None,
        params: &params,
        layout: &layout(&params),
        places: &|_| None,
        epoch: EPOCH,
        sandbox: &Namespaces::new(),
        scratch: &scratch,
        live: None,
        clusters: None,
        digests: Digests::BOTH,
        reporter: &Reporter::quiet(),
    };
    let output = |format, name: &str| Output { format, path: folder.join(name) };
    let outputs = [
        output(Format::Raw, "disk.raw"),
        output(Format::Qcow2(qcow2::Compression::Zstd), "disk.qcow2"),
        output(Format::Qcow2(qcow2::Compression::None), "plain.qcow2"),
        output(Format::Vmdk, "disk.vmdk"),
        output(Format::Vhd(vhd::Subformat::Dynamic), "disk.vhd"),
        output(Format::Vhd(vhd::Subformat::Fixed), "fixed.vhd"),
        output(Format::Tar(tar::Compression::None), "root.tar"),
        output(Format::Tar(tar::Compression::Gzip), "root.tar.gz"),
        output(Format::Tar(tar::Compression::Zstd), "root.tar.zst"),
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
    let tree = target();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    pack(&tree, folder);
    let name = |name: &str| folder.join(name).to_str().unwrap().to_owned();

    assert_clean("sgdisk", &["-v", &name("disk.raw")]);
    for (image, format) in DISKS {
        // qemu-img has no check for VHD.
        if format != "vpc" {
            assert_clean("qemu-img", &["check", "-f", format, &name(image)]);
        }
        assert_clean("qemu-img", &["compare", "-f", format, "-F", "raw", &name(image), &name("disk.raw")]);
    }
    for (archive, decompressor) in [("root.tar", "tar"), ("root.tar.gz", "gzip"), ("root.tar.zst", "zstd")] {
        // tar leaves decompressing to a program that not every machine has.
        let ran = reader(decompressor, &["--version"]).and_then(|_| reader("tar", &["-tf", &name(archive)]));
        if let Some(ran) = ran {
            assert!(ran.status.success(), "{archive}: {}", String::from_utf8_lossy(&ran.stderr));
            let listing = text(&ran);
            assert!(listing.starts_with("./\n./bin\n./boot/\n"), "{listing}");
            assert_eq!(listing.lines().count(), tree.len());
        }
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
        assert!(header.contains("Remount read-only"), "{header}");
        for newer in ["metadata_csum_seed", "orphan_file"] {
            assert!(!header.contains(newer), "old GRUBs do not read {newer}");
        }
    }
    let Some(ran) = reader("debugfs", &["-R", "stat /usr/bin/special", image]) else { return };
    let stat = text(&ran);
    for part in [
        "Mode:  04711",
        "User:  1234",
        "Group:   567",
        "Links: 2",
        "user.note (4) = \"kept\"",
        "security.capability (20)",
    ] {
        assert!(stat.contains(part), "no `{part}` in {stat}");
    }
    // 1234567890 in hexadecimal digits: all four times, whenever the test runs
    assert_eq!(stat.matches("0x499602d2").count(), 4, "{stat}");
    let ask = |request: &str| reader("debugfs", &["-R", request, image]).map(|ran| text(&ran)).unwrap_or_default();
    assert!(ask("ea_get /usr/bin/twin security.capability").contains("01 00 00 02 00 20 00 00"));
    let device = ask("stat /usr/lib/console");
    assert!(device.contains("character special") && device.contains("05:01"), "{device}");
    // What lies on other partitions is not here.
    let listing = reader("debugfs", &["-R", "ls -l /boot", image]).map(|ran| text(&ran)).unwrap_or_default();
    assert!(!listing.contains("vmlinuz"), "{listing}");
    let top = reader("debugfs", &["-R", "ls -l /", image]).map(|ran| text(&ran)).unwrap_or_default();
    assert!(!top.contains("proc") && !top.contains(" dev"), "{top}");
}

#[test]
fn twice_the_same_bytes() {
    let tree = target();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    pack(&tree, one.path());
    pack(&tree, two.path());
    let archives = ["root.tar", "root.tar.gz", "root.tar.zst"];
    for name in DISKS.map(|(name, _)| name).into_iter().chain(archives).chain(["disk.raw"]) {
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
    tree.write_file(&path("boot/big"), vec![1; 70 << 20], Meta::root(0o644), &origin).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let params = params();
    let request = Request {
        tree: &tree,
        live_tree: None,
        params: &params,
        layout: &layout(&params),
        places: &|pointer| (pointer == "/storage/partitions/2/part_end").then(|| "site.yaml:7:9".to_owned()),
        epoch: EPOCH,
        sandbox: &Namespaces::new(),
        scratch: folder.path(),
        live: None,
        clusters: None,
        digests: Digests::BOTH,
        reporter: &Reporter::quiet(),
    };
    let error = pack::disk(&request).unwrap_err();
    assert_eq!(error.kind().exit_code(), 6);
    let text = error.to_string();
    assert!(text.contains("partition 1 (/): the content needs 28") && text.contains("has 208666624"), "{text}");
    assert!(
        text.contains("partition 3 (/boot): the content needs 7") && text.contains("has 61865984 (site.yaml:7:9)"),
        "{text}"
    );
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
}

/// Every partition by its content, and the disk by its partitions.
#[test]
fn sizes_follow_the_content() {
    let tree = target();
    let mut params = params();
    params.storage.qcow_capacity = AutoSize::Auto;
    params.storage.headroom = Some(Headroom { percent: 10, bytes: 4 * MIB });
    for partition in &mut params.storage.partitions {
        (partition.part_start, partition.part_end, partition.size) = (None, None, Some(AutoSize::Auto));
    }
    params.storage.partitions[2].headroom = Some(Headroom { percent: 0, bytes: 0 });
    let folder = tempfile::tempdir().unwrap();
    let draft = layout(&params);
    let request = Request {
        tree: &tree,
        live_tree: None,
        params: &params,
        layout: &draft,
        places: &|_| None,
        epoch: EPOCH,
        sandbox: &Namespaces::new(),
        scratch: folder.path(),
        live: None,
        clusters: None,
        digests: Digests::BOTH,
        reporter: &Reporter::quiet(),
    };
    let raw = folder.path().join("disk.raw");
    let size = pack::pack(&request, &[Output { format: Format::Raw, path: raw.clone() }]).unwrap().disk_size.unwrap();
    assert_eq!(std::fs::metadata(&raw).unwrap().len(), size);
    assert_clean("sgdisk", &["-v", raw.to_str().unwrap()]);

    let parts = split::split(&tree, &draft).unwrap();
    let settled = sizing::settle(&draft, &parts, EPOCH, &Reporter::quiet()).unwrap();
    assert_eq!(settled.disk_size, size);
    let root = &settled.partitions[0];
    assert!(settled.partitions[1..].iter().all(|partition| partition.end() <= root.start), "root lies last, to grow");
    assert_eq!(root.end() + MIB, size);
    let bytes = std::fs::read(&raw).unwrap();
    for (partition, program, arguments) in [(0, "e2fsck", "-fn"), (1, "fsck.fat", "-n"), (2, "e2fsck", "-fn")]
        .map(|(index, program, argument)| (&settled.partitions[index], program, argument))
    {
        let file = folder.path().join(format!("partition-{}", partition.number));
        std::fs::write(&file, &bytes[partition.start as usize..partition.end() as usize]).unwrap();
        assert_clean(program, &[arguments, file.to_str().unwrap()]);
    }
    // Without headroom: what is required, up to whole MiB; and one MiB less is refused with just that number.
    let boot = parts.iter().find(|part| part.partition.number == 3).unwrap();
    let least = file_system::required(boot, EPOCH, 0).unwrap();
    assert_eq!(settled.partitions[2].size, least.next_multiple_of(MIB));
    let mut params = params.clone();
    params.storage.partitions[2].size = Some(AutoSize::Size(Size(least.next_multiple_of(MIB) - MIB)));
    params.storage.partitions[2].headroom = None;
    let small = layout(&params);
    let error = pack::disk(&Request { params: &params, layout: &small, ..request }).unwrap_err();
    assert_eq!(error.kind().exit_code(), 6);
    assert!(error.to_string().contains(&format!("partition 3 (/boot): the content needs {least} bytes")), "{error}");
}

#[test]
fn a_netboot_set_with_all_that_its_script_names() {
    let mut tree = target();
    tree.write_file(&path("boot/initrd.img-1"), "initramfs", Meta::root(0o644), &"test".into()).unwrap();
    let given = |name: &str, text: &str| seed::Input::Bytes(name.into(), text.as_bytes().to_vec());
    let user_data = "#cloud-config\nhostname: node01\n";
    let seed = seed::load(&seed::Request {
        user_data: given("user_data", user_data),
        network_data: given("network_data", "{links: [{id: a, name: a, type: phy}], networks: [], services: []}"),
        identity: seed::Identity { site: "test".into(), hostname: None },
    });
    let live = Live {
        identity: Identity { site: "test".into(), image: "pack".into() },
        seed: seed.unwrap(),
        compression: squashfs::Compression::named("gzip", None).unwrap(),
        threads: Some(2),
        earlier: None,
    };
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let params = params();
    let layout = layout(&params);
    for folder in &folders {
        let request = Request {
            tree: &tree,
            live_tree: None,
            params: &params,
            layout: &layout,
            places: &|_| None,
            epoch: EPOCH,
            sandbox: &Namespaces::new(),
            scratch: folder.path(),
            live: Some(&live),
            clusters: None,
            digests: Digests::BOTH,
            reporter: &Reporter::quiet(),
        };
        let output = Output { format: Format::Netboot, path: folder.path().join("e.ipxe") };
        let packed = pack::pack(&request, std::slice::from_ref(&output)).unwrap();
        assert_eq!((packed.disk_size, packed.sums.len()), (None, 1));
        for name in output.beside() {
            assert!(folder.path().join(&name).is_file(), "{name}");
        }
    }
    let read = |name: &str| std::fs::read(folders[0].path().join(name)).unwrap();
    assert_eq!((read("e.vmlinuz"), read("e.initrd.img")), (b"boot/vmlinuz-1".to_vec(), b"initramfs".to_vec()));
    assert_eq!(read("e.user-data"), user_data.as_bytes());
    assert!(String::from_utf8(read("e.meta-data")).unwrap().contains("\"instance-id\": \""));
    assert!(String::from_utf8(read("e.network-config")).unwrap().contains("\"version\": 2"));
    let script = String::from_utf8(read("e.ipxe")).unwrap();
    assert!(script.contains("fetch=${base-url}/e.squashfs") && !script.contains("ds=ConfigDrive"), "{script}");
    for name in ["e.user-data", "e.meta-data", "e.vendor-data", "e.network-config"] {
        let mode = std::fs::metadata(folders[0].path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let squashfs = folders[0].path().join("e.squashfs");
    if let Some(ran) = reader("unsquashfs", &["-lc", squashfs.to_str().unwrap()]) {
        let listing = text(&ran);
        assert!(ran.status.success() && listing.contains("squashfs-root/usr/bin/special"), "{listing}");
        assert!(!listing.contains("squashfs-root/boot/vmlinuz"), "{listing}");
    }
    for entry in folders[0].path().read_dir().unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(read(&name) == std::fs::read(folders[1].path().join(&name)).unwrap(), "{name} is not the same twice");
    }
}
