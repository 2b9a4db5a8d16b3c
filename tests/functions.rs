//! Functions in containers: what they are given, what is made of what they print, and what is said when they fail. The
//! container engine is a listener that acts like one; `a_real_engine` asks a real one, where one answers.

#[path = "support/daemon.rs"]
mod daemon;

use std::fs;
use std::io::{BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use daemon::Request;
use imagebuilder::document::{origins, to_yaml};
use imagebuilder::error::Result;
use imagebuilder::kustomize::function::{Answer, Call};
use imagebuilder::kustomize::{Options, build};
use serde_json::{Value, json};

const OBJECTS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: \"1\", y: \"2\"}\n---\n\
                       apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {z: \"3\"}\n";

fn config(kind: &str, function: &str) -> String {
    let function = function.replace('\n', "\n      ");
    format!(
        "apiVersion: example.com/v1\nkind: {kind}\nmetadata:\n  name: fn\n  annotations:\n    config.kubernetes.io/function: |\n      \
         {function}\nspec: {{value: '7'}}\n"
    )
}

fn folder(field: &str, function: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kustomization.yaml"), format!("resources: [r.yaml]\n{field}: [fn.yaml]\n")).unwrap();
    fs::write(dir.path().join("r.yaml"), OBJECTS).unwrap();
    fs::write(dir.path().join("fn.yaml"), config("Setter", function)).unwrap();
    dir
}

type Seen = Arc<Mutex<Vec<Call>>>;

/// Options whose functions are `answer`, and what it was called with.
fn options(answer: impl Fn(&Call) -> Result<Answer> + Send + Sync + 'static) -> (Options, Seen) {
    let seen = Seen::default();
    let seen_too = Arc::clone(&seen);
    let run = move |call: &Call| {
        seen_too.lock().unwrap().push(call.clone());
        answer(call)
    };
    (Options { functions: Some(Arc::new(run)), ..Options::default() }, seen)
}

fn prints(text: &str) -> impl Fn(&Call) -> Result<Answer> + Send + Sync + 'static {
    let output = text.as_bytes().to_vec();
    move |_: &Call| Ok(Answer { output: output.clone(), ..Answer::default() })
}

const CHANGED: &str = "\
apiVersion: config.kubernetes.io/v1
kind: ResourceList
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: a, annotations: {config.kubernetes.io/index: '0', internal.config.kubernetes.io/index: '0'}}
  data: {x: '7', y: '2'}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: new}
";

#[test]
fn a_transformer_changes_drops_and_adds() {
    let dir = folder("transformers", "container: {image: example/set:v1}");
    let (options, seen) = options(prints(CHANGED));
    let documents = build(dir.path(), &options).unwrap();
    assert_eq!(
        to_yaml(&documents),
        "apiVersion: v1\ndata:\n  x: \"7\"\n  \"y\": \"2\"\nkind: ConfigMap\nmetadata:\n  name: a\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: new\n"
    );
    let seen = seen.lock().unwrap();
    let [call] = &seen[..] else { panic!("{} calls", seen.len()) };
    assert_eq!(call.image, "example/set:v1");
    let input = String::from_utf8(call.input.clone()).unwrap();
    for part in
        ["kind: ResourceList\n", "apiVersion: config.kubernetes.io/v1\n", "functionConfig:\n", "    value: \"7\"\n"]
    {
        assert!(input.contains(part), "`{part}` is not in {input}");
    }
    // What the function left alone still comes from where it was written; what it changed names the function.
    let chain = |path: &str| origins(&documents[0]).into_iter().find(|entry| entry.path == path).unwrap().chain;
    assert!(chain("/data/y")[0].contains("r.yaml:4:") && chain("/data/y").len() == 1, "{:?}", chain("/data/y"));
    let changed = chain("/data/x");
    assert!(changed[0].starts_with("output of the function `example/set:v1`:7:"), "{changed:?}");
    assert!(changed[1].starts_with("function ") && changed[1].contains("fn.yaml:"), "{changed:?}");
    assert!(changed[2].contains("r.yaml:4:"), "{changed:?}");
}

#[test]
fn a_generator_may_ask_for_a_hash() {
    let dir = folder("generators", "container:\n  image: example/make:v1");
    let output = "kind: ResourceList\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: made, annotations: \
                  {kustomize.config.k8s.io/needs-hash: 'true'}}\n  data: {a: b}\n";
    let (options, seen) = options(prints(output));
    let text = to_yaml(&build(dir.path(), &options).unwrap());
    assert!(text.contains("name: made-") && !text.contains("needs-hash"), "{text}");
    let input = String::from_utf8(seen.lock().unwrap()[0].input.clone()).unwrap();
    assert!(input.contains("items: []\n"), "{input}");
}

