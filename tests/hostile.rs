//! Documents that mean harm or are merely odd: each has one defined outcome, in bounded time and memory, and never a panic.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use imagebuilder::document::{load_str, to_yaml};
use imagebuilder::kustomize::{Options, build};

fn refused(text: &str, why: &str) {
    let error = load_str("a.yaml", text).expect_err("it is refused").to_string();
    assert!(error.contains(why), "{error}");
}

/// What a value reads as, as kustomize prints it.
fn reads_as(value: &str, printed: &str) {
    let documents = load_str("a.yaml", &format!("a: {value}\n")).unwrap();
    assert_eq!(to_yaml(&documents), format!("a: {printed}\n"), "{value}");
}

#[test]
fn alias_bombs() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    refused(&bomb, "aliases add more than");
    refused("a: &a [*a]\n", "alias inside the very value");
    // Of keys, too: each round doubles the mapping.
    let mut merges = "m0: &m0 {a: b, c: d}\n".to_owned();
    for level in 1..60 {
        merges.push_str(&format!("m{level}: &m{level} {{x{level}: *m{}, y{level}: *m{}}}\n", level - 1, level - 1));
    }
    refused(&merges, "aliases add more than");
}

#[test]
fn depth_and_size() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let text = format!("{}x{}\n", open.repeat(100_000), close.repeat(100_000));
        assert!(load_str("a.yaml", &text).is_err());
        let text = format!("{}x{}\n", open.repeat(100), close.repeat(100));
        assert!(load_str("a.yaml", &text).is_ok());
    }
    let block: String = (0..5000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert!(load_str("a.yaml", &block).is_err());
    refused(&format!("a: {}\n", "x".repeat(5 << 20)), "larger than");
    refused(&"---\na: b\n".repeat(1001), "more than 1000 documents");
}

#[test]
fn odd_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let read = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        imagebuilder::document::load_file(&file).map(|documents| to_yaml(&documents)).map_err(|error| error.to_string())
    };
    assert_eq!(read(b"\xef\xbb\xbfa: b\r\nc: d\r\n").unwrap(), "a: b\nc: d\n");
    assert!(read(b"a: b\nc: \xff\n").unwrap_err().contains("a.yaml:2:4: not UTF-8"));
    assert!(read(b"\xff\xfea\x00").unwrap_err().contains("UTF-16"));
    assert!(read(b"a: b\nc: d\0e\n").unwrap_err().contains("a.yaml:2:"));
    let tab = read(b"a:\n\tb: c\n").unwrap_err();
    assert!(tab.contains("a.yaml:2:") && tab.contains("tab"), "{tab}");
    assert!(read(b"a: b\nc: d\na: e\n").unwrap_err().contains("a.yaml:3:1: duplicate key `a`"));
}

/// What YAML 1.1 and 1.2 disagree about: booleans are those of 1.2, integers those of both.
#[test]
fn words_and_numbers() {
    for word in ["yes", "no", "on", "off", "y", "n"] {
        reads_as(word, &format!("\"{word}\""));
    }
    for (value, printed) in [
        ("true", "true"),
        ("012", "10"),
        ("0o12", "10"),
        ("08", "8"),
        ("0x1F", "31"),
        ("1_000", "1000"),
        ("1e3", "1000"),
        ("12:30", "\"12:30\""),
        ("~", "null"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "1.8446744073709552e+19"),
    ] {
        reads_as(value, printed);
    }
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

const OBJECT: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n";

fn fails(root: &Path, dir: &str, why: &str) {
    let error = build(&root.join(dir), &Options::default()).expect_err("it is refused").to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn files_outside_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "secret.yaml", OBJECT);
    write(root, "in/up/kustomization.yaml", "resources: [../../secret.yaml]\n");
    fails(root, "in/up", "lies outside of this folder");
    write(root, "in/link/kustomization.yaml", "resources: [here.yaml]\n");
    symlink(root.join("secret.yaml"), root.join("in/link/here.yaml")).unwrap();
    fails(root, "in/link", "lies outside of this folder");
    write(root, "in/dir/kustomization.yaml", "resources: [below/secret.yaml]\n");
    symlink(root, root.join("in/dir/below")).unwrap();
    fails(root, "in/dir", "lies outside of this folder");
    let text = format!("resources: [{}]\n", root.join("secret.yaml").display());
    write(root, "in/absolute/kustomization.yaml", &text);
    fails(root, "in/absolute", "absolute path");
    let generator = "configMapGenerator: [{name: x, files: [../../secret.yaml]}]\n";
    write(root, "in/files/kustomization.yaml", generator);
    fails(root, "in/files", "lies outside of this folder");
    write(root, "in/device/kustomization.yaml", "resources: [zero]\n");
    symlink("/dev/zero", root.join("in/device/zero")).unwrap();
    assert!(build(&root.join("in/device"), &Options { unrestricted: true, ..Options::default() }).is_err());
}

#[test]
fn cycles_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let component = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [../a]\n";
    write(root, "a/kustomization.yaml", "resources: [../b]\n");
    write(root, "b/kustomization.yaml", "components: [../c]\n");
    write(root, "c/kustomization.yaml", component);
    let error = build(&root.join("a"), &Options::default()).unwrap_err().to_string();
    let named = |name: &str| root.join(name).display().to_string();
    assert!(
        error.contains(&format!("cycle: {} -> {} -> {} -> {}", named("a"), named("b"), named("c"), named("a"))),
        "{error}"
    );
    symlink(root.join("self"), root.join("self-link")).unwrap();
    write(root, "self/kustomization.yaml", "resources: [../self-link]\n");
    fails(root, "self", "cycle: ");
}
