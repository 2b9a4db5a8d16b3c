//! `validate` against the real program: every mistake of every document in one run, with its place, in three forms.

#[allow(dead_code)] // what only builds ask
#[path = "support/outcome.rs"]
mod outcome;

use std::path::Path;
use std::process::Command;

use outcome::Outcome;
use serde_json::Value;

fn run(folder: &Path, arguments: &[&str]) -> (Outcome, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
    let output = command.arg("validate").args(arguments).current_dir(folder).env("NO_COLOR", "1").output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    (Outcome::of(output), out)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A base with two mistakes, an overlay with a third one and one that a rule finds.
fn broken() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("base/kustomization.yaml", "resources: [profile.yaml, image.yaml]\n");
    write(
        "base/profile.yaml",
        "apiVersion: airshipit.org/v1alpha1\nkind: NodeProfile\nmetadata:\n  name: x\nspec:\n  storage:\n    \
         qcow_capacity: lots\n  kernel:\n    grub:\n      GRUB_TIMEOUT: soon\n",
    );
    write(
        "base/image.yaml",
        "apiVersion: airshipit.org/v1alpha1\nkind: AirshipImage\nmetadata:\n  name: x\nspec:\n  params:\n    \
         distribution:\n      name: debian\n      release: bookwrm\n      repositories:\n        a: {source: http://m/d, \
         suite: x, components: {main: {}}, keyring: debian-archive}\n",
    );
    write("overlay/kustomization.yaml", "resources: [../base]\npatches:\n  - path: patch.yaml\n");
    write(
        "overlay/patch.yaml",
        "apiVersion: airshipit.org/v1alpha1\nkind: NodeProfile\nmetadata:\n  name: x\nspec:\n  softwre: {}\n",
    );
    folder
}

#[test]
fn all_mistakes_are_told_at_once() {
    let folder = broken();
    let (outcome, _) = run(folder.path(), &["."]);
    outcome.expect(
        3,
        &[
            "error: base/profile.yaml:7:20: `lots` is not a size",
            "base/profile.yaml:10:21: expected a whole number",
            "overlay/patch.yaml:6:3: unknown field `softwre`",
            "set by this patch",
            "did you mean `software`?",
            "base/image.yaml:9:16: unknown release `bookwrm` of `debian` [release-known]",
            "4 errors in the documents",
        ],
    );
    assert!(!outcome.text.contains("found in ./base"), "the base is looked at through its overlay:\n{}", outcome.text);
}

#[test]
fn programs_read_json_and_sarif() {
    let folder = broken();
    let (_, out) = run(folder.path(), &["overlay", "-o", "json"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&found["errors"], &found["documents"], &found["images"]), (&4.into(), &2.into(), &1.into()));
    let patch = found["problems"].as_array().unwrap().iter().find(|problem| problem["line"] == 6).unwrap();
    assert!(patch["file"].as_str().unwrap().ends_with("overlay/patch.yaml"), "{patch}");
    assert_eq!(patch["column"], 3);
    assert!(patch["related"][0]["file"].as_str().unwrap().ends_with("overlay/kustomization.yaml"), "{patch}");

    let (outcome, out) = run(folder.path(), &["overlay", "-o", "sarif"]);
    assert_eq!(outcome.code, Some(3));
    let log: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    for result in results {
        let rule = &log["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"]);
        let place = &result["locations"][0]["physicalLocation"];
        assert!(place["region"]["startLine"].as_u64().unwrap() > 0, "{result}");
        assert!(folder.path().join(place["artifactLocation"]["uri"].as_str().unwrap()).is_file(), "{result}");
    }
}

#[test]
fn a_rule_may_be_skipped_and_its_name_is_checked() {
    let folder = broken();
    let (outcome, _) = run(folder.path(), &["overlay", "--skip", "release-known"]);
    outcome.expect(3, &["3 errors in the documents"]);
    run(folder.path(), &["overlay", "--skip", "release-know"]).0.expect(2, &["did you mean `release-known`?"]);
    run(folder.path(), &["nowhere"]).0.expect(2, &["there is no file or folder nowhere"]);
    run(folder.path(), &[]).0.expect(2, &["<DIR>"]);
}

#[test]
fn files_that_cannot_be_read_are_all_told() {
    let folder = broken();
    std::fs::write(folder.path().join("base/image.yaml"), "a: [1\n").unwrap();
    std::fs::write(folder.path().join("base/profile.yaml"), "b: 1\n\tc: 2\n").unwrap();
    let (outcome, _) = run(folder.path(), &["base"]);
    outcome.expect(3, &["base/image.yaml:", "base/profile.yaml:1:", "[render]"]);
}

#[test]
fn what_is_shipped_is_valid_without_network_and_privileges() {
    let (outcome, out) = run(root(), &["manifests", "functions", "-o", "json"]);
    assert_eq!(outcome.code, Some(0), "{out}");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert!(found["images"].as_u64().unwrap() >= 2 && found["errors"] == 0, "{out}");
}

#[test]
fn upstreams_variable_files_are_looked_at_too() {
    let (outcome, _) = run(root(), &["config"]);
    outcome.expect(0, &["3 images: 0 errors"]);
}

/// A published sample asks for an ISO in a file that says it is a qcow2.
#[test]
fn the_type_of_an_image_and_its_file_name() {
    let folder = broken();
    let sample = "apiVersion: airshipit.org/v1alpha1\nkind: ImageConfiguration\nmetadata:\n  name: x\nspec:\n  image:\n    \
                  type: iso\n    outputFileName: data-plane.qcow2\n";
    std::fs::write(folder.path().join("base/executor.yaml"), sample).unwrap();
    std::fs::write(
        folder.path().join("base/kustomization.yaml"),
        "resources: [profile.yaml, image.yaml, executor.yaml]\n",
    )
    .unwrap();
    let (outcome, _) = run(folder.path(), &["base"]);
    outcome.expect(3, &["base/executor.yaml:8:21: `data-plane.qcow2` looks like type `qcow`", "[output-file-name]"]);
}

#[test]
fn the_list_names_every_rule() {
    let (_, out) = run(root(), &["--list", "-o", "json"]);
    let rules: Vec<Value> = serde_json::from_str(&out).unwrap();
    for rule in imagebuilder::check::documents::RULES {
        let row = rules.iter().find(|row| row["id"] == rule.id).unwrap();
        assert!(["title", "why", "mend"].iter().all(|field| row[*field].as_str().is_some_and(|text| !text.is_empty())));
    }
}
