//! QEMU with a kernel of a built image and an initramfs that holds this test program.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use imagebuilder::inspect::disk::qcow2::Qcow2;
use imagebuilder::inspect::ext4::Ext4;
use imagebuilder::inspect::gpt::Gpt;
use imagebuilder::inspect::listing::{Found, Listing};
use imagebuilder::inspect::source::{FileSource, SharedSource};
use imagebuilder::tree::TreePath;

use super::init;

/// Leaves of the tree of modules: disk and file system.
const WANTED: [&str; 4] = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];
/// No kernel or module comes near it.
const LARGEST: u64 = 64 << 20;

pub struct Kernel {
    pub image: Vec<u8>,
    /// In the order of loading: name and bytes.
    modules: Vec<(String, Vec<u8>)>,
}

impl Kernel {
    /// From a disk image that we built.
    pub fn of(image: &Path) -> Kernel {
        let listings = file_systems(image);
        let is_kernel = |path: &&TreePath| path.file_name().starts_with(b"vmlinuz-");
        let found = |listing: &Listing| listing.iter().map(|(path, _)| path).find(is_kernel).cloned();
        let (boot, path) =
            listings.iter().find_map(|listing| Some((listing, found(listing)?))).expect("the image has a kernel");
        let version = String::from_utf8(path.file_name()["vmlinuz-".len()..].to_vec()).unwrap();
        let folder = format!("usr/lib/modules/{version}");
        let modules = TreePath::new(&folder).unwrap();
        let listing = listings.iter().find(|listing| listing.get(&modules).is_some()).expect("the image has modules");
        let dependencies = String::from_utf8(bytes(listing, &format!("{folder}/modules.dep"))).unwrap();
        let mut names = Vec::new();
        for wanted in WANTED {
            let name = |path: &str| path.rsplit('/').next().unwrap().split('.').next().unwrap().replace('-', "_");
            // Built into the kernel when there is no such module.
            let Some(line) = dependencies.lines().find(|line| name(line.split(':').next().unwrap()) == wanted) else {
                continue;
            };
            let (own, needs) = line.split_once(':').unwrap();
            // What comes last is needed first.
            names.extend(needs.split_whitespace().rev().chain([own]).map(str::to_owned));
        }
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        let module = |name: String| {
            let bytes = decompress(&name, bytes(listing, &format!("{folder}/{name}")));
            (name.rsplit('/').next().unwrap().to_owned(), bytes)
        };
        Kernel { image: bytes(boot, path_text(&path)), modules: names.into_iter().map(module).collect() }
    }
}

/// Those with ext4.
fn file_systems(image: &Path) -> Vec<Listing> {
    let disk: SharedSource = Arc::new(Qcow2::open(Arc::new(FileSource::open(image).unwrap())).unwrap());
    let mut listings = Vec::new();
    for partition in Gpt::read(&*disk).unwrap().partitions {
        let source: SharedSource = Arc::new(partition.open(&disk).unwrap());
        if Ext4::probe(&*source) {
            listings.push(Ext4::open(source).unwrap().listing().unwrap());
        }
    }
    listings
}

fn path_text(path: &TreePath) -> &str {
    std::str::from_utf8(path.as_bytes()).unwrap()
}

fn bytes(listing: &Listing, path: &str) -> Vec<u8> {
    match &listing.inode(&TreePath::new(path).unwrap()).unwrap_or_else(|| panic!("no {path} in the image")).found {
        Found::File(data) => data.bytes(LARGEST).unwrap(),
        _ => panic!("{path} is not a file"),
    }
}

fn decompress(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    if name.ends_with(".xz") {
        liblzma::read::XzDecoder::new(bytes.as_slice()).read_to_end(&mut out).unwrap();
    } else if name.ends_with(".zst") {
        zstd::Decoder::new(bytes.as_slice()).unwrap().read_to_end(&mut out).unwrap();
    } else {
        return bytes;
    }
    out
}

/// A cpio archive (newc) with this program as `/init`, its libraries and the modules.
fn initramfs(kernel: &Kernel) -> Vec<u8> {
    let mut archive = Vec::new();
    let program = std::env::current_exe().unwrap();
    let stripped = tempfile::NamedTempFile::new().unwrap();
    let strip = Command::new("strip").arg("-o").arg(stripped.path()).arg(&program).status();
    let init = if strip.is_ok_and(|status| status.success()) { stripped.path() } else { &program };
    let mut files: Vec<(String, Vec<u8>)> = vec![("init".into(), std::fs::read(init).unwrap())];
    let said = Command::new("ldd").arg(&program).output().unwrap().stdout;
    for word in String::from_utf8(said).unwrap().split_whitespace().filter(|word| word.starts_with('/')) {
        files.push((word.trim_start_matches('/').into(), std::fs::read(word).unwrap()));
    }
    let list: Vec<String> = kernel.modules.iter().map(|(name, _)| format!("/module-{name}")).collect();
    files.push((init::MODULES.into(), list.join("\n").into_bytes()));
    files.extend(kernel.modules.iter().map(|(name, bytes)| (format!("module-{name}"), bytes.clone())));
    let mut folders = BTreeSet::from(["dev".to_owned()]);
    for (name, _) in &files {
        folders.extend(name.match_indices('/').map(|(at, _)| name[..at].to_owned()));
    }
    folders.iter().for_each(|folder| member(&mut archive, folder, 0o040755, (0, 0), &[]));
    // Messages of a process without a console are lost.
    member(&mut archive, "dev/console", 0o020600, (5, 1), &[]);
    files.iter().for_each(|(name, bytes)| member(&mut archive, name, 0o100755, (0, 0), bytes));
    member(&mut archive, "TRAILER!!!", 0, (0, 0), &[]);
    archive
}

/// cpio(5), "New ASCII Format".
fn member(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), bytes: &[u8]) {
    let inode = archive.len() as u32;
    let fields = [inode, mode, 0, 0, 1, 0, bytes.len() as u32, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
    archive.extend(b"070701");
    fields.iter().for_each(|field| archive.extend(format!("{field:08X}").bytes()));
    archive.extend(name.bytes().chain([0]));
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(bytes);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// Starts the machine with a qcow2 as its disk; what its serial line said until it switched itself off.
pub fn run(kernel: &Kernel, disk: &Path, task: &str, folder: &Path) -> String {
    let place = |name: &str| -> PathBuf { folder.join(name) };
    std::fs::write(place("kernel"), &kernel.image).unwrap();
    std::fs::write(place("initramfs"), initramfs(kernel)).unwrap();
    let serial = place("serial.log");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536"]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.arg("-kernel").arg(place("kernel")).arg("-initrd").arg(place("initramfs"));
    qemu.args(["-append", &format!("console=ttyS0 quiet panic=-1 rdinit=/init guest={task}")]);
    qemu.args(["-drive", &format!("file={},format=qcow2,if=virtio,discard=unmap", disk.display())]);
    qemu.args(["-serial", &format!("file:{}", serial.display())]).stdin(Stdio::null());
    let status = Command::new("timeout").arg("1500").arg(qemu.get_program()).args(qemu.get_args()).status().unwrap();
    let said = String::from_utf8_lossy(&std::fs::read(&serial).unwrap_or_default()).replace('\r', "");
    let tail = &said[said.len().saturating_sub(3000)..].to_owned();
    assert!(status.success() && said.contains("guest: done"), "{status}: {tail}");
    said
}
