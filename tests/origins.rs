//! Where values come from, what matches nothing, and what differs between two states of documents: the real program on
//! real trees.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ends(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(self, words: &[&str]) -> Ran {
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "`{word}` is not in:\n{}{}", self.out, self.err);
        }
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

fn run(folder: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuilder"));
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").env_remove("RUST_LOG");
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cases() -> std::path::PathBuf {
    root().join("tests/cases/origins")
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// The steps of one value as `action file:line:column overlay`.
fn chain(value: &str) -> Vec<String> {
    let ran = run(&cases(), &["origin", "overlay", value, "-o", "json"]).ends(0);
    let found = ran.json();
    let steps = found["values"][0]["chain"].as_array().unwrap().clone();
    let word = |step: &Value, key: &str| step[key].as_str().unwrap().to_owned();
    let row = |step: &Value| {
        let (line, column) = (&step["line"], &step["column"]);
        format!("{} {}:{line}:{column} {}", word(step, "action"), word(step, "file"), word(step, "overlay"))
    };
    steps.iter().map(row).collect()
}

#[test]
fn a_value_tells_its_whole_way() {
    assert_eq!(
        chain("AirshipImage/site-data-plane:spec.params.kernel.sysctl[\"vm.swappiness\"]"),
        [
            "defined base/node.yaml:8:22 base",
            "patch overlay/kustomization.yaml:17:5 overlay",
            "replacement overlay/kustomization.yaml:24:5 overlay",
        ]
    );
    assert_eq!(
        chain("NodeProfile/site-data-plane:spec.kernel.sysctl.kernel.pid_max"),
        ["defined base/node.yaml:9:23 base", "JSON patch overlay/kustomization.yaml:18:5 overlay"]
    );
    let ran = run(
        &cases(),
        &["origin", "overlay", "AirshipImage/site-data-plane:spec.params.kernel.sysctl[\"vm.swappiness\"]"],
    );
    ran.ends(0).says(&[
        "AirshipImage/site-data-plane.prod:spec.params.kernel.sysctl[\"vm.swappiness\"] = 10",
        "60",
        "10 (overlay/sysctl.yaml:8:22)",
        "overlay base",
    ]);
}

#[test]
fn every_kind_of_change_is_told() {
    let deployment = |path: &str| chain(&format!("Deployment/site-web:{path}")).pop().unwrap();
    assert_eq!(deployment("metadata.name"), "name prefix overlay/kustomization.yaml:5:13 overlay");
    assert_eq!(deployment("metadata.namespace"), "namespace overlay/kustomization.yaml:6:12 overlay");
    assert_eq!(deployment("metadata.labels.team"), "label overlay/kustomization.yaml:9:7 overlay");
    assert_eq!(deployment("spec.replicas"), "replicas overlay/kustomization.yaml:14:5 overlay");
    let image = deployment("spec.template.spec.containers[name=web].image");
    assert_eq!(image, "image overlay/kustomization.yaml:11:5 overlay");
    let reference = chain("Deployment/site-web:spec.template.spec.containers[0].envFrom[0].configMapRef.name");
    assert!(reference.iter().any(|step| step.starts_with("name reference ")), "{reference:?}");
    // The name has a hash at its end: the error for the name without one tells what it is.
    let ran = run(&cases(), &["origin", "overlay", "ConfigMap/site-settings:data.colour"]).ends(3);
    let name = ran.err.split("ConfigMap/site-settings-").nth(1).unwrap().split(['.', '`']).next().unwrap();
    let generated = chain(&format!("ConfigMap/site-settings-{name}:data.colour"));
    assert_eq!(generated[0], "defined base/kustomization.yaml:10:9 base");
    assert!(generated[1].starts_with("generator base/kustomization.yaml:8:5"), "{generated:?}");
}

#[test]
fn what_is_not_there_names_what_is_near() {
    let origin = |value: &str| run(&cases(), &["origin", "overlay", value]);
    origin("AirshipImage/site-data-plan:spec").ends(3).says(&["did you mean `AirshipImage/site-data-plane.prod`?"]);
    origin("NodeProfile/site-data-plane:spec.kernel.sysctl[\"vm.swapiness\"]")
        .ends(3)
        .says(&["`spec.kernel.sysctl` has no `vm.swapiness`", "did you mean `vm.swappiness`?", "base/node.yaml:8:7"]);
    origin("NodeProfile/site-data-plane:spec[").ends(2);
    origin("NodeProfile").ends(2);
    run(&cases(), &["origin", "nowhere", "NodeProfile/x"]).ends(3);
}

#[test]
fn comments_say_the_origin_and_change_nothing() {
    let plain = run(&cases(), &["render", "overlay"]).ends(0);
    let forms: [&[&str]; 4] = [
        &["render", "--origins", "overlay"],
        &["render", "overlay", "--origins"],
        &["render", "--origins=comments", "overlay"],
        &["render", "--origins", "comments", "overlay"],
    ];
    for form in forms {
        let commented = run(&cases(), form).ends(0);
        assert!(commented.out.contains(
            "vm.swappiness: 10 # overlay/sysctl.yaml:8:22 <- patch overlay/kustomization.yaml:17:5 <- base/node.yaml:8:22\n"
        ));
        assert!(commented.out.contains("file_content: | # base/node.yaml:13:9"), "{}", commented.out);
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "x/documents.yaml", &commented.out);
        write(folder.path(), "x/kustomization.yaml", "resources: [documents.yaml]\n");
        let again = run(folder.path(), &["render", "x"]).ends(0);
        assert_eq!(again.out, plain.out, "the comments changed a value");
    }
    run(&cases(), &["render", "--origins=words", "overlay"]).ends(2);
    run(&cases(), &["render"]).ends(2);
}

#[test]
fn the_table_of_origins_stands_alone_or_beside_the_documents() {
    let plain = run(&cases(), &["render", "overlay"]).ends(0);
    let table = run(&cases(), &["render", "--origins", "json", "overlay"]).ends(0).json();
    let image = table.as_array().unwrap().iter().find(|one| one["object"] == "AirshipImage/site-data-plane.prod").unwrap();
    let values = image["values"].as_array().unwrap();
    let value = values.iter().find(|one| one["path"] == "spec.params.kernel.sysctl[\"vm.swappiness\"]").unwrap();
    assert_eq!((&value["value"], &value["chain"][0]["line"]), (&10.into(), &8.into()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("origins.json");
    let ran = run(&cases(), &["render", "overlay", "--origins-file", file.to_str().unwrap()]).ends(0);
    assert_eq!(ran.out, plain.out);
    assert_eq!(serde_json::from_slice::<Value>(&std::fs::read(&file).unwrap()).unwrap(), table);
}

/// A patch, a replacement and a rejecting replacement that change nothing.
fn unmatched() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "x/kustomization.yaml",
        "resources: [image.yaml]\npatches:\n  - target: {kind: AirshipImage, name: contrl-plane}\n    patch: |-\n      \
         - {op: add, path: /spec/x, value: 1}\n  - target: {kind: AirshipImage, labelSelector: role=x}\n    patch: |-\n      \
         - {op: add, path: /spec/x, value: 1}\nreplacements:\n  - source: {kind: AirshipImage, fieldPath: \
         metadata.name}\n    targets:\n      - select: {kind: AirshipImag}\n        fieldPaths: [spec.action]\n      - \
         select: {kind: AirshipImage}\n        reject: [{name: control-plane}]\n        fieldPaths: [spec.action]\n",
    );
    write(
        folder.path(),
        "x/image.yaml",
        "apiVersion: airshipit.org/v1alpha1\nkind: AirshipImage\nmetadata: {name: control-plane}\nspec:\n  params:\n    \
         distribution:\n      name: debian\n      release: bookworm\n      repositories:\n        a: {source: http://m/d, \
         suite: x, components: {main: {}}, keyring: debian-archive}\n",
    );
    folder
}

const UNMATCHED: [&str; 6] = [
    "x/kustomization.yaml:3:13: the target of this patch matches nothing",
    "did you mean `AirshipImage control-plane`?",
    "without its labels and annotations it would match `AirshipImage control-plane`",
    "x/kustomization.yaml:12:17: the target of this replacement matches nothing",
    "everything that the target of this replacement selects is rejected",
    "narrow `reject`",
];

#[test]
fn what_matches_nothing_is_a_warning_in_render() {
    let folder = unmatched();
    let ran = run(folder.path(), &["render", "x"]).ends(0).says(&UNMATCHED);
    assert!(ran.out.contains("name: control-plane") && !ran.out.contains("matches nothing"));
    assert_eq!(ran.err.lines().filter(|line| line.starts_with("warning")).count(), 4, "{}", ran.err);
}

#[test]
fn what_matches_nothing_is_an_error_elsewhere() {
    let folder = unmatched();
    run(folder.path(), &["validate", "x"]).ends(3).says(&UNMATCHED).says(&["[unmatched]", "4 errors"]);
    let ran = run(folder.path(), &["validate", "x", "-o", "json"]).ends(3).json();
    let problems = ran["problems"].as_array().unwrap();
    let lines: Vec<_> = problems.iter().filter(|one| one["id"] == "unmatched").map(|one| &one["line"]).collect();
    assert_eq!(lines, [3, 6, 12, 15]);
    assert!(problems.iter().all(|one| one["id"] != "unmatched" || one["severity"] == "error"));
    let skipped = run(folder.path(), &["validate", "x", "--skip", "unmatched"]);
    assert!(!skipped.out.contains("unmatched"), "{}", skipped.out);
    for verb in [&["build", "x"][..], &["lock", "x"]] {
        let cache = folder.path().join("cache");
        let mut arguments = verb.to_vec();
        arguments.extend(["--cache-dir", cache.to_str().unwrap()]);
        let ran = run(folder.path(), &arguments).ends(3);
        ran.says(&["x/kustomization.yaml:3:13", "did you mean", "also: ", "x/kustomization.yaml:12:17"]);
    }
}

#[test]
fn everything_that_is_shipped_matches() {
    run(root(), &["validate", "manifests", "functions", "-o", "json"]).ends(0);
}