#[test]
fn a_validator_must_not_change_anything() {
    let dir = folder("validators", "container: {image: example/check:v1}");
    let (options, _) = options(prints(CHANGED));
    let error = build(dir.path(), &options).unwrap_err();
    assert!(error.to_string().contains("must not change anything"), "{error}");
    let same = format!("kind: ResourceList\nitems:\n{}", OBJECTS.split("---\n").map(indented).collect::<String>());
    let (options, _) = self::options(move |_| Ok(Answer { output: same.clone().into_bytes(), ..Answer::default() }));
    assert_eq!(build(dir.path(), &options).unwrap().len(), 2);
}

fn indented(document: &str) -> String {
    let lines: Vec<&str> = document.lines().collect();
    format!("- {}\n", lines.join("\n  "))
}

#[test]
fn a_failure_names_the_annotation_and_shows_the_results() {
    let dir = folder("validators", "container: {image: example/check:v1}");
    let output = "kind: ResourceList\nitems: []\nresults:\n- message: replicas missing\n  severity: error\n  resourceRef: {kind: \
                  ConfigMap, name: a}\n  field: {path: data.x}\n";
    let (options, _) =
        options(move |_| Ok(Answer { code: 3, output: output.into(), said: "cannot go on\u{1b}[31m\n".into() }));
    let error = build(dir.path(), &options).unwrap_err();
    assert!(error.to_string().contains("fn.yaml:7:"), "{error}");
    assert!(error.to_string().contains("`example/check:v1` fails: it ends with 3"), "{error}");
    let hints = error.hints().join("\n");
    assert!(hints.contains("it reports: error: replicas missing (ConfigMap a, data.x)"), "{hints}");
    assert!(hints.contains("it says: cannot go on") && !hints.contains('\u{1b}'), "{hints}");
}

#[test]
fn what_a_function_may_not_ask_for() {
    let cases = [
        ("exec: {path: ./run.sh}", "is a program of this host"),
        ("starlark: {path: a.star}", "is a program of this host"),
        ("container: {network: true, image: a}", "asks for a network"),
        ("container: {}", "without `container.image`"),
        ("container: {image: a, mounts: [{type: bind, src: ../up, dst: /x}]}", "mount for the function `a`"),
        ("container: {image: a, mounts: [{type: bind, src: /etc, dst: /x}]}", "lies outside of the folder"),
        ("container: {image: a, mounts: [{src: r.yaml, dst: /x, rw: true}]}", "is to be written to"),
        ("container: {image: a, mounts: [{src: r.yaml, dst: ../x}]}", "`dst: ../x`"),
        ("container: {image: a, mounts: [{type: tmpfs, dst: /x}]}", "type `tmpfs`"),
        ("container: {image: a, privileged: true}", "unknown field `privileged`"),
    ];
    for (function, why) in cases {
        let dir = folder("transformers", function);
        let (options, seen) = options(prints(CHANGED));
        let error = build(dir.path(), &options).unwrap_err();
        assert!(error.to_string().contains(why), "{function}: {error}");
        assert!(error.to_string().contains("fn.yaml:"), "{function}: {error}");
        assert!(seen.lock().unwrap().is_empty(), "{function} is run");
    }
}

#[test]
fn mounts_and_variables_are_handed_on() {
    let function = "container: {image: a, envs: [A=b=c, HOME], mounts: [{type: bind, src: r.yaml, dst: /in/r.yaml}]}";
    let dir = folder("transformers", function);
    let (options, seen) = options(prints(CHANGED));
    build(dir.path(), &options).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen[0].environment.contains(&("A".into(), Some("b=c".into()))));
    assert!(seen[0].environment.contains(&("HOME".into(), None)));
    assert_eq!(seen[0].mounts[0].source, dir.path().canonicalize().unwrap().join("r.yaml"));
    assert_eq!(seen[0].mounts[0].target, Path::new("/in/r.yaml"));
}

#[test]
fn odd_output_is_an_error() {
    for (output, why) in [
        ("", "prints nothing"),
        ("kind: ResourceList\nitems: [{kind: A}]\n", "without `metadata.name`"),
        (
            "kind: ResourceList\nitems: [{kind: A, metadata: {name: x}}, {kind: A, metadata: {name: x}}]\n",
            "defined twice",
        ),
        ("\t{", "output of the function `a`"),
    ] {
        let dir = folder("transformers", "container: {image: a}");
        let (options, _) = options(prints(output));
        let error = build(dir.path(), &options).unwrap_err();
        assert!(error.to_string().contains(why), "{output}: {error}");
    }
}

