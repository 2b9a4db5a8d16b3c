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
            assert!(
                self.out.contains(word) || self.err.contains(word),
                "`{word}` is not in:\n{}{}",
                self.out,
                self.err
            );
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
    origin("NodeProfile/site-data-plane:spec.kernel.sysctl[\"vm.swapiness\"]").ends(3).says(&[
        "`spec.kernel.sysctl` has no `vm.swapiness`",
        "did you mean `vm.swappiness`?",
        "base/node.yaml:8:7",
    ]);
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
    let image =
        table.as_array().unwrap().iter().find(|one| one["object"] == "AirshipImage/site-data-plane.prod").unwrap();
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

fn git(folder: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(["-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false"]);
    command.args(arguments).env_remove("GIT_DIR").env_remove("GIT_INDEX_FILE").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.output().is_ok_and(|output| output.status.success())
}

const IMAGE: &str = "\
apiVersion: airshipit.org/v1alpha1
kind: AirshipImage
metadata: {name: NAME}
spec:
  params:
    distribution:
      name: debian
      release: bookworm
      repositories:
        a: {source: http://m/d, suite: x, components: {main: {}}, keyring: debian-archive}
    kernel:
      sysctl: {vm.swappiness: 60}
";

/// Two sites with a phase each and an entry point that no site names; `None` where there is no git.
fn repository() -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for site in ["a", "b"] {
        let write = |name: &str, text: &str| write(root, &format!("sites/{site}/{name}"), text);
        write(
            "metadata.yaml",
            &format!(
                "apiVersion: airshipit.org/v1alpha1\nkind: ManifestMetadata\nmetadata: {{name: {site}}}\nspec:\n  \
                 phase:\n    path: sites/{site}/phases\n    docEntryPointPrefix: sites/{site}\n"
            ),
        );
        write("phases/kustomization.yaml", "resources: [phases.yaml]\n");
        write(
            "phases/phases.yaml",
            "apiVersion: airshipit.org/v1alpha1\nkind: Phase\nmetadata: {name: build}\nconfig:\n  executorRef: \
             {apiVersion: airshipit.org/v1alpha1, kind: ImageConfiguration, name: qcow}\n  documentEntryPoint: \
             image\n---\napiVersion: airshipit.org/v1alpha1\nkind: ImageConfiguration\nmetadata: {name: qcow}\nspec:\n  \
             image: {type: qcow}\n",
        );
        write("image/kustomization.yaml", "resources: [../../../base]\npatches: [{path: patch.yaml}]\n");
        write(
            "image/patch.yaml",
            &format!(
                "apiVersion: airshipit.org/v1alpha1\nkind: AirshipImage\nmetadata: {{name: base}}\nspec:\n  params:\n    \
                 kernel:\n      sysctl:\n        # of site {site}\n        kernel.pid_max: 100000\n"
            ),
        );
    }
    write(root, "base/kustomization.yaml", "resources: [image.yaml]\n");
    write(root, "base/image.yaml", &IMAGE.replace("NAME", "base"));
    write(root, "alone/kustomization.yaml", "resources: [image.yaml]\n");
    write(root, "alone/image.yaml", &IMAGE.replace("NAME", "alone"));
    write(root, "alone/unread.yaml", "never: read\n");
    let made = git(root, &["init", "-q"]) && git(root, &["add", "-A"]) && git(root, &["commit", "-q", "-m", "first"]);
    if !made {
        println!("skipped: no git here");
        return None;
    }
    Some(folder)
}

