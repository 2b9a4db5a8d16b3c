//! `replacements`: copying a value from one object into others.
//!
//! Owns: [`ReplacementEntry`] (as written), [`apply_all`]. A missing source is an error, no target object is not, a
//! target field that is not there is an error unless `create` is set.

use serde::Deserialize;

use super::fieldpath::{Create, FieldPath};
use super::identity::{DEFAULT_NAMESPACE, Id};
use super::patch::unmatched;
use super::resource::Resources;
use super::selector::Selector;
use super::transformer::{Transform, Work, elements, field};
use crate::document::{Change, ChangeKind, Decoder, Diagnostic, Node, Position, Resolved, Style, Tag, Value, resolve};
use crate::error::Result;

/// An entry of `replacements`: a replacement, or a file of them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReplacementEntry {
    pub path: Option<String>,
    pub source: Option<Source>,
    pub source_value: Option<String>,
    pub targets: Vec<Target>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Source {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub field_path: Option<String>,
    pub options: FieldOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Target {
    pub select: Option<Selector>,
    pub reject: Vec<Selector>,
    pub field_paths: Vec<String>,
    pub options: FieldOptions,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FieldOptions {
    pub delimiter: String,
    pub index: i64,
    pub encoding: String,
    pub create: bool,
}

const DEFAULT_PATH: &str = "metadata.name";

/// Sources know no kinds without namespace.
fn spelled_out(namespace: &str) -> &str {
    if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace }
}

/// All of `replacements`.
pub struct Replacements {
    pub entries: Vec<Node>,
}

impl Transform for Replacements {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let rules = Decoder { any_case: true, strict_text: true };
        for entry in &self.entries {
            let typed: ReplacementEntry = rules.decode(entry)?;
            if typed.path.is_none() {
                Run { typed: &typed, entry }.apply(work)?;
                continue;
            }
            if typed.source.is_some() || typed.source_value.is_some() || !typed.targets.is_empty() {
                return Err(Diagnostic::on(entry, "both `path` and a replacement given").into());
            }
            for document in work.place.load(field(entry, "path"))?.documents {
                let items: Vec<&Node> = match &document.value {
                    Value::Sequence(items) => items.iter().collect(),
                    _ => vec![&document],
                };
                for item in items {
                    let typed: ReplacementEntry = rules.decode(item)?;
                    Run { typed: &typed, entry: item }.apply(work)?;
                }
            }
        }
        Ok(())
    }
}

struct Run<'a> {
    typed: &'a ReplacementEntry,
    entry: &'a Node,
}

