//! The processes of a job without namespaces: an init that watches, and the program.
//!
//! Owns: [`Setup`], [`spawn`] and what happens after it. The init stays outside of the target root. Whatever the program
//! leaves running becomes its child (PR_SET_CHILD_SUBREAPER, prctl(2)) and is killed when the program has ended, or when
//! the builder has. It answers a few system calls for all of them (seccomp_unotify(2)): the host name is
//! the same everywhere, and `/proc/self/fd` can be used ([`super::answers`]). As in [`super::super::child`], after `clone`
//! only system calls are allowed: no allocation, no lock, no panic.
//!
//! The init is under the filter itself. What it calls that the filter would ask it about has to go through [`ask`], or it
//! would wait for itself.

use std::ffi::CString;
use std::os::fd::RawFd;

use super::super::child::{CStringArray, Report, clone, close_others, errno, leave, reset_signals, tell};
use super::answers;
use super::filter::OWN;

/// Everything the child processes need.
pub(super) struct Setup {
    pub root: CString,
    /// What to try to execute, in order.
    pub candidates: Vec<CString>,
    pub argv: CStringArray,
    pub environment: CStringArray,
    /// With some calls going to the init, and without for kernels that cannot do that. Empty for none.
    pub notifying: Vec<libc::sock_filter>,
    pub plain: Vec<libc::sock_filter>,
    /// What uname(2) answers.
    pub identity: libc::utsname,
    /// Capabilities the program keeps, a bit each.
    pub capabilities: u64,
    pub stdin: RawFd,
    pub output: RawFd,
    /// The child waits for a byte here, so that a parent that died early is noticed.
    pub go: RawFd,
    /// [`Report`]s go here.
    pub report: RawFd,
}

/// Starts the init process. Send it SIGTERM to end the job.
pub(super) fn spawn(setup: &Setup) -> std::io::Result<libc::pid_t> {
    match clone(0) {
        -1 => Err(std::io::Error::last_os_error()),
        0 => init(setup),
        pid => Ok(pid),
    }
}

/// Numbers of capabilities(7), `linux/capability.h`.
const LAST_CAPABILITY: u64 = 63;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, `linux/seccomp.h`.
const WAIT_KILLABLE: libc::c_ulong = 1 << 5;

/// A system call that the filter lets pass because it is the init's.
pub(super) unsafe fn ask(call: libc::c_long, arguments: [u64; 5]) -> i64 {
    let [first, second, third, fourth, fifth] = arguments;
    // SAFETY: the caller's. No call that is asked has six arguments; the kernel does not look at the last.
    unsafe { libc::syscall(call, first, second, third, fourth, fifth, u64::from(OWN)) }
}

/// The descriptor is closed by execve(2).
pub(super) unsafe fn open(path: *const libc::c_char, flags: libc::c_int) -> RawFd {
    let flags = (flags | libc::O_CLOEXEC) as u64;
    // SAFETY: the path is the caller's.
    unsafe { ask(libc::SYS_openat, [libc::AT_FDCWD as u64, path as u64, flags, 0, 0]) as RawFd }
}

