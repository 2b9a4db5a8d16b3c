//! What the init process of a job answers to programs (seccomp_unotify(2)).
//!
//! Owns: [`answer`]. uname(2) has the fixed host name; `/proc` is what it should be for statfs(2) and fstatfs(2); and what is
//! done by way of `/proc/self/fd/N` (also named `/dev/fd/N`, `/dev/stdin` and so on), for which no file can stand in, is done
//! with the link of that process in the real `/proc`, which the init sees: stat, chmod, extended attributes, readlink, open
//! and naming a file that has no name. systemd's programs do nearly everything that way. All else is the kernel's to answer,
//! and so is that for a process that is not root: the init has rights that it does not have. As everything after `clone`:
//! system calls only, no allocation, no lock, no panic; and those that the filter asks about only through [`ask`].

use std::os::fd::RawFd;

use super::super::child::errno;
use super::child::{Setup, ask, number, open, proc_path};

/// `linux/seccomp.h`: `SECCOMP_IOCTL_NOTIF_RECV`, `SECCOMP_IOCTL_NOTIF_SEND` and `SECCOMP_IOCTL_NOTIF_ADDFD`.
const RECEIVE: libc::c_ulong = 0xC050_2100;
const SEND: libc::c_ulong = 0xC018_2101;
const ADD_DESCRIPTOR: libc::c_ulong = 0x4018_2103;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;
/// `PROC_SUPER_MAGIC` of linux/magic.h.
const PROC_MAGIC: libc::__fsword_t = 0x9FA0;
/// Longer paths are none that are looked for.
const PATH_BYTES: usize = 32;
/// `NAME_MAX` of linux/limits.h, and a zero byte.
const NAME_BYTES: usize = 256;
/// Larger extended attributes are not set this way.
const ATTRIBUTE_BYTES: usize = 4096;
const HERE: u64 = libc::AT_FDCWD as u64;

/// `struct seccomp_notif`.
#[repr(C)]
struct Question {
    id: u64,
    pid: u32,
    flags: u32,
    call: i32,
    architecture: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct Gift {
    id: u64,
    flags: u32,
    descriptor: u32,
    number: u32,
    number_flags: u32,
}

/// Answers one question.
pub(super) unsafe fn answer(setup: &Setup, listener: RawFd) {
    // SAFETY: zeroed structures are valid; all pointers outlive the calls; paths end with a zero byte.
    unsafe {
        let mut question: Question = std::mem::zeroed();
        if libc::ioctl(listener, RECEIVE as _, &raw mut question) != 0 {
            return;
        }
        let path = proc_path(question.pid as libc::pid_t, b"/mem");
        let memory = open(path.as_ptr().cast(), libc::O_RDWR);
        let mut outcome = None;
        if memory >= 0 {
            let asked = Asked { setup, listener, question: &question, memory };
            outcome = asked.outcome();
            libc::close(memory);
        }
        let answer = match outcome {
            Some(value) if value < 0 => Answer { id: question.id, value: 0, error: value as i32, flags: 0 },
            Some(value) => Answer { id: question.id, value, error: 0, flags: 0 },
            None => Answer { id: question.id, value: 0, error: 0, flags: CONTINUE },
        };
        libc::ioctl(listener, SEND as _, &raw const answer);
    }
}

/// A question with what is needed to answer it. Outcomes are the value to give, or an error number if negative; `None`
/// leaves it to the kernel.
struct Asked<'a> {
    setup: &'a Setup,
    listener: RawFd,
    question: &'a Question,
    /// Of the process that asks.
    memory: RawFd,
}

