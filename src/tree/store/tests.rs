//! Tests of the store: what is kept, shared, damaged, cut short and pruned.

use super::*;
use crate::tree::{Entry, Meta, Mtime, Origin, TreePath};

fn key(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// One of each kind, with names and attributes that need care.
fn tree() -> Tree {
    let origin: Origin = Arc::from("package x \"quoted\"");
    let mut tree = Tree::new();
    let mut meta =
        Meta { mode: 0o4755, uid: 7, gid: 1 << 31, mtime: Mtime { seconds: -5, nanoseconds: 9 }, ..Meta::root(0) };
    meta.xattrs.insert(b"security.capability".to_vec(), vec![0, 1, 255]);
    tree.write_file(&path("a/b"), "hello", meta, &origin).unwrap();
    let odd = TreePath::new(b"a/\xff\n%41 \"").unwrap();
    tree.write_file(&odd, "", Meta::root(0o644), &origin).unwrap();
    tree.write_symlink(&path("l"), &b"../\xfe"[..], Mtime::default(), &origin).unwrap();
    let kinds = [
        ("a/h", Kind::HardLink(path("a/b"))),
        ("c", Kind::CharDevice { major: 1, minor: 3 }),
        ("d", Kind::BlockDevice { major: 8, minor: 300 }),
        ("p", Kind::Fifo),
        ("s", Kind::Socket),
    ];
    for (name, kind) in kinds {
        tree.insert_raw(path(name), Entry { meta: Meta::root(0o600), kind, origin: origin.clone() });
    }
    tree
}

#[test]
fn a_tree_comes_back_as_it_went_in() {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    assert!(store.load(key("x")).unwrap().is_none());
    let saved = store.writer(key("x")).unwrap().save(&tree()).unwrap();
    let loaded = store.load(key("x")).unwrap().unwrap();
    assert_eq!(loaded, tree());
    assert_eq!(saved, loaded);
    assert_eq!(loaded.read_file(&path("a/h")).unwrap().unwrap(), b"hello");
}

#[test]
fn a_higher_layer_refers_to_the_packs_below() {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let lower = store.writer(key("lower")).unwrap().save(&tree()).unwrap();
    let writer = store.writer(key("upper")).unwrap();
    writer.known(&lower);
    let mut upper = lower.clone();
    let content = writer.add(b"new").unwrap();
    upper.put(&path("n"), Entry { meta: Meta::root(0o644), kind: Kind::File(content), origin: Arc::from("") }).unwrap();
    assert_eq!(writer.add(b"hello").unwrap().segment().unwrap().1, 0);
    writer.save(&upper).unwrap();
    let pack = |tree: &Tree, name: &str| match &tree.get(&path(name)).unwrap().kind {
        Kind::File(content) => content.segment().unwrap().0.path.clone(),
        _ => panic!("not a file"),
    };
    assert_eq!(fs::metadata(pack(&upper, "n")).unwrap().len(), 3, "only what is new");
    assert_eq!(store.load(key("upper")).unwrap().unwrap(), upper);
    store.writer(key("lower")).unwrap().save(&tree()).unwrap();
    assert_eq!(store.load(key("upper")).unwrap().unwrap(), upper, "making the lower one again does no harm");
    fs::remove_file(pack(&lower, "a/b")).unwrap();
    assert!(store.load(key("upper")).unwrap().is_none(), "a missing pack below makes it absent");
}

/// Remembers warnings.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl crate::report::Sink for Warnings {
    fn step_started(&self, _: u64, _: &str, _: Option<u64>, _: crate::report::Unit) {}
    fn step_progress(&self, _: u64, _: u64) {}
    fn step_finished(&self, _: u64, _: &crate::report::Timing) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
    fn warning(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

impl Warnings {
    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).join("\n")
    }
}

/// A store as a new process sees it, and what it says.
fn reopened(cache: &Path) -> (Store, Warnings) {
    let warnings = Warnings::default();
    (Store::open_with(cache, &Reporter::new(warnings.clone())).unwrap(), warnings)
}

fn pack_of(tree: &Tree) -> PathBuf {
    match &tree.get(&path("a/b")).unwrap().kind {
        Kind::File(content) => content.segment().unwrap().0.path.clone(),
        _ => panic!("not a file"),
    }
}

#[test]
fn a_damaged_tree_is_set_aside_and_said() {
    let cache = tempfile::tempdir().unwrap();
    let (store, warnings) = reopened(cache.path());
    store.writer(key("x")).unwrap().save(&tree()).unwrap();
    let path = store.tree_path(key("x"));
    let good = fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert!(store.load(key("x")).unwrap().is_none(), "flipped bit at {at}");
        fs::write(&path, &good[..at]).unwrap();
        assert!(store.load(key("x")).unwrap().is_none(), "cut at {at}");
        assert!(!path.exists() && warnings.take().contains("the cache is damaged"));
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(store.load(key("x")).unwrap().unwrap(), tree());
    assert_eq!(warnings.take(), "");
}

