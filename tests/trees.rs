//! Random Trees through every writer, judged by independent readers, and read back.
//!
//! A few small ones in every run. `make test-trees` (`TREES=100 cargo test --release --test trees`) does a hundred
//! large ones; `TREES_FIRST=7 TREES=1` repeats number 7.

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use imagebuilder::format::disk::DiskImage;
use imagebuilder::format::disk::sums::{Digests, State};
use imagebuilder::format::{ext4, fat, gpt, iso9660, qcow2, raw, squashfs, tar, vhd, vmdk};
use imagebuilder::inspect::disk::{qcow2::Qcow2, vhd::Vhd, vmdk::Vmdk};
use imagebuilder::inspect::ext4::Ext4;
use imagebuilder::inspect::fat::Fat;
use imagebuilder::inspect::gpt::Gpt;
use imagebuilder::inspect::iso9660::Iso9660;
use imagebuilder::inspect::source::{FileSource, SharedSource};
use imagebuilder::inspect::squashfs::Squashfs;
use imagebuilder::inspect::tar::listing;
use imagebuilder::inspect::unpack::{Packing, unpack};
use imagebuilder::tree::{Digest, Kind, Mtime, Tree, TreePath};
use support::trees::{self, Scale, THEMES};
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const TIME: Mtime = Mtime { seconds: 1_700_000_000, nanoseconds: 0 };

/// Runs a reader that must find nothing; a message where it is not installed.
fn clean(program: &str, arguments: &[&str], at: &Path) {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    let Ok(ran) = command.current_dir(at).output() else { return eprintln!("skipped: {program} is not installed") };
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program} {arguments:?}: {said}");
}

/// Equal but for the origins; says what differs first.
fn assert_same(read: &Tree, wanted: &Tree) {
    let mut paths: BTreeSet<&TreePath> = read.iter().map(|(path, _)| path).collect();
    paths.extend(wanted.iter().map(|(path, _)| path));
    for path in paths {
        let part = |tree: &Tree| tree.get(path).map(|entry| (entry.meta.clone(), entry.kind.clone()));
        let (read, wanted) = (part(read), part(wanted));
        assert!(read == wanted, "{path} differs:\nread   {read:?}\nwanted {wanted:?}");
    }
    assert_eq!(read.digest(), wanted.digest());
}

fn create(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap()
}

fn source(path: &Path) -> SharedSource {
    Arc::new(FileSource::open(path).unwrap())
}

fn read_ext4(source: SharedSource) -> Tree {
    Ext4::open(source).unwrap().listing().unwrap().without_lost_found().tree(&"read".into()).unwrap()
}

