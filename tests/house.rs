//! The rules of the house, read from the source: dependencies point downwards, files stay small, every file says
//! what it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From the top to the bottom; a room may use those after it. `src/lib.rs` shows the same as a picture.
const ROOMS: [&str; 25] = [
    "cli",
    "serve",
    "phase",
    "build",
    "engine",
    "plan",
    "compat",
    "check",
    "seed",
    "seal",
    "osconfig",
    "boot",
    "package",
    "api",
    "kustomize",
    "document",
    "registry",
    "sandbox",
    "inspect",
    "format",
    "tree",
    "report",
    "interrupt",
    "error",
    // Of unit tests only.
    "testing",
];
const MAX_LINES: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    let name = |path: &Path| path.strip_prefix(root().join("src")).unwrap().display().to_string();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

fn room(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// What a file names of the crate: `use crate::{a::X, b}`, `crate::c::f()`. Comments do not count.
fn edges(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.insert(word(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (index, letter) in group.char_indices() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        letter if start && !letter.is_whitespace() => {
                            found.insert(word(&group[index..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
                true
            }
        };
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect()
}

#[test]
fn edges_are_read_from_every_form() {
    let text = "// crate::a\nuse crate::{b::X, c::{d, e}, f};\nfn g() { crate::h::i() }";
    assert_eq!(edges(text).into_iter().collect::<Vec<_>>(), ["b", "c", "f", "h"]);
}

#[test]
fn every_room_has_its_place() {
    for (file, _) in sources() {
        assert!(["main", "lib"].contains(&room(&file)) || ROOMS.contains(&room(&file)), "{file} is in no known room");
    }
}

#[test]
fn dependencies_point_downwards() {
    let rank = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let Some(own) = rank(room(&file)) else { continue };
        for used in edges(&text) {
            if rank(&used).is_some_and(|used| used < own) {
                wrong.push(format!("{file} uses crate::{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "upward edges:\n{}", wrong.join("\n"));
}

#[test]
fn files_stay_small() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        let tests = text.find("#[cfg(test)]\nmod tests {").map_or(0, |at| text[at..].lines().count());
        let code = lines.saturating_sub(tests);
        let only_tests = file.ends_with("tests.rs") || file.contains("/tests/");
        assert!(only_tests || code <= MAX_LINES, "{file} has {code} lines; the limit is {MAX_LINES}");
    }
}

#[test]
fn every_file_says_what_it_is() {
    let mut files: Vec<(String, String)> = sources();
    let mut tests = Vec::new();
    for entry in std::fs::read_dir(root().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            tests.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    files.extend(tests);
    for (file, text) in files {
        let header = text.lines().next().unwrap_or_default();
        assert!(header.starts_with("//! ") && header.len() > 20, "{file} has no `//!` header");
    }
}
