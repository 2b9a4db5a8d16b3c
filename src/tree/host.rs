//! A Tree as a folder of the host, for the steps that run foreign programs in it.
//!
//! Owns: [`Folder`]: [`Folder::show`] makes the folder equal to a Tree and writes only what differs;
//! [`Folder::scan`] turns what lies there into a Tree, with the bytes of new files in the store. Files that have not
//! been touched since (same inode, size, times) are not read again. Needs the right to set owners
//! (`sandbox::userns`). Device nodes that the kernel does not let us make are remembered instead.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use sha2::{Digest as _, Sha256};

use super::holes::is_zero;
use super::store::PackWriter;
use super::{Content, Digest, Entry, Kind, Meta, Mtime, Origin, Tree, TreePath, Xattrs};
use crate::error::{Context, Error, Result};
use crate::interrupt;

const CHUNK: usize = 1 << 20;
/// The kernel's limit for the value of an extended attribute (`XATTR_SIZE_MAX`, linux/limits.h).
const XATTR_BYTES: usize = 65_536;

/// What tells that a file is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(meta: &std::fs::Metadata) -> Self {
        Stamp {
            inode: meta.ino(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// A folder that holds a Tree, and what is known about the bytes of its files.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    known: BTreeMap<TreePath, (Stamp, Content)>,
    /// Nodes that could not be made.
    devices: BTreeMap<TreePath, Entry>,
    /// Files that somebody has put there since, by inode; only looked up.
    placed: HashMap<u64, (Stamp, Content)>,
    /// What is in the folder, unless somebody has been there since.
    shown: Option<Tree>,
    /// Somebody has asked where the folder is.
    visited: AtomicBool,
}

impl Folder {
    /// Makes an empty folder.
    pub fn create(path: &Path) -> Result<Self> {
        std::fs::create_dir(path).with_context(|| format!("making {}", path.display()))?;
        let folder = Folder {
            path: path.to_path_buf(),
            known: BTreeMap::new(),
            devices: BTreeMap::new(),
            placed: HashMap::new(),
            shown: None,
            visited: AtomicBool::new(false),
        };
        set_meta(path, &Meta::root(0o755), false)?;
        Ok(folder)
    }

    /// Whoever asks may change what is there: until the next [`Folder::show`] or [`Folder::scan`], nothing is known for
    /// certain any more.
    pub fn path(&self) -> &Path {
        self.visited.store(true, Ordering::Relaxed);
        &self.path
    }

    fn place(&self, path: &TreePath) -> PathBuf {
        if path.is_root() { self.path.clone() } else { self.path.join(path.to_host()) }
    }

    /// Remembers a device node that stands at `path` though the host has nothing there.
    pub fn record_device(&mut self, path: TreePath, entry: Entry) {
        self.devices.insert(path, entry);
    }

    /// Says what the bytes of a file are that was put there, as it was then. [`Folder::scan`] does not read it again if
    /// it still is the same.
    pub fn record_file(&mut self, stat: &rustix::fs::Stat, content: Content) {
        let stamp = Stamp {
            inode: stat.st_ino,
            size: stat.st_size as u64,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as i64),
        };
        self.placed.insert(stat.st_ino, (stamp, content));
    }

    /// Makes the folder equal to a Tree.
    pub fn show(&mut self, tree: &Tree) -> Result<()> {
        check_parents(tree)?;
        let shown = self.shown.take().filter(|_| !self.visited.load(Ordering::Relaxed));
        let differs = match shown {
            Some(shown) => self.clear_known(tree, &shown)?,
            None => self.clear(tree)?,
        };
        self.write(tree, &differs)?;
        (self.shown, self.visited) = (Some(tree.clone()), AtomicBool::new(false));
        Ok(())
    }

    /// Removes what the Tree does not have; what it has and the folder has not.
    fn clear(&mut self, tree: &Tree) -> Result<BTreeSet<TreePath>> {
        let found = self.walk()?;
        for (path, meta) in found.iter().rev() {
            let same_kind = tree.get(path).is_some_and(|entry| matches!(entry.kind, Kind::Directory) == meta.is_dir());
            if !same_kind {
                self.delete(path, meta.is_dir())?;
            }
        }
        self.devices.clear();
        let mut differs = BTreeSet::new();
        for (path, entry) in tree.iter() {
            interrupt::check()?;
            if !self.is_as_wanted(path, entry, found.get(path))? {
                differs.insert(path.clone());
            }
        }
        Ok(differs)
    }

    /// The same where nobody has been in the folder since it was made equal to `shown`: nothing has to be looked at.
    fn clear_known(&mut self, tree: &Tree, shown: &Tree) -> Result<BTreeSet<TreePath>> {
        let same = |one: &Entry, two: &Entry| one.meta == two.meta && one.kind == two.kind;
        for (path, before) in shown.iter().rev() {
            let after = tree.get(path);
            let was_folder = matches!(before.kind, Kind::Directory);
            if after.is_some_and(|after| same(before, after)) {
                continue;
            }
            let remembered = self.devices.remove(path).is_some();
            let same_kind = after.is_some_and(|after| matches!(after.kind, Kind::Directory) == was_folder);
            if !same_kind && !remembered {
                self.delete(path, was_folder)?;
            }
        }
        let differs = tree.iter().filter(|(path, after)| !shown.get(path).is_some_and(|before| same(before, after)));
        Ok(differs.map(|(path, _)| path.clone()).collect())
    }

    /// Writes what differs.
    fn write(&mut self, tree: &Tree, differs: &BTreeSet<TreePath>) -> Result<()> {
        let mut files = Vec::new();
        for (path, entry) in tree.iter().filter(|(path, _)| differs.contains(*path)) {
            interrupt::check()?;
            match &entry.kind {
                Kind::File(_) => files.push((path, entry)),
                Kind::HardLink(_) => {}
                Kind::Directory => self.make_directory(path, entry)?,
                _ => self.make_special(path, entry)?,
            }
        }
        let written: Vec<(TreePath, Stamp, Content)> =
            files.par_iter().map(|(path, entry)| self.write_file(path, entry)).collect::<Result<_>>()?;
        self.known.extend(written.into_iter().map(|(path, stamp, content)| (path, (stamp, content))));
        // A rewritten file is a new inode, so all links to it are made anew.
        for (path, entry) in tree.iter() {
            if let Kind::HardLink(target) = &entry.kind {
                self.link(path, target)?;
            }
        }
        self.refresh_stamps(tree)?;
        for (path, entry) in tree.iter().rev() {
            if matches!(entry.kind, Kind::Directory) {
                set_mtime(&self.place(path), entry.meta.mtime)?;
            }
        }
        Ok(())
    }

    /// Everything in the folder, the root too, by `lstat`.
    fn walk(&self) -> Result<BTreeMap<TreePath, std::fs::Metadata>> {
        let mut found = BTreeMap::new();
        let meta = self.path.symlink_metadata().with_context(|| format!("looking at {}", self.path.display()))?;
        found.insert(TreePath::root(), meta);
        let mut todo = vec![TreePath::root()];
        while let Some(directory) = todo.pop() {
            interrupt::check()?;
            let place = self.place(&directory);
            let reading = || format!("reading folder {}", place.display());
            for entry in std::fs::read_dir(&place).with_context(reading)? {
                let entry = entry.with_context(reading)?;
                let path = directory.join(entry.file_name().as_bytes());
                let meta = entry.metadata().with_context(|| format!("looking at {}", entry.path().display()))?;
                if meta.is_dir() {
                    todo.push(path.clone());
                }
                found.insert(path, meta);
            }
        }
        Ok(found)
    }

    fn delete(&mut self, path: &TreePath, directory: bool) -> Result<()> {
        let place = self.place(path);
        // Deepest first, so a folder to delete is empty by now, or holds only what is to be replaced in it.
        let gone = if directory { std::fs::remove_dir_all(&place) } else { std::fs::remove_file(&place) };
        gone.with_context(|| format!("removing {}", place.display()))?;
        self.known.remove(path);
        Ok(())
    }

    fn is_as_wanted(&self, path: &TreePath, entry: &Entry, found: Option<&std::fs::Metadata>) -> Result<bool> {
        let Some(found) = found else { return Ok(false) };
        let kind = found.file_type();
        let same = match &entry.kind {
            Kind::Directory => kind.is_dir(),
            Kind::File(content) => {
                kind.is_file()
                    && self.known.get(path).is_some_and(|(stamp, known)| *stamp == Stamp::of(found) && known == content)
            }
            Kind::Symlink(target) => {
                kind.is_symlink() && {
                    let place = self.place(path);
                    let now = std::fs::read_link(&place).with_context(|| format!("reading {}", place.display()))?;
                    now.as_os_str().as_bytes() == target
                }
            }
            // Made anew in any case, or too rare to matter.
            _ => false,
        };
        Ok(same && read_meta(&self.place(path), found)? == entry.meta)
    }

    fn make_directory(&self, path: &TreePath, entry: &Entry) -> Result<()> {
        let place = self.place(path);
        match std::fs::create_dir(&place) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("making {}", place.display()));
            }
            Err(_) => {
                for name in read_xattrs(&place)?.keys().filter(|name| !entry.meta.xattrs.contains_key(*name)) {
                    rustix::fs::lremovexattr(&place, OsStr::from_bytes(name))
                        .with_context(|| format!("removing an attribute of {}", place.display()))?;
                }
            }
            Ok(()) => {}
        }
        set_meta(&place, &entry.meta, false)
    }

    fn write_file(&self, path: &TreePath, entry: &Entry) -> Result<(TreePath, Stamp, Content)> {
        interrupt::check()?;
        let Kind::File(content) = &entry.kind else { return Err(Error::build(format!("{path} is not a file"))) };
        let place = self.place(path);
        let writing = || format!("writing {}", place.display());
        remove_if_there(&place)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&place).with_context(writing)?;
        copy_checked(content, &mut file).with_context(writing)?;
        set_meta(&place, &entry.meta, false)?;
        let meta = file.metadata().with_context(writing)?;
        Ok((path.clone(), Stamp::of(&meta), content.clone()))
    }

    fn make_special(&mut self, path: &TreePath, entry: &Entry) -> Result<()> {
        let place = self.place(path);
        remove_if_there(&place)?;
        let making = || format!("making {}", place.display());
        let node = |kind, device| rustix::fs::mknodat(CWD, &place, kind, Mode::from_raw_mode(0o600), device);
        let device = |major: &u32, minor: &u32| rustix::fs::makedev(*major, *minor);
        let made = match &entry.kind {
            Kind::Symlink(target) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(target), &place).with_context(making)?;
                return set_meta(&place, &entry.meta, true);
            }
            Kind::CharDevice { major, minor } => node(FileType::CharacterDevice, device(major, minor)),
            Kind::BlockDevice { major, minor } => node(FileType::BlockDevice, device(major, minor)),
            Kind::Fifo => node(FileType::Fifo, 0),
            Kind::Socket => node(FileType::Socket, 0),
            Kind::Directory | Kind::File(_) | Kind::HardLink(_) => return Ok(()),
        };
        match made {
            Ok(()) => set_meta(&place, &entry.meta, false),
            Err(rustix::io::Errno::PERM)
                if matches!(entry.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) =>
            {
                self.devices.insert(path.clone(), entry.clone());
                Ok(())
            }
            Err(error) => Err(error).with_context(making),
        }
    }

    fn link(&self, path: &TreePath, target: &TreePath) -> Result<()> {
        let (place, target) = (self.place(path), self.place(target));
        let inode = |place: &Path| place.symlink_metadata().map(|meta| meta.ino()).ok();
        let wanted = inode(&target);
        if wanted.is_some() && inode(&place) == wanted {
            return Ok(());
        }
        remove_if_there(&place)?;
        std::fs::hard_link(&target, &place)
            .with_context(|| format!("linking {} to {}", place.display(), target.display()))
    }

    /// Making a hard link changes the times of the file.
    fn refresh_stamps(&mut self, tree: &Tree) -> Result<()> {
        for (_, entry) in tree.iter() {
            let Kind::HardLink(target) = &entry.kind else { continue };
            let place = self.place(target);
            if let Some((stamp, _)) = self.known.get_mut(target) {
                let meta = place.symlink_metadata().with_context(|| format!("looking at {}", place.display()))?;
                *stamp = Stamp::of(&meta);
            }
        }
        Ok(())
    }

    /// Turns the folder into a Tree. `origin` tells where a path comes from. Bytes not known yet go into the pack.
    pub fn scan(&mut self, pack: &PackWriter, origin: &(dyn Fn(&TreePath) -> Origin + Sync)) -> Result<Tree> {
        let found: Vec<(TreePath, std::fs::Metadata)> = self.walk()?.into_iter().collect();
        let looked = found.par_iter().map(|(path, meta)| {
            interrupt::check()?;
            Ok((read_meta(&self.place(path), meta)?, self.special_kind(path, meta)?))
        });
        let looked: Vec<(Meta, Kind)> = looked.collect::<Result<_>>()?;
        let mut tree = Tree::new();
        let mut inodes: BTreeMap<u64, TreePath> = BTreeMap::new();
        let mut unread: Vec<(TreePath, Stamp)> = Vec::new();
        let mut known = BTreeMap::new();
        for ((path, meta), (entry_meta, kind)) in found.iter().zip(looked) {
            let several = !meta.is_dir() && meta.nlink() > 1;
            if let Some(first) = several.then(|| inodes.get(&meta.ino())).flatten() {
                let entry = Entry { meta: entry_meta, kind: Kind::HardLink(first.clone()), origin: origin(path) };
                tree.insert_raw(path.clone(), entry);
                continue;
            }
            if several {
                inodes.insert(meta.ino(), path.clone());
            }
            if meta.is_file() {
                let stamp = Stamp::of(meta);
                let seen = self.known.get(path).filter(|(seen, _)| *seen == stamp);
                match seen.or_else(|| self.placed.get(&stamp.inode)) {
                    Some((seen, content)) if *seen == stamp => {
                        known.insert(path.clone(), (stamp, content.clone()));
                    }
                    _ => unread.push((path.clone(), stamp)),
                }
            }
            tree.insert_raw(path.clone(), Entry { meta: entry_meta, kind, origin: origin(path) });
        }
        let stored: Vec<Content> =
            unread.par_iter().map(|(path, stamp)| self.store_file(path, stamp, pack)).collect::<Result<_>>()?;
        known.extend(unread.into_iter().zip(stored).map(|((path, stamp), content)| (path, (stamp, content))));
        for (path, (_, content)) in &known {
            if let Some(entry) = tree.get_mut(path) {
                entry.kind = Kind::File(content.clone());
            }
        }
        self.known = known;
        self.placed.clear();
        self.add_devices(&mut tree);
        (self.shown, self.visited) = (Some(tree.clone()), AtomicBool::new(false));
        Ok(tree)
    }

    /// The kind of anything; files get their content later.
    fn special_kind(&self, path: &TreePath, meta: &std::fs::Metadata) -> Result<Kind> {
        let kind = meta.file_type();
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        Ok(if kind.is_dir() {
            Kind::Directory
        } else if kind.is_symlink() {
            let place = self.place(path);
            let target = std::fs::read_link(&place).with_context(|| format!("reading {}", place.display()))?;
            Kind::Symlink(target.into_os_string().into_encoded_bytes())
        } else if kind.is_char_device() {
            Kind::CharDevice { major, minor }
        } else if kind.is_block_device() {
            Kind::BlockDevice { major, minor }
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_socket() {
            Kind::Socket
        } else {
            Kind::File(Content::inline([]))
        })
    }

    fn store_file(&self, path: &TreePath, stamp: &Stamp, pack: &PackWriter) -> Result<Content> {
        interrupt::check()?;
        let place = self.place(path);
        let file = File::open(&place).with_context(|| format!("opening {}", place.display()))?;
        let content = pack.add_file(&file).with_context(|| format!("storing {}", place.display()))?;
        if content.size() == stamp.size {
            return Ok(content);
        }
        Err(Error::build(format!("{} changed while it was read", place.display())))
    }

    /// A remembered node stays as long as its folder is there and nothing else has taken its place.
    fn add_devices(&mut self, tree: &mut Tree) {
        self.devices.retain(|path, entry| {
            let folder = path.parent().and_then(|parent| tree.get(&parent)).map(|parent| &parent.kind);
            let stays = matches!(folder, Some(Kind::Directory)) && !tree.contains(path);
            if stays {
                tree.insert_raw(path.clone(), entry.clone());
            }
            stays
        });
    }
}

