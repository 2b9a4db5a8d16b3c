//! `labels`, `commonLabels`, `commonAnnotations` and their plugins: adds pairs to mappings all over an object.
//!
//! Owns: [`Pairs`].

use super::fieldspec::{Make, Specs};
use super::transformer::{Transform, Work};
use crate::document::{Cause, ChangeKind, Diagnostic, Entry, Node, Tag, Value};
use crate::error::Result;

pub struct Pairs {
    /// [`ChangeKind::Label`] or [`ChangeKind::Annotation`].
    pub kind: ChangeKind,
    /// A mapping, as written; `None` adds nothing.
    pub pairs: Option<Node>,
    pub specs: Specs,
}

impl Transform for Pairs {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let Some(mapping) = self.pairs.as_ref().and_then(Node::as_mapping) else { return Ok(()) };
        if mapping.is_empty() {
            return Ok(());
        }
        let entries: Vec<(Entry, Node)> = mapping.entries.iter().map(|entry| (entry.clone(), as_text(entry))).collect();
        work.resources.edit_all(|resource| {
            let id = resource.id().clone();
            let mut visited = 0;
            for spec in self.specs.iter().filter(|spec| spec.selects(&id)) {
                let by = &entries[0].0.key.at;
                spec.visit(&mut resource.node, Make::Mapping, by, &mut |node| {
                    visited += 1;
                    self.set(node, &entries)
                })?;
            }
            if visited > 1 {
                for (entry, value) in &entries {
                    let mut made = Vec::new();
                    self.made(&resource.node, entry, value, &mut Vec::new(), &mut made);
                    resource.share(made);
                }
            }
            Ok(())
        })
    }
}

/// Labels and annotations are text, even if they look like something else.
fn as_text(entry: &Entry) -> Node {
    let mut node = entry.value.clone();
    if let Value::Scalar(scalar) = &mut node.value {
        scalar.tag = Some(Tag::Str);
    }
    node
}

impl Pairs {
    /// The fields that an entry made, where there were none.
    fn made(&self, node: &Node, entry: &Entry, value: &Node, path: &mut Vec<String>, made: &mut Vec<Vec<String>>) {
        // In lists, places move; what is there is left out.
        let Some(mapping) = node.as_mapping() else { return };
        for inner in &mapping.entries {
            path.push(inner.key.text.clone());
            let origin = &inner.value.origin;
            let last = origin.changes.last();
            let fresh = last
                .is_some_and(|last| last.kind == self.kind && last.replaced.is_none() && last.by.same(&entry.key.at));
            if fresh && inner.key.text == entry.key.text && origin.at.same(&value.origin.at) {
                made.push(path.clone());
            }
            self.made(&inner.value, entry, value, path, made);
            path.pop();
        }
    }

    fn set(&self, node: &mut Node, entries: &[(Entry, Node)]) -> Result<()> {
        if node.is_null() {
            return Ok(());
        }
        if node.as_mapping().is_none() {
            let message = format!("expected a mapping to add a {} to, found {}", self.kind.name(), node.describe());
            return Err(Diagnostic::on(node, message).note(&entries[0].0.key.at, "to be added").into());
        }
        for (entry, value) in entries {
            node.put(&entry.key.text, value.clone(), Cause::new(self.kind, &entry.key.at));
        }
        Ok(())
    }
}
