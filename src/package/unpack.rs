//! Unpacking a package into a target root, by the rules of `dpkg --unpack`.
//!
//! Owns: [`Unpacker`]. Every path is resolved inside the target ([`Root`]); diversions and overrides hold; a file that
//! belongs to another package is taken over or left alone as Replaces says, and is an error otherwise; folders and
//! links to folders that exist are left as they are; configuration files are put beside their place (`.dpkg-new`)
//! until dpkg configures the package. dpkg's behaviour was taken from its manual pages and from watching it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid};

use super::binary::Binary;
use super::database::{self, Database};
use super::root::{Root, name};
use super::stage::{Body, Place, Staged};
use super::tar::{Entry as Member, Kind};
use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::tree::{Content, Entry, Kind as TreeKind, Meta, Mtime, TreePath};

/// How configuration files are put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conffiles {
    /// Beside their place, as `dpkg --unpack` does; dpkg moves them when it configures the package.
    Beside,
    /// In place at once. For the first packages of a root, which need them before anything can be configured.
    InPlace,
}

pub struct Unpacker<'a> {
    root: &'a Root,
    database: &'a mut Database,
    conffiles: Conffiles,
    users: BTreeMap<Vec<u8>, u32>,
    groups: BTreeMap<Vec<u8>, u32>,
    /// Device nodes that could not be made.
    pub devices: Vec<(TreePath, Entry)>,
    /// Files as they were when they were put in place, with what the store has of them.
    pub files: Vec<(Stat, Content)>,
}

/// What is being unpacked.
struct Current<'b> {
    binary: &'b Binary,
    info_name: String,
    conffiles: BTreeSet<&'b TreePath>,
    list: Vec<TreePath>,
    listed: BTreeSet<TreePath>,
    sums: BTreeMap<TreePath, String>,
}

impl<'a> Unpacker<'a> {
    pub fn new(root: &'a Root, database: &'a mut Database, conffiles: Conffiles) -> Result<Self> {
        let users = ids(&root.read(&TreePath::literal("etc/passwd"))?.unwrap_or_default());
        let groups = ids(&root.read(&TreePath::literal("etc/group"))?.unwrap_or_default());
        Ok(Unpacker { root, database, conffiles, users, groups, devices: Vec::new(), files: Vec::new() })
    }

    /// Unpacks one package, prepared before.
    pub fn unpack(&mut self, binary: &Binary, staged: Staged<'_>) -> Result<()> {
        self.unpack_inner(binary, staged).with_context(|| format!("unpacking package `{}`", binary.name))
    }

    fn unpack_inner(&mut self, binary: &Binary, staged: Staged<'_>) -> Result<()> {
        self.database.announce(binary)?;
        let conffiles = binary.conffiles.iter().filter(|conffile| !conffile.remove_on_upgrade);
        let mut current = Current {
            binary,
            info_name: binary.info_name(),
            conffiles: conffiles.map(|conffile| &conffile.path).collect(),
            list: Vec::new(),
            listed: BTreeSet::new(),
            sums: BTreeMap::new(),
        };
        // Symbolic links come last, as with dpkg: so no other member of the package is written through one of them.
        let (links, others): (Vec<_>, Vec<_>) =
            staged.members.into_iter().partition(|(entry, _)| matches!(entry.kind, Kind::Symlink(_)));
        for (entry, body) in others.into_iter().chain(links) {
            interrupt::check()?;
            let path = TreePath::new(&entry.name)
                .ok_or_else(|| Error::build(format!("member `{}` leaves the root", entry.name.escape_ascii())))?;
            self.member(&mut current, &path, &entry, body).with_context(|| path.to_string())?;
        }
        self.control_files(&current)?;
        let lines = self.conffile_lines(&current);
        self.database.unpacked(binary, current.list, &lines)
    }

