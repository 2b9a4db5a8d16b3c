//! The tools tree: foreign programs that a build or a check needs, from packages, run in the sandbox.
//!
//! Owns: [`Program`], the closed list of what may be called, and [`Tools`], which runs them. Nothing of the host is
//! executed: the programs are packages of a signed archive, chosen by our resolver ([`request`]), installed by the
//! ordinary layer build into a Tree in the store ([`tree`]), and see nothing but that Tree and the files handed to
//! them. Which release they come from: docs/decisions/0006-tools-tree.md.

mod make;
mod request;

use std::path::{Path, PathBuf};

pub use make::tree;
pub use request::{Source, image_request, lock, of_image};

use crate::error::{Context, Result};
use crate::sandbox::{Bind, Finished, Job, Sandbox};
use crate::tree::host::Folder;
use crate::tree::{Entry, Kind, Tree, TreePath};

/// A program of the tools tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    E2fsck,
    FsckFat,
    QemuImg,
    Sgdisk,
}

impl Program {
    pub const ALL: [Program; 4] = [Program::E2fsck, Program::FsckFat, Program::QemuImg, Program::Sgdisk];

    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Program::E2fsck => "e2fsck",
            Program::FsckFat => "fsck.fat",
            Program::QemuImg => "qemu-img",
            Program::Sgdisk => "sgdisk",
        }
    }

    /// The package that brings it, by one name in every supported release.
    pub fn package(self) -> &'static str {
        match self {
            Program::E2fsck => "e2fsprogs",
            Program::FsckFat => "dosfstools",
            Program::QemuImg => "qemu-utils",
            Program::Sgdisk => "gdisk",
        }
    }
}

/// Where a program finds its inputs, and where it puts what it makes.
const INPUTS: &str = "/mnt/in";
pub const OUTPUT: &str = "/mnt/out";

/// A file of the host that a program may read, as `/mnt/in/<name>`.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub source: &'a Path,
    pub name: &'a str,
}

impl Input<'_> {
    /// For the arguments of the program.
    pub fn path(&self) -> String {
        format!("{INPUTS}/{}", self.name)
    }
}

/// A tools tree that lies ready.
pub struct Tools<'a> {
    folder: Folder,
    sandbox: &'a dyn Sandbox,
}

impl<'a> Tools<'a> {
    /// Unpacks what programs need of a tools [`tree`] into `folder`, which must not be there yet.
    pub fn unpack(tree: &Tree, folder: &Path, sandbox: &'a dyn Sandbox) -> Result<Self> {
        let unpacked = Folder::create(folder).and_then(|mut folder| folder.show(&runtime(tree)).map(|()| folder));
        Ok(Tools { folder: unpacked.context("unpacking the tools")?, sandbox })
    }

