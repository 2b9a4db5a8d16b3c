//! Running foreign programs (maintainer scripts, dpkg, grub-mkimage) inside a target root.
//!
//! Owns: the [`Sandbox`] interface and the implementations behind it. A job sees the target root as `/`, has no
//! network, its own process ids, host name and IPC, a small `/dev`, and cannot start services on the host.
//! Nothing but the kernel comes from the host.

mod child;
pub mod chroot;
mod entry;
mod job;
mod mounts;
pub mod namespaces;
mod no_sync;
pub mod pipes;
pub mod userns;
pub mod workarea;

use std::path::{Path, PathBuf};

use crate::error::{Kind, Result};
use crate::tree::TreePath;

pub use chroot::Chroot;
pub use entry::{Choice, Entered, check_work_folder, enter, why_no_chroot};
pub use namespaces::Namespaces;
pub use workarea::WorkArea;

/// A file or folder of the host that a job sees at `target` inside the root (made if missing, gone afterwards).
#[derive(Debug, Clone)]
pub struct Bind {
    pub source: PathBuf,
    pub target: TreePath,
    pub read_only: bool,
}

/// One program to run. The environment holds exactly what is listed, on top of a fixed minimum
/// (`PATH`, `HOME=/root`, `LC_ALL=C.UTF-8`, `DEBIAN_FRONTEND=noninteractive`, `SYSTEMD_OFFLINE=1`; `SOURCE_DATE_EPOCH` when given here).
#[derive(Debug, Clone, Default)]
pub struct Job {
    pub argv: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub binds: Vec<Bind>,
    pub stdin: Vec<u8>,
}

impl Job {
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Job { argv: argv.into_iter().map(Into::into).collect(), ..Job::default() }
    }
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct Finished {
    pub success: bool,
    /// "exit code 2" or "killed by signal 9".
    pub status: String,
    /// The last part of standard output and error together, for error messages (at most 64 KiB).
    pub tail: String,
}

impl Finished {
    /// What a failure was about: programs say in their output when the disk is full (in English, see [`Job`]).
    pub fn kind(&self) -> Kind {
        if self.tail.contains("No space left on device") { Kind::Space } else { Kind::Build }
    }
}

pub trait Sandbox: Send + Sync {
    /// Runs a job with `root` as its root directory and waits for it. `on_line` gets every line of output as it
    /// comes. `Err` means the job could not be run; a program that failed is `Ok` with `success: false`.
    fn run(&self, root: &Path, job: &Job, on_line: &mut dyn FnMut(&str)) -> Result<Finished>;

    /// Whether this process can mount for itself: it has entered a namespace of its own ([`userns::enter`]).
    fn mounts(&self) -> bool {
        true
    }
}