    fn member(
        &mut self,
        current: &mut Current<'_>,
        path: &TreePath,
        entry: &Member,
        mut body: Option<Body<'_>>,
    ) -> Result<()> {
        let package = &current.binary.name;
        let diverted = self.database.divert(path, package).cloned();
        let is_directory = matches!(entry.kind, Kind::Directory);
        if !is_directory && !self.settle_ownership(current, path, diverted.is_some())? {
            return Ok(());
        }
        if current.listed.insert(path.clone()) {
            current.list.push(path.clone());
            self.database.own(path, &current.info_name);
        }
        let place = diverted.unwrap_or_else(|| path.clone());
        if place.is_root() {
            // The root is there; its owner and mode are those of the first package that ships it.
            return Ok(());
        }
        if self.wants_sum(current, path) {
            let sum = match &entry.kind {
                Kind::File(_) => body.as_mut().and_then(|body| body.md5.take()),
                Kind::HardLink(target) => TreePath::new(target).and_then(|target| current.sums.get(&target).cloned()),
                _ => None,
            };
            current.sums.extend(sum.map(|sum| (path.clone(), sum)));
        }
        if self.folder_stays(&place, entry)? {
            return Ok(());
        }
        let beside = current.conffiles.contains(path) && self.conffiles == Conffiles::Beside;
        let place =
            if beside && matches!(entry.kind, Kind::File(_) | Kind::HardLink(_)) { aside(&place)? } else { place };
        self.put(current, &place, path, entry, body)
    }

    fn wants_sum(&self, current: &Current<'_>, path: &TreePath) -> bool {
        current.conffiles.contains(path) || !current.binary.files.contains_key("md5sums")
    }

    /// Whether the member is to be unpacked, as far as other packages are concerned.
    fn settle_ownership(&mut self, current: &Current<'_>, path: &TreePath, diverted: bool) -> Result<bool> {
        if diverted {
            return Ok(true);
        }
        let mut taken = Vec::new();
        for other in self.database.other_owners(path, &current.info_name) {
            // A package that has diverted this path to elsewhere does not own what lies here.
            if self.database.divert(path, &other.name).is_some() {
                continue;
            }
            let own = self.database.get(&current.info_name).ok_or_else(|| Error::build("package vanished"))?;
            if self.database.replaces(own, other)? {
                taken.push(other.info_name.clone());
            } else if self.database.replaces(other, own)? {
                return Ok(false);
            } else if !self.is_folder(path)? {
                return Err(Error::build(format!(
                    "trying to overwrite `{path}`, which is also in package `{}` {}",
                    other.name, other.version
                )));
            }
        }
        for owner in taken {
            self.database.disown(self.root, path, &owner)?;
        }
        Ok(true)
    }

    /// Whether a path is a folder on disk, or a link to one.
    fn is_folder(&self, path: &TreePath) -> Result<bool> {
        Ok(self.root.folder(path)?.is_some())
    }

    /// A folder that exists keeps what it is, whether the member is a folder or a link; so does a link to a folder
    /// where the member is a folder, and where the member is a link that leads to the same folder.
    fn folder_stays(&self, place: &TreePath, entry: &Member) -> Result<bool> {
        let Some(stat) = self.root.stat(place)? else { return Ok(false) };
        let kind = FileType::from_raw_mode(stat.st_mode);
        match (&entry.kind, kind) {
            (Kind::Directory | Kind::Symlink(_), FileType::Directory) => Ok(true),
            (Kind::Directory, FileType::Symlink) => self.is_folder(place),
            (_, FileType::Directory) => {
                Err(Error::build(format!("trying to overwrite folder `{place}` with something else")))
            }
            _ => Ok(false),
        }
    }

    fn put(
        &mut self,
        current: &Current<'_>,
        place: &TreePath,
        path: &TreePath,
        entry: &Member,
        body: Option<Body<'_>>,
    ) -> Result<()> {
        let parent = self.root.parent(place)?;
        let meta = self.meta(path, entry);
        let making = || format!("making `{place}`");
        match &entry.kind {
            Kind::File(_) => {
                let body = body.ok_or_else(|| Error::build("its bytes are missing"))?;
                return self.put_file(&parent, place, &meta, entry, body).with_context(making);
            }
            // As dpkg does it: owner, mode and time of the link's own header hold for the file from here on.
            Kind::HardLink(target) => self.hard_link(current, &parent, place, target)?,
            Kind::Directory => {
                self.root.clear(&parent, place)?;
                rustix::fs::mkdirat(&parent, name(place), Mode::from_raw_mode(0o700)).with_context(making)?;
            }
            Kind::Symlink(target) => {
                self.root.clear(&parent, place)?;
                rustix::fs::symlinkat(&**target, &parent, name(place)).with_context(making)?;
            }
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => {
                self.root.clear(&parent, place)?;
                if !self.node(&parent, place, entry, &meta)? {
                    return Ok(());
                }
            }
        }
        self.root.forget();
        set_meta(&parent, place, &meta, matches!(entry.kind, Kind::Symlink(_)))?;
        let times = timestamps(entry.mtime);
        rustix::fs::utimensat(&parent, name(place), &times, AtFlags::SYMLINK_NOFOLLOW).with_context(making)
    }

