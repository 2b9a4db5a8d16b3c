//! `configMapGenerator`, `secretGenerator` and their plugins: objects made of literals and files.
//!
//! Owns: [`GeneratorEntry`] (as written), [`generate`], [`absorb`] (what happens where the object is there already).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::place::Place;
use super::resource::{Behavior, Resource, Resources};
use super::transformer::{elements, field, find_field};
use crate::document::{Cause, ChangeKind, Diagnostic, Entry, Key, Node, Origin, Position, Source, Value};
use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ConfigMap,
    Secret,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GeneratorEntry {
    pub name: String,
    pub namespace: String,
    pub behavior: String,
    pub literals: Vec<String>,
    pub files: Vec<String>,
    pub envs: Vec<String>,
    pub env: String,
    /// Of secrets.
    pub r#type: String,
    pub options: GeneratorOptions,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GeneratorOptions {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub disable_name_suffix_hash: bool,
    pub immutable: bool,
}

/// Columns of a line of Base64.
const LINE: usize = 70;

/// One object. `options` are the nodes that hold options, the most general first.
pub fn generate(
    kind: Kind,
    typed: &GeneratorEntry,
    entry: &Node,
    globals: Option<(&GeneratorOptions, &Node)>,
    place: &Place,
) -> Result<Resource> {
    let by = &entry.origin.at;
    if typed.name.is_empty() {
        return Err(Diagnostic::on(entry, "generator without `name`").into());
    }
    let made = |text: &str| Node::string(text, Origin::new(by.clone()));
    let mut object = Node::mapping(Origin::new(by.clone()));
    let mut set = |key: &str, value: Node| push(&mut object, key, value, by);
    set("apiVersion", made("v1"));
    set("kind", made(if kind == Kind::Secret { "Secret" } else { "ConfigMap" }));
    set("metadata", metadata(typed, entry, globals));
    let pairs = pairs(typed, entry, place)?;
    let (data, binary) = data(kind, pairs, entry)?;
    if kind == Kind::Secret || data.as_mapping().is_some_and(|map| !map.is_empty()) {
        set("data", data);
    }
    if binary.as_mapping().is_some_and(|map| !map.is_empty()) {
        set("binaryData", binary);
    }
    if kind == Kind::Secret {
        let secret_type = find_field(entry, "type").filter(|node| node.text().is_some_and(|text| !text.is_empty()));
        set("type", secret_type.cloned().unwrap_or_else(|| made("Opaque")));
    }
    if typed.options.immutable || globals.is_some_and(|(global, _)| global.immutable) {
        set("immutable", Node::plain("true", Origin::new(by.clone())));
    }
    let mut resource = Resource::new(object);
    resource.behavior = behavior(&typed.behavior);
    let plain_name = typed.options.disable_name_suffix_hash || globals.is_some_and(|(g, _)| g.disable_name_suffix_hash);
    resource.needs_hash = !plain_name;
    resource.generated = true;
    Ok(resource)
}

/// What is not known counts as `create`.
pub fn behavior(text: &str) -> Behavior {
    match text {
        "merge" => Behavior::Merge,
        "replace" => Behavior::Replace,
        _ => Behavior::Create,
    }
}

fn push(object: &mut Node, key: &str, mut value: Node, by: &Position) {
    Cause::new(ChangeKind::Generator, by).stamp(&mut value, None);
    if let Value::Mapping(mapping) = &mut object.value {
        mapping.entries.push(Entry { key: Key::new(key, by), value });
    }
}

fn metadata(typed: &GeneratorEntry, entry: &Node, globals: Option<(&GeneratorOptions, &Node)>) -> Node {
    let by = &entry.origin.at;
    let text = |name: &str, text: &str| {
        let at = find_field(entry, name).map_or(by, |node| &node.origin.at);
        Node::string(text, Origin::new(at.clone()))
    };
    let mut metadata = Node::mapping(Origin::new(by.clone()));
    let mut set = |key: &str, value: Node| {
        if let Value::Mapping(mapping) = &mut metadata.value {
            mapping.entries.push(Entry { key: Key::new(key, by), value });
        }
    };
    set("name", text("name", &typed.name));
    if !typed.namespace.is_empty() {
        set("namespace", text("namespace", &typed.namespace));
    }
    for (name, of) in
        [("labels", label_map as fn(&GeneratorOptions) -> &BTreeMap<String, String>), ("annotations", annotation_map)]
    {
        let mut merged: BTreeMap<&str, Node> = BTreeMap::new();
        let local = (&typed.options, field(entry, "options"));
        for (options, node) in globals.into_iter().chain([local]) {
            for (key, value) in of(options) {
                let at = find_field(node, name).and_then(|map| map.get(key)).map_or(by, |node| &node.origin.at);
                merged.insert(key, Node::string(value.as_str(), Origin::new(at.clone())));
            }
        }
        if !merged.is_empty() {
            let mut map = Node::mapping(Origin::new(by.clone()));
            if let Value::Mapping(mapping) = &mut map.value {
                mapping.entries =
                    merged.into_iter().map(|(key, value)| Entry { key: Key::new(key, by), value }).collect();
            }
            set(name, map);
        }
    }
    metadata
}

fn label_map(options: &GeneratorOptions) -> &BTreeMap<String, String> {
    &options.labels
}

fn annotation_map(options: &GeneratorOptions) -> &BTreeMap<String, String> {
    &options.annotations
}

/// A key, what it stands for, and where that was written.
struct Pair {
    key: String,
    value: Vec<u8>,
    at: Position,
}

fn pairs(typed: &GeneratorEntry, entry: &Node, place: &Place) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    let mut envs: Vec<&Node> = elements(entry, "envs").iter().collect();
    envs.extend(find_field(entry, "env").filter(|_| !typed.env.is_empty()));
    for node in envs {
        env_file(node, place, &mut pairs)?;
    }
    for node in elements(entry, "literals") {
        let text = node.text().unwrap_or_default();
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Diagnostic::on(node, format!("literal `{text}` is not `key=value`")).into());
        };
        pairs.push(Pair { key: key.into(), value: unquoted(value).into(), at: node.origin.at.clone() });
    }
    for node in elements(entry, "files") {
        let text = node.text().unwrap_or_default();
        let (key, path) = match text.split_once('=') {
            None => (text.rsplit('/').next().unwrap_or(text), text),
            Some((key, path)) if !key.is_empty() && !path.is_empty() && !path.contains('=') => (key, path),
            Some(_) => {
                return Err(Diagnostic::on(node, format!("`{text}` is neither a path nor `key=path`")).into());
            }
        };
        let (value, shown) = place.read(node, path)?;
        let at = Position::whole(&Source::in_folder(shown, "", Some(&place.name())));
        pairs.push(Pair { key: key.into(), value, at });
    }
    Ok(pairs)
}

