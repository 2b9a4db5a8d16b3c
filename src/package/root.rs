//! Files of a target root on the host, reached without ever leaving it.
//!
//! Owns: [`Root`]. Every path is resolved by the kernel as if the target were `/` (openat2(2), `RESOLVE_IN_ROOT`), so
//! a symbolic link that a package or script has put there cannot lead to a file of the host.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::tree::TreePath;

/// Database files and the like; the list of a very large package has some MiB.
const FILE_BYTES: u64 = 256 << 20;

pub struct Root {
    path: PathBuf,
    handle: OwnedFd,
    /// The folder that was used last; archives name a folder's files one after the other.
    last: RefCell<Option<(TreePath, Rc<OwnedFd>)>>,
}

impl Root {
    pub fn open(path: &Path) -> Result<Self> {
        let handle = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("opening {}", path.display()))?;
        Ok(Root { path: path.to_path_buf(), handle, last: RefCell::new(None) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_in(&self, path: &TreePath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let relative = if path.is_root() { Path::new(".") } else { path.to_host() };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.handle, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // The kernel saw a rename elsewhere and asks to try again.
                Err(Errno::AGAIN | Errno::INTR) => continue,
                other => return other,
            }
        }
    }

    /// The folder at a path, links followed inside the target; `None` if there is none.
    pub fn folder(&self, path: &TreePath) -> Result<Option<Rc<OwnedFd>>> {
        if let Some((_, handle)) = self.last.borrow().as_ref().filter(|(last, _)| last == path) {
            return Ok(Some(handle.clone()));
        }
        match self.open_in(path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(handle) => {
                let handle = Rc::new(handle);
                *self.last.borrow_mut() = Some((path.clone(), handle.clone()));
                Ok(Some(handle))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("opening folder {path} of the target")),
        }
    }

    /// To be called when folders may have been moved or links changed: what was opened before is forgotten.
    pub fn forget(&self) {
        *self.last.borrow_mut() = None;
    }

    /// The folder a path lies in, which must exist.
    pub fn parent(&self, path: &TreePath) -> Result<Rc<OwnedFd>> {
        let parent = path.parent().unwrap_or_else(TreePath::root);
        self.folder(&parent)?
            .ok_or_else(|| Error::build(format!("there is no folder {parent} in the target for {path}")))
    }

