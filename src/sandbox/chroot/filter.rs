//! The filter of system calls (seccomp(2)) that every program of the `chroot` sandbox runs under.
//!
//! Owns: [`filter`]. No network: sockets are local ones only. Nothing that reaches beyond the root: no mounts, no other
//! processes' memory, no signals to everybody or to process 1, no clock, module or kernel settings (most of it needs
//! capabilities that the program does not have; a filter does not depend on that). What needs the host name or
//! `/proc/self/fd` is asked from the job's init process (`answers`). Flushing is left out, see [`super::super::no_sync`].

use super::super::no_sync::{ARCH, ARCHITECTURE, CALLS as FLUSHING, NUMBER, statement};

/// The low halves of arguments in `struct seccomp_data` (linux/seccomp.h), of little-endian machines.
const ARGUMENT: u32 = 16;
/// Numbers of the x32 interface have this bit.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Refused as if a capability was missing.
const REFUSED: [libc::c_long; 38] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_vhangup,
];

/// Programs are told that the kernel does not have these.
const MISSING: [libc::c_long; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Asked of the job's init process, which answers some, and lets the kernel answer the rest.
pub(super) const ASKED: &[libc::c_long] = &[
    libc::SYS_uname,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_fchmodat,
    libc::SYS_getxattr,
    libc::SYS_setxattr,
    libc::SYS_removexattr,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];
/// The same, where no flag is set: stat(2) of a path, links followed. lstat(2) and fstat(2) are by far more frequent.
const ASKED_WITHOUT_FLAGS: (libc::c_long, u32) = (libc::SYS_newfstatat, ARGUMENT + 3 * 8);
/// The same, with a path that does not begin at a descriptor.
const ASKED_WITHOUT_FOLDER: [libc::c_long; 3] = [libc::SYS_openat, libc::SYS_readlinkat, libc::SYS_linkat];
/// The init asks itself nothing: it has this as the last argument, which none of these calls has.
pub(super) const OWN: u32 = 0x6962_6c64;

/// Empty where this processor is not known here. With `notify`, what is [`ASKED`] goes to whoever holds
/// the listener.
pub(super) fn filter(notify: bool) -> Vec<libc::sock_filter> {
    let Some(architecture) = ARCHITECTURE else { return Vec::new() };
    let load = |at| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    let equal = |value, yes, no| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, yes, no);
    let leave = |value| statement(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    let error = |number: i32| leave(libc::SECCOMP_RET_ERRNO | number as u32);
    // Calls of another architecture (32-bit programs) have other numbers, and would get around the rest.
    let mut program = vec![load(ARCH), equal(architecture, 1, 0), error(libc::ENOSYS), load(NUMBER)];
    #[cfg(target_arch = "x86_64")]
    program.extend([statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32, 0, 1), error(libc::ENOSYS)]);
    for call in FLUSHING {
        program.extend([equal(call as u32, 0, 1), error(0)]);
    }
    for call in REFUSED {
        program.extend([equal(call as u32, 0, 1), error(libc::EPERM)]);
    }
    for call in MISSING {
        program.extend([equal(call as u32, 0, 1), error(libc::ENOSYS)]);
    }
    // The kernel was built without that family: what programs are prepared for.
    program.extend([
        equal(libc::SYS_socket as u32, 0, 4),
        load(ARGUMENT),
        equal(libc::AF_UNIX as u32, 0, 1),
        leave(libc::SECCOMP_RET_ALLOW),
        error(libc::EAFNOSUPPORT),
    ]);
    program.extend([
        equal(libc::SYS_kill as u32, 0, 5),
        load(ARGUMENT),
        equal(1, 2, 0),
        equal(u32::MAX, 1, 0),
        leave(libc::SECCOMP_RET_ALLOW),
        error(libc::EPERM),
    ]);
    if notify {
        let ask = || leave(libc::SECCOMP_RET_USER_NOTIF);
        program.extend([load(ARGUMENT + 5 * 8), equal(OWN, 0, 1), leave(libc::SECCOMP_RET_ALLOW), load(NUMBER)]);
        for call in ASKED {
            program.extend([equal(*call as u32, 0, 1), ask()]);
        }
        let (call, flags) = ASKED_WITHOUT_FLAGS;
        program.extend([equal(call as u32, 0, 4), load(flags), equal(0, 0, 1), ask(), leave(libc::SECCOMP_RET_ALLOW)]);
        for call in ASKED_WITHOUT_FOLDER {
            let here = equal(libc::AT_FDCWD as u32, 0, 1);
            program.extend([equal(call as u32, 0, 4), load(ARGUMENT), here, ask(), leave(libc::SECCOMP_RET_ALLOW)]);
        }
        #[cfg(target_arch = "x86_64")]
        program.extend([equal(libc::SYS_open as u32, 0, 1), ask()]);
    }
    program.push(leave(libc::SECCOMP_RET_ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn outcome(architecture: u32, number: i64, argument: u32) -> u32 {
        let program = filter(true);
        let (mut at, mut value) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |yes: bool| usize::from(if yes { step.jt } else { step.jf });
            match u32::from(step.code) {
                code if code == libc::BPF_RET | libc::BPF_K => return step.k,
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    value = match step.k {
                        ARCH => architecture,
                        NUMBER => number as u32,
                        _ => argument,
                    };
                }
                code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => at += jump(value >= step.k),
                _ => at += jump(value == step.k),
            }
        }
    }

    #[test]
    fn what_reaches_beyond_the_root_is_refused() {
        let Some(here) = ARCHITECTURE else { return };
        let error = |number: i32| libc::SECCOMP_RET_ERRNO | number as u32;
        for call in REFUSED {
            assert_eq!(outcome(here, call, 0), error(libc::EPERM));
        }
        for call in [libc::SYS_read, libc::SYS_openat, libc::SYS_execve, libc::SYS_chroot, libc::SYS_connect] {
            assert_eq!(outcome(here, call, 0), libc::SECCOMP_RET_ALLOW);
            assert_eq!(outcome(here ^ 1, call, 0), error(libc::ENOSYS));
        }
        assert_eq!(outcome(here, libc::SYS_fsync, 3), error(0));
        assert_eq!(outcome(here, libc::SYS_io_uring_setup, 3), error(libc::ENOSYS));
        for call in ASKED {
            assert_eq!(outcome(here, *call, 0), libc::SECCOMP_RET_USER_NOTIF);
        }
        for call in ASKED_WITHOUT_FOLDER {
            assert_eq!(outcome(here, call, libc::AT_FDCWD as u32), libc::SECCOMP_RET_USER_NOTIF);
            assert_eq!(outcome(here, call, 3), libc::SECCOMP_RET_ALLOW);
        }
        // The init's own; what is refused is refused to it, too.
        for call in ASKED.iter().chain(&ASKED_WITHOUT_FOLDER) {
            assert_eq!(outcome(here, *call, OWN), libc::SECCOMP_RET_ALLOW);
        }
        assert_eq!(outcome(here, libc::SYS_socket, OWN), error(libc::EAFNOSUPPORT));
        assert_eq!(outcome(here, libc::SYS_mount, OWN), error(libc::EPERM));
        assert_eq!(outcome(here, libc::SYS_newfstatat, 0), libc::SECCOMP_RET_USER_NOTIF);
        assert_eq!(outcome(here, libc::SYS_newfstatat, libc::AT_SYMLINK_NOFOLLOW as u32), libc::SECCOMP_RET_ALLOW);
        assert_eq!(outcome(here, libc::SYS_socket, libc::AF_UNIX as u32), libc::SECCOMP_RET_ALLOW);
        for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_VSOCK] {
            assert_eq!(outcome(here, libc::SYS_socket, family as u32), error(libc::EAFNOSUPPORT));
        }
        assert_eq!(outcome(here, libc::SYS_kill, 1), error(libc::EPERM));
        assert_eq!(outcome(here, libc::SYS_kill, u32::MAX), error(libc::EPERM));
        assert_eq!(outcome(here, libc::SYS_kill, 4711), libc::SECCOMP_RET_ALLOW);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(outcome(here, 0x4000_0000 | libc::SYS_socket, 1), error(libc::ENOSYS));
    }
}
