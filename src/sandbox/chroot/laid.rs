//! What lies in a target root while jobs without mounts run in it, and how it gets there and away again.
//!
//! Owns: [`Rooms`]. What the `namespaces` sandbox mounts is laid into the target itself here: what was in that place is
//! set aside, in a folder beside the target, and put back when the last job that needs the place has ended. Times of
//! folders are then what they would be had there been mounts: only what jobs do themselves shows. So a Tree that is read
//! from the target afterwards is the same with both sandboxes.
//!
//! A folder that a job may write to is moved into the target, with a link in its old place, if it lies beside the target
//! (as everything in a work area does); files, and folders from elsewhere, are copied, and copied back where the job may
//! write to them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use super::super::Bind;
use super::super::mounts::{DEVICE_LINKS, MountPoints, NOTHING, POLICY};
use super::facts;
use crate::error::{Context, Error, Result};
use crate::tree::TreePath;

/// Character devices of `/dev`, by their numbers in the kernel's list of devices (admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Larger files are linked, not copied, where that can be done.
const COPIED_BYTES: u64 = 1 << 20;

/// All targets in which jobs run.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    rooms: Mutex<BTreeMap<PathBuf, Room>>,
}

#[derive(Debug)]
struct Room {
    root: PathBuf,
    /// Where things are that were set aside.
    aside: PathBuf,
    jobs: usize,
    number: usize,
    /// `dev`, `proc`, `sys` and the guards.
    basics: Vec<Laid>,
    /// By the place in the target.
    binds: BTreeMap<TreePath, (usize, PathBuf, Laid)>,
}

/// One thing that was laid.
#[derive(Debug)]
struct Laid {
    place: PathBuf,
    /// What was there before lies here now.
    kept: Option<PathBuf>,
    /// How the thing came.
    way: Way,
    /// Folders made above the place, the deepest last.
    folders: Vec<PathBuf>,
    /// Whether the folder that the place is in shows that something was made there.
    seen: bool,
}

#[derive(Debug)]
enum Way {
    /// Made or copied: inode numbers tell whether it is still the same.
    Made { inode: (u64, u64) },
    /// Copied, and to be copied back.
    Copied { source: PathBuf },
    /// Moved; a link lies in the old place.
    Moved { source: PathBuf },
}

/// The time a job has in a target. When it is dropped, what was laid for it alone goes away.
pub(super) struct Stay<'a> {
    rooms: &'a Rooms,
    root: PathBuf,
    binds: Vec<TreePath>,
    over: bool,
}

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays everything that a job needs and that does not lie there yet.
    pub(super) fn enter(&self, root: &Path, binds: &[Bind]) -> Result<Stay<'_>> {
        let mut rooms = self.lock();
        let mut stay = Stay { rooms: self, root: root.to_path_buf(), binds: Vec::new(), over: false };
        let room = match rooms.entry(root.to_path_buf()) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => free.insert(Room::new(root)?),
        };
        room.jobs += 1;
        let laid = room.lay_all(binds, &mut stay.binds);
        if let Err(error) = laid {
            // What went wrong first is what matters.
            let _ = leave(&mut rooms, &stay);
            stay.over = true;
            return Err(error);
        }
        Ok(stay)
    }
}

impl Stay<'_> {
    pub(super) fn end(mut self) -> Result<()> {
        self.over = true;
        leave(&mut self.rooms.lock(), &self)
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        if !self.over {
            let _ = leave(&mut self.rooms.lock(), self);
        }
    }
}

fn leave(rooms: &mut BTreeMap<PathBuf, Room>, stay: &Stay<'_>) -> Result<()> {
    let Some(room) = rooms.get_mut(&stay.root) else { return Ok(()) };
    let mut result = Ok(());
    for target in stay.binds.iter().rev() {
        let Some((users, ..)) = room.binds.get_mut(target) else { continue };
        *users -= 1;
        if *users == 0 {
            if let Some((_, _, laid)) = room.binds.remove(target) {
                result = result.and(laid.take_away(target));
            }
        }
    }
    room.jobs -= 1;
    if room.jobs == 0 {
        while let Some(laid) = room.basics.pop() {
            let path = TreePath::new(laid.place.strip_prefix(&room.root).unwrap_or(&laid.place).as_os_str().as_bytes());
            result = result.and(laid.take_away(&path.unwrap_or_else(TreePath::root)));
        }
        let gone = std::fs::remove_dir(&room.aside);
        result = result.and(gone.with_context(|| format!("removing {}", room.aside.display())));
        rooms.remove(&stay.root);
    }
    result
}

