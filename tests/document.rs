//! One small document per mistake: `tests/cases/document/mistakes/<name>.yaml` and, as a person sees it, the error in
//! `<name>.error` beside it (`UPDATE_EXPECTED=1` rewrites them). Output and typed access on good documents.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use imagebuilder::document::{Node, Origin, decode, from_json, load_file, load_str, origins, to_json, to_yaml};
use imagebuilder::error::{Error, Kind};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Sample {
    name: String,
    #[serde(default)]
    kernel: Kernel,
    #[serde(default)]
    users: BTreeMap<String, User>,
    #[serde(default)]
    modules: Vec<String>,
    #[serde(default)]
    image: Image,
    mode: Option<Mode>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Kernel {
    swap: bool,
    pages: u16,
    sysctl: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code)]
struct User {
    uid: u32,
    shell: Option<String>,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Image {
    #[default]
    Qcow2,
    Raw,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(try_from = "String")]
struct Mode(u16);

impl TryFrom<String> for Mode {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        u16::from_str_radix(&text, 8).map(Mode).map_err(|_| format!("`{text}` is not octal"))
    }
}

fn rendered(error: &Error) -> String {
    let snippet = error.rendered_snippet().map(|snippet| format!("{snippet}\n")).unwrap_or_default();
    let hints: String = error.hints().iter().map(|hint| format!("hint: {hint}\n")).collect();
    format!("error: {error}\n{snippet}{hints}")
}

fn read(path: &Path) -> Result<(), Error> {
    load_file(path)?.iter().try_for_each(|node| decode::<Sample>(node).map(drop))
}

#[test]
fn mistakes() {
    let folder = Path::new("tests/cases/document/mistakes");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).expect("cases").flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() > 30, "only {} cases", files.len());
    let mut failures = Vec::new();
    for file in files {
        let expected = file.with_extension("error");
        let found = match read(&file) {
            Ok(()) => "accepted\n".to_owned(),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Documents, "{}", file.display());
                rendered(&error)
            }
        };
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &found).expect("writing the expected error");
        }
        if found != fs::read_to_string(&expected).unwrap_or_default() || found == "accepted\n" {
            failures.push(format!("{}:\n{found}", file.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn one(text: &str) -> Node {
    load_str("sample.yaml", text).map_err(|error| rendered(&error)).unwrap().remove(0)
}

#[test]
fn text_fields_get_what_was_written() {
    let node = one("name: 1.10\nmode: 0644\nkernel: {sysctl: {a: no, b: 0x10, c: 1_000, d: '5'}}\nimage: raw\n");
    let sample: Sample = decode(&node).unwrap();
    assert_eq!((sample.name.as_str(), sample.mode, sample.image), ("1.10", Some(Mode(0o644)), Image::Raw));
    let values: Vec<&str> = sample.kernel.sysctl.values().map(String::as_str).collect();
    assert_eq!(values, ["no", "0x10", "1_000", "5"]);
}

#[test]
fn typed_fields_get_what_it_means() {
    let sample: Sample = decode(&one("name: x\nkernel: {swap: true, pages: 0x10}\nmodules:\nmode: ~\n")).unwrap();
    assert_eq!((sample.kernel.swap, sample.kernel.pages, sample.modules.len(), sample.mode), (true, 16, 0, None));
}

#[test]
fn documents_are_separated_and_empty_ones_left_out() {
    assert_eq!(load_str("x", "---\na: 1\n---\n# nothing\n---\nb: 2\n...\n").unwrap().len(), 2);
    assert!(load_str("x", "").unwrap().is_empty());
    assert_eq!(load_str("x", "{\"json\": [1, \"a\", null]}").unwrap().len(), 1);
}

#[test]
fn too_much_is_refused() {
    let many = "a: 1\n---\n".repeat(1001);
    assert!(load_str("x", &many).unwrap_err().message().contains("more than 1000 documents"));
    let large = format!("a: \"{}\"\n", "x".repeat(5 << 20));
    assert!(load_str("x", &large).unwrap_err().message().contains("larger than 4 MiB"));
    let copies = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(1000));
    assert!(load_str("x", &copies).unwrap_err().message().contains("too much text"));
}

#[test]
fn json_there_and_back() {
    let node = one("a: [1, true, null, 1.5, x]\nb: {c: \"1\"}\n");
    assert_eq!(to_json(&node).to_string(), r#"{"a":[1,true,null,1.5,"x"],"b":{"c":"1"}}"#);
    let back = from_json(&to_json(&node), &Origin::built("test"));
    assert_eq!(back, node);
    assert_eq!(to_yaml(&[back]), to_yaml(&[node]));
}

#[test]
fn every_value_has_its_place() {
    let node = one("a:\n  b: 1\n  c/d: [x, {}]\n");
    let table: Vec<String> =
        origins(&node).into_iter().map(|entry| format!("{} {}", entry.path, entry.chain[0])).collect();
    assert_eq!(table, ["/a/b sample.yaml:2:6", "/a/c~1d/0 sample.yaml:3:9", "/a/c~1d/1 sample.yaml:3:12"]);
    assert_eq!(node.pointer("/a/c~1d/0").and_then(Node::text), Some("x"));
}

/// What is written reads back as the same. (U+2028 is left out: the emitter family folds at it, as YAML 1.1 reads it.)
#[test]
fn output_reads_back() {
    use proptest::prelude::*;
    let text =
        proptest::string::string_regex("([a-z0-9 :#\\-'\"\\n\\t%@`{}\\[\\],&*!|>\\\\.]|\u{e9}|\u{1F600}){0,120}");
    proptest!(|(texts in proptest::collection::vec(text.unwrap(), 1..6))| {
        let map = texts.iter().enumerate().map(|(at, text)| (format!("k{at}"), text.clone().into()));
        let value = serde_json::Value::Object(map.collect());
        let written = to_yaml(&[from_json(&value, &Origin::built("test"))]);
        let read = load_str("written", &written).map_err(|error| rendered(&error)).unwrap();
        prop_assert_eq!(to_json(&read[0]), value, "{}", written);
    });
}
