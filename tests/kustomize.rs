//! Overlay cases: `tests/cases/kustomize/<name>/in` is built and compared with `expected.yaml`, or its rendered
//! error with `expected.error`. Where an official kubectl is present, it must agree: the same bytes, or an error too
//! (unless the case has a file `stricter` that says why only this program refuses). `build` names the folder to
//! build when it is not `in` itself. `UPDATE_EXPECTED=1` rewrites the errors; expected output comes from kubectl.

// Whether the oracle had its say is part of what a test run tells.
#![allow(clippy::print_stdout)]

#[path = "support/kubectl.rs"]
mod official;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use imagebuilder::document::{decode, origins};
use imagebuilder::error::{Error, Kind};
use imagebuilder::kustomize::{Options, build, render};
use official::kubectl;

const CASES: &str = "tests/cases/kustomize";

/// The error as a person sees it.
fn rendered(error: &Error) -> String {
    let mut text = format!("error: {error}\n");
    if let Some(snippet) = error.rendered_snippet() {
        text.push_str(snippet);
        text.push('\n');
    }
    for hint in error.hints() {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

/// What kubectl makes of a folder; `None` for an error.
fn oracle(kubectl: &Path, dir: &Path) -> Option<String> {
    let output = Command::new(kubectl).arg("kustomize").arg(dir).output().expect("kubectl runs");
    output.status.success().then(|| String::from_utf8(output.stdout).expect("kubectl prints UTF-8"))
}

fn check(case: &Path, kubectl: Option<&Path>) -> Result<(), String> {
    let below = fs::read_to_string(case.join("build")).unwrap_or_default();
    let dir = case.join("in").join(below.trim());
    let stricter = case.join("stricter").exists();
    let fails = case.file_name().is_some_and(|name| name.to_string_lossy().starts_with("error-"));
    match render(&dir) {
        Ok(_) if fails => Err("built, but an error is expected".into()),
        Err(error) if !fails => Err(rendered(&error)),
        Ok(text) => {
            if let Some(kubectl) = kubectl {
                let theirs = oracle(kubectl, &dir).ok_or("kubectl refuses what this program builds")?;
                compare("kubectl", &theirs, &text)?;
                if std::env::var_os("UPDATE_EXPECTED").is_some() {
                    fs::write(case.join("expected.yaml"), &theirs).map_err(|error| error.to_string())?;
                }
            }
            compare("expected.yaml", &fs::read_to_string(case.join("expected.yaml")).unwrap_or_default(), &text)
        }
        Err(error) => {
            if error.kind() != Kind::Documents {
                return Err(format!("error of kind {:?}", error.kind()));
            }
            if !stricter && kubectl.is_some_and(|kubectl| oracle(kubectl, &dir).is_some()) {
                return Err("kubectl builds what this program refuses".into());
            }
            let file = case.join("expected.error");
            if std::env::var_os("UPDATE_EXPECTED").is_some() {
                fs::write(&file, rendered(&error)).map_err(|error| error.to_string())?;
            }
            compare("expected.error", &fs::read_to_string(file).unwrap_or_default(), &rendered(&error))
        }
    }
}

fn compare(name: &str, expected: &str, found: &str) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    Err(format!("differs from {name}\n--- {name}\n{expected}--- found\n{found}---"))
}

fn run(name: &str, folders: Vec<PathBuf>, check: impl Fn(&Path, Option<&Path>) -> Result<(), String>) {
    let kubectl = kubectl();
    match &kubectl {
        Some(program) => println!("{name}: compared with {}", program.display()),
        None => println!("{name}: no official kubectl 1.31 or later here, its opinion is skipped"),
    }
    let failures: Vec<String> = folders
        .iter()
        .filter_map(|folder| check(folder, kubectl.as_deref()).err().map(|why| format!("{}: {why}", folder.display())))
        .collect();
    assert!(failures.is_empty(), "{} of {} fail\n{}", failures.len(), folders.len(), failures.join("\n\n"));
}

#[test]
fn cases() {
    let mut folders: Vec<PathBuf> = fs::read_dir(CASES).expect("cases").flatten().map(|entry| entry.path()).collect();
    folders.sort();
    assert!(folders.len() > 50, "only {} cases", folders.len());
    run("cases", folders, check);
}

/// Everything in the repository that has a kustomization gives the same bytes as the official program.
#[test]
fn shipped_documents_render_as_with_kubectl() {
    let mut folders = Vec::new();
    for top in ["functions", "manifests", "config"] {
        find_kustomizations(Path::new(top), &mut folders);
    }
    folders.sort();
    run("shipped documents", folders, |folder, kubectl| {
        let text = render(folder).map_err(|error| rendered(&error))?;
        let Some(kubectl) = kubectl else { return Ok(()) };
        compare("kubectl", &oracle(kubectl, folder).ok_or("kubectl refuses it")?, &text)
    });
}

/// Folders that can be built by themselves: components cannot.
fn find_kustomizations(dir: &Path, found: &mut Vec<PathBuf>) {
    let file = fs::read_to_string(dir.join("kustomization.yaml"));
    if file.is_ok_and(|text| !text.contains("kind: Component")) {
        found.push(dir.to_owned());
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_kustomizations(&entry.path(), found);
        }
    }
}

fn chain(dir: &str, kind: &str, path: &str) -> Vec<String> {
    let nodes = build(Path::new(dir), &Options::default()).map_err(|error| rendered(&error)).unwrap();
    let node = nodes.iter().find(|node| node.get("kind").and_then(|kind| kind.text()) == Some(kind)).unwrap();
    let entry = origins(node).into_iter().find(|entry| entry.path == path).expect("the value is there");
    entry.chain.into_iter().map(|step| step.replace(CASES, "")).collect()
}

#[test]
fn a_value_knows_the_patch_that_set_it() {
    assert_eq!(
        chain("tests/cases/kustomize/merge-maps/in", "NodeProfile", "/spec/kernel/sysctl/kernel.pid_max"),
        [
            "/merge-maps/in/patch.yaml:15:23",
            "patch /merge-maps/in/kustomization.yaml:3:3",
            "/merge-maps/in/base/node.yaml:14:23"
        ]
    );
}

#[test]
fn a_value_knows_the_replacement_that_copied_it() {
    assert_eq!(
        chain("tests/cases/kustomize/replacements-areas/in", "AirshipImage", "/spec/params/files/~1etc~1motd/mode"),
        ["/replacements-areas/in/node.yaml:18:13", "replacement /replacements-areas/in/areas.yaml:11:3"]
    );
}

#[test]
fn a_value_of_an_inline_patch_has_its_place_in_the_kustomization() {
    assert_eq!(
        chain("tests/cases/kustomize/merge-directives/in", "NodeProfile", "/spec/kernel/sysctl/vm.swappiness"),
        ["/merge-directives/in/kustomization.yaml:11:33", "patch /merge-directives/in/kustomization.yaml:3:3"]
    );
}

/// A typed error about a patched value shows the patch, the overlay and what was there before.
#[test]
fn an_error_in_a_patched_value_shows_the_overlay() {
    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Object {
        spec: Spec,
    }
    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Spec {
        swap: bool,
    }
    let nodes = build(Path::new("tests/cases/document/patched"), &Options::default()).unwrap();
    let error = decode::<Object>(&nodes[0]).unwrap_err();
    let expected = fs::read_to_string("tests/cases/document/patched/expected.error").expect("expected.error");
    assert_eq!(rendered(&error), expected);
}
