//! Strategic merge of a patch into an object.
//!
//! Owns: [`merge`]. Mappings merge, null deletes, everything else is replaced; lists are replaced as a whole, as
//! kustomize does for all kinds that are not Kubernetes' own. `$patch: delete | replace | merge` are known.

use super::identity::Id;
use crate::document::{Change, ChangeKind, Diagnostic, Entry, Mapping, Node, Position, Value};
use crate::error::{Error, Result};

const DIRECTIVE: &str = "$patch";

/// What a merge leaves of its target.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Kept,
    Deleted,
}

enum Directive {
    Merge,
    Replace,
    Delete,
}

/// Merges `patch` into `target`; `by` is the entry that asked for it.
pub fn merge(target: &mut Node, patch: &Node, by: &Position) -> Result<Outcome> {
    let id = Id::of(target);
    Merge { by, keyed_lists: has_keyed_lists(&id) }.object(target, patch)
}

/// Built-in kinds of Kubernetes merge some lists by key.
fn has_keyed_lists(id: &Id) -> bool {
    let group = id.group.as_str();
    let known = group.is_empty()
        || ["apps", "batch", "extensions", "policy", "autoscaling"].contains(&group)
        || group.ends_with(".k8s.io");
    known && !group.contains(".x-k8s.io") && group != "kustomize.config.k8s.io"
}

struct Merge<'a> {
    by: &'a Position,
    keyed_lists: bool,
}

impl Merge<'_> {
    fn object(&self, target: &mut Node, patch: &Node) -> Result<Outcome> {
        match directive(patch)? {
            Directive::Delete => Ok(Outcome::Deleted),
            // At the top, `replace` changes nothing, as in kustomize.
            Directive::Replace => Ok(Outcome::Kept),
            Directive::Merge => self.value(target, patch).map(|()| Outcome::Kept),
        }
    }

    fn value(&self, target: &mut Node, patch: &Node) -> Result<()> {
        if target.is_null() {
            self.replace(target, patch);
            return Ok(());
        }
        match (&mut target.value, &patch.value) {
            (Value::Mapping(into), Value::Mapping(from)) => self.mapping(into, from),
            (Value::Sequence(_), Value::Sequence(items)) => {
                if self.keyed_lists && (items.is_empty() || items.iter().any(|item| item.as_mapping().is_some())) {
                    return Err(keyed_list(patch));
                }
                self.replace(target, patch);
                Ok(())
            }
            (Value::Scalar(_), Value::Scalar(_)) => {
                self.replace(target, patch);
                Ok(())
            }
            _ => {
                let message = format!("the patch has {} where the object has {}", patch.describe(), target.describe());
                Err(Diagnostic::on(patch, message).note(&target.origin.at, "the value to be patched").into())
            }
        }
    }

    fn mapping(&self, into: &mut Mapping, from: &Mapping) -> Result<()> {
        for entry in from.entries.iter().filter(|entry| entry.key.text != DIRECTIVE) {
            let key = &entry.key.text;
            if entry.value.is_null() {
                into.remove(key);
                continue;
            }
            if self.keyed_lists && key == "finalizers" {
                return Err(keyed_list(&entry.value));
            }
            match (directive(&entry.value)?, into.get_mut(key)) {
                (Directive::Delete, _) => {
                    into.remove(key);
                }
                (Directive::Replace, Some(target)) => self.replace(target, &entry.value),
                (Directive::Merge, Some(target)) => self.value(target, &entry.value)?,
                (_, None) => {
                    let mut value = clean(&entry.value);
                    self.stamp(&mut value, None);
                    into.set(entry.key.clone(), value);
                }
            }
        }
        Ok(())
    }

    /// Puts the patch's value in place of the target's.
    fn replace(&self, target: &mut Node, patch: &Node) {
        let mut value = clean(patch);
        self.stamp(&mut value, Some(target));
        *target = value;
    }

    /// Records on a value that comes from the patch who put it there, and what was known of the value before.
    fn stamp(&self, value: &mut Node, before: Option<&Node>) {
        let change = |replaced| Change { kind: ChangeKind::Patch, by: self.by.clone(), replaced };
        value.walk_mut(&mut |node| node.origin.changes.push(change(None)));
        if let Some(before) = before {
            let mut changes = before.origin.changes.clone();
            changes.push(change(Some(before.origin.at.clone())));
            value.origin.changes = changes;
        }
    }
}

fn keyed_list(patch: &Node) -> Error {
    Diagnostic::on(patch, "merging this list of a built-in Kubernetes kind is not supported yet")
        .hint("use a JSON patch for it")
        .into()
}

fn directive(patch: &Node) -> Result<Directive> {
    let Some(value) = patch.get(DIRECTIVE) else { return Ok(Directive::Merge) };
    match value.text() {
        Some("merge") => Ok(Directive::Merge),
        Some("replace") => Ok(Directive::Replace),
        Some("delete") => Ok(Directive::Delete),
        _ => Err(Diagnostic::on(value, format!("unknown patch directive {}", value.describe()))
            .hint("known directives: `delete`, `replace`, `merge`")
            .into()),
    }
}

/// A patch value as it is put where nothing was: without nulls and directives in its mappings.
fn clean(patch: &Node) -> Node {
    let value = match &patch.value {
        Value::Mapping(mapping) => Value::Mapping(Mapping {
            entries: (mapping.entries.iter())
                .filter(|entry| !entry.value.is_null() && entry.key.text != DIRECTIVE)
                .map(|entry| Entry { key: entry.key.clone(), value: clean(&entry.value) })
                .collect(),
        }),
        other => other.clone(),
    };
    Node::new(value, patch.origin.clone())
}
