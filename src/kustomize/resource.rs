//! Objects on their way through the overlays, and the set of them.
//!
//! Owns: [`Resource`], [`Resources`], turning documents into resources.

use std::collections::HashMap;

use super::identity::Id;
use crate::document::{Diagnostic, Node, Resolved, Tag, Value, resolve, suggestion};
use crate::error::Result;

/// One object and who it has been.
#[derive(Debug, Clone)]
pub struct Resource {
    pub node: Node,
    /// Earlier identities, oldest first; patches may use any of them.
    pub earlier: Vec<Id>,
}

impl Resource {
    pub fn id(&self) -> Id {
        Id::of(&self.node)
    }

    /// The present identity first, then the earlier ones.
    pub fn ids(&self) -> Vec<Id> {
        std::iter::once(self.id()).chain(self.earlier.iter().rev().cloned()).collect()
    }

    /// Notes the identity before a change, if the change altered it.
    pub fn remember(&mut self, before: Id) {
        if before != self.id() && !self.earlier.contains(&before) {
            self.earlier.push(before);
        }
    }

    /// Objects for local tools only, which builds leave out.
    pub fn is_local(&self) -> bool {
        let local = self.node.at(&["metadata", "annotations", "config.kubernetes.io/local-config"]);
        local.and_then(Node::text).is_some_and(|text| text != "false")
    }
}

/// Objects in order, no two the same.
#[derive(Debug, Clone, Default)]
pub struct Resources(pub Vec<Resource>);

type OwnedKey = (String, String, String, String, String);

impl Resources {
    pub fn append(&mut self, more: Vec<Resource>) -> Result<()> {
        let key = |resource: &Resource| -> OwnedKey {
            let id = resource.id();
            let (group, version, kind, name, namespace) = id.key();
            (group.into(), version.into(), kind.into(), name.into(), namespace.into())
        };
        let mut seen: HashMap<OwnedKey, usize> = self.0.iter().enumerate().map(|(at, r)| (key(r), at)).collect();
        for resource in more {
            if let Some(&first) = seen.get(&key(&resource)) {
                let first = &self.0[first].node;
                let message = format!("{} is defined twice", resource.id());
                let diagnostic = Diagnostic::on(&resource.node, message).note(&first.origin.at, "first defined here");
                return Err(diagnostic.hint("give one another name, or make it a patch").into());
            }
            seen.insert(key(&resource), self.0.len());
            self.0.push(resource);
        }
        Ok(())
    }

    /// The one resource that is or was `id`.
    pub fn find(&self, id: &Id) -> Vec<usize> {
        let matching = |resource: &Resource| resource.ids().iter().any(|own| own.same(id));
        self.0.iter().enumerate().filter(|(_, resource)| matching(resource)).map(|(at, _)| at).collect()
    }

    /// "did you mean ...?" for an identity that was not found.
    pub fn nearest(&self, id: &Id) -> Option<String> {
        let mut names: Vec<String> = self.0.iter().map(|resource| resource.id().to_string()).collect();
        names.sort();
        names.dedup();
        let wanted = id.to_string();
        let same_kind = names.iter().filter(|name| name.split(' ').next() == Some(&id.kind));
        let mut shown: Vec<&str> = same_kind.map(String::as_str).take(8).collect();
        if shown.is_empty() {
            shown = names.iter().map(String::as_str).take(8).collect();
        }
        suggestion(&wanted, "defined here", &shown)
    }
}

/// Documents to resources: lists unpacked, names and kinds present, nothing that JSON cannot say.
pub fn from_documents(documents: Vec<Node>) -> Result<Vec<Resource>> {
    let mut resources = Vec::new();
    for node in documents {
        unpack(node, &mut resources)?;
    }
    Ok(resources)
}

fn unpack(mut node: Node, into: &mut Vec<Resource>) -> Result<()> {
    if node.as_mapping().is_none() {
        return Err(Diagnostic::on(&node, format!("expected an object, found {}", node.describe())).into());
    }
    let kind = node.get("kind").and_then(Node::text).unwrap_or_default().to_owned();
    if kind.ends_with("List") && node.get("items").is_some_and(|items| items.as_sequence().is_some()) {
        let items = node.as_mapping_mut().and_then(|mapping| mapping.remove("items"));
        if let Some(Value::Sequence(items)) = items.map(|items| items.value) {
            return items.into_iter().try_for_each(|item| unpack(item, into));
        }
    }
    if kind.is_empty() {
        return Err(Diagnostic::on(&node, "object without `kind`").into());
    }
    if node.at(&["metadata", "name"]).and_then(Node::text).is_none_or(str::is_empty) {
        let at = node.get("metadata").unwrap_or(&node);
        return Err(Diagnostic::on(at, format!("object of kind {kind} without `metadata.name`")).into());
    }
    check(&node, true)?;
    into.push(Resource { node, earlier: Vec::new() });
    Ok(())
}

/// Annotations are text, whatever they look like, and empty ones are left out: kustomize reads and writes them as a
/// map of strings. (Labels it leaves alone.)
pub fn settle_annotations(node: &mut Node) -> Result<()> {
    let Some(metadata) = node.as_mapping_mut().and_then(|object| object.get_mut("metadata")) else { return Ok(()) };
    let Some(metadata) = metadata.as_mapping_mut() else { return Ok(()) };
    let Some(annotations) = metadata.get_mut("annotations") else { return Ok(()) };
    let empty = annotations.is_null() || annotations.as_mapping().is_some_and(|map| map.is_empty());
    if empty {
        metadata.remove("annotations");
        return Ok(());
    }
    let found = annotations.describe();
    let Some(mapping) = annotations.as_mapping_mut() else {
        return Err(Diagnostic::on(annotations, format!("annotations must be a mapping, found {found}")).into());
    };
    for entry in &mut mapping.entries {
        match &mut entry.value.value {
            Value::Scalar(scalar) => scalar.tag = Some(Tag::Str),
            _ => {
                let message = format!("annotation `{}` must be text, found {}", entry.key.text, entry.value.describe());
                return Err(Diagnostic::on(&entry.value, message).into());
            }
        }
    }
    Ok(())
}

/// Refuses what cannot be said in JSON. (Keys of the root are read as text whatever they look like.)
fn check(node: &Node, root: bool) -> Result<()> {
    match &node.value {
        Value::Mapping(mapping) => mapping.entries.iter().try_for_each(|entry| {
            if !entry.key.is_string && !root {
                let diagnostic = Diagnostic::at(&entry.key.at, format!("key `{}` is not a string", entry.key.text));
                return Err(diagnostic.hint(format!("write \"{}\" in quotes", entry.key.text)).into());
            }
            check(&entry.value, false)
        }),
        Value::Sequence(items) => items.iter().try_for_each(|item| check(item, false)),
        Value::Scalar(scalar) => match resolve(scalar) {
            Resolved::Float(value) if !value.is_finite() => {
                Err(Diagnostic::on(node, format!("`{}` cannot be said in JSON", scalar.text)).into())
            }
            _ => Ok(()),
        },
    }
}