/// An engine that knows one image, whose function is `answer`: from input to output, words and exit code.
struct Engine {
    dir: tempfile::TempDir,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

type Function = dyn Fn(&str) -> (String, String, i64) + Send + Sync;

impl Engine {
    fn start(answer: impl Fn(&str) -> (String, String, i64) + Send + Sync + 'static) -> Engine {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let code = Arc::new(Mutex::new(0));
        let (answer, log): (Arc<Function>, _) = (Arc::new(answer), Arc::clone(&seen));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (answer, log, code) = (Arc::clone(&answer), Arc::clone(&log), Arc::clone(&code));
                std::thread::spawn(move || serve(&connection, &*answer, &log, &code));
            }
        });
        Engine { dir, seen }
    }

    fn render(&self, dir: &Path) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
        command.arg("render").arg(dir).env("HOME", self.dir.path()).stdin(Stdio::null());
        for name in ["DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY"] {
            command.env_remove(name);
        }
        command.env("DOCKER_HOST", format!("unix://{}", self.dir.path().join("docker.sock").display()));
        command.output().unwrap()
    }

    fn bodies(&self, wanted: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(line, _)| line.starts_with(wanted)).map(|(_, body)| body.clone()).collect()
    }
}

fn frame(stream: u8, text: &str) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend((text.len() as u32).to_be_bytes());
    frame.extend(text.as_bytes());
    frame
}

fn serve(connection: &UnixStream, answer: &Function, log: &Mutex<Vec<(String, String)>>, code: &Mutex<i64>) {
    let mut reader = BufReader::new(connection);
    let mut out = connection;
    let Some(Request { method, path, body }) = Request::read(&mut reader) else { return };
    let (method, path) = (method.as_str(), path.as_str());
    log.lock().unwrap().push((format!("{method} {path}"), body));
    let mut json = |status: u16, value: &Value| {
        let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n");
        let body = if status == 204 { String::new() } else { value.to_string() };
        _ = out.write_all(format!("{head}{body}").as_bytes());
    };
    match (method, path) {
        ("GET", "/version") => json(200, &json!({"ApiVersion": "1.41", "Version": "20.10", "Arch": "amd64"})),
        ("GET", "/info") => json(200, &json!({"LoggingDriver": "json-file", "SecurityOptions": []})),
        ("GET", "/networks") => json(200, &json!([{"Name": "bridge", "Driver": "bridge"}])),
        ("GET", "/images/example/set:v1/json") => json(200, &json!({"Id": "sha256:1", "Architecture": "amd64"})),
        ("POST", "/containers/create") => json(201, &json!({"Id": "c0ffee", "Warnings": []})),
        ("POST", "/containers/c0ffee/start") => json(204, &Value::Null),
        ("POST", "/containers/c0ffee/attach") => {
            _ = out.write_all(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
            // Until the client has said all.
            let mut input = String::new();
            _ = reader.read_to_string(&mut input);
            let (output, said, ended) = answer(&input);
            *code.lock().unwrap() = ended;
            _ = out.write_all(&[frame(2, &said), frame(1, &output)].concat());
        }
        ("GET", "/containers/c0ffee/json") => {
            let state = json!({"Running": false, "ExitCode": *code.lock().unwrap(), "OOMKilled": false, "Error": ""});
            json(200, &json!({"Id": "c0ffee", "State": state}));
        }
        ("DELETE", "/containers/c0ffee") => json(204, &Value::Null),
        _ => json(404, &json!({"message": format!("no {method} {path}")})),
    }
}

#[test]
fn a_container_gets_nothing_but_its_input() {
    let engine = Engine::start(|input| (input.replace("x: \"1\"", "x: \"one\""), "working\n".into(), 0));
    let dir = folder("transformers", "container: {image: 'example/set:v1', mounts: [{src: r.yaml, dst: /r.yaml}]}");
    // More than fits into the buffers between two programs, so that both sides have to read while they write.
    let large: String = (0..60_000).map(|at| format!("  k{at}: a value that is repeated\n")).collect();
    let large = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: large}}\ndata:\n{large}");
    fs::write(dir.path().join("r.yaml"), format!("{OBJECTS}---\n{large}")).unwrap();
    let output = engine.render(dir.path());
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(text.contains("x: one\n") && text.contains("k59999: a value"), "{errors}");
    let created: Value = serde_json::from_str(&engine.bodies("POST /containers/create")[0]).unwrap();
    let host = &created["HostConfig"];
    assert_eq!(host["NetworkMode"], "none");
    assert_eq!(host["CapDrop"], json!(["ALL"]));
    assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
    assert_eq!(host["Mounts"][0]["ReadOnly"], true);
    assert_eq!(created["User"], "65534:65534");
    assert_eq!((&created["OpenStdin"], &created["StdinOnce"]), (&json!(true), &json!(true)));
    for asked in ["Privileged", "CapAdd", "Devices", "Binds"] {
        assert!(host[asked].is_null(), "{asked}: {host}");
    }
    assert_eq!(engine.bodies("DELETE /containers/c0ffee").len(), 1);
    assert!(engine.bodies("POST /images/create").is_empty(), "an image is pulled");
}