/// The smallest round size, or one with room to spare; small enough for raw files of mostly holes.
fn make_ext4(tree: &Tree, seed: u64) -> DiskImage {
    let data = |kind: &Kind| match kind {
        Kind::File(content) => content.data().map(|range| range.end - range.start).sum(),
        _ => 0,
    };
    let content: u64 = tree.iter().map(|(_, entry)| data(&entry.kind)).sum();
    let tight = seed % 3 == 0;
    let mut size = if tight { content + content / 50 + 24 * MIB } else { (content * 2 + 256 * MIB) << (seed % 4) };
    loop {
        let options = ext4::Options {
            size: size / 4096 * 4096 + 512 * (seed % 8),
            uuid: Uuid::from_u128(u128::from(seed) + 1),
            hash_seed: if seed % 5 == 4 { Uuid::nil() } else { Uuid::from_u128(u128::from(seed) << 64 | 77) },
            label: "trees".into(),
            time: TIME,
            bytes_per_inode: 16384,
            inodes: tight.then_some(tree.len() as u64 * 11 / 10 + 400),
            reserved_percent: seed % 6,
            features: ext4::Features { metadata_csum_seed: seed % 2 == 0, ea_inode: true },
        };
        match ext4::make(tree, &options) {
            Ok(disk) => return disk,
            Err(error) if error.kind() == imagebuilder::error::Kind::Space => size += size / 16,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What FAT can hold of a Tree: plain files and folders under plain names.
fn for_fat(tree: &Tree) -> Tree {
    let mut out = Tree::new();
    let mut names = BTreeSet::new();
    for (path, entry) in tree.iter().filter(|(path, _)| !path.is_root()) {
        let plain = |name: &[u8]| {
            let good = |byte: &u8| byte.is_ascii_alphanumeric() || b" ._-".contains(byte);
            name.iter().all(good) && !name.ends_with(b".") && !name.ends_with(b" ") && name.len() < 100
        };
        let kind = match &entry.kind {
            Kind::Directory => Kind::Directory,
            Kind::File(content) if content.size() < 9 * MIB => Kind::File(content.clone()),
            _ => continue,
        };
        // Specification, "Long Name Limits": a path has at most 260 characters.
        let short = path.as_bytes().len() < 250 && names.len() < 5_000;
        let parent = path.parent().is_some_and(|parent| out.contains(&parent));
        if short && parent && path.components().all(plain) && names.insert(path.as_bytes().to_ascii_lowercase()) {
            let mtime =
                Mtime { seconds: entry.meta.mtime.seconds.clamp(1_000_000_000, TIME.seconds) & !1, nanoseconds: 0 };
            let meta = imagebuilder::tree::Meta { mtime, ..imagebuilder::tree::Meta::root(0o644) };
            out.insert_raw(path.clone(), imagebuilder::tree::Entry { meta, kind, origin: "fat".into() });
        }
    }
    out
}

fn assert_same_on_fat(read: &Tree, wanted: &Tree) {
    let part = |tree: &Tree| -> Vec<(TreePath, Kind, Mtime)> {
        let entries = tree.iter().filter(|(path, _)| !path.is_root());
        entries.map(|(path, entry)| (path.clone(), entry.kind.clone(), entry.meta.mtime)).collect()
    };
    let (read, wanted) = (part(read), part(wanted));
    assert_eq!(read.len(), wanted.len(), "entries on FAT");
    for (read, wanted) in read.iter().zip(&wanted) {
        assert_eq!(read, wanted, "on FAT");
    }
}

fn make_fat(tree: &Tree, seed: u64) -> DiskImage {
    let content: u64 = tree
        .iter()
        .map(|(_, entry)| if let Kind::File(content) = &entry.kind { content.size() + 4096 } else { 4096 })
        .sum();
    let options = fat::Options {
        size: (content * 2 + 40 * MIB) / MIB * MIB,
        fat_type: if seed % 4 == 0 && content < 200 * MIB { fat::FatType::Fat16 } else { fat::FatType::Fat32 },
        volume_id: seed as u32,
        label: String::new(),
        hidden_sectors: 2048,
        latest: TIME,
    };
    fat::make(tree, &options).unwrap()
}

/// A GPT with the FAT and the ext4.
fn make_disk(fat: DiskImage, ext4: DiskImage, seed: u64) -> DiskImage {
    let round = |size: u64| size.next_multiple_of(MIB);
    let (first, second) = (MIB, MIB + round(fat.size()));
    let disk_size = second + round(ext4.size()) + MIB;
    let partition = |number: u128, start: u64, size: u64| gpt::Partition {
        type_guid: Uuid::from_u128(0x0FC6_3DAF_8483_4772_8E79_3D69_D847_7DE4),
        guid: Uuid::from_u128(u128::from(seed) << 32 | number),
        first_lba: start / gpt::SECTOR,
        last_lba: (start + round(size)) / gpt::SECTOR - 1,
        attributes: 0,
        name: format!("part {number}"),
    };
    let partitions = vec![partition(1, first, fat.size()), partition(2, second, ext4.size())];
    let disk_guid = Uuid::from_u128(u128::from(seed) + 1000);
    let tables = gpt::Table { disk_size, disk_guid, partitions, boot_code: Vec::new() }.layout().unwrap();
    let mut disk = DiskImage::empty(disk_size);
    disk.place(first, fat).unwrap();
    disk.place(second, ext4).unwrap();
    disk.write(0, tables.primary).unwrap();
    disk.write(tables.backup_offset, tables.backup).unwrap();
    disk
}

/// The ext4 and the FAT out of a disk in any container.
fn read_disk(disk: SharedSource) -> (Tree, Tree) {
    let table = Gpt::read(&*disk).unwrap();
    let open = |index: usize| -> SharedSource { Arc::new(table.partitions[index].open(&disk).unwrap()) };
    let fat = Fat::open(open(0)).unwrap().listing().unwrap().tree(&"read".into()).unwrap();
    (read_ext4(open(1)), fat)
}

/// Writes a disk in every format; gives the names.
fn write_all(disk: &DiskImage, folder: &Path, seed: u64) -> Vec<(&'static str, PathBuf)> {
    let path = |name: &str| folder.join(name);
    let uuid = Uuid::from_u128(u128::from(seed));
    raw::write(disk, &create(&path("disk.raw")), &|_| ()).unwrap();
    let compressions = [qcow2::Compression::Zstd, qcow2::Compression::Zlib, qcow2::Compression::None];
    let options = qcow2::Options { compression: compressions[(seed % 3) as usize], threads: None };
    qcow2::write(disk, &create(&path("disk.qcow2")), &options, &|_| ()).unwrap();
    vmdk::write(disk, &create(&path("disk.vmdk")), &vmdk::Options { uuid, threads: None }, &|_| ()).unwrap();
    let subformat = if seed % 4 == 1 { vhd::Subformat::Fixed } else { vhd::Subformat::Dynamic };
    let options = vhd::Options { subformat, uuid, seconds: TIME.seconds };
    vhd::write(disk, &create(&path("disk.vhd")), &options, &|_| ()).unwrap();
    vec![("qcow2", path("disk.qcow2")), ("vmdk", path("disk.vmdk")), ("vpc", path("disk.vhd"))]
}

/// Bytes of files that GNU tar is asked to unpack; it writes holes out.
const UNPACKED: u64 = 512 * MIB;

/// An archive, read back by our own reader and, but for attributes that the file system here may not hold, by GNU tar.
fn check_tar(tree: &Tree, seed: u64, at: &Path) {
    let mut tree = tree.clone();
    // No archive holds them; `seal` leaves none in an image.
    let sockets: Vec<TreePath> =
        tree.iter().filter(|(_, entry)| entry.kind == Kind::Socket).map(|(path, _)| path.clone()).collect();
    sockets.iter().for_each(|path| _ = tree.remove_raw(path));
    // At the ends of what it knows, ext4 of Linux rounds to whole seconds.
    let ends: Vec<TreePath> = tree
        .iter()
        .filter(|(_, entry)| [-0x8000_0000, 0x3_7FFF_FFFF].contains(&entry.meta.mtime.seconds))
        .map(|(path, _)| path.clone())
        .collect();
    for path in ends {
        tree.get_mut(&path).unwrap().meta.mtime.nanoseconds = 0;
    }
    let size = |kind: &Kind| if let Kind::File(content) = kind { content.size() } else { 0 };
    let content: u64 = tree.iter().map(|(_, entry)| size(&entry.kind)).sum();
    let (packing, compression) = match seed % 3 {
        0 if content < UNPACKED => (Packing::None, tar::Compression::None),
        1 => (Packing::Gzip, tar::Compression::Gzip),
        _ => (Packing::Zstd, tar::Compression::Zstd),
    };
    let file = create(&at.join("tree.tar"));
    tar::write(&tree, &file, &tar::Options { compression, threads: None }, &|_| ()).unwrap();
    let packed = source(&at.join("tree.tar"));
    assert_eq!(Packing::of(&*packed), packing);
    let read = listing(&unpack(&packed, packing).unwrap()).unwrap();
    assert_same(&read.tree(&"read".into()).unwrap(), &tree);
    if content < UNPACKED && rustix::process::geteuid().is_root() {
        std::fs::create_dir(at.join("unpacked")).unwrap();
        clean("tar", &["-C", "unpacked", "--numeric-owner", "-xpf", "tree.tar"], at);
        clean("tar", &["-C", "unpacked", "--numeric-owner", "-df", "tree.tar"], at);
        std::fs::remove_dir_all(at.join("unpacked")).unwrap();
    }
    std::fs::remove_file(at.join("tree.tar")).unwrap();
}

/// What squashfs can hold: no access lists, and times of four bytes.
fn for_squashfs(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    for (_, entry) in tree.iter_mut() {
        entry.meta.mtime = Mtime { seconds: entry.meta.mtime.seconds.clamp(0, u32::MAX.into()), nanoseconds: 0 };
        entry.meta.xattrs.retain(|name, _| !name.starts_with(b"system."));
    }
    tree
}

fn check_squashfs(tree: &Tree, seed: u64, at: &Path) {
    let tree = for_squashfs(tree);
    let name = squashfs::Compression::NAMES[(seed % 4) as usize];
    let level = (name == "zstd").then_some(3);
    let options = squashfs::Options {
        compression: squashfs::Compression::named(name, level).unwrap(),
        block_size: 4096 << (seed % 9),
        time: TIME,
        threads: None,
    };
    squashfs::write(&tree, &create(&at.join("squashfs")), 0, &options, &|_| ()).unwrap();
    clean("unsquashfs", &["-lln", "squashfs"], at);
    let read = Squashfs::open(source(&at.join("squashfs"))).unwrap().listing().unwrap();
    assert_same(&read.tree(&"read".into()).unwrap(), &tree);
    std::fs::remove_file(at.join("squashfs")).unwrap();
}

/// What our ISO 9660 holds: plain files, folders and links, not too deep and not too long, no later than its own time.
fn for_iso(tree: &Tree) -> Tree {
    let mut out = Tree::new();
    for (path, entry) in tree.iter().filter(|(path, _)| !path.is_root()) {
        let plain =
            |target: &[u8]| target.len() < 100 && !target.ends_with(b"/") && !target.windows(2).any(|two| two == b"//");
        let kind = match &entry.kind {
            Kind::Directory => Kind::Directory,
            Kind::File(content) if content.size() < 9 * MIB => Kind::File(content.clone()),
            Kind::Symlink(target) if plain(target) => Kind::Symlink(target.clone()),
            _ => continue,
        };
        let short =
            path.components().count() < 7 && path.components().all(|name| name.len() < 100) && out.len() < 5_000;
        if short && path.parent().is_some_and(|parent| out.contains(&parent)) {
            let mtime = Mtime { seconds: entry.meta.mtime.seconds.clamp(0, TIME.seconds), nanoseconds: 0 };
            let meta = imagebuilder::tree::Meta { mtime, xattrs: Default::default(), ..entry.meta.clone() };
            out.insert_raw(path.clone(), imagebuilder::tree::Entry { meta, kind, origin: "iso".into() });
        }
    }
    out
}

fn check_iso(tree: &Tree, at: &Path) {
    let tree = for_iso(tree);
    let options = iso9660::Options {
        volume_id: "TREES".into(),
        time: TIME.seconds,
        disk_guid: Uuid::from_u128(1),
        esp_guid: Uuid::from_u128(2),
        bios: None,
        esp: None,
        payload: TreePath::literal("payload"),
    };
    let plan = iso9660::Plan::new(&tree, options).unwrap();
    let frame = plan.frame(1).unwrap();
    let file = create(&at.join("iso"));
    raw::write(&frame.disk, &file, &|_| ()).unwrap();
    let area = plan.seed_area(&frame, Uuid::nil(), Digest::of(b""), State::start(Digests::BOTH)).unwrap();
    let seed = iso9660::seed::Files::from([("user_data".to_owned(), b"x".to_vec())]);
    file.write_all_at(&area.encode(&seed).unwrap(), frame.seed_offset).unwrap();
    // It warns of a medium that nothing starts from.
    clean("xorriso", &["-abort_on", "SORRY", "-indev", "iso", "-find", "/", "-exec", "report_lba", "--"], at);
    let read = Iso9660::open(source(&at.join("iso"))).unwrap().listing().unwrap().tree(&"read".into()).unwrap();
    for (path, entry) in tree.iter().filter(|(path, _)| !path.is_root()) {
        let part = |tree: &Tree| tree.get(path).map(|entry| (entry.meta.clone(), entry.kind.clone()));
        assert_eq!(part(&read), Some((entry.meta.clone(), entry.kind.clone())), "{path} on the ISO");
    }
    // Beside them the payload, and the seed with its two folders.
    assert_eq!(read.len(), tree.len() + 4);
    std::fs::remove_file(at.join("iso")).unwrap();
}

fn check(seed: u64, scale: Scale) {
    let tree = trees::tree(seed, scale);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let small = for_fat(&tree);
    check_tar(&tree, seed, at);
    check_squashfs(&tree, seed, at);
    check_iso(&tree, at);

    let file_system = make_ext4(&tree, seed);
    raw::write(&file_system, &create(&at.join("ext4")), &|_| ()).unwrap();
    clean("e2fsck", &["-fn", "ext4"], at);
    assert_same(&read_ext4(source(&at.join("ext4"))), &tree);
    std::fs::remove_file(at.join("ext4")).unwrap();

    let fat = make_fat(&small, seed);
    raw::write(&fat, &create(&at.join("fat")), &|_| ()).unwrap();
    clean("fsck.fat", &["-n", "fat"], at);
    std::fs::remove_file(at.join("fat")).unwrap();

    let disk = make_disk(fat, file_system, seed);
    let written = write_all(&disk, at, seed);
    clean("sgdisk", &["-v", "disk.raw"], at);
    clean("qemu-img", &["check", "disk.qcow2"], at);
    for (format, path) in &written {
        clean("qemu-img", &["compare", "-f", format, "-F", "raw", path.to_str().unwrap(), "disk.raw"], at);
    }
    let (format, path) = &written[(seed / 2 % 3) as usize];
    let file = source(path);
    let inside: SharedSource = match *format {
        "qcow2" => Arc::new(Qcow2::open(file).unwrap()),
        "vmdk" => Arc::new(Vmdk::open(file).unwrap()),
        _ => Arc::new(Vhd::open(file).unwrap()),
    };
    let (root, esp) = read_disk(inside);
    assert_same(&root, &tree);
    assert_same_on_fat(&esp, &small);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_trees_come_back_as_they_went_in() {
    let (count, scale) = match number("TREES") {
        Some(count) => (count, Scale::Full),
        None => (THEMES.len() as u64, Scale::Small),
    };
    let first = number("TREES_FIRST").unwrap_or(0);
    for seed in first..first + count {
        println!("tree {seed}: {}", THEMES[(seed % THEMES.len() as u64) as usize]);
        let result = std::panic::catch_unwind(|| check(seed, scale));
        if let Err(panic) = result {
            eprintln!(
                "again with: TREES={} TREES_FIRST={seed} cargo test --test trees",
                if scale == Scale::Full { "1" } else { "" }
            );
            std::panic::resume_unwind(panic);
        }
    }
}
