//! CustomResourceDefinitions with structural schemas, as the API server wants them.
//!
//! Stricter than the program in one thing: Kubernetes has no "any scalar", so text is a string there, and a number or
//! a string where numbers are usual. Unknown fields are pruned by the server, which is its way to refuse them
//! (`kubectl --validate=strict` names them).

use serde_json::{Map, Value, json};

use super::{Kind, tidy};

pub(super) fn crd(kind: &Kind, mut schema: Value) -> Value {
    let singular = kind.name.to_lowercase();
    tidy::walk(&mut schema, &mut structural);
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    // The server knows metadata itself and allows nothing to be said about it but its name.
    schema["properties"]["metadata"] = json!({"type": "object"});
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("$schema");
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.airshipit.org", kind.plural)},
        "spec": {
            "group": "airshipit.org",
            "names": {
                "kind": kind.name,
                "listKind": format!("{}List", kind.name),
                "plural": kind.plural,
                "singular": singular,
            },
            "scope": "Namespaced",
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

fn structural(fields: &mut Map<String, Value>) {
    let notation = fields.remove("x-format");
    if let Some(units) = fields.remove("x-units").as_ref().and_then(Value::as_str) {
        let text = fields.get("description").and_then(Value::as_str).unwrap_or_default();
        let text = format!("{text}\n\nUnits: {units}.");
        fields.insert("description".into(), text.trim_start().into());
    }
    fields.remove("x-alias");
    fields.remove("examples");
    if fields.get("additionalProperties").is_some_and(|value| *value == json!(false)) {
        fields.remove("additionalProperties");
    }
    // A number would lose its leading zero on the way to the server: a mode has to be a string there.
    if notation.is_some_and(|notation| notation != "mode") {
        fields.remove("type");
        fields.insert("x-kubernetes-int-or-string".into(), true.into());
    }
    if fields.remove("anyOf").is_some()
        || !(fields.contains_key("type") || fields.contains_key("x-kubernetes-int-or-string"))
    {
        fields.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
    }
    nullable(fields);
}

/// A null field counts as absent.
fn nullable(fields: &mut Map<String, Value>) {
    let required = fields.get("required").cloned().unwrap_or_default();
    let needed = |name: &str| required.as_array().is_some_and(|names| names.iter().any(|other| other == name));
    let Some(Value::Object(properties)) = fields.get_mut("properties") else { return };
    for (_, property) in properties.iter_mut().filter(|(name, _)| !needed(name)) {
        if let Some(property) = property.as_object_mut().filter(|property| !property.contains_key("const")) {
            property.insert("nullable".into(), true.into());
            if let Some(Value::Array(values)) = property.get_mut("enum") {
                values.push(Value::Null);
            }
        }
    }
}
