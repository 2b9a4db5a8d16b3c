//! Random Trees from a number: the same number gives the same Tree on every machine.
//!
//! Every Tree has a little of everything a file system can hold, and one thing in plenty, by its number.

// Every test program compiles its own copy and uses what it needs.
#![allow(dead_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use imagebuilder::tree::PackFile;
use imagebuilder::tree::holes::HoleFinder;
use imagebuilder::tree::{Content, Digest, Entry, Kind, Meta, Mtime, Tree, TreePath};
use sha2::{Digest as _, Sha256};

/// How much of the thing in plenty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// For every run of the tests.
    Small,
    /// 50,000 names, 8 GiB of holes.
    Full,
}

/// A generator of numbers: SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0xD129_0D2B_A4F0_53A1))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ value >> 31
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length).collect()
    }
}

/// The things in plenty.
pub const THEMES: [&str; 12] = [
    "deep folders",
    "very many files in one folder",
    "extended attributes of 4 KiB",
    "100 hard links",
    "a sparse file",
    "odd names",
    "devices",
    "owners and modes",
    "times",
    "symbolic links",
    "small files",
    "large files",
];

struct Maker {
    random: Random,
    tree: Tree,
    folders: Vec<TreePath>,
    files: Vec<TreePath>,
    next: u64,
    full: bool,
}

pub fn tree(seed: u64, scale: Scale) -> Tree {
    let theme = (seed % THEMES.len() as u64) as usize;
    let mut maker = Maker::new(seed, scale == Scale::Full);
    (0..THEMES.len()).for_each(|index| maker.add(index, index == theme));
    maker.tree
}

/// Everything in plenty, with 50,000 names in one folder and few bytes: for a reader that is slow.
pub fn everything(seed: u64) -> Tree {
    let mut maker = Maker::new(seed, false);
    (0..THEMES.len())
        .for_each(|index| maker.add(index, !["small files", "large files", "a sparse file"].contains(&THEMES[index])));
    maker.wide(50_000);
    maker.tree
}

impl Maker {
    fn new(seed: u64, full: bool) -> Maker {
        let (mut random, mut tree) = (Random::new(seed), Tree::new());
        if let Some(entry) = tree.get_mut(&TreePath::root()) {
            entry.meta.mode = *random.one_of(&[0o755, 0o700, 0o1777]);
        }
        Maker { random, tree, folders: vec![TreePath::root()], files: Vec::new(), next: 0, full }
    }

    fn add(&mut self, theme: usize, plenty: bool) {
        match theme {
            0 => self.deep(if plenty { 120 } else { 6 }),
            1 if plenty => self.wide(if self.full { 50_000 } else { 4000 }),
            1 => self.wide(30),
            2 => self.attributes(if plenty { 60 } else { 3 }),
            3 => self.links(if plenty { 100 } else { 3 }),
            4 if plenty => self.sparse(if self.full { 8 << 30 } else { 48 << 20 }),
            4 => self.sparse(3 << 20),
            5 => self.odd_names(if plenty { 3000 } else { 20 }),
            6 => self.devices(if plenty { 300 } else { 6 }),
            7 => self.owners(if plenty { 300 } else { 6 }),
            8 => self.times(if plenty { 300 } else { 6 }),
            9 => self.symlinks(if plenty { 400 } else { 5 }),
            10 => self.small(if plenty { 3000 } else { 60 }),
            _ if plenty => self.large(if self.full { 200 } else { 40 }),
            _ => self.large(1),
        }
    }

    fn meta(&mut self) -> Meta {
        let random = &mut self.random;
        let mtime = Mtime {
            seconds: 1_500_000_000 + random.below(200_000_000) as i64,
            nanoseconds: random.below(1_000_000_000) as u32,
        };
        let (uid, gid) = (*random.one_of(&[0, 0, 1000, 65_534]), *random.one_of(&[0, 0, 42]));
        Meta { mtime, uid, gid, ..Meta::root(*random.one_of(&[0o644, 0o600, 0o755])) }
    }

    fn put(&mut self, path: TreePath, kind: Kind, meta: Meta) {
        self.tree.insert_raw(path, Entry { meta, kind, origin: "random".into() });
    }

    /// A name not used yet, in one of the folders.
    fn place(&mut self) -> TreePath {
        let folder = self.random.one_of(&self.folders).clone();
        self.name_in(&folder)
    }

    fn name_in(&mut self, folder: &TreePath) -> TreePath {
        self.next += 1;
        let word = *self.random.one_of(&["file", "a", "Some Thing", "x.conf", "libvery-long-name_of_a_library.so"]);
        folder.append(&TreePath::new(format!("{}{word}", self.next)).unwrap())
    }

    fn folder(&mut self, path: TreePath) {
        let meta = Meta { mode: 0o755, ..self.meta() };
        self.put(path.clone(), Kind::Directory, meta);
        self.folders.push(path);
    }

    fn file(&mut self, path: TreePath, bytes: Vec<u8>) {
        let meta = self.meta();
        self.put(path.clone(), Kind::File(Content::inline(bytes)), meta);
        self.files.push(path);
    }

