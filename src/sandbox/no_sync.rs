//! Flushing, left out: what lies in a work area is thrown away in the end, and what is kept of it is flushed once, when it
//! is published or stored.
//!
//! Owns: [`filter`], a program for seccomp(2) that lets fsync(2) and its relatives succeed without being done, as eatmydata
//! does it for programs that use the C library. Files opened with `O_SYNC` are not covered.

#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURE: Option<u32> = Some(0xC000_003E);
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURE: Option<u32> = Some(0xC000_00B7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const ARCHITECTURE: Option<u32> = None;

pub(super) const CALLS: [libc::c_long; 6] = [
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync,
    libc::SYS_syncfs,
    libc::SYS_msync,
    libc::SYS_sync_file_range,
];

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;

/// Empty where this processor is not known here: then everything is flushed as ever.
pub(super) fn filter() -> Vec<libc::sock_filter> {
    let Some(architecture) = ARCHITECTURE else { return Vec::new() };
    let load = |at| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    let equal = |value, yes, no| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, yes, no);
    let leave = |value| statement(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    // Calls of another architecture (32-bit programs) have other numbers.
    let mut program = vec![load(ARCH), equal(architecture, 1, 0), leave(libc::SECCOMP_RET_ALLOW), load(NUMBER)];
    for (at, call) in CALLS.iter().enumerate() {
        let to_success = (CALLS.len() - at) as u8;
        program.push(equal(*call as u32, to_success, 0));
    }
    program.push(leave(libc::SECCOMP_RET_ALLOW));
    // The error number 0: success.
    program.push(leave(libc::SECCOMP_RET_ERRNO));
    program
}

pub(super) fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn outcome(architecture: u32, number: u32) -> u32 {
        let program = filter();
        let (mut at, mut value) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            match u32::from(step.code) {
                code if code == libc::BPF_RET | libc::BPF_K => return step.k,
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    value = if step.k == ARCH { architecture } else { number };
                }
                _ => at += usize::from(if value == step.k { step.jt } else { step.jf }),
            }
        }
    }

    #[test]
    fn only_flushing_is_left_out() {
        let Some(architecture) = ARCHITECTURE else { return };
        for call in CALLS {
            assert_eq!(outcome(architecture, call as u32), libc::SECCOMP_RET_ERRNO);
            assert_eq!(outcome(architecture ^ 1, call as u32), libc::SECCOMP_RET_ALLOW);
        }
        for call in [libc::SYS_read, libc::SYS_execve, libc::SYS_getrandom] {
            assert_eq!(outcome(architecture, call as u32), libc::SECCOMP_RET_ALLOW);
        }
    }
}
