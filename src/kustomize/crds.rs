//! `crds`: OpenAPI definitions of own kinds, whose marked properties hold labels, annotations or names of objects.
//!
//! Owns: [`extend`].

use super::config::{Config, NameReference};
use super::fieldspec::FieldSpec;
use super::{config, fieldspec};
use crate::document::{Mapping, Node};
use crate::error::Result;

/// Definitions that refer to themselves end here.
const DEPTH_LIMIT: usize = 16;

/// Adds what a file of definitions says.
pub fn extend(config: &mut Config, document: &Node) -> Result<()> {
    let Some(definitions) = document.as_mapping() else { return Ok(()) };
    for entry in &definitions.entries {
        let properties = entry.value.at(&["Schema", "properties"]).and_then(Node::as_mapping);
        let Some(properties) = properties else { continue };
        if ["kind", "apiVersion", "metadata"].iter().all(|name| properties.get(name).is_some()) {
            let kind = entry.key.text.rsplit('.').next().unwrap_or_default();
            walk(config, definitions, kind, properties, &mut Vec::new())?;
        }
    }
    Ok(())
}

fn walk<'n>(
    config: &mut Config,
    definitions: &'n Mapping,
    kind: &str,
    properties: &'n Mapping,
    path: &mut Vec<&'n str>,
) -> Result<()> {
    if path.len() >= DEPTH_LIMIT {
        return Ok(());
    }
    for entry in &properties.entries {
        let property = &entry.value;
        let at = &entry.key.at;
        let text = |name: &str| property.get(name).and_then(Node::text);
        path.push(&entry.key.text);
        if text("x-kubernetes-annotation").is_some() {
            config::extend(&mut config.common_annotations, path, kind, at)?;
        }
        if text("x-kubernetes-label-selector").is_some() {
            config::extend(&mut config.common_labels, path, kind, at)?;
        }
        if text("x-kubernetes-identity").is_some() {
            config::extend(&mut config.name_prefix, path, kind, at)?;
        }
        let version = text("x-kubernetes-object-ref-api-version");
        if let (Some(version), Some(target)) = (version, text("x-kubernetes-object-ref-kind")) {
            let name = text("x-kubernetes-object-ref-name-key").unwrap_or("name");
            let path = format!("{}/{name}", path.join("/"));
            let mut field_specs = Vec::new();
            fieldspec::add(&mut field_specs, FieldSpec { kind: kind.into(), path, ..FieldSpec::default() }, at)?;
            let reference =
                NameReference { version: version.into(), kind: target.into(), field_specs, ..NameReference::default() };
            config.add_reference(&reference, at)?;
        }
        let below = text("$ref").and_then(|name| definitions.get(name)).map(|found| (found, ["Schema", "properties"]));
        if let Some(below) = below.and_then(|(found, path)| found.at(&path)).and_then(Node::as_mapping) {
            walk(config, definitions, kind, below, path)?;
        }
        path.pop();
    }
    Ok(())
}