impl Run<'_> {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        if self.typed.targets.is_empty() {
            return Err(Diagnostic::on(self.entry, "replacement without `targets`").into());
        }
        let value = match (&self.typed.source, &self.typed.source_value) {
            (Some(source), None) => self.source(source, work.resources)?,
            (None, Some(_)) => field(self.entry, "sourceValue").clone(),
            (Some(_), Some(_)) => {
                return Err(Diagnostic::on(self.entry, "both `source` and `sourceValue` given").into());
            }
            (None, None) => return Err(Diagnostic::on(self.entry, "replacement without `source`").into()),
        };
        for (index, target) in self.typed.targets.iter().enumerate() {
            let at = field(self.entry, "targets").as_sequence().and_then(|items| items.get(index));
            self.target(target, at.unwrap_or(self.entry), &value, work)?;
        }
        Ok(())
    }

    fn source(&self, source: &Source, resources: &Resources) -> Result<Node> {
        let at = field(self.entry, "source");
        let wanted = |id: &Id| {
            let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
            fits(&source.group, &id.group)
                && fits(&source.version, &id.version)
                && fits(&source.kind, &id.kind)
                && fits(&source.name, &id.name)
                && (source.namespace.is_empty() || spelled_out(&source.namespace) == spelled_out(&id.namespace))
        };
        let found: Vec<_> = resources.iter().filter(|resource| resource.ids().any(wanted)).collect();
        let object = match found[..] {
            [one] => one,
            [] => {
                let id = Id { kind: source.kind.clone(), name: source.name.clone(), ..Id::default() };
                let diagnostic = Diagnostic::on(at, format!("there is no {id} to copy from"));
                return Err(match resources.nearest(&id) {
                    Some(hint) => diagnostic.hint(hint),
                    None => diagnostic,
                }
                .into());
            }
            [first, second, ..] => {
                let diagnostic = Diagnostic::on(at, "more than one object fits this source");
                return Err(diagnostic
                    .note(&first.node.origin.at, format!("{}", first.id()))
                    .note(&second.node.origin.at, format!("{}", second.id()))
                    .into());
            }
        };
        let path = source.field_path.as_deref().unwrap_or(DEFAULT_PATH);
        let field_path = FieldPath::parse(path);
        let Some(value) = field_path.get(&object.node).filter(|value| !value.is_null()) else {
            let prefix = field_path.existing_prefix(&object.node);
            let diagnostic = Diagnostic::on(field(at, "fieldPath"), format!("{} has no `{path}`", object.id()));
            return Err(match prefix.is_empty() {
                true => diagnostic.into(),
                false => diagnostic.hint(format!("it has `{prefix}`")).into(),
            });
        };
        let count = value.as_mapping().map(|m| m.len()).or(value.as_sequence().map(<[Node]>::len));
        if count == Some(0) {
            return Err(Diagnostic::on(field(at, "fieldPath"), format!("`{path}` of {} is empty", object.id()))
                .note(&value.origin.at, "the empty value")
                .hint("kustomize does not copy empty mappings and lists; remove the replacement or fill the source")
                .into());
        }
        part_of(value, &source.options, at)
    }

    fn target(&self, target: &Target, at: &Node, value: &Node, work: &mut Work<'_>) -> Result<()> {
        let Some(selector) = &target.select else {
            return Err(Diagnostic::on(at, "target without `select`").into());
        };
        let select = selector.compile(field(at, "select"))?;
        let reject_at = |index| field(at, "reject").as_sequence().and_then(|items| items.get(index)).unwrap_or(at);
        let mut reject = Vec::new();
        for (index, selector) in target.reject.iter().enumerate() {
            reject.push(selector.compile(reject_at(index))?);
        }
        let default = [DEFAULT_PATH.to_owned()];
        let paths = if target.field_paths.is_empty() { &default[..] } else { &target.field_paths };
        let (mut found, mut rejections) = (false, 0);
        for index in 0..work.resources.len() {
            let resource = work.resources.get(index);
            // The identity or the labels: each is enough, even if both are asked for.
            let rejected = reject.iter().any(|matcher| {
                (!matcher.any_id() && resource.ids().any(|id| matcher.matches_id(id)))
                    || (matcher.asks_metadata() && matcher.matches_metadata(resource))
            });
            let selected = resource.ids().any(|id| select.matches_id(id)) && select.matches_metadata(resource);
            if !selected || rejected {
                rejections += usize::from(selected);
                continue;
            }
            found = true;
            work.resources.edit(index, |resource| {
                for (index, path) in paths.iter().enumerate() {
                    let path_at = elements(at, "fieldPaths").get(index).unwrap_or(at);
                    self.copy(&mut resource.node, path, path_at, target, value)?;
                }
                Ok::<_, crate::error::Error>(())
            })?;
        }
        if !found {
            let diagnostic = match rejections {
                0 => unmatched(field(at, "select"), "the target of this replacement", selector, work),
                _ => Diagnostic::on(
                    field(at, "reject"),
                    "everything that the target of this replacement selects is rejected",
                )
                .hint("narrow `reject`, or remove the target"),
            };
            work.unmatched(diagnostic.note(&self.entry.origin.at, "replacement used here"));
        }
        Ok(())
    }

    fn copy(&self, object: &mut Node, path: &str, path_at: &Node, target: &Target, value: &Node) -> Result<()> {
        let by = &self.entry.origin.at;
        let field_path = FieldPath::parse(path);
        let create = if target.options.create { Create::Like(value, by) } else { Create::No };
        let mut set = |slot: &mut Node| set_value(slot, value, &target.options, path_at, by);
        let count = field_path.visit(object, create, path_at, &mut set)?;
        if count == 0 {
            let id = Id::of(object);
            let diagnostic = Diagnostic::on(path_at, format!("{id} has no `{path}` to put the value in"));
            let hint = match (target.options.create, field_path.existing_prefix(object)) {
                (true, _) => "`create` makes keys and the elements a selector names, nothing else".to_owned(),
                (false, prefix) if prefix.is_empty() => "`options: {create: true}` makes it".to_owned(),
                (false, prefix) => format!("it has `{prefix}`; `options: {{create: true}}` makes the rest"),
            };
            return Err(diagnostic.note(&object.origin.at, "the object").hint(hint).into());
        }
        Ok(())
    }
}

