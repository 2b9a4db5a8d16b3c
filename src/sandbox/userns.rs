//! Becoming root without being root: the process enters a user namespace of its own.
//!
//! Owns: [`enter`], called once at the start of a build, before any thread. Afterwards the process is uid 0 in its
//! namespace, may own files as any uid below 65536, mounts only for itself, and files written outside the work area
//! belong to the caller. A normal user gets ids from `/etc/subuid` and `/etc/subgid` through `newuidmap` and
//! `newgidmap` (user_namespaces(7), subuid(5)); root keeps its ids, one to one, but loses its power over the host.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use rustix::mount::{MountPropagationFlags, mount_change};

use crate::error::{Context, Error, Result};

/// How the process got its rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// A normal user: subordinate ids, mapped from 0 up.
    SubordinateIds,
    /// Root in a user namespace that maps every id to itself.
    IdentityMap,
    /// Root without a user namespace (the kernel refuses one); only the mounts are private.
    PlainRoot,
}

/// Debian's `nobody` is 65534; ids 0 to 65535 must be there.
const IDS_NEEDED: u64 = 65_536;

/// One line of a uid_map or gid_map: `inside` and `count` ids after it stand for `outside` and those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    inside: u64,
    outside: u64,
    count: u64,
}

/// Enters the namespaces. To be called once, with no other thread running.
pub fn enter() -> Result<Privilege> {
    let threads = std::fs::read_dir("/proc/self/task").context("counting the threads of this process")?.count();
    if threads != 1 {
        return Err(Error::build(format!("cannot enter a user namespace with {threads} threads running")));
    }
    let privilege = if rustix::process::geteuid().is_root() { enter_as_root()? } else { enter_as_user()? };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| restricted(Error::build(error.to_string())))
        .context("making the mounts of this process private")?;
    Ok(privilege)
}

/// Tries in a child process what a build does: a user namespace, mounts of its own in it, the namespaces of a job and its
/// `/proc`. A container may grant some of it and refuse the rest. `Err` tells what is refused.
pub fn probe() -> std::result::Result<(), String> {
    // SAFETY: the child makes system calls and ends with `_exit`; it allocates nothing and returns nowhere.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: as above.
        unsafe { try_namespaces() }
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writes; the child is ours.
    if pid < 0 || unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
        return Err(std::io::Error::last_os_error().to_string());
    }
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        (true, 1) => Err("the kernel refuses to make a user namespace".into()),
        (true, 2) => Err("mounting inside a user namespace is refused".into()),
        (true, 3) => Err("the kernel refuses namespaces for a job inside a user namespace".into()),
        _ => Err("mounting a fresh `/proc` inside a user namespace is refused".into()),
    }
}

unsafe fn try_namespaces() -> ! {
    let root = rustix::process::geteuid().is_root();
    // SAFETY: system calls with static strings that end with a zero byte.
    unsafe {
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        if libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) != 0 {
            // Root may do without: only the mounts are private then.
            if !root || libc::unshare(libc::CLONE_NEWNS) != 0 {
                libc::_exit(1);
            }
        }
        if libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null()) != 0 {
            libc::_exit(2);
        }
        let job = libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET;
        if libc::unshare(job) != 0 {
            libc::_exit(3);
        }
        let child = libc::fork();
        if child == 0 {
            let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            let done = libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), flags, std::ptr::null());
            libc::_exit(if done == 0 { 0 } else { 4 });
        }
        let mut status = 0;
        let waited = child > 0 && libc::waitpid(child, &mut status, 0) == child;
        libc::_exit(if waited && libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 4 })
    }
}

fn enter_as_user() -> Result<Privilege> {
    let uid = u64::from(rustix::process::getuid().as_raw());
    let gid = u64::from(rustix::process::getgid().as_raw());
    let name = user_name(uid as u32);
    let uids = subordinate("/etc/subuid", &name, uid)?;
    let gids = subordinate("/etc/subgid", &name, uid)?;
    for tool in ["newuidmap", "newgidmap"] {
        if find_program(tool).is_none() {
            return Err(Error::build(format!("`{tool}` is not installed"))
                .hint("install the package `uidmap`, or run the build with sudo"));
        }
    }
    let uid_map = own_map(uid, &uids);
    let gid_map = own_map(gid, &gids);
    let helper = Helper::start(move |pid| {
        run_mapper("newuidmap", pid, &uid_map)?;
        run_mapper("newgidmap", pid, &gid_map)
    })?;
    unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
        .map_err(|errno| restricted(Error::build(errno.to_string())).add_context("creating a user namespace"))?;
    helper.finish().map_err(restricted)?;
    // AppArmor lets the namespace be made and then refuses every capability in it.
    become_root().map_err(restricted)?;
    Ok(Privilege::SubordinateIds)
}