fn init(setup: &Setup) -> ! {
    // SAFETY: system calls on descriptors and memory prepared by the parent.
    unsafe {
        // The builder is gone: then the job ends as if it had been told to.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0);
        let mut byte = 0u8;
        if libc::read(setup.go, (&raw mut byte).cast(), 1) != 1 {
            leave(1);
        }
        close_others([setup.stdin, setup.output, setup.go, setup.report]);
        reset_signals();
        libc::setsid();
        libc::umask(0);
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGTERM);
        libc::sigaddset(&mut signals, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
        let waiting = libc::signalfd(-1, &signals, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        let ready = waiting >= 0
            && libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
        let listener = if ready { install(setup) } else { Err(errno()) };
        let listener = match listener {
            Ok(listener) => listener,
            Err(errno) => {
                tell(setup.report, Report::Start(errno));
                leave(1)
            }
        };
        match clone(0) {
            -1 => tell(setup.report, Report::Start(errno())),
            0 => become_program(setup),
            program => {
                libc::close(setup.output);
                libc::close(setup.stdin);
                watch(setup, program, waiting, listener);
            }
        }
    }
    leave(0)
}

/// The filter is this process's from now on, and that of all its children. The descriptor is -1 where there is no listener.
unsafe fn install(setup: &Setup) -> Result<RawFd, i32> {
    if setup.plain.is_empty() {
        return Ok(-1);
    }
    let load = |filter: &[libc::sock_filter], flags: libc::c_ulong| {
        let program = libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program outlives the call.
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) }
    };
    // First so that no signal but a deadly one disturbs who waits for an answer; Linux before 5.19 cannot.
    for flags in [libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER] {
        let listener = load(&setup.notifying, flags);
        if listener >= 0 {
            return Ok(listener as RawFd);
        }
    }
    if load(&setup.plain, 0) == 0 { Ok(-1) } else { Err(errno()) }
}

/// Reaps children and answers questions until the program has ended, then ends everything that is left.
unsafe fn watch(setup: &Setup, program: libc::pid_t, signals: RawFd, listener: RawFd) {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut polled = [entry(signals), entry(listener)];
    // SAFETY: own descriptors, own children, own memory.
    unsafe {
        loop {
            if libc::poll(polled.as_mut_ptr(), 2, -1) < 0 {
                continue;
            }
            if polled[1].revents & libc::POLLIN != 0 {
                answers::answer(setup, listener);
            } else if polled[1].revents != 0 {
                // Nobody is left who could ask.
                polled[1].fd = -1;
            }
            if polled[0].revents == 0 {
                continue;
            }
            let mut info: libc::signalfd_siginfo = std::mem::zeroed();
            while libc::read(signals, (&raw mut info).cast(), size_of::<libc::signalfd_siginfo>()) > 0 {
                if info.ssi_signo == libc::SIGTERM as u32 {
                    end_all(listener);
                    leave(0);
                }
            }
            let mut status = 0;
            loop {
                let pid = libc::waitpid(-1, &mut status, libc::WNOHANG);
                if pid == program {
                    let ended = status;
                    end_all(listener);
                    return tell(setup.report, Report::Ended(ended));
                }
                if pid <= 0 {
                    break;
                }
            }
        }
    }
}

/// Kills children until there is none: those of a killed one become ours.
unsafe fn end_all(listener: RawFd) {
    // SAFETY: only our own children are killed; their numbers cannot be given to others before they are waited for.
    unsafe {
        if listener >= 0 {
            // Who waits for an answer goes on, and finds the signal.
            libc::close(listener);
        }
        let own = libc::getpid();
        loop {
            let mut status = 0;
            match libc::waitpid(-1, &mut status, libc::WNOHANG) {
                -1 if errno() == libc::ECHILD => return,
                0 => {
                    each_process(&mut |pid| {
                        if parent_of(pid) == own {
                            libc::kill(pid, libc::SIGKILL);
                        }
                    });
                    libc::waitpid(-1, &mut status, 0);
                }
                _ => {}
            }
        }
    }
}

/// Every number in `/proc`.
unsafe fn each_process(visit: &mut dyn FnMut(libc::pid_t)) {
    // SAFETY: the buffer outlives the calls; records are read within what the kernel has filled.
    unsafe {
        let folder = open(c"/proc".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY);
        if folder < 0 {
            return;
        }
        let mut buffer = [0u8; 4096];
        loop {
            let filled = libc::syscall(libc::SYS_getdents64, folder, buffer.as_mut_ptr(), buffer.len());
            if filled <= 0 {
                break;
            }
            let mut at = 0;
            // struct linux_dirent64: inode, offset, length (2 bytes), type (1 byte), name.
            while at + 19 < filled as usize {
                let length = usize::from(u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]));
                if let Some(pid) = number(&buffer[at + 19..]) {
                    visit(pid);
                }
                at += length.max(1);
            }
        }
        libc::close(folder);
    }
}

