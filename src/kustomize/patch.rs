//! `patches`, `patchesStrategicMerge`, `patchesJson6902`: which text is applied to which objects.
//!
//! Owns: [`apply_all`]. A patch text is either objects to merge or a list of JSON patch operations.

use super::folder::Place;
use super::identity::Id;
use super::kustomization::{File, PatchEntry, PatchOptions};
use super::merge::{Outcome, merge};
use super::resource::{Resource, Resources};
use super::{json6902, resource};
use crate::document::{Diagnostic, Loader, Node, Position};
use crate::error::Result;

pub fn apply_all(file: &File, place: &Place, resources: &mut Resources) -> Result<()> {
    let mut found = 0;
    for index in 0..file.typed.patches_strategic_merge.len() {
        let entry = file.entry("patchesStrategicMerge", index);
        let documents = match entry.text() {
            Some(text) if text.contains('\n') => Loader::default().inline(entry)?.documents,
            _ => place.load(entry)?.documents,
        };
        found += documents.len();
        merge_untargeted(&documents, &entry.origin.at, resources)?;
    }
    if found == 0 && !file.typed.patches_strategic_merge.is_empty() {
        let entry = file.entry("patchesStrategicMerge", 0);
        return Err(Diagnostic::on(entry, "these patches hold no documents").into());
    }
    for (index, typed) in file.typed.patches.iter().enumerate() {
        apply(file.entry("patches", index), typed, false, place, resources)?;
    }
    for (index, typed) in file.typed.patches_json6902.iter().enumerate() {
        apply(file.entry("patchesJson6902", index), typed, true, place, resources)?;
    }
    Ok(())
}

fn apply(entry: &Node, typed: &PatchEntry, json_only: bool, place: &Place, resources: &mut Resources) -> Result<()> {
    let documents = match (&typed.path, &typed.patch) {
        (Some(_), Some(_)) => return Err(Diagnostic::on(entry, "both `path` and `patch` given").into()),
        (Some(_), None) => place.load(field(entry, "path"))?.documents,
        (None, Some(_)) => Loader::default().inline(field(entry, "patch"))?.documents,
        (None, None) => return Err(Diagnostic::on(entry, "patch without `path` or `patch`").into()),
    };
    let by = &entry.origin.at;
    if documents.is_empty() {
        return Ok(());
    }
    if documents.iter().any(|document| document.as_sequence().is_some()) {
        let [operations] = &documents[..] else {
            return Err(Diagnostic::on(&documents[1], "a JSON patch is one single list of operations").into());
        };
        return apply_json(entry, typed, operations, resources);
    }
    if json_only {
        return Err(Diagnostic::on(&documents[0], "expected a list of JSON patch operations").into());
    }
    if typed.target.is_none() {
        return merge_untargeted(&documents, by, resources);
    }
    let [patch] = &documents[..] else {
        let message = "a patch with a target must be one document";
        return Err(Diagnostic::on(&documents[1], message).note(by, "the entry with the target").into());
    };
    let targets = selected(entry, typed, resources)?;
    for at in targets.into_iter().rev() {
        let before = resources.0[at].id();
        let kept = merge(&mut resources.0[at].node, &without_identity(patch, typed.options), by)?;
        finish(resources, at, before, kept);
    }
    Ok(())
}

fn apply_json(entry: &Node, typed: &PatchEntry, operations: &Node, resources: &mut Resources) -> Result<()> {
    let by = &entry.origin.at;
    if typed.target.is_none() {
        return Err(Diagnostic::on(entry, "a JSON patch needs a `target`").into());
    }
    for at in selected(entry, typed, resources)? {
        let resource = &mut resources.0[at];
        let before = resource.id();
        json6902::apply(&mut resource.node, operations, by)?;
        let after = resource.id();
        if after.kind.is_empty() || after.name.is_empty() {
            return Err(Diagnostic::on(operations, format!("the patch leaves {before} without name or kind")).into());
        }
        resource.remember(before);
    }
    Ok(())
}

fn selected(entry: &Node, typed: &PatchEntry, resources: &Resources) -> Result<Vec<usize>> {
    let selector = typed.target.clone().unwrap_or_default();
    let matcher = selector.compile(field(entry, "target"))?;
    let found = resources.0.iter().enumerate().filter(|(_, resource)| matcher.matches(resource));
    Ok(found.map(|(at, _)| at).collect())
}

/// Patches that name their object themselves.
fn merge_untargeted(documents: &[Node], by: &Position, resources: &mut Resources) -> Result<()> {
    // Lists are unpacked and names insisted on, as for resources; nulls are welcome here.
    let patches = resource::from_documents(documents.to_vec())?;
    for Resource { node: patch, .. } in &patches {
        let id = Id::of(patch);
        let at = match resources.find(&id)[..] {
            [one] => one,
            [] => {
                let diagnostic =
                    Diagnostic::on(patch, format!("there is no {id} to patch")).note(by, "patch used here");
                return Err(match resources.nearest(&id) {
                    Some(hint) => diagnostic.hint(hint),
                    None => diagnostic.hint("no objects are defined here"),
                }
                .into());
            }
            _ => return Err(Diagnostic::on(patch, format!("more than one object is or was {id}")).into()),
        };
        let before = resources.0[at].id();
        let kept = merge(&mut resources.0[at].node, &without_identity(patch, PatchOptions::default()), by)?;
        finish(resources, at, before, kept);
    }
    Ok(())
}

fn finish(resources: &mut Resources, at: usize, before: Id, outcome: Outcome) {
    match outcome {
        Outcome::Deleted => {
            resources.0.remove(at);
        }
        Outcome::Kept => resources.0[at].remember(before),
    }
}

/// What only finds the object does not change it.
fn without_identity(patch: &Node, options: PatchOptions) -> Node {
    let mut patch = patch.clone();
    let Some(mapping) = patch.as_mapping_mut() else { return patch };
    if !options.allow_kind_change {
        mapping.remove("kind");
        mapping.remove("apiVersion");
    }
    if let Some(metadata) = mapping.get_mut("metadata").and_then(Node::as_mapping_mut) {
        if !options.allow_name_change {
            metadata.remove("name");
        }
    }
    patch
}

fn field<'n>(entry: &'n Node, name: &str) -> &'n Node {
    let mapping = entry.as_mapping();
    let found = mapping.and_then(|m| m.entries.iter().find(|e| e.key.text.eq_ignore_ascii_case(name)));
    found.map_or(entry, |entry| &entry.value)
}
