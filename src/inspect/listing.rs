//! What a reader finds in a file system: every path with its metadata, and where the bytes of the files lie.
//!
//! Owns: [`Listing`], made without reading the content of any file, and the way from it to a [`Tree`], which reads
//! all of it once for the digests. The contents of that Tree stay in the image.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::source::SharedSource;
use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::tree::{Content, Digest, Entry, Kind, Meta, Origin, ReadAt, Tree, TreePath};

/// What a hostile image can make us keep in memory as names, in bytes.
const MAX_PATHS: u64 = 1 << 30;

/// A stretch of a file and where it lies in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub logical: u64,
    pub physical: u64,
    pub length: u64,
}

/// The bytes of a file: runs in ascending order without overlap; what no run covers is zero.
#[derive(Clone)]
pub struct FileData {
    pub size: u64,
    pub runs: Arc<[Run]>,
    pub source: SharedSource,
}

impl FileData {
    pub fn bytes(&self, most: u64) -> Result<Vec<u8>> {
        if self.size > most {
            return Err(Error::build(format!("the file has {} bytes, more than {most}", self.size)));
        }
        let mut bytes = vec![0; self.size as usize];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    pub fn digest(&self) -> Result<Digest> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; self.size.min(1 << 20) as usize];
        let mut at = 0;
        while at < self.size {
            interrupt::check()?;
            let length = (self.size - at).min(buffer.len() as u64) as usize;
            self.read_at(&mut buffer[..length], at)?;
            hash.update(&buffer[..length]);
            at += length as u64;
        }
        Ok(Digest::from_bytes(hash.finalize().into()))
    }
}

impl ReadAt for FileData {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        super::source::check(self.size, offset, buffer.len())?;
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        let first = self.runs.partition_point(|run| run.logical + run.length <= offset);
        for run in self.runs[first..].iter().take_while(|run| run.logical < end) {
            let (from, to) = (run.logical.max(offset), (run.logical + run.length).min(end));
            let target = &mut buffer[(from - offset) as usize..(to - offset) as usize];
            self.source.read_at(target, run.physical + (from - run.logical))?;
        }
        Ok(())
    }
}

/// As [`Kind`], without a digest for the bytes.
#[derive(Clone)]
pub enum Found {
    Directory,
    File(FileData),
    Symlink(Vec<u8>),
    HardLink(TreePath),
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
    Socket,
}

#[derive(Clone)]
pub struct Item {
    pub meta: Meta,
    pub found: Found,
    /// What the file system calls it: an inode, a first cluster.
    pub number: u64,
}

#[derive(Clone, Default)]
pub struct Listing {
    items: BTreeMap<TreePath, Item>,
    path_bytes: u64,
}

impl Listing {
    /// Puts an entry; two of one path are an error, as is more than memory should hold.
    pub fn insert(&mut self, path: TreePath, item: Item) -> Result<()> {
        self.path_bytes += path.as_bytes().len() as u64 + 64;
        if self.path_bytes > MAX_PATHS {
            return Err(Error::build("there are more files than this program is willing to list"));
        }
        match self.items.insert(path.clone(), item) {
            None => Ok(()),
            Some(_) => Err(Error::build(format!("{path} is there twice"))),
        }
    }

