//! The `namespaces` sandbox from the outside: what a job sees, and what it cannot reach.
//!
//! Needs root (or a user namespace around the test run); without it every test says that it is skipped. The target
//! root borrows the host's `/usr` through a read-only bind.

use std::path::Path;

use imagebuilder::sandbox::{Bind, Finished, Job, Namespaces, Sandbox};
use imagebuilder::tree::TreePath;

fn privileged() -> bool {
    let yes = rustix::process::geteuid().is_root();
    if !yes {
        eprintln!("skipped: needs root");
    }
    yes
}

fn target() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in ["etc", "tmp", "proc", "usr"] {
        std::fs::create_dir(root.path().join(name)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.path().join(name)).unwrap();
    }
    root
}

fn usr() -> Bind {
    Bind { source: "/usr".into(), target: TreePath::literal("usr"), read_only: true }
}

fn shell(root: &Path, script: &str, binds: Vec<Bind>) -> (Finished, Vec<String>) {
    let mut lines = Vec::new();
    let mut job = Job::new(["sh", "-c", script]);
    job.binds = [usr()].into_iter().chain(binds).collect();
    job.environment = vec![("GIVEN".into(), "yes".into())];
    job.stdin = b"from stdin\n".to_vec();
    let finished = Namespaces::new().run(root, &job, &mut |line| lines.push(line.to_string())).unwrap();
    (finished, lines)
}

#[test]
fn a_job_lives_in_its_own_world() {
    if !privileged() {
        return;
    }
    let root = target();
    let script = "echo $GIVEN $HOME $LC_ALL ${USER-none} ${CARGO-none}; cat; uname -n; id -u; \
        ls /; ls /sys; cat /proc/net/dev | grep -vc -e lo: -e '|'; \
        echo x > /dev/null && head -c4 /dev/zero | wc -c; ls /dev; echo err >&2; umask; pwd; \
        ls /proc | grep -c '^[0-9]'; echo x 2>/dev/null > /proc/sys/kernel/hostname || echo refused";
    let (finished, lines) = shell(root.path(), script, Vec::new());
    assert!(finished.success, "{}", finished.tail);
    let text = lines.join("\n");
    assert!(text.starts_with("yes /root C.UTF-8 none none\nfrom stdin\nlocalhost\n0\n"), "{text}");
    assert!(
        text.contains("\nfd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"),
        "{text}"
    );
    assert!(text.contains("bin\ndev\netc\nlib\nlib64\nproc\nsbin\nsys\ntmp\nusr\n0\n4\n"), "{text}");
    assert!(text.contains("\nerr\n0022\n/\n"), "{text}");
    assert!(text.ends_with("refused"), "{text}");
    // What had to be made for it is gone.
    assert!(!root.path().join("sys").exists() && !root.path().join("dev").exists());
    assert!(root.path().join("proc").exists());
}

#[test]
fn failures_and_signals_are_told_apart() {
    if !privileged() {
        return;
    }
    let root = target();
    let (finished, _) = shell(root.path(), "echo last words; exit 3", Vec::new());
    assert_eq!((finished.success, finished.status.as_str()), (false, "exit code 3"));
    assert_eq!(finished.tail, "last words\n");
    let (finished, _) = shell(root.path(), "kill -9 $$", Vec::new());
    assert_eq!(finished.status, "killed by signal 9");
    let job = Job { binds: vec![usr()], ..Job::new(["no-such-program"]) };
    let error = Namespaces::new().run(root.path(), &job, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("cannot execute `no-such-program`: No such file"), "{error}");
}

#[test]
fn nothing_is_left_running() {
    if !privileged() {
        return;
    }
    let root = target();
    // The background process holds the output open; the job must end all the same.
    let (finished, _) = shell(root.path(), "setsid sleep 600 & echo started", Vec::new());
    assert!(finished.success);
}

#[test]
fn binds_appear_and_disappear() {
    if !privileged() {
        return;
    }
    let root = target();
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("file"), "bound").unwrap();
    let folder =
        Bind { source: source.path().to_path_buf(), target: TreePath::literal("mnt/deep/place"), read_only: false };
    let file = Bind { source: source.path().join("file"), target: TreePath::literal("etc/one"), read_only: true };
    let script =
        "cat /mnt/deep/place/file /etc/one; echo new > /mnt/deep/place/made; echo x 2>/dev/null > /etc/one || echo ro";
    let (finished, lines) = shell(root.path(), script, vec![folder, file]);
    assert!(finished.success, "{}", finished.tail);
    assert_eq!(lines.join(""), "boundboundro");
    assert_eq!(std::fs::read_to_string(source.path().join("made")).unwrap(), "new\n");
    assert!(!root.path().join("mnt").exists() && !root.path().join("etc/one").exists());
}