fn names(list: &Value) -> Vec<String> {
    let name = |one: &Value| match one["phase"].as_str().unwrap() {
        "" => one["entryPoint"].as_str().unwrap().to_owned(),
        phase => format!("{} {phase}", one["site"].as_str().unwrap()),
    };
    list.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn only_what_differs_is_affected() {
    let Some(folder) = repository() else { return };
    let root = folder.path();
    let affected = || run(root, &["affected", "--since", "HEAD", "-o", "json", "."]).ends(0).json();
    let found = affected();
    assert_eq!(names(&found["unchanged"]), ["alone", "sites/a build", "sites/b build"], "{found}");
    assert_eq!((&found["any"], &found["matrix"]["include"]), (&false.into(), &Value::Array(vec![])));
    // Text that changes nothing: comments, files that nobody reads, another way to write the same.
    write(root, "alone/unread.yaml", "never: read again\n");
    let text = std::fs::read_to_string(root.join("base/image.yaml")).unwrap();
    write(
        root,
        "base/image.yaml",
        &format!("# moved\n\n{}", text.replace("{vm.swappiness: 60}", "\n        vm.swappiness: 60")),
    );
    assert_eq!(names(&affected()["affected"]), [""; 0]);
    // One site, then what both stand on.
    let patch = std::fs::read_to_string(root.join("sites/a/image/patch.yaml")).unwrap();
    write(root, "sites/a/image/patch.yaml", &patch.replace("100000", "200000"));
    let found = affected();
    assert_eq!((names(&found["affected"]), names(&found["unchanged"]).len()), (vec!["sites/a build".to_owned()], 2));
    let cell = &found["matrix"]["include"][0];
    let wanted =
        serde_json::json!({"site": "sites/a", "phase": "build", "entryPoint": "sites/a/image", "image": "base"});
    assert_eq!(cell, &wanted);
    let value = &found["affected"][0]["values"][0];
    assert_eq!(value["path"], "spec.params.kernel.sysctl[\"kernel.pid_max\"]");
    assert!(value["new"]["file"].as_str().unwrap().ends_with("sites/a/image/patch.yaml"), "{value}");
    write(root, "base/image.yaml", &text.replace("60", "10"));
    assert_eq!(names(&affected()["affected"]), ["sites/a build", "sites/b build"]);
    // From a folder inside, of a site only.
    let ran = run(&root.join("sites"), &["affected", "--since", "HEAD", "b"]).ends(0);
    assert!(ran.out.contains("changed") && ran.out.contains("sites/b") && !ran.out.contains("sites/a"), "{}", ran.out);
}

#[test]
fn what_comes_and_goes_is_affected() {
    let Some(folder) = repository() else { return };
    let root = folder.path();
    std::fs::remove_dir_all(root.join("alone")).unwrap();
    write(root, "new/kustomization.yaml", "resources: [image.yaml]\n");
    write(root, "new/image.yaml", &IMAGE.replace("NAME", "new"));
    let found = run(root, &["affected", "--since", "HEAD", "-o", "json", "."]).ends(0).json();
    assert_eq!(
        (names(&found["affected"]), names(&found["removed"])),
        (vec!["new".to_owned()], vec!["alone".to_owned()])
    );
    assert_eq!((&found["affected"][0]["change"], &found["removed"][0]["image"]), (&"added".into(), &"alone".into()));
    // A mistake is not the end of the others.
    write(root, "sites/a/image/patch.yaml", "kind: AirshipImage\nmetadata: {name: bas}\n");
    let ran = run(root, &["affected", "--since", "HEAD", "-o", "json", "."]).ends(3);
    assert!(ran.err.contains("sites/a/image/patch.yaml:"), "{}", ran.err);
    assert_eq!(names(&ran.json()["invalid"]), ["sites/a build"]);
    assert_eq!(names(&ran.json()["unchanged"]), ["sites/b build"]);
    run(root, &["affected", "--since", "nowhere", "."]).ends(2).says(&["no revision `nowhere`"]);
    run(root, &["affected", "--since=--output=x", "."]).ends(2);
    let bare = tempfile::tempdir().unwrap();
    run(bare.path(), &["affected", "--since", "HEAD", "."]).ends(2).says(&["not a git repository"]);
}

#[test]
fn differences_name_both_lines() {
    let Some(folder) = repository() else { return };
    let root = folder.path();
    let diff = |arguments: &[&str]| run(root, &[&["diff", "docs"], arguments].concat());
    assert_eq!(diff(&["--since", "HEAD", "."]).ends(0).out, "identical\n");
    let patch = std::fs::read_to_string(root.join("sites/a/image/patch.yaml")).unwrap();
    write(
        root,
        "sites/a/image/patch.yaml",
        &patch.replace("# of site a", "kernel.panic: 10").replace("100000", "200000"),
    );
    diff(&["--since", "HEAD", "sites/a"]).ends(8).says(&[
        "phase build of sites/a AirshipImage/base\n",
        "  ~ spec.params.kernel.sysctl[\"kernel.pid_max\"]: 100000 -> 200000\n",
        "      old: sites/a/image/patch.yaml:9:25 <- patch sites/a/image/kustomization.yaml:2:11\n",
        "      new: sites/a/image/patch.yaml:9:25 <- patch sites/a/image/kustomization.yaml:2:11\n",
        "  + spec.params.kernel.sysctl[\"kernel.panic\"]: 10\n",
        "the documents differ",
    ]);
    let found = diff(&["--since", "HEAD", "sites/a", "-o", "json"]).ends(8).json();
    let change = &found["changes"][0];
    assert_eq!(
        (&change["change"], &change["old"]["value"], &change["new"]["line"]),
        (&"changed".into(), &100000.into(), &9.into())
    );
    assert!(!found.to_string().contains("/tree/"), "temporary names: {found}");
    // Two folders, both ways to say it.
    let found = diff(&["sites/a/image", "sites/b/image", "-o", "json"]).ends(8).json();
    let paths: Vec<_> =
        found["changes"].as_array().unwrap().iter().map(|one| one["change"].as_str().unwrap()).collect();
    assert_eq!(paths, ["removed", "changed"]);
    diff(&["alone", "alone"]).ends(0);
    diff(&["alone", "base"]).ends(8).says(&["- the whole object", "AirshipImage/base"]);
    diff(&["alone"]).ends(2);
    diff(&["alone", "nowhere"]).ends(2);
    // Nothing of the user's was touched.
    assert!(git(root, &["diff", "--quiet", "--cached"]) && git(root, &["diff", "--quiet", "--", "alone"]));
}

/// A NodeProfile that an overlay spoils, copied into an AirshipImage.
#[test]
fn mistakes_of_copied_values_show_the_original_and_the_overlay() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| write(folder.path(), name, text);
    write("base/kustomization.yaml", "resources: [node.yaml, image.yaml]\n");
    write(
        "base/image.yaml",
        &IMAGE.replace("NAME", "x").replace("    kernel:\n      sysctl: {vm.swappiness: 60}\n", ""),
    );
    write(
        "base/node.yaml",
        "apiVersion: airshipit.org/v1alpha1\nkind: NodeProfile\nmetadata: {name: x}\nspec:\n  kernel:\n    grub:\n      \
         GRUB_TIMEOUT: 5\n  limits:\n    files:\n      domain: root\n      type: soft\n      item: nofile\n      value: 9\n",
    );
    write(
        "site/kustomization.yaml",
        "resources: [../base]\npatches:\n  - path: patch.yaml\nreplacements:\n  - source: {kind: NodeProfile, fieldPath: \
         spec.kernel}\n    targets:\n      - {select: {kind: AirshipImage}, fieldPaths: [spec.params.kernel], options: \
         {create: true}}\n  - source: {kind: NodeProfile, fieldPath: spec.limits}\n    targets:\n      - {select: {kind: \
         AirshipImage}, fieldPaths: [spec.params.limits], options: {create: true}}\n",
    );
    write(
        "site/patch.yaml",
        "apiVersion: airshipit.org/v1alpha1\nkind: NodeProfile\nmetadata: {name: x}\nspec:\n  kernel:\n    grub:\n      \
         GRUB_TIMEOUT: soon\n  limits:\n    files:\n      domain: null\n",
    );
    let found = run(folder.path(), &["validate", "site", "-o", "json"]).ends(3).json();
    let of = |word: &str| -> Vec<Value> {
        let problems = found["problems"].as_array().unwrap().iter();
        problems.filter(|one| one["message"].as_str().unwrap().contains(word)).cloned().collect()
    };
    let related = |problem: &Value, text: &str, file: &str, line: u32| {
        let places = problem["related"].as_array().unwrap();
        let fits = |place: &&Value| place["message"] == text && place["file"] == file && place["line"] == line;
        assert!(places.iter().any(|place| fits(&place)), "{text} {file}:{line} is not in {problem}");
    };
    // The copy and its source are one mistake with one place.
    let wrong = of("soon");
    assert!(!wrong.is_empty(), "{found}");
    for one in &wrong {
        assert_eq!((&one["file"], &one["line"]), (&"site/patch.yaml".into(), &7.into()), "{one}");
        related(one, "set by this patch", "site/kustomization.yaml", 3);
        related(one, "instead of this value", "base/node.yaml", 7);
    }
    let text = run(folder.path(), &["build", "site", "--cache-dir", folder.path().join("c").to_str().unwrap()]).ends(3);
    text.says(&["site/patch.yaml:7:21", "site/kustomization.yaml:3:5", "base/node.yaml:7:21"]);
    // What is missing was removed by somebody.
    let missing = of("domain");
    assert!(!missing.is_empty(), "{found}");
    for one in &missing {
        assert_eq!(one["file"], "base/node.yaml", "{one}");
        related(one, "something was removed by this", "site/kustomization.yaml", 3);
        related(one, "what was removed", "base/node.yaml", 10);
    }
    let ran = run(folder.path(), &["origin", "site", "AirshipImage/x:spec.params.limits.files.domain"]).ends(3);
    ran.says(&["something was removed by this", "site/kustomization.yaml:3:5", "copied by this replacement"]);
}

