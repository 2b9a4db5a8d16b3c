//! Engine `docker` against a daemon that is not one: what is asked of it, and what each of its troubles becomes (clear
//! error, exit code, nothing left behind). One test asks a real one, whose builder's image IMAGEBUILDER_TEST_IMAGE names.

#[path = "support/daemon.rs"]
mod daemon;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon::Request;
use serde_json::{Value, json};

/// What a request gets.
enum Answer {
    Json(u16, Value),
    Raw(Vec<u8>),
    /// Bytes, and then nothing until the client goes or the container is stopped.
    Hang(Vec<u8>),
    /// The connection ends.
    Close,
}

type Script = dyn Fn(&str, &str) -> Option<Answer> + Send + Sync;

struct Daemon {
    dir: tempfile::TempDir,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

/// What a well-behaved daemon says.
fn usual(method: &str, path: &str) -> Answer {
    match (method, path) {
        ("GET", "/version") => Answer::Json(200, json!({"ApiVersion": "1.41", "Version": "20.10", "Arch": "amd64"})),
        ("GET", "/info") => Answer::Json(200, json!({"LoggingDriver": "json-file", "SecurityOptions": []})),
        ("GET", "/networks") => Answer::Json(200, json!([{"Name": "bridge", "Driver": "bridge"}])),
        ("GET", path) if path.starts_with("/images/") => {
            Answer::Json(200, image("amd64", Some(env!("CARGO_PKG_VERSION"))))
        }
        ("POST", "/containers/create") => Answer::Json(201, json!({"Id": "c0ffee", "Warnings": []})),
        ("POST", "/containers/c0ffee/start" | "/containers/c0ffee/stop") => Answer::Json(204, Value::Null),
        ("GET", "/containers/c0ffee/logs") => Answer::Raw(Vec::new()),
        ("GET", "/containers/c0ffee/json") => state(0, false),
        ("DELETE", "/containers/c0ffee") => Answer::Json(204, Value::Null),
        _ => Answer::Json(404, json!({"message": format!("no {method} {path}")})),
    }
}

fn image(architecture: &str, version: Option<&str>) -> Value {
    let labels = version.map(|version| json!({"org.airshipit.imagebuilder.version": version}));
    json!({"Id": "sha256:1", "Architecture": architecture, "Os": "linux", "Size": 1, "Config": {"Labels": labels}})
}

fn state(code: i64, out_of_memory: bool) -> Answer {
    let state = json!({"Running": false, "ExitCode": code, "OOMKilled": out_of_memory, "Error": ""});
    Answer::Json(200, json!({"Id": "c0ffee", "State": state}))
}

/// A piece of a container's output, as the Engine API frames it.
fn frame(stream: u8, text: &str) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend((text.len() as u32).to_be_bytes());
    frame.extend(text.as_bytes());
    frame
}

