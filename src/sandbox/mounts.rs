//! What a job finds mounted in its root: the plan, and the mount points it needs in the target.
//!
//! Owns: [`plan`], which turns a target root and binds into [`Op`]s, and [`MountPoints`], which finds the places in
//! the target without ever following a link out of it (openat2(2), `RESOLVE_IN_ROOT`), makes the missing ones and
//! takes them away again.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::Bind;
use super::child::Op;
use crate::error::{Context, Error, Result};
use crate::tree::TreePath;

/// Where the target root lies below the job's own root.
pub(super) const CHROOT: &CStr = c"/target";

pub(super) const POLICY: &[u8] = b"#!/bin/sh\nexit 101\n";
pub(super) const NOTHING: &[u8] = b"#!/bin/sh\nexit 0\n";

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
pub(super) const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Parts of `/proc` that reach beyond the job.
const PROC_READ_ONLY: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];

/// Mount points inside a target root; those that had to be made go away on [`MountPoints::clear`] or drop.
pub(super) struct MountPoints {
    root: PathBuf,
    handle: rustix::fd::OwnedFd,
    made: Vec<(PathBuf, bool)>,
    /// Folders in which places for binds were made: their times before that, and after.
    touched: Vec<(PathBuf, Times, Times)>,
}

/// Modification time.
type Times = (i64, i64);

fn modified(path: &Path) -> Result<Times> {
    use std::os::unix::fs::MetadataExt;
    let meta = path.symlink_metadata().with_context(|| format!("looking at {}", path.display()))?;
    Ok((meta.mtime(), meta.mtime_nsec()))
}

impl MountPoints {
    pub(super) fn new(root: &Path) -> Result<Self> {
        let handle = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("opening {}", root.display()))?;
        Ok(MountPoints { root: root.to_path_buf(), handle, made: Vec::new(), touched: Vec::new() })
    }

    /// Where a path of the target really lies on the host; `None` if there is nothing.
    pub(super) fn find(&self, path: &TreePath) -> Result<Option<PathBuf>> {
        let relative = if path.is_root() { Path::new(".") } else { path.to_host() };
        match rustix::fs::openat2(
            &self.handle,
            relative,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        ) {
            Ok(found) => {
                use std::os::fd::AsRawFd;
                let link = format!("/proc/self/fd/{}", found.as_raw_fd());
                let real = rustix::fs::readlinkat(CWD, &link, Vec::new())
                    .with_context(|| format!("finding out where {path} lies"))?;
                let real = PathBuf::from(OsStr::from_bytes(real.as_bytes()));
                match real.strip_prefix(&self.root) {
                    Ok(_) => Ok(Some(real)),
                    Err(_) => Err(Error::build(format!("{path} does not lie in the target root"))),
                }
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("looking up {path} in {}", self.root.display())),
        }
    }

    /// Finds a mount point or makes it, parents too.
    pub(super) fn find_or_make(&mut self, path: &TreePath, directory: bool) -> Result<PathBuf> {
        if let Some(found) = self.find(path)? {
            return Ok(found);
        }
        let Some(parent) = path.parent() else {
            return Err(Error::build("the root of the target cannot be mounted over"));
        };
        let place = self.find_or_make(&parent, true)?.join(OsStr::from_bytes(path.file_name()));
        if place.symlink_metadata().is_ok() {
            return Err(Error::build(format!("{path} is a symbolic link to nowhere, nothing can be mounted there")));
        }
        let made = if directory { std::fs::create_dir(&place) } else { std::fs::File::create_new(&place).map(drop) };
        made.with_context(|| format!("making mount point {}", place.display()))?;
        self.made.push((place.clone(), directory));
        Ok(place)
    }

    /// As [`MountPoints::find_or_make`], for a place that leaves no trace: the folder it is made in gets its time back, unless
    /// the job changes something in that folder, too.
    fn find_or_make_quietly(&mut self, path: &TreePath, directory: bool) -> Result<PathBuf> {
        let folders = std::iter::successors(path.parent(), TreePath::parent);
        let mut nearest = None;
        for folder in folders {
            nearest = self.find(&folder)?;
            if nearest.is_some() {
                break;
            }
        }
        let before = nearest.as_deref().map(modified).transpose()?;
        let count = self.made.len();
        let place = self.find_or_make(path, directory)?;
        if let (Some(folder), Some(before), true) = (nearest, before, self.made.len() > count) {
            let after = modified(&folder)?;
            match self.touched.iter_mut().find(|(known, ..)| *known == folder) {
                Some((_, _, last)) => *last = after,
                None => self.touched.push((folder, before, after)),
            }
        }
        Ok(place)
    }

    /// Takes the mount points that were made away, the last first. A folder that is no longer empty stays.
    pub(super) fn clear(&mut self) -> Result<()> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.retain(|(folder, _, after)| modified(folder).is_ok_and(|now| now == *after));
        self.remove_made()?;
        for (folder, (tv_sec, tv_nsec), _) in touched {
            let time = rustix::fs::Timespec { tv_sec, tv_nsec: tv_nsec as _ };
            let times = rustix::fs::Timestamps {
                last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT as _ },
                last_modification: time,
            };
            rustix::fs::utimensat(CWD, &folder, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .with_context(|| format!("setting the time of {}", folder.display()))?;
        }
        Ok(())
    }

    fn remove_made(&mut self) -> Result<()> {
        while let Some((path, directory)) = self.made.pop() {
            let removed = if directory { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) };
            match removed {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) => return Err(error).with_context(|| format!("removing mount point {}", path.display())),
            }
        }
        Ok(())
    }
}

