//! Strategic merge of a patch into an object.
//!
//! Owns: [`merge`]. Mappings merge, null deletes, everything else is replaced; lists of built-in kinds that have a key
//! go to `keyed_list.rs`. `$patch: delete | replace | merge` are known. Behaviour: kustomize 5, observed.

use super::keyed_list;
use super::schema::{Below, Schema, Type};
use crate::document::{Cause, Change, Diagnostic, Mapping, Node, Value};
use crate::error::Result;

pub(super) const DIRECTIVE: &str = "$patch";

/// What a merge leaves of its target.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Kept,
    Deleted,
}

/// Which of the two values a walk ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Winner {
    Target,
    Patch,
    Nobody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Directive {
    Merge,
    Replace,
    Delete,
}

/// Merges `patch` into `target`, whose type is known or not; `cause` is who asked for it.
pub fn merge(
    target: &mut Node,
    patch: &Node,
    schema: &Schema,
    of: Option<Type<'_>>,
    cause: Cause<'_>,
) -> Result<Outcome> {
    let mut patch = patch.clone();
    match take_directive(&mut patch)? {
        Directive::Delete => return Ok(Outcome::Deleted),
        // At the top, `replace` changes nothing, as in kustomize.
        Directive::Replace => return Ok(Outcome::Kept),
        Directive::Merge => {}
    }
    Merge { cause, schema }.fields(target, &mut patch, of)?;
    Ok(Outcome::Kept)
}

pub(super) struct Merge<'a> {
    pub cause: Cause<'a>,
    pub schema: &'a Schema,
}

impl Merge<'_> {
    /// Walks both values; what the patch gives is left in `patch` if it wins.
    pub fn values(&self, target: &mut Node, patch: &mut Node, below: Option<Below<'_>>) -> Result<Winner> {
        if patch.is_null() {
            return Ok(Winner::Nobody);
        }
        if target.is_null() {
            return self.alone(patch, below);
        }
        let inner = below.as_ref().and_then(|below| below.inner);
        match (&mut target.value, &mut patch.value) {
            (Value::Mapping(_), Value::Mapping(_)) => match take_directive(patch)? {
                Directive::Delete => Ok(Winner::Nobody),
                Directive::Replace => {
                    self.settle_fields(patch, inner)?;
                    Ok(Winner::Patch)
                }
                Directive::Merge => {
                    self.fields(target, patch, inner)?;
                    Ok(Winner::Target)
                }
            },
            (Value::Sequence(_), Value::Sequence(items)) => {
                let Some(keys) = below.as_ref().and_then(|below| below.keys.as_deref()) else {
                    return Ok(Winner::Patch);
                };
                match take_list_directive(items)? {
                    Directive::Delete => Ok(Winner::Nobody),
                    Directive::Replace => {
                        keyed_list::settle(self, patch, keys, inner)?;
                        Ok(Winner::Patch)
                    }
                    Directive::Merge => {
                        keyed_list::merge(self, target, Some(patch), keys, inner)?;
                        Ok(Winner::Target)
                    }
                }
            }
            (Value::Scalar(_), Value::Scalar(_)) => Ok(Winner::Patch),
            _ => {
                let message = format!("the patch has {} where the object has {}", patch.describe(), target.describe());
                Err(Diagnostic::on(patch, message)
                    .note(&target.origin.at, "the value to be patched")
                    .note(self.cause.by, "patch used here")
                    .into())
            }
        }
    }

    /// A patch's value where the target has nothing.
    pub fn alone(&self, patch: &mut Node, below: Option<Below<'_>>) -> Result<Winner> {
        if patch.is_null() {
            return Ok(Winner::Nobody);
        }
        let inner = below.as_ref().and_then(|below| below.inner);
        match &mut patch.value {
            Value::Mapping(_) => {
                if take_directive(patch)? == Directive::Delete {
                    return Ok(Winner::Nobody);
                }
                self.settle_fields(patch, inner)?;
            }
            Value::Sequence(items) => {
                if let Some(keys) = below.as_ref().and_then(|below| below.keys.as_deref()) {
                    if take_list_directive(items)? == Directive::Delete {
                        return Ok(Winner::Nobody);
                    }
                    keyed_list::settle(self, patch, keys, inner)?;
                }
            }
            Value::Scalar(_) => {}
        }
        Ok(Winner::Patch)
    }

    /// A target's value where the patch has nothing: only lists that are merged by key are looked at, because merging
    /// puts them in order.
    pub fn untouched(&self, target: &mut Node, below: Option<Below<'_>>) -> Result<()> {
        let Some(below) = below else { return Ok(()) };
        match &mut target.value {
            Value::Mapping(mapping) => {
                let Some(inner) = below.inner else { return Ok(()) };
                mapping.entries.iter_mut().try_for_each(|e| self.untouched(&mut e.value, inner.field(&e.key.text)))
            }
            Value::Sequence(_) => match below.keys.as_deref() {
                Some(keys) => keyed_list::merge(self, target, None, keys, below.inner),
                None => Ok(()),
            },
            Value::Scalar(_) => Ok(()),
        }
    }

    /// Merges the fields of two mappings.
    pub fn fields(&self, target: &mut Node, patch: &mut Node, of: Option<Type<'_>>) -> Result<()> {
        let (Value::Mapping(into), Value::Mapping(from)) = (&mut target.value, &mut patch.value) else {
            return Ok(());
        };
        if let Some(of) = of {
            for entry in &mut into.entries {
                if from.get(&entry.key.text).is_none() {
                    self.untouched(&mut entry.value, of.field(&entry.key.text))?;
                }
            }
        }
        let mut lost = Vec::new();
        for mut entry in std::mem::take(&mut from.entries) {
            let known = into.entries.iter().find(|other| other.key.text == entry.key.text);
            let below = known
                .and_then(|known| self.schema.comment(&known.key))
                .or_else(|| self.schema.comment(&entry.key))
                .or_else(|| of.and_then(|of| of.field(&entry.key.text)));
            match into.get_mut(&entry.key.text) {
                None => {
                    if self.alone(&mut entry.value, below)? == Winner::Patch {
                        self.cause.stamp(&mut entry.value, None);
                        into.entries.push(entry);
                    }
                }
                Some(slot) => match self.values(slot, &mut entry.value, below)? {
                    Winner::Target => {}
                    Winner::Patch => slot.replace(entry.value, self.cause),
                    Winner::Nobody => lost.extend(into.remove(&entry.key.text)),
                },
            }
        }
        lost.iter().for_each(|removed| target.origin.lost(self.cause.by, removed));
        Ok(())
    }

    /// A mapping as it is put where nothing was: without nulls and directives.
    pub fn settle_fields(&self, patch: &mut Node, of: Option<Type<'_>>) -> Result<()> {
        let Value::Mapping(mapping) = &mut patch.value else { return Ok(()) };
        let mut kept = Mapping::default();
        for mut entry in std::mem::take(&mut mapping.entries) {
            let below = of.and_then(|of| of.field(&entry.key.text));
            if self.alone(&mut entry.value, below)? == Winner::Patch {
                kept.entries.push(entry);
            }
        }
        *mapping = kept;
        Ok(())
    }

    /// Notes on a list that its elements were merged.
    pub fn mark(&self, list: &mut Node) {
        let change = Change { kind: self.cause.kind, by: self.cause.by.clone(), replaced: None };
        list.origin.changes.push(change);
    }
}