    pub fn get(&self, path: &TreePath) -> Option<&Item> {
        self.items.get(path)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Item)> {
        self.items.iter()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn remove(&mut self, path: &TreePath) -> Option<Item> {
        self.items.remove(path)
    }

    /// The item whose bytes a path stands for: itself, or the target of a hard link.
    pub fn inode(&self, path: &TreePath) -> Option<&Item> {
        match self.items.get(path) {
            Some(Item { found: Found::HardLink(target), .. }) => self.items.get(target),
            found => found,
        }
    }

    /// Of several names of one file, the first in byte order is the file, the others link to it.
    pub fn link_names(&mut self) {
        let mut first: BTreeMap<u64, TreePath> = BTreeMap::new();
        for (path, item) in &mut self.items {
            if matches!(item.found, Found::Directory | Found::HardLink(_)) {
                continue;
            }
            match first.get(&item.number) {
                Some(target) => item.found = Found::HardLink(target.clone()),
                None => {
                    first.insert(item.number, path.clone());
                }
            }
        }
    }

    /// For archives, whose links name each other in any order: links point to files, of several names of one file the
    /// first in byte order is the file, and every folder on the way to a path is there.
    pub fn settle_links(&mut self) -> Result<()> {
        let links: BTreeMap<TreePath, TreePath> = self
            .items
            .iter()
            .filter_map(|(path, item)| match &item.found {
                Found::HardLink(target) => Some((path.clone(), target.clone())),
                _ => None,
            })
            .collect();
        let mut files: BTreeMap<&TreePath, &TreePath> = BTreeMap::new();
        for path in links.keys() {
            let (mut trail, mut at) = (Vec::new(), path);
            while let Some(target) = links.get(at).filter(|_| !files.contains_key(at)) {
                trail.push(at);
                if trail.len() > links.len() {
                    return Err(Error::build(format!("{path} is a link to itself")));
                }
                at = target;
            }
            let file = files.get(at).copied().unwrap_or(at);
            files.extend(trail.into_iter().map(|link| (link, file)));
        }
        for (path, file) in files {
            let target = self.items.get(file).filter(|item| !matches!(item.found, Found::Directory)).cloned();
            let target = target.ok_or_else(|| Error::build(format!("{path} is a link to nothing")))?;
            self.items.insert(path.clone(), target);
        }
        self.link_names();
        let folders: Vec<TreePath> = self.items.keys().filter_map(TreePath::parent).collect();
        for folder in folders {
            let mut missing = Some(folder);
            while let Some(path) = missing.filter(|path| !self.items.contains_key(path)) {
                missing = path.parent();
                self.insert(path, Item { meta: Meta::root(0o755), found: Found::Directory, number: 0 })?;
            }
        }
        Ok(())
    }

    /// Where a path really lies, all symbolic links followed inside the listing.
    pub fn resolve(&self, path: &TreePath) -> Result<TreePath> {
        path.follow(|at| match self.inode(at).map(|item| &item.found) {
            Some(Found::Symlink(target)) => Some(target),
            _ => None,
        })
    }

    /// Takes out the empty `lost+found` that every ext4 has: it belongs to the file system, not to the Tree.
    pub fn without_lost_found(mut self) -> Listing {
        let path = TreePath::literal("lost+found");
        let plain = |item: &Item| {
            let meta = &item.meta;
            matches!(item.found, Found::Directory)
                && (meta.mode, meta.uid, meta.gid) == (0o700, 0, 0)
                && meta.xattrs.is_empty()
        };
        let empty = !self.items.keys().any(|other| other.is_below(&path));
        if empty && self.items.get(&path).is_some_and(plain) {
            self.items.remove(&path);
        }
        self
    }

    /// Puts another file system at a folder, which its root replaces.
    pub fn mount(&mut self, at: &TreePath, inner: Listing) -> Result<()> {
        self.items.retain(|path, _| path != at && !path.is_below(at));
        for (path, mut item) in inner.items {
            if let Found::HardLink(target) = &mut item.found {
                *target = at.append(target);
            }
            self.insert(at.append(&path), item)?;
        }
        Ok(())
    }

    /// Reads every file once, several at a time, for its digest.
    pub fn tree(&self, origin: &Origin) -> Result<Tree> {
        let mut files: Vec<(&TreePath, &FileData)> = self
            .items
            .iter()
            .filter_map(|(path, item)| match &item.found {
                Found::File(data) => Some((path, data)),
                _ => None,
            })
            .collect();
        // In the order of the disk, so that compressed clusters are unpacked once.
        files.sort_by_key(|(_, data)| data.runs.first().map_or(0, |run| run.physical));
        let contents: BTreeMap<&TreePath, Content> = files
            .par_iter()
            .map(|(path, data)| {
                let digest = data.digest().with_context(|| format!("reading {path}"))?;
                Ok((*path, Content::elsewhere(digest, data.size, Arc::new((*data).clone()))))
            })
            .collect::<Result<_>>()?;
        let mut tree = Tree::new();
        for (path, item) in &self.items {
            let kind = match &item.found {
                Found::Directory => Kind::Directory,
                Found::File(_) => {
                    Kind::File(contents.get(path).cloned().ok_or_else(|| Error::build("a file has no content"))?)
                }
                Found::Symlink(target) => Kind::Symlink(target.clone()),
                Found::HardLink(target) => Kind::HardLink(target.clone()),
                Found::CharDevice { major, minor } => Kind::CharDevice { major: *major, minor: *minor },
                Found::BlockDevice { major, minor } => Kind::BlockDevice { major: *major, minor: *minor },
                Found::Fifo => Kind::Fifo,
                Found::Socket => Kind::Socket,
            };
            tree.insert_raw(path.clone(), Entry { meta: item.meta.clone(), kind, origin: origin.clone() });
        }
        Ok(tree)
    }
}
