//! `patches`, `patchesStrategicMerge`, `patchesJson6902` and their plugins: which text is applied to which objects.
//!
//! Owns: [`Patch`], [`StrategicMerge`]. A patch text is either objects to merge or a list of JSON patch operations.

use serde::de::IgnoredAny;

use super::identity::Id;
use super::json6902;
use super::kustomization::PatchEntry;
use super::merge::{Outcome, merge};
use super::resource::{Resource, from_documents};
use super::selector::Selector;
use super::transformer::{Transform, Work, field};
use crate::document::{
    Cause, ChangeKind, Diagnostic, Key, Loader, Node, Origin, Position, Resolved, Tag, Value, resolve,
};
use crate::error::Result;

/// One entry of `patches` or `patchesJson6902`.
pub struct Patch {
    pub typed: PatchEntry,
    pub entry: Node,
    /// Of `patchesJson6902`: objects to merge are not welcome.
    pub json_only: bool,
}

/// All of `patchesStrategicMerge`.
pub struct StrategicMerge {
    /// Paths of files, or patches written in place.
    pub entries: Vec<Node>,
}

/// What of its own identity a patch may give its object.
#[derive(Debug, Clone, Copy, Default)]
struct Allowed {
    name: bool,
    kind: bool,
}

impl Transform for StrategicMerge {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let mut found = 0;
        for entry in &self.entries {
            let documents = match entry.text() {
                Some(text) if text.contains('\n') || text.trim_start().starts_with('{') => {
                    Loader::default().inline(entry)?.documents
                }
                _ => work.place.load(entry)?.documents,
            };
            found += documents.len();
            let mut patches = from_documents(documents)?;
            patches.iter_mut().for_each(|patch| as_texts(&mut patch.node, &["labels", "annotations"]));
            merge_untargeted(&patches, &entry.origin.at, Allowed::default(), work)?;
        }
        match self.entries.first() {
            Some(entry) if found == 0 => Err(Diagnostic::on(entry, "these patches hold no documents").into()),
            _ => Ok(()),
        }
    }
}

impl Transform for Patch {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.trim().is_empty());
        let documents = match (given(&self.typed.path), given(&self.typed.patch)) {
            (true, true) => return Err(Diagnostic::on(&self.entry, "both `path` and `patch` given").into()),
            (true, false) => {
                let path = field(&self.entry, "path");
                let loaded = work.place.load(path)?;
                check_json(loaded.source.text(), path)?;
                loaded.documents
            }
            (false, true) => {
                let text = self.text();
                let json = check_json(text.text().unwrap_or_default(), text)?;
                Loader { last_key_wins: json }.inline(text)?.documents
            }
            (false, false) => {
                return Err(Diagnostic::on(&self.entry, "patch without `path` or `patch`").into());
            }
        };
        if self.json_only {
            match &self.typed.target {
                None => return Err(Diagnostic::on(&self.entry, "a JSON patch needs a `target`").into()),
                Some(target) if target.name.as_deref().is_none_or(str::is_empty) => {
                    return Err(Diagnostic::on(field(&self.entry, "target"), "this `target` needs a `name`")
                        .hint("`patches` takes targets without one")
                        .into());
                }
                Some(_) => {}
            }
        }
        if documents.is_empty() {
            return Ok(());
        }
        if documents.iter().any(|document| document.as_sequence().is_some()) {
            let [operations] = &documents[..] else {
                return Err(Diagnostic::on(&documents[1], "a JSON patch is one single list of operations").into());
            };
            if operations.as_sequence().is_some_and(<[Node]>::is_empty) {
                return Err(Diagnostic::on(operations, "a patch without operations").into());
            }
            return self.json(operations, work);
        }
        if self.json_only {
            return Err(Diagnostic::on(&documents[0], "expected a list of JSON patch operations").into());
        }
        let option = |name: &str| self.typed.options.get(name).copied().unwrap_or_default();
        let allowed = Allowed { name: option("allowNameChange"), kind: option("allowKindChange") };
        if self.typed.target.is_none() {
            let mut patches = from_documents(documents)?;
            if allowed.name || allowed.kind {
                // Kustomize keeps the permission among the annotations of the patch.
                patches.iter_mut().for_each(|patch| as_texts(&mut patch.node, &["annotations"]));
            }
            return merge_untargeted(&patches, &self.entry.origin.at, allowed, work);
        }
        self.targeted(documents, allowed, work)
    }
}

