//! `replicas` and the plugin `ReplicaCountTransformer`: how many of something there are.
//!
//! Owns: [`Replicas`], [`ReplicasEntry`] (as written).

use serde::Deserialize;

use super::fieldspec::{Make, Specs};
use super::identity::Id;
use super::transformer::{Transform, Work, field};
use crate::document::{Cause, ChangeKind, Diagnostic, Node};
use crate::error::Result;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReplicasEntry {
    pub name: String,
    pub count: i64,
}

pub struct Replicas {
    pub typed: ReplicasEntry,
    pub entry: Node,
    pub specs: Specs,
}

impl Transform for Replicas {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let by = &self.entry.origin.at;
        let mut count = field(&self.entry, "count").clone();
        if count.as_scalar().is_none() {
            count = Node::plain(self.typed.count.to_string(), self.entry.origin.clone());
        }
        let mut found = false;
        for spec in &self.specs {
            work.resources.edit_all(|resource| {
                if !resource.ids().any(|id| id.name == self.typed.name && spec.selects(id)) {
                    return Ok(());
                }
                found = true;
                if !spec.selects(resource.id()) {
                    return Ok(());
                }
                spec.visit(&mut resource.node, Make::Text, by, &mut |node| {
                    node.replace(count.clone(), Cause::new(ChangeKind::Replicas, by));
                    Ok(())
                })
            })?;
        }
        if found {
            return Ok(());
        }
        let kinds: Vec<&str> = self.specs.iter().map(|spec| spec.kind.as_str()).collect();
        let message = format!("there is no {} with the name `{}`", kinds.join(", "), self.typed.name);
        let diagnostic = Diagnostic::on(field(&self.entry, "name"), message);
        let wanted =
            Id { name: self.typed.name.clone(), kind: kinds.first().unwrap_or(&"").to_string(), ..Id::default() };
        Err(match work.resources.nearest(&wanted) {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        }
        .into())
    }
}
