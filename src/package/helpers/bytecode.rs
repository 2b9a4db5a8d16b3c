//! Byte code of Python that was compiled before: of the same modules, by the same compiler, beside the same library.
//!
//! Owns: [`Batch`], what one process of the compiler is asked for, and [`Kept`], which finds what came of it in an earlier
//! build (`tree::clusters`). Byte code depends on more than its source: a marshalled value is written in another way where
//! the process has more references to it, and so on what the compiler has loaded (`workers` says what follows from that).
//! The key has all of it: the interpreter, the modules in their order, and what the interpreter may load of its library
//! and finds compiled there. `--plain-scripts` does without.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::package::root::Root;
use crate::tree::clusters::{Clusters, Made, NewClusters};
use crate::tree::{Digest, TreePath};

/// Raised when what is kept is made or written in another way.
const RECIPE: u32 = 1;
/// More modules than any package has.
const MOST: usize = 20_000;
/// Longer ones are not kept.
const LONGEST: usize = 1 << 20;
/// What the `sitecustomize` of Debian and Ubuntu loads where it is there.
const HOOK: &[u8] = b"apport_python_hook.py";
/// Deeper folders has no library of Python.
const DEPTH: usize = 16;

/// What one process of the compiler makes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The beginning of the command.
    how: String,
    /// Such as `3.11`.
    version: String,
    /// In the order in which they are compiled.
    modules: Vec<TreePath>,
}

impl Batch {
    /// Nothing for what is no ordinary interpreter or module.
    pub(super) fn new<'a>(
        how: &[&str],
        interpreter: &str,
        modules: impl IntoIterator<Item = &'a str>,
    ) -> Option<Batch> {
        let version = interpreter.strip_prefix("/usr/bin/python")?;
        let (major, minor) = version.split_once('.')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let module = |name: &'a str| TreePath::new(name).filter(|_| name.ends_with(".py"));
        let modules: Vec<TreePath> = modules.into_iter().map(module).collect::<Option<_>>()?;
        let ordinary = digits(major) && digits(minor) && !modules.is_empty() && modules.len() <= MOST;
        ordinary.then(|| Batch { how: how.join(" "), version: version.to_owned(), modules })
    }

    /// Where PEP 3147 has the byte code of a module.
    fn compiled(&self, module: &TreePath) -> Option<TreePath> {
        let stem = module.file_name().strip_suffix(b".py")?;
        let tag = self.version.replace('.', "");
        let name = [stem, format!(".cpython-{tag}.pyc").as_bytes()].concat();
        Some(module.parent()?.join(b"__pycache__").join(&name))
    }
}

/// Byte code of earlier builds.
pub(super) struct Kept<'a> {
    clusters: &'a Clusters,
    /// Since the first batch that was made.
    new: Mutex<Option<NewClusters<'a>>>,
    /// What the interpreter of a version may load, by how much of its library has been compiled meanwhile.
    libraries: Mutex<HashMap<(String, usize), Digest>>,
}

impl<'a> Kept<'a> {
    pub(super) fn new(clusters: &'a Clusters) -> Self {
        Kept { clusters, new: Mutex::default(), libraries: Mutex::default() }
    }

    /// Known before the batch is made. `compiled` counts the batches of the library that were made since nothing else was
    /// put into the root.
    pub(super) fn key(&self, root: &Root, batch: &Batch, compiled: usize) -> Result<Digest> {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(format!("byte code {RECIPE} {} {}", batch.version, batch.how).as_bytes());
        field(self.library(root, &batch.version, compiled)?.as_bytes());
        for module in &batch.modules {
            let missing = || Error::build(format!("{module} is not there"));
            let (stat, bytes) = (root.stat(module)?.ok_or_else(missing)?, root.read(module)?.ok_or_else(missing)?);
            field(module.as_bytes());
            field(format!("{:o} {}", stat.st_mode, stat.st_mtime).as_bytes());
            field(Digest::of(&bytes).as_bytes());
        }
        Ok(Digest::from_bytes(hash.finalize().into()))
    }

    fn library(&self, root: &Root, version: &str, compiled: usize) -> Result<Digest> {
        let place = (version.to_owned(), compiled);
        let mut libraries = self.libraries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = libraries.get(&place) {
            return Ok(*known);
        }
        let found = library(root, version)?;
        libraries.insert(place, found);
        Ok(found)
    }