fn unquoted(text: &str) -> &str {
    let quoted = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    quoted('"').or_else(|| quoted('\'')).unwrap_or(text)
}

fn env_file(node: &Node, place: &Place, pairs: &mut Vec<Pair>) -> Result<()> {
    let (bytes, shown) = place.read(node, node.text().unwrap_or_default())?;
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Err(Diagnostic::on(node, format!("{shown} is not UTF-8")).into());
    };
    let source = Source::in_folder(shown, text, Some(&place.name()));
    for (number, line) in text.lines().enumerate() {
        let line = if number == 0 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        if !key.is_empty() {
            pairs.push(Pair { key: key.into(), value: value.into(), at: Position::line_of(&source, number + 1) });
        }
    }
    Ok(())
}

fn data(kind: Kind, pairs: Vec<Pair>, entry: &Node) -> Result<(Node, Node)> {
    let by = &entry.origin.at;
    let mut data = Node::mapping(Origin::new(by.clone()));
    let mut binary = Node::mapping(Origin::new(by.clone()));
    let mut seen: BTreeMap<String, Position> = BTreeMap::new();
    for Pair { key, value, at } in pairs {
        if let Some(first) = seen.insert(key.clone(), at.clone()) {
            return Err(Diagnostic::on(entry, format!("key `{key}` is given twice"))
                .note(&first, "first")
                .note(&at, "again")
                .into());
        }
        let (target, text) = match (kind, String::from_utf8(value)) {
            (Kind::ConfigMap, Ok(text)) => (&mut data, text),
            (Kind::ConfigMap, Err(bytes)) => (&mut binary, base64(bytes.as_bytes())),
            (Kind::Secret, Ok(text)) => (&mut data, base64(text.as_bytes())),
            (Kind::Secret, Err(bytes)) => (&mut data, base64(bytes.as_bytes())),
        };
        if let Value::Mapping(mapping) = &mut target.value {
            mapping.entries.push(Entry { key: Key::new(key, &at), value: Node::string(text, Origin::new(at)) });
        }
    }
    Ok((data, binary))
}

