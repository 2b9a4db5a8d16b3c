//! The filter of system calls (seccomp(2)) that every program of the `chroot` sandbox runs under.
//!
//! Owns: [`filter`]. No network: sockets are local ones only. Nothing that reaches beyond the root: no mounts, no other
//! processes' memory, no signals to everybody or to process 1, no clock, module or kernel settings (most of it needs
//! capabilities that the program does not have; a filter does not depend on that). uname(2) is asked from the job's init
//! process, which answers with the fixed host name. Flushing is left out, see [`super::super::no_sync`].

use super::super::no_sync::{ARCH, ARCHITECTURE, CALLS as FLUSHING, NUMBER, statement};

/// The low halves of arguments in `struct seccomp_data` (linux/seccomp.h), of little-endian machines.
const FIRST_ARGUMENT: u32 = 16;
const FOURTH_ARGUMENT: u32 = FIRST_ARGUMENT + 3 * 8;
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
    libc::SYS_fchmodat,
    libc::SYS_getxattr,
    libc::SYS_setxattr,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
];

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
    if notify {
        for call in ASKED {
            program.extend([equal(*call as u32, 0, 1), leave(libc::SECCOMP_RET_USER_NOTIF)]);
        }
    }
    // stat(2) of a path, links followed; lstat(2) and fstat(2), which are by far more frequent, have flags.
    if notify {
        program.extend([
            equal(libc::SYS_newfstatat as u32, 0, 4),
            load(FOURTH_ARGUMENT),
            equal(0, 0, 1),
            leave(libc::SECCOMP_RET_USER_NOTIF),
            leave(libc::SECCOMP_RET_ALLOW),
        ]);
    }
    // The kernel was built without that family: what programs are prepared for.
    program.extend([
        equal(libc::SYS_socket as u32, 0, 4),
        load(FIRST_ARGUMENT),
        equal(libc::AF_UNIX as u32, 0, 1),
        leave(libc::SECCOMP_RET_ALLOW),
        error(libc::EAFNOSUPPORT),
    ]);
    program.extend([
        equal(libc::SYS_kill as u32, 0, 5),
        load(FIRST_ARGUMENT),
        equal(1, 2, 0),
        equal(u32::MAX, 1, 0),
        leave(libc::SECCOMP_RET_ALLOW),
        error(libc::EPERM),
    ]);
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