    /// Writes what an earlier build made of the same; whether there was all of it.
    pub(super) fn recall(&self, root: &Root, batch: &Batch, key: Digest) -> Result<bool> {
        let Some(modes) = self.clusters.piece(&key).and_then(|list| modes(&list)) else { return Ok(false) };
        if modes.len() != batch.modules.len() {
            return Ok(false);
        }
        let mut files = Vec::with_capacity(modes.len());
        for (number, (module, mode)) in batch.modules.iter().zip(modes).enumerate() {
            match (batch.compiled(module), self.clusters.piece(&part(key, number))) {
                (Some(path), Some(bytes)) => files.push((path, mode, bytes)),
                _ => return Ok(false),
            }
        }
        for (path, mode, bytes) in files {
            if let Some(folder) = path.parent() {
                root.make_folders(&folder)?;
            }
            root.write(&path, &bytes, mode)?;
        }
        Ok(true)
    }

    /// Keeps what was made, for later builds once [`Kept::finish`] was called.
    pub(super) fn keep(&self, root: &Root, batch: &Batch, key: Digest) -> Result<()> {
        let mut files = Vec::with_capacity(batch.modules.len());
        let mut list = String::new();
        for module in &batch.modules {
            let Some(path) = batch.compiled(module) else { return Ok(()) };
            let (Some(stat), Some(bytes)) = (root.stat(&path)?, root.read(&path)?) else { return Ok(()) };
            if bytes.is_empty() || bytes.len() > LONGEST {
                return Ok(());
            }
            list += &format!("{:o}\n", stat.st_mode & 0o7777);
            files.push(bytes);
        }
        let mut slot = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        let new = match &mut *slot {
            Some(new) => new,
            slot => slot.insert(self.clusters.begin()?),
        };
        for (number, bytes) in files.iter().enumerate() {
            new.append(part(key, number), Made::Packed(bytes))?;
        }
        // Last, so that what it lists is there.
        new.append(key, Made::Packed(list.as_bytes())).map(drop)
    }

    /// Makes what was kept findable.
    pub(super) fn finish(&self) -> Result<()> {
        let new = self.new.lock().unwrap_or_else(PoisonError::into_inner).take();
        new.map_or(Ok(()), NewClusters::finish)
    }
}

fn part(key: Digest, number: usize) -> Digest {
    Digest::of(format!("{key} {number}").as_bytes())
}

fn modes(list: &[u8]) -> Option<Vec<u16>> {
    let mode = |line: &str| u16::from_str_radix(line, 8).ok().filter(|mode| *mode <= 0o777);
    std::str::from_utf8(list).ok()?.lines().map(mode).collect()
}

/// The interpreter, all that lies in its library with what is compiled there, and what it loads at its start.
fn library(root: &Root, version: &str) -> Result<Digest> {
    let mut hash = Sha256::new();
    for path in [format!("usr/bin/python{version}"), format!("etc/python{version}/sitecustomize.py")] {
        let bytes = TreePath::new(&path).map(|path| root.read(&path)).transpose()?.flatten().unwrap_or_default();
        hash.update(Digest::of(&bytes).as_bytes());
    }
    let major = version.split('.').next().unwrap_or_default();
    for folder in [format!("usr/lib/python{version}"), format!("usr/lib/python{major}")] {
        let Some(folder) = TreePath::new(&folder) else { continue };
        walk(root, &folder, 0, &mut hash)?;
    }
    Ok(Digest::from_bytes(hash.finalize().into()))
}