impl Asked<'_> {
    /// Files in `/proc` belong to the effective user of their process.
    unsafe fn by_root(&self) -> bool {
        // SAFETY: the structure outlives the call, which is not one that is asked.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            let flags = libc::AT_EMPTY_PATH as u64;
            let arguments = [self.memory as u64, c"".as_ptr() as u64, (&raw mut stat) as u64, flags, 0];
            ask(libc::SYS_newfstatat, arguments) == 0 && stat.st_uid == 0
        }
    }

    unsafe fn outcome(&self) -> Option<i64> {
        let [first, second, ..] = self.question.arguments;
        let call = libc::c_long::from(self.question.call);
        // SAFETY: the structures outlive the calls; their addresses in the other process are checked by the kernel.
        unsafe {
            if call == libc::SYS_uname {
                return self.put(first, (&raw const self.setup.identity).cast(), size_of::<libc::utsname>());
            }
            let mut text = [0u8; PATH_BYTES];
            if call == libc::SYS_statfs || call == libc::SYS_fstatfs {
                let asked_for = match call {
                    libc::SYS_statfs => matches!(self.path_at(first, &mut text)?, b"/proc" | b"/proc/"),
                    // systemd 255 opens the folder first.
                    _ => self.is_proc(first)?,
                };
                if !asked_for {
                    return None;
                }
                let mut answer: libc::statfs = std::mem::zeroed();
                (answer.f_type, answer.f_bsize, answer.f_namelen) = (PROC_MAGIC, 4096, 255);
                return self.put(second, (&raw const answer).cast(), size_of::<libc::statfs>());
            }
            let with_folder =
                [libc::SYS_fchmodat, libc::SYS_newfstatat, libc::SYS_openat, libc::SYS_readlinkat, libc::SYS_linkat];
            let at_folder = with_folder.contains(&call);
            let path = self.path_at(if at_folder { second } else { first }, &mut text)?;
            let link = descriptor_link(self.question.pid as libc::pid_t, descriptor(path)?);
            if !self.by_root() {
                return None;
            }
            self.through(call, at_folder, path, link.as_ptr() as u64)
        }
    }

    /// Whether a descriptor of the process is `/proc` below its root.
    unsafe fn is_proc(&self, descriptor: u64) -> Option<bool> {
        let link = descriptor_link(self.question.pid as libc::pid_t, descriptor as libc::c_int);
        let mut text = [0u8; libc::PATH_MAX as usize];
        // SAFETY: the buffer outlives the call; the link ends with a zero byte.
        let length = unsafe {
            let (link, text_at) = (link.as_ptr() as u64, text.as_mut_ptr() as u64);
            ask(libc::SYS_readlinkat, [HERE, link, text_at, text.len() as u64, 0])
        };
        let path = text.get(..usize::try_from(length).ok()?)?;
        Some(path.strip_suffix(b"/proc") == Some(self.setup.root.as_bytes()))
    }

    /// Does with a link of the real `/proc` what a process wants done with `/proc/self/fd/N`.
    unsafe fn through(&self, call: libc::c_long, at_folder: bool, path: &[u8], link: u64) -> Option<i64> {
        let all = &self.question.arguments;
        let [second, third, fourth, fifth] =
            if at_folder { [all[2], all[3], all[4], all[5]] } else { [all[1], all[2], all[3], all[4]] };
        // SAFETY: buffers outlive the calls; addresses in the other process are checked by the kernel.
        unsafe {
            match call {
                libc::SYS_openat => self.open(link, second),
                libc::SYS_readlinkat => self.read_link(path, link, second, third),
                libc::SYS_newfstatat => self.stat(link, second),
                libc::SYS_fchmodat => done(ask(call, [HERE, link, second, 0, 0])),
                libc::SYS_linkat => self.name(link, third, fourth),
                libc::SYS_getxattr => self.get_attribute(link, second, third, fourth),
                libc::SYS_setxattr => self.set_attribute(link, [second, third, fourth, fifth]),
                libc::SYS_removexattr => {
                    let name = self.name_at(second)?;
                    done(ask(call, [link, name.as_ptr() as u64, 0, 0, 0]))
                }
                #[cfg(target_arch = "x86_64")]
                libc::SYS_open => self.open(link, second),
                #[cfg(target_arch = "x86_64")]
                libc::SYS_readlink => self.read_link(path, link, second, third),
                #[cfg(target_arch = "x86_64")]
                libc::SYS_stat => self.stat(link, second),
                #[cfg(target_arch = "x86_64")]
                libc::SYS_chmod => done(ask(call, [link, second, 0, 0, 0])),
                _ => None,
            }
        }
    }

    /// A new description of the same file, as open(2) of the link gives. Nothing is waited for: it would be the init that
    /// waits.
    unsafe fn open(&self, link: u64, flags: u64) -> Option<i64> {
        let flags = flags as libc::c_int;
        if flags & libc::O_NOFOLLOW != 0 {
            return Some(-i64::from(libc::ELOOP));
        }
        // SAFETY: the link ends with a zero byte; structures outlive the calls.
        unsafe {
            let opened = open(link as *const libc::c_char, flags | libc::O_NONBLOCK | libc::O_NOCTTY);
            if opened < 0 {
                return done(-1);
            }
            if flags & (libc::O_NONBLOCK | libc::O_PATH) == 0 {
                let status = libc::fcntl(opened, libc::F_GETFL);
                libc::fcntl(opened, libc::F_SETFL, status & !libc::O_NONBLOCK);
            }
            let number_flags = (flags & libc::O_CLOEXEC) as u32;
            let gift = Gift { id: self.question.id, flags: 0, descriptor: opened as u32, number: 0, number_flags };
            let given = libc::ioctl(self.listener, ADD_DESCRIPTOR as _, &raw const gift);
            libc::close(opened);
            // Linux before 5.9 has no way to give one.
            (given >= 0).then_some(given.into())
        }
    }

    /// Gives a file without a name (`O_TMPFILE`) one, as linkat(2) of `/proc/self/fd/N` does; of absolute paths only.
    unsafe fn name(&self, link: u64, place: u64, flags: u64) -> Option<i64> {
        if flags as libc::c_int & libc::AT_SYMLINK_FOLLOW == 0 {
            return None;
        }
        let mut path = [0u8; libc::PATH_MAX as usize];
        let mut name = [0u8; NAME_BYTES];
        // SAFETY: buffers and the structure outlive the calls; all names end with a zero byte.
        unsafe {
            let read = libc::pread(self.memory, path.as_mut_ptr().cast(), path.len() - 1, place as libc::off_t);
            let end = path.get(..usize::try_from(read).ok()?)?.iter().position(|byte| *byte == 0)?;
            let start = path[..end].iter().rposition(|byte| *byte == b'/')? + 1;
            if path[0] != b'/' || start == end || end - start >= name.len() {
                return None;
            }
            name[..end - start].copy_from_slice(&path[start..end]);
            path[start] = 0;
            let root = proc_path(self.question.pid as libc::pid_t, b"/root");
            let root = open(root.as_ptr().cast(), libc::O_PATH | libc::O_DIRECTORY);
            if root < 0 {
                return None;
            }
            // Links on the way lead to what they name below that root.
            let mut how: libc::open_how = std::mem::zeroed();
            (how.flags, how.resolve) = ((libc::O_PATH | libc::O_DIRECTORY) as u64, libc::RESOLVE_IN_ROOT);
            let (parent, how) = (path.as_ptr() as u64, (&raw const how) as u64);
            let folder = ask(libc::SYS_openat2, [root as u64, parent, how, size_of::<libc::open_how>() as u64, 0]);
            let mut outcome = done(folder);
            if folder >= 0 {
                let flags = libc::AT_SYMLINK_FOLLOW as u64;
                outcome = done(ask(libc::SYS_linkat, [HERE, link, folder as u64, name.as_ptr() as u64, flags]));
                libc::close(folder as libc::c_int);
            }
            libc::close(root);
            outcome
        }
    }

    /// Paths as the process sees them, whose root is the target.
    unsafe fn read_link(&self, path: &[u8], link: u64, place: u64, size: u64) -> Option<i64> {
        // Those in `/dev` are links that are there.
        if !path.starts_with(b"/proc/") {
            return None;
        }
        let mut text = [0u8; libc::PATH_MAX as usize];
        // SAFETY: the buffer outlives the calls.
        unsafe {
            let length = ask(libc::SYS_readlinkat, [HERE, link, text.as_mut_ptr() as u64, text.len() as u64, 0]);
            let Ok(length) = usize::try_from(length) else { return done(-1) };
            let seen = below(self.setup.root.as_bytes(), text.get(..length)?);
            let length = seen.len().min(usize::try_from(size).unwrap_or(usize::MAX));
            if length == 0 {
                return Some(-i64::from(libc::EINVAL));
            }
            self.put(place, seen.as_ptr().cast(), length)?;
            Some(length as i64)
        }
    }

    unsafe fn stat(&self, link: u64, place: u64) -> Option<i64> {
        // SAFETY: a zeroed structure is valid and outlives the calls.
        unsafe {
            let mut answer: libc::stat = std::mem::zeroed();
            if ask(libc::SYS_newfstatat, [HERE, link, (&raw mut answer) as u64, 0, 0]) != 0 {
                return done(-1);
            }
            self.put(place, (&raw const answer).cast(), size_of::<libc::stat>())
        }
    }

    unsafe fn get_attribute(&self, link: u64, name: u64, place: u64, size: u64) -> Option<i64> {
        let mut value = [0u8; ATTRIBUTE_BYTES];
        // SAFETY: buffers outlive the calls.
        unsafe {
            let name = self.name_at(name)?;
            // More than fits here is an error of the kernel's, ERANGE, if there is so much.
            let room = size.min(ATTRIBUTE_BYTES as u64);
            let length = ask(libc::SYS_getxattr, [link, name.as_ptr() as u64, value.as_mut_ptr() as u64, room, 0]);
            if length > 0 && size > 0 {
                self.put(place, value.as_ptr().cast(), length as usize)?;
            }
            done(length)
        }
    }

    unsafe fn set_attribute(&self, link: u64, [name, place, size, flags]: [u64; 4]) -> Option<i64> {
        let mut value = [0u8; ATTRIBUTE_BYTES];
        // SAFETY: buffers outlive the calls.
        unsafe {
            let name = self.name_at(name)?;
            let value = value.get_mut(..usize::try_from(size).ok()?)?;
            let read = libc::pread(self.memory, value.as_mut_ptr().cast(), value.len(), place as libc::off_t);
            if read != value.len() as isize {
                return None;
            }
            let flags = flags & u64::from(u32::MAX);
            done(ask(libc::SYS_setxattr, [link, name.as_ptr() as u64, value.as_ptr() as u64, size, flags]))
        }
    }

    unsafe fn put(&self, place: u64, bytes: *const libc::c_void, size: usize) -> Option<i64> {
        // SAFETY: the caller's bytes outlive the call.
        let written = unsafe { libc::pwrite(self.memory, bytes, size, place as libc::off_t) };
        (written == size as isize).then_some(0)
    }

    unsafe fn path_at<'t>(&self, place: u64, text: &'t mut [u8; PATH_BYTES]) -> Option<&'t [u8]> {
        // SAFETY: the buffer outlives the call; the kernel reads less where memory ends.
        let read = unsafe { libc::pread(self.memory, text.as_mut_ptr().cast(), text.len(), place as libc::off_t) };
        let text = text.get(..usize::try_from(read).ok()?)?;
        let end = text.iter().position(|byte| *byte == 0)?;
        text.get(..end)
    }

    /// The name of an extended attribute, with a zero byte at its end.
    unsafe fn name_at(&self, place: u64) -> Option<[u8; 257]> {
        let mut name = [0u8; 257];
        // SAFETY: as in `path_at`; the last byte stays zero.
        let read = unsafe { libc::pread(self.memory, name.as_mut_ptr().cast(), name.len() - 1, place as libc::off_t) };
        (read > 0).then_some(name)
    }
}

