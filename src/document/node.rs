//! The tree that everything above works on: mappings, sequences, scalars, each with its origin.
//!
//! Owns: [`Node`], [`Mapping`], [`Scalar`], [`Origin`] and walking them. A scalar stays the text its author wrote
//! until a typed field asks, so `0644`, `no` and `1.10` survive. Two nodes are equal when they mean the same;
//! origins do not count.

use super::scalar::{Resolved, resolve};
use super::source::{Position, Source};

/// Bytes of text that weigh as much as a node.
const TEXT_WEIGHT: usize = 256;

#[derive(Debug, Clone)]
pub struct Node {
    pub value: Value,
    pub origin: Origin,
}

#[derive(Debug, Clone)]
pub enum Value {
    Mapping(Mapping),
    Sequence(Vec<Node>),
    Scalar(Scalar),
}

/// How a scalar was written. Only [`Style::Plain`] text may mean anything but a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Literal,
    Folded,
}

/// The core tags of YAML 1.2 that a scalar may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    Str,
    Int,
    Float,
    Bool,
    Null,
}

#[derive(Debug, Clone)]
pub struct Scalar {
    pub text: String,
    pub style: Style,
    pub tag: Option<Tag>,
}

/// Where a value came from: the place that supplied it, and what happened to it since it was first set.
#[derive(Debug, Clone)]
pub struct Origin {
    pub at: Position,
    /// Oldest first.
    pub changes: Vec<Change>,
}

/// One change of a value by an overlay.
#[derive(Debug, Clone)]
pub struct Change {
    pub kind: ChangeKind,
    /// The entry that made the change (in a kustomization), not the value itself: that is [`Origin::at`].
    pub by: Position,
    /// Where the value stood that was replaced.
    pub replaced: Option<Position>,
}

/// What changes values, named as kustomize names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Patch,
    JsonPatch,
    Replacement,
    Generator,
    Hash,
    Namespace,
    Prefix,
    Suffix,
    Label,
    Annotation,
    Image,
    Replicas,
    /// A name elsewhere that followed the object it names.
    Reference,
    Variable,
    /// The plugin `ValueAddTransformer`.
    ValueAdd,
    /// Of a mapping or list: a key or an element was taken out, which stood where [`Change::replaced`] says.
    Removal,
    /// A function in a container.
    Function,
}

impl ChangeKind {
    pub fn name(self) -> &'static str {
        match self {
            ChangeKind::Patch => "patch",
            ChangeKind::JsonPatch => "JSON patch",
            ChangeKind::Replacement => "replacement",
            ChangeKind::Generator => "generator",
            ChangeKind::Hash => "hash of the content",
            ChangeKind::Namespace => "namespace",
            ChangeKind::Prefix => "name prefix",
            ChangeKind::Suffix => "name suffix",
            ChangeKind::Label => "label",
            ChangeKind::Annotation => "annotation",
            ChangeKind::Image => "image",
            ChangeKind::Replicas => "replicas",
            ChangeKind::Reference => "name reference",
            ChangeKind::Variable => "variable",
            ChangeKind::ValueAdd => "value added",
            ChangeKind::Removal => "removal",
            ChangeKind::Function => "function",
        }
    }
}

/// Who changes a value: the kind of change and the entry of a kustomization that asks for it.
#[derive(Debug, Clone, Copy)]
pub struct Cause<'a> {
    pub kind: ChangeKind,
    pub by: &'a Position,
}

impl<'a> Cause<'a> {
    pub fn new(kind: ChangeKind, by: &'a Position) -> Self {
        Cause { kind, by }
    }

    pub fn change(&self, replaced: Option<Position>) -> Change {
        Change { kind: self.kind, by: self.by.clone(), replaced }
    }

