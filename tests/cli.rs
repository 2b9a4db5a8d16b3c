//! The program as a shell sees it: exit codes, which stream says what, quiet broken pipes.

use std::process::{Command, Output, Stdio};

fn imagebuilder(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command.env_remove("RUST_LOG").env_remove("IMAGEBUILDER_CACHE_DIR").env("NO_COLOR", "1");
    command
}

fn run(arguments: &[&str]) -> (Output, String, String) {
    let output = imagebuilder(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

#[test]
fn help_goes_to_standard_output() {
    let (output, out, err) = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(out.contains("Exit codes:") && err.is_empty());
}

#[test]
fn a_wrong_verb_is_a_usage_error_with_a_suggestion() {
    let (output, out, err) = run(&["rendre", "x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err.contains("'render'") && out.is_empty(), "{err}");
}

#[test]
fn rendering_prints_documents() {
    let (output, out, err) = run(&["render", "manifests/site/example/target/control-plane/image"]);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(out.contains("kind: AirshipImage") && err.is_empty());
}

#[test]
fn a_bad_document_is_named_by_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kustomization.yaml");
    std::fs::write(&file, "kind: Kustomization\nresources:\n  - nowhere.yaml\n").unwrap();
    let (output, out, err) = run(&["render", dir.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(out.is_empty() && err.starts_with("error: "), "{err}");
    assert!(err.contains("nowhere.yaml") && err.contains("kustomization.yaml:3:"), "{err}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = imagebuilder(&["completion", "bash"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn doctor_speaks_json() {
    let (output, out, _) = run(&["doctor", "-o", "json"]);
    assert!(matches!(output.status.code(), Some(0 | 8)));
    let rows: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
    assert!(rows.iter().any(|row| row["name"] == "user namespaces"));
    for row in rows {
        assert!(row["verdict"] == "ok" || row["remedy"].is_string(), "{row}");
    }
}

#[test]
fn booting_something_else_is_refused() {
    let (output, _, err) = run(&["boot", "Cargo.toml", "--check"]);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("is not a disk image") && err.contains("hint: "), "{err}");
}
