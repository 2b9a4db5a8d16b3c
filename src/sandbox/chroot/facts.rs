//! The few facts of `/proc` that scripts ask for, as files.
//!
//! Owns: [`write`]. The same text everywhere: what is read here may become bytes of an image. `/proc/1/root` is a folder
//! that is not `/`: so programs that ask (`ischroot`, systemctl) find that they run in a chroot, as they do with a
//! mounted `/proc`. `/proc/self/fd` is answered by the job's init (`answers`).

use std::path::Path;

use crate::error::{Context, Result};

const FACTS: [(&str, &str); 15] = [
    ("self/mounts", MOUNTS),
    ("self/mountinfo", "1 1 0:1 / / rw,relatime - rootfs rootfs rw\n"),
    ("self/cgroup", "0::/\n"),
    ("1/comm", "imagebuilder\n"),
    ("filesystems", "nodev\tproc\nnodev\tsysfs\nnodev\ttmpfs\n\text4\n\tvfat\n"),
    ("cmdline", "\n"),
    ("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"),
    ("modules", ""),
    ("devices", "Character devices:\n  1 mem\n  5 /dev/tty\n\nBlock devices:\n"),
    ("partitions", "major minor  #blocks  name\n\n"),
    ("sys/kernel/hostname", "localhost\n"),
    // For globs of systemd-tmpfiles, which creates nothing at all where it cannot tell them.
    ("sys/kernel/random/boot_id", "00000000-0000-4000-8000-000000000000\n"),
    ("sys/kernel/cap_last_cap", "40\n"),
    ("sys/kernel/ngroups_max", "65536\n"),
    ("sys/crypto/fips_enabled", "0\n"),
];
const MOUNTS: &str = "rootfs / rootfs rw,relatime 0 0\nproc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n";

/// Fills an empty folder.
pub(super) fn write(proc: &Path) -> Result<()> {
    let making = || format!("making {}", proc.display());
    std::fs::create_dir_all(proc.join("1/root")).with_context(making)?;
    for (name, text) in FACTS {
        let place = proc.join(name);
        std::fs::create_dir_all(place.parent().unwrap_or(proc)).with_context(making)?;
        std::fs::write(&place, text).with_context(making)?;
    }
    std::os::unix::fs::symlink("self/mounts", proc.join("mounts")).with_context(making)
}