fn walk(root: &Root, folder: &TreePath, depth: usize, hash: &mut Sha256) -> Result<()> {
    if depth > DEPTH {
        return Err(Error::build(format!("{folder} is too deep for a library")));
    }
    let names = root.names(folder)?;
    // What packages bring, of which the interpreter loads at its start only what is named so.
    let public = matches!(folder.file_name(), b"dist-packages" | b"site-packages");
    for name in names {
        let path = folder.join(&name);
        let start = name.ends_with(b".pth") || name.ends_with(b"customize.py") || name == HOOK;
        let Some(stat) = root.stat(&path)?.filter(|_| start || !public) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        // A file of byte code has the time at which it was made, a folder that of its last change.
        let time = if kind.is_dir() || name.ends_with(b".pyc") { 0 } else { stat.st_mtime };
        let size = if kind.is_dir() { 0 } else { stat.st_size };
        hash.update((path.as_bytes().len() as u64).to_le_bytes());
        hash.update(path.as_bytes());
        hash.update(format!(" {:o} {size} {time}\n", stat.st_mode).as_bytes());
        if start {
            let bytes = root.read(&path)?.unwrap_or_default();
            // site(7) runs such lines. What they load in turn is not looked for.
            let loads = |line: &[u8]| line.starts_with(b"import ") || line.starts_with(b"import\t");
            if name.ends_with(b".pth") && bytes.split(|byte| *byte == b'\n').any(loads) {
                return Err(Error::build(format!("{path} has the interpreter load more than its library")));
            }
            hash.update(Digest::of(&bytes).as_bytes());
        }
        if kind.is_dir() {
            walk(root, &path, depth + 1, hash)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::report::Reporter;

    const MODULE: &str = "usr/lib/python3/dist-packages/a/b.py";

    fn batch() -> Batch {
        Batch::new(&["-m", "py_compile", "-"], "/usr/bin/python3.11", [format!("/{MODULE}").as_str()]).unwrap()
    }

    fn target() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("usr/bin/python3.11", "interpreter"),
            ("usr/lib/python3.11/os.py", "os"),
            ("usr/lib/python3/dist-packages/x.pth", "/usr/share/x"),
            (MODULE, "b"),
        ] {
            put(folder.path(), path, text);
        }
        folder
    }

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }

    #[test]
    fn only_ordinary_commands_are_known() {
        let compiled = batch().compiled(&TreePath::literal(MODULE)).unwrap();
        assert_eq!(compiled.to_string(), "/usr/lib/python3/dist-packages/a/__pycache__/b.cpython-311.pyc");
        for (interpreter, module) in [
            ("/usr/bin/python3", "/a.py"),
            ("/usr/bin/python3.x", "/a.py"),
            ("/usr/bin/pypy3.1", "/a.py"),
            ("/usr/bin/python3.11", "/a.txt"),
            ("/usr/bin/python3.11", "/../a.py"),
        ] {
            assert_eq!(Batch::new(&[], interpreter, [module]), None, "{interpreter} {module}");
        }
        assert_eq!(Batch::new(&[], "/usr/bin/python3.11", []), None);
    }

    #[test]
    fn what_was_made_of_the_same_comes_back() {
        let (target, cache) = (target(), tempfile::tempdir().unwrap());
        let clusters = || Clusters::open(cache.path(), 0, &Reporter::quiet()).unwrap();
        let made = "usr/lib/python3/dist-packages/a/__pycache__/b.cpython-311.pyc";
        let root = Root::open(target.path()).unwrap();
        {
            let clusters = clusters();
            let kept = Kept::new(&clusters);
            let key = kept.key(&root, &batch(), 0).unwrap();
            assert!(!kept.recall(&root, &batch(), key).unwrap());
            // Nothing was made: nothing is kept.
            kept.keep(&root, &batch(), key).unwrap();
            assert!(!kept.recall(&root, &batch(), key).unwrap());
            put(target.path(), made, "byte code");
            kept.keep(&root, &batch(), key).unwrap();
            kept.finish().unwrap();
        }
        std::fs::remove_dir_all(target.path().join(made).parent().unwrap()).unwrap();
        let clusters = clusters();
        let kept = Kept::new(&clusters);
        let key = kept.key(&root, &batch(), 0).unwrap();
        assert!(kept.recall(&root, &batch(), key).unwrap());
        assert_eq!(std::fs::read_to_string(target.path().join(made)).unwrap(), "byte code");
        let other = Digest::of(b"other");
        assert!(!kept.recall(&root, &batch(), other).unwrap());
    }

    #[test]
    fn the_key_is_of_all_that_the_compiler_may_load() {
        let cache = tempfile::tempdir().unwrap();
        let clusters = Clusters::open(cache.path(), 0, &Reporter::quiet()).unwrap();
        let key = |change: &dyn Fn(&Path)| {
            let target = target();
            change(target.path());
            Kept::new(&clusters).key(&Root::open(target.path()).unwrap(), &batch(), 0).unwrap()
        };
        let plain = key(&|_| ());
        for (path, text) in [
            ("usr/bin/python3.11", "another"),
            ("usr/lib/python3.11/os.py", "longer"),
            ("usr/lib/python3.11/new.py", ""),
            ("usr/lib/python3.11/__pycache__/os.cpython-311.pyc", "code"),
            ("usr/lib/python3/dist-packages/x.pth", "/usr/share/y"),
            ("usr/lib/python3/dist-packages/apport_python_hook.py", ""),
            ("usr/lib/python3/dist-packages/sitecustomize.py", ""),
            ("etc/python3.11/sitecustomize.py", "x"),
            (MODULE, "c"),
        ] {
            assert_ne!(key(&|root| put(root, path, text)), plain, "{path}");
        }
        let target = target();
        put(target.path(), "usr/lib/python3/dist-packages/x.pth", "/usr/share/x\nimport y\n");
        assert!(Kept::new(&clusters).key(&Root::open(target.path()).unwrap(), &batch(), 0).is_err());
        // Modules of others, which no compiler loads.
        for path in
            ["usr/lib/python3/dist-packages/other.py", "usr/lib/python3/dist-packages/a/c.py", "usr/bin/python3.12"]
        {
            assert_eq!(key(&|root| put(root, path, "x")), plain, "{path}");
        }
    }
}