#[test]
fn explain_names_the_realm() {
    let explain = |path: &str| run(root(), &["explain", path]).ends(0);
    explain("NodeProfile.spec.networking.hostname").says(&["REALM: cloud-init"]);
    explain("AirshipImage.spec.params.kernel.sysctl").says(&["REALM: image"]);
    explain("AirshipImage.spec.params.networking").says(&["REALM: image", "    REALM: cloud-init"]);
    explain("ImageConfiguration.spec.image.type").says(&["REALM: build"]);
    let found = run(root(), &["explain", "NodeProfile.spec.networking", "-o", "json"]).ends(0).json();
    let hosts = found["fields"].as_array().unwrap().iter().find(|field| field["name"] == "hosts").unwrap();
    assert_eq!((&found["realm"], &hosts["realm"]), (&"image".into(), &"cloud-init".into()));
}

#[test]
fn site_data_in_an_image_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "x/kustomization.yaml", "resources: [image.yaml]\n");
    let more = "    networking: {hostname: node1}\n    files:\n      /etc/ntp.conf:\n        file_content: |\n          \
                # time\n          server 10.1.2.3\n      /k:\n        file_content: |\n          -----BEGIN PRIVATE KEY-----\n";
    write(folder.path(), "x/image.yaml", &(IMAGE.replace("NAME", "x") + more));
    let ran = run(folder.path(), &["validate", "x"]).ends(0);
    assert!(!ran.out.contains("-----BEGIN"), "{}", ran.out);
    let ran = ran.says(&[
        "`networking.hostname` is of one node",
        "holds the address 10.1.2.3",
        "a private key",
        "[site-data]",
    ]);
    assert!(ran.out.contains("warning: x/image.yaml:13:"), "{}", ran.out);
    let skipped = run(folder.path(), &["validate", "x", "--skip", "site-data"]).ends(0);
    assert!(!skipped.out.contains("site-data"));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn variable_files_and_seeds_affect_their_images() {
    let repository = tempfile::tempdir().unwrap();
    let top = repository.path();
    for folder in ["config", "functions", "manifests"] {
        copy(&root().join(folder), &top.join(folder));
    }
    let made = git(top, &["init", "-q"]) && git(top, &["add", "-A"]) && git(top, &["commit", "-q", "-m", "first"]);
    if !made {
        return println!("skipped: no git here");
    }
    let affected = |dir: &str| run(top, &["affected", "--since", "HEAD", "-o", "json", dir]).ends(0).json();
    let places = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|image| image["entryPoint"].as_str().unwrap().to_owned()).collect()
    };
    let found = affected(".");
    assert_eq!(places(&found["affected"]), [""; 0]);
    let bundles = ["config/iso", "config/qcow-bundle/control-plane", "config/qcow-bundle/data-plane"];
    assert!(bundles.iter().all(|bundle| places(&found["unchanged"]).contains(&(*bundle).to_owned())), "{found}");

    let variables = top.join("config/qcow-bundle/data-plane/osconfig-vars.yaml");
    let text = std::fs::read_to_string(&variables).unwrap();
    std::fs::write(&variables, format!("# a comment\n{text}")).unwrap();
    assert_eq!(places(&affected("config")["affected"]), [""; 0]);
    std::fs::write(&variables, text.replace("value: '32'", "value: '64'")).unwrap();
    assert_eq!(places(&affected(".")["affected"]), ["config/qcow-bundle/data-plane"]);
    run(top, &["diff", "docs", "--since", "HEAD", "config"]).ends(8).says(&[
        "config/qcow-bundle/data-plane AirshipImage/data-plane",
        "commandLine",
        "config/qcow-bundle/data-plane/osconfig-vars.yaml:",
    ]);
    std::fs::write(&variables, text).unwrap();

    // What the ISO holds, and what the sites' ISO phases read.
    let user_data = top.join("config/iso/user_data");
    let text = std::fs::read_to_string(&user_data).unwrap();
    std::fs::write(&user_data, format!("{text}\nfinal_message: other\n")).unwrap();
    let found = affected("config");
    assert_eq!(places(&found["affected"]), ["config/iso"]);
    assert_eq!(found["affected"][0]["reason"], "its cloud-init data has changed");
    run(top, &["diff", "docs", "--since", "HEAD", "config"]).ends(8).says(&[
        "SeedFile/user_data",
        "final_message",
        "config/iso/user_data:",
    ]);
    std::fs::write(&user_data, text).unwrap();
    let user_data = top.join("manifests/site/example/ephemeral/bootstrap/user-data.yaml");
    let text = std::fs::read_to_string(&user_data).unwrap();
    std::fs::write(&user_data, text.replace("    #cloud-config\n", "    #cloud-config\n    final_message: other\n"))
        .unwrap();
    let found = affected("manifests");
    assert_eq!(places(&found["affected"]), ["manifests/site/example/ephemeral/bootstrap"], "{found}");

    // Everything is made of the functions.
    std::fs::write(&user_data, text).unwrap();
    let kernel = top.join("functions/node-profile/base/kernel.yaml");
    let text = std::fs::read_to_string(&kernel).unwrap();
    std::fs::write(&kernel, text.replace("kernel.panic: 3", "kernel.panic: 4")).unwrap();
    assert!(places(&affected("config")["unchanged"]).is_empty());
    run(top, &["affected", "--since", "HEAD", "--distro", "nowhere", "config"]).ends(2).says(&["unknown distribution"]);
}

#[test]
fn a_shipped_value_has_its_chain() {
    let path = "AirshipImage/data-plane:spec.params.kernel.sysctl[\"vm.swappiness\"]";
    let ran = run(root(), &["origin", "manifests/site/example/target/data-plane/image", path]).ends(0);
    for line in ["defined      functions/images/data-plane/kernel.yaml:10:", "patch        ", "replacement  "] {
        assert!(ran.out.contains(line), "`{line}` is not in {}", ran.out);
    }
}