impl Drop for MountPoints {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

/// All steps from fresh namespaces to a root that a program can live in.
pub(super) fn plan(points: &mut MountPoints, binds: &[Bind]) -> Result<Vec<Op>> {
    let root = points.root.clone();
    let target = root.join("target");
    // The target as it is seen once it is attached below the job's own root.
    let inside = |place: &Path| place.strip_prefix(&root).map(|rest| target.join(rest)).unwrap_or(target.clone());
    let mut places = Vec::new();
    for name in ["dev", "proc", "sys"] {
        let path = TreePath::literal(name);
        let place = points.find_or_make(&path, true)?;
        if place != root.join(name) || !place.is_dir() {
            return Err(Error::build(format!("{path} of the target is not a folder")));
        }
        places.push(inside(&place));
    }
    let mut ops = vec![
        mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, "")?,
        Op::Pick { path: c_path(&root)? },
        mount("tmpfs", &root, "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, "mode=755,size=1m")?,
        Op::MakeDirectory { path: c_path(&target)?, mode: 0o755 },
        Op::Attach { path: c_path(&target)? },
    ];
    devices(&places[0], &mut ops)?;
    proc(&places[1], &mut ops)?;
    let empty = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    ops.push(mount("tmpfs", &places[2], "tmpfs", empty | libc::MS_RDONLY, "mode=755,size=4k")?);
    guards(points, &root, &inside, &mut ops)?;
    for bind in binds {
        let source = bind.source.canonicalize().with_context(|| format!("opening {}", bind.source.display()))?;
        let place = inside(&points.find_or_make_quietly(&bind.target, source.is_dir())?);
        bind_ops(&source, &place, bind.read_only, locked_flags(&source)?, &mut ops)?;
    }
    ops.push(Op::HostName { name: c"localhost".into() });
    ops.push(Op::LoopbackUp);
    ops.push(Op::PivotRoot { path: c_path(&root)? });
    Ok(ops)
}

fn devices(dev: &Path, ops: &mut Vec<Op>) -> Result<()> {
    ops.push(mount("tmpfs", dev, "tmpfs", libc::MS_NOSUID, "mode=755,size=64k")?);
    for name in DEVICES {
        let place = dev.join(name);
        ops.push(Op::WriteFile { path: c_path(&place)?, bytes: Vec::new(), mode: 0o666 });
        ops.push(mount(Path::new("/dev").join(name), &place, "", libc::MS_BIND, "")?);
    }
    for (name, target) in DEVICE_LINKS {
        ops.push(Op::Symlink { path: c_path(&dev.join(name))?, target: c_path(Path::new(target))? });
    }
    ops.push(Op::MakeDirectory { path: c_path(&dev.join("pts"))?, mode: 0o755 });
    let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    ops.push(mount("devpts", dev.join("pts"), "devpts", libc::MS_NOSUID | libc::MS_NOEXEC, options)?);
    ops.push(Op::MakeDirectory { path: c_path(&dev.join("shm"))?, mode: 0o1777 });
    ops.push(mount("tmpfs", dev.join("shm"), "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, "mode=1777")?);
    Ok(())
}

fn proc(place: &Path, ops: &mut Vec<Op>) -> Result<()> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    ops.push(mount("proc", place, "proc", flags, "")?);
    for name in PROC_READ_ONLY {
        let path = place.join(name);
        // Which of these exist depends on the kernel.
        ops.push(optional(mount(&path, &path, "", libc::MS_BIND | libc::MS_REC, "")?));
        ops.push(optional(mount("", &path, "", flags | libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY, "")?));
    }
    Ok(())
}

/// Lays the guards against starting services over the target, where the target has such programs at all.
fn guards(points: &mut MountPoints, root: &Path, inside: &dyn Fn(&Path) -> PathBuf, ops: &mut Vec<Op>) -> Result<()> {
    let policy = root.join("policy");
    let nothing = root.join("nothing");
    ops.push(Op::WriteFile { path: c_path(&policy)?, bytes: POLICY.to_vec(), mode: 0o755 });
    ops.push(Op::WriteFile { path: c_path(&nothing)?, bytes: NOTHING.to_vec(), mode: 0o755 });
    if points.find(&TreePath::literal("usr/sbin"))?.is_some() {
        let place = points.find_or_make(&TreePath::literal("usr/sbin/policy-rc.d"), false)?;
        bind_ops(&policy, &inside(&place), true, 0, ops)?;
    }
    let mut covered: Option<PathBuf> = None;
    for path in ["usr/sbin/start-stop-daemon", "sbin/start-stop-daemon"] {
        let Some(place) = points.find(&TreePath::literal(path))? else { continue };
        if place.is_file() && covered.as_ref() != Some(&place) {
            bind_ops(&nothing, &inside(&place), true, 0, ops)?;
            covered = Some(place);
        }
    }
    Ok(())
}

fn bind_ops(source: &Path, place: &Path, read_only: bool, locked: libc::c_ulong, ops: &mut Vec<Op>) -> Result<()> {
    ops.push(mount(source, place, "", libc::MS_BIND | libc::MS_REC, "")?);
    if read_only {
        let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV;
        ops.push(mount("", place, "", flags | locked, "")?);
    }
    Ok(())
}

/// Flags of the mount a host path lies on. Inside a user namespace they are locked: a remount must repeat them
/// (mount_namespaces(7)).
fn locked_flags(path: &Path) -> Result<libc::c_ulong> {
    let path_c = c_path(path)?;
    // SAFETY: a zeroed `statvfs` is valid; both pointers outlive the call.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    if unsafe { libc::statvfs(path_c.as_ptr(), &mut stat) } != 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("asking how {} is mounted", path.display()));
    }
    let pairs = [
        (libc::ST_NOSUID, libc::MS_NOSUID),
        (libc::ST_NODEV, libc::MS_NODEV),
        (libc::ST_NOEXEC, libc::MS_NOEXEC),
        (libc::ST_NOATIME, libc::MS_NOATIME),
        (libc::ST_NODIRATIME, libc::MS_NODIRATIME),
        (libc::ST_RELATIME, libc::MS_RELATIME),
    ];
    Ok(pairs.iter().filter(|(seen, _)| stat.f_flag & seen != 0).fold(0, |flags, (_, flag)| flags | flag))
}

fn mount(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    fstype: &str,
    flags: libc::c_ulong,
    data: &str,
) -> Result<Op> {
    Ok(Op::Mount {
        source: c_path(source.as_ref())?,
        target: c_path(target.as_ref())?,
        fstype: c_path(Path::new(fstype))?,
        flags,
        data: c_path(Path::new(data))?,
        optional: false,
    })
}

fn optional(op: Op) -> Op {
    match op {
        Op::Mount { source, target, fstype, flags, data, .. } => {
            Op::Mount { source, target, fstype, flags, data, optional: true }
        }
        other => other,
    }
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::build("a path holds a NUL byte"))
}

/// What an op was about, for error messages.
pub(super) fn describe(op: &Op) -> String {
    let text = |string: &CString| string.to_string_lossy().into_owned();
    match op {
        Op::Mount { source, target, fstype, .. } if fstype.is_empty() => {
            format!("cannot bind {} to {}", text(source), text(target))
        }
        Op::Mount { target, fstype, .. } => format!("cannot mount {} on {}", text(fstype), text(target)),
        Op::MakeDirectory { path, .. } | Op::WriteFile { path, .. } | Op::Symlink { path, .. } => {
            format!("cannot make {}", text(path))
        }
        Op::Pick { path } => format!("cannot take hold of {}", text(path)),
        Op::Attach { path } => format!("cannot attach the target root to {}", text(path)),
        Op::HostName { name } => format!("cannot set the host name {}", text(name)),
        Op::LoopbackUp => "cannot bring up the loopback interface".to_string(),
        Op::PivotRoot { path } => format!("cannot make {} the root", text(path)),
    }
}
