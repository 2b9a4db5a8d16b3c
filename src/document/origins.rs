//! The table of origins: every value of a document with the places that made it what it is.
//!
//! Owns: [`origins`] (as text), [`steps`] (the same as data, for one value) and their JSON ([`place`], [`steps_json`]).
//! It goes beside an image, never into it: moving a line must not change bytes.

use serde_json::{Value as Json, json};

use super::node::{Change, ChangeKind, Node, Origin, Value};
use super::source::Position;

/// One step in the making of a value.
#[derive(Debug, Clone)]
pub struct Step<'a> {
    /// `defined`, or the change as [`ChangeKind::name`] has it.
    pub action: &'static str,
    /// Of the definition: the value. Of a change: the entry of the overlay that asked for it.
    pub at: &'a Position,
    /// Where the value stands that a change brought; nothing where it made one of what was there (a name prefix).
    pub value: Option<&'a Position>,
    /// Where the value stands that was replaced.
    pub replaced: Option<&'a Position>,
}

/// How a value came to be, the definition first.
pub fn steps(origin: &Origin) -> Vec<Step<'_>> {
    let mut steps = Vec::with_capacity(origin.changes.len() + 1);
    let mut current = &origin.at;
    for change in changes(origin) {
        let replaced = replaced(change);
        let copied = change.kind == ChangeKind::Replacement;
        // What a collection lost is not what it was before.
        let lost = change.kind == ChangeKind::Removal;
        let value = (copied || (change.replaced.is_some() && !lost)).then_some(current);
        steps.push(Step { action: change.kind.name(), at: &change.by, value, replaced });
        // A copy goes on with the history of its source: what stood in its place is gone.
        current = replaced.filter(|_| !copied && !lost).unwrap_or(current);
    }
    steps.push(Step { action: "defined", at: current, value: None, replaced: None });
    steps.reverse();
    steps
}

/// Newest first. An entry that came upon the same value twice (by two of its paths) is told once.
fn changes(origin: &Origin) -> impl Iterator<Item = &Change> {
    let older = origin.changes.iter().rev().skip(1).map(Some).chain([None]);
    let again = |older: &Change, change: &Change| {
        older.kind == change.kind && older.by.same(&change.by) && change.kind != ChangeKind::Removal
    };
    let both = origin.changes.iter().rev().zip(older);
    both.filter(move |(change, older)| older.is_none_or(|older| !again(older, change))).map(|(change, _)| change)
}

/// What was there before. What the entry itself had made a moment ago does not count.
fn replaced(change: &Change) -> Option<&Position> {
    change.replaced.as_ref().filter(|replaced| !replaced.same(&change.by))
}

/// A place for programs. Line 0 is the whole file.
pub fn place(at: &Position) -> Json {
    json!({"file": at.file(), "line": at.line(), "column": at.column(), "overlay": at.overlay(), "text": at.text()})
}

/// [`steps`] for programs.
pub fn steps_json(origin: &Origin) -> Json {
    let step = |step: Step<'_>| {
        let mut object = place(step.at);
        object["action"] = step.action.into();
        if step.action != "defined" {
            // Of an entry of an overlay, its first line says little; the value is what counts.
            object["text"] = step.value.map(Position::text).into();
            object["value"] = step.value.map_or(Json::Null, place);
            object["replaced"] = step.replaced.map_or(Json::Null, place);
        }
        object
    };
    steps(origin).into_iter().map(step).collect()
}

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
    for change in changes(origin) {
        chain.push(format!("{} {}", change.kind.name(), change.by));
        chain.extend(replaced(change).map(ToString::to_string));
    }
    chain
}
