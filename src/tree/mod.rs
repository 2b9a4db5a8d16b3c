//! The root file system as data: path -> {kind, mode, owner, times, xattrs, content digest | link | device, origin}.
//!
//! Owns: [`Tree`] and its pure edits. Packages unpack into a Tree, OS configuration edits one, formats write one,
//! inspection reads one back. Nothing here touches the host's file system except through [`content`], which reads
//! the bytes of a file from where the store keeps them. Paths are bytes, relative to the root, without a leading
//! slash; the root itself is the empty path. `origin` is not part of a Tree's digest.

pub mod clusters;
mod codec;
pub mod content;
pub mod edit;
pub mod holes;
pub mod host;
mod pack_file;
pub mod path;
pub mod quick;
pub mod records;
pub mod store;
mod sweep;

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub use content::{Content, Digest, ReadAt};
pub use pack_file::{PackFile, begin_to_flush};
pub use path::TreePath;

/// Where an entry came from: a package, a document value, a script step. Shared, because thousands of entries have
/// the same one.
pub type Origin = Arc<str>;

/// Extended attributes by full name (`security.capability`), in byte order.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A point in time as POSIX file systems keep it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What `stat` shows, but for the kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The twelve permission bits (0o7777): setuid, setgid, sticky and rwx.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    pub xattrs: Xattrs,
}

impl Meta {
    /// Root-owned with the given permission bits, at the epoch, without extended attributes.
    pub fn root(mode: u16) -> Self {
        Meta { mode, uid: 0, gid: 0, mtime: Mtime::default(), xattrs: Xattrs::new() }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File(Content),
    /// The target as written; not resolved.
    Symlink(Vec<u8>),
    /// Another name of the file at this path. The target is always a [`Kind::File`] (or a device) and sorts before
    /// its links in byte order; metadata of the link repeats that of the target.
    HardLink(TreePath),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub meta: Meta,
    pub kind: Kind,
    pub origin: Origin,
}

/// A whole root file system (or a part of one). Iterates in byte order of the paths, so a parent comes before its
/// children. The root directory is always there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<TreePath, Entry>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

/// Of paths that come twice the last one counts. In byte order of the paths this takes time in proportion.
impl FromIterator<(TreePath, Entry)> for Tree {
    fn from_iter<I: IntoIterator<Item = (TreePath, Entry)>>(entries: I) -> Self {
        let mut entries: BTreeMap<TreePath, Entry> = entries.into_iter().collect();
        for (path, root) in Tree::new().entries {
            entries.entry(path).or_insert(root);
        }
        Tree { entries }
    }
}

impl Tree {
    /// Only a root directory, mode 0755.
    pub fn new() -> Self {
        let root = Entry { meta: Meta::root(0o755), kind: Kind::Directory, origin: Arc::from("") };
        Tree { entries: BTreeMap::from([(TreePath::root(), root)]) }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never true: the root is always there. Present because `len` is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Exactly this path, no symbolic link followed.
    pub fn get(&self, path: &TreePath) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub fn get_mut(&mut self, path: &TreePath) -> Option<&mut Entry> {
        self.entries.get_mut(path)
    }

    pub fn contains(&self, path: &TreePath) -> bool {
        self.entries.contains_key(path)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&TreePath, &Entry)> {
        self.entries.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&TreePath, &mut Entry)> {
        self.entries.iter_mut()
    }

    /// Everything below a directory (not the directory itself), in byte order.
    pub fn below<'a>(&'a self, directory: &'a TreePath) -> impl Iterator<Item = (&'a TreePath, &'a Entry)> {
        // All paths that start with `directory/` are contiguous, because `/` is part of the key.
        let start = if directory.is_root() { TreePath::root() } else { directory.join(b"") };
        self.entries
            .range(start..)
            .take_while(move |(path, _)| path.is_below(directory) || *path == directory)
            .filter(move |(path, _)| *path != directory)
    }

    /// The direct children of a directory, in byte order of their names.
    pub fn children<'a>(&'a self, directory: &'a TreePath) -> impl Iterator<Item = (&'a TreePath, &'a Entry)> {
        self.below(directory).filter(move |(path, _)| path.parent().as_ref() == Some(directory))
    }

    /// Puts an entry at exactly this path, whatever was there; parents are not looked at. For readers that
    /// reproduce what they find; to edit a tree use [`edit`](mod@edit).
    pub fn insert_raw(&mut self, path: TreePath, entry: Entry) -> Option<Entry> {
        self.entries.insert(path, entry)
    }

    /// Takes out exactly this path and nothing below it.
    pub fn remove_raw(&mut self, path: &TreePath) -> Option<Entry> {
        self.entries.remove(path)
    }

    /// The entry whose bytes and metadata a path stands for: itself, or the target of a hard link.
    pub fn inode<'a>(&'a self, path: &'a TreePath) -> Option<(&'a TreePath, &'a Entry)> {
        let entry = self.entries.get(path)?;
        match &entry.kind {
            Kind::HardLink(target) => Some((target, self.entries.get(target)?)),
            _ => Some((path, entry)),
        }
    }

    /// SHA-256 over everything but the origins, in byte order: the identity of the Tree.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for (path, entry) in &self.entries {
            field(path.as_bytes());
            let meta = &entry.meta;
            field(&meta.mode.to_le_bytes());
            field(&meta.uid.to_le_bytes());
            field(&meta.gid.to_le_bytes());
            field(&meta.mtime.seconds.to_le_bytes());
            field(&meta.mtime.nanoseconds.to_le_bytes());
            field(&(meta.xattrs.len() as u64).to_le_bytes());
            for (name, value) in &meta.xattrs {
                field(name);
                field(value);
            }
            match &entry.kind {
                Kind::Directory => field(b"d"),
                Kind::File(content) => {
                    field(b"f");
                    field(content.digest().as_bytes());
                }
                Kind::Symlink(target) => {
                    field(b"l");
                    field(target);
                }
                Kind::HardLink(target) => {
                    field(b"h");
                    field(target.as_bytes());
                }
                Kind::CharDevice { major, minor } => {
                    field(b"c");
                    field(&major.to_le_bytes());
                    field(&minor.to_le_bytes());
                }
                Kind::BlockDevice { major, minor } => {
                    field(b"b");
                    field(&major.to_le_bytes());
                    field(&minor.to_le_bytes());
                }
                Kind::Fifo => field(b"p"),
                Kind::Socket => field(b"s"),
            }
        }
        Digest::from_bytes(hash.finalize().into())
    }
}
