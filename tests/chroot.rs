//! The `chroot` sandbox from the outside: what a job sees, what it cannot do, and that nothing of it stays.
//!
//! Needs root (with the capabilities of an ordinary container); without it every test says that it is skipped. The
//! target root holds copies of the host's shell and a few programs with their libraries.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use imagebuilder::error::Result;
use imagebuilder::sandbox::{Bind, Chroot, Finished, Job, Sandbox, why_no_chroot};
use imagebuilder::tree::TreePath;

fn usable() -> bool {
    match why_no_chroot() {
        None => true,
        Some(why) => {
            eprintln!("skipped: {why}");
            false
        }
    }
}

/// A work area with a target in it.
struct Target {
    area: tempfile::TempDir,
    sandbox: Chroot,
}

const PROGRAMS: [&str; 17] = [
    "sh", "cat", "uname", "id", "ls", "head", "sleep", "mount", "mknod", "stat", "touch", "mkdir", "rm", "mv", "chown",
    "chmod", "readlink",
];

impl Target {
    fn new() -> Self {
        let area = tempfile::tempdir().unwrap();
        let root = area.path().join("root");
        for folder in ["bin", "etc", "tmp", "usr/sbin", "run", "proc"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        for name in PROGRAMS {
            let program = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(name));
            let program = program.iter().find(|path| path.exists()).unwrap().canonicalize().unwrap();
            std::fs::copy(&program, root.join("bin").join(name)).unwrap();
            for library in libraries(&program) {
                let place = root.join(library.strip_prefix("/").unwrap());
                std::fs::create_dir_all(place.parent().unwrap()).unwrap();
                std::fs::copy(&library, &place).unwrap();
            }
        }
        Target { area, sandbox: Chroot::new() }
    }

    fn root(&self) -> PathBuf {
        self.area.path().join("root")
    }

    /// A program of the host, with its libraries.
    fn bring(&self, program: &Path) {
        std::fs::copy(program, self.root().join("bin").join(program.file_name().unwrap())).unwrap();
        for library in libraries(program) {
            let place = self.root().join(library.strip_prefix("/").unwrap());
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::copy(&library, &place).unwrap();
        }
    }

    fn run(&self, script: &str, binds: Vec<Bind>) -> Result<(Finished, Vec<String>)> {
        let mut lines = Vec::new();
        let mut job = Job { binds, stdin: b"from stdin\n".to_vec(), ..Job::new(["sh", "-c", script]) };
        job.environment = vec![("GIVEN".into(), "yes".into())];
        let finished = self.sandbox.run(&self.root(), &job, &mut |line| lines.push(line.to_string()))?;
        Ok((finished, lines))
    }

    fn lines(&self, script: &str) -> Vec<String> {
        let (finished, lines) = self.run(script, Vec::new()).unwrap();
        assert!(finished.success, "{}", finished.tail);
        lines
    }

    /// Every path with its kind, mode, owner, time and size.
    fn state(&self) -> BTreeMap<PathBuf, (u32, u32, i64, i64, u64)> {
        let mut found = BTreeMap::new();
        let mut todo = vec![self.root()];
        while let Some(path) = todo.pop() {
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            let size = if meta.is_dir() { 0 } else { meta.size() };
            found.insert(path, (meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec(), size));
        }
        found
    }

    fn age(&self) {
        for (path, (mode, ..)) in self.state() {
            if mode & libc::S_IFMT != libc::S_IFLNK {
                let old = UNIX_EPOCH + Duration::new(1_234_567, 89);
                std::fs::File::open(path).unwrap().set_modified(old).unwrap();
            }
        }
    }
}

fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn bind(source: impl Into<PathBuf>, target: &'static str, read_only: bool) -> Bind {
    Bind { source: source.into(), target: TreePath::literal(target), read_only }
}