fn enter_as_root() -> Result<Privilege> {
    let uid_map = identity("/proc/self/uid_map")?;
    let gid_map = identity("/proc/self/gid_map")?;
    let helper = Helper::start(move |pid| {
        write_map(&format!("/proc/{pid}/uid_map"), &uid_map)?;
        write_map(&format!("/proc/{pid}/gid_map"), &gid_map)
    })?;
    match unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) {
        Ok(()) => {
            helper.finish()?;
            become_root()?;
            Ok(Privilege::IdentityMap)
        }
        Err(_) => {
            helper.cancel();
            unshare(libc::CLONE_NEWNS)
                .map_err(|error| Error::build(error.to_string()))
                .context("creating a mount namespace")
                .map_err(|error| error.hint("in a container, allow CAP_SYS_ADMIN or user namespaces"))?;
            Ok(Privilege::PlainRoot)
        }
    }
}

fn unshare(flags: libc::c_int) -> std::io::Result<()> {
    // SAFETY: no memory is handed over; the process has one thread.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn become_root() -> Result<()> {
    // SAFETY: plain system calls; an empty group list needs no memory.
    let done = unsafe {
        libc::setresgid(0, 0, 0) == 0
            && libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresuid(0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()).context("becoming root in the user namespace") }
}

/// A child that stays outside and writes the maps of its parent once that has entered the namespace.
struct Helper {
    pid: libc::pid_t,
    go: OwnedFd,
    answer: OwnedFd,
}

impl Helper {
    fn start(work: impl FnOnce(libc::pid_t) -> Result<()>) -> Result<Self> {
        let (go_read, go_write) = rustix::pipe::pipe().context("creating a pipe")?;
        let (answer_read, answer_write) = rustix::pipe::pipe().context("creating a pipe")?;
        // SAFETY: the process has one thread (checked by `enter`), so the child may do anything.
        match unsafe { libc::fork() } {
            -1 => Err(std::io::Error::last_os_error()).context("starting the id mapping helper"),
            0 => {
                drop((go_write, answer_read));
                let mut byte = [0];
                let told = std::fs::File::from(go_read).read(&mut byte).is_ok_and(|read| read == 1);
                let message = match told {
                    // SAFETY: always succeeds.
                    true => work(unsafe { libc::getppid() }).err().map(|error| error.to_string()),
                    false => None,
                };
                let mut answer = std::fs::File::from(answer_write);
                let _ = answer.write_all(message.unwrap_or_default().as_bytes());
                // SAFETY: ends the child without running the parent's exit handlers.
                unsafe { libc::_exit(0) }
            }
            pid => Ok(Helper { pid, go: go_write, answer: answer_read }),
        }
    }

    fn finish(self) -> Result<()> {
        std::fs::File::from(self.go).write_all(b"!").context("telling the id mapping helper")?;
        let mut message = String::new();
        let read = std::fs::File::from(self.answer).read_to_string(&mut message);
        wait(self.pid);
        read.context("hearing from the id mapping helper")?;
        if message.is_empty() { Ok(()) } else { Err(Error::build(message)) }
    }

    fn cancel(self) {
        drop(self.go);
        wait(self.pid);
    }
}

fn wait(pid: libc::pid_t) {
    let mut status = 0;
    // SAFETY: waits for our own child; `status` outlives the call.
    while unsafe { libc::waitpid(pid, &mut status, 0) } == -1
        && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
    {}
}

fn run_mapper(tool: &str, pid: libc::pid_t, map: &[Range]) -> Result<()> {
    let mut command = Command::new(find_program(tool).unwrap_or_else(|| tool.into()));
    command.arg(pid.to_string());
    for range in map {
        command.args([range.inside, range.outside, range.count].map(|number| number.to_string()));
    }
    let output = command.output().with_context(|| format!("running `{tool}`"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::build(format!("`{tool}` failed: {}", text.trim())))
}

fn write_map(path: &str, map: &[Range]) -> Result<()> {
    let text: String =
        map.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count)).collect();
    std::fs::write(path, text).with_context(|| format!("writing {path}"))
}

/// Every id of the present namespace, mapped to itself.
fn identity(path: &str) -> Result<Vec<Range>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
            let (inside, _, count) = (words.next()??, words.next()??, words.next()??);
            Some(Range { inside, outside: inside, count })
        })
        .collect())
}

/// The caller becomes 0, the subordinate ids follow from 1 up.
fn own_map(own: u64, subordinate: &[(u64, u64)]) -> Vec<Range> {
    let mut map = vec![Range { inside: 0, outside: own, count: 1 }];
    let mut inside = 1;
    for (start, count) in subordinate {
        map.push(Range { inside, outside: *start, count: *count });
        inside += count;
    }
    map
}

