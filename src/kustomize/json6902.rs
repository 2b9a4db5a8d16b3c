//! JSON Patch (RFC 6902) on nodes, with the liberties kustomize takes.
//!
//! Owns: [`apply`]. Operations are typed by the `json-patch` crate and applied here, because every value must keep
//! its position. Liberties: `replace` of a missing key adds it, `add` without a value adds null, `-1` is the place
//! after the last element (for `add`) or the last element, a path without leading slash loses its first part.

use json_patch::PatchOperation;
use serde_json::Value as Json;

use crate::document::{
    Change, ChangeKind, Diagnostic, Entry, Key, Node, Origin, Position, Resolved, Style, Tag, Value, nearest,
    resolve_plain, to_json,
};
use crate::error::Result;

/// Applies a list of operations in order; `by` is the entry that asked for it.
pub fn apply(target: &mut Node, operations: &Node, by: &Position) -> Result<()> {
    for operation in operations.as_sequence().unwrap_or_default() {
        Step { operation, by }.run(target)?;
    }
    Ok(())
}

struct Step<'a> {
    operation: &'a Node,
    by: &'a Position,
}

/// The text of a JSON patch is read as YAML 1.1, where `y`, `no` and `on` are booleans; dates stay as they are written.
fn as_old_yaml(node: &mut Node) {
    let Value::Scalar(scalar) = &mut node.value else { return };
    if scalar.style != Style::Plain || scalar.tag.is_some() {
        return;
    }
    match scalar.text.as_str() {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => scalar.text = "true".into(),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => scalar.text = "false".into(),
        text if matches!(resolve_plain(text), Resolved::Timestamp(_)) => scalar.tag = Some(Tag::Str),
        _ => {}
    }
}

