//! Resources at an address, with a server on the loopback interface: fetched when that is allowed and a digest pins them,
//! else never asked for.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

const OBJECT: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: far}\n";

/// A server that answers `/a.yaml`, and what it was asked for.
fn server() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut lines = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            let (status, body) = if path.starts_with("/a.yaml") { (200, OBJECT) } else { (404, "no\n") };
            log.lock().unwrap().push(path);
            let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            _ = connection.write_all(format!("{head}{body}").as_bytes());
        }
    });
    (address, seen)
}

fn render(folder: &Path, resource: &str, arguments: &[&str]) -> Output {
    std::fs::write(folder.join("kustomization.yaml"), format!("namePrefix: x-\nresources: ['{resource}']\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
    command.arg("render").arg(folder).args(arguments).stdin(Stdio::null()).env("NO_COLOR", "1");
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn fails(output: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words) && text.contains("kustomization.yaml:2:13"), "{text}");
}

#[test]
fn what_a_digest_pins_is_fetched_where_that_is_allowed() {
    let (address, seen) = server();
    let folder = tempfile::tempdir().unwrap();
    let pinned = format!("{address}/a.yaml?sha256={:x}&v=1", Sha256::digest(OBJECT));
    let allow = ["--allow-remote"];

    fails(&render(folder.path(), &pinned, &[]), 3, "remote resource");
    fails(&render(folder.path(), &format!("{address}/a.yaml"), &allow), 3, "no digest pins it");
    fails(&render(folder.path(), "https://github.com/a/b?ref=main", &allow), 3, "no repositories");
    assert!(seen.lock().unwrap().is_empty(), "asked for {:?}", seen.lock().unwrap());

    let output = render(folder.path(), &pinned, &allow);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x-far\n");
    assert_eq!(*seen.lock().unwrap(), ["/a.yaml?v=1"]);

    let other = format!("{address}/a.yaml?sha256={:x}", Sha256::digest("other"));
    fails(&render(folder.path(), &other, &allow), 4, "is not what the digest says");
    let missing = format!("{address}/none.yaml?sha256={:x}", Sha256::digest("other"));
    fails(&render(folder.path(), &missing, &allow), 5, "answers 404");
}
