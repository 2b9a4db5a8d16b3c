//! Questions about the machine the program runs on: its distribution, programs, ids, space, user namespaces.
//!
//! Owns: the answers and the package names per distribution family. Changes nothing.

use std::path::{Path, PathBuf};

use crate::sandbox::userns::{self, Forbidding};

/// What brings a program, per package manager: apt, dnf, pacman, zypper, apk.
pub type Package = [&'static str; 5];

pub const UIDMAP: Package = ["uidmap", "shadow-utils", "shadow", "shadow", "shadow-uidmap"];
pub const QEMU: Package = ["qemu-system-x86", "qemu-system-x86", "qemu-system-x86", "qemu-x86", "qemu-system-x86_64"];
pub const QEMU_IMG: Package = ["qemu-utils", "qemu-img", "qemu-img", "qemu-img", "qemu-img"];
pub const OVMF: Package = ["ovmf", "edk2-ovmf", "edk2-ovmf", "qemu-ovmf-x86_64", "ovmf"];

/// The family a distribution says it belongs to (os-release(5), `ID` and `ID_LIKE`), and how its manager installs.
const FAMILIES: [(&str, usize, &str); 9] = [
    ("debian", 0, "apt-get install"),
    ("ubuntu", 0, "apt-get install"),
    ("fedora", 1, "dnf install"),
    ("rhel", 1, "dnf install"),
    ("centos", 1, "dnf install"),
    ("arch", 2, "pacman -S"),
    ("suse", 3, "zypper install"),
    ("opensuse", 3, "zypper install"),
    ("alpine", 4, "apk add"),
];

/// The command that installs a package here.
pub fn install(package: Package) -> String {
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let sudo = if rustix::process::geteuid().is_root() { "" } else { "sudo " };
    install_on(&os_release, package, sudo)
}

fn install_on(os_release: &str, package: Package, sudo: &str) -> String {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or("").trim_matches('"').to_owned()
    };
    let ids = format!("{} {}", value("ID"), value("ID_LIKE"));
    let family = ids.split_whitespace().find_map(|id| FAMILIES.iter().find(|(name, ..)| *name == id));
    match family {
        Some((_, column, command)) => format!("{sudo}{command} {}", package[*column]),
        None => format!("install the package that Debian calls `{}`", package[0]),
    }
}

/// The first executable file of that name on `PATH`, or where administrators' programs lie.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    dirs.map(|dir| dir.join(name))
        .find(|file| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
}

/// Name of the user, or the number if the user has none.
pub fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or(uid)
}

/// How many subordinate ids subuid(5) or subgid(5) give to a user, in the largest range.
pub fn subordinate_count(text: &str, user: &str, uid: u32) -> u64 {
    let uid = uid.to_string();
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let count = fields.nth(1)?.parse::<u64>().ok()?;
        (owner == user || owner == uid).then_some(count)
    });
    ranges.max().unwrap_or(0)
}

/// A value of /proc/meminfo in bytes.
pub fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Free space where a folder is or will be.
pub fn free_space(dir: &Path) -> Option<u64> {
    let absolute = std::path::absolute(dir).ok()?;
    let existing = absolute.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

/// The command that allows user namespaces, as far as it can be known.
pub fn user_namespace_remedy() -> String {
    match userns::forbidding() {
        Some(Forbidding { sysctl, .. }) => format!("sudo sysctl -w {sysctl}, or run the build with sudo"),
        None => "run the build with sudo, or allow user namespaces in this container".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_fits_the_distribution() {
        assert_eq!(
            install_on("NAME=x\nID=ubuntu\nID_LIKE=debian\n", QEMU, "sudo "),
            "sudo apt-get install qemu-system-x86"
        );
        assert_eq!(install_on("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", OVMF, ""), "dnf install edk2-ovmf");
        assert_eq!(install_on("", UIDMAP, ""), "install the package that Debian calls `uidmap`");
    }

    #[test]
    fn subordinate_ranges_go_by_name_or_number() {
        let text = "other:1:70000\nalice:100000:65536\n1000:1:5\nbroken\n";
        assert_eq!(subordinate_count(text, "alice", 7), 65_536);
        assert_eq!(subordinate_count(text, "bob", 1000), 5);
        assert_eq!(subordinate_count(text, "bob", 7), 0);
    }

    #[test]
    fn memory_lines() {
        assert_eq!(meminfo("MemTotal: 2 kB\nMemAvailable:    3 kB\n", "MemAvailable"), Some(3072));
        assert_eq!(meminfo("MemAvailable: x kB\n", "MemAvailable"), None);
    }

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-anywhere").is_none());
    }
}