/// Every parent must be a folder of the Tree: then no path leads through a link when it is made on the host.
fn check_parents(tree: &Tree) -> Result<()> {
    for (path, entry) in tree.iter() {
        let parent = path.parent().and_then(|parent| tree.get(&parent));
        if !path.is_root() && !parent.is_some_and(|parent| parent.kind == Kind::Directory) {
            return Err(Error::build(format!("the parent of {path} is not a folder")));
        }
        if path.is_root() && entry.kind != Kind::Directory {
            return Err(Error::build("the root of the tree is not a folder"));
        }
    }
    Ok(())
}

fn remove_if_there(place: &Path) -> Result<()> {
    match std::fs::remove_file(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", place.display()))
        }
        _ => Ok(()),
    }
}

fn copy_checked(content: &Content, file: &mut File) -> Result<()> {
    let mut reader = content.reader();
    let mut buffer = vec![0; CHUNK.min(content.size() as usize + 1)];
    // The store compares what it gives out.
    let compared = content.segment().is_some();
    let mut hash = Sha256::new();
    loop {
        let read = reader.read(&mut buffer).context("reading content from the store")?;
        if read == 0 {
            break;
        }
        if !compared {
            hash.update(&buffer[..read]);
        }
        if is_zero(&buffer[..read]) {
            file.seek_relative(read as i64).context("copying content")?;
        } else {
            file.write_all(&buffer[..read]).context("copying content")?;
        }
    }
    file.set_len(content.size()).context("copying content")?;
    if compared || Digest::from_bytes(hash.finalize().into()) == content.digest() {
        return Ok(());
    }
    Err(Error::new(crate::error::Kind::Authenticity, format!("content {} is damaged in the store", content.digest()))
        .hint("remove the cache folder, it will be filled again"))
}