impl Room {
    fn new(root: &Path) -> Result<Self> {
        let aside = beside(root)?;
        std::fs::create_dir(&aside).with_context(|| format!("making {}", aside.display()))?;
        std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o700))
            .with_context(|| format!("setting the mode of {}", aside.display()))?;
        let root = root.to_path_buf();
        Ok(Room { root, aside, jobs: 0, number: 0, basics: Vec::new(), binds: BTreeMap::new() })
    }

    fn lay_all(&mut self, binds: &[Bind], done: &mut Vec<TreePath>) -> Result<()> {
        if self.basics.is_empty() {
            self.lay_basics()?;
        }
        for bind in binds {
            match self.binds.get_mut(&bind.target) {
                Some((users, source, _)) if *source == bind.source => *users += 1,
                Some(_) => return Err(Error::build(format!("something else is laid over {}", bind.target))),
                None => {
                    let laid = self.lay(bind).with_context(|| format!("laying something over {}", bind.target))?;
                    self.binds.insert(bind.target.clone(), (1, bind.source.clone(), laid));
                }
            }
            done.push(bind.target.clone());
        }
        Ok(())
    }

    fn next(&mut self) -> PathBuf {
        self.number += 1;
        self.aside.join(self.number.to_string())
    }

    fn lay_basics(&mut self) -> Result<()> {
        for name in ["dev", "proc", "sys"] {
            let path = TreePath::literal(name);
            let place = self.root.join(name);
            let there = place.symlink_metadata();
            if there.as_ref().is_ok_and(|there| !there.is_dir()) {
                return Err(Error::build(format!("{path} of the target is not a folder")));
            }
            let before = Times::of(&self.root)?;
            let kept = there.is_ok().then(|| self.next());
            if let Some(kept) = &kept {
                rename(&place, kept)?;
            }
            make_folder(&place, 0o755)?;
            let seen = kept.is_none();
            let inode = inode(&place)?;
            self.basics.push(Laid { place: place.clone(), kept, way: Way::Made { inode }, folders: vec![], seen });
            if !seen {
                before.set(&self.root)?;
            }
            match name {
                "dev" => devices(&place)?,
                "proc" => facts::write(&place)?,
                _ => {}
            }
        }
        self.lay_guards()
    }

    /// As in the `namespaces` sandbox: nothing starts services.
    fn lay_guards(&mut self) -> Result<()> {
        let points = MountPoints::new(&self.root)?;
        if let Some(folder) = points.find(&TreePath::literal("usr/sbin"))? {
            let place = folder.join("policy-rc.d");
            let laid = self.put(&place, POLICY)?;
            self.basics.push(laid);
        }
        for path in ["usr/sbin/start-stop-daemon", "sbin/start-stop-daemon"] {
            let Some(place) = points.find(&TreePath::literal(path))? else { continue };
            if place.is_file() && !self.basics.iter().any(|laid| laid.place == place) {
                let laid = self.put(&place, NOTHING)?;
                self.basics.push(laid);
            }
        }
        Ok(())
    }

    /// A program of ours in a place of the target.
    fn put(&mut self, place: &Path, bytes: &[u8]) -> Result<Laid> {
        let folder = place.parent().unwrap_or(&self.root).to_path_buf();
        let before = Times::of(&folder)?;
        let kept = self.set_aside(place)?;
        let writing = || format!("writing {}", place.display());
        std::fs::write(place, bytes).with_context(writing)?;
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o755)).with_context(writing)?;
        let seen = kept.is_none();
        if !seen {
            before.set(&folder)?;
        }
        Ok(Laid { place: place.into(), kept, way: Way::Made { inode: inode(place)? }, folders: vec![], seen })
    }

    fn set_aside(&mut self, place: &Path) -> Result<Option<PathBuf>> {
        if place.symlink_metadata().is_err() {
            return Ok(None);
        }
        let kept = self.next();
        rename(place, &kept)?;
        Ok(Some(kept))
    }

    fn lay(&mut self, bind: &Bind) -> Result<Laid> {
        let source = bind.source.canonicalize().with_context(|| format!("opening {}", bind.source.display()))?;
        let (place, folders, nearest) = self.find_place(&bind.target)?;
        let folder = place.parent().unwrap_or(&self.root).to_path_buf();
        let before = Times::of(nearest.as_deref().unwrap_or(&folder))?;
        make_folders(&folders)?;
        let there = place.symlink_metadata();
        if there.is_ok_and(|there| there.is_dir() != source.is_dir()) {
            return Err(Error::build(format!("{} cannot be laid over it: one is a folder", source.display())));
        }
        let kept = self.set_aside(&place)?;
        let way = self.bring(&source, &place, bind.read_only);
        let way = match (way, &kept) {
            (Ok(way), _) => way,
            (Err(error), Some(kept)) => {
                let _ = rename(kept, &place);
                return Err(error);
            }
            (Err(error), None) => return Err(error),
        };
        before.set(nearest.as_deref().unwrap_or(&folder))?;
        Ok(Laid { place, kept, way, folders, seen: false })
    }

    /// Where a path of the target really lies, the folders that have to be made for it, and the one they are made in.
    fn find_place(&self, path: &TreePath) -> Result<(PathBuf, Vec<PathBuf>, Option<PathBuf>)> {
        let points = MountPoints::new(&self.root)?;
        if let Some(found) = points.find(path)? {
            return Ok((found, Vec::new(), None));
        }
        let mut missing = vec![path.clone()];
        let mut nearest = None;
        for folder in std::iter::successors(path.parent(), TreePath::parent) {
            nearest = points.find(&folder)?;
            if nearest.is_some() {
                break;
            }
            missing.push(folder);
        }
        let Some(nearest) = nearest else {
            return Err(Error::build("the root of the target cannot be laid over"));
        };
        let mut place = nearest.clone();
        let mut folders = Vec::new();
        for path in missing.iter().rev() {
            place = place.join(OsStr::from_bytes(path.file_name()));
            folders.push(place.clone());
        }
        folders.pop();
        if nearest.join(OsStr::from_bytes(missing.last().unwrap_or(path).file_name())).symlink_metadata().is_ok() {
            return Err(Error::build(format!("{path} is a symbolic link to nowhere, nothing can be laid there")));
        }
        Ok((place, folders, Some(nearest)))
    }

    fn bring(&self, source: &Path, place: &Path, read_only: bool) -> Result<Way> {
        let beside = self.root.parent().is_some_and(|area| source.starts_with(area) && source != area);
        let movable = beside && !read_only && source.is_dir() && !self.root.starts_with(source);
        if movable && !source.starts_with(&self.root) && std::fs::rename(source, place).is_ok() {
            std::os::unix::fs::symlink(place, source)
                .with_context(|| format!("linking {} to {}", source.display(), place.display()))?;
            return Ok(Way::Moved { source: source.into() });
        }
        let large = source.metadata().is_ok_and(|meta| meta.is_file() && meta.len() > COPIED_BYTES);
        if !(large && read_only && std::fs::hard_link(source, place).is_ok()) {
            copy(source, place)?;
        }
        match read_only {
            true => Ok(Way::Made { inode: inode(place)? }),
            false => Ok(Way::Copied { source: source.into() }),
        }
    }
}

