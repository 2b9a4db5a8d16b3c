//! `buildMetadata`: annotations that say where objects come from and what changed them, a label that says who built.
//!
//! Owns: [`write`], [`BuildMetadata`]. Unknown options are ignored, as in kustomize.

use super::resource::{Provenance, Resource};
use crate::document::{Cause, ChangeKind, Entry, Key, Node, Origin, Position};

const ORIGIN: &str = "config.kubernetes.io/origin";
const TRANSFORMATIONS: &str = "alpha.config.kubernetes.io/transformations";
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "kustomize-imagebuilder");

#[derive(Debug, Clone, Copy, Default)]
pub struct BuildMetadata {
    pub any: bool,
    pub origins: bool,
    pub transformers: bool,
    pub managed_by: bool,
}

impl BuildMetadata {
    pub fn of(options: &[String]) -> Self {
        let has = |name: &str| options.iter().any(|option| option == name);
        BuildMetadata {
            any: !options.is_empty(),
            origins: has("originAnnotations"),
            transformers: has("transformerAnnotations"),
            managed_by: has("managedByLabel"),
        }
    }
}

pub fn write(resource: &mut Resource, wanted: BuildMetadata, by: &Position) {
    if wanted.origins {
        if let Some(origin) = &resource.origin {
            let text = describe(origin, "", "");
            put(&mut resource.node, "annotations", ORIGIN, &text, by);
        }
    }
    if wanted.transformers && !resource.transformations.is_empty() {
        let text: String = resource.transformations.iter().map(|one| describe(one, "- ", "  ")).collect();
        put(&mut resource.node, "annotations", TRANSFORMATIONS, &text, by);
    }
    if wanted.managed_by {
        put(&mut resource.node, "labels", MANAGED_BY.0, MANAGED_BY.1, by);
    }
}

fn describe(origin: &Provenance, first: &str, indent: &str) -> String {
    let mut lines = Vec::new();
    if let Some(path) = &origin.path {
        lines.push(format!("path: {}", scalar(path)));
    }
    if let Some((file, id)) = &origin.configured {
        lines.push(format!("configuredIn: {}", scalar(file)));
        lines.push("configuredBy:".to_owned());
        lines.push(format!("  apiVersion: {}", scalar(&id.api_version())));
        lines.push(format!("  kind: {}", scalar(&id.kind)));
        if !id.name.is_empty() {
            lines.push(format!("  name: {}", scalar(&id.name)));
        }
        if !id.namespace.is_empty() {
            lines.push(format!("  namespace: {}", scalar(&id.namespace)));
        }
    }
    let line = |(at, line): (usize, String)| format!("{}{line}\n", if at == 0 { first } else { indent });
    lines.into_iter().enumerate().map(line).collect()
}

/// A text as YAML writes it.
fn scalar(text: &str) -> String {
    let document = crate::document::document(&Node::string(text, Origin::built("buildMetadata")));
    document.trim_end().to_owned()
}

fn put(object: &mut Node, field: &str, key: &str, text: &str, by: &Position) {
    let origin = Origin::new(by.clone());
    let Some(metadata) = object.get_mut("metadata") else { return };
    if metadata.get(field).is_none_or(Node::is_null) {
        if let Some(mapping) = metadata.as_mapping_mut() {
            mapping.remove(field);
            mapping.entries.push(Entry { key: Key::new(field, by), value: Node::mapping(origin.clone()) });
        }
    }
    if let Some(map) = metadata.get_mut(field) {
        let kind = if field == "labels" { ChangeKind::Label } else { ChangeKind::Annotation };
        map.put(key, Node::string(text, origin), Cause::new(kind, by));
    }
}