/// What `lstat` and the extended attributes say.
fn read_meta(place: &Path, meta: &std::fs::Metadata) -> Result<Meta> {
    Ok(Meta {
        mode: (meta.mode() & 0o7777) as u16,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: Mtime { seconds: meta.mtime(), nanoseconds: meta.mtime_nsec() as u32 },
        xattrs: if meta.is_file() || meta.is_dir() { read_xattrs(place)? } else { Xattrs::new() },
    })
}

/// Labels of the host's security modules are not part of the Tree.
fn belongs_to_the_tree(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")
}

fn read_xattrs(place: &Path) -> Result<Xattrs> {
    let reading = || format!("reading extended attributes of {}", place.display());
    let mut list = vec![0u8; 256];
    let length = loop {
        match rustix::fs::llistxattr(place, &mut list) {
            Ok(length) => break length,
            Err(rustix::io::Errno::NOTSUP) => break 0,
            Err(rustix::io::Errno::RANGE) if list.len() < XATTR_BYTES => list.resize(XATTR_BYTES, 0),
            Err(error) => return Err(error).with_context(reading),
        }
    };
    let mut xattrs = Xattrs::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| belongs_to_the_tree(name)) {
        let mut value = vec![0; XATTR_BYTES];
        let length = rustix::fs::lgetxattr(place, OsStr::from_bytes(name), &mut value).with_context(reading)?;
        value.truncate(length);
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}

