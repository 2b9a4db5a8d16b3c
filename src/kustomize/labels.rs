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
            for spec in self.specs.iter().filter(|spec| spec.selects(&id)) {
                let by = &entries[0].0.key.at;
                spec.visit(&mut resource.node, Make::Mapping, by, &mut |node| self.set(node, &entries))?;
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