    fn deep(&mut self, depth: usize) {
        let mut path = self.place();
        for level in 0..depth {
            self.folder(path.clone());
            if level % 10 == 0 {
                let file = self.name_in(&path);
                self.file(file, b"deep".to_vec());
            }
            let name = "d".repeat(1 + self.random.below(24) as usize);
            path = path.append(&TreePath::new(name).unwrap());
        }
        for _ in 0..4 {
            let path = self.place();
            self.folder(path);
        }
    }

    fn wide(&mut self, count: usize) {
        let folder = self.place();
        self.folder(folder.clone());
        for number in 0..count {
            let tail = "n".repeat(self.random.below(40) as usize);
            let path = folder.append(&TreePath::new(format!("{number}-{tail}")).unwrap());
            let (kind, meta) = match number % 10 {
                0 => (Kind::Symlink(b"target".to_vec()), Meta::root(0o777)),
                1 => (Kind::File(Content::inline(vec![b'x'; 10])), self.meta()),
                _ => (Kind::File(Content::inline([])), self.meta()),
            };
            self.put(path, kind, meta);
        }
        self.folders.pop();
    }

    fn attributes(&mut self, count: usize) {
        for number in 0..count {
            let path = self.place();
            if number % 5 == 0 {
                self.folder(path.clone());
            } else {
                self.file(path.clone(), b"has attributes".to_vec());
            }
            let mut xattrs = imagebuilder::tree::Xattrs::new();
            // In the inode, in a block, filling a block to the last byte, in inodes of their own.
            let length = *self.random.one_of(&[0, 1, 20, 60, 300, 4000, 4024, 4040, 4096, 4096, 9000, 65_536]);
            xattrs.insert(b"user.large".to_vec(), self.random.bytes(length));
            for extra in 0..self.random.below(4) {
                xattrs.insert(format!("trusted.{extra}").into_bytes(), self.random.bytes(7 + extra as usize));
            }
            if number % 3 == 0 {
                let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                xattrs.insert(b"security.capability".to_vec(), capability.to_vec());
            }
            if number % 4 == 1 {
                let entry =
                    |tag: u8, permission: u8, id: u32| [&[tag, 0, permission, 0][..], &id.to_le_bytes()].concat();
                let entries =
                    [entry(1, 6, !0), entry(2, 4, 1000), entry(4, 4, !0), entry(0x10, 4, !0), entry(0x20, 0, !0)];
                let list = [2u32.to_le_bytes().to_vec(), entries.concat()].concat();
                xattrs.insert(b"system.posix_acl_access".to_vec(), list);
            }
            self.tree.get_mut(&path).unwrap().meta.xattrs = xattrs;
        }
    }

    /// The names of a file after its first.
    fn links(&mut self, count: usize) {
        let first = self.place();
        let size = self.random.below(20_000) as usize;
        let kind = match self.random.below(4) {
            0 => Kind::CharDevice { major: 1, minor: 3 },
            1 => Kind::Symlink(b"linked link".to_vec()),
            _ => Kind::File(Content::inline(self.random.bytes(size))),
        };
        let mut names = vec![first];
        names.extend((0..count).map(|_| self.place()));
        names.sort();
        let meta = Meta { mode: if matches!(kind, Kind::Symlink(_)) { 0o777 } else { 0o600 }, ..self.meta() };
        let target = names.remove(0);
        self.put(target.clone(), kind, meta.clone());
        for name in names {
            self.put(name, Kind::HardLink(target.clone()), meta.clone());
        }
    }

    fn sparse(&mut self, size: u64) {
        let islands: Vec<u64> =
            (0..6).map(|index| (size / 6 * index + self.random.below(size / 7)).min(size - 1)).collect();
        let (path, meta) = (self.place(), self.meta());
        self.put(path, Kind::File(sparse_content(size, &islands)), meta);
    }

    fn odd_names(&mut self, count: usize) {
        let folder = self.place();
        self.folder(folder.clone());
        for byte in (1..=255u8).filter(|byte| !b"/.".contains(byte)) {
            self.file(join(&folder, &[byte]), vec![byte]);
        }
        for name in ["...", "..x", ".hidden", " ", "-rf", "lost+found", "%41", "a\\b", "quote\"", "new\nline"] {
            self.file(join(&folder, name.as_bytes()), name.as_bytes().to_vec());
        }
        for _ in 0..count {
            let length = *self.random.one_of(&[1usize, 7, 31, 32, 33, 63, 64, 254, 255]);
            let mut name = self.random.bytes(length);
            name.iter_mut().filter(|byte| [0, b'/', b'.'].contains(byte)).for_each(|byte| *byte = b'_');
            let path = join(&folder, &name);
            if !self.tree.contains(&path) {
                self.file(path, Vec::new());
            }
        }
    }

