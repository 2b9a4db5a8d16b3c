//! `namePrefix`, `nameSuffix` and their plugins: puts something before or after names.
//!
//! Owns: [`Affix`], [`End`].

use super::fieldspec::{Make, Specs};
use super::transformer::{Transform, Work};
use crate::document::{Cause, ChangeKind, Diagnostic, Node};
use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Prefix,
    Suffix,
}

pub struct Affix {
    pub end: End,
    pub value: Node,
    pub specs: Specs,
}

impl Transform for Affix {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let affix = self.value.text().unwrap_or_default();
        if affix.is_empty() {
            return Ok(());
        }
        let by = &self.value.origin.at;
        let kind = if self.end == End::Prefix { ChangeKind::Prefix } else { ChangeKind::Suffix };
        let mut set = |node: &mut Node| match node.text() {
            Some(text) => {
                let text = if self.end == End::Prefix { format!("{affix}{text}") } else { format!("{text}{affix}") };
                node.rewrite(text, Cause::new(kind, by));
                Ok(())
            }
            None if node.is_null() => Ok(()),
            None => Err(Diagnostic::on(node, format!("expected a name, found {}", node.describe()))
                .note(by, format!("to be given this {}", kind.name()))
                .into()),
        };
        work.resources.edit_all(|resource| {
            let first = resource.first_id().clone();
            let skipped = match first.kind.as_str() {
                "CustomResourceDefinition" | "Namespace" => true,
                "APIService" => first.group == "apiregistration.k8s.io",
                _ => false,
            };
            if skipped {
                return Ok(());
            }
            for spec in self.specs.iter().filter(|spec| spec.selects(&first)) {
                if spec.path == "metadata/name" {
                    match self.end {
                        End::Prefix => resource.prefixes.push(affix.to_owned()),
                        End::Suffix => resource.suffixes.push(affix.to_owned()),
                    }
                    resource.remember();
                }
                if spec.selects(resource.id()) {
                    spec.visit(&mut resource.node, Make::Nothing, by, &mut set)?;
                }
            }
            Ok(())
        })
    }
}
