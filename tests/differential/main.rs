//! Random trees of kustomizations, rendered by this program and by an official kubectl: the same bytes, or an error
//! from both. Where no kubectl is, this is said and nothing is compared.
//!
//! `DIFFERENTIAL_TREES` (default 28) and `DIFFERENTIAL_SEED` (default 1000) say how many and which; `DIFFERENTIAL_KEEP` is
//! a folder where trees that differ are left. `DIFFERENTIAL_TREE` is one folder to compare instead. `KUBECTL` names the program to compare with.

// Whether the oracle had its say is part of what a test run tells.
#![allow(clippy::print_stdout)]

mod objects;
#[path = "../support/kubectl.rs"]
mod official;
mod patches;
mod plugins;
mod random;
mod tree;
mod yaml;

use std::path::{Path, PathBuf};
use std::process::Command;

use imagebuilder::kustomize::render;

use official::kubectl;
use random::Random;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    BothRefuse,
    Differ(String),
}

fn compare(kubectl: &Path, dir: &Path) -> Verdict {
    let output = Command::new(kubectl).arg("kustomize").arg(dir).output().expect("kubectl runs");
    let theirs = output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned());
    match (theirs, render(dir)) {
        (Some(theirs), Ok(ours)) => {
            let theirs = normalised(&theirs);
            let ours = normalised(&ours);
            if theirs == ours { Verdict::Same } else { Verdict::Differ(first_difference(&theirs, &ours)) }
        }
        (None, Err(error)) => {
            if std::env::var_os("DIFFERENTIAL_REFUSED").is_some() {
                let theirs = String::from_utf8_lossy(&output.stderr);
                println!("refused: {}\n    ours: {error}", theirs.lines().last().unwrap_or_default());
            }
            Verdict::BothRefuse
        }
        (Some(_), Err(error)) => {
            Verdict::Differ(format!("only ours fails: {error} {}", error.rendered_snippet().unwrap_or_default()))
        }
        (None, Ok(_)) => {
            let text = String::from_utf8_lossy(&output.stderr);
            Verdict::Differ(format!("only kubectl fails: {}", text.lines().last().unwrap_or_default()))
        }
    }
}

/// The text with the version of the program that labelled it taken out.
fn normalised(text: &str) -> String {
    const LABEL: &str = "app.kubernetes.io/managed-by: kustomize-";
    let lines = text.split_inclusive('\n').map(|line| match line.find(LABEL) {
        Some(at) => format!("{}\n", &line[..at + LABEL.len()]),
        None => line.to_owned(),
    });
    lines.collect()
}

fn first_difference(theirs: &str, ours: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (theirs.lines().collect(), ours.lines().collect());
    let at = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
    let from = at.saturating_sub(4);
    let part = |lines: &[&str]| lines.iter().skip(from).take(9).copied().collect::<Vec<_>>().join("\n");
    format!("line {}\n--- kubectl\n{}\n--- ours\n{}\n---", at + 1, part(&a), part(&b))
}

#[test]
fn random_trees_render_as_with_kubectl() {
    let Some(kubectl) = kubectl() else {
        println!("no official kubectl 1.31 or later here: nothing is compared");
        return;
    };
    let (trees, seed) = (number("DIFFERENTIAL_TREES", 28), number("DIFFERENTIAL_SEED", 1000));
    if let Some(dir) = std::env::var_os("DIFFERENTIAL_TREE") {
        assert_eq!(compare(&kubectl, Path::new(&dir)), Verdict::Same);
        return;
    }
    let keep = std::env::var_os("DIFFERENTIAL_KEEP").map(PathBuf::from);
    let (mut same, mut refused, mut differ) = (0, 0, Vec::new());
    for seed in seed..seed + trees {
        let folder = match &keep {
            Some(keep) => tempfile::Builder::new().prefix(&format!("s{seed}-")).tempdir_in(keep),
            None => tempfile::tempdir(),
        };
        let folder = folder.expect("a folder");
        let dir = tree::Tree::write(&mut Random::new(seed), folder.path()).expect("a tree");
        match compare(&kubectl, &dir) {
            Verdict::Same => same += 1,
            Verdict::BothRefuse => refused += 1,
            Verdict::Differ(why) => {
                differ.push(format!("seed {seed} ({}): {why}", dir.file_name().unwrap_or_default().to_string_lossy()));
                if keep.is_some() {
                    drop(folder.keep());
                }
            }
        }
    }
    println!("{trees} trees beside {}: {same} the same, {refused} refused by both", kubectl.display());
    assert!(differ.is_empty(), "{} of {trees} trees differ\n{}", differ.len(), differ.join("\n\n"));
    assert!(trees < 50 || same * 5 > trees, "only {same} of {trees} trees can be rendered at all");
}
