//! What happens between `clone` and `exec`: the set-up of a job's namespaces, as a list of prepared system calls.
//!
//! Owns: [`Op`], [`Setup`] and the two processes of a job: the init (pid 1 of the job's pid namespace; performs the
//! ops, starts the program, reaps, and takes everything left over with it when it ends) and the program itself.
//! The caller may have threads, so after `clone` only system calls are allowed: no allocation, no lock, no panic.
//! Everything that needs memory is prepared before.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;

/// One system call of the set-up, with all its memory.
pub(super) enum Op {
    Mount {
        source: CString,
        target: CString,
        fstype: CString,
        flags: libc::c_ulong,
        data: CString,
        optional: bool,
    },
    MakeDirectory {
        path: CString,
        mode: libc::mode_t,
    },
    WriteFile {
        path: CString,
        bytes: Vec<u8>,
        mode: libc::mode_t,
    },
    Symlink {
        path: CString,
        target: CString,
    },
    /// Takes hold of the mount at a path, so that it can be attached elsewhere after something covers it.
    Pick {
        path: CString,
    },
    /// Attaches what was picked.
    Attach {
        path: CString,
    },
    HostName {
        name: CString,
    },
    LoopbackUp,
    /// The folder becomes the root of this process; the old root goes away.
    PivotRoot {
        path: CString,
    },
}

/// Everything the child processes need.
pub(super) struct Setup {
    pub ops: Vec<Op>,
    /// The job's root, seen after [`Op::PivotRoot`].
    pub chroot: CString,
    /// What to try to execute, in order.
    pub candidates: Vec<CString>,
    pub argv: CStringArray,
    pub environment: CStringArray,
    /// A filter of system calls ([`super::no_sync`]); empty for none.
    pub filter: Vec<libc::sock_filter>,
    pub stdin: RawFd,
    pub output: RawFd,
    /// The child waits for a byte here, so that a parent that died early is noticed.
    pub go: RawFd,
    /// [`Report`]s go here.
    pub report: RawFd,
}

/// A NULL-terminated array for `execve`.
pub(super) struct CStringArray {
    pub(super) pointers: Vec<*const libc::c_char>,
    _strings: Vec<CString>,
}

impl CStringArray {
    pub(super) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        CStringArray { pointers, _strings: strings }
    }
}

/// What the children tell the parent: twelve bytes, written at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The op of this number failed with this errno.
    Op(u32, i32),
    /// The program could not be executed.
    Exec(i32),
    /// The program could not be started for another reason.
    Start(i32),
    /// The wait status of the program.
    Ended(i32),
}

impl Report {
    pub(super) const SIZE: usize = 12;

    fn encode(self) -> [u8; Self::SIZE] {
        let (tag, index, value) = match self {
            Report::Op(index, errno) => (0u32, index, errno),
            Report::Exec(errno) => (1, 0, errno),
            Report::Start(errno) => (2, 0, errno),
            Report::Ended(status) => (3, 0, status),
        };
        let mut bytes = [0; Self::SIZE];
        let (a, rest) = bytes.split_at_mut(4);
        let (b, c) = rest.split_at_mut(4);
        a.copy_from_slice(&tag.to_le_bytes());
        b.copy_from_slice(&index.to_le_bytes());
        c.copy_from_slice(&value.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
        let (tag, index, value) = (word(0)?, word(4)?, word(8)? as i32);
        match tag {
            0 => Some(Report::Op(index, value)),
            1 => Some(Report::Exec(value)),
            2 => Some(Report::Start(value)),
            3 => Some(Report::Ended(value)),
            _ => None,
        }
    }
}

/// Starts the init process in new namespaces; gives its process id as the parent sees it.
pub(super) fn spawn(setup: &Setup) -> std::io::Result<libc::pid_t> {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET;
    match clone(flags) {
        -1 => Err(std::io::Error::last_os_error()),
        0 => init(setup),
        pid => Ok(pid),
    }
}

/// `fork` with namespaces, without the C library's fork handlers.
pub(super) fn clone(flags: libc::c_int) -> libc::pid_t {
    let flags = (flags | libc::SIGCHLD) as libc::c_ulong;
    // SAFETY: no shared memory and no new stack is asked for, so this behaves like fork(2).
    unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) as libc::pid_t }
}

pub(super) fn errno() -> i32 {
    // SAFETY: the address of a thread-local integer.
    unsafe { *libc::__errno_location() }
}

pub(super) fn tell(fd: RawFd, report: Report) {
    let bytes = report.encode();
    // SAFETY: the buffer outlives the call. A pipe takes twelve bytes at once.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
}

pub(super) fn leave(code: libc::c_int) -> ! {
    // SAFETY: ends the process without exit handlers.
    unsafe { libc::_exit(code) }
}

fn init(setup: &Setup) -> ! {
    // SAFETY: system calls on descriptors and memory prepared by the parent.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        let mut byte = 0u8;
        if libc::read(setup.go, (&raw mut byte).cast(), 1) != 1 {
            leave(1);
        }
        close_others([setup.stdin, setup.output, setup.go, setup.report]);
        reset_signals();
        libc::setsid();
        libc::umask(0);
    }
    let mut picked = -1;
    for (index, op) in setup.ops.iter().enumerate() {
        if let Err(errno) = perform(op, &mut picked) {
            tell(setup.report, Report::Op(index as u32, errno));
            leave(1);
        }
    }
    let program = clone(0);
    match program {
        -1 => tell(setup.report, Report::Start(errno())),
        0 => become_program(setup),
        _ => reap(setup, program),
    }
    leave(0)
}

