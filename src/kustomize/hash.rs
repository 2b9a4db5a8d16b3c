//! The suffix of generated names: a hash of what the object holds.
//!
//! Owns: [`add_to_names`], [`of`]. The text that is hashed is compact JSON with sorted keys, spelt as Go spells it; of the
//! name nothing counts. Facts: behaviour of kustomize 5, recomputed.

use sha2::{Digest, Sha256};

use super::json::compact as json;
use super::resource::Resources;
use crate::document::{Cause, ChangeKind, Node, Scalar, Style, Tag, Value};
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