/// Owner first (it clears setuid bits and capabilities), then mode, attributes and time.
fn set_meta(place: &Path, meta: &Meta, symlink: bool) -> Result<()> {
    let setting = || format!("setting owner and mode of {}", place.display());
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    rustix::fs::chownat(CWD, place, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).with_context(setting)?;
    if !symlink {
        rustix::fs::chmodat(CWD, place, Mode::from_raw_mode(meta.mode.into()), AtFlags::empty())
            .with_context(setting)?;
        for (name, value) in &meta.xattrs {
            rustix::fs::lsetxattr(place, OsStr::from_bytes(name), value, XattrFlags::empty()).with_context(setting)?;
        }
    }
    set_mtime(place, meta.mtime)
}

fn set_mtime(place: &Path, mtime: Mtime) -> Result<()> {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)
        .with_context(|| format!("setting the time of {}", place.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::store::Store;
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn origin(path: &TreePath) -> Origin {
        Arc::from(if path.is_root() { "" } else { "test" })
    }

    fn privileged() -> bool {
        let yes = rustix::process::geteuid().is_root();
        if !yes {
            eprintln!("skipped: setting owners needs root");
        }
        yes
    }

    fn sample() -> Tree {
        let origin: Origin = Arc::from("test");
        let mut tree = Tree::new();
        let time = Mtime { seconds: 1_600_000_000, nanoseconds: 5 };
        let meta = |mode, uid| Meta { mode, uid, gid: uid + 1, mtime: time, ..Meta::root(0) };
        tree.write_file(&path("usr/bin/su"), vec![5; 3_000_000], meta(0o4755, 0), &origin).unwrap();
        tree.write_file(&path("etc/shadow"), "secret", meta(0o640, 42), &origin).unwrap();
        tree.write_file(&path("etc/empty"), "", meta(0o000, 0), &origin).unwrap();
        tree.write_symlink(&path("bin"), "usr/bin", time, &origin).unwrap();
        for (name, kind) in [
            ("usr/bin/z-link", Kind::HardLink(path("usr/bin/su"))),
            ("dev/null", Kind::CharDevice { major: 1, minor: 3 }),
            ("run/pipe", Kind::Fifo),
        ] {
            let meta = tree.get(&path("usr/bin/su")).filter(|_| name.ends_with("link")).map(|entry| entry.meta.clone());
            let meta = meta.unwrap_or(Meta { mtime: time, ..Meta::root(0o666) });
            tree.put(&path(name), Entry { meta, kind, origin: origin.clone() }).unwrap();
        }
        let mut tmp = meta(0o1777, 0);
        tmp.gid = 0;
        tree.insert_raw(path("tmp"), Entry { meta: tmp, kind: Kind::Directory, origin });
        for name in ["usr", "usr/bin", "etc", "dev", "run"] {
            tree.get_mut(&path(name)).unwrap().meta.mtime = time;
        }
        tree
    }

    #[test]
    fn a_tree_survives_the_trip_to_the_host() {
        if !privileged() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let pack = Store::open(scratch.path()).unwrap().writer(Digest::of(b"key")).unwrap();
        let mut folder = Folder::create(&scratch.path().join("root")).unwrap();
        let tree = sample();
        folder.show(&tree).unwrap();
        assert_eq!(folder.scan(&pack, &origin).unwrap(), tree);
        // A second scan by someone who has to read everything.
        folder.known.clear();
        let again = folder.scan(&pack, &origin).unwrap();
        assert_eq!((again.digest(), &again), (tree.digest(), &tree));
        let big = again.read_file(&path("usr/bin/z-link")).unwrap().unwrap();
        assert_eq!(big, vec![5; 3_000_000]);
    }

    #[test]
    fn only_differences_are_written() {
        if !privileged() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let pack = Store::open(scratch.path()).unwrap().writer(Digest::of(b"key")).unwrap();
        let mut folder = Folder::create(&scratch.path().join("root")).unwrap();
        let tree = sample();
        folder.show(&tree).unwrap();
        let root = folder.path().to_path_buf();
        let inode = |name: &str| root.join(name).symlink_metadata().unwrap().ino();
        let kept = inode("usr/bin/su");
        // What a script might do.
        std::fs::write(root.join("etc/shadow"), "edited").unwrap();
        std::fs::write(root.join("etc/new"), "new").unwrap();
        std::fs::remove_file(root.join("usr/bin/z-link")).unwrap();
        std::fs::remove_file(root.join("bin")).unwrap();
        std::fs::create_dir_all(root.join("bin/sub")).unwrap();
        let scanned = folder.scan(&pack, &origin).unwrap();
        assert_eq!(scanned.read_file(&path("etc/shadow")).unwrap().as_deref(), Some(&b"edited"[..]));
        assert_eq!(scanned.get(&path("bin")).unwrap().kind, Kind::Directory);
        assert!(scanned.contains(&path("etc/new")) && !scanned.contains(&path("usr/bin/z-link")));
        folder.show(&tree).unwrap();
        assert_eq!(folder.scan(&pack, &origin).unwrap(), tree);
        assert_eq!(inode("usr/bin/su"), kept);
    }

    #[test]
    fn what_nobody_has_touched_is_not_looked_at() {
        if !privileged() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let pack = Store::open(scratch.path()).unwrap().writer(Digest::of(b"key")).unwrap();
        let mut folder = Folder::create(&scratch.path().join("root")).unwrap();
        folder.show(&sample()).unwrap();
        let mut other = sample();
        let (meta, by) = (Meta::root(0o600), Arc::from("test"));
        other.write_file(&path("etc/shadow"), "edited", meta.clone(), &by).unwrap();
        other.write_file(&path("run/new/file"), "new", meta.clone(), &by).unwrap();
        // The file of two names gets another one, and what was a link, a device and a pipe becomes something else.
        other.write_file(&path("usr/bin/su"), "small", meta.clone(), &by).unwrap();
        let meta_of = other.get(&path("usr/bin/su")).unwrap().meta.clone();
        other.get_mut(&path("usr/bin/z-link")).unwrap().meta = meta_of;
        for name in ["bin", "dev/null", "run/pipe"] {
            assert!(other.remove(&path(name)).unwrap());
        }
        other.write_file(&path("bin/sub/file"), "folder", meta.clone(), &by).unwrap();
        other.write_file(&path("dev/null"), "file", meta, &by).unwrap();
        assert!(other.remove(&path("etc/empty")).unwrap());
        folder.show(&other).unwrap();
        folder.known.clear();
        assert_eq!(folder.scan(&pack, &origin).unwrap(), other);
        // And back, after somebody was there.
        std::fs::remove_file(folder.path().join("etc/shadow")).unwrap();
        folder.show(&sample()).unwrap();
        folder.known.clear();
        assert_eq!(folder.scan(&pack, &origin).unwrap(), sample());
    }

    #[test]
    fn a_tree_that_leads_through_a_link_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = scratch.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let origin: Origin = Arc::from("test");
        let mut tree = Tree::new();
        tree.write_symlink(&path("out"), outside.as_os_str().as_bytes(), Mtime::default(), &origin).unwrap();
        let kind = Kind::File(Content::inline(*b"x"));
        tree.insert_raw(path("out/file"), Entry { meta: Meta::root(0o644), kind, origin });
        assert!(check_parents(&tree).unwrap_err().to_string().contains("the parent of /out/file is not a folder"));
    }
}