impl Daemon {
    fn start(script: impl Fn(&str, &str) -> Option<Answer> + Send + Sync + 'static) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let (script, log): (Arc<Script>, _) = (Arc::new(script), seen.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (script, log) = (script.clone(), log.clone());
                std::thread::spawn(move || serve(connection, &*script, &log));
            }
        });
        Daemon { dir, seen }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Documents of a small image; `container` goes into its ImageConfiguration.
    fn documents(&self, container: &str) -> PathBuf {
        let folder = self.path("documents");
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!(
            "apiVersion: airshipit.org/v1alpha1\nkind: AirshipImage\nmetadata: {{name: node}}\nspec:\n  params:\n    \
             distribution:\n      name: debian\n      release: bookworm\n      architecture: amd64\n      repositories:\n        \
             debian: {{source: 'http://deb.debian.org/debian', suite: bookworm, components: {{main: {{}}}}, keyring: debian-archive}}\n    \
             software: {{packages: {{sudo: {{layer: base}}}}}}\n---\napiVersion: airshipit.org/v1alpha1\n\
             kind: ImageConfiguration\nmetadata: {{name: x}}\nspec:\n  image: {{type: tar}}\n  container: {{{container}}}\n"
        );
        std::fs::write(folder.join("site.yaml"), text).unwrap();
        std::fs::write(folder.join("kustomization.yaml"), "resources: [site.yaml]\n").unwrap();
        folder
    }

    fn command(&self, container: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
        command.arg("build").arg(self.documents(container)).args(arguments);
        command.args(["--progress", "plain", "--cache-dir"]).arg(self.path("cache"));
        command.arg("--output-dir").arg(self.path("out")).current_dir(self.dir.path()).stdin(Stdio::null());
        for name in
            ["DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "IMAGEBUILDER_ENGINE", "IMAGEBUILDER_IMAGE"]
        {
            command.env_remove(name);
        }
        command.env("DOCKER_HOST", format!("unix://{}", self.path("docker.sock").display()));
        command.env("HOME", self.dir.path()).env("NO_COLOR", "1");
        command
    }

    fn build(&self, arguments: &[&str]) -> Output {
        self.command("", &[&["--engine", "docker"], arguments].concat()).output().unwrap()
    }

    fn requests(&self, wanted: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(line, _)| line.starts_with(wanted)).map(|(_, body)| body.clone()).collect()
    }

    /// The container that was created, and nothing in its place.
    fn created(&self) -> Value {
        let bodies = self.requests("POST /containers/create");
        assert_eq!(bodies.len(), 1);
        serde_json::from_str(&bodies[0]).unwrap()
    }
}

