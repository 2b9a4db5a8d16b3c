//! The store and the published set under `kill -9` and under company: a process that ends at any moment leaves what was
//! there or what it made, never a mixture, and the next one goes on; two at once do each step once.
//!
//! The processes are this test program again ([`worker`]), which makes steps and publishes sets until it is stopped.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use imagebuilder::build::publish::{FileSet, Staging};
use imagebuilder::tree::records::Record;
use imagebuilder::tree::store::Store;
use imagebuilder::tree::{Digest, Entry, Kind, Meta, Tree, TreePath};

const FOLDER: &str = "IMAGEBUILDER_TEST_STORE";
const STEPS: u64 = 12;

fn key(step: u64) -> Digest {
    Digest::of(&step.to_le_bytes())
}

fn record(step: u64) -> Digest {
    Digest::of(format!("record {step}").as_bytes())
}

/// Bytes that only this step and file have.
fn bytes(step: u64, file: u64) -> Vec<u8> {
    let seed = Digest::of(format!("{step} {file}").as_bytes());
    seed.as_bytes().iter().copied().cycle().take(1000 + (step * 37 + file * 1009) as usize % 90_000).collect()
}

/// The Tree of a step, in the store if a writer is given.
fn tree(step: u64, add: impl Fn(&[u8]) -> imagebuilder::tree::Content) -> Tree {
    let mut tree = Tree::new();
    for file in 0..20 {
        let path = TreePath::new(format!("{step}-{file}")).unwrap();
        let kind = Kind::File(add(&bytes(step, file)));
        tree.insert_raw(path, Entry { meta: Meta::root(0o644), kind, origin: "test".into() });
    }
    tree
}

fn inline(bytes: &[u8]) -> imagebuilder::tree::Content {
    imagebuilder::tree::Content::inline(bytes)
}

/// Steps that are not there are made, each on top of the last one; then a set is published.
fn work(folder: &Path, round: u64) {
    let store = Store::open(&folder.join("cache")).unwrap();
    let mut below: Option<Tree> = None;
    for step in 0..STEPS {
        let made = store.load(key(step)).unwrap().unwrap_or_else(|| {
            let writer = store.writer(key(step)).unwrap();
            if let Some(tree) = store.load(key(step)).unwrap() {
                return tree;
            }
            below.iter().for_each(|below| writer.known(below));
            let contents: Vec<_> = (0..3).map(|file| writer.add(&bytes(step, 100 + file)).unwrap()).collect();
            if !store.has_record(record(step)) {
                writer.keep(record(step), Record { bytes: bytes(step, 200), contents });
            }
            let saved = tree(step, |bytes| writer.add(bytes).unwrap());
            let saved = writer.save(&saved).unwrap();
            let log = std::fs::File::options().create(true).append(true).open(folder.join("made"));
            log.unwrap().write_all(format!("{step}\n").as_bytes()).unwrap();
            saved
        });
        assert_eq!(made, tree(step, inline));
        below = Some(made);
    }
    let staging = Staging::open(&folder.join("out"), "node").unwrap();
    let image = bytes(round, 0);
    staging.write("node.raw", &image).unwrap();
    staging.write("node.raw.sha256", Digest::of(&image).to_hex().as_bytes()).unwrap();
    let set = FileSet { images: vec!["node.raw".into()], side_files: vec!["node.raw.sha256".into()] };
    staging.publish(&set).unwrap();
}

/// Not a test of its own: what the other processes do.
#[test]
fn worker() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    for round in 0..u64::MAX {
        work(&folder, round);
        if folder.join("once").exists() {
            return;
        }
        // Steps are made again and again, so that there is something to interrupt.
        let _ = std::fs::remove_file(folder.join(format!("cache/trees-v2/{}.tree", key(round % STEPS))));
    }
}

fn start(folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "worker"]).env(FOLDER, folder).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// Old or new, whole.
fn check_published(folder: &Path) {
    let Ok(image) = std::fs::read(folder.join("out/node.raw")) else { return };
    let whole = (0..20_000).any(|round| bytes(round, 0) == image);
    assert!(whole, "half an image");
    if let Ok(sum) = std::fs::read_to_string(folder.join("out/node.raw.sha256")) {
        assert_eq!(sum, Digest::of(&image).to_hex(), "an image with the checksum of another");
    }
}

fn check_store(folder: &Path) {
    let store = Store::open(&folder.join("cache")).unwrap();
    for step in 0..STEPS {
        if let Some(found) = store.record(record(step)) {
            assert_eq!(found.bytes, bytes(step, 200));
            for (file, content) in found.contents.iter().enumerate() {
                assert_eq!(content.bytes().unwrap(), bytes(step, 100 + file as u64));
            }
        }
        if let Some(found) = store.load(key(step)).unwrap() {
            assert!(store.has_record(record(step)), "what is kept is there before the step");
            assert_eq!(found, tree(step, inline));
            for file in 0..20 {
                let path = TreePath::new(format!("{step}-{file}")).unwrap();
                assert_eq!(found.read_file(&path).unwrap().unwrap(), bytes(step, file));
            }
        }
    }
}

#[test]
fn killed_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    for turn in 0..20u64 {
        let mut child = start(folder.path());
        // Spread over start, first steps and publishing.
        std::thread::sleep(Duration::from_millis(7 + turn * turn * 2 % 190));
        child.kill().unwrap();
        child.wait().unwrap();
        check_published(folder.path());
        check_store(folder.path());
    }
    std::fs::write(folder.path().join("once"), "").unwrap();
    assert!(start(folder.path()).wait().unwrap().success());
    check_store(folder.path());
    drop(Staging::open(&folder.path().join("out"), "node").unwrap());
    let left: Vec<_> = std::fs::read_dir(folder.path().join("out")).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "an image and its checksum: {left:?}");
    Store::open(&folder.path().join("cache")).unwrap();
    let store = std::fs::read_dir(folder.path().join("cache/trees-v2")).unwrap().flatten();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for entry in store {
        let kind = entry.path().extension().unwrap_or(&entry.file_name()).to_string_lossy().into_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    let steps = STEPS as usize;
    // A step that is made again has a pack of its own; what was kept with it the first time stays.
    let packs = kinds.remove("pack").unwrap();
    assert!((steps..=2 * steps).contains(&packs), "{packs} packs");
    let expected = [(".gate", 1), ("lock", steps), ("records-v1", steps), ("tree", steps)];
    assert_eq!(kinds, expected.map(|(kind, count)| (kind.to_owned(), count)).into(), "nothing else is left");
}

#[test]
fn two_at_once_make_every_step_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("once"), "").unwrap();
    let mut children: Vec<Child> = (0..3).map(|_| start(folder.path())).collect();
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    check_store(folder.path());
    check_published(folder.path());
    let made = std::fs::read_to_string(folder.path().join("made")).unwrap();
    let mut made: Vec<u64> = made.lines().map(|line| line.parse().unwrap()).collect();
    made.sort_unstable();
    assert_eq!(made, (0..STEPS).collect::<Vec<_>>());
}
