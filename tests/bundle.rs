//! `bundle`: what it writes, read by others: `docker load`, and Debian's `docker-registry` with and without passwords.
//! Where these are missing, the test says that it is skipped.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_imagebuilder");

fn images() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["control-plane.qcow2", "data-plane.qcow2"] {
        std::fs::write(folder.path().join(name), name.repeat(100_000)).unwrap();
    }
    std::fs::write(folder.path().join("profile_entrypoint.json"), "{}\n").unwrap();
    folder
}

fn bundle(folder: &Path, arguments: &[&str], config: &Path) -> Output {
    Command::new(PROGRAM)
        .args(["bundle", "--progress", "quiet"])
        .args(arguments)
        .current_dir(folder)
        .env("DOCKER_CONFIG", config)
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_same_images_give_the_same_bundle() {
    let folder = images();
    let pack = |layout: &str| {
        let output = bundle(
            folder.path(),
            &["control-plane.qcow2", "data-plane.qcow2", "--tag", "x:1", "--layout", layout],
            folder.path(),
        );
        assert!(output.status.success(), "{}", words(&output));
        words(&output).split("sha256:").nth(1).unwrap().trim().to_owned()
    };
    let first = pack("one");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(first, pack("two"));
    // In a layout that is there, the last image counts, and nothing of the one before stays.
    std::fs::write(folder.path().join("data-plane.qcow2"), "other").unwrap();
    assert_ne!(first, pack("one"));
    assert_eq!(std::fs::read_dir(folder.path().join("one/blobs/sha256")).unwrap().count(), 3);
    let bad = bundle(folder.path(), &["data-plane.qcow2", "--tag", "Not A Name"], folder.path());
    assert_eq!(bad.status.code(), Some(2), "{}", words(&bad));
}

#[test]
fn docker_loads_the_archive() {
    let docker = || {
        let mut command = Command::new("docker");
        command.stdin(Stdio::null());
        command
    };
    if !docker()
        .args(["version", "--format", "{{.Server.Version}}"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return eprintln!("skipped: no Docker daemon answers");
    }
    let folder = images();
    let tag = format!("imagebuilder-test-{}/qcow-bundle:1", std::process::id());
    let packed = bundle(folder.path(), &["data-plane.qcow2", "--tag", &tag, "--archive", "bundle.tar"], folder.path());
    assert!(packed.status.success(), "{}", words(&packed));
    let loaded = docker().args(["load", "--input"]).arg(folder.path().join("bundle.tar")).output().unwrap();
    assert!(loaded.status.success() && words(&loaded).contains(&tag), "{}", words(&loaded));
    // A container that is never started: there is no program in the image.
    let made = docker().args(["create", &tag, "none"]).output().unwrap();
    let id = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let copy = docker().args(["cp", &format!("{id}:/qcows"), "copied"]).current_dir(folder.path()).output().unwrap();
    let _ = docker().args(["rm", &id]).output();
    let _ = docker().args(["rmi", &tag]).output();
    assert!(copy.status.success(), "{}", words(&copy));
    let image = std::fs::read(folder.path().join("copied/data-plane.qcow2")).unwrap();
    assert_eq!(image, std::fs::read(folder.path().join("data-plane.qcow2")).unwrap());
    assert!(folder.path().join("copied/data-plane.qcow2.md5sum").exists());
}

/// The command of the init container `qcow-bundle` in Airship's Ironic.
#[test]
fn an_init_container_copies_the_images() {
    let docker = |words: &[&str]| Command::new("docker").args(words).stdin(Stdio::null()).output();
    if !docker(&["version", "--format", "{{.Server.Version}}"]).is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no Docker daemon answers");
    }
    let folder = images();
    let tag = format!("imagebuilder-test-{}/qcow-bundle:2", std::process::id());
    let here = folder.path().to_str().unwrap();
    let shell = ["--base", "ubuntu", "--cache-dir", "cache", "--tag", &tag, "--archive", "bundle.tar"];
    let packed =
        bundle(folder.path(), &[&["control-plane.qcow2", "data-plane.qcow2"][..], &shell].concat(), folder.path());
    if packed.status.code() == Some(5) {
        return eprintln!("skipped: no package archive can be reached: {}", words(&packed));
    }
    assert!(packed.status.success(), "{}", words(&packed));
    let loaded = docker(&["load", "--input", &format!("{here}/bundle.tar")]).unwrap();
    assert!(loaded.status.success(), "{}", words(&loaded));
    std::fs::create_dir_all(folder.path().join("shared/html/images")).unwrap();
    let line = "cp /qcows/*.qcow2 /qcows/*.qcow2.md5sum /shared/html/images/\n\
                [ -f /qcows/control-plane.qcow2 ] && cp -n /qcows/control-plane.qcow2 /shared/html/images/data-plane.qcow2\n\
                sed -i 's/control-plane.qcow2/data-plane.qcow2/g' /shared/html/images/data-plane.qcow2.md5sum";
    let volume = format!("{here}/shared:/shared");
    let ran =
        docker(&["run", "--rm", "--network", "none", "-v", &volume, "--entrypoint", "sh", &tag, "-c", line]).unwrap();
    let _ = docker(&["rmi", &tag]);
    assert!(ran.status.success(), "{}", words(&ran));
    for name in ["control-plane.qcow2", "data-plane.qcow2"] {
        let copied = std::fs::read(folder.path().join("shared/html/images").join(name)).unwrap();
        assert_eq!(copied, std::fs::read(folder.path().join(name)).unwrap());
        assert!(folder.path().join(format!("shared/html/images/{name}.md5sum")).exists());
    }
}

/// Debian's registry on a free port of this machine; ended when dropped.
struct Registry {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// `user` with password `secret`, if there is to be one.
    fn start(password: bool) -> Option<Registry> {
        let program = ["/usr/bin/docker-registry", "/usr/bin/registry"]
            .map(PathBuf::from)
            .into_iter()
            .find(|file| file.exists())?;
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let users = folder.path().join("users");
        // bcrypt, as htpasswd(1) makes it.
        std::fs::write(&users, "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n").unwrap();
        let mut text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            folder.path().join("data").display()
        );
        if password {
            text += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display());
        }
        std::fs::write(folder.path().join("config.yml"), text).unwrap();
        let process = Command::new(program)
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&address).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Registry { process, address, _folder: folder })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_registry_takes_it() {
    let Some(registry) = Registry::start(false) else { return eprintln!("skipped: no `docker-registry`") };
    let folder = images();
    let tag = format!("{}/team/qcow-bundle:1", registry.address);
    let push = ["control-plane.qcow2", "data-plane.qcow2", "--tag", &tag, "--push"];
    let output = bundle(folder.path(), &push, folder.path());
    assert!(output.status.success(), "{}", words(&output));
    let digest = words(&output).split("@sha256:").nth(1).unwrap().trim().to_owned();
    let mut answer = String::new();
    let mut stream = TcpStream::connect(&registry.address).unwrap();
    write!(
        stream,
        "HEAD /v2/team/qcow-bundle/manifests/1 HTTP/1.0\r\nAccept: application/vnd.oci.image.manifest.v1+json\r\n\r\n"
    )
    .unwrap();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.contains(&format!("sha256:{digest}")), "{answer}");
    // Once more, from the layout alone: nothing has to be sent.
    let output = bundle(folder.path(), &["--layout", "out/qcow-bundle.oci", "--tag", &tag, "--push"], folder.path());
    assert!(output.status.success(), "{}", words(&output));
}