impl Laid {
    fn take_away(self, target: &TreePath) -> Result<()> {
        let folder = self.place.parent().map(Path::to_path_buf).unwrap_or_default();
        let top = self.folders.first().and_then(|folder| folder.parent()).map(Path::to_path_buf);
        let before = Times::of(top.as_ref().unwrap_or(&folder));
        let back = match &self.way {
            Way::Made { inode: made } if inode(&self.place).is_ok_and(|now| now == *made) => remove(&self.place),
            Way::Made { .. } => {
                let message = format!("a script has replaced {target}, which was laid over");
                return Err(Error::build(message).hint("`--sandbox namespaces` refuses that to scripts"));
            }
            Way::Copied { source } => copy_back(&self.place, source).and_then(|()| remove(&self.place)),
            Way::Moved { source } => std::fs::remove_file(source)
                .with_context(|| format!("removing {}", source.display()))
                .and_then(|()| rename(&self.place, source)),
        };
        back?;
        if let Some(kept) = &self.kept {
            rename(kept, &self.place)?;
        }
        for folder in self.folders.iter().rev() {
            match std::fs::remove_dir(folder) {
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => break,
                other => other.with_context(|| format!("removing {}", folder.display()))?,
            }
        }
        if self.seen {
            return Ok(());
        }
        before?.set(top.as_ref().unwrap_or(&folder))
    }
}

/// A folder beside the target, on the same file system.
fn beside(root: &Path) -> Result<PathBuf> {
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
        return Err(Error::build(format!("{} cannot be a target", root.display())));
    };
    let mut aside = std::ffi::OsString::from(".");
    aside.push(name);
    aside.push(".aside");
    Ok(parent.join(aside))
}

fn devices(dev: &Path) -> Result<()> {
    for (name, major, minor) in DEVICES {
        let place = dev.join(name);
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o666);
        let made = rustix::fs::mknodat(CWD, &place, FileType::CharacterDevice, mode, device)
            .and_then(|()| rustix::fs::chmod(&place, mode));
        made.map_err(|error| no_devices(error, &place))?;
    }
    // Made is not enough: on a file system that is mounted `nodev` they cannot be opened.
    let null = dev.join("null");
    std::fs::OpenOptions::new().write(true).open(&null).map_err(|error| {
        no_devices(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO), &null)
    })?;
    for (name, target) in DEVICE_LINKS.iter().filter(|(name, _)| *name != "ptmx") {
        std::os::unix::fs::symlink(target, dev.join(name))
            .with_context(|| format!("making {name} in {}", dev.display()))?;
    }
    make_folder(&dev.join("pts"), 0o755)?;
    make_folder(&dev.join("shm"), 0o1777)
}