/// The decimal number at the start of a text, if there is one.
pub(super) fn number(text: &[u8]) -> Option<libc::pid_t> {
    let mut value: libc::pid_t = 0;
    let mut digits = 0;
    for byte in text.iter().take_while(|byte| byte.is_ascii_digit()) {
        value = value.checked_mul(10)?.checked_add(libc::pid_t::from(*byte - b'0'))?;
        digits += 1;
    }
    (digits > 0).then_some(value)
}

/// Writes `/proc/<pid>/<name>`; the buffer is large enough for any number and the names used here.
pub(super) fn proc_path(pid: libc::pid_t, name: &[u8]) -> [u8; 40] {
    let mut path = [0u8; 40];
    path[..6].copy_from_slice(b"/proc/");
    let mut digits = [0u8; 12];
    let mut at = digits.len();
    let mut left = pid.unsigned_abs();
    while at > 0 && (left > 0 || at == digits.len()) {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    for (place, byte) in path[6..].iter_mut().zip(digits[at..].iter().chain(name)) {
        *place = *byte;
    }
    path
}

/// The parent of a process as `/proc/<pid>/stat` tells (proc(5)): the second number after the last `)`.
unsafe fn parent_of(pid: libc::pid_t) -> libc::pid_t {
    let path = proc_path(pid, b"/stat");
    let mut text = [0u8; 512];
    // SAFETY: the path ends with a zero byte; the buffer outlives the calls.
    let read = unsafe {
        let file = open(path.as_ptr().cast(), libc::O_RDONLY);
        if file < 0 {
            return -1;
        }
        let read = libc::read(file, text.as_mut_ptr().cast(), text.len());
        libc::close(file);
        read
    };
    let text = &text[..usize::try_from(read).unwrap_or(0)];
    // `) S 123 `
    let after = text.iter().rposition(|byte| *byte == b')').map_or(text.len(), |at| (at + 4).min(text.len()));
    number(&text[after..]).unwrap_or(-1)
}

fn become_program(setup: &Setup) -> ! {
    // SAFETY: system calls on descriptors and memory prepared by the parent.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        libc::setsid();
        let ready = libc::chroot(setup.root.as_ptr()) == 0
            && libc::chdir(c"/".as_ptr()) == 0
            && libc::dup2(setup.stdin, 0) == 0
            && libc::dup2(setup.output, 1) == 1
            && libc::dup2(setup.output, 2) == 2
            && keep_capabilities(setup.capabilities);
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

/// Gives up every other capability, for good where that can be done.
unsafe fn keep_capabilities(keep: u64) -> bool {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    // SAFETY: structures of capget(2), version 3: two entries.
    unsafe {
        for capability in (0..=LAST_CAPABILITY).filter(|capability| keep & (1 << capability) == 0) {
            // Beyond the last one that the kernel knows this is an error, and without CAP_SETPCAP.
            libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0);
        }
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        let mut header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
        let mut data = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
        if libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) != 0 {
            return false;
        }
        for (data, keep) in data.iter_mut().zip([keep as u32, (keep >> 32) as u32]) {
            data.permitted &= keep;
            data.effective = data.permitted;
            data.inheritable = 0;
        }
        libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_numbers_without_memory() {
        assert!(proc_path(1, b"/stat").starts_with(b"/proc/1/stat\0"));
        assert!(proc_path(4_194_304, b"/mem").starts_with(b"/proc/4194304/mem\0"));
        assert!(proc_path(i32::MAX, b"/stat").starts_with(b"/proc/2147483647/stat\0"));
        assert_eq!(number(b"123 x"), Some(123));
        assert_eq!((number(b"x1"), number(b"99999999999")), (None, None));
        // SAFETY: reads files of /proc.
        unsafe {
            let own = libc::getpid();
            assert_eq!(parent_of(own), libc::getppid());
            let mut seen = false;
            each_process(&mut |pid| seen |= pid == own);
            assert!(seen);
        }
    }
}