    /// Owner and mode are right before anybody can see the file at its place.
    fn put_file(
        &mut self,
        parent: &OwnedFd,
        place: &TreePath,
        meta: &Meta,
        entry: &Member,
        body: Body<'_>,
    ) -> Result<()> {
        let looking = "looking at it";
        let stat = match body.place {
            Place::Memory(held) => {
                let mut file = self.root.create(parent, place, 0o600)?;
                file.write_all(&held.bytes).context("writing")?;
                finish_file(&file, meta, entry.mtime)?;
                rustix::fs::fstat(&file).context(looking)?
            }
            Place::File(kept) => {
                let prepared = kept.give();
                if (meta.uid, meta.gid, meta.mode) != (0, 0, entry.mode) {
                    let opened = std::fs::File::open(&prepared);
                    let opened = opened.with_context(|| format!("opening {}", prepared.display()))?;
                    finish_file(&opened, meta, entry.mtime)?;
                }
                // A folder is never in the way here, and anything else is replaced.
                rustix::fs::renameat(rustix::fs::CWD, &prepared, parent, name(place))
                    .context("moving it to its place")?;
                rustix::fs::statat(parent, name(place), AtFlags::SYMLINK_NOFOLLOW).context(looking)?
            }
        };
        if let Some(content) = body.content {
            self.files.push((stat, content));
        }
        Ok(())
    }

    fn hard_link(&self, current: &Current<'_>, parent: &Rc<OwnedFd>, place: &TreePath, target: &[u8]) -> Result<()> {
        let target = TreePath::new(target).ok_or_else(|| Error::build("a hard link leaves the root"))?;
        if !current.listed.contains(&target) {
            return Err(Error::build(format!("hard link to `{target}`, which is not in the package before it")));
        }
        let beside = current.conffiles.contains(&target) && self.conffiles == Conffiles::Beside;
        let real = self.database.divert(&target, &current.binary.name).cloned().unwrap_or(target);
        let real = if beside { aside(&real)? } else { real };
        let from = self.root.parent(&real)?;
        // An earlier package's symbolic link may stand where this one has a folder; owner and mode that are set through
        // a second name of it would be those of a file of the host.
        let stat = self.root.stat(&real)?;
        if stat.is_none_or(|stat| matches!(FileType::from_raw_mode(stat.st_mode), FileType::Symlink)) {
            return Err(Error::build(format!("hard link to `{real}`, which is not a file")));
        }
        self.root.clear(parent, place)?;
        rustix::fs::linkat(&from, name(&real), parent, name(place), AtFlags::empty())
            .with_context(|| format!("linking `{place}` to `{real}`"))
    }

    /// Makes a device node or a pipe; one that may not be made is remembered. Tells whether it is there.
    fn node(&mut self, parent: &OwnedFd, place: &TreePath, entry: &Member, meta: &Meta) -> Result<bool> {
        let (kind, file_type, device) = match entry.kind {
            Kind::CharDevice { major, minor } => {
                (TreeKind::CharDevice { major, minor }, FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            Kind::BlockDevice { major, minor } => {
                (TreeKind::BlockDevice { major, minor }, FileType::BlockDevice, rustix::fs::makedev(major, minor))
            }
            _ => (TreeKind::Fifo, FileType::Fifo, 0),
        };
        match rustix::fs::mknodat(parent, name(place), file_type, Mode::from_raw_mode(0o600), device) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::PERM) if file_type != FileType::Fifo => {
                let meta = Meta { mtime: Mtime { seconds: entry.mtime, nanoseconds: 0 }, ..meta.clone() };
                self.devices.push((place.clone(), Entry { meta, kind, origin: std::sync::Arc::from("") }));
                Ok(false)
            }
            Err(error) => Err(error).with_context(|| format!("making device node `{place}`")),
        }
    }

