//! Runs the cases of a folder that is not part of the repository (`make conformance CASES=folder`) through the overlay
//! engine, and prints passes by feature. A case is a folder `<suite>/<id>` with `case.json` (what to build, with which
//! options, what is expected), `in/`, and the expected output: `reference_cli.yaml` to the byte, else the meaning of
//! `expected.yaml`. Without a folder nothing is tested, which is said.

// What was run and what passed is what this prints.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use imagebuilder::document::{Node, load_str, to_yaml};
use imagebuilder::kustomize::{Options, Order, build};
use serde_json::Value;

/// The text with the version of the program that labelled it taken out.
fn normalised(text: &str) -> String {
    const LABEL: &str = "app.kubernetes.io/managed-by: kustomize-";
    let lines = text.split_inclusive('\n').map(|line| match line.find(LABEL) {
        Some(at) => format!("{}\n", &line[..at + LABEL.len()]),
        None => line.to_owned(),
    });
    lines.collect()
}

/// The meaning of documents, in order or in any order.
fn same_meaning(expected: &str, found: &str, ordered: bool) -> bool {
    let load = |text: &str| load_str("documents", &normalised(text)).unwrap_or_default();
    let (expected, mut found): (Vec<Node>, Vec<Node>) = (load(expected), load(found));
    if ordered {
        return expected == found;
    }
    let all = expected.iter().all(|node| match found.iter().position(|other| other == node) {
        Some(at) => {
            found.remove(at);
            true
        }
        None => false,
    });
    all && found.is_empty()
}

/// What is wrong with a case, if anything.
fn check(dir: &Path, case: &Value) -> Result<(), String> {
    let text = |pointer: &str| case.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let unrestricted = text("/options/load_restrictor") == "none";
    let options = Options { unrestricted, order: Order::Legacy, ..Options::default() };
    let built = build(&dir.join("in").join(text("/build_dir")), &options).map(|nodes| to_yaml(&nodes));
    if text("/expect") == "error" {
        return built.map_or(Ok(()), |_| Err("built, but an error is expected".into()));
    }
    let found = built.map_err(|error| error.to_string())?;
    let unstable = case.get("bytes_unstable").and_then(Value::as_bool).unwrap_or_default();
    let right = match fs::read_to_string(dir.join("reference_cli.yaml")) {
        Ok(expected) if unstable => same_meaning(&expected, &found, true),
        Ok(expected) => normalised(&expected) == normalised(&found),
        Err(_) => {
            let expected = fs::read_to_string(dir.join("expected.yaml")).map_err(|error| error.to_string())?;
            same_meaning(&expected, &found, false)
        }
    };
    if right { Ok(()) } else { Err("another output".into()) }
}

#[test]
fn cases() {
    let Some(folder) = std::env::var_os("CONFORMANCE_CASES").map(PathBuf::from).filter(|path| path.is_dir()) else {
        println!("no folder of cases given (CONFORMANCE_CASES): conformance is not tested");
        return;
    };
    let mut features: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut count = 0;
    for suite in fs::read_dir(&folder).expect("the folder of cases").flatten() {
        for dir in fs::read_dir(suite.path()).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let Ok(text) = fs::read_to_string(dir.join("case.json")) else { continue };
            let case: Value = serde_json::from_str(&text).expect("case.json is JSON");
            let result = check(&dir, &case);
            count += 1;
            let mut names = vec![format!("suite {}", suite.file_name().to_string_lossy())];
            let list = case.get("features").and_then(Value::as_array).into_iter().flatten();
            names.extend(list.filter_map(Value::as_str).map(str::to_owned));
            for name in names {
                let entry = features.entry(name).or_default();
                entry.0 += usize::from(result.is_ok());
                entry.1 += 1;
            }
            if let Err(why) = result {
                failures.push(format!("{}: {why}", dir.strip_prefix(&folder).unwrap_or(&dir).display()));
            }
        }
    }
    failures.sort();
    for (name, (passed, all)) in &features {
        println!("{name:50} {passed:4} of {all:4}");
    }
    println!("{} of {count} cases pass", count - failures.len());
    assert!(failures.is_empty(), "{} of {count} cases fail\n{}", failures.len(), failures.join("\n"));
}

/// Every kustomization of a checkout of airshipctl or treasuremap (`AIRSHIP_MANIFESTS`), by itself: all that need no
/// function in a container must render. Those are told by the reason they are refused for, and counted.
#[test]
fn airship_manifests() {
    let Some(folder) = std::env::var_os("AIRSHIP_MANIFESTS").map(PathBuf::from).filter(|path| path.is_dir()) else {
        println!("no folder of Airship manifests given (AIRSHIP_MANIFESTS): they are not rendered");
        return;
    };
    let mut folders = Vec::new();
    kustomizations(&folder, &mut folders);
    folders.sort();
    let (mut rendered, mut functions, mut empty, mut failures) = (0, 0, 0, Vec::new());
    for dir in &folders {
        let options = Options { order: Order::Legacy, ..Options::default() };
        match build(dir, &options) {
            Ok(_) => rendered += 1,
            Err(error) if error.to_string().contains("is a function in a container") => functions += 1,
            Err(error) if error.to_string().contains("kustomization is empty") => empty += 1,
            Err(error) => failures.push(format!("{}: {error}", dir.display())),
        }
    }
    println!(
        "{rendered} of {} render, {functions} need functions in containers, {empty} hold nothing, {} fail",
        folders.len(),
        failures.len()
    );
    failures.iter().for_each(|failure| println!("  {failure}"));
    let allowed = number("AIRSHIP_FAILURES", 0);
    assert!(failures.len() <= allowed, "{} of {} fail, {allowed} may", failures.len(), folders.len());
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn kustomizations(dir: &Path, found: &mut Vec<PathBuf>) {
    let names = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
    if let Some(text) = names.iter().find_map(|name| fs::read_to_string(dir.join(name)).ok()) {
        if !text.contains("kind: Component") {
            found.push(dir.to_owned());
        }
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            kustomizations(&entry.path(), found);
        }
    }
}