    /// Records on a value that is put somewhere who put it there, and what was known of the value it replaces.
    pub fn stamp(&self, value: &mut Node, before: Option<&Node>) {
        value.walk_mut(&mut |node| node.origin.changes.push(self.change(None)));
        if let Some(before) = before {
            value.origin.changes.clone_from(&before.origin.changes);
            value.origin.changes.push(self.change(Some(before.origin.at.clone())));
        }
    }
}

impl Origin {
    /// Notes on a collection that something was taken out of it.
    pub fn lost(&mut self, by: &Position, removed: &Node) {
        let replaced = Some(removed.origin.at.clone());
        self.changes.push(Change { kind: ChangeKind::Removal, by: by.clone(), replaced });
    }

    pub fn new(at: Position) -> Self {
        Origin { at, changes: Vec::new() }
    }

    /// For values made by code: `name` says by what.
    pub fn built(name: &str) -> Self {
        Origin::new(Position::whole(&Source::new(name, "")))
    }
}

/// A key of a mapping.
#[derive(Debug, Clone)]
pub struct Key {
    pub text: String,
    pub at: Position,
    /// Whether it was written so that YAML reads it as a string (`1:` is not).
    pub is_string: bool,
}

impl Key {
    /// A key made by an entry at `at`.
    pub fn new(text: impl Into<String>, at: &Position) -> Self {
        Key { text: text.into(), at: at.clone(), is_string: true }
    }
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Key,
    pub value: Node,
}

/// An ordered mapping with text keys. Lookups are linear: mappings of documents are small, and the few large ones
/// are walked, not searched.
#[derive(Debug, Clone, Default)]
pub struct Mapping {
    pub entries: Vec<Entry>,
}

