//! The published schemas against the program that reads the documents: an independent validator (Python's `jsonschema`)
//! has to accept what the program accepts and refuse what it refuses.
//!
//! On a machine without that module these tests say so and end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use imagebuilder::api::schema::{KINDS, Kind, of};
use imagebuilder::document::{Origin, from_json, load_file, load_str, to_json};
use imagebuilder::kustomize;
use serde_json::{Value, json};

const VALIDATOR: &str = "
import json, sys
from jsonschema import Draft202012Validator
schemas, cases = json.load(sys.stdin)
for schema in schemas.values():
    Draft202012Validator.check_schema(schema)
validators = {name: Draft202012Validator(schema) for name, schema in schemas.items()}
json.dump([next((e.message for e in validators[kind].iter_errors(document)), None) for kind, document in cases], sys.stdout)
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the validator says against each document; nothing when it is not there.
fn validate(cases: &[(&str, Value)]) -> Option<Vec<Option<String>>> {
    let known = Command::new("python3").args(["-c", "from jsonschema import Draft202012Validator"]).output();
    if !known.is_ok_and(|output| output.status.success()) {
        println!("skipped: python3 has no module `jsonschema` here (make setup_test installs it)");
        return None;
    }
    let published = |kind: &Kind| {
        let path = root().join("manifests/schemas").join(kind.schema_file());
        (kind.name.to_owned(), serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    };
    let schemas: serde_json::Map<String, Value> = KINDS.iter().map(published).collect();
    let mut child = Command::new("python3")
        .args(["-c", VALIDATOR])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 was there a moment ago");
    child.stdin.take().unwrap().write_all(json!([schemas, cases]).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the validator failed");
    let answers: Vec<Option<String>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), cases.len());
    Some(answers)
}

fn yaml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
}

/// Every file with a document of ours.
fn shipped() -> Vec<PathBuf> {
    let mut files = Vec::new();
    yaml_files(&root().join("functions"), &mut files);
    yaml_files(&root().join("manifests"), &mut files);
    files.retain(|path| load_file(path).unwrap().iter().any(|document| of(document).is_some()));
    files
}

#[test]
fn what_is_shipped_fits_its_schema() {
    let mut cases = Vec::new();
    let mut names = Vec::new();
    let mut add = |name: &Path, document: &imagebuilder::document::Node| {
        let kind = of(document).unwrap_or_else(|| panic!("{}: a document of no known kind", name.display()));
        assert!(kind.misfits(document).is_empty(), "{}", name.display());
        names.push(name.to_owned());
        cases.push((kind.name, to_json(document)));
    };
    for path in shipped() {
        load_file(&path).unwrap().iter().for_each(|document| add(&path, document));
    }
    for folder in ["manifests/site/example/phases", "manifests/site/example/target/control-plane/image"] {
        let folder = root().join(folder);
        kustomize::build(&folder, &kustomize::Options::default()).unwrap().iter().for_each(|node| add(&folder, node));
    }
    assert!(cases.len() > 30, "{}", cases.len());
    for (name, answer) in names.iter().zip(validate(&cases).unwrap_or_default()) {
        assert_eq!(answer, None, "{}", name.display());
    }
}

#[test]
fn modelines_lead_to_the_schema_of_their_document() {
    for path in shipped() {
        let text = std::fs::read_to_string(&path).unwrap();
        for document in text.split("\n---\n") {
            let line = document.lines().next().unwrap_or_default();
            let schema = line.strip_prefix("# yaml-language-server: $schema=");
            let schema = schema.unwrap_or_else(|| panic!("{}: no modeline", path.display()));
            let schema = std::fs::read_to_string(path.parent().unwrap().join(schema)).unwrap();
            let schema: Value = serde_json::from_str(&schema).unwrap();
            let kind = load_str("document", document).unwrap()[0].get("kind").unwrap().text().unwrap().to_owned();
            assert_eq!(schema["title"], kind.as_str(), "{}", path.display());
        }
    }
}

/// A value that a schema accepts, with what is required and no more.
fn sample(schema: &Value) -> Value {
    if let Some(value) = schema.get("const").or_else(|| schema.get("examples").map(|examples| &examples[0])) {
        return value.clone();
    }
    if let Some(values) = schema.get("enum") {
        return values[0].clone();
    }
    let kind = schema.get("type").map(|kind| kind.as_array().map_or(kind, |kinds| &kinds[0]).as_str().unwrap());
    match kind {
        Some("object") => {
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            required
                .map(|name| (name.as_str().unwrap(), sample(&schema["properties"][name.as_str().unwrap()])))
                .collect()
        }
        Some("array") => json!([]),
        Some("integer") => json!(1),
        Some("boolean") => json!(true),
        _ => json!("x"),
    }
}

/// Documents in which one value, at every place a schema knows, is replaced by each of these, or gets a field that nobody
/// knows.
fn mutations(schema: &Value, wrap: &dyn Fn(Value) -> Value, cases: &mut Vec<Value>) {
    let values = [
        json!(null),
        json!(true),
        json!(5),
        json!(-1),
        json!(1.5),
        json!("x"),
        json!("1G"),
        json!([]),
        json!(["x"]),
        json!([null]),
        json!({}),
        json!({"x": null}),
        json!({"x": "y"}),
        json!(5_000_000_000_u64),
    ];
    cases.extend(values.into_iter().map(wrap));
    let base = sample(schema);
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let inner = |value: Value| {
            let mut object = base.clone();
            object[name] = value;
            wrap(object)
        };
        // The program picks documents by these two; decoding does not look at them.
        if name != "apiVersion" && name != "kind" {
            mutations(property, &inner, cases);
        }
    }
    if schema.get("properties").is_some() {
        let mut object = base.clone();
        object["nobodyKnows"] = json!({});
        cases.push(wrap(object));
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            let mut object = base.clone();
            object.as_object_mut().unwrap().shift_remove(name.as_str().unwrap());
            cases.push(wrap(object));
        }
    }
    if let Some(items) = schema.get("items") {
        mutations(items, &|value| wrap(json!([value])), cases);
    }
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        mutations(values, &|value| wrap(json!({"some": value})), cases);
    }
}

#[test]
fn schema_and_program_agree_on_every_mistake() {
    let mut cases = Vec::new();
    for kind in KINDS {
        let mut documents = Vec::new();
        mutations(&kind.json_schema(), &|value| value, &mut documents);
        cases.extend(documents.into_iter().map(|document| (kind.name, document)));
    }
    // Without its two names a document is none of ours: decoding and schema would differ, and neither is asked.
    cases.retain(|(name, document)| document["kind"] == *name && document["apiVersion"].is_string());
    assert!(cases.len() > 2000, "{}", cases.len());
    let Some(answers) = validate(&cases) else { return };
    let (mut refused, mut differ) = (0, Vec::new());
    for ((name, document), answer) in cases.iter().zip(answers) {
        let node = from_json(document, &Origin::built("test"));
        let kind = KINDS.iter().find(|kind| kind.name == *name).unwrap();
        let program =
            kind.misfits(&node).into_iter().next().map(|misfit| imagebuilder::error::Error::from(misfit.diagnostic));
        if program.is_some() != answer.is_some() {
            differ.push(format!("{document}\n  program: {program:?}\n  schema: {answer:?}"));
        }
        refused += usize::from(program.is_some());
    }
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    assert!(refused > 1000, "{refused}");
}
