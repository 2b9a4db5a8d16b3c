//! The plugin `ValueAddTransformer`: puts a value into fields of chosen objects, or a part of a path.
//!
//! Owns: [`ValueAdd`].

use serde::Deserialize;

use super::fieldspec::{FieldSpec, Make};
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
    /// The field is a path, and the value becomes the part with this number (from 1; negative: from the end).
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
            let spec = FieldSpec { path: target.field_path.clone(), create: true, ..FieldSpec::default() };
            work.resources.edit_all(|resource| {
                let chosen = select.as_ref().is_none_or(|matcher| matcher.matches(resource));
                if !chosen || reject.as_ref().is_some_and(|matcher| matcher.matches(resource)) {
                    return Ok(());
                }
                resource.remember();
                spec.visit(&mut resource.node, Make::Text, by, &mut |node| {
                    self.set(node, value, target.file_path_position)
                })
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
        let count = parts.len() as i64;
        let at = if position > 0 { position - 1 } else { count + position + 1 };
        parts.insert(at.clamp(0, count) as usize, &self.typed.value);
        let text = format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"));
        node.rewrite(text, cause);
        Ok(())
    }
}