fn subordinate(path: &str, name: &str, uid: u64) -> Result<Vec<(u64, u64)>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("reading {path}")),
    };
    let ranges = parse_subordinate(&text, name, uid);
    let total = ranges.iter().fold(0u64, |total, (_, count)| total.saturating_add(*count));
    if total + 1 >= IDS_NEEDED {
        return Ok(ranges);
    }
    let who = if name.is_empty() { uid.to_string() } else { name.to_string() };
    let what = if total == 0 { "no range".to_string() } else { format!("only {total} ids") };
    Err(Error::build(format!("{path} gives {what} to user {who}; {IDS_NEEDED} are needed")).hint(format!(
        "run `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}` (with a free range), \
         or run the build with sudo"
    )))
}

/// Lines `name:start:count` of subuid(5) for this user, by name or number.
fn parse_subordinate(text: &str, name: &str, uid: u64) -> Vec<(u64, u64)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let start: u64 = fields.next()?.parse().ok()?;
            let count: u64 = fields.next()?.parse().ok()?;
            let ours = !owner.is_empty() && (owner == name || owner.parse() == Ok(uid));
            (ours && count > 0 && start.checked_add(count)? <= u64::from(u32::MAX)).then_some((start, count))
        })
        .collect()
}

fn user_name(uid: u32) -> String {
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut buffer = vec![0; 16 * 1024];
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers outlive the call, the length is that of the buffer.
    let code = unsafe { libc::getpwuid_r(uid, &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
    if code != 0 || found.is_null() {
        return String::new();
    }
    // SAFETY: a found entry points to a C string inside `buffer`.
    unsafe { std::ffi::CStr::from_ptr(entry.pw_name) }.to_string_lossy().into_owned()
}

/// In `PATH` and where an ordinary user's `PATH` may not look.
fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin"].map(Into::into))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// A setting of the kernel that keeps users, or everybody, from user namespaces: what it does, and its remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forbidding {
    pub why: &'static str,
    /// What to hand to `sysctl -w`.
    pub sysctl: &'static str,
}

/// Switches below /proc/sys, the value that forbids, and what it means.
const SWITCHES: [(&str, &str, Forbidding); 3] = [
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        Forbidding {
            why: "AppArmor restricts user namespaces of users here (Ubuntu 23.10 and later)",
            sysctl: "kernel.apparmor_restrict_unprivileged_userns=0",
        },
    ),
    (
        "kernel/unprivileged_userns_clone",
        "0",
        Forbidding { why: "user namespaces are switched off for users", sysctl: "kernel.unprivileged_userns_clone=1" },
    ),
    (
        "user/max_user_namespaces",
        "0",
        Forbidding { why: "user namespaces are switched off", sysctl: "user.max_user_namespaces=65536" },
    ),
];

/// The setting that stands in the way, as far as the kernel tells.
pub fn forbidding() -> Option<Forbidding> {
    forbidding_below(Path::new("/proc/sys"))
}

fn forbidding_below(sys: &Path) -> Option<Forbidding> {
    let is = |file: &str, value: &str| std::fs::read_to_string(sys.join(file)).is_ok_and(|text| text.trim() == value);
    SWITCHES.iter().find(|(file, value, _)| is(file, value)).map(|(.., forbidding)| *forbidding)
}

/// Adds what this kernel says about why a user namespace did not work.
fn restricted(error: Error) -> Error {
    match forbidding() {
        Some(Forbidding { why, sysctl }) => {
            error.hint(format!("{why}: run the build with sudo, or allow them with `sudo sysctl -w {sysctl}`"))
        }
        None => error.hint("user namespaces do not work here: run the build with sudo"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_are_found_by_name_and_number() {
        let text = "root:1:2\nalice:100000:65536\n1000:300000:10\nalice:x:1\nalice:4294967295:9\n:5:5\n";
        assert_eq!(parse_subordinate(text, "alice", 1000), [(100_000, 65_536), (300_000, 10)]);
        assert!(parse_subordinate(text, "", 7).is_empty());
    }

    #[test]
    fn the_caller_becomes_root_and_the_rest_follows() {
        let map = own_map(1000, &[(100_000, 65_536), (300_000, 10)]);
        let lines: Vec<_> = map.iter().map(|range| (range.inside, range.outside, range.count)).collect();
        assert_eq!(lines, [(0, 1000, 1), (1, 100_000, 65_536), (65_537, 300_000, 10)]);
    }

    #[test]
    fn the_setting_that_forbids_is_named() {
        let sys = tempfile::tempdir().unwrap();
        for (file, value, expected) in SWITCHES {
            assert_eq!(forbidding_below(sys.path()), None);
            let file = sys.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, format!("{value}\n")).unwrap();
            assert_eq!(forbidding_below(sys.path()), Some(expected));
            std::fs::write(&file, "7\n").unwrap();
        }
    }

    #[test]
    fn threads_are_refused() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || stopped.recv());
        assert!(enter().unwrap_err().to_string().contains("threads running"));
        drop(stop);
        let _ = other.join();
    }
}
