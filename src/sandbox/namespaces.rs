//! The sandbox of an ordinary machine: fresh mount, pid, uts, ipc and net namespaces for every job.
//!
//! Owns: [`Namespaces`]. Needs CAP_SYS_ADMIN in the process's user namespace, which [`super::userns::enter`] gives to
//! anybody. A job sees the target root through chroot(2) below an otherwise empty root, so nothing of the host can be
//! reached, and programs that ask (`ischroot`, systemctl) find that they run in a chroot. It gets a fresh `/proc`
//! with its system-wide parts read-only, an empty read-only `/sys`, a small `/dev`, the host name `localhost`, and a
//! loopback interface as its only network. A `policy-rc.d` (Debian policy for invoke-rc.d) and a `start-stop-daemon`
//! that do nothing are laid over the target for the time of the job, so no service starts. Where the target lies on a
//! disk, nothing a job does is flushed to it ([`no_sync`]). When the program ends,
//! the kernel ends whatever it left running.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::child::{self, CStringArray, Setup};
use super::job::{Output, c_strings, candidates, environment, finish, memory_file, pipe, read_report};
use super::mounts::{self, MountPoints};
use super::workarea::is_in_memory;
use super::{Finished, Job, Sandbox, no_sync};
use crate::error::{Context, Error, Result};
use crate::interrupt;

#[derive(Debug, Default)]
pub struct Namespaces;

impl Namespaces {
    pub fn new() -> Self {
        Namespaces
    }
}

impl Sandbox for Namespaces {
    fn run(&self, root: &Path, job: &Job, on_line: &mut dyn FnMut(&str)) -> Result<Finished> {
        let name = job.argv.first().cloned().unwrap_or_default();
        run(root, job, on_line).with_context(|| format!("running `{name}` in the sandbox"))
    }
}

fn run(root: &Path, job: &Job, on_line: &mut dyn FnMut(&str)) -> Result<Finished> {
    interrupt::check()?;
    let root = root.canonicalize().with_context(|| format!("opening {}", root.display()))?;
    let mut points = MountPoints::new(&root)?;
    let ops = mounts::plan(&mut points, &job.binds)?;
    let (go_read, go_write) = pipe()?;
    let (report_read, report_write) = pipe()?;
    let (output_read, output_write) = pipe()?;
    let stdin = memory_file(&job.stdin)?;
    let setup = Setup {
        chroot: CString::from(mounts::CHROOT),
        candidates: candidates(&job.argv)?,
        argv: CStringArray::new(c_strings(job.argv.iter().cloned())?),
        environment: CStringArray::new(environment(job)?),
        filter: if is_in_memory(&root)? { Vec::new() } else { no_sync::filter() },
        stdin: stdin.as_raw_fd(),
        output: output_write.as_raw_fd(),
        go: go_read.as_raw_fd(),
        report: report_write.as_raw_fd(),
        ops,
    };
    let pid = child::spawn(&setup).map_err(|error| cannot_spawn(&error))?;
    let running = Running { pid };
    drop((go_read, report_write, output_write, stdin));
    std::fs::File::from(go_write).write_all(b"!").context("starting the job")?;
    let mut output = Output::new(on_line);
    output.read_all(&output_read)?;
    let report = read_report(&report_read)?;
    drop(running);
    points.clear()?;
    let describe = |op: u32| setup.ops.get(op as usize).map(mounts::describe).unwrap_or_default();
    finish(report, describe, job, output.into_tail())
}

fn cannot_spawn(error: &std::io::Error) -> Error {
    Error::build(error.to_string())
        .add_context("creating namespaces")
        .hint("the build needs user namespaces (run it as a normal user) or root with CAP_SYS_ADMIN")
}

/// The init process of a job; killed and waited for when dropped, with everything in its pid namespace.
struct Running {
    pid: libc::pid_t,
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: our own child, not yet waited for, so the number is still its.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let mut status = 0;
        // SAFETY: as above; `status` outlives the call.
        while unsafe { libc::waitpid(self.pid, &mut status, 0) } == -1
            && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
        {}
    }
}
