//! Values as YAML files that people might have written: block style, scalars in one of several styles.

use serde_json::Value;

use super::random::Random;

/// A text that starts with this is written as it is, without quotes.
pub const RAW: char = '\u{1}';

pub fn write(random: &mut Random, value: &Value, out: &mut String) {
    node(random, value, 0, out);
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

pub fn document(random: &mut Random, value: &Value) -> String {
    let mut out = String::new();
    if random.once_in(20) {
        out.push_str("# a note\n");
    }
    write(random, value, &mut out);
    out
}

fn node(random: &mut Random, value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (at, (key, value)) in map.iter().enumerate() {
                if at > 0 || !out.ends_with("- ") {
                    out.push_str(&" ".repeat(indent));
                }
                let quoted = serde_json::to_string(key).unwrap();
                let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '$')
                    && key.chars().all(|c| c.is_ascii_alphanumeric() || "$-_./".contains(c));
                // A plain `on` is text as a key of a resource, but a boolean to older readers.
                out.push_str(if plain && !["on", "yes", "y", "n", "no"].contains(&key.as_str()) {
                    key
                } else {
                    &quoted
                });
                out.push(':');
                child(random, value, indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                out.push_str(&" ".repeat(indent));
                out.push_str("- ");
                match item {
                    Value::Object(map) if !map.is_empty() => node(random, item, indent + 2, out),
                    Value::Array(list) if !list.is_empty() => {
                        out.push('\n');
                        node(random, item, indent + 2, out);
                    }
                    _ => leaf(random, item, indent + 2, out),
                }
            }
        }
        _ => leaf(random, value, indent, out),
    }
}

fn child(random: &mut Random, value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            node(random, value, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            let deeper = if random.once_in(2) { 2 } else { 0 };
            node(random, value, indent + deeper, out);
        }
        _ => {
            out.push(' ');
            leaf(random, value, indent + 2, out);
        }
    }
}

fn leaf(random: &mut Random, value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::String(text) if text.starts_with(RAW) => out.push_str(&text[1..]),
        Value::String(text) => string(random, text, indent, out),
        other => out.push_str(&other.to_string()),
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

fn string(random: &mut Random, text: &str, indent: usize, out: &mut String) {
    let safe = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '$' || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "$-_./()=@ :".contains(c))
        && !text.contains(": ")
        && !text.ends_with([' ', ':'])
        && !["true", "null", "on", "yes", "no"].contains(&text);
    let pad = " ".repeat(indent.max(2));
    let block = !text.is_empty()
        && text.chars().all(|c| c == '\n' || (' '..'\u{7f}').contains(&c))
        && !text.starts_with([' ', '\n'])
        && !text.trim_end_matches('\n').is_empty();
    let breaks = text.len() - text.trim_end_matches('\n').len();
    match random.below(6) {
        0..=2 if safe => out.push_str(text),
        3 if !text.contains(['\n', '\t']) => {
            out.push('\'');
            out.push_str(&text.replace('\'', "''"));
            out.push('\'');
        }
        4 if block => {
            out.push_str(["|-\n", "|\n", "|+\n"][breaks.min(2)]);
            for line in text.trim_end_matches('\n').split('\n') {
                out.push_str(&pad);
                out.push_str(line);
                out.push('\n');
            }
            (1..breaks).for_each(|_| out.push('\n'));
        }
        _ => out.push_str(&serde_json::to_string(text).unwrap()),
    }
}