    /// Owner by name where the target knows the name, as dpkg has it; statoverride(5) comes first.
    fn meta(&self, path: &TreePath, entry: &Member) -> Meta {
        let mut meta = Meta::root(entry.mode);
        meta.uid = self.users.get(&entry.user).copied().unwrap_or(entry.uid);
        meta.gid = self.groups.get(&entry.group).copied().unwrap_or(entry.gid);
        if let Some(rule) = self.database.override_of(path) {
            meta.mode = rule.mode;
            meta.uid = id_of(&rule.user, &self.users).unwrap_or(meta.uid);
            meta.gid = id_of(&rule.group, &self.groups).unwrap_or(meta.gid);
        }
        meta
    }

    /// Scripts and the like under `info/`; sums that the package does not bring are computed, as dpkg does.
    fn control_files(&self, current: &Current<'_>) -> Result<()> {
        self.root.make_folders(&database::at("info")?)?;
        for (file, content) in
            current.binary.files.iter().filter(|(file, _)| !matches!(file.as_str(), "control" | "list"))
        {
            let place = database::at(&format!("info/{}.{file}", current.info_name))?;
            self.root.write(&place, &content.bytes, content.mode & 0o777)?;
        }
        if !current.binary.files.contains_key("md5sums") {
            let mut text = Vec::new();
            for path in &current.list {
                let Some(sum) = current.sums.get(path) else { continue };
                text.extend_from_slice(format!("{sum}  ").as_bytes());
                text.extend_from_slice(path.as_bytes());
                text.push(b'\n');
            }
            if !text.is_empty() {
                self.root.write(&database::at(&format!("info/{}.md5sums", current.info_name))?, &text, 0o644)?;
            }
        }
        Ok(())
    }

    fn conffile_lines(&self, current: &Current<'_>) -> Vec<String> {
        let line = |conffile: &super::binary::Conffile| {
            let sum = match self.conffiles {
                Conffiles::InPlace => current.sums.get(&conffile.path).map_or("newconffile", String::as_str),
                Conffiles::Beside => "newconffile",
            };
            let mark = if conffile.remove_on_upgrade { " remove-on-upgrade" } else { "" };
            format!("{} {sum}{mark}", conffile.path)
        };
        current.binary.conffiles.iter().map(line).collect()
    }
}

fn finish_file(file: &std::fs::File, meta: &Meta, mtime: i64) -> Result<()> {
    rustix::fs::fchown(file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
        .context("setting its owner")?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(meta.mode.into())).context("setting its mode")?;
    rustix::fs::futimens(file, &timestamps(mtime)).context("setting its time")
}

fn aside(place: &TreePath) -> Result<TreePath> {
    TreePath::new([place.as_bytes(), b".dpkg-new"].concat()).ok_or_else(|| Error::build("not a path"))
}

fn timestamps(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn set_meta(parent: &OwnedFd, place: &TreePath, meta: &Meta, symlink: bool) -> Result<()> {
    let setting = || format!("setting owner and mode of `{place}`");
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    rustix::fs::chownat(parent, name(place), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).with_context(setting)?;
    if symlink {
        return Ok(());
    }
    rustix::fs::chmodat(parent, name(place), Mode::from_raw_mode(meta.mode.into()), AtFlags::empty())
        .with_context(setting)
}

/// Names and numbers of passwd(5) or group(5).
fn ids(file: &[u8]) -> BTreeMap<Vec<u8>, u32> {
    file.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let id = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
            Some((name.to_vec(), id))
        })
        .collect()
}

/// `#12` is a number (dpkg-statoverride(1)).
fn id_of(name: &str, ids: &BTreeMap<Vec<u8>, u32>) -> Option<u32> {
    match name.strip_prefix('#') {
        Some(number) => number.parse().ok(),
        None => ids.get(name.as_bytes()).copied(),
    }
}