#[test]
fn links_in_the_target_do_not_lead_to_the_host() {
    if !privileged() {
        return;
    }
    let root = target();
    let outside = tempfile::tempdir().unwrap();
    let source = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
    let bind = Bind { source: source.path().to_path_buf(), target: TreePath::literal("out/x"), read_only: false };
    let mut job = Job::new(["true"]);
    job.binds = vec![usr(), bind];
    let error = Namespaces::new().run(root.path(), &job, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("symbolic link to nowhere"), "{error}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    // A target whose /proc is a link is refused, not followed.
    std::fs::remove_dir(root.path().join("proc")).unwrap();
    std::os::unix::fs::symlink("/etc", root.path().join("proc")).unwrap();
    let job = Job { binds: vec![usr()], ..Job::new(["true"]) };
    let error = Namespaces::new().run(root.path(), &job, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("/proc of the target is not a folder"), "{error}");
}

#[test]
fn services_cannot_be_started() {
    if !privileged() {
        return;
    }
    let root = target();
    // A /usr of its own, so that the guards can be laid over it.
    let usr = root.path().join("usr");
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::fs::create_dir(usr.join(name)).unwrap();
    }
    std::fs::write(usr.join("sbin/start-stop-daemon"), "#!/bin/sh\necho started\n").unwrap();
    let bind = |name: &'static str| Bind {
        source: Path::new("/").join(name),
        target: TreePath::literal(name),
        read_only: true,
    };
    let mut job = Job::new(["sh", "-c", "policy-rc.d x start; echo $?; start-stop-daemon --start; echo $?"]);
    job.binds = ["usr/bin", "usr/lib", "usr/lib64"].map(bind).to_vec();
    let mut lines = Vec::new();
    let finished = Namespaces::new().run(root.path(), &job, &mut |line| lines.push(line.to_string())).unwrap();
    assert!(finished.success, "{}", finished.tail);
    assert_eq!(lines, ["101", "0"]);
    assert!(!usr.join("sbin/policy-rc.d").exists());
    assert!(std::fs::read_to_string(usr.join("sbin/start-stop-daemon")).unwrap().contains("echo started"));
}

/// The C library's functions that change ids wait for threads which are just starting; after `clone` these are not
/// there, so a job that called one of them would wait for ever (seen with glibc 2.39).
#[test]
fn threads_that_start_meanwhile_do_not_stop_a_job() {
    if !privileged() {
        return;
    }
    let root = target();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::thread::spawn(|| ()).join();
            }
        });
        let mut job = Job::new(["true"]);
        job.binds = vec![usr()];
        let success = (0..150).all(|_| Namespaces::new().run(root.path(), &job, &mut |_| ()).unwrap().success);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(success);
    });
}

/// A bind must not be seen in an image: its folder keeps its time, unless the job has changed something there.
#[test]
fn binds_leave_no_trace_in_times() {
    use std::os::unix::fs::MetadataExt;
    if !privileged() {
        return;
    }
    let (root, source) = (target(), tempfile::tempdir().unwrap());
    let run = root.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567, 89);
    let bind = || Bind { source: source.path().into(), target: TreePath::literal("run/a/b"), read_only: false };
    for (script, kept) in [("touch /run/a/b/x", true), ("mkdir /run/made", false)] {
        std::fs::File::open(&run).unwrap().set_modified(old).unwrap();
        let (finished, _) = shell(root.path(), script, vec![bind()]);
        assert!(finished.success, "{}", finished.tail);
        let meta = run.metadata().unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()) == (1_234_567, 89), kept, "{script}");
        assert!(!run.join("a").exists());
    }
}

/// The temporary folder of tests lies on a disk or in memory, and one of the two can be made anywhere.
#[test]
fn nothing_is_flushed_to_a_disk() {
    if !privileged() {
        return;
    }
    let root = target();
    let in_memory = imagebuilder::sandbox::workarea::is_in_memory(root.path()).unwrap();
    let script =
        "grep Seccomp: /proc/self/status; dd if=/dev/zero of=/tmp/x bs=1 count=1 conv=fsync 2>/dev/null && sync";
    let (finished, lines) = shell(root.path(), script, Vec::new());
    assert!(finished.success, "{}", finished.tail);
    let filtered = lines[0].split_whitespace().next_back() == Some("2");
    let expected = !in_memory && cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    assert_eq!(filtered, expected, "{lines:?}");
}
