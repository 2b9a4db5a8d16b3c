//! Nothing comes from the host but its kernel: the program runs in a root that holds the program, the C library and
//! certificates, and nothing else. No mksquashfs, xorriso, mtools, grub, e2fsprogs, dpkg, apt, tar, zstd, xz, no shell.
//!
//! Making such a root needs the rights of root; without them the tests say so and end.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn program() -> PathBuf {
    std::env::var_os("IMAGEBUILDER_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_imagebuilder").into(), PathBuf::from)
}

/// What the program is linked to, by the loader's own word (`LD_TRACE_LOADED_OBJECTS`, ld.so(8)).
fn libraries() -> Vec<PathBuf> {
    let output = Command::new(program()).env("LD_TRACE_LOADED_OBJECTS", "1").output().unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    listing.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// A root file system with only what the program is linked to.
struct Empty {
    root: tempfile::TempDir,
    binds: Vec<(PathBuf, PathBuf)>,
}

impl Empty {
    /// Nothing where this process may not make one.
    fn new() -> Option<Empty> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: another root needs the rights of root");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in ["proc", "sys", "dev", "tmp", "etc/ssl/certs", "lib64", "root"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::copy(program(), at("imagebuilder")).unwrap();
        for library in libraries() {
            std::fs::copy(&library, at("lib64").join(library.file_name().unwrap())).unwrap();
        }
        for file in ["etc/ssl/certs/ca-certificates.crt", "etc/resolv.conf", "etc/hosts"] {
            let _ = std::fs::copy(Path::new("/").join(file), at(file));
        }
        let mut empty = Empty { root, binds: Vec::new() };
        for device in ["null", "zero", "full", "random", "urandom", "tty"] {
            std::fs::write(empty.root.path().join("dev").join(device), "").unwrap();
            empty.bind(Path::new("/dev").join(device), Path::new("/dev").join(device));
        }
        match empty.command(&["--version"]).output() {
            Ok(output) => {
                assert!(output.status.success(), "{}", text(&output));
                Some(empty)
            }
            Err(error) => {
                println!("skipped: this process may not change its root: {error}");
                None
            }
        }
    }

    fn bind(&mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) {
        let (source, target) = (source.into(), target.into());
        if source.is_dir() {
            std::fs::create_dir_all(self.root.path().join(target.strip_prefix("/").unwrap())).unwrap();
        }
        self.binds.push((source, target));
    }

    /// The program with this root as its only file system.
    fn command(&self, arguments: &[&str]) -> Command {
        let c = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
        let inside = |path: &Path| self.root.path().join(path.strip_prefix("/").unwrap());
        let root = c(self.root.path());
        let binds: Vec<(CString, CString)> =
            self.binds.iter().map(|(source, target)| (c(source), c(&inside(target)))).collect();
        let proc = c(&inside(Path::new("/proc")));
        let enter = move || {
            let call = |result: i64| if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
            let none: *const libc::c_char = std::ptr::null();
            // SAFETY: system calls on strings that live in this closure, between fork and exec.
            unsafe {
                let mount =
                    |source: *const libc::c_char, target: *const libc::c_char, kind: *const libc::c_char, flags| {
                        call(libc::mount(source, target, kind, flags, none.cast()).into())
                    };
                call(libc::unshare(libc::CLONE_NEWNS).into())?;
                mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE)?;
                mount(root.as_ptr(), root.as_ptr(), none, libc::MS_BIND)?;
                for (source, target) in &binds {
                    mount(source.as_ptr(), target.as_ptr(), none, libc::MS_BIND | libc::MS_REC)?;
                }
                mount(c"proc".as_ptr(), proc.as_ptr(), c"proc".as_ptr(), 0)?;
                call(libc::chdir(root.as_ptr()).into())?;
                call(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
                call(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into())?;
                call(libc::chdir(c"/".as_ptr()).into())
            }
        };
        let mut command = Command::new("/imagebuilder");
        command.args(arguments).env_clear().envs([("HOME", "/root"), ("PATH", "/usr/bin:/bin"), ("NO_COLOR", "1")]);
        command.env("LD_LIBRARY_PATH", "/lib64");
        // SAFETY: only system calls, see there.
        unsafe { command.pre_exec(enter) };
        command
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn doctor_says_ready_where_there_is_nothing() {
    let Some(empty) = Empty::new() else { return };
    let output = empty.command(&["doctor"]).output().unwrap();
    let text = text(&output);
    if text.contains("MISSING  user namespaces") || text.contains("MISSING  space") {
        return println!("skipped: {text}");
    }
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("ready: images can be built here\n"), "{text}");
    assert!(!text.split("To boot").next().unwrap().contains("MISSING"), "{text}");
}

/// Builds the shipped images here and in an empty root; with a warm cache in `IMAGEBUILDER_CACHE_DIR` and a release
/// build in `IMAGEBUILDER_PROGRAM` it takes minutes.
#[test]
#[ignore = "builds whole images twice: needs a mirror and minutes"]
fn the_same_bytes_where_there_is_nothing() {
    let Some(mut empty) = Empty::new() else { return };
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().unwrap();
    let cache = std::env::var_os("IMAGEBUILDER_CACHE_DIR").map_or_else(|| scratch.path().join("cache"), PathBuf::from);
    let (here, there) = (scratch.path().join("here"), scratch.path().join("there"));
    for folder in [&cache, &here, &there] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let mut command = Command::new(program());
    command.current_dir(source).args(["build", "--config", "config", "--cache-dir"]).arg(&cache);
    let output = command.arg("--output-dir").arg(&here).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    for (source, target) in [
        (&cache, "/cache"),
        (&there, "/out"),
        (&source.join("config"), "/config"),
        (&source.join("functions"), "/functions"),
    ] {
        empty.bind(source, target);
    }
    // Its own steps: what was built here must not be taken from the cache.
    for entry in std::fs::read_dir(&cache).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if name != "debs" && name != "indexes" && entry.path().is_dir() {
            let own = scratch.path().join("own").join(&name);
            std::fs::create_dir_all(&own).unwrap();
            empty.bind(own, Path::new("/cache").join(&name));
        }
    }
    let arguments = ["build", "--config", "config", "--cache-dir", "/cache", "--output-dir", "/out"];
    let output = empty.command(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let mut names: Vec<_> = std::fs::read_dir(&here).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| name.to_string_lossy().ends_with(".sha256"));
    assert!(!names.is_empty());
    for name in names {
        let read = |folder: &Path| std::fs::read_to_string(folder.join(&name)).unwrap();
        assert_eq!(read(&here), read(&there), "{}", name.to_string_lossy());
    }
}