fn serve(connection: UnixStream, script: &Script, log: &Mutex<Vec<(String, String)>>) {
    let Some(Request { method, path, body }) = Request::read(&mut BufReader::new(&connection)) else { return };
    let (method, path) = (method.as_str(), path.as_str());
    log.lock().unwrap().push((format!("{method} {path}"), body));
    let mut out = &connection;
    let head =
        |kind: &str, status: u16| format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Type: {kind}\r\n\r\n");
    match script(method, path).unwrap_or_else(|| usual(method, path)) {
        Answer::Json(204, _) => _ = out.write_all(b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n"),
        Answer::Json(status, value) => {
            _ = out.write_all(format!("{}{value}", head("application/json", status)).as_bytes());
        }
        Answer::Raw(bytes) => {
            _ = out.write_all(&[head("application/vnd.docker.raw-stream", 200).as_bytes(), &bytes].concat());
        }
        Answer::Hang(bytes) => {
            _ = out.write_all(&[head("application/vnd.docker.raw-stream", 200).as_bytes(), &bytes].concat());
            for _ in 0..600 {
                if log.lock().unwrap().iter().any(|(line, _)| line.ends_with("/stop")) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Answer::Close => {}
    }
}

/// Exit code, and words that the error has to have.
fn fails(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains("error: ") && text.contains("hint: "), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

fn nothing_left(daemon: &Daemon) {
    let (made, removed) =
        (daemon.requests("POST /containers/create").len(), daemon.requests("DELETE /containers/").len());
    assert!(made <= removed, "{made} containers made, {removed} removed");
    let left: Vec<_> = std::fs::read_dir(daemon.path("out")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "left in the output folder: {left:?}");
}

#[test]
fn a_build_in_a_container_looks_like_any_other() {
    let events = "{\"event\":\"step-started\",\"id\":3,\"name\":\"fetch\"}\n{\"event\":\"warning\",\"text\":\"odd\"}\n\
                  {\"event\":\"step-finished\",\"id\":3,\"name\":\"fetch\",\"wallSeconds\":1.5,\"detail\":\"9 packages\"}\n";
    let daemon = Daemon::start(move |method, path| match (method, path) {
        ("GET", "/containers/c0ffee/logs") => Some(Answer::Raw([frame(2, events), frame(1, "the summary\n")].concat())),
        _ => None,
    });
    let mut command = daemon.command("privileged: true, volume: '/x:/config', image: 'a/b:c'", &["--engine", "docker"]);
    let output = command.env("HTTP_PROXY", "http://proxy:1").env("no_proxy", "a,b").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert_eq!(out, "the summary\n");
    for line in
        ["fetch: 1.5 s (9 packages)", "warning: odd", "`privileged: true` is not needed", "container of `a/b:c`"]
    {
        assert!(err.contains(line), "`{line}` is not in: {err}");
    }
    let body = daemon.created();
    let host = &body["HostConfig"];
    for asked in ["Privileged", "CapAdd", "Devices", "SecurityOpt", "PidMode", "Binds"] {
        assert!(host[asked].is_null(), "{asked}: {host}");
    }
    assert_eq!(host["NetworkMode"], "bridge");
    let mounts: HashMap<&str, bool> = host["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| (mount["Target"].as_str().unwrap(), mount["ReadOnly"].as_bool().unwrap()))
        .collect();
    let path = |name: &str| daemon.path(name).display().to_string();
    assert!(mounts[path("documents").as_str()] && !mounts[path("out").as_str()] && !mounts[path("cache").as_str()]);
    assert!(!mounts["/config"]);
    let environment: Vec<&str> = body["Env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for wanted in [
        "http_proxy=http://proxy:1",
        "HTTP_PROXY=http://proxy:1",
        "no_proxy=a,b",
        "NO_PROXY=a,b",
        "IMAGEBUILDER_ENGINE=embedded",
    ] {
        assert!(environment.contains(&wanted), "{wanted}: {environment:?}");
    }
    assert_eq!(body["Entrypoint"][0], "/usr/bin/imagebuilder");
    let arguments: Vec<&str> = body["Cmd"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(arguments.starts_with(&["--progress", "json", "--cache-dir"]) && arguments.contains(&"build"));
    assert!(!arguments.contains(&"--engine") && !arguments.contains(&"docker"), "{arguments:?}");
    nothing_left(&daemon);
}

/// Six spellings, each handed on in both cases.
#[test]
fn every_spelling_of_a_proxy_reaches_the_container() {
    const NAMES: [&str; 8] =
        ["http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"];
    for spelling in NAMES {
        let daemon = Daemon::start(|_, _| None);
        let mut command = daemon.command("", &["--engine", "docker"]);
        NAMES.iter().for_each(|name| _ = command.env_remove(name));
        let value = "http://user:word@proxy.example:3128";
        assert!(command.env(spelling, value).output().unwrap().status.success());
        let body = daemon.created();
        let environment: Vec<&str> = body["Env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let proxies = environment.iter().filter(|pair| pair.contains("proxy.example")).count();
        for name in [spelling.to_lowercase(), spelling.to_uppercase()] {
            assert!(environment.contains(&format!("{name}={value}").as_str()), "{environment:?}");
        }
        assert_eq!(proxies, 2, "{environment:?}");
        assert_eq!(body["HostConfig"]["NetworkMode"], "bridge");
        // One on this machine is not to be seen from a network of the container's own.
        if !spelling.eq_ignore_ascii_case("no_proxy") {
            let daemon = Daemon::start(|_, _| None);
            let mut command = daemon.command("", &["--engine", "docker"]);
            NAMES.iter().for_each(|name| _ = command.env_remove(name));
            assert!(command.env(spelling, "http://localhost:3128").output().unwrap().status.success());
            assert_eq!(daemon.created()["HostConfig"]["NetworkMode"], "host", "{spelling}");
        }
    }
}

#[test]
fn no_daemon() {
    let daemon = Daemon::start(|_, _| None);
    std::fs::remove_file(daemon.path("docker.sock")).unwrap();
    fails(&daemon.build(&[]), 1, &["docker.sock (DOCKER_HOST)", "nothing listens there", "--engine embedded"]);
    // A socket that nobody serves any more.
    drop(UnixListener::bind(daemon.path("docker.sock")).unwrap());
    fails(&daemon.build(&[]), 1, &["nothing listens there"]);
}

#[test]
fn documents_that_ask_for_docker_are_built_without_it_too() {
    let daemon = Daemon::start(|_, _| None);
    std::fs::remove_file(daemon.path("docker.sock")).unwrap();
    let mut command = daemon.command("containerRuntime: docker", &[]);
    // Nothing can be fetched, so that the build in this process ends soon.
    let output = command.env("http_proxy", "http://127.0.0.1:9").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("`containerRuntime: docker`, which cannot be had here") && text.contains("in this process"),
        "{text}"
    );
    assert!(matches!(output.status.code(), Some(1 | 5)), "{text}");
    // And not asked for, nobody looks for one.
    let output = daemon.command("", &[]).env("http_proxy", "http://127.0.0.1:9").output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("docker"));
}

#[test]
fn a_daemon_that_is_too_old() {
    let old = "client is newer than server (client API version: 1.53, server API version: 1.24)";
    let daemon = Daemon::start(move |_, path| (path == "/version").then(|| Answer::Json(400, json!({"message": old}))));
    fails(&daemon.build(&[]), 1, &["too old", "1.24", "1.40"]);
    let daemon = Daemon::start(|_, path| {
        (path == "/version").then(|| Answer::Json(200, json!({"ApiVersion": "1.30", "Version": "17.06"})))
    });
    fails(&daemon.build(&[]), 1, &["Docker 17.06 is too old", "1.30"]);
    let daemon = Daemon::start(|_, path| (path == "/version").then(|| Answer::Json(200, json!([1]))));
    assert_eq!(daemon.build(&[]).status.code(), Some(1));
}

#[test]
fn no_permission_on_the_socket() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Daemon::start(|_, _| None);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(daemon.dir.path(), 0o777);
    mode(&daemon.path("docker.sock"), 0o600);
    let mut command = daemon.command("", &["--engine", "docker"]);
    if rustix::process::geteuid().is_root() {
        let own = Path::new(env!("CARGO_BIN_EXE_imagebuilder"));
        if Command::new(own)
            .arg("--version")
            .uid(65534)
            .gid(65534)
            .output()
            .map_or(true, |output| !output.status.success())
        {
            return println!("skipped: another user cannot run the program here");
        }
        command.uid(65534).gid(65534);
    } else {
        mode(&daemon.path("docker.sock"), 0o000);
    }
    fails(&command.output().unwrap(), 1, &["no permission to use", "docker.sock", "usermod -aG docker"]);
}

#[test]
fn an_image_that_cannot_be_had() {
    let missing = |method: &str, path: &str| match (method, path) {
        ("GET", path) if path.starts_with("/images/") => Some(Answer::Json(404, json!({"message": "No such image"}))),
        ("POST", "/images/create") => Some(Answer::Json(
            500,
            json!({"message": "Get https://registry.example/v2/: dial tcp: connection refused"}),
        )),
        _ => None,
    };
    let daemon = Daemon::start(missing);
    let output = daemon.build(&["--builder-image", "registry.example/a:b"]);
    fails(&output, 5, &["pulling the builder's image `registry.example/a:b`", "connection refused", "make build"]);
    nothing_left(&daemon);
    // In the middle of the stream, with status 200.
    let denied = json!({"errorDetail": {"message": "unauthorized: authentication required"}, "error": "unauthorized"});
    let daemon = Daemon::start(move |method, path| match (method, path) {
        ("POST", "/images/create") => Some(Answer::Raw(format!("{denied}\n").into_bytes())),
        _ => missing(method, path),
    });
    fails(&daemon.build(&["--builder-image", "registry.example/a:b"]), 5, &["unauthorized", "docker login"]);
}

#[test]
fn an_image_without_the_builder() {
    let daemon = Daemon::start(|method, path| match (method, path) {
        ("GET", path) if path.starts_with("/images/") => Some(Answer::Json(200, image("amd64", None))),
        ("POST", "/containers/c0ffee/start") => Some(Answer::Json(
            400,
            json!({"message": "OCI runtime create failed: exec: \"/usr/bin/imagebuilder\": stat /usr/bin/imagebuilder: no such file or directory: unknown"}),
        )),
        _ => None,
    });
    fails(
        &daemon.build(&["--builder-image", "a/b:c"]),
        1,
        &["does not hold an `imagebuilder`", "`a/b:c`", "make build"],
    );
    nothing_left(&daemon);
    for version in ["0.0.1", "9.9.9"] {
        let daemon = Daemon::start(move |method, path| {
            (method == "GET" && path.starts_with("/images/")).then(|| Answer::Json(200, image("amd64", Some(version))))
        });
        fails(&daemon.build(&[]), 1, &[&format!("its builder has version {version}"), "make build"]);
        nothing_left(&daemon);
    }
}

#[test]
fn an_image_for_another_architecture() {
    let daemon = Daemon::start(|method, path| {
        (method == "GET" && path.starts_with("/images/"))
            .then(|| Answer::Json(200, image("arm64", Some(env!("CARGO_PKG_VERSION")))))
    });
    fails(&daemon.build(&[]), 1, &["made for arm64", "runs on amd64"]);
}

#[test]
fn a_volume_that_cannot_be_written_to() {
    let daemon = Daemon::start(|_, _| None);
    let output = daemon.build(&["--output-dir=/proc/imagebuilder"]);
    // The one given last is refused by the parser, so the documents name it.
    assert_eq!(output.status.code(), Some(2));
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
    command.arg("build").arg(daemon.documents("volume: '/proc/imagebuilder:/config'")).args([
        "--engine",
        "docker",
        "--cache-dir",
    ]);
    command.arg(daemon.path("cache")).env("DOCKER_HOST", format!("unix://{}", daemon.path("docker.sock").display()));
    let output = command.env("NO_COLOR", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("/proc/imagebuilder"), "{text}");
    assert!(daemon.requests("POST /containers/create").is_empty());
}

#[test]
fn troubles_of_the_builder_inside_are_the_callers() {
    let failed = |code: i64, event: &'static str, out_of_memory: bool| {
        Daemon::start(move |method, path| match (method, path) {
            ("GET", "/containers/c0ffee/logs") => Some(Answer::Raw(frame(2, event))),
            ("GET", "/containers/c0ffee/json") => Some(state(code, out_of_memory)),
            _ => None,
        })
    };
    let full = "{\"event\":\"failed\",\"exitCode\":6,\"message\":\"writing x: no space left on device\",\"hints\":[\"free some\"]}\nerror: x\n";
    let daemon = failed(6, full, false);
    fails(&daemon.build(&[]), 6, &["writing x: no space left on device", "free some"]);
    nothing_left(&daemon);
    // Of several images, each is heard of; the one that ended it decides.
    let two = "{\"event\":\"failed\",\"exitCode\":5,\"message\":\"preparing image `a`\",\"hints\":[]}\n\
               {\"event\":\"failed\",\"exitCode\":3,\"message\":\"preparing image `b`\",\"hints\":[\"0 of 2 images were built\"]}\n";
    let daemon = failed(3, two, false);
    fails(&daemon.build(&[]), 3, &["error: preparing image `a`", "error: preparing image `b`", "0 of 2"]);
    nothing_left(&daemon);
    let daemon = failed(137, "last words\n", true);
    fails(&daemon.build(&[]), 1, &["more memory than it may", "last words"]);
    nothing_left(&daemon);
    let daemon = failed(137, "", false);
    fails(&daemon.build(&[]), 1, &["killed from outside (signal 9)"]);
    nothing_left(&daemon);
}

/// Podman 4.3 has states of containers that Docker does not know, and leaves streams of logs open.
#[test]
fn a_daemon_with_ways_of_its_own() {
    let ends_with = |code: i64| {
        Daemon::start(move |method, path| match (method, path) {
            ("GET", "/containers/c0ffee/logs") => Some(Answer::Hang(frame(1, "the summary\n"))),
            ("POST", "/containers/c0ffee/wait") => Some(Answer::Json(200, json!({"StatusCode": code, "Error": null}))),
            ("GET", "/containers/c0ffee/json") => {
                let state = json!({"Status": "stopped", "Running": false, "ExitCode": code});
                Some(Answer::Json(200, json!({"Id": "c0ffee", "State": state})))
            }
            _ => None,
        })
    };
    let daemon = ends_with(0);
    let output = daemon.build(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "the summary\n");
    nothing_left(&daemon);
    let daemon = ends_with(6);
    let output = daemon.build(&[]);
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
    nothing_left(&daemon);
}

#[test]
fn a_daemon_that_goes_away_and_comes_back() {
    let gone: Arc<Mutex<Option<std::time::Instant>>> = Arc::default();
    let daemon = Daemon::start(move |_, path| {
        let mut gone = gone.lock().unwrap();
        if path == "/containers/c0ffee/logs" {
            *gone = Some(std::time::Instant::now());
            // A frame that does not end.
            return Some(Answer::Raw(frame(2, "news\n")[..10].to_vec()));
        }
        gone.is_some_and(|since| since.elapsed() < Duration::from_secs(1)).then_some(Answer::Close)
    });
    fails(&daemon.build(&[]), 1, &["the container engine went away while the builder ran"]);
    nothing_left(&daemon);
}

#[test]
fn engines_that_map_users() {
    let with = |option: &'static str| {
        Daemon::start(move |_, path| {
            (path == "/info")
                .then(|| Answer::Json(200, json!({"SecurityOptions": ["name=seccomp,profile=default", option]})))
        })
    };
    let remapped = with("name=userns");
    assert!(remapped.build(&[]).status.success());
    assert_eq!(remapped.created()["HostConfig"]["UsernsMode"], "host");
    let rootless = with("name=rootless");
    assert!(rootless.build(&[]).status.success());
    assert!(rootless.created()["HostConfig"]["UsernsMode"].is_null());
    assert!(!rootless.created()["Env"].to_string().contains("IMAGEBUILDER_OWNER"));
}

#[test]
fn a_container_can_be_kept() {
    let daemon = Daemon::start(|_, _| None);
    let output = daemon.build(&["--keep-container"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("the container was kept: `docker logs c0ffee`"), "{text}");
    assert!(daemon.requests("DELETE").is_empty());
}

#[test]
fn interrupting_stops_and_removes_the_container() {
    let daemon = Daemon::start(|_, path| {
        (path == "/containers/c0ffee/logs")
            .then(|| Answer::Hang(frame(2, "{\"event\":\"note\",\"text\":\"at work\"}\n")))
    });
    let mut command = daemon.command("", &["--engine", "docker"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().flatten().any(|line| line.contains("at work")));
    // SAFETY: a signal to our own child.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    for _ in lines {}
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(daemon.requests("POST /containers/c0ffee/stop").len(), 1);
    nothing_left(&daemon);
}

/// The daemon that DOCKER_HOST (or the usual socket) names; `None` with a message where there is none.
fn real() -> Option<String> {
    let image = std::env::var("IMAGEBUILDER_TEST_IMAGE").ok().filter(|image| !image.is_empty());
    if image.is_none() {
        println!("skipped: no builder's image for a real container engine is named (IMAGEBUILDER_TEST_IMAGE)");
    }
    image
}

#[test]
fn a_real_engine_refuses_as_the_false_one_does() {
    let Some(image) = real() else { return };
    let status = |image: &str| {
        Command::new(env!("CARGO_BIN_EXE_imagebuilder")).args(["builder", "status", "--image", image]).output().unwrap()
    };
    let output = status(&image);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(status("localhost/imagebuilder/there-is-none:x").status.code(), Some(1));
}