#[test]
fn a_registry_with_passwords_wants_the_right_one() {
    let Some(registry) = Registry::start(true) else { return eprintln!("skipped: no `docker-registry`") };
    let folder = images();
    let tag = format!("{}/team/qcow-bundle:1", registry.address);
    let push = ["data-plane.qcow2", "--tag", &tag, "--push"];
    let output = bundle(folder.path(), &push, folder.path());
    assert_eq!(output.status.code(), Some(5), "{}", words(&output));
    assert!(
        words(&output).contains("wants a user name") && words(&output).contains("docker login"),
        "{}",
        words(&output)
    );
    let login = |auth: &str| {
        let text = format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{auth}\"}}}}}}", registry.address);
        std::fs::write(folder.path().join("config.json"), text).unwrap();
    };
    // `user:wrong` and `user:secret`.
    login("dXNlcjp3cm9uZw==");
    let output = bundle(folder.path(), &push, folder.path());
    assert!(words(&output).contains("does not accept user `user`"), "{}", words(&output));
    login("dXNlcjpzZWNyZXQ=");
    let output = bundle(folder.path(), &push, folder.path());
    assert!(output.status.success(), "{}", words(&output));
}

#[test]
fn nobody_listens() {
    let folder = images();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = bundle(folder.path(), &["data-plane.qcow2", "--tag", &format!("{free}/x:1"), "--push"], folder.path());
    assert_eq!(output.status.code(), Some(5), "{}", words(&output));
}