fn done(result: i64) -> Option<i64> {
    Some(if result < 0 { -i64::from(errno()) } else { result })
}

/// The descriptor that a path names.
fn descriptor(path: &[u8]) -> Option<libc::c_int> {
    let named: [(&[u8], libc::c_int); 3] = [(b"/dev/stdin", 0), (b"/dev/stdout", 1), (b"/dev/stderr", 2)];
    if let Some((_, descriptor)) = named.iter().find(|(name, _)| *name == path) {
        return Some(*descriptor);
    }
    let digits = path.strip_prefix(b"/proc/self/fd/").or_else(|| path.strip_prefix(b"/dev/fd/"))?;
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if all { number(digits) } else { None }
}

/// The path of a descriptor's link, with a zero byte at its end.
fn descriptor_link(pid: libc::pid_t, descriptor: libc::c_int) -> [u8; 40] {
    let mut name = [0u8; 16];
    name[..4].copy_from_slice(b"/fd/");
    let digits = proc_path(descriptor, b"");
    let digits = digits[6..].iter().take_while(|byte| **byte != 0);
    let mut length = 4;
    for (place, byte) in name[4..].iter_mut().zip(digits) {
        *place = *byte;
        length += 1;
    }
    proc_path(pid, &name[..length])
}

/// A path as it is below a root; as it is where it is not a path, or lies elsewhere.
fn below<'t>(root: &[u8], path: &'t [u8]) -> &'t [u8] {
    match path.strip_prefix(root) {
        Some(b"") => b"/",
        Some(rest) if rest.starts_with(b"/") => rest,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_and_their_paths() {
        assert_eq!(descriptor(b"/proc/self/fd/12"), Some(12));
        assert_eq!((descriptor(b"/dev/fd/63"), descriptor(b"/dev/stderr")), (Some(63), Some(2)));
        for other in [&b"/proc/self/fd/"[..], b"/proc/self/fd/1x", b"/proc/self/fd/99999999999", b"/etc/passwd"] {
            assert_eq!(descriptor(other), None);
        }
        assert!(descriptor_link(4711, 0).starts_with(b"/proc/4711/fd/0\0"));
        assert!(descriptor_link(i32::MAX, i32::MAX).starts_with(b"/proc/2147483647/fd/2147483647\0"));
        assert_eq!(below(b"/w/root", b"/w/root/etc/x (deleted)"), b"/etc/x (deleted)");
        assert_eq!(below(b"/w/root", b"/w/root"), b"/");
        assert_eq!(below(b"/w/root", b"/w/rooted"), b"/w/rooted");
        assert_eq!(below(b"/w/root", b"pipe:[7]"), b"pipe:[7]");
    }

    #[test]
    fn structures_have_the_sizes_of_the_kernel() {
        assert_eq!((size_of::<Question>(), size_of::<Answer>(), size_of::<Gift>()), (80, 24, 24));
    }
}