#[test]
fn troubles_of_the_engine_name_the_annotation() {
    let engine = Engine::start(|_| (String::new(), "no idea\n".into(), 2));
    let fails = |dir: &Path, code: i32, words: &[&str]| {
        let output = engine.render(dir);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{text}");
        for word in words.iter().chain(&["fn.yaml:7:", "hint: "]) {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
    };
    let dir = folder("transformers", "container: {image: 'example/set:v1'}");
    fails(dir.path(), 3, &["`example/set:v1` fails: it ends with 2", "it says: no idea"]);
    let missing = folder("transformers", "container: {image: 'example/none:v1'}");
    fails(missing.path(), 1, &["has no image `example/none:v1`", "docker pull example/none:v1"]);
    fs::remove_file(engine.dir.path().join("docker.sock")).unwrap();
    fails(dir.path(), 1, &["running the function `example/set:v1`", "need a container engine"]);
}

/// Sets a value, and says what it sees of the world.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    static char text[1 << 20], line[1000];
    fread(text, 1, sizeof text - 1, stdin);
    char *value = strstr(text, "x: \"1\"");
    if (value) { memcpy(value, "x: six", 6); }
    fputs(text, stdout);
    FILE *net = fopen("/proc/net/dev", "r");
    while (net && fgets(line, sizeof line, net)) { if (strchr(line, ':')) fprintf(stderr, "net %s", line); }
    fprintf(stderr, "uid %d, mounted %d, writable %d\n", getuid(), access("/in.yaml", R_OK), access("/in.yaml", W_OK));
    return getenv("FAIL") ? 4 : 0;
}
"#;

/// With a real engine: an image made of one static program.
#[test]
fn a_real_engine() {
    let docker = |arguments: &[&str]| Command::new("docker").args(arguments).stdin(Stdio::null()).output();
    if !docker(&["version"]).is_ok_and(|output| output.status.success()) {
        return println!("skipped: no container engine answers here");
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(&root).unwrap();
    fs::write(dir.path().join("set.c"), PROGRAM).unwrap();
    let mut compile = Command::new("cc");
    compile.arg("-static").arg("-o").arg(root.join("set")).arg(dir.path().join("set.c")).stderr(Stdio::null());
    if !compile.status().is_ok_and(|status| status.success()) {
        return println!("skipped: no C compiler for static programs");
    }
    let archive = dir.path().join("root.tar");
    let tar = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").status();
    assert!(tar.unwrap().success());
    let tag = format!("imagebuilder-test-function:{}", std::process::id());
    let made = docker(&["import", "--change", "ENTRYPOINT [\"/set\"]", &archive.display().to_string(), &tag]).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let render = |function: &str| {
        let dir = folder("transformers", function);
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
        command.arg("render").arg(dir.path()).stdin(Stdio::null()).output().unwrap()
    };
    let good = render(&format!("container: {{image: '{tag}'}}"));
    let bad =
        render(&format!("container: {{image: '{tag}', envs: [FAIL=1], mounts: [{{src: r.yaml, dst: /in.yaml}}]}}"));
    let left = docker(&["ps", "-aq", "--filter", &format!("ancestor={tag}")]).unwrap();
    _ = docker(&["rmi", "-f", &tag]);
    let (text, errors) = (String::from_utf8_lossy(&good.stdout), String::from_utf8_lossy(&good.stderr));
    assert!(good.status.success() && text.contains("x: six\n") && text.contains("z: \"3\"\n"), "{text}{errors}");
    let errors = String::from_utf8_lossy(&bad.stderr);
    assert_eq!(bad.status.code(), Some(3), "{errors}");
    assert!(
        errors.contains("it ends with 4") && errors.contains("it says: uid 65534, mounted 0, writable -1"),
        "{errors}"
    );
    assert!(errors.contains("net     lo:") && !errors.contains("eth0"), "{errors}");
    assert!(left.stdout.is_empty(), "containers are left");
}