#[test]
fn a_job_finds_what_it_needs_and_leaves_nothing() {
    if !usable() {
        return;
    }
    let target = Target::new();
    std::fs::create_dir(target.root().join("dev")).unwrap();
    std::fs::create_dir(target.root().join("sys")).unwrap();
    std::fs::write(target.root().join("dev/own"), "of a package").unwrap();
    target.age();
    let before = target.state();
    let lines = target.lines(
        "echo $GIVEN $HOME $LC_ALL ${USER-none}; cat; uname -n; id -u; echo x >/dev/null; head -c3 /dev/zero | cat >/dev/null; \
         cat /dev/null; ls /dev; ls /sys; cat /proc/mounts | head -n1; cat /proc/sys/kernel/hostname; \
         touch /dev/made /proc/made /sys/made; stat -f -c %T /proc/; chmod 600 /tmp; stat -c %a /tmp; chmod 755 /tmp; \
         stat -c %F /proc/1/root",
    );
    let text = lines.join("\n");
    assert!(text.starts_with("yes /root C.UTF-8 none\nfrom stdin\nlocalhost\n0\nfd\nfull\nnull\n"), "{text}");
    assert!(text.ends_with("zero\nrootfs / rootfs rw,relatime 0 0\nlocalhost\nproc\n600\ndirectory"), "{text}");
    // `policy-rc.d` was made there, and that shows, as it does with mounts.
    let (mut before, mut after) = (before, target.state());
    before.remove(&target.root().join("usr/sbin"));
    after.remove(&target.root().join("usr/sbin"));
    assert_eq!(after, before);
    assert_eq!(std::fs::read_dir(target.area.path()).unwrap().count(), 1);
}

#[test]
fn what_reaches_beyond_the_root_is_refused() {
    if !usable() {
        return;
    }
    let target = Target::new();
    for script in ["mount -t tmpfs none /tmp", "mknod /tmp/disk b 8 0", "kill -9 -1", "kill -9 1"] {
        let (finished, _) = target.run(script, Vec::new()).unwrap();
        assert!(!finished.success, "{script}");
        assert!(finished.tail.contains("not permitted") || finished.tail.contains("denied"), "{}", finished.tail);
    }
    // Owners can be set all the same.
    target.lines("touch /tmp/x && chown 7:9 /tmp/x");
    assert_eq!(target.root().join("tmp/x").metadata().unwrap().uid(), 7);
}

/// A process that left its parent, its group and its session; it holds the output open, too.
#[test]
fn nothing_is_left_running() {
    if !usable() {
        return;
    }
    let target = Target::new();
    let lines =
        target.lines("(sh -c 'echo $$; sleep 1000 & echo $!; while :; do sleep 50; done' &) ; sleep 0.3; echo done");
    assert_eq!(lines.last().unwrap(), "done");
    let pids: Vec<i32> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(pids.len(), 2, "{lines:?}");
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
    let (finished, _) = target.run("kill -9 $$", Vec::new()).unwrap();
    assert_eq!(finished.status, "killed by signal 9");
    let error = target.sandbox.run(&target.root(), &Job::new(["no-such-program"]), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("cannot execute `no-such-program`: No such file"), "{error}");
}

#[test]
fn services_cannot_be_started() {
    if !usable() {
        return;
    }
    let target = Target::new();
    let daemon = target.root().join("usr/sbin/start-stop-daemon");
    std::fs::write(&daemon, "#!/bin/sh\necho started\n").unwrap();
    assert_eq!(target.lines("policy-rc.d x start; echo $?; start-stop-daemon --start; echo $?"), ["101", "0"]);
    assert!(!target.root().join("usr/sbin/policy-rc.d").exists());
    assert_eq!(std::fs::read_to_string(daemon).unwrap(), "#!/bin/sh\necho started\n");
}

#[test]
fn binds_come_and_go() {
    if !usable() {
        return;
    }
    let target = Target::new();
    let area = target.area.path();
    std::fs::write(target.root().join("etc/over"), "original").unwrap();
    let (beside, elsewhere) = (area.join("beside"), tempfile::tempdir().unwrap());
    std::fs::create_dir(&beside).unwrap();
    for folder in [beside.as_path(), elsewhere.path()] {
        std::fs::write(folder.join("file"), "bound").unwrap();
    }
    let binds = vec![
        bind(&beside, "run/deep/place", false),
        bind(elsewhere.path(), "tmp", false),
        bind(elsewhere.path().join("file"), "etc/over", true),
        bind(elsewhere.path().join("file"), "etc/new", true),
    ];
    target.age();
    let mut before = target.state();
    let script = "cat /run/deep/place/file /tmp/file /etc/over /etc/new; rm /tmp/file; echo new >/tmp/made; \
        echo new >/run/deep/place/made";
    let (finished, lines) = target.run(script, binds).unwrap();
    assert!(finished.success, "{}", finished.tail);
    assert_eq!(lines.join(""), "boundboundboundbound");
    assert_eq!(std::fs::read_to_string(beside.join("made")).unwrap(), "new\n");
    assert!(!beside.is_symlink() && beside.join("file").exists());
    assert_eq!(std::fs::read_to_string(elsewhere.path().join("made")).unwrap(), "new\n");
    assert!(!elsewhere.path().join("file").exists());
    // `dev` and `sys` were made in the root, and that shows, as it does with mounts.
    let mut after = target.state();
    before.remove(&target.root());
    after.remove(&target.root());
    // So does `policy-rc.d`.
    before.remove(&target.root().join("usr/sbin"));
    after.remove(&target.root().join("usr/sbin"));
    assert_eq!(before, after);
}