    /// Runs a program and waits for it. It can read `inputs` and write below [`OUTPUT`], which is the folder `output`
    /// of the host. A program that fails is `Ok` with `success: false`.
    pub fn run(
        &self,
        program: Program,
        arguments: &[&str],
        inputs: &[Input<'_>],
        output: Option<&Path>,
    ) -> Result<Finished> {
        let mut job = Job::new(std::iter::once(program.name()).chain(arguments.iter().copied()));
        for input in inputs {
            job.binds.push(bind(input.source.into(), &input.path(), true)?);
        }
        if let Some(folder) = output {
            job.binds.push(bind(folder.into(), OUTPUT, false)?);
        }
        self.sandbox.run(self.folder.path(), &job, &mut |line| tracing::debug!("{}: {line}", program.name()))
    }
}

fn bind(source: PathBuf, target: &str, read_only: bool) -> Result<Bind> {
    let target = TreePath::new(target.trim_start_matches('/'))
        .ok_or_else(|| crate::error::Error::build(format!("{target} is not a path")))?;
    Ok(Bind { source, target, read_only })
}

/// What no program reads: the larger part of a small installation.
const LEFT_OUT: [&str; 13] = [
    "boot",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/share/bash-completion",
    "usr/share/common-licenses",
    "usr/share/doc",
    "usr/share/i18n",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/zoneinfo",
    "var/cache",
    "var/lib",
];

/// The part of a tools tree that is unpacked when programs run.
fn runtime(tree: &Tree) -> Tree {
    let left_out = LEFT_OUT.map(TreePath::literal);
    let mut out = Tree::new();
    for (path, entry) in tree.iter().filter(|(path, _)| !left_out.iter().any(|folder| path.is_below(folder))) {
        // The first name of a file with several may have been left out.
        let kind = match &entry.kind {
            Kind::HardLink(target) if !out.contains(target) => match tree.inode(path) {
                Some((_, inode)) => inode.kind.clone(),
                None => continue,
            },
            kind => kind.clone(),
        };
        out.insert_raw(path.clone(), Entry { kind, ..entry.clone() });
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::tree::{Meta, Origin};

    fn tools() -> Tree {
        let origin: Origin = "test".into();
        let mut tree = Tree::new();
        for path in ["usr/sbin/e2fsck", "usr/share/doc/x/copyright", "usr/share/misc/magic", "var/lib/dpkg/status"] {
            tree.write_file(&TreePath::new(path).unwrap(), path, Meta::root(0o755), &origin).unwrap();
        }
        for (link, target) in
            [("usr/share/misc/copyright", "usr/share/doc/x/copyright"), ("usr/sbin/fsck.ext4", "usr/sbin/e2fsck")]
        {
            let kind = Kind::HardLink(TreePath::new(target).unwrap());
            tree.insert_raw(
                TreePath::new(link).unwrap(),
                Entry { meta: Meta::root(0o755), kind, origin: origin.clone() },
            );
        }
        tree
    }

    #[test]
    fn documentation_is_not_unpacked() {
        let runtime = runtime(&tools());
        let path = |text: &str| TreePath::new(text).unwrap();
        assert!(runtime.contains(&path("usr/sbin/e2fsck")) && runtime.contains(&path("usr/share/misc/magic")));
        assert!(!runtime.contains(&path("usr/share/doc/x")) && !runtime.contains(&path("var/lib/dpkg/status")));
        assert!(matches!(runtime.get(&path("usr/sbin/fsck.ext4")).unwrap().kind, Kind::HardLink(_)));
        assert!(matches!(runtime.get(&path("usr/share/misc/copyright")).unwrap().kind, Kind::File(_)));
    }

    /// Remembers the job.
    struct Recorder(Mutex<Vec<Job>>);

    impl Sandbox for Recorder {
        fn run(&self, _: &Path, job: &Job, _: &mut dyn FnMut(&str)) -> Result<Finished> {
            self.0.lock().unwrap().push(job.clone());
            Ok(Finished { success: true, status: "exit code 0".into(), tail: String::new() })
        }
    }

    #[test]
    fn a_program_sees_its_inputs_and_its_output() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: setting owners needs root");
        }
        let scratch = tempfile::tempdir().unwrap();
        let recorder = Recorder(Mutex::default());
        let tools = Tools::unpack(&tools(), &scratch.path().join("tools"), &recorder).unwrap();
        let input = Input { source: Path::new("/somewhere/disk.raw"), name: "disk" };
        tools.run(Program::E2fsck, &["-fn", &input.path()], &[input], Some(scratch.path())).unwrap();
        let job = recorder.0.lock().unwrap().pop().unwrap();
        assert_eq!(job.argv, ["e2fsck", "-fn", "/mnt/in/disk"]);
        let binds: Vec<_> = job.binds.iter().map(|bind| (bind.target.to_string(), bind.read_only)).collect();
        assert_eq!(binds, [("/mnt/in/disk".to_owned(), true), ("/mnt/out".to_owned(), false)]);
    }
}