    /// What stands at a path, the last component not followed.
    pub fn stat(&self, path: &TreePath) -> Result<Option<Stat>> {
        if path.is_root() {
            return rustix::fs::fstat(&self.handle).map(Some).context("looking at the root of the target");
        }
        let Some(parent) = self.folder(&path.parent().unwrap_or_else(TreePath::root))? else { return Ok(None) };
        match rustix::fs::statat(&parent, name(path), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("looking at {path} of the target")),
        }
    }

    /// What a path leads to, all links followed inside the target: where that is, and what. `None` if there is nothing.
    pub fn resolve(&self, path: &TreePath) -> Result<Option<(TreePath, Stat)>> {
        let looking = || format!("looking at {path} of the target");
        let handle = match self.open_in(path, OFlags::PATH) {
            Ok(handle) => handle,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error).with_context(looking),
        };
        let stat = rustix::fs::fstat(&handle).with_context(looking)?;
        let place = |handle: &OwnedFd| {
            rustix::fs::readlink(format!("/proc/self/fd/{}", handle.as_raw_fd()), Vec::new()).with_context(looking)
        };
        let (place, root) = (place(&handle)?, place(&self.handle)?);
        let below = place.as_bytes().strip_prefix(root.as_bytes()).and_then(TreePath::new);
        Ok(Some((below.ok_or_else(|| Error::build("it is not in the target")).with_context(looking)?, stat)))
    }

    /// A regular file of reasonable size, links followed inside the target; `None` if there is none.
    pub fn open_file(&self, path: &TreePath) -> Result<Option<File>> {
        let reading = || format!("reading {path} of the target");
        let file = match self.open_in(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(handle) => File::from(handle),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error).with_context(reading),
        };
        let meta = file.metadata().with_context(reading)?;
        if !meta.is_file() || meta.len() > FILE_BYTES {
            return Err(Error::build("not a regular file of reasonable size")).with_context(reading);
        }
        Ok(Some(file))
    }

    /// The bytes of a regular file, links followed inside the target; `None` if there is none.
    pub fn read(&self, path: &TreePath) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        let reading = || format!("reading {path} of the target");
        let mut bytes = Vec::with_capacity(file.metadata().with_context(reading)?.len() as usize);
        file.take(FILE_BYTES).read_to_end(&mut bytes).with_context(reading)?;
        Ok(Some(bytes))
    }

    /// As [`Root::read`], for text; what is not UTF-8 is replaced.
    pub fn read_text(&self, path: &TreePath) -> Result<String> {
        let bytes = self.read(path)?.unwrap_or_default();
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// Writes a root-owned file in place of whatever stood there.
    pub fn write(&self, path: &TreePath, bytes: &[u8], mode: u16) -> Result<()> {
        let parent = self.parent(path)?;
        self.create(&parent, path, mode)?.write_all(bytes).with_context(|| format!("writing {path} of the target"))
    }

    /// A new file in an opened folder, in place of whatever stood there but a folder.
    pub fn create(&self, parent: &OwnedFd, path: &TreePath, mode: u16) -> Result<File> {
        self.clear(parent, path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let making = || format!("making {path} of the target");
        let handle = rustix::fs::openat(parent, name(path), flags, Mode::from_raw_mode(0o600)).with_context(making)?;
        rustix::fs::fchmod(&handle, Mode::from_raw_mode(mode.into())).with_context(making)?;
        Ok(File::from(handle))
    }

    /// Removes what stands at a path, unless it is a folder (then making something there fails later on).
    pub fn clear(&self, parent: &OwnedFd, path: &TreePath) -> Result<()> {
        match rustix::fs::unlinkat(parent, name(path), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("removing {path} of the target")),
        }
    }

    /// Removes a file if it is there.
    pub fn remove(&self, path: &TreePath) -> Result<()> {
        match self.folder(&path.parent().unwrap_or_else(TreePath::root))? {
            Some(parent) => self.clear(&parent, path),
            None => Ok(()),
        }
    }

    /// Makes a folder and its parents, root-owned 0755, where they are missing.
    pub fn make_folders(&self, path: &TreePath) -> Result<()> {
        if self.folder(path)?.is_some() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make_folders(&parent)?;
        }
        let making = || format!("making folder {path} of the target");
        let parent = self.parent(path)?;
        rustix::fs::mkdirat(&parent, name(path), Mode::from_raw_mode(0o700)).with_context(making)?;
        rustix::fs::chmodat(&parent, name(path), Mode::from_raw_mode(0o755), AtFlags::empty()).with_context(making)
    }

    /// Removes a folder whose files are known to be plain ones.
    pub fn remove_folder(&self, path: &TreePath) -> Result<()> {
        let Some(folder) = self.folder(path)? else { return Ok(()) };
        let removing = || format!("removing folder {path} of the target");
        let listing = self.open_in(path, OFlags::RDONLY | OFlags::DIRECTORY).with_context(removing)?;
        for entry in rustix::fs::Dir::new(listing).with_context(removing)? {
            let entry = entry.with_context(removing)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                rustix::fs::unlinkat(&folder, entry.file_name(), AtFlags::empty()).with_context(removing)?;
            }
        }
        self.forget();
        rustix::fs::unlinkat(self.parent(path)?, name(path), AtFlags::REMOVEDIR).with_context(removing)
    }

    /// The names in a folder, in byte order; none if it is missing.
    pub fn names(&self, path: &TreePath) -> Result<Vec<Vec<u8>>> {
        let listing = match self.open_in(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(listing) => listing,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("reading folder {path} of the target")),
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(listing).with_context(|| format!("reading folder {path} of the target"))? {
            let entry = entry.with_context(|| format!("reading folder {path} of the target"))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// The last component, for calls that take a folder's descriptor.
pub fn name(path: &TreePath) -> &[u8] {
    path.file_name()
}