/// Patched as JSON, an integer of more than 53 bits comes out as the number nearest to it.
fn as_json_number(node: &mut Node) {
    const EXACT: u128 = 1 << 53;
    let Value::Scalar(scalar) = &mut node.value else { return };
    if let Resolved::Int(value) = resolve(scalar) {
        if value.unsigned_abs() > EXACT {
            scalar.text = format!("{}", value as f64);
        }
    }
}

/// Whether a patch is JSON. A text that starts with a bracket is, for kustomize, which then takes nothing else.
fn check_json(text: &str, at: &Node) -> Result<bool> {
    if !text.starts_with('[') {
        return Ok(false);
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(true),
        Err(error) => Err(Diagnostic::on(at, format!("a patch that starts with `[` must be JSON: {error}"))
            .hint("put names and texts in double quotes, or write the operations as a YAML list: `- op: add`")
            .into()),
    }
}

impl Patch {
    /// Plugins call it `jsonOp`.
    fn text(&self) -> &Node {
        let patch = field(&self.entry, "patch");
        if std::ptr::eq(patch, &self.entry) { field(&self.entry, "jsonOp") } else { patch }
    }

    fn targeted(&self, documents: Vec<Node>, allowed: Allowed, work: &mut Work<'_>) -> Result<()> {
        let by = &self.entry.origin.at;
        let patches = from_documents(documents)?;
        let [patch] = &patches[..] else {
            let second = patches.get(1).map_or(by, |patch| &patch.node.origin.at);
            let message = "a patch with a target must be one document";
            return Err(Diagnostic::at(second, message).note(by, "the entry with the target").into());
        };
        // With a target (and in the old field), kustomize reads labels and annotations of a patch as texts, even a null.
        let mut patch = patch.clone();
        as_texts(&mut patch.node, &["labels", "annotations"]);
        for at in self.selected(work)? {
            merge_into(at, &patch, by, allowed, work)?;
        }
        work.resources.sweep();
        if allowed.name || allowed.kind { work.resources.check_unique(by) } else { Ok(()) }
    }

    fn json(&self, operations: &Node, work: &mut Work<'_>) -> Result<()> {
        let by = &self.entry.origin.at;
        if self.typed.target.is_none() {
            return Err(Diagnostic::on(&self.entry, "a JSON patch needs a `target`").into());
        }
        for at in self.selected(work)? {
            work.resources.edit(at, |resource| {
                // The old field leaves no note of who an object was.
                if !self.json_only {
                    resource.remember();
                }
                let noted = resource.is_noted();
                if noted {
                    with_notes(&mut resource.node, by);
                }
                let before = resource.id().clone();
                json6902::apply(&mut resource.node, operations, by)?;
                resource.node.walk_mut(&mut as_json_number);
                resource.unshare();
                if noted && !without_notes(&mut resource.node) {
                    resource.forget();
                }
                let after = Id::of(&resource.node);
                if after.kind.is_empty() || after.name.is_empty() {
                    let message = format!("the patch leaves {before} without name or kind");
                    return Err(Diagnostic::on(operations, message).into());
                }
                Ok::<_, crate::error::Error>(())
            })?;
        }
        Ok(())
    }

    fn selected(&self, work: &Work<'_>) -> Result<Vec<usize>> {
        let selector = self.typed.target.clone().unwrap_or_default();
        let at = field(&self.entry, "target");
        let matcher = selector.compile(at)?;
        let found = work.resources.iter().enumerate().filter(|(_, resource)| matcher.matches(resource));
        let found: Vec<usize> = found.map(|(at, _)| at).collect();
        if found.is_empty() {
            let diagnostic = unmatched(at, "the target of this patch", &selector, work);
            work.unmatched(diagnostic.note(&self.entry.origin.at, "patch used here"));
        }
        Ok(found)
    }
}