/// Two jobs in one target at the same time: what both see stays until the last has ended.
#[test]
fn jobs_share_what_is_laid() {
    if !usable() {
        return;
    }
    let target = Target::new();
    let shared = target.area.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let place = || vec![bind(&shared, "run/shared", false)];
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            target.run(
                "touch /run/shared/up; while [ ! -e /run/shared/go ]; do sleep 0.02; done; echo >/dev/null",
                place(),
            )
        });
        // Through the link that is in its place meanwhile.
        while !shared.join("up").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (finished, _) = target.run("ls /run/shared/up && touch /run/shared/go", place()).unwrap();
        assert!(finished.success, "{}", finished.tail);
        assert!(slow.join().unwrap().unwrap().0.success);
    });
    assert!(shared.join("go").exists() && !shared.is_symlink());
    assert!(!target.root().join("run/shared").exists());
}

#[test]
fn links_in_the_target_do_not_lead_to_the_host() {
    if !usable() {
        return;
    }
    let target = Target::new();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), target.root().join("out")).unwrap();
    let error = target.run("true", vec![bind(outside.path(), "out/x", false)]).unwrap_err();
    assert!(error.to_string().contains("symbolic link to nowhere"), "{error}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    std::fs::remove_dir(target.root().join("proc")).unwrap();
    std::os::unix::fs::symlink("/etc", target.root().join("proc")).unwrap();
    let error = target.run("true", Vec::new()).unwrap_err();
    assert!(error.to_string().contains("/proc of the target is not a folder"), "{error}");
    assert!(target.root().join("proc").is_symlink() && !target.root().join("dev").exists());
}

/// What was laid over, and a script then replaced, is no longer ours to take away.
#[test]
fn a_script_that_replaces_what_was_laid_over_is_told() {
    if !usable() {
        return;
    }
    let target = Target::new();
    std::fs::write(target.root().join("etc/over"), "original").unwrap();
    let source = target.area.path().join("source");
    std::fs::write(&source, "ours").unwrap();
    let error = target.run("mv /etc/over /etc/moved", vec![bind(&source, "etc/over", true)]).unwrap_err();
    assert!(error.to_string().contains("/etc/over, which was laid over"), "{error}");
}

/// There is no such folder; the init opens, reads and changes what is asked for by way of it.
#[test]
fn descriptors_have_paths() {
    if !usable() {
        return;
    }
    let target = Target::new();
    let script = "exec 7>/tmp/file 8</; readlink /proc/self/fd/7; readlink /proc/self/fd/8; \
        echo one >/proc/self/fd/7; echo two >>/dev/fd/7; cat /tmp/file; chmod 640 /proc/self/fd/7; \
        stat -c %a /tmp/file; rm /tmp/file; readlink /proc/self/fd/7; cat /dev/stdin; \
        echo piped | cat /dev/stdin; echo out >/dev/stdout; echo error >/dev/stderr; \
        cat /proc/self/fd/6; readlink /proc/self/fd/6 || echo none; chmod 600 /dev/fd/6 || echo none";
    let lines = target.lines(script);
    let expected = [
        "/tmp/file",
        "/",
        "one",
        "two",
        "640",
        "/tmp/file (deleted)",
        "from stdin",
        "piped",
        "out",
        "error",
        "cat: /proc/self/fd/6: No such file or directory",
        "none",
        "chmod: cannot access '/dev/fd/6': No such file or directory",
        "none",
    ];
    assert_eq!(lines, expected);
    // What is not root does not get root's rights by it.
    if Path::new("/usr/bin/setpriv").exists() {
        std::fs::copy("/usr/bin/setpriv", target.root().join("bin/setpriv")).unwrap();
        for library in libraries(Path::new("/usr/bin/setpriv")) {
            let place = target.root().join(library.strip_prefix("/").unwrap());
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::copy(&library, &place).unwrap();
        }
        let script = "echo secret >/tmp/closed; chmod 600 /tmp/closed; exec 7>>/tmp/closed; \
            setpriv --reuid 7 --regid 7 --clear-groups sh -c 'cat /proc/self/fd/7; chmod 777 /proc/self/fd/7'; \
            stat -c %a /tmp/closed";
        let lines = target.lines(script);
        assert_eq!(lines.last().map(String::as_str), Some("600"), "{lines:?}");
        assert!(!lines.iter().any(|line| line == "secret"), "{lines:?}");
    }
}

