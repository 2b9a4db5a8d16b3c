//! The suffix of generated names: a hash of what the object holds.
//!
//! Owns: [`add_to_names`], [`of`]. The text that is hashed is compact JSON with sorted keys, spelt as Go spells it; of the
//! name nothing counts. Facts: behaviour of kustomize 5, recomputed.

use sha2::{Digest, Sha256};

use super::resource::Resources;
use crate::document::{Cause, ChangeKind, Node, Resolved, Scalar, Style, Tag, Value, json_number, resolve};
use crate::error::Result;

/// Appends the hash to the name of everything generated that wants it.
pub fn add_to_names(resources: &mut Resources) -> Result<()> {
    for at in 0..resources.len() {
        if resources.get(at).needs_hash {
            resources.edit(at, |resource| {
                let hash = of(&resource.node);
                resource.remember();
                let by = resource.node.origin.at.clone();
                let name = resource.node.get_mut("metadata").and_then(|metadata| metadata.get_mut("name"));
                if let Some(name) = name {
                    let text = format!("{}-{hash}", name.text().unwrap_or_default());
                    name.value = Value::Scalar(Scalar { text, style: Style::DoubleQuoted, tag: Some(Tag::Str) });
                    name.origin.changes.push(Cause::new(ChangeKind::Hash, &by).change(None));
                }
            });
        }
    }
    Ok(())
}

pub fn of(object: &Node) -> String {
    let kind = object.get("kind").and_then(Node::text).unwrap_or_default();
    let mut text = String::new();
    let field = |text: &mut String, name: &str| match object.get(name) {
        Some(value) => json(value, text),
        None => text.push_str("\"\""),
    };
    match kind {
        "ConfigMap" => {
            text.push('{');
            if let Some(value) = object.get("binaryData").filter(|value| value.as_mapping().is_some()) {
                text.push_str("\"binaryData\":");
                json(value, &mut text);
                text.push(',');
            }
            text.push_str("\"data\":");
            field(&mut text, "data");
            text.push_str(",\"kind\":\"ConfigMap\",\"name\":\"\"}");
        }
        "Secret" => {
            text.push_str("{\"data\":");
            field(&mut text, "data");
            text.push_str(",\"kind\":\"Secret\",\"name\":\"\"");
            if let Some(value) = object.get("stringData").filter(|value| value.as_mapping().is_some()) {
                text.push_str(",\"stringData\":");
                json(value, &mut text);
            }
            text.push_str(",\"type\":");
            field(&mut text, "type");
            text.push('}');
        }
        _ => json(object, &mut text),
    }
    let digest = Sha256::digest(text.as_bytes());
    let hex = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect::<String>();
    hex.chars()
        .map(|digit| match digit {
            '0' => 'g',
            '1' => 'h',
            '3' => 'k',
            'a' => 'm',
            'e' => 't',
            other => other,
        })
        .collect()
}

/// Compact JSON, keys sorted by their bytes.
fn json(node: &Node, out: &mut String) {
    match &node.value {
        Value::Mapping(mapping) => {
            let mut entries: Vec<_> = mapping.entries.iter().collect();
            entries.sort_by(|a, b| a.key.text.cmp(&b.key.text));
            out.push('{');
            for (at, entry) in entries.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                quote(&entry.key.text, out);
                out.push(':');
                json(&entry.value, out);
            }
            out.push('}');
        }
        Value::Sequence(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                json(item, out);
            }
            out.push(']');
        }
        Value::Scalar(scalar) => match resolve(scalar) {
            Resolved::Null => out.push_str("null"),
            Resolved::Bool(value) => out.push_str(if value { "true" } else { "false" }),
            Resolved::Int(value) => out.push_str(&value.to_string()),
            Resolved::Float(value) => out.push_str(&json_number(value)),
            Resolved::Timestamp(text) => quote(&text, out),
            Resolved::Str(text) => quote(text, out),
        },
    }
}

/// A JSON string as Go writes it: `<`, `>`, `&` and the line separators of Unicode escaped.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", character as u32)),
            control if (control as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
}