impl Mapping {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|entry| entry.key.text == key).map(|entry| &entry.value)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries.iter_mut().find(|entry| entry.key.text == key).map(|entry| &mut entry.value)
    }

    pub fn position(&self, key: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key.text == key)
    }

    /// Sets a value, in place where the key exists, else at the end. Returns what was there.
    pub fn set(&mut self, key: Key, value: Node) -> Option<Node> {
        match self.get_mut(&key.text) {
            Some(slot) => Some(std::mem::replace(slot, value)),
            None => {
                self.entries.push(Entry { key, value });
                None
            }
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<Node> {
        self.position(key).map(|at| self.entries.remove(at).value)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Node {
    pub fn new(value: Value, origin: Origin) -> Self {
        Node { value, origin }
    }

    /// A string, quoted as needed on output.
    pub fn string(text: impl Into<String>, origin: Origin) -> Self {
        let scalar = Scalar { text: text.into(), style: Style::DoubleQuoted, tag: None };
        Node::new(Value::Scalar(scalar), origin)
    }

    /// A scalar that means what its plain text means: `true`, `12`, `null`.
    pub fn plain(text: impl Into<String>, origin: Origin) -> Self {
        let scalar = Scalar { text: text.into(), style: Style::Plain, tag: None };
        Node::new(Value::Scalar(scalar), origin)
    }

    /// Puts another value in place of this one, and records who did.
    pub fn replace(&mut self, mut value: Node, cause: Cause<'_>) {
        cause.stamp(&mut value, Some(self));
        *self = value;
    }

    /// Gives a scalar another text that is written as the old one was, so that it may come to mean another type.
    pub fn rewrite(&mut self, text: impl Into<String>, cause: Cause<'_>) {
        let style = self.as_scalar().map_or(Style::Plain, |scalar| scalar.style);
        self.value = Value::Scalar(Scalar { text: text.into(), style, tag: None });
        self.origin.changes.push(cause.change(None));
    }

    /// Appends an entry to a mapping, or puts a value in place of that under the key, and records who did.
    pub fn put(&mut self, key: &str, mut value: Node, cause: Cause<'_>) {
        let Value::Mapping(mapping) = &mut self.value else { return };
        match mapping.get_mut(key) {
            Some(slot) => slot.replace(value, cause),
            None => {
                cause.stamp(&mut value, None);
                mapping.entries.push(Entry { key: Key::new(key, cause.by), value });
            }
        }
    }

    pub fn mapping(origin: Origin) -> Self {
        Node::new(Value::Mapping(Mapping::default()), origin)
    }

    pub fn sequence(items: Vec<Node>, origin: Origin) -> Self {
        Node::new(Value::Sequence(items), origin)
    }

    pub fn as_mapping(&self) -> Option<&Mapping> {
        match &self.value {
            Value::Mapping(mapping) => Some(mapping),
            _ => None,
        }
    }

    pub fn as_mapping_mut(&mut self) -> Option<&mut Mapping> {
        match &mut self.value {
            Value::Mapping(mapping) => Some(mapping),
            _ => None,
        }
    }

    pub fn as_sequence(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_sequence_mut(&mut self) -> Option<&mut Vec<Node>> {
        match &mut self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The raw text of a scalar that is not null.
    pub fn text(&self) -> Option<&str> {
        self.as_scalar().filter(|_| !self.is_null()).map(|scalar| scalar.text.as_str())
    }

    pub fn is_null(&self) -> bool {
        self.as_scalar().is_some_and(|scalar| matches!(resolve(scalar), Resolved::Null))
    }

    /// The value under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_mapping()?.get(key)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.as_mapping_mut()?.get_mut(key)
    }

    /// The value at a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The value at a JSON pointer (RFC 6901): `/spec/params/kernel/commandLine/0`.
    pub fn pointer(&self, pointer: &str) -> Option<&Node> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer.strip_prefix('/')?.split('/').try_fold(self, |node, token| {
            let token = token.replace("~1", "/").replace("~0", "~");
            match &node.value {
                Value::Mapping(mapping) => mapping.get(&token),
                Value::Sequence(items) => items.get(token.parse::<usize>().ok()?),
                Value::Scalar(_) => None,
            }
        })
    }

    /// What it is, for messages.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Mapping(_) => "a mapping".into(),
            Value::Sequence(_) => "a list".into(),
            Value::Scalar(scalar) => resolve(scalar).describe(&scalar.text),
        }
    }

    /// Calls `visit` on this node and all below, parents first.
    pub fn walk_mut(&mut self, visit: &mut impl FnMut(&mut Node)) {
        visit(self);
        match &mut self.value {
            Value::Mapping(mapping) => mapping.entries.iter_mut().for_each(|entry| entry.value.walk_mut(visit)),
            Value::Sequence(items) => items.iter_mut().for_each(|item| item.walk_mut(visit)),
            Value::Scalar(_) => {}
        }
    }

    /// What a copy of this costs: one for each node, and one for every 256 bytes of text and keys.
    pub fn weight(&self) -> usize {
        1 + match &self.value {
            Value::Mapping(mapping) => {
                mapping.entries.iter().map(|entry| entry.key.text.len() / TEXT_WEIGHT + entry.value.weight()).sum()
            }
            Value::Sequence(items) => items.iter().map(Node::weight).sum::<usize>(),
            Value::Scalar(scalar) => scalar.text.len() / TEXT_WEIGHT,
        }
    }
}

/// Equality of meaning: key order, style and origin do not count; `1` and `"1"` differ.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Mapping(a), Value::Mapping(b)) => {
                // In the same order, mostly: then nothing is searched for.
                let beside = |at: usize, key: &str| b.entries.get(at).filter(|other| other.key.text == key);
                let find = |at: usize, key: &str| beside(at, key).map(|other| &other.value).or_else(|| b.get(key));
                let mut entries = a.entries.iter().enumerate();
                a.len() == b.len()
                    && entries.all(|(at, entry)| find(at, &entry.key.text).is_some_and(|value| *value == entry.value))
            }
            (Value::Sequence(a), Value::Sequence(b)) => a == b,
            (Value::Scalar(a), Value::Scalar(b)) => resolve(a) == resolve(b),
            _ => false,
        }
    }
}