#[test]
fn no_changed_byte_of_a_pack_gets_through() {
    let cache = tempfile::tempdir().unwrap();
    let (store, _) = reopened(cache.path());
    let upper_key = key("upper");
    let length = fs::metadata(pack_of(&store.writer(key("x")).unwrap().save(&tree()).unwrap())).unwrap().len();
    for at in 0..=length {
        let (store, warnings) = reopened(cache.path());
        let lower = match store.load(key("x")).unwrap() {
            Some(tree) => tree,
            None => store.writer(key("x")).unwrap().save(&tree()).unwrap(),
        };
        let writer = store.writer(upper_key).unwrap();
        writer.known(&lower);
        writer.save(&lower).unwrap();
        warnings.take();
        let pack = pack_of(&lower);
        let mut bytes = fs::read(&pack).unwrap();
        match bytes.get_mut(at as usize) {
            Some(byte) => *byte ^= 0x10,
            None => _ = bytes.pop(),
        }
        fs::write(&pack, &bytes).unwrap();
        let (store, warnings) = reopened(cache.path());
        if let Some(tree) = store.load(upper_key).unwrap() {
            assert!(!store.set_damaged_aside().unwrap(), "nothing was read yet");
            let error = tree.read_file(&path("a/b")).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Authenticity);
            assert!(store.set_damaged_aside().unwrap() && !store.set_damaged_aside().unwrap(), "byte {at}");
            assert!(store.load(upper_key).unwrap().is_none(), "byte {at}");
        }
        assert!(warnings.take().contains("the cache is damaged"));
        assert!(store.load(key("x")).unwrap().is_none(), "the layer below refers to the same bytes");
        let again = store.writer(key("x")).unwrap().save(&tree()).unwrap();
        assert_eq!(again.read_file(&path("a/b")).unwrap().unwrap(), b"hello");
        assert_eq!(reopened(cache.path()).0.load(key("x")).unwrap().unwrap(), tree());
    }
}

/// Raise [`FORMAT`] when this fails: older programs must not read what newer ones save.
#[test]
fn the_saved_form_is_that_of_its_version() {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let saved = store.writer(key("x")).unwrap().save(&tree()).unwrap();
    let text = fs::read_to_string(store.tree_path(key("x"))).unwrap();
    let pack = pack_of(&saved).file_stem().unwrap().to_string_lossy().into_owned();
    let body: Vec<&str> = text.trim_end().lines().collect();
    let body = body[..body.len() - 1].join("\n").replace(&pack, "PACK");
    assert_eq!(
        (FORMAT, Digest::of(body.as_bytes()).to_hex().as_str()),
        (2, "1f46bae5acabdfca104b8792b84f6cab43314e87057496b6d6530ed9428ab45d"),
        "{body}"
    );
}

#[test]
fn a_store_of_another_version_is_left_alone() {
    let cache = tempfile::tempdir().unwrap();
    let old = cache.path().join("trees-v1");
    fs::create_dir(&old).unwrap();
    fs::write(old.join(format!("{}.tree", key("x"))), "something else").unwrap();
    let (store, notes) = reopened(cache.path());
    assert!(notes.take().contains("trees-v1 was made by another version"));
    assert!(store.load(key("x")).unwrap().is_none());
    assert_eq!(notes.take(), "");
    assert!(old.join(format!("{}.tree", key("x"))).exists());
}

#[test]
fn what_the_dead_leave_is_removed_and_what_the_living_write_is_not() {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let saved = store.writer(key("x")).unwrap().save(&tree()).unwrap();
    let orphan = store.pack_path(&key("orphan").to_hex());
    let dead = [store.folder.join(".pack-dead"), store.folder.join(".tree-dead"), orphan];
    dead.iter().for_each(|path| fs::write(path, "x").unwrap());
    let living = store.writer(key("y")).unwrap();
    living.add(b"on its way").unwrap();
    Store::open(cache.path()).unwrap();
    assert!(dead.iter().all(|path| !path.exists()) && pack_of(&saved).exists());
    living.save(&tree()).unwrap();
    assert_eq!(Store::open(cache.path()).unwrap().load(key("y")).unwrap().unwrap(), tree());
}

#[test]
fn an_abandoned_writer_leaves_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let writer = store.writer(key("x")).unwrap();
    writer.add(b"lost").unwrap();
    drop(writer);
    let mut left: Vec<_> = fs::read_dir(&store.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".gate".into(), std::ffi::OsString::from(format!("{}.lock", key("x")))]);
}

#[test]
fn large_files_are_stored_in_pieces() {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let writer = store.writer(key("x")).unwrap();
    let big = tempfile::tempfile().unwrap();
    big.set_len(ONE_PIECE + 5).unwrap();
    big.write_all_at(b"end", ONE_PIECE).unwrap();
    let content = writer.add_file(&big).unwrap();
    assert_eq!(content.size(), ONE_PIECE + 5);
    assert_eq!(content.holes(), std::slice::from_ref(&(0..ONE_PIECE)));
    assert_eq!(Digest::of(&content.bytes().unwrap()), content.digest());
    assert_eq!(writer.add_file(&big).unwrap().segment().unwrap().1, 0, "stored once");
    let mut tree = Tree::new();
    let kind = Kind::File(content);
    tree.insert_raw(path("big"), Entry { meta: Meta::root(0o644), kind, origin: Arc::from("") });
    writer.save(&tree).unwrap();
    match &store.load(key("x")).unwrap().unwrap().get(&path("big")).unwrap().kind {
        Kind::File(content) => assert_eq!(content.holes(), std::slice::from_ref(&(0..ONE_PIECE))),
        _ => panic!("not a file"),
    }
}
