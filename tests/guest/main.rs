//! ext4 file systems of ours under a real kernel: mounted, listed with digests, grown online to 2 TiB.
//!
//! `IMAGEBUILDER_BOOT_IMAGES=out cargo test --release --test guest` takes a kernel from the images of
//! `make IMAGE_TYPE=qcow cut_image`; without it the tests are shown as ignored. QEMU emulates everything, so it is the
//! same everywhere and takes minutes. The program that looks at the file system in the guest is this one.

mod init;
mod listing;
mod machine;
#[path = "../support/trees.rs"]
mod trees;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use imagebuilder::format::{ext4, qcow2, raw};
use imagebuilder::inspect::ext4::Ext4;
use imagebuilder::inspect::source::FileSource;
use imagebuilder::tree::{Mtime, Tree, TreePath};
use libtest_mimic::{Arguments, Trial};
use uuid::Uuid;

const VARIABLE: &str = "IMAGEBUILDER_BOOT_IMAGES";
const TERABYTES: u64 = 2 << 40;

fn main() -> std::process::ExitCode {
    if std::process::id() == 1 {
        init::main();
    }
    let arguments = Arguments::from_args();
    let images = std::env::var_os(VARIABLE).map(PathBuf::from);
    if images.is_none() {
        println!("skipped: {VARIABLE} does not name a folder with built images");
    }
    let ignored = images.is_none();
    let trial = |name: &str, test: fn(&machine::Kernel)| {
        let images = images.clone().unwrap_or_default();
        let run = move || {
            test(&machine::Kernel::of(&any_image(&images)));
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(ignored)
    };
    let trials = vec![trial("a kernel sees the whole Tree", sees), trial("a kernel grows it online to 2 TiB", grows)];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn any_image(folder: &Path) -> PathBuf {
    let mut images: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "qcow2"))
        .collect();
    images.sort();
    images.into_iter().next().expect("there is an image in the folder")
}

fn options(size: u64) -> ext4::Options {
    ext4::Options {
        size,
        uuid: Uuid::from_u128(0xF00D),
        hash_seed: Uuid::from_u128(0xBEEF << 64 | 3),
        label: String::new(),
        time: Mtime { seconds: 1_700_000_000, nanoseconds: 0 },
        bytes_per_inode: 16384,
        inodes: None,
        reserved_percent: 5,
        features: ext4::Features { metadata_csum_seed: false, ea_inode: true },
    }
}

/// What the guest listed.
fn listed(said: &str) -> Vec<String> {
    let inside = said.split(init::BEGIN).nth(1).and_then(|rest| rest.split(init::END).next()).expect("a listing");
    inside.lines().filter_map(|line| line.strip_prefix(init::MARK)).map(str::to_owned).collect()
}

fn assert_listed(said: &str, tree: &Tree) {
    let (seen, wanted) = (listed(said), listing::of_tree(tree));
    for (seen, wanted) in seen.iter().zip(&wanted) {
        assert_eq!(seen, wanted, "the kernel sees something else");
    }
    assert_eq!(seen.len(), wanted.len(), "the kernel sees so many paths");
    assert!(!said.contains("EXT4-fs error") && !said.contains("EXT4-fs warning"), "the kernel complains: {said}");
}

fn sees(kernel: &machine::Kernel) {
    let folder = tempfile::tempdir().unwrap();
    let tree = trees::everything(1);
    let disk = ext4::make(&tree, &options(3 << 30)).unwrap();
    let path = folder.path().join("disk.qcow2");
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    qcow2::write(&disk, &file, &qcow2::Options::default(), &|_| ()).unwrap();
    let said = machine::run(kernel, &path, "list", folder.path());
    assert_listed(&said, &tree);
    println!("{} paths", tree.len());
}

fn grows(kernel: &machine::Kernel) {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let tree = trees::tree(10, trees::Scale::Small);
    let disk = ext4::make(&tree, &options(2 << 30)).unwrap();
    raw::write(&disk, &std::fs::File::create(at.join("small.raw")).unwrap(), &|_| ()).unwrap();
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "small.raw", "disk.qcow2", "2T"], at);
    let said = machine::run(kernel, &at.join("disk.qcow2"), "grow", at);
    assert_listed(&said, &tree);
    assert!(said.contains(&format!("guest: grown to {} blocks", TERABYTES / 4096)), "{said}");
    run("qemu-img", &["convert", "-O", "raw", "disk.qcow2", "grown.raw"], at);
    run("e2fsck", &["-fn", "grown.raw"], at);
    let source = Arc::new(FileSource::open(&at.join("grown.raw")).unwrap());
    let grown = Ext4::open(source).unwrap();
    assert_eq!(grown.superblock.blocks, TERABYTES / 4096);
    let mut read = grown.listing().unwrap().without_lost_found().tree(&"read".into()).unwrap();
    let new = read.remove_raw(&TreePath::literal(init::NEW_FILE)).expect("the file that the kernel wrote");
    assert!(matches!(new.kind, imagebuilder::tree::Kind::File(content) if content.size() == 3 << 20));
    // The kernel has written to the root folder.
    let root = TreePath::root();
    if let (Some(read), Some(wanted)) = (read.get_mut(&root), tree.get(&root)) {
        read.meta.mtime = wanted.meta.mtime;
    }
    assert_eq!(read.digest(), tree.digest());
}

fn run(program: &str, arguments: &[&str], at: &Path) {
    let ran = Command::new(program).args(arguments).current_dir(at).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program} {arguments:?}: {said}");
}