impl Step<'_> {
    fn fail(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(&self.operation.origin.at, message).note(self.by, "patch used here")
    }

    /// A field of the operation, for positions.
    fn part(&self, name: &str) -> &Node {
        self.operation.get(name).unwrap_or(self.operation)
    }

    fn typed(&self) -> Result<PatchOperation> {
        let mut json = to_json(self.operation);
        let Some(fields) = json.as_object_mut() else {
            return Err(self.fail(format!("expected an operation, found {}", self.operation.describe())).into());
        };
        for name in ["path", "from"] {
            if let Some(Json::String(path)) = fields.get_mut(name) {
                if !path.is_empty() && !path.starts_with('/') {
                    *path = path.find('/').map_or_else(String::new, |at| path[at..].to_owned());
                }
            }
        }
        if matches!(fields.get("op").and_then(Json::as_str), Some("add" | "replace" | "test")) {
            fields.entry("value").or_insert(Json::Null);
        }
        let known = ["add", "remove", "replace", "move", "copy", "test"];
        match fields.get("op").and_then(Json::as_str) {
            Some(op) if known.contains(&op) => {}
            Some(op) => {
                let hint = nearest(op, known).map(|near| format!("did you mean `{near}`?"));
                let hint = hint.unwrap_or_else(|| format!("known operations: {}", known.join(", ")));
                let at = &self.part("op").origin.at;
                return Err(Diagnostic::at(at, format!("unknown operation `{op}`")).hint(hint).into());
            }
            None => return Err(self.fail("operation without `op`").into()),
        }
        serde_json::from_value(json).map_err(|error| self.fail(error.to_string()).into())
    }

    fn run(&self, root: &mut Node) -> Result<()> {
        let tokens = |pointer: &str| -> Vec<String> {
            pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
        };
        match self.typed()? {
            PatchOperation::Add(add) => self.add(root, &tokens(add.path.as_str()), self.value()),
            PatchOperation::Remove(remove) => self.remove(root, &tokens(remove.path.as_str())).map(drop),
            PatchOperation::Replace(replace) => self.replace(root, &tokens(replace.path.as_str())),
            PatchOperation::Move(op) => {
                let value = self.remove(root, &tokens(op.from.as_str()))?;
                self.add(root, &tokens(op.path.as_str()), value)
            }
            PatchOperation::Copy(op) => {
                let from = tokens(op.from.as_str());
                let value = match self.find(root, &from)?.cloned() {
                    Some(value) => value,
                    // Of a mapping that is there, a key that is not is as good as null.
                    None if self.has_parent(root, &from) => Node::plain("null", Origin::new(self.by.clone())),
                    None => return Err(self.missing(&from, "from").into()),
                };
                self.add(root, &tokens(op.path.as_str()), value)
            }
            PatchOperation::Test(test) => {
                let path = tokens(test.path.as_str());
                let expected = self.value();
                match self.find(root, &path).ok().flatten() {
                    Some(found) if *found == expected => Ok(()),
                    // Of a mapping that is there, a key that is not is as good as null.
                    None if expected.is_null() && self.has_parent(root, &path) => Ok(()),
                    Some(found) => Err(self
                        .fail(format!("test failed: `{}` is {}", test.path, found.describe()))
                        .note(&found.origin.at, "the value tested")
                        .into()),
                    None => Err(self.missing(&path, "path").into()),
                }
            }
        }
    }

    fn has_parent(&self, root: &Node, path: &[String]) -> bool {
        let parent = path.split_last().and_then(|(_, parents)| self.find(root, parents).ok().flatten());
        parent.is_some_and(|parent| parent.as_mapping().is_some())
    }

    fn value(&self) -> Node {
        let absent = || Node::plain("null", Origin::new(self.operation.origin.at.clone()));
        let mut value = self.operation.get("value").cloned().unwrap_or_else(absent);
        value.walk_mut(&mut as_old_yaml);
        value
    }

    fn missing(&self, tokens: &[String], field: &str) -> Diagnostic {
        let at = &self.part(field).origin.at;
        let path: String = tokens.iter().map(|token| format!("/{token}")).collect();
        Diagnostic::at(at, format!("nothing at `{path}`")).note(self.by, "patch used here")
    }

    fn stamp(&self, value: &mut Node, before: Option<&Node>) {
        let change = |replaced| Change { kind: ChangeKind::JsonPatch, by: self.by.clone(), replaced };
        value.walk_mut(&mut |node| node.origin.changes.push(change(None)));
        if let Some(before) = before {
            let mut changes = before.origin.changes.clone();
            changes.push(change(Some(before.origin.at.clone())));
            value.origin.changes = changes;
        }
    }

    fn find<'n>(&self, root: &'n Node, tokens: &[String]) -> Result<Option<&'n Node>> {
        let mut node = root;
        for token in tokens {
            let next = match &node.value {
                Value::Mapping(mapping) => mapping.get(token),
                Value::Sequence(items) => self.index(token, items.len(), false)?.and_then(|at| items.get(at)),
                Value::Scalar(_) => None,
            };
            let Some(next) = next else { return Ok(None) };
            node = next;
        }
        Ok(Some(node))
    }

    fn parent<'n>(&self, root: &'n mut Node, tokens: &[String]) -> Result<&'n mut Node> {
        let mut node = root;
        for (depth, token) in tokens[..tokens.len() - 1].iter().enumerate() {
            let missing = || self.missing(&tokens[..=depth], "path").label("the parent of what is to be changed");
            let index = match &node.value {
                Value::Sequence(items) => self.index(token, items.len(), false)?,
                _ => None,
            };
            let next = match &mut node.value {
                Value::Mapping(mapping) => mapping.get_mut(token),
                Value::Sequence(items) => index.and_then(|at| items.get_mut(at)),
                Value::Scalar(_) => None,
            };
            node = next.ok_or_else(missing)?;
        }
        Ok(node)
    }

    /// An element's number; for `add`, the place after the last one counts too.
    fn index(&self, token: &str, length: usize, adding: bool) -> Result<Option<usize>> {
        let places = length + usize::from(adding);
        let at = match token {
            "-" if adding => Some(length),
            _ => match token.parse::<i64>() {
                Ok(at) if at < 0 => places.checked_sub(at.unsigned_abs() as usize),
                Ok(at) => usize::try_from(at).ok().filter(|at| *at < places),
                Err(_) => {
                    let at = &self.part("path").origin.at;
                    let message = format!("`{token}` is not the number of a list element");
                    return Err(Diagnostic::at(at, message).note(self.by, "patch used here").into());
                }
            },
        };
        Ok(at)
    }

    fn add(&self, root: &mut Node, tokens: &[String], mut value: Node) -> Result<()> {
        let Some(last) = tokens.last() else {
            self.stamp(&mut value, Some(root));
            *root = value;
            return Ok(());
        };
        let parent = self.parent(root, tokens)?;
        match &mut parent.value {
            Value::Mapping(mapping) => {
                self.stamp(&mut value, mapping.get(last));
                mapping.set(self.key(last), value);
                Ok(())
            }
            Value::Sequence(items) => {
                let at = self.index(last, items.len(), true)?.ok_or_else(|| self.missing(tokens, "path"))?;
                self.stamp(&mut value, None);
                items.insert(at, value);
                Ok(())
            }
            Value::Scalar(_) => Err(self.missing(tokens, "path").into()),
        }
    }

    fn key(&self, text: &str) -> Key {
        Key { text: text.to_owned(), at: self.part("path").origin.at.clone(), is_string: true }
    }

    fn remove(&self, root: &mut Node, tokens: &[String]) -> Result<Node> {
        let missing = || self.missing(tokens, "path");
        let Some(last) = tokens.last() else {
            return Err(self.fail("the whole object cannot be removed by a JSON patch").into());
        };
        let parent = self.parent(root, tokens)?;
        let removed = match &mut parent.value {
            Value::Mapping(mapping) => mapping.remove(last).ok_or_else(missing)?,
            Value::Sequence(items) => {
                let at = self.index(last, items.len(), false)?.ok_or_else(missing)?;
                items.remove(at)
            }
            Value::Scalar(_) => return Err(missing().into()),
        };
        parent.origin.lost(self.by, &removed);
        Ok(removed)
    }

    fn replace(&self, root: &mut Node, tokens: &[String]) -> Result<()> {
        let mut value = self.value();
        let Some(last) = tokens.last() else { return self.add(root, tokens, value) };
        let parent = self.parent(root, tokens)?;
        match &mut parent.value {
            Value::Mapping(mapping) => {
                self.stamp(&mut value, mapping.get(last));
                match mapping.get_mut(last) {
                    Some(slot) => *slot = value,
                    None => mapping.entries.push(Entry { key: self.key(last), value }),
                }
                Ok(())
            }
            Value::Sequence(items) => {
                let at = self.index(last, items.len(), false)?.ok_or_else(|| self.missing(tokens, "path"))?;
                self.stamp(&mut value, Some(&items[at]));
                items[at] = value;
                Ok(())
            }
            Value::Scalar(_) => Err(self.missing(tokens, "path").into()),
        }
    }
}
