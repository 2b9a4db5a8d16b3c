//! Names, credentials, and a registry that answers as it is told.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;
use crate::format::oci::{Config, Layout};
use crate::format::tar::Compression;
use crate::report::Reporter;
use crate::tree::{Meta, Origin, Tree, TreePath};

#[test]
fn names_of_images() {
    let parse = |text: &str| Reference::parse(text).unwrap().to_string();
    assert_eq!(parse("qcow-bundle"), "docker.io/library/qcow-bundle:latest");
    assert_eq!(parse("airshipit/x:1"), "docker.io/airshipit/x:1");
    assert_eq!(parse("localhost:5000/x"), "localhost:5000/x:latest");
    assert_eq!(parse("r.example/a/b_c:v1.2-x"), "r.example/a/b_c:v1.2-x");
    for bad in ["", "X", "a:b:c d", "r.example/", "r.example/A", "a:", "a:.x", "r.example/a//b", "r.example/../x"] {
        assert!(Reference::parse(bad).is_err(), "{bad}");
    }
    let local = |text: &str| Reference::parse(text).unwrap().is_local();
    assert!(local("127.0.0.1:5000/x") && local("localhost/x") && !local("r.example:5000/x"));
}

#[test]
fn credentials_of_docker_login() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let find = |text: &str, registry: &str| {
        std::fs::write(&file, text).unwrap();
        Credentials::find(std::slice::from_ref(&file), registry)
    };
    // dXNlcjpwOnc= is `user:p:w`.
    let found = find(r#"{"auths": {"r.example:5000": {"auth": "dXNlcjpwOnc="}}}"#, "r.example:5000").unwrap().unwrap();
    assert_eq!((found.user.as_str(), found.password.as_str()), ("user", "p:w"));
    assert!(!format!("{found:?}").contains("p:w"));
    assert!(
        find(r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpwOnc="}}}"#, "docker.io").unwrap().is_some()
    );
    assert_eq!(find(r#"{"auths": {}}"#, "r.example").unwrap(), None);
    let helper = find(r#"{"credHelpers": {"r.example": "x"}}"#, "r.example").unwrap_err();
    assert!(helper.to_string().contains("credential helper"));
    assert!(find(r#"{"auths": {"r.example": {"auth": "????"}}}"#, "r.example").is_err());
    assert!(find("nonsense", "r.example").is_err());
    let variable = |name: &str| (name == "HOME").then(|| "/home/x".to_owned());
    assert_eq!(Credentials::files(variable), [std::path::PathBuf::from("/home/x/.docker/config.json")]);
}

/// A registry that answers every request the same way, and remembers what it was asked.
fn registry(answers: Vec<&'static str>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let remember = heard.clone();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { continue };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            remember.lock().unwrap().push(String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned());
            let answer = answers[number.min(answers.len() - 1)];
            if !answer.is_empty() {
                let _ =
                    stream.write_all(format!("{answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
            }
        }
    });
    (address, heard)
}

fn push(answers: Vec<&'static str>) -> (Result<()>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(&folder.path().join("x")).unwrap();
    let mut tree = Tree::new();
    let origin: Origin = "test".into();
    tree.write_file(&TreePath::literal("a"), "b", Meta::root(0o644), &origin).unwrap();
    let layer = layout.add_layer(&tree, Compression::None, &|_| ()).unwrap();
    layout.add_image(&Config::default(), &[layer], &["x:1".into()]).unwrap();
    let (address, heard) = registry(answers);
    let reference = Reference::parse(&format!("{address}/team/x:1")).unwrap();
    let result = Registry::new(&reference, None).push(&layout, &Reporter::quiet());
    let heard = heard.lock().unwrap().clone();
    (result, heard)
}

#[test]
fn what_is_there_is_not_sent_again() {
    let (result, heard) = push(vec!["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 201 Created"]);
    result.unwrap();
    assert!(heard[0].starts_with("HEAD /v2/team/x/blobs/sha256:"), "{heard:?}");
    assert!(heard[2].starts_with("PUT /v2/team/x/manifests/1 "), "{heard:?}");
    assert_eq!(heard.len(), 3);
}

#[test]
fn a_registry_that_refuses_is_quoted() {
    let (result, heard) = push(vec!["HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\""]);
    let error = result.unwrap_err();
    assert_eq!((error.kind(), heard.len()), (Kind::Network, 1));
    assert!(error.to_string().contains("wants a user name"), "{error}");
    assert!(error.hints()[0].contains("docker login"));
    // Tried three times, for it may pass.
    let (result, heard) = push(vec!["HTTP/1.1 500 Internal Server Error"]);
    assert!(result.unwrap_err().to_string().contains("answers 500"));
    assert_eq!(heard.len(), 3);
    // An upload that is cut off.
    let (result, heard) = push(vec![
        "HTTP/1.1 404 Not Found",
        "HTTP/1.1 202 Accepted\r\nLocation: /v2/team/x/blobs/uploads/1",
        "",
        "HTTP/1.1 403 Forbidden",
    ]);
    let error = result.unwrap_err();
    assert!(error.to_string().contains("answers 403"), "{error}");
    assert!(heard[2].starts_with("PATCH ") && heard[3].starts_with("HEAD "), "{heard:?}");
}
