//! From what the derive macro says to what we publish.
//!
//! Owns: [`tidy`] (one way to write what schemars writes in several) and [`for_editors`] (what YAML turns values into,
//! and what our decoder takes beside the declared type).

use serde_json::{Map, Value, json};

/// Calls `change` on a schema and all below, inner ones first.
pub(super) fn walk(schema: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    let Value::Object(fields) = schema else { return };
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(|property| walk(property, change));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = fields.get_mut(key) {
            walk(below, change);
        }
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(Value::Array(branches)) = fields.get_mut(key) {
            branches.iter_mut().for_each(|branch| walk(branch, change));
        }
    }
    change(fields);
}

pub(super) fn tidy(schema: &mut Value) {
    walk(schema, &mut |fields| {
        if fields.get("properties").is_some() || fields.get("default").is_some_and(Value::is_null) {
            // What a whole object defaults to is told by its fields.
            fields.remove("default");
        }
        without_null(fields);
        enumeration(fields);
        bounds(fields);
        if let (Some(Value::Array(more)), Some(Value::Array(values))) =
            (fields.remove("x-aliases"), fields.get_mut("enum"))
        {
            values.extend(more);
        }
        if let Some(Value::String(text)) = fields.get_mut("description") {
            *text = paragraphs(text);
        }
        if fields.get("default").is_some_and(|value| *value == json!({}) || *value == json!([])) {
            fields.remove("default");
        }
        fields.remove("title");
        required(fields);
        // A property whose schema is `true`.
        if let Some(Value::Object(properties)) = fields.get_mut("properties") {
            properties.values_mut().filter(|value| **value == json!(true)).for_each(|value| *value = json!({}));
        }
    });
}

/// Absent when nothing is.
fn required(fields: &mut Map<String, Value>) {
    if fields.get("required").is_some_and(|required| *required == json!([])) {
        fields.remove("required");
    }
}

/// Absent and null are the same to us; [`for_editors`] says so where it is so.
fn without_null(fields: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            fields.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = fields.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    for key in ["anyOf", "oneOf"] {
        let Some(Value::Array(branches)) = fields.get_mut(key) else { continue };
        branches.retain(|branch| *branch != json!({"type": "null"}));
        if let [Value::Object(only)] = branches.as_slice() {
            let only = only.clone();
            fields.remove(key);
            for (name, value) in only {
                match (name.as_str(), fields.get_mut("description")) {
                    // The field's comment comes first, then what its type says.
                    ("description", Some(Value::String(own))) => {
                        if let Some(of_type) = value.as_str().filter(|text| !own.contains(text)) {
                            *own = format!("{own}\n\n{of_type}");
                        }
                    }
                    _ => drop(fields.entry(name).or_insert(value)),
                }
            }
        }
    }
}

/// `oneOf` constants -> `enum`, what each means going to the description.
fn enumeration(fields: &mut Map<String, Value>) {
    let Some(Value::Array(branches)) = fields.get("oneOf") else { return };
    let mut values = Vec::new();
    let mut meanings = Vec::new();
    for branch in branches {
        match (branch.get("const"), branch.get("enum")) {
            (Some(value), None) => {
                let text = branch.get("description").and_then(Value::as_str).unwrap_or_default();
                meanings.push(format!("`{}`: {}", value.as_str().unwrap_or_default(), paragraphs(text)));
                values.push(value.clone());
            }
            (None, Some(Value::Array(several))) => values.extend(several.iter().cloned()),
            _ => return,
        }
    }
    fields.remove("oneOf");
    fields.insert("type".into(), "string".into());
    fields.insert("enum".into(), Value::Array(values));
    if !meanings.is_empty() {
        let text = fields.get("description").and_then(Value::as_str).unwrap_or_default();
        let separator = if text.is_empty() { "" } else { "\n\n" };
        let text = format!("{text}{separator}{}", meanings.join("\n\n"));
        fields.insert("description".into(), text.into());
    }
}

/// Whole numbers get the bounds of their type, which few readers take from `format`.
fn bounds(fields: &mut Map<String, Value>) {
    let (least, most) = match fields.get("format").and_then(Value::as_str) {
        Some("uint8") => (0, i64::from(u8::MAX)),
        Some("uint16") => (0, i64::from(u16::MAX)),
        Some("uint32") => (0, i64::from(u32::MAX)),
        Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => return,
    };
    fields.remove("format");
    fields.insert("minimum".into(), least.into());
    fields.insert("maximum".into(), most.into());
}

/// Lines of a paragraph are one; a blank line parts paragraphs.
fn paragraphs(text: &str) -> String {
    let joined = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    text.split("\n\n").map(joined).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n")
}

/// Text may be written as any scalar (`1.10`, `no`, `0644` arrive as written), a null field counts as absent, a field
/// may have a second name.
pub(super) fn for_editors(schema: &mut Value) {
    walk(schema, &mut |fields| {
        let notation = fields.remove("x-format");
        if let Some(units) = fields.remove("x-units").as_ref().and_then(Value::as_str) {
            let text = fields.get("description").and_then(Value::as_str).unwrap_or_default();
            let text = format!("{text}\n\nUnits: {units}.");
            fields.insert("description".into(), text.trim_start().into());
        }
        let is_text = fields.get("type").is_some_and(|kind| kind == "string")
            && !fields.contains_key("enum")
            && !fields.contains_key("const");
        if is_text && fields.contains_key("pattern") {
            fields.insert("type".into(), json!(["string", "integer"]));
            fields.insert("minimum".into(), 0.into());
            if notation.is_some_and(|notation| notation == "mode") {
                fields.insert("maximum".into(), 7777.into());
            }
        } else if is_text {
            fields.insert("type".into(), json!(["string", "number", "boolean"]));
        }
        aliases(fields);
        nullable(fields);
    });
}

/// A second name of a field is a field of its own; both at once are refused.
fn aliases(fields: &mut Map<String, Value>) {
    let mut refused = Vec::new();
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        let mut copies = Vec::new();
        for (name, property) in properties.iter_mut() {
            let alias = property.as_object_mut().and_then(|property| property.remove("x-alias"));
            if let Some(Value::String(alias)) = alias {
                let mut copy = property.clone();
                copy["description"] = format!("Another name of `{name}`.").into();
                // `required` alone says nothing of what is no object, `null` for one.
                refused.push(json!({"type": "object", "required": [name, alias]}));
                copies.push((alias, copy));
            }
        }
        properties.extend(copies);
    }
    if !refused.is_empty() {
        fields.insert("not".into(), json!({"anyOf": refused}));
    }
}

fn nullable(fields: &mut Map<String, Value>) {
    let required = fields.get("required").cloned().unwrap_or_default();
    let needed = |name: &str| required.as_array().is_some_and(|names| names.iter().any(|other| other == name));
    let Some(Value::Object(properties)) = fields.get_mut("properties") else { return };
    for (_, property) in properties.iter_mut().filter(|(name, _)| !needed(name)) {
        let Some(property) = property.as_object_mut() else { continue };
        match property.get_mut("type") {
            Some(Value::Array(types)) => types.push("null".into()),
            Some(Value::String(only)) => {
                let types = json!([only.clone(), "null"]);
                property.insert("type".into(), types);
            }
            _ => {
                if let Some(Value::Array(branches)) = property.get_mut("anyOf") {
                    branches.push(json!({"type": "null"}));
                }
            }
        }
        if let Some(Value::Array(values)) = property.get_mut("enum") {
            values.push(Value::Null);
        }
    }
}
