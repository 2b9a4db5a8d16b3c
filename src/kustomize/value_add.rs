//! The plugin `ValueAddTransformer`: puts a value into fields of chosen objects, or a part of a path.
//!
//! Owns: [`ValueAdd`].

use serde::Deserialize;

use super::fieldpath::{Create, FieldPath};
use super::selector::Selector;
use super::transformer::{Transform, Work, elements, field};
use crate::document::{Cause, ChangeKind, Decoder, Diagnostic, Node, Value};
use crate::error::Result;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ValueAddConfig {
    pub value: String,
    pub targets: Vec<ValueAddTarget>,
    pub target_file_path: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ValueAddTarget {
    pub selector: Option<Selector>,
    pub not_selector: Option<Selector>,
    pub field_path: String,
    /// The field is a path, and the value becomes the part with this number, from 1.
    pub file_path_position: i64,
}

pub struct ValueAdd {
    pub typed: ValueAddConfig,
    pub entry: Node,
}

impl Transform for ValueAdd {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let (typed, list) = self.targets(work)?;
        let value = field(&self.entry, "value");
        let by = &value.origin.at;
        for (index, target) in typed.iter().enumerate() {
            let at = list.get(index).unwrap_or(&self.entry);
            let select = target.selector.as_ref().map(|s| s.compile(field(at, "selector"))).transpose()?;
            let reject = target.not_selector.as_ref().map(|s| s.compile(field(at, "notSelector"))).transpose()?;
            if target.file_path_position < 0 {
                let at = field(at, "filePathPosition");
                return Err(Diagnostic::on(at, "`filePathPosition` counts from 1").into());
            }
            let path = FieldPath::from_slashes(&target.field_path);
            work.resources.edit_all(|resource| {
                let chosen = select.as_ref().is_none_or(|matcher| matcher.matches(resource));
                if !chosen || reject.as_ref().is_some_and(|matcher| matcher.matches(resource)) {
                    return Ok(());
                }
                resource.remember();
                let mut set = |node: &mut Node| self.set(node, value, target.file_path_position);
                path.visit(&mut resource.node, Create::Like(value, by), field(at, "fieldPath"), &mut set).map(drop)
            })?;
        }
        Ok(())
    }
}

impl ValueAdd {
    /// The targets as they are read and where they are written: here, or in a file of their own.
    fn targets(&self, work: &Work<'_>) -> Result<(Vec<ValueAddTarget>, Vec<Node>)> {
        if self.typed.target_file_path.is_empty() {
            return Ok((self.typed.targets.clone(), elements(&self.entry, "targets").to_vec()));
        }
        let at = field(&self.entry, "targetFilePath");
        if !self.typed.targets.is_empty() {
            return Err(Diagnostic::on(at, "both `targets` and `targetFilePath` given").into());
        }
        let documents = work.place.load(at)?.documents;
        let list = documents.first().map(|document| match document.as_sequence() {
            Some(items) => items.to_vec(),
            None => elements(document, "targets").to_vec(),
        });
        let list = list.filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| Diagnostic::on(at, "this file holds no list of targets"))?;
        let rules = Decoder { any_case: true, strict_text: false };
        let typed = list.iter().map(|target| rules.decode(target)).collect::<Result<_>>()?;
        Ok((typed, list))
    }

    fn set(&self, node: &mut Node, value: &Node, position: i64) -> Result<()> {
        let cause = Cause::new(ChangeKind::ValueAdd, &value.origin.at);
        if position == 0 {
            node.replace(value.clone(), cause);
            return Ok(());
        }
        let Value::Scalar(scalar) = &node.value else {
            return Err(Diagnostic::on(node, format!("expected a path, found {}", node.describe())).into());
        };
        // Of no text, there are no parts.
        let mut parts: Vec<&str> = scalar.text.split('/').skip(usize::from(scalar.text.is_empty())).collect();
        let absolute = scalar.text.starts_with('/');
        if absolute {
            parts.remove(0);
        }
        let at = usize::try_from(position - 1).unwrap_or_default().min(parts.len());
        parts.insert(at, &self.typed.value);
        let text = format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"));
        node.rewrite(text, cause);
        Ok(())
    }
}
