//! Where each field takes effect, in the published schemas: `x-realm` in JSON Schema, and a sentence where a field belongs
//! elsewhere than what it lies in.
//!
//! Owns: [`mark`]. The table is that of [`crate::api::realm`], which `explain` and `validate` ask, too.

use serde_json::Value;

use crate::api::realm::{Realm, of_field};

/// Marks all fields of a kind's schema; `keyword` for JSON Schema, which may have keywords of our own.
pub fn mark(schema: &mut Value, kind: &str, keyword: bool) {
    below(schema, &mut Marks { kind, keyword, path: Vec::new() }, None);
}

struct Marks<'a> {
    kind: &'a str,
    keyword: bool,
    path: Vec<String>,
}

fn below(schema: &mut Value, marks: &mut Marks<'_>, around: Option<Realm>) {
    let Some(fields) = schema.as_object_mut() else { return };
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties {
            // These say what a document is, not what is done.
            if marks.path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
                continue;
            }
            marks.path.push(name.clone());
            field(property, marks, around);
            marks.path.pop();
        }
    }
    for key in ["additionalProperties", "items"] {
        if let Some(inner) = fields.get_mut(key) {
            below(inner, marks, around);
        }
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(choices) = fields.get_mut(key).and_then(Value::as_array_mut) {
            choices.iter_mut().for_each(|choice| below(choice, marks, around));
        }
    }
}

fn field(property: &mut Value, marks: &mut Marks<'_>, around: Option<Realm>) {
    let realm = of_field(marks.kind, &marks.path);
    if let Some(fields) = property.as_object_mut() {
        if around.is_some_and(|around| around != realm) {
            let description = fields.get("description").and_then(Value::as_str).unwrap_or_default();
            let text = format!("{description}\n\nThis belongs {}.", realm.place());
            fields.insert("description".into(), text.trim_start().into());
        }
        if marks.keyword {
            fields.insert("x-realm".into(), realm.name().into());
        }
    }
    below(property, marks, Some(realm));
}