/// Waits for every child that comes along, until the program itself ends.
fn reap(setup: &Setup, program: libc::pid_t) {
    // The init must not keep the output open: the parent reads to the end of it.
    // SAFETY: own descriptors, own children.
    unsafe {
        libc::close(setup.output);
        libc::close(setup.stdin);
        loop {
            let mut status = 0;
            let pid = libc::waitpid(-1, &mut status, 0);
            if pid == program {
                tell(setup.report, Report::Ended(status));
                return;
            }
            if pid == -1 && errno() != libc::EINTR {
                tell(setup.report, Report::Start(errno()));
                return;
            }
        }
    }
}

fn become_program(setup: &Setup) -> ! {
    // SAFETY: system calls on descriptors and memory prepared by the parent.
    unsafe {
        libc::setsid();
        let ready = libc::chroot(setup.chroot.as_ptr()) == 0
            && libc::chdir(c"/".as_ptr()) == 0
            && libc::dup2(setup.stdin, 0) == 0
            && libc::dup2(setup.output, 1) == 1
            && libc::dup2(setup.output, 2) == 2;
        if !ready {
            tell(setup.report, Report::Start(errno()));
            leave(127);
        }
        libc::umask(0o022);
        // Not the C library's function: that one waits for threads, and those of the parent are not here.
        libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>());
        let files = libc::rlimit { rlim_cur: 1024, rlim_max: 4096 };
        libc::setrlimit(libc::RLIMIT_NOFILE, &files);
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
        libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if !setup.filter.is_empty() {
            let program = libc::sock_fprog {
                len: setup.filter.len() as libc::c_ushort,
                filter: setup.filter.as_ptr().cast_mut(),
            };
            // Where the kernel has no filters, programs flush, which costs time and nothing else.
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program);
        }
        let mut reason = libc::ENOENT;
        for candidate in &setup.candidates {
            libc::execve(
                candidate.as_ptr(),
                setup.argv.pointers.as_ptr().cast(),
                setup.environment.pointers.as_ptr().cast(),
            );
            if errno() != libc::ENOENT {
                reason = errno();
            }
        }
        tell(setup.report, Report::Exec(reason));
        leave(127)
    }
}

/// Closes all descriptors but these: one that belongs to another thread's job would keep that job's output open.
pub(super) unsafe fn close_others(mut keep: [RawFd; 4]) {
    keep.sort_unstable();
    let mut first: libc::c_uint = 0;
    for fd in keep {
        let fd = fd as libc::c_uint;
        if fd > first {
            // SAFETY: nothing in this process uses the descriptors between those that are kept.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = fd + 1;
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
}

/// Every signal back to its default and none blocked, as a fresh process expects.
pub(super) unsafe fn reset_signals() {
    // SAFETY: a zeroed sigset is a valid empty one; signal numbers out of range only give an error.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

fn check(result: libc::c_long) -> Result<(), i32> {
    if result == -1 { Err(errno()) } else { Ok(()) }
}

fn perform(op: &Op, picked: &mut RawFd) -> Result<(), i32> {
    // SAFETY: every pointer belongs to the op and outlives the call.
    unsafe {
        match op {
            Op::Mount { source, target, fstype, flags, data, optional } => {
                let data = if data.is_empty() { std::ptr::null() } else { data.as_ptr().cast() };
                let done = libc::mount(source.as_ptr(), target.as_ptr(), fstype.as_ptr(), *flags, data);
                if *optional { Ok(()) } else { check(done.into()) }
            }
            Op::MakeDirectory { path, mode } => check(libc::mkdir(path.as_ptr(), *mode).into()),
            Op::WriteFile { path, bytes, mode } => write_file(path, bytes, *mode),
            Op::Symlink { path, target } => check(libc::symlink(target.as_ptr(), path.as_ptr()).into()),
            Op::Pick { path } => {
                let flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
                let fd = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags);
                *picked = fd as RawFd;
                check(fd)
            }
            Op::Attach { path } => {
                let flags = libc::MOVE_MOUNT_F_EMPTY_PATH;
                let done =
                    libc::syscall(libc::SYS_move_mount, *picked, c"".as_ptr(), libc::AT_FDCWD, path.as_ptr(), flags);
                libc::close(*picked);
                check(done)
            }
            Op::HostName { name } => check(libc::sethostname(name.as_ptr(), name.as_bytes().len()).into()),
            Op::LoopbackUp => loopback_up(),
            Op::PivotRoot { path } => {
                check(libc::chdir(path.as_ptr()).into())?;
                check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
                check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into())?;
                check(libc::chdir(c"/".as_ptr()).into())
            }
        }
    }
}

unsafe fn write_file(path: &CStr, bytes: &[u8], mode: libc::mode_t) -> Result<(), i32> {
    // SAFETY: the path and the bytes outlive the calls.
    unsafe {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let fd = libc::open(path.as_ptr(), flags, mode as libc::c_uint);
        check(fd.into())?;
        let written = libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        let result = if written == bytes.len() as isize { Ok(()) } else { Err(libc::EIO) };
        libc::close(fd);
        result
    }
}

unsafe fn loopback_up() -> Result<(), i32> {
    // SAFETY: a zeroed `ifreq` is valid; its name is NUL-terminated; the descriptor is ours.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(socket.into())?;
        let done = libc::ioctl(socket, libc::SIOCSIFFLAGS, &request);
        let result = check(done.into());
        libc::close(socket);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_pipe() {
        for report in [Report::Op(7, 13), Report::Exec(2), Report::Start(11), Report::Ended(0x0200)] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        assert_eq!(Report::decode(&[9; 12]), None);
        assert_eq!(Report::decode(&[0; 5]), None);
    }
}