/// Maps of the metadata that are read as maps of text; a null in them is the text `null`.
fn as_texts(patch: &mut Node, fields: &[&str]) {
    let Some(metadata) = patch.get_mut("metadata") else { return };
    for field in fields {
        for entry in metadata.get_mut(field).and_then(Node::as_mapping_mut).iter_mut().flat_map(|map| &mut map.entries)
        {
            if let Value::Scalar(scalar) = &mut entry.value.value {
                scalar.tag = Some(Tag::Str);
            }
        }
    }
}

/// Where kustomize keeps where an object came from.
const NOTES: &str = "config.kubernetes.io/origin";

/// A JSON patch finds annotations where kustomize keeps notes of its own in them.
fn with_notes(object: &mut Node, by: &Position) {
    let Some(metadata) = object.get_mut("metadata").and_then(Node::as_mapping_mut) else { return };
    if metadata.get("annotations").is_none_or(Node::is_null) {
        metadata.set(Key::new("annotations", by), Node::mapping(Origin::new(by.clone())));
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Node::as_mapping_mut) {
        annotations.set(Key::new(NOTES, by), Node::string("", Origin::new(by.clone())));
    }
}

/// Takes the notes out; tells whether they were still there, or went with the annotations.
fn without_notes(object: &mut Node) -> bool {
    let annotations = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"));
    annotations.and_then(Node::as_mapping_mut).is_some_and(|annotations| annotations.remove(NOTES).is_some())
}

/// What is said where nothing matches and kustomize says nothing.
pub fn unmatched(at: &Node, what: &str, selector: &Selector, work: &Work<'_>) -> Diagnostic {
    let diagnostic = Diagnostic::on(at, format!("{what} matches nothing"));
    let by_name = Selector { label_selector: None, annotation_selector: None, ..selector.clone() };
    let named: Vec<String> = match by_name.compile(at) {
        Ok(matcher) if by_name != *selector => {
            work.resources.iter().filter(|one| matcher.matches(one)).map(|one| one.id().to_string()).collect()
        }
        _ => Vec::new(),
    };
    if !named.is_empty() {
        let shown = named.iter().take(8).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return diagnostic.hint(format!("without its labels and annotations it would match {shown}"));
    }
    match work.resources.nearest(&selector.wanted()) {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic.hint("no objects are defined here"),
    }
}

/// Patches that name their object themselves.
fn merge_untargeted(patches: &[Resource], by: &Position, allowed: Allowed, work: &mut Work<'_>) -> Result<()> {
    for patch in patches {
        let id = patch.id();
        let at = match work.resources.find(id)[..] {
            [one] => one,
            [] => {
                let message = format!("there is no {id} to patch");
                let diagnostic = Diagnostic::on(&patch.node, message).note(by, "patch used here");
                return Err(match work.resources.nearest(id) {
                    Some(hint) => diagnostic.hint(hint),
                    None => diagnostic.hint("no objects are defined here"),
                }
                .into());
            }
            _ => return Err(Diagnostic::on(&patch.node, format!("more than one object is or was {id}")).into()),
        };
        merge_into(at, patch, by, allowed, work)?;
    }
    work.resources.sweep();
    Ok(())
}

fn merge_into(at: usize, patch: &Resource, by: &Position, allowed: Allowed, work: &mut Work<'_>) -> Result<()> {
    let schema = work.schema;
    work.resources.edit(at, |resource| {
        if allowed.name || allowed.kind {
            resource.remember();
        }
        let id = resource.id();
        let of = schema.of(&id.api_version(), &id.kind);
        let cause = Cause::new(ChangeKind::Patch, by);
        let patch = without_identity(&patch.node, allowed);
        if merge(&mut resource.node, &patch, schema, of, cause)? == Outcome::Deleted {
            resource.delete();
        }
        Ok(())
    })
}

/// What only finds the object does not change it.
fn without_identity(patch: &Node, allowed: Allowed) -> Node {
    let mut patch = patch.clone();
    let Some(mapping) = patch.as_mapping_mut() else { return patch };
    mapping.remove("apiVersion");
    if !allowed.kind {
        mapping.remove("kind");
    }
    if let Some(metadata) = mapping.get_mut("metadata").and_then(Node::as_mapping_mut) {
        metadata.remove("namespace");
        if !allowed.name {
            metadata.remove("name");
        }
    }
    patch
}