    fn devices(&mut self, count: usize) {
        for _ in 0..count {
            let (path, meta) = (self.place(), self.meta());
            let major = *self.random.one_of(&[0, 1, 8, 255, 256, 4095]);
            let minor = *self.random.one_of(&[0, 3, 255, 256, 70_000, 0xF_FFFF]);
            let kind = match self.random.below(4) {
                0 => Kind::CharDevice { major, minor },
                1 => Kind::BlockDevice { major, minor },
                2 => Kind::Fifo,
                _ => Kind::Socket,
            };
            self.put(path, kind, meta);
        }
    }

    fn owners(&mut self, count: usize) {
        for _ in 0..count {
            let path = self.place();
            self.file(path.clone(), b"owned".to_vec());
            let ids = [0, 1, 65_535, 65_536, 70_000, 0x7FFF_FFFF, 0xFFFF_FFFE];
            let meta = &mut self.tree.get_mut(&path).unwrap().meta;
            (meta.uid, meta.gid) = (*self.random.one_of(&ids), *self.random.one_of(&ids));
            meta.mode = self.random.below(0o10000) as u16;
        }
    }

    fn times(&mut self, count: usize) {
        for _ in 0..count {
            let path = self.place();
            self.file(path.clone(), Vec::new());
            let seconds = [
                0,
                -1,
                -0x8000_0000,
                0x7FFF_FFFF,
                0x8000_0000,
                0xFFFF_FFFF,
                0x1_0000_0000,
                0x3_7FFF_FFFF,
                4_102_444_800,
            ];
            let nanoseconds = *self.random.one_of(&[0, 1, 500_000_000, 999_999_999]);
            self.tree.get_mut(&path).unwrap().meta.mtime =
                Mtime { seconds: *self.random.one_of(&seconds), nanoseconds };
        }
    }

    fn symlinks(&mut self, count: usize) {
        for _ in 0..count {
            let (path, meta) = (self.place(), Meta { mode: 0o777, ..self.meta() });
            let length = *self.random.one_of(&[1usize, 20, 58, 59, 60, 61, 255, 4000, 4095]);
            let target: Vec<u8> = self.random.bytes(length).iter().map(|byte| (*byte).max(1)).collect();
            self.put(path, Kind::Symlink(target), meta);
        }
    }

    fn small(&mut self, count: usize) {
        for number in 0..count {
            if number % 25 == 0 {
                let path = self.place();
                self.folder(path);
            }
            let path = self.place();
            let size = *self.random.one_of(&[0usize, 1, 511, 512, 4095, 4096, 4097, 8192, 12_345, 70_000]);
            let bytes = if self.random.below(4) == 0 { vec![0; size] } else { self.random.bytes(size) };
            self.file(path, bytes);
        }
    }

    fn large(&mut self, mebibytes: u64) {
        let (path, meta) = (self.place(), self.meta());
        let tail = self.random.below(5000);
        self.put(path, Kind::File(filled_content((mebibytes << 20) + tail)), meta);
    }
}

fn join(folder: &TreePath, name: &[u8]) -> TreePath {
    let inside = if folder.is_root() { name.to_vec() } else { [folder.as_bytes(), b"/", name].concat() };
    TreePath::new(inside).unwrap()
}

/// The size of a content and where its islands lie.
type Shape = (u64, Vec<u64>);

/// Contents that were made before, since digests of gigabytes take a while.
static MADE: Mutex<Vec<(Shape, Content)>> = Mutex::new(Vec::new());

/// Mostly holes, with a little text at some places; the bytes lie in a sparse temporary file.
fn sparse_content(size: u64, islands: &[u64]) -> Content {
    large_content(size, islands, |file| {
        file.set_len(size).unwrap();
        for at in islands {
            file.write_all_at(&b"island"[..6.min((size - at) as usize)], *at).unwrap();
        }
    })
}

/// No zeros at all.
fn filled_content(size: u64) -> Content {
    large_content(size, &[], |file| {
        let block: Vec<u8> = (0..1 << 20).map(|at: u32| (at / 7 % 255) as u8 + 1).collect();
        let mut at = 0;
        while at < size {
            let length = (size - at).min(1 << 20);
            file.write_all_at(&block[..length as usize], at).unwrap();
            at += length;
        }
    })
}

fn large_content(size: u64, islands: &[u64], fill: impl Fn(&File)) -> Content {
    let mut made = MADE.lock().unwrap();
    let key = (size, islands.to_vec());
    if let Some((_, content)) = made.iter().find(|(known, _)| *known == key) {
        return content.clone();
    }
    let file = tempfile::tempfile().unwrap();
    fill(&file);
    let (mut finder, mut hash) = (HoleFinder::default(), Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let length = (size - at).min(1 << 20) as usize;
        file.read_exact_at(&mut buffer[..length], at).unwrap();
        finder.feed(&buffer[..length]);
        hash.update(&buffer[..length]);
        at += length as u64;
    }
    let pack = PackFile::new("temporary".into(), file);
    let digest = Digest::from_bytes(hash.finalize().into());
    let content = Content::packed(digest, size, pack, 0).with_holes(finder.finish());
    made.push((key, content.clone()));
    content
}