/// The init waits for nobody, and many can ask at the same time.
#[test]
fn many_ask_at_once() {
    if !usable() {
        return;
    }
    let target = Target::new();
    let script = "mkdir /tmp/made; for one in 1 2 3 4 5 6 7 8; do ( for two in 1 2 3 4 5 6 7 8 9 10; do \
        exec 9>/tmp/made/$one-$two; echo $one-$two >/proc/self/fd/9; readlink /proc/self/fd/9; done ) & done; wait";
    let mut lines = target.lines(script);
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 80, "{lines:?}");
    for line in lines {
        let text = std::fs::read_to_string(target.root().join(line.strip_prefix('/').unwrap())).unwrap();
        assert_eq!(format!("/tmp/made/{}", text.trim_end()), line);
    }
}

/// systemd-tmpfiles(8) sets modes and access lists through `/proc/self/fd`, and does nothing where `/proc` is not one.
#[test]
fn modes_and_access_lists_are_set_without_a_proc() {
    let program = Path::new("/usr/bin/systemd-tmpfiles");
    if !usable() || !program.exists() {
        return eprintln!("skipped: no `systemd-tmpfiles`");
    }
    let target = Target::new();
    target.bring(program);
    std::fs::write(target.root().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    std::fs::write(target.root().join("etc/group"), "root:x:0:\nlog:x:999:\n").unwrap();
    let rules = "d /journal 2755 root log - -\na+ /journal - - - - d:group::r-x,d:group:log:r-x\nL+ /etc/mtab - - - - ../proc/self/mounts\nx /tmp/%b-*\n";
    std::fs::write(target.root().join("etc/rules.conf"), rules).unwrap();
    let (finished, _) = target.run("systemd-tmpfiles --create /etc/rules.conf", Vec::new()).unwrap();
    let journal = target.root().join("journal");
    let meta = journal.metadata().unwrap_or_else(|_| panic!("{}", finished.tail));
    assert_eq!((meta.mode() & 0o7777, meta.gid()), (0o2755, 999), "{}", finished.tail);
    let mut list = [0; 256];
    let length = rustix::fs::lgetxattr(&journal, "system.posix_acl_default", &mut list);
    assert!(length.is_ok_and(|length| length > 0), "{length:?} {}", finished.tail);
    assert!(target.root().join("etc/mtab").is_symlink());
}

/// systemd 255 looks at `/proc` through a descriptor; its systemd-hwdb(8) writes a file without a name, and names it then.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_file_without_a_name_is_named_without_a_proc() {
    let program = Path::new("/usr/bin/perl");
    if !usable() || !program.exists() {
        return eprintln!("skipped: no `perl`");
    }
    let target = Target::new();
    target.bring(program);
    // Leads into the target, as everything does there.
    std::os::unix::fs::symlink("/tmp", target.root().join("link")).unwrap();
    // O_TMPFILE | O_RDWR, linkat(2) with AT_SYMLINK_FOLLOW; O_DIRECTORY, fstatfs(2).
    let script = r#"
        sysopen(F, "/tmp", 020200002) or die "tmpfile: $!"; syswrite(F, "text");
        sub name { $! = 0; my ($from, $to) = ("/proc/self/fd/" . fileno(F), @_); my $done = syscall(265, -100, $from, -100, $to, 0x400); print "$done $!\n" }
        name("/link/named"); name("/link/named"); name("/link/none/named");
        for $path ("/proc", "/tmp") {
            sysopen(D, $path, 0200000) or die "$path: $!"; my $answer = "\0" x 120;
            syscall(138, fileno(D), $answer) == 0 or die; printf "%s %s\n", $path, unpack("q", $answer) == 0x9FA0 ? "proc" : "other";
            close(D);
        }"#;
    std::fs::write(target.root().join("tmp/script"), script).unwrap();
    let (finished, _) = target.run("LC_ALL=C perl /tmp/script", Vec::new()).unwrap();
    let said: Vec<&str> = finished.tail.lines().collect();
    assert_eq!(said, ["0 ", "-1 File exists", "-1 No such file or directory", "/proc proc", "/tmp other"]);
    assert_eq!(std::fs::read_to_string(target.root().join("tmp/named")).unwrap(), "text");
    assert!(!Path::new("/tmp/named").exists());
}
