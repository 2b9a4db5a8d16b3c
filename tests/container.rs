//! The upstream image-builder's container contracts, through the program itself: what goes wrong is exit code 1, and
//! standard output stays empty (airshipctl reads documents there).
//!
//! `IMAGEBUILDER_CONTAINER=<cache with downloads>` also builds, and looks at what is left on the volume (minutes).

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_imagebuilder");

fn run(program: &Path, variables: &[(&str, &str)], arguments: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .envs(variables.iter().copied())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends at once does not read it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn refused(variables: &[(&str, &str)], arguments: &[&str], stdin: &str) -> String {
    let arguments = [&["container"][..], arguments].concat();
    let output = run(Path::new(PROGRAM), variables, &arguments, stdin);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_failure_is_exit_code_1() {
    let volume = tempfile::tempdir().unwrap();
    let here = volume.path().to_str().unwrap();
    let v2 = [("VERSION", "v2"), ("IMAGE_TYPE", "qcow")];
    assert!(refused(&[], &[], "").contains("`BUILDER_CONFIG` is not set"));
    assert!(refused(&[("BUILDER_CONFIG", "/nowhere")], &[], "").contains("does not exist"));
    assert!(refused(&[("VERSION", "v2"), ("IMAGE_TYPE", "x")], &["--volume", here], "").contains("image type `x`"));
    assert!(refused(&[("VERSION", "v2")], &["--volume", here], "user_data:\n    x\n").contains("no network config"));
    // Mistakes in the documents are 3 elsewhere.
    let typo = refused(&v2, &["--volume", here], "osconfig:\n    limts: []\n");
    assert!(typo.contains("unknown variable `limts`") && typo.contains("osconfig variables:1:1"), "{typo}");
    let config = volume.path().join("qcow.yaml");
    std::fs::write(&config, "container: {volume: '/srv:/not-mounted'}\n").unwrap();
    let v1 = [("BUILDER_CONFIG", config.to_str().unwrap()), ("IMAGE_TYPE", "qcow")];
    assert!(refused(&v1, &[], "").contains("/not-mounted is not there"));
    // Nothing of it is left on the volume.
    assert_eq!(std::fs::read_dir(volume.path()).unwrap().count(), 1);
}

/// airshipctl and `cut_image.sh` start this.
#[test]
fn upstreams_script_is_this_program() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("entrypoint.sh");
    std::os::unix::fs::symlink(PROGRAM, &script).unwrap();
    let output = run(&script, &[], &[], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`BUILDER_CONFIG` is not set"));
}

/// Both contracts, with the files that each leaves.
#[test]
fn images_are_left_on_the_volume() {
    let Some(cache) = std::env::var_os("IMAGEBUILDER_CONTAINER") else {
        return eprintln!("skipped: IMAGEBUILDER_CONTAINER names no cache");
    };
    let cache = cache.to_str().unwrap().to_owned();
    let volume = tempfile::tempdir().unwrap();
    let here = volume.path().to_str().unwrap();
    let text = |name: &str| std::fs::read_to_string(volume.path().join(name)).unwrap();
    let variables = [("VERSION", "v2"), ("IMAGE_TYPE", "qcow"), ("IMAGEBUILDER_CACHE_DIR", cache.as_str())];
    let stdin = "osconfig:\n    limits: []\nqcow:\noutputFileName: data-plane.qcow2\n";
    let output = run(Path::new(PROGRAM), &variables, &["container", "--volume", here], stdin);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let digest = text("data-plane.qcow2.md5sum");
    assert!(digest.len() == 33 && digest.ends_with('\n'), "{digest:?}");
    std::fs::write(volume.path().join("os.yaml"), "limits: []\n").unwrap();
    let config = format!(
        "container: {{volume: '/srv/images:{here}'}}\nbuilder: {{outputFileName: data-plane.qcow2, osconfigVarsFileName: os.yaml}}\n"
    );
    std::fs::write(volume.path().join("qcow.yaml"), config).unwrap();
    let file = volume.path().join("qcow.yaml");
    let variables = [
        ("BUILDER_CONFIG", file.to_str().unwrap()),
        ("IMAGE_TYPE", "qcow"),
        ("IMAGE", "quay.example/image-builder:1"),
        ("IMAGEBUILDER_CACHE_DIR", cache.as_str()),
    ];
    let output = run(Path::new(PROGRAM), &variables, &["container"], "");
    assert!(output.status.success() && output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata = text("output-metadata.yaml");
    assert!(metadata.starts_with("bootImagePath: \"/srv/images/data-plane.qcow2\"\nmd5sum: "), "{metadata}");
    for name in ["profile_multistrap.json", "profile_entrypoint.json"] {
        let profile: serde_json::Value = serde_json::from_str(&text(name)).unwrap();
        assert_eq!(profile["image_builder_image"], "quay.example/image-builder:1");
    }
}

/// The ISO of the ephemeral node from both contracts: the same seed gives the same bytes.
#[test]
fn an_iso_is_left_on_the_volume() {
    let Some(cache) = std::env::var_os("IMAGEBUILDER_CONTAINER") else {
        return eprintln!("skipped: IMAGEBUILDER_CONTAINER names no cache");
    };
    let cache = cache.to_str().unwrap().to_owned();
    let volume = tempfile::tempdir().unwrap();
    let here = volume.path().to_str().unwrap();
    let text = |name: &str| std::fs::read_to_string(volume.path().join(name)).unwrap();
    let write = |name: &str, text: &str| std::fs::write(volume.path().join(name), text).unwrap();
    let network = "links: []\nnetworks: []\nservices: []\n";
    let order = format!(
        "user_data:\n    #cloud-config\n    hostname: other\nnetwork_config:\n{}outputFileName: node.iso\n",
        network.lines().map(|line| format!("    {line}\n")).collect::<String>()
    );
    let v2 = [("VERSION", "v2"), ("IMAGEBUILDER_CACHE_DIR", cache.as_str())];
    let output = run(Path::new(PROGRAM), &v2, &["container", "--volume", here], &order);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let first = std::fs::read(volume.path().join("node.iso")).unwrap();
    assert_eq!(text("node.iso.md5sum").len(), 33);
    std::fs::remove_file(volume.path().join("node.iso")).unwrap();
    write("user", "#cloud-config\nhostname: other\n");
    write("network", network);
    write(
        "iso.yaml",
        &format!(
            "container: {{volume: '/srv/images:{here}'}}\nbuilder: {{userDataFileName: user, networkConfigFileName: network, outputFileName: node.iso}}\n"
        ),
    );
    let file = volume.path().join("iso.yaml");
    let v1 = [("BUILDER_CONFIG", file.to_str().unwrap()), ("IMAGEBUILDER_CACHE_DIR", cache.as_str())];
    let output = run(Path::new(PROGRAM), &v1, &["container"], "");
    assert!(output.status.success() && output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(first == std::fs::read(volume.path().join("node.iso")).unwrap(), "the contracts give different bytes");
    assert!(text("output-metadata.yaml").starts_with("bootImagePath: \"/srv/images/node.iso\"\nmd5sum: "));
}
