//! The table of origins: every value of a document with the places that made it what it is.
//!
//! Owns: [`origins`]. It goes beside an image, never into it: moving a line must not change bytes.

use super::node::{Node, Origin, Value};

/// One value: where it is in the document, and where it came from, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginEntry {
    /// A JSON pointer (RFC 6901).
    pub path: String,
    /// `file:line:column` of the value itself, then for every change, newest first, of the overlay entry that made
    /// it (`patch file:line:column`) and of what it replaced.
    pub chain: Vec<String>,
}

/// All scalars and empty collections of a document, in document order.
pub fn origins(node: &Node) -> Vec<OriginEntry> {
    let mut entries = Vec::new();
    collect(node, &mut String::new(), &mut entries);
    entries
}

fn collect(node: &Node, path: &mut String, entries: &mut Vec<OriginEntry>) {
    let length = path.len();
    match &node.value {
        Value::Mapping(mapping) if !mapping.is_empty() => {
            for entry in &mapping.entries {
                path.push('/');
                path.push_str(&entry.key.text.replace('~', "~0").replace('/', "~1"));
                collect(&entry.value, path, entries);
                path.truncate(length);
            }
        }
        Value::Sequence(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                path.push('/');
                path.push_str(&index.to_string());
                collect(item, path, entries);
                path.truncate(length);
            }
        }
        _ => entries.push(OriginEntry { path: path.clone(), chain: chain(&node.origin) }),
    }
}

fn chain(origin: &Origin) -> Vec<String> {
    let mut chain = vec![origin.at.to_string()];
    for change in origin.changes.iter().rev() {
        chain.push(format!("{} {}", change.kind.name(), change.by));
        chain.extend(change.replaced.as_ref().map(ToString::to_string));
    }
    chain
}