fn no_devices(error: rustix::io::Errno, place: &Path) -> Error {
    Error::build(format!("{error}"))
        .add_context(format!("making device {}", place.display()))
        .hint(
            "without mounts the work area must be a place where device files can be made and opened: not mounted `nodev` \
             (`--tmpfs /work:exec,dev` and `--work-dir /work`), and not in a container of a rootless daemon or one with \
             user-namespace remapping; `--sandbox namespaces` needs neither",
        )
}

fn make_folder(place: &Path, mode: u32) -> Result<()> {
    let making = || format!("making {}", place.display());
    std::fs::create_dir(place).with_context(making)?;
    std::fs::set_permissions(place, std::fs::Permissions::from_mode(mode)).with_context(making)
}

fn make_folders(folders: &[PathBuf]) -> Result<()> {
    folders.iter().try_for_each(|folder| make_folder(folder, 0o755))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    // A folder's own time does not change when it is moved, but on some file systems does when its parent changes.
    let times = Times::of(from)?;
    std::fs::rename(from, to).with_context(|| format!("moving {} to {}", from.display(), to.display()))?;
    times.set(to)
}

fn remove(place: &Path) -> Result<()> {
    let is_folder = place.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let gone = if is_folder { std::fs::remove_dir_all(place) } else { std::fs::remove_file(place) };
    gone.with_context(|| format!("removing {}", place.display()))
}

fn inode(place: &Path) -> Result<(u64, u64)> {
    let meta = place.symlink_metadata().with_context(|| format!("looking at {}", place.display()))?;
    Ok((meta.dev(), meta.ino()))
}

/// A file with its holes, or a folder with all that is in it.
fn copy(source: &Path, place: &Path) -> Result<()> {
    let copying = || format!("copying {} to {}", source.display(), place.display());
    let meta = source.symlink_metadata().with_context(copying)?;
    if meta.is_symlink() {
        let target = std::fs::read_link(source).with_context(copying)?;
        return std::os::unix::fs::symlink(target, place).with_context(copying);
    }
    if meta.is_dir() {
        make_folder(place, meta.mode() & 0o7777)?;
        for entry in std::fs::read_dir(source).with_context(copying)? {
            let entry = entry.with_context(copying)?;
            copy(&entry.path(), &place.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if meta.file_type().is_fifo() || !meta.is_file() {
        return Err(Error::build("only files and folders can be copied").add_context(copying()));
    }
    crate::interrupt::check()?;
    let mut from = std::fs::File::open(source).with_context(copying)?;
    let mut to = std::fs::File::create_new(place).with_context(copying)?;
    copy_data(&mut from, &mut to, meta.len()).with_context(copying)?;
    to.set_permissions(meta.permissions()).with_context(copying)
}

fn copy_data(from: &mut std::fs::File, to: &mut std::fs::File, length: u64) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    to.set_len(length)?;
    let mut at = 0;
    while at < length {
        let data = match rustix::fs::seek(&*from, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&*from, rustix::fs::SeekFrom::Hole(data))?;
        from.seek(SeekFrom::Start(data))?;
        to.seek(SeekFrom::Start(data))?;
        std::io::copy(&mut (&*from).take(end - data), to)?;
        at = end.max(at + 1);
    }
    Ok(())
}

/// What a job has left in a copy replaces what was in the source. Links are not followed, and not made.
fn copy_back(place: &Path, source: &Path) -> Result<()> {
    let meta = place.symlink_metadata().with_context(|| format!("looking at {}", place.display()))?;
    if meta.is_file() {
        remove(source)?;
        return copy(place, source);
    }
    if !meta.is_dir() {
        return Err(Error::build(format!("a script has replaced {}", place.display())));
    }
    for folder in [source, place] {
        for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
            let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
            match folder == source {
                true => remove(&entry.path())?,
                false => copy(&entry.path(), &source.join(entry.file_name()))?,
            }
        }
    }
    Ok(())
}

/// The modification time of a file.
struct Times(i64, i64);

impl Times {
    fn of(path: &Path) -> Result<Self> {
        let meta = path.symlink_metadata().with_context(|| format!("looking at {}", path.display()))?;
        Ok(Times(meta.mtime(), meta.mtime_nsec()))
    }

    fn set(&self, path: &Path) -> Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT as _ },
            last_modification: Timespec { tv_sec: self.0, tv_nsec: self.1 as _ },
        };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("setting the time of {}", path.display()))
    }
}
