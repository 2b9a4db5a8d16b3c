//! Builds in containers of real engines, and what ends them from outside: `docker kill`, too little memory, an engine that
//! stops; and engines that are spoken to with certificates, or map users.
//!
//! `IMAGEBUILDER_TEST_IMAGE` names the builder's image in an engine that `docker` reaches. Where the machine lets root
//! start `dockerd`, some tests start one of their own. Every build here waits for a mirror that takes its time.

mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::mirror::{Archive, Fault, IN_RELEASE, Mirror, Suite};

const PROGRAM: &str = env!("CARGO_BIN_EXE_imagebuilder");

fn image() -> Option<String> {
    let image = std::env::var("IMAGEBUILDER_TEST_IMAGE").ok().filter(|image| !image.is_empty());
    if image.is_none() {
        println!("skipped: no builder's image for a real container engine is named (IMAGEBUILDER_TEST_IMAGE)");
    }
    image
}

/// What `docker` and the program have to be told about an engine.
type Engine = Vec<(String, String)>;

fn docker(engine: &Engine, words: &[&str]) -> Output {
    Command::new("docker").args(words).envs(engine.iter().cloned()).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until something is so.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A build that is under way in a container, and waits for its mirror.
struct Build {
    process: Child,
    dir: tempfile::TempDir,
    engine: Engine,
    container: String,
}

/// Longer than any test here wants to wait.
const NEVER: Duration = Duration::from_secs(300);

impl Build {
    /// The mirror answers after a while, and then has this many packages.
    fn start(engine: &Engine, image: &str, after: Duration, packages: u32) -> Build {
        let archive = Archive::new();
        let offer = |number: u32| {
            let stanza = format!("Package: p{number}\nVersion: 1\nArchitecture: all\nDepends: p{}\n", number / 2);
            (format!("pool/p{number}.deb"), stanza, Vec::new())
        };
        let offers: Vec<_> = (0..packages).map(offer).collect();
        let mirror = Mirror::start(Suite::default().files_of(&archive, &offers));
        mirror.fault(IN_RELEASE, &[Fault::Stall(after)]);
        let dir = tempfile::tempdir().unwrap();
        let key: String = archive.public.lines().map(|line| format!("            {line}\n")).collect();
        let text = format!(
            "apiVersion: airshipit.org/v1alpha1\nkind: AirshipImage\nmetadata: {{name: node}}\nspec:\n  params:\n    \
             distribution:\n      name: debian\n      release: bookworm\n      architecture: amd64\n      repositories:\n        \
             test:\n          source: {}\n          suite: stable\n          components: {{main: {{}}}}\n          keyring: |\n{key}    \
             software: {{packages: {{p9: {{layer: base}}}}}}\n",
            mirror.url()
        );
        let documents = dir.path().join("documents");
        std::fs::create_dir(&documents).unwrap();
        std::fs::write(documents.join("site.yaml"), text).unwrap();
        std::fs::write(documents.join("kustomization.yaml"), "resources: [site.yaml]\n").unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("build").arg(&documents).args([
            "--engine",
            "docker",
            "--builder-image",
            image,
            "--progress",
            "plain",
        ]);
        command.arg("--cache-dir").arg(dir.path().join("cache")).arg("--output-dir").arg(dir.path().join("out"));
        command.envs(engine.iter().cloned()).env("NO_COLOR", "1").stdin(Stdio::null());
        let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut build = Build { process, dir, engine: engine.clone(), container: String::new() };
        // It has been asked, so the builder in the container is at work.
        until("asking the mirror", || {
            if let Some(status) = build.process.try_wait().unwrap() {
                let mut error = String::new();
                let mut stderr = build.process.stderr.take().unwrap();
                std::io::Read::read_to_string(&mut stderr, &mut error).unwrap();
                panic!("{status}: {error}");
            }
            mirror.state.lock().unwrap().log.first().cloned()
        });
        build.container = build.containers();
        assert_eq!(build.container.lines().count(), 1, "{}", build.container);
        build
    }

    /// Ids of the builder's containers that see this build's folder.
    fn containers(&self) -> String {
        let folder = self.dir.path().join("out");
        let filter = format!("volume={}", folder.display());
        let found =
            docker(&self.engine, &["ps", "-aq", "--filter", "label=org.airshipit.imagebuilder", "--filter", &filter]);
        said(&found).trim().to_owned()
    }

    /// Exit code and words of the caller; nothing is left anywhere.
    fn ends(mut self, code: i32, words: &[&str]) {
        let mut lines = Vec::new();
        lines.extend(BufReader::new(self.process.stderr.take().unwrap()).lines().map_while(Result::ok));
        let text = lines.join("\n");
        assert_eq!(self.process.wait().unwrap().code(), Some(code), "{text}");
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
        assert_eq!(self.containers(), "", "{text}");
        let left: Vec<PathBuf> =
            std::fs::read_dir(self.dir.path().join("out")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_container_that_is_killed() {
    let Some(image) = image() else { return };
    let engine = Engine::new();
    let build = Build::start(&engine, &image, NEVER, 1);
    let killed = docker(&engine, &["kill", &build.container]);
    assert!(killed.status.success(), "{}", said(&killed));
    build.ends(1, &["error: ", "killed from outside (signal 9)", "hint: "]);
    let build = Build::start(&engine, &image, Duration::from_secs(3), 1);
    let stopped = docker(&engine, &["stop", "--time", "60", &build.container]);
    assert!(stopped.status.success(), "{}", said(&stopped));
    // The builder inside ends as with Ctrl-C, but nobody typed that here.
    build.ends(1, &["error: ", "stopped from outside", "hint: "]);
}

#[test]
fn a_container_without_memory() {
    let Some(image) = image() else { return };
    let engine = Engine::new();
    let build = Build::start(&engine, &image, Duration::from_secs(10), 60_000);
    let less = docker(&engine, &["update", "--memory", "10m", "--memory-swap", "10m", &build.container]);
    if !less.status.success() {
        println!("skipped: the engine cannot limit memory: {}", said(&less));
        docker(&engine, &["kill", &build.container]);
        return build.ends(1, &["signal 9"]);
    }
    build.ends(1, &["used more memory than it may", "hint: "]);
}

#[test]
fn a_builder_that_is_interrupted() {
    let Some(image) = image() else { return };
    let build = Build::start(&Engine::new(), &image, Duration::from_secs(3), 1);
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(build.process.id() as libc::pid_t, libc::SIGINT) };
    build.ends(130, &["interrupted"]);
}

/// An engine of the test's own, which has the builder's image.
struct Dockerd {
    process: Option<Child>,
    dir: tempfile::TempDir,
    /// Program and first words; those of every engine follow.
    command: Vec<String>,
    engine: Engine,
}

impl Dockerd {
    fn start(image: &str, command: &[&str], client: &[(&str, String)]) -> Option<Dockerd> {
        if !rustix::process::geteuid().is_root() || Command::new("dockerd").arg("--version").output().is_err() {
            println!("skipped: only root can start an engine, and only where there is `dockerd`");
            return None;
        }
        // Sockets have short names.
        let dir = tempfile::Builder::new().prefix("ib-").tempdir_in("/tmp").unwrap();
        let socket = format!("unix://{}", dir.path().join("sock").display());
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let mut engine = vec![("DOCKER_HOST".to_owned(), socket.clone())];
        let mut dockerd = Dockerd { process: None, dir, command, engine: engine.clone() };
        dockerd.run();
        let saved = dockerd.dir.path().join("image.tar");
        let save = docker(&Engine::new(), &["save", "--output", saved.to_str().unwrap(), image]);
        assert!(save.status.success(), "{}", said(&save));
        let load = docker(&engine, &["load", "--input", saved.to_str().unwrap()]);
        assert!(load.status.success(), "{}", said(&load));
        std::fs::remove_file(saved).unwrap();
        for (name, value) in client {
            engine.retain(|(known, _)| known != name);
            engine.push(((*name).to_owned(), value.clone()));
        }
        dockerd.engine = engine;
        Some(dockerd)
    }

    fn run(&mut self) {
        let place = |name: &str| self.dir.path().join(name).display().to_string();
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        command.args(["--data-root", &place("data"), "--exec-root", &place("exec"), "--pidfile", &place("pid")]);
        command.arg("--host").arg(format!("unix://{}", place("sock")));
        command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let socket = vec![("DOCKER_HOST".to_owned(), format!("unix://{}", place("sock")))];
        let log = self.dir.path().join("log");
        until("starting an engine", || {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{}", std::fs::read_to_string(&log).unwrap());
            docker(&socket, &["version"]).status.success().then_some(())
        });
    }

    fn stop(&mut self, signal: libc::c_int) {
        let Some(mut process) = self.process.take() else { return };
        // SAFETY: a signal to our own child.
        unsafe { libc::kill(process.id() as libc::pid_t, signal) };
        let _ = process.wait();
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.stop(libc::SIGTERM);
        // It leaves the bind mount of its network namespace behind, which would keep the folder.
        let left = self.dir.path().join("exec/netns/default");
        let _ = Command::new("umount").arg(left).stderr(Stdio::null()).status();
    }
}

#[test]
fn an_engine_that_is_restarted() {
    let Some(image) = image() else { return };
    let Some(mut dockerd) = Dockerd::start(&image, &["dockerd"], &[]) else { return };
    let build = Build::start(&dockerd.engine, &image, NEVER, 1);
    dockerd.stop(libc::SIGTERM);
    dockerd.run();
    // It stops its containers first; which of the two is heard of is a matter of time.
    build.ends(1, &["error: ", "while the builder ran", "hint: "]);
}

/// Root of its containers is nobody outside, unless a container asks for more.
#[test]
fn an_engine_that_maps_users() {
    let Some(image) = image() else { return };
    // subuid(5), seen by this engine only.
    let folder = tempfile::tempdir().unwrap();
    let ranges = folder.path().join("ranges");
    std::fs::write(&ranges, "nobody:200000:65536\nnogroup:200000:65536\n").unwrap();
    let mounts = "mount --make-rprivate / && mount --bind $0 /etc/subuid && mount --bind $0 /etc/subgid && exec \"$@\"";
    let ranges = ranges.to_str().unwrap();
    let own = ["unshare", "--mount", "sh", "-c", mounts, ranges];
    let tried = Command::new(own[0]).args(&own[1..]).arg("true").output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        return println!("skipped: no mounts can be made here, or there is no subuid(5)");
    }
    let command = [&own[..], &["dockerd", "--userns-remap", "nobody:nogroup"]].concat();
    let Some(dockerd) = Dockerd::start(&image, &command, &[]) else { return };
    let map = docker(&dockerd.engine, &["run", "--rm", "--network", "none", &image, "cat", "/proc/self/uid_map"]);
    if !said(&map).contains("200000") {
        return println!("skipped: this engine maps no users: {}", said(&map));
    }
    // The builder's container asks for more.
    let build = Build::start(&dockerd.engine, &image, NEVER, 1);
    let mode = docker(&dockerd.engine, &["inspect", "--format", "{{.HostConfig.UsernsMode}}", &build.container]);
    assert_eq!(said(&mode).trim(), "host");
    docker(&dockerd.engine, &["kill", &build.container]);
    build.ends(1, &["signal 9"]);
    // One that does not is told before anything is downloaded.
    let volume = format!("{}:/config", folder.path().display());
    let plain = docker(
        &dockerd.engine,
        &["run", "--rm", "--network", "none", "-e", "VERSION=v2", "-e", "IMAGE_TYPE=qcow", "-v", &volume, &image],
    );
    assert_eq!(plain.status.code(), Some(1), "{}", said(&plain));
    assert!(said(&plain).contains("--userns=host"), "{}", said(&plain));
}

/// Certificates on both sides, made with `openssl`.
fn certificates(folder: &Path) -> bool {
    let openssl = |words: &[&str]| {
        let made = Command::new("openssl").args(words).current_dir(folder).stdin(Stdio::null()).output();
        made.is_ok_and(|made| made.status.success())
    };
    let signed = |name: &str, extension: &str| {
        std::fs::write(folder.join("extension"), extension).unwrap();
        let (key, request, certificate) = (format!("{name}.pem"), format!("{name}.csr"), format!("{name}-cert.pem"));
        openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-subj", "/CN=localhost", "-out", &request])
            && openssl(&[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca-key.pem",
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                "extension",
                "-out",
                &certificate,
            ])
    };
    let made = openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca-key.pem",
        "-subj",
        "/CN=test",
        "-days",
        "2",
        "-addext",
        "keyUsage=critical,keyCertSign",
        "-out",
        "ca.pem",
    ]) && signed("server", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        && signed("key", "extendedKeyUsage=clientAuth\n");
    if made {
        std::fs::rename(folder.join("key-cert.pem"), folder.join("cert.pem")).unwrap();
    }
    made
}

#[test]
fn an_engine_with_certificates() {
    let Some(image) = image() else { return };
    let folder = tempfile::tempdir().unwrap();
    if !certificates(folder.path()) {
        return println!("skipped: `openssl` makes no certificates here");
    }
    let file = |name: &str| folder.path().join(name).display().to_string();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let host = format!("tcp://{free}");
    let options = [
        "dockerd",
        "--tlsverify",
        "--tlscacert",
        &file("ca.pem"),
        "--tlscert",
        &file("server-cert.pem"),
        "--tlskey",
        &file("server.pem"),
        "--host",
        &host,
    ];
    let client = |certificates: &Path| {
        let certificates = certificates.display().to_string();
        [("DOCKER_HOST", host.clone()), ("DOCKER_TLS_VERIFY", "1".into()), ("DOCKER_CERT_PATH", certificates)]
    };
    let Some(dockerd) = Dockerd::start(&image, &options, &client(folder.path())) else { return };
    let status = |certificates: &Path| {
        let mut command = Command::new(PROGRAM);
        command.args(["builder", "status", "--image", &image]).envs(client(certificates)).env("NO_COLOR", "1");
        command.output().unwrap()
    };
    assert!(status(folder.path()).status.success(), "{}", said(&status(folder.path())));
    let build = Build::start(&dockerd.engine, &image, NEVER, 1);
    docker(&dockerd.engine, &["kill", &build.container]);
    build.ends(1, &["signal 9"]);
    // Certificates of somebody else.
    let other = tempfile::tempdir().unwrap();
    assert!(certificates(other.path()));
    let refused = status(other.path());
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("certificate") && said(&refused).contains("hint: "), "{}", said(&refused));
    // None at all.
    let none = status(&folder.path().join("none"));
    assert!(none.status.code() == Some(1) && said(&none).contains("ca.pem"), "{}", said(&none));
}
