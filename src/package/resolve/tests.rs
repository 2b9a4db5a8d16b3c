//! The resolver's rules, one small index each.

use std::collections::BTreeSet;

use super::*;
use crate::package::index::Index;

/// `name version [field: value; ...]`, one package a line.
fn index(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (head, fields) = line.split_once('|').unwrap_or((line, ""));
        let (name, version) = head.trim().split_once(' ').unwrap();
        out.push_str(&format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/{name}_{version}.deb\nSize: 1\n\
             SHA256: {}\n",
            crate::tree::Digest::of(line.as_bytes())
        ));
        for field in fields.split(';').map(str::trim).filter(|field| !field.is_empty()) {
            out.push_str(field);
            out.push('\n');
        }
        out.push('\n');
    }
    out
}

const BASE: &str = "essential 1 | Essential: yes\n";

fn requests(layers: &[(Layer, &str)]) -> Vec<LayerRequest> {
    let package = |text: &str| {
        let (name, version) = text.split_once('=').map_or((text, None), |(name, version)| (name, Some(version)));
        PackageRequest { name: name.into(), version: version.map(Into::into) }
    };
    let layer = |(layer, list): &(Layer, &str)| LayerRequest {
        layer: *layer,
        packages: list.split_whitespace().map(package).collect(),
    };
    layers.iter().map(layer).collect()
}

