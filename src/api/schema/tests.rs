//! What every published schema keeps to.

use serde_json::{Value, json};

use super::explain::find;
use super::*;
use crate::document::load_str;

/// Calls `visit` with every property of a schema and its path.
fn properties(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = format!("{path}.{name}");
        visit(&path, property);
        properties(property, &path, visit);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = schema.get(key) {
            properties(below, path, visit);
        }
    }
}

#[test]
fn every_field_says_what_it_is_for() {
    let mut bare = Vec::new();
    for kind in KINDS {
        properties(&kind.json_schema(), kind.name, &mut |path, property| {
            if property["description"].as_str().unwrap_or_default().is_empty() {
                bare.push(path.to_owned());
            }
        });
    }
    bare.sort();
    bare.dedup();
    assert!(bare.is_empty(), "fields without a comment:\n{}", bare.join("\n"));
}

/// The rules for structural schemas, of the Kubernetes documentation.
fn structural(schema: &Value, path: &str) {
    let object = schema.as_object().unwrap_or_else(|| panic!("{path} is no object"));
    let typed = object.contains_key("type") as u8
        + object.contains_key("x-kubernetes-int-or-string") as u8
        + object.contains_key("x-kubernetes-preserve-unknown-fields") as u8;
    assert_eq!(typed, 1, "{path}: {schema}");
    for word in object.keys() {
        let known = [
            "type",
            "description",
            "properties",
            "items",
            "additionalProperties",
            "required",
            "enum",
            "default",
            "pattern",
            "minimum",
            "maximum",
            "nullable",
            "x-kubernetes-int-or-string",
            "x-kubernetes-preserve-unknown-fields",
            "format",
        ];
        assert!(known.contains(&word.as_str()), "{path}: `{word}`");
    }
    assert!(!(object.contains_key("properties") && object.contains_key("additionalProperties")), "{path}");
    if object.get("type") == Some(&json!("array")) {
        assert!(object.contains_key("items"), "{path}");
    }
    for (name, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
        structural(property, &format!("{path}.{name}"));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = object.get(key) {
            structural(below, &format!("{path}.{key}"));
        }
    }
}

#[test]
fn definitions_are_structural() {
    for kind in KINDS {
        let definition = kind.crd();
        let version = &definition["spec"]["versions"][0];
        assert_eq!(version["name"], API_VERSION.split_once('/').unwrap().1);
        structural(&version["schema"]["openAPIV3Schema"], kind.name);
    }
}

#[test]
fn second_names_and_nulls_are_in_the_schema() {
    let schema = KINDS.iter().find(|kind| kind.name == "NodeProfile").unwrap().json_schema();
    let storage = &schema["properties"]["spec"]["properties"]["storage"];
    assert!(storage["properties"]["diskSize"].is_object(), "{storage}");
    assert_eq!(storage["not"], json!({"anyOf": [{"type": "object", "required": ["qcow_capacity", "diskSize"]}]}));
    assert!(storage["properties"]["partitions"]["type"].as_array().unwrap().contains(&json!("null")));
    assert_eq!(schema["required"], json!(["apiVersion", "kind", "metadata"]));
    assert_eq!(schema["additionalProperties"], json!(false));
}

fn misfits(text: &str) -> Vec<String> {
    let documents = load_str("a.yaml", text).unwrap();
    let found = of(&documents[0]).unwrap().misfits(&documents[0]);
    found.into_iter().map(|misfit| crate::error::Error::from(misfit.diagnostic).to_string()).collect()
}

const HEAD: &str = "apiVersion: airshipit.org/v1alpha1\nkind: NodeProfile\nmetadata: {name: x}\nspec:\n";

#[test]
fn all_errors_of_a_document_are_found() {
    let text = format!(
        "{HEAD}  storage:\n    qcow_capacity: lots\n    partitions:\n      - {{mont: /}}\n      - {{mount: /a, size: 1x}}\n      \
         - {{part_start: 1MiB}}\n  drivers: {{microcode: maybe}}\n  kernel:\n    grub: {{GRUB_TIMEOUT: -1}}\n    \
         initramfs: {{modules: all}}\n  softwre: {{}}\n"
    );
    let found = misfits(&text);
    let wanted = [
        ("a.yaml:6:20", "lots"),
        ("a.yaml:8:10", "mont"),
        ("a.yaml:8:9", "missing field `mount`"),
        ("a.yaml:9:27", "1x"),
        ("a.yaml:10:9", "missing field `mount`"),
        ("a.yaml:11:24", "a boolean"),
        ("a.yaml:13:26", "whole number"),
        ("a.yaml:14:26", "all"),
        ("a.yaml:15:3", "softwre"),
    ];
    for (place, word) in wanted {
        assert!(found.iter().any(|text| text.starts_with(place) && text.contains(word)), "{place} {word}: {found:#?}");
    }
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
}

#[test]
fn what_follows_from_an_error_is_not_told_again() {
    let found = misfits(&format!("{HEAD}  storage:\n    partitions:\n      - {{mount: [], part_start: 1MiB}}\n"));
    assert_eq!(found.len(), 1, "{found:#?}");
    let found = misfits("apiVersion: airshipit.org/v1alpha1\nkind: NodeProfile\nmetadata: {name: [x]}\n");
    assert_eq!(found.len(), 1, "{found:#?}");
}

#[test]
fn explaining_a_field() {
    let text = find("nodeprofile.spec.storage.partitions.filesystem.type").unwrap().text(false);
    for part in ["KIND:     NodeProfile", "FIELD: type <string> -required-", "VALUES: ext4, vfat"] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let text = find("NodeProfile.spec.kernel.sysctl[\"vm.swappiness\"]").unwrap().text(false);
    assert!(text.contains("FIELD: vm.swappiness <scalar>"), "{text}");
    let short = find("NodeProfile.spec.users.password").unwrap();
    assert_eq!(short.text(false), find("NodeProfile.spec.users.*.password").unwrap().text(false));
    assert!(short.text(false).contains("crypt(5) hash"));
    assert!(find("NodeProfile.spec.storage.diskSize").unwrap().text(false).contains("DEFAULT: 19G"));
    let tree = find("NodeProfile.spec.storage").unwrap().text(true);
    assert!(tree.contains("\n  partitions <list of object>\n    mount <string> -required-\n"), "{tree}");
    let json = find("NodeProfile.spec.storage").unwrap().json(false);
    let fields: Vec<&str> =
        json["fields"].as_array().unwrap().iter().filter_map(|field| field["name"].as_str()).collect();
    assert_eq!(fields, ["qcow_capacity", "partitions", "growRoot", "headroom"]);
}

#[test]
fn one_or_many_words_are_told() {
    let found = find("ImageConfiguration.spec.image.type").unwrap().json(false);
    assert_eq!(found["enum"], json!(["qcow", "raw", "iso", "netboot", "vmdk", "vhd", "tar", "root", "qcow2"]));
}

#[test]
fn wrong_names_get_the_nearest_one() {
    let hint = |path: &str| find(path).err().unwrap().hints().join(" ");
    assert!(hint("NodeProfil").contains("did you mean `NodeProfile`?"));
    assert!(hint("NodeProfile.spec.storge").contains("did you mean `storage`?"));
    assert!(hint("NodeProfile.spec.networking.hostname.x").contains("has no fields"));
    assert!(find("NodeProfile.spec[").is_err());
}