/// In lines, if it is long.
fn base64(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    if text.len() < LINE {
        return text;
    }
    let mut lines = String::with_capacity(text.len() + text.len() / LINE + 1);
    for line in text.as_bytes().chunks(LINE) {
        lines.extend(line.iter().map(|byte| char::from(*byte)));
        lines.push('\n');
    }
    lines
}

/// Adds a generated object to what is there: as it is, or by its behavior into one that is or was the same.
pub fn absorb(resources: &mut Resources, mut resource: Resource, by: &Position) -> Result<()> {
    let found = resources.find(resource.id());
    match (&found[..], resource.behavior) {
        ([], Behavior::Create) => resources.push(resource),
        ([], _) => {
            let id = resource.id().clone();
            let diagnostic = Diagnostic::at(by, format!("there is no {id} to merge into or replace"));
            Err(match resources.nearest(&id) {
                Some(hint) => diagnostic.hint(hint),
                None => diagnostic,
            }
            .into())
        }
        ([at], Behavior::Create) => Err(Diagnostic::at(by, format!("{} exists already", resource.id()))
            .note(&resources.get(*at).node.origin.at, "defined here")
            .hint("`behavior: merge` or `behavior: replace` changes it")
            .into()),
        ([at], behavior) => {
            let old = resources.get(*at);
            inherit(&mut resource, old, behavior == Behavior::Merge, by);
            resources.substitute(*at, resource);
            Ok(())
        }
        _ => Err(Diagnostic::at(by, format!("more than one object is or was {}", resource.id())).into()),
    }
}

/// What a generated object takes over from the one it replaces.
fn inherit(new: &mut Resource, old: &Resource, merges: bool, by: &Position) {
    let cause = Cause::new(ChangeKind::Generator, by);
    let fields: &[&[&str]] = match merges {
        true => &[&["metadata", "labels"], &["metadata", "annotations"], &["data"], &["binaryData"]],
        false => &[&["metadata", "labels"], &["metadata", "annotations"]],
    };
    for path in fields {
        let Some(before) = old.node.at(path).filter(|node| node.as_mapping().is_some_and(|map| !map.is_empty())) else {
            continue;
        };
        let mut merged = before.clone();
        for entry in new.node.at(path).and_then(Node::as_mapping).iter().flat_map(|map| &map.entries) {
            merged.put(&entry.key.text, entry.value.clone(), cause);
        }
        let (last, parents) = path.split_last().unwrap_or((&"", &[]));
        let parent = parents.iter().try_fold(&mut new.node, |node, key| node.get_mut(key));
        if let Some(mapping) = parent.and_then(Node::as_mapping_mut) {
            mapping.set(Key::new(*last, by), merged);
        }
    }
    let metadata = new.node.get_mut("metadata").and_then(Node::as_mapping_mut);
    if let (Some(metadata), Some(before)) = (metadata, old.node.get("metadata")) {
        for name in ["name", "namespace"] {
            match before.get(name) {
                Some(value) => drop(metadata.set(Key::new(name, by), value.clone())),
                None => drop(metadata.remove(name)),
            }
        }
    }
    new.earlier.clone_from(&old.earlier);
    new.prefixes.clone_from(&old.prefixes);
    new.suffixes.clone_from(&old.suffixes);
    new.variables.clone_from(&old.variables);
    new.behavior = old.behavior;
    new.transformations.clone_from(&old.transformations);
    new.needs_hash &= old.needs_hash;
    new.generated = old.generated;
    if merges && old.origin.is_some() {
        new.origin.clone_from(&old.origin);
    }
    new.refresh();
}
