//! The sandbox of an ordinary, unprivileged container: chroot(2), and no mount at all.
//!
//! Owns: [`Chroot`]. Needs root with the capabilities that container engines give by default ([`missing_capabilities`]),
//! and a place for the target where device files can be made and opened. What the other sandbox mounts is laid into the
//! target as files for the time of the jobs (`laid`, `facts`), and taken away again; what its namespaces keep from jobs
//! is refused by a filter of system calls (`filter`); an init process of the job ends what is left running
//! (`child`) and answers for the host name and `/proc/self/fd` (`answers`). The Tree that comes out is the same. Against a script that means harm a chroot is no wall:
//! that is what the container is for. docs/decisions/0012-chroot-sandbox.md has the whole comparison.

mod answers;
mod child;
mod facts;
mod filter;
mod laid;

use std::ffi::CString;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use self::child::Setup;
use self::laid::Rooms;
use super::child::CStringArray;
use super::job::{self, Output, c_strings, candidates, environment, memory_file, pipe, read_report};
use super::{Finished, Job, Sandbox};
use crate::error::{Context, Error, Result};
use crate::interrupt;

/// Capabilities by number and name (capabilities(7)) that the builder needs, all in the default set of Docker and Podman:
/// the owners, modes and attributes of files in a Tree, device nodes, chroot(2) and ending what jobs leave.
const NEEDED: [(u32, &str); 10] = [
    (0, "CHOWN"),
    (1, "DAC_OVERRIDE"),
    (3, "FOWNER"),
    (4, "FSETID"),
    (5, "KILL"),
    (6, "SETGID"),
    (7, "SETUID"),
    (18, "SYS_CHROOT"),
    (27, "MKNOD"),
    (31, "SETFCAP"),
];
/// What scripts do not get of these: as in a user namespace, they make no device nodes.
const WITHHELD: u32 = 27;

#[derive(Debug, Default)]
pub struct Chroot {
    rooms: Rooms,
}

impl Chroot {
    pub fn new() -> Self {
        Chroot::default()
    }
}

/// Names of capabilities that this process lacks for the `chroot` sandbox.
pub fn missing_capabilities() -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    missing_in(&status)
}

fn missing_in(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    NEEDED.iter().filter(|(number, _)| effective & (1 << number) == 0).map(|(_, name)| *name).collect()
}

impl Sandbox for Chroot {
    fn run(&self, root: &Path, job: &Job, on_line: &mut dyn FnMut(&str)) -> Result<Finished> {
        let name = job.argv.first().cloned().unwrap_or_default();
        self.run(root, job, on_line).with_context(|| format!("running `{name}` in the sandbox"))
    }

    fn mounts(&self) -> bool {
        false
    }
}

impl Chroot {
    fn run(&self, root: &Path, job: &Job, on_line: &mut dyn FnMut(&str)) -> Result<Finished> {
        interrupt::check()?;
        let root = root.canonicalize().with_context(|| format!("opening {}", root.display()))?;
        let (go_read, go_write) = pipe()?;
        let (report_read, report_write) = pipe()?;
        let (output_read, output_write) = pipe()?;
        let stdin = memory_file(&job.stdin)?;
        let setup = Setup {
            root: CString::new(root.as_os_str().as_bytes()).map_err(|_| Error::build("a path holds a NUL byte"))?,
            candidates: candidates(&job.argv)?,
            argv: CStringArray::new(c_strings(job.argv.iter().cloned())?),
            environment: CStringArray::new(environment(job)?),
            notifying: filter::filter(true),
            plain: filter::filter(false),
            identity: identity()?,
            capabilities: NEEDED
                .iter()
                .filter(|(number, _)| *number != WITHHELD)
                .map(|(number, _)| 1u64 << number)
                .sum(),
            stdin: stdin.as_raw_fd(),
            output: output_write.as_raw_fd(),
            go: go_read.as_raw_fd(),
            report: report_write.as_raw_fd(),
        };
        let stay = self.rooms.enter(&root, &job.binds)?;
        let pid = child::spawn(&setup).context("starting the job's init process")?;
        let running = Running { pid };
        drop((go_read, report_write, output_write, stdin));
        std::fs::File::from(go_write).write_all(b"!").context("starting the job")?;
        let mut output = Output::new(on_line);
        output.read_all(&output_read)?;
        let report = read_report(&report_read)?;
        drop(running);
        stay.end()?;
        job::finish(report, |_| String::new(), job, output.into_tail())
    }
}

/// What uname(2) tells jobs: the kernel of this machine, and the fixed host name.
fn identity() -> Result<libc::utsname> {
    // SAFETY: a zeroed structure is valid and outlives the call.
    let mut identity: libc::utsname = unsafe { std::mem::zeroed() };
    if unsafe { libc::uname(&mut identity) } != 0 {
        return Err(std::io::Error::last_os_error()).context("asking for the kernel's name");
    }
    identity.nodename = [0; 65];
    for (place, byte) in identity.nodename.iter_mut().zip(b"localhost") {
        *place = *byte as libc::c_char;
    }
    Ok(identity)
}

/// The init process of a job; told to end everything when dropped, and waited for.
struct Running {
    pid: libc::pid_t,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut status = 0;
        loop {
            // SAFETY: our own child; `status` outlives the call.
            match unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) } {
                0 => {}
                -1 if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
                _ => return,
            }
            // More than once: it may have come while the signals of the builder were still the child's, too.
            // SAFETY: not yet waited for, so the number is still our child's.
            unsafe { libc::kill(self.pid, libc::SIGTERM) };
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_lacks_is_named() {
        // Docker's default set.
        assert!(missing_in("Name:\tx\nCapEff:\t00000000a80425fb\n").is_empty());
        assert_eq!(missing_in("CapEff:\t00000000a00425fb\n"), ["MKNOD"]);
        assert_eq!(missing_in("CapEff:\t0000000000000000\n").len(), NEEDED.len());
    }
}
