//! What all sandboxes have in common around a job: its environment, its standard input and output, and how it ended.
//!
//! Owns: the fixed environment, [`Output`] (lines for the caller, the tail for error messages) and [`finish`], which turns
//! the report of a job's init process into a [`Finished`].

use std::collections::VecDeque;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::pipe::{PipeFlags, pipe_with};

use super::child::Report;
use super::{Finished, Job};
use crate::error::{Context, Error, Result};
use crate::interrupt;

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The environment of every job; `SYSTEMD_OFFLINE` makes systemctl change files instead of asking a manager.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", SEARCH_PATH),
    ("HOME", "/root"),
    ("LC_ALL", "C.UTF-8"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("SYSTEMD_OFFLINE", "1"),
];
const TAIL_BYTES: usize = 64 * 1024;
/// Longer lines are reported in pieces.
const LINE_BYTES: usize = 8 * 1024;

/// What a job's init process has said, as the outcome. `describe` tells what an op of the set-up was about.
pub(super) fn finish(
    report: Option<Report>,
    describe: impl Fn(u32) -> String,
    job: &Job,
    tail: String,
) -> Result<Finished> {
    let errno = |errno: i32| std::io::Error::from_raw_os_error(errno).to_string();
    match report {
        Some(Report::Ended(status)) => {
            let success = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
            let status = if libc::WIFEXITED(status) {
                format!("exit code {}", libc::WEXITSTATUS(status))
            } else {
                format!("killed by signal {}", libc::WTERMSIG(status))
            };
            Ok(Finished { success, status, tail })
        }
        Some(Report::Exec(code)) => Err(Error::build(format!("cannot execute `{}`: {}", job.argv[0], errno(code)))),
        Some(Report::Start(code)) => Err(Error::build(format!("cannot start the job: {}", errno(code)))),
        Some(Report::Op(index, code)) => Err(Error::build(format!("{}: {}", describe(index), errno(code)))),
        None => Err(Error::build("the job's init process was killed")),
    }
}

pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).context("creating a pipe")
}

/// Standard input as a file in memory: a job that does not read it cannot block us.
pub(super) fn memory_file(bytes: &[u8]) -> Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(c"stdin", MemfdFlags::CLOEXEC).context("creating the job's standard input")?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).context("filling the job's standard input")?;
    let fd = OwnedFd::from(file);
    rustix::fs::seek(&fd, SeekFrom::Start(0)).context("rewinding the job's standard input")?;
    Ok(fd)
}

fn c_string(text: String) -> Result<CString> {
    CString::new(text).map_err(|_| Error::build("an argument holds a NUL byte"))
}

pub(super) fn c_strings(strings: impl Iterator<Item = String>) -> Result<Vec<CString>> {
    strings.map(c_string).collect()
}

pub(super) fn candidates(argv: &[String]) -> Result<Vec<CString>> {
    match argv.first() {
        None => Err(Error::build("a job without a program")),
        Some(program) if program.contains('/') => Ok(vec![c_string(program.clone())?]),
        Some(program) => c_strings(SEARCH_PATH.split(':').map(|directory| format!("{directory}/{program}"))),
    }
}

pub(super) fn environment(job: &Job) -> Result<Vec<CString>> {
    let own = |name: &str| job.environment.iter().any(|(other, _)| other == name);
    let fixed = ENVIRONMENT.iter().filter(|(name, _)| !own(name)).map(|(name, value)| format!("{name}={value}"));
    c_strings(fixed.chain(job.environment.iter().map(|(name, value)| format!("{name}={value}"))))
}

pub(super) fn read_report(fd: &OwnedFd) -> Result<Option<Report>> {
    let mut bytes = [0; Report::SIZE];
    // The first report decides; a pipe delivers its twelve bytes in one piece.
    let read = rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut bytes)).context("hearing from the job")?;
    Ok(Report::decode(&bytes[..read]))
}

/// Splits output into lines and keeps its tail.
pub(super) struct Output<'a> {
    on_line: &'a mut dyn FnMut(&str),
    line: Vec<u8>,
    tail: VecDeque<u8>,
}

impl<'a> Output<'a> {
    pub(super) fn new(on_line: &'a mut dyn FnMut(&str)) -> Self {
        Output { on_line, line: Vec::new(), tail: VecDeque::new() }
    }

    /// Reads until the job and all it started have closed their output, or the user interrupts.
    pub(super) fn read_all(&mut self, fd: &OwnedFd) -> Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        let patience = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        loop {
            interrupt::check()?;
            let mut polled = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
            match poll(&mut polled, Some(&patience)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error).context("waiting for the job"),
            }
            match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut buffer)).context("reading the job's output")? {
                0 => break,
                read => self.take(&buffer[..read]),
            }
        }
        if !self.line.is_empty() {
            self.flush();
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
        for byte in bytes {
            if *byte == b'\n' {
                self.flush();
            } else {
                self.line.push(*byte);
                if self.line.len() >= LINE_BYTES {
                    self.flush();
                }
            }
        }
    }

    fn flush(&mut self) {
        (self.on_line)(String::from_utf8_lossy(&self.line).trim_end_matches('\r'));
        self.line.clear();
    }

    pub(super) fn into_tail(self) -> String {
        String::from_utf8_lossy(&Vec::from(self.tail)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_tail() {
        let mut lines = Vec::new();
        let mut sink = |line: &str| lines.push(line.to_string());
        let mut output = Output::new(&mut sink);
        output.take(b"one\ntw");
        output.take(b"o\r\n");
        output.take(&vec![b'x'; TAIL_BYTES + 5]);
        let tail = output.into_tail();
        assert_eq!(tail.len(), TAIL_BYTES);
        assert_eq!(&lines[..2], ["one", "two"]);
    }

    #[test]
    fn a_job_overrides_the_fixed_environment() {
        let job = Job { environment: vec![("HOME".into(), "/x".into())], ..Job::new(["true"]) };
        let environment = environment(&job).unwrap();
        let homes: Vec<_> = environment.iter().filter(|entry| entry.as_bytes().starts_with(b"HOME=")).collect();
        assert_eq!(homes, [c"HOME=/x"]);
        assert!(candidates(&[]).is_err());
        assert_eq!(candidates(&["/bin/true".into()]).unwrap(), [CString::from(c"/bin/true")]);
    }
}
