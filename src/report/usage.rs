//! What the process has used so far (processor time and memory, children included), and what is left of a disk.
//!
//! Owns: the questions, answered by getrusage(2) and statvfs(3).

use std::path::Path;
use std::time::Duration;

/// User and system time of this process and of the children it has waited for.
pub fn cpu_time() -> Duration {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .into_iter()
        .filter_map(rusage)
        .map(|usage| duration(usage.ru_utime) + duration(usage.ru_stime))
        .sum()
}

/// The largest resident set in bytes: of this process, and of the largest child it has waited for.
pub fn peak_memory() -> (u64, u64) {
    let of = |who| rusage(who).map_or(0, |usage| u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024);
    (of(libc::RUSAGE_SELF), of(libc::RUSAGE_CHILDREN))
}

/// Bytes that can still be written where a path lies; nothing if that cannot be told. For a path that is not there yet,
/// its nearest folder counts.
pub fn free_space(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|path| path.as_os_str().is_empty() || path.exists())?;
    let stat = rustix::fs::statvfs(if there.as_os_str().is_empty() { Path::new(".") } else { there }).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

fn rusage(who: libc::c_int) -> Option<libc::rusage> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is valid for writes of one `rusage`; every bit pattern of it is a valid value.
    unsafe { (libc::getrusage(who, usage.as_mut_ptr()) == 0).then(|| usage.assume_init()) }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
        + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_known_for_what_is_not_there_yet() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_space(folder.path()).unwrap() > 0);
        assert!(free_space(&folder.path().join("a/b/c")).is_some() && free_space(Path::new("not-here")).is_some());
    }

    #[test]
    fn memory_and_time_are_counted() {
        assert!(peak_memory().0 > 100 << 10);
        let before = cpu_time();
        let mut sum = 0u64;
        while cpu_time() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(cpu_time() > before);
    }
}