/// The part of a source's text that the options name.
fn part_of(value: &Node, options: &FieldOptions, at: &Node) -> Result<Node> {
    if options.delimiter.is_empty() {
        return Ok(value.clone());
    }
    let Some(scalar) = value.as_scalar() else {
        return Err(Diagnostic::on(at, "`delimiter` needs a plain value, not a mapping or list").into());
    };
    let part = usize::try_from(options.index).ok().and_then(|index| scalar.text.split(&options.delimiter).nth(index));
    let Some(part) = part else {
        let message = format!("`{}` has no part number {}", scalar.text, options.index);
        return Err(Diagnostic::on(at, message).note(&value.origin.at, "the source").into());
    };
    let mut node = value.clone();
    if let Value::Scalar(scalar) = &mut node.value {
        scalar.text = part.to_owned();
    }
    Ok(node)
}

/// Puts the value into a field that exists. A scalar keeps its type: only the text is copied.
fn set_value(slot: &mut Node, value: &Node, options: &FieldOptions, at: &Node, by: &Position) -> Result<()> {
    let mut new = value.clone();
    if !options.delimiter.is_empty() {
        let (Some(old), Value::Scalar(scalar)) = (slot.as_scalar(), &mut new.value) else {
            return Err(Diagnostic::on(at, "`delimiter` needs a plain value, not a mapping or list").into());
        };
        let mut parts: Vec<&str> = old.text.split(&options.delimiter).collect();
        let text = scalar.text.clone();
        match usize::try_from(options.index) {
            Err(_) => parts.insert(0, &text),
            Ok(index) if index >= parts.len() => parts.push(&text),
            Ok(index) => parts[index] = &text,
        }
        scalar.text = parts.join(&options.delimiter);
    }
    // What `create` made a moment ago is nothing anyone wrote, and takes whatever comes.
    let created = slot.origin.at.same(by);
    let misfit = || {
        let message = format!("cannot put {} in place of {}", value.describe(), slot.describe());
        Diagnostic::on(at, message).note(&slot.origin.at, "the value there").note(&value.origin.at, "the source")
    };
    match (&slot.value, &mut new.value) {
        // An empty text stays one, wherever it comes.
        (Value::Scalar(old), Value::Scalar(scalar))
            if scalar.text.is_empty() && (created || resolve(old) == Resolved::Null) =>
        {
            scalar.tag = Some(Tag::Str);
        }
        (Value::Scalar(_), Value::Scalar(scalar)) if created => (scalar.style, scalar.tag) = (Style::Plain, None),
        (Value::Scalar(old), Value::Scalar(scalar)) => {
            let text = resolve(old);
            if matches!(text, Resolved::Str(_)) {
                scalar.tag = Some(Tag::Str);
            } else {
                (scalar.style, scalar.tag) = (Style::Plain, None);
                let fits = match (text, resolve(scalar)) {
                    (Resolved::Float(_), Resolved::Int(_)) => true,
                    (old, new) => std::mem::discriminant(&old) == std::mem::discriminant(&new),
                };
                if !fits {
                    let hint = "a value keeps its type; quote it in the target, or leave the key out and use `create`";
                    return Err(misfit().hint(hint).into());
                }
            }
        }
        // What kustomize copies is the text of the source, and a mapping or list has none.
        (Value::Scalar(old), _) if !created => {
            if !matches!(resolve(old), Resolved::Str(_) | Resolved::Null) {
                return Err(misfit().hint("leave the key out of the target and use `options: {create: true}`").into());
            }
            let mut emptied = old.clone();
            emptied.tag = matches!(resolve(old), Resolved::Str(_)).then_some(Tag::Str).or(old.tag);
            emptied.text.clear();
            new.value = Value::Scalar(emptied);
        }
        _ => {}
    }
    stamp(&mut new, slot, by, created);
    *slot = new;
    Ok(())
}

fn stamp(new: &mut Node, before: &Node, by: &Position, created: bool) {
    let change = |replaced| Change { kind: ChangeKind::Replacement, by: by.clone(), replaced };
    new.walk_mut(&mut |node| node.origin.changes.push(change(None)));
    if let (false, Some(last)) = (created, new.origin.changes.last_mut()) {
        last.replaced = Some(before.origin.at.clone());
    }
}