fn solve_with(indexes: &[Index<'_>], layers: &[(Layer, &str)], unapproved: &[&str]) -> Result<Vec<String>> {
    let universe = Universe::read("amd64", indexes)?;
    let unapproved: BTreeSet<String> = unapproved.iter().map(|name| (*name).to_owned()).collect();
    let show = |chosen: &Chosen| {
        let version = universe.version(chosen.version);
        let mark = if chosen.automatic { "*" } else { "" };
        format!("{}{mark}={}", universe.name(version.name).name, version.version)
    };
    let resolved = resolve(&universe, &requests(layers), &unapproved)?;
    Ok(resolved.iter().map(|layer| layer.packages.iter().map(show).collect::<Vec<_>>().join(" ")).collect())
}

fn solve(packages: &str, list: &str) -> Result<String> {
    let text = index(&(BASE.to_owned() + packages));
    let resolved = solve_with(&[Index { repository: "r", pin: 500, text: &text }], &[(Layer::Base, list)], &[])?;
    let names: Vec<&str> = resolved[0].split(' ').filter(|one| *one != "essential=1").collect();
    Ok(names.join(" "))
}

#[test]
fn essential_and_required_packages_come_by_themselves() {
    let text = index("a 1 | Essential: yes\nb 1 | Priority: required\nc 1 | Priority: important\n");
    let resolved = solve_with(&[Index { repository: "r", pin: 500, text: &text }], &[(Layer::Base, "")], &[]);
    assert_eq!(resolved.unwrap(), ["a=1 b=1"]);
    assert!(solve_with(&[], &[(Layer::Base, "")], &[]).unwrap_err().to_string().contains("no Essential"));
}

#[test]
fn the_first_alternative_wins_unless_another_is_chosen() {
    let packages = "a 1 | Depends: x | y\nx 1\ny 1\nb 1 | Depends: y\n";
    assert_eq!(solve(packages, "a").unwrap(), "a=1 x*=1");
    assert_eq!(solve(packages, "a y").unwrap(), "a=1 y=1");
    // Dependencies are followed in the order of the list: `a` picks `x` before `b` brings in `y`.
    assert_eq!(solve(packages, "a b").unwrap(), "a=1 b=1 x*=1 y*=1");
    assert_eq!(solve(packages, "b a").unwrap(), "a=1 b=1 y*=1");
}

#[test]
fn an_alternative_that_cannot_be_installed_is_passed_over() {
    let packages = "a 1 | Depends: x | y\nx 1 | Depends: missing\ny 1\n";
    assert_eq!(solve(packages, "a").unwrap(), "a=1 y*=1");
    let deep = "a 1 | Depends: x | y\nx 1 | Depends: w, z\nw 1\nz 1 | Depends: missing\ny 1\n";
    // `w` was marked before `z` failed; nobody needs it in the end.
    assert_eq!(solve(deep, "a").unwrap(), "a=1 y*=1");
}

#[test]
fn a_real_package_comes_before_a_provider_and_provides_have_versions() {
    let packages = "a 1 | Depends: x\nx 1\np 1 | Provides: x\n";
    assert_eq!(solve(packages, "a").unwrap(), "a=1 x*=1");
    assert_eq!(solve(packages, "a p").unwrap(), "a=1 p=1");
    let versioned = "a 1 | Depends: x (>= 2)\np 1 | Provides: x\nq 1 | Provides: x (= 2)\n";
    assert_eq!(solve(versioned, "a").unwrap(), "a=1 q*=1");
    assert!(solve("a 1 | Depends: x (>= 2)\np 1 | Provides: x\n", "a").is_err());
}

#[test]
fn among_providers_priority_then_the_later_in_the_index() {
    let packages = "a 1 | Depends: v\np 1 | Provides: v; Priority: optional\nq 1 | Provides: v; Priority: optional\n";
    assert_eq!(solve(packages, "a").unwrap(), "a=1 q*=1");
    let packages = packages.replacen("optional", "standard", 1);
    assert_eq!(solve(&packages, "a").unwrap(), "a=1 p*=1");
}

#[test]
fn conflicts_of_what_was_asked_for_bar_a_package() {
    let packages = "a 1 | Depends: x | y\nx 1\ny 1\nb 1 | Conflicts: x\n";
    assert_eq!(solve(packages, "b a").unwrap(), "a=1 b=1 y*=1");
    let error = solve("a 1 | Depends: x\nx 1\nb 1 | Conflicts: x\n", "a b").unwrap_err();
    assert_eq!(error.kind(), Kind::Documents);
    assert!(error.to_string().contains("b 1 excludes x (Conflicts)\n    but x 1 is chosen, a needs it"), "{error}");
    let own = "a 1 | Conflicts: v; Provides: v\n";
    assert_eq!(solve(own, "a").unwrap(), "a=1");
}

#[test]
fn breaks_hit_only_the_versions_they_name() {
    let packages = "a 1 | Breaks: b (<< 2)\nb 2\n";
    assert_eq!(solve(packages, "a b").unwrap(), "a=1 b=2");
    let error = solve("a 1 | Breaks: b (<< 3)\nb 2\n", "a b").unwrap_err();
    assert!(
        error.to_string().contains("a 1 excludes b (<< 3) (Breaks)\n    but b 2 is chosen, it was asked for"),
        "{error}"
    );
}

#[test]
fn any_means_a_package_that_allows_it() {
    let allowed = "a 1 | Depends: p:any (>= 1)\np 1 | Multi-Arch: allowed\n";
    assert_eq!(solve(allowed, "a").unwrap(), "a=1 p*=1");
    assert!(solve("a 1 | Depends: p:any\np 1 | Multi-Arch: foreign\n", "a").is_err());
    assert_eq!(solve("a 1 | Depends: p:amd64\np 1\n", "a").unwrap(), "a=1 p*=1");
}

#[test]
fn the_highest_pin_then_the_highest_version() {
    let stable = index(&(BASE.to_owned() + "a 1\nb 1\n"));
    let newer = index("a 2\nb 2\n");
    let of = |pin| {
        let indexes =
            [Index { repository: "s", pin: 500, text: &stable }, Index { repository: "n", pin, text: &newer }];
        solve_with(&indexes, &[(Layer::Base, "a b=1")], &[]).unwrap().remove(0)
    };
    assert_eq!(of(500), "a=2 b=1 essential=1");
    assert_eq!(of(100), "a=1 b=1 essential=1");
    assert_eq!(of(-1), "a=1 b=1 essential=1");
}

#[test]
fn upper_layers_stand_on_lower_ones() {
    let text = index(&(BASE.to_owned() + "a 1 | Depends: x | y\nx 1\ny 1\nb 1 | Depends: x | y\nc 1 | Conflicts: y\n"));
    let indexes = [Index { repository: "r", pin: 500, text: &text }];
    let layers = [(Layer::Base, "y"), (Layer::Distribution, "a b"), (Layer::Role, "b x")];
    assert_eq!(solve_with(&indexes, &layers, &[]).unwrap(), ["essential=1 y=1", "a=1 b=1", "x=1"]);
    let error = solve_with(&indexes, &[(Layer::Base, "y"), (Layer::Role, "c")], &[]).unwrap_err();
    assert!(error.to_string().starts_with("choosing the packages of layer role: package `c` cannot"), "{error}");
    let older = index(&(BASE.to_owned() + "a 1\na 2\n"));
    let indexes = [Index { repository: "r", pin: 500, text: &older }];
    let layers = [(Layer::Base, "a"), (Layer::Role, "a=1")];
    assert!(solve_with(&indexes, &layers, &[]).unwrap_err().to_string().contains("a lower layer has 2"));
}

#[test]
fn a_dependency_that_an_upper_layer_asks_for_becomes_manual_once() {
    let text = index(&(BASE.to_owned() + "a 1 | Depends: x\nx 1\nb 1\n"));
    let universe = Universe::read("amd64", &[Index { repository: "r", pin: 500, text: &text }]).unwrap();
    let layers = requests(&[(Layer::Base, "a"), (Layer::Distribution, "x b a"), (Layer::Role, "x")]);
    let manual: Vec<Vec<&str>> = resolve(&universe, &layers, &BTreeSet::new())
        .unwrap()
        .iter()
        .map(|layer| layer.manual.iter().map(|name| universe.name(*name).name).collect())
        .collect();
    assert_eq!(manual, [vec![], vec!["x"], vec![]]);
}

#[test]
fn unapproved_packages_are_never_chosen() {
    let text = index(&(BASE.to_owned() + "a 1 | Depends: x | y\nx 1\ny 1\nb 1 | Depends: x\n"));
    let indexes = [Index { repository: "r", pin: 500, text: &text }];
    assert_eq!(solve_with(&indexes, &[(Layer::Base, "a")], &["x"]).unwrap(), ["a=1 essential=1 y*=1"]);
    let error = solve_with(&indexes, &[(Layer::Base, "b")], &["x"]).unwrap_err();
    assert!(error.to_string().contains("x: is unapproved"), "{error}");
    let error = solve_with(&indexes, &[(Layer::Base, "x")], &["x"]).unwrap_err();
    assert_eq!(error.kind(), Kind::Documents);
}

#[test]
fn unknown_names_and_versions_are_the_documents_fault() {
    let packages = "openssh-server 1\nlibfoo 1\n";
    let error = solve(packages, "openssh-servr").unwrap_err();
    assert_eq!((error.kind(), error.hints()[0].as_str()), (Kind::Documents, "similar names: `openssh-server`"));
    let error = solve(packages, "libfoo=2").unwrap_err();
    assert_eq!((error.kind(), error.hints()[0].as_str()), (Kind::Documents, "the repositories offer 1"));
    let several = solve("a 1 | Provides: mta\nb 1 | Provides: mta\n", "mta").unwrap_err();
    assert_eq!(several.hints()[0], "ask for one of them: a, b");
    assert_eq!(solve("a 1 | Provides: mta\n", "mta").unwrap(), "a=1");
}

#[test]
fn the_chain_of_a_missing_dependency_is_spelled_out() {
    let error =
        solve("a 1 | Depends: b\nb 1 | Depends: c (>= 2) | d | e\nc 1\ne 1 | Pre-Depends: f\n", "a").unwrap_err();
    assert_eq!(error.kind(), Kind::Documents);
    let expected = "choosing the packages of layer base: package `a` cannot be installed:\n\
        \x20 a 1 needs b (Depends)\n\
        \x20   b 1 needs c (>= 2) | d | e (Depends)\n\
        \x20     c (>= 2): only version 1 is on offer\n\
        \x20     d: no repository has it\n\
        \x20     e 1 needs f (Pre-Depends)\n\
        \x20       f: no repository has it";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn circles_and_long_chains_end() {
    assert_eq!(solve("a 1 | Depends: b\nb 1 | Depends: a\n", "a").unwrap(), "a=1 b*=1");
    let chain: String = (0..900).map(|at| format!("p{at} 1 | Depends: p{}\n", at + 1)).collect();
    assert_eq!(solve(&(chain.clone() + "p900 1\n"), "p0").unwrap().split(' ').count(), 901);
    let longer: String = (0..5000).map(|at| format!("p{at} 1 | Depends: p{}\n", at + 1)).collect();
    assert!(solve(&(longer + "p5000 1\n"), "p0").is_err());
}
