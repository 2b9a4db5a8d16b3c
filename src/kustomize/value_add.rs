//! The plugin `ValueAddTransformer`: puts a value into fields of chosen objects, or a part of a path.
//!
//! Owns: [`ValueAdd`].

use serde::Deserialize;

use super::fieldpath::{Create, FieldPath};
use super::selector::Selector;
use super::transformer::{Transform, Work, elements, field};
use crate::document::{Cause, ChangeKind, Diagnostic, Node, Value};
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
        let value = field(&self.entry, "value");
        let by = &value.origin.at;
        for (index, target) in self.typed.targets.iter().enumerate() {
            let at = elements(&self.entry, "targets").get(index).unwrap_or(&self.entry);
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
    fn set(&self, node: &mut Node, value: &Node, position: i64) -> Result<()> {
        let cause = Cause::new(ChangeKind::ValueAdd, &value.origin.at);
        if position == 0 {
            node.replace(value.clone(), cause);
            return Ok(());
        }
        let Value::Scalar(scalar) = &node.value else {
            return Err(Diagnostic::on(node, format!("expected a path, found {}", node.describe())).into());
        };
        let mut parts: Vec<&str> = scalar.text.split('/').collect();
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
