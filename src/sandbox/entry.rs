//! How a build gets the rights it needs, and which sandbox follows from that.
//!
//! Owns: [`Choice`], what the user may ask for, and [`enter`], called once before any thread runs.

use std::path::Path;

use super::userns::{self, Privilege};
use super::{Chroot, Namespaces, Sandbox, chroot};
use crate::error::{Error, Result};
use crate::report::Reporter;

/// What confines foreign scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// Namespaces where they work, else chroot where that works.
    #[default]
    Auto,
    Namespaces,
    Chroot,
}

/// The sandbox of this process, ready for use, and how it came to it.
pub struct Entered {
    pub sandbox: Box<dyn Sandbox>,
    /// Of a process that has entered namespaces of its own.
    pub privilege: Option<Privilege>,
    /// Why namespaces were not used, where they were asked for first.
    pub note: Option<String>,
}

impl Entered {
    fn namespaces() -> Result<Self> {
        let privilege = userns::enter()?;
        Ok(Entered { sandbox: Box::new(Namespaces::new()), privilege: Some(privilege), note: None })
    }

    /// Says what the user should know about it.
    pub fn tell(&self, reporter: &Reporter) {
        if let Some(note) = &self.note {
            reporter.note(note.clone());
        }
    }

    fn chroot(note: Option<String>) -> Self {
        Entered { sandbox: Box::new(Chroot::new()), privilege: None, note }
    }
}

/// Enters what was chosen. To be called once, with no other thread running.
pub fn enter(choice: Choice) -> Result<Entered> {
    match choice {
        Choice::Namespaces => Entered::namespaces(),
        Choice::Chroot => match why_no_chroot() {
            None => Ok(Entered::chroot(None)),
            Some(why) => Err(Error::build(why).add_context("choosing the sandbox `chroot`")),
        },
        Choice::Auto => match userns::probe() {
            Ok(()) => Entered::namespaces(),
            Err(reason) => match why_no_chroot() {
                None => Ok(Entered::chroot(Some(format!("scripts run in a chroot: {reason}")))),
                // Says what is missing, with the command that helps.
                Some(why) => Entered::namespaces().map_err(|error| match rustix::process::geteuid().is_root() {
                    true => error.hint(format!("the sandbox `chroot` cannot be used instead: {why}")),
                    false => error,
                }),
            },
        },
    }
}

/// What stands in the way of the sandbox `chroot`, if anything does.
pub fn why_no_chroot() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root, as programs in an ordinary container are".into());
    }
    match chroot::missing_capabilities().as_slice() {
        [] if devices_refused() => Some(
            "it needs device files, which root of a user namespace cannot make: the container belongs to a rootless engine \
             or one that maps users; start it with `--userns=host` where the engine has that"
                .into(),
        ),
        [] => None,
        missing => Some(format!(
            "it needs capabilities that this process lacks: {} (all are in the default set of Docker and Podman)",
            missing.join(", ")
        )),
    }
}

/// Having the capability is not enough: it counts in the first user namespace only (user_namespaces(7)).
fn devices_refused() -> bool {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let Ok(folder) = tempfile::tempdir() else { return false };
    let place = folder.path().join("null");
    let made = mknodat(CWD, &place, FileType::CharacterDevice, Mode::from_raw_mode(0o600), makedev(1, 3));
    made == Err(rustix::io::Errno::PERM)
}

/// Whether a folder can hold a target: programs in it can be executed. Device files are tried when the target is there.
pub fn check_work_folder(folder: &Path) -> Result<()> {
    let stat = rustix::fs::statvfs(folder)
        .map_err(|error| Error::build(error.to_string()).add_context(format!("looking at {}", folder.display())))?;
    let has = |flag| stat.f_flag.contains(flag);
    let missing: Vec<&str> =
        [(rustix::fs::StatVfsMountFlags::NOEXEC, "exec"), (rustix::fs::StatVfsMountFlags::NODEV, "dev")]
            .into_iter()
            .filter(|(flag, _)| has(*flag))
            .map(|(_, name)| name)
            .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::build(format!("{} is mounted without `{}`", folder.display(), missing.join("` and `")))
        .hint("give another folder with `--work-dir`, such as one of `docker run --tmpfs /work:exec,suid,dev`"))
}
