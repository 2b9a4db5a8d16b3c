//! Nodes as JSON, spelt as Go spells it: keys sorted by their bytes, `<`, `>`, `&` escaped.
//!
//! Owns: [`compact`] (what hashes are made of), [`pretty`] (data inside of texts).

use crate::document::{Node, Resolved, Value, json_number, resolve};

pub fn compact(node: &Node, out: &mut String) {
    write(node, None, out);
}

/// With line breaks and two blanks a level.
pub fn pretty(node: &Node, out: &mut String) {
    write(node, Some(0), out);
}

fn write(node: &Node, level: Option<usize>, out: &mut String) {
    let deeper = level.map(|level| level + 1);
    let line = |out: &mut String, level: Option<usize>| {
        if let Some(level) = level {
            out.push('\n');
            out.push_str(&"  ".repeat(level));
        }
    };
    match &node.value {
        Value::Mapping(mapping) => {
            let mut entries: Vec<_> = mapping.entries.iter().collect();
            entries.sort_by(|a, b| a.key.text.cmp(&b.key.text));
            out.push('{');
            for (at, entry) in entries.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                line(out, deeper);
                quote(&entry.key.text, out);
                out.push_str(if level.is_some() { ": " } else { ":" });
                write(&entry.value, deeper, out);
            }
            if !entries.is_empty() {
                line(out, level);
            }
            out.push('}');
        }
        Value::Sequence(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                line(out, deeper);
                write(item, deeper, out);
            }
            if !items.is_empty() {
                line(out, level);
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
pub fn quote(text: &str, out: &mut String) {
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
