//! `namespace` and the plugin `NamespaceTransformer`: sets the namespace of everything that has one.
//!
//! Owns: [`Namespace`].

use serde::Deserialize;

use super::fieldspec::{FieldSpec, Make, Specs};
use super::resource::Resource;
use super::transformer::{Transform, Work};
use crate::document::{Cause, ChangeKind, Diagnostic, Node};
use crate::error::Result;

/// Which subjects of role bindings get the namespace, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subjects {
    None,
    /// Accounts with the name `default`.
    #[default]
    DefaultOnly,
    AllServiceAccounts,
}

pub struct Namespace {
    /// The name, where it is written.
    pub value: Node,
    pub specs: Specs,
    pub subjects: Subjects,
    /// Only where there is none.
    pub unset_only: bool,
}

const PATH: &str = "metadata/namespace";
/// Of role bindings, which have a rule of their own.
const SUBJECTS: &str = "subjects/namespace";

fn is_binding(kind: &str) -> bool {
    matches!(kind, "RoleBinding" | "ClusterRoleBinding")
}

impl Transform for Namespace {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        if self.value.text().is_none_or(str::is_empty) {
            return Ok(());
        }
        work.resources.edit_all(|resource| self.one(resource))?;
        work.resources.check_unique(&self.value.origin.at)
    }
}

impl Namespace {
    fn one(&self, resource: &mut Resource) -> Result<()> {
        resource.remember();
        let id = resource.id().clone();
        let by = &self.value.origin.at;
        if !id.cluster {
            let own = FieldSpec { path: PATH.into(), create: true, ..FieldSpec::default() };
            own.visit(&mut resource.node, Make::Text, by, &mut |node| self.set(node))?;
        }
        let binding = is_binding(&id.kind);
        if binding {
            self.bind(&mut resource.node)?;
        }
        for spec in self.specs.iter().filter(|spec| spec.path != PATH && spec.selects(&id)) {
            if !(binding && spec.path == SUBJECTS && is_binding(&spec.kind)) {
                spec.visit(&mut resource.node, Make::Text, by, &mut |node| self.set(node))?;
            }
        }
        Ok(())
    }

    fn set(&self, node: &mut Node) -> Result<()> {
        if node.as_scalar().is_none() {
            let message = format!("expected the name of a namespace, found {}", node.describe());
            return Err(Diagnostic::on(node, message).note(&self.value.origin.at, "to be set from here").into());
        }
        if self.unset_only && node.text().is_some_and(|text| !text.is_empty()) {
            return Ok(());
        }
        node.replace(self.value.clone(), Cause::new(ChangeKind::Namespace, &self.value.origin.at));
        Ok(())
    }

    fn bind(&self, object: &mut Node) -> Result<()> {
        let Some(subjects) = object.get_mut("subjects").and_then(Node::as_sequence_mut) else { return Ok(()) };
        for subject in subjects {
            if subject.as_mapping().is_none() && self.subjects != Subjects::None {
                let message = format!("expected a subject, found {}", subject.describe());
                return Err(Diagnostic::on(subject, message).into());
            }
            let is = |field: &str, wanted: &str| subject.get(field).and_then(Node::text) == Some(wanted);
            let chosen = match self.subjects {
                Subjects::None => false,
                Subjects::DefaultOnly => is("name", "default"),
                Subjects::AllServiceAccounts => is("kind", "ServiceAccount"),
            };
            if chosen {
                match subject.get_mut("namespace") {
                    Some(namespace) => self.set(namespace)?,
                    None => {
                        let cause = Cause::new(ChangeKind::Namespace, &self.value.origin.at);
                        subject.put("namespace", self.value.clone(), cause);
                    }
                }
            }
        }
        Ok(())
    }
}