/// The directive of a mapping, which is taken out.
pub(super) fn take_directive(patch: &mut Node) -> Result<Directive> {
    let Some(mapping) = patch.as_mapping_mut() else { return Ok(Directive::Merge) };
    let Some(value) = mapping.get(DIRECTIVE) else { return Ok(Directive::Merge) };
    let directive = directive(value)?;
    mapping.remove(DIRECTIVE);
    Ok(directive)
}

/// The directive of a list: an element that holds nothing else.
fn take_list_directive(items: &mut Vec<Node>) -> Result<Directive> {
    let Some(first) = items.iter().find(|item| item.get(DIRECTIVE).is_some()) else { return Ok(Directive::Merge) };
    let (Some(mapping), Some(value)) = (first.as_mapping(), first.get(DIRECTIVE)) else {
        return Ok(Directive::Merge);
    };
    if mapping.len() > 1 {
        return Ok(Directive::Merge);
    }
    let found = directive(value)?;
    let text = value.text().unwrap_or_default().to_owned();
    items.retain(|item| item.get(DIRECTIVE).and_then(Node::text) != Some(&text));
    Ok(found)
}

fn directive(value: &Node) -> Result<Directive> {
    match value.text() {
        Some("merge") => Ok(Directive::Merge),
        Some("replace") => Ok(Directive::Replace),
        Some("delete") => Ok(Directive::Delete),
        _ => Err(Diagnostic::on(value, format!("unknown patch directive {}", value.describe()))
            .hint("known directives: `delete`, `replace`, `merge`")
            .into()),
    }
}
