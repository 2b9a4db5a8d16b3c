//! `vars`: `$(NAME)` in certain fields becomes a value of some object.
//!
//! Owns: [`Variable`] (as written and merged), [`collect`], [`resolve_all`].

use std::collections::HashMap;

use serde::Deserialize;

use super::fieldpath::FieldPath;
use super::fieldspec::{Make, Specs};
use super::identity::Id;
use super::resource::Resources;
use super::transformer::field;
use crate::document::{Cause, ChangeKind, Diagnostic, Node, Resolved, Scalar, Style, Tag, Value, resolve};
use crate::error::Result;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VarEntry {
    pub name: String,
    #[serde(rename = "objref")]
    pub objref: ObjectReference,
    #[serde(rename = "fieldref")]
    pub fieldref: FieldReference,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ObjectReference {
    pub api_version: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FieldReference {
    #[serde(rename = "fieldPath", alias = "fieldpath")]
    pub field_path: String,
}

#[derive(Debug, Clone)]
pub struct Variable {
    typed: VarEntry,
    entry: Node,
}

/// Takes in the variables of a folder, and notes on the objects which of them they supply.
pub fn collect(
    known: &mut Vec<Variable>,
    typed: &[VarEntry],
    entries: &[Node],
    resources: &mut Resources,
) -> Result<()> {
    for (typed, entry) in typed.iter().zip(entries) {
        let wanted = &typed.objref;
        let api_version = match (wanted.api_version.is_empty(), wanted.group.is_empty()) {
            (false, _) => wanted.api_version.clone(),
            (true, true) => wanted.version.clone(),
            (true, false) => format!("{}/{}", wanted.group, wanted.version),
        };
        let id = Id::new(&api_version, &wanted.kind, &wanted.name, &wanted.namespace);
        // What is asked for is never without namespace, so that one that is given excludes kinds that have none.
        let same = |other: &Id| {
            (&other.group, &other.version, &other.kind, &other.name) == (&id.group, &id.version, &id.kind, &id.name)
        };
        let fits = |other: &Id| {
            same(other) && (wanted.namespace.is_empty() || other.effective_namespace() == wanted.namespace)
        };
        let found: Vec<usize> = (0..resources.len()).filter(|at| resources.get(*at).ids().any(fits)).collect();
        match found[..] {
            [] => {}
            [at] => resources.edit(at, |resource| resource.variables.push(typed.name.clone())),
            _ => {
                let message = format!("more than one object is {id}, which `{}` takes its value from", typed.name);
                return Err(Diagnostic::on(entry, message).hint("give its `namespace`, too").into());
            }
        }
        add(known, Variable { typed: typed.clone(), entry: entry.clone() })?;
    }
    Ok(())
}

pub fn add(known: &mut Vec<Variable>, variable: Variable) -> Result<()> {
    if let Some(first) = known.iter().find(|known| known.typed.name == variable.typed.name) {
        let message = format!("variable `{}` is defined twice", variable.typed.name);
        return Err(Diagnostic::on(&variable.entry, message).note(&first.entry.origin.at, "first defined here").into());
    }
    known.push(variable);
    Ok(())
}

/// Puts the values in.
pub fn resolve_all(resources: &mut Resources, variables: &[Variable], specs: &Specs) -> Result<()> {
    if variables.is_empty() {
        return Ok(());
    }
    let mut suppliers: HashMap<String, usize> = HashMap::new();
    for (at, resource) in resources.iter().enumerate() {
        for name in &resource.variables {
            suppliers.entry(name.clone()).or_insert(at);
        }
    }
    let mut values: HashMap<String, Node> = HashMap::new();
    for variable in variables {
        let name = &variable.typed.name;
        let entry = &variable.entry;
        let Some(at) = suppliers.get(name) else {
            let message = format!("there is no object for variable `{name}` to take its value from");
            return Err(Diagnostic::on(field(entry, "objref"), message).into());
        };
        let path = match variable.typed.fieldref.field_path.as_str() {
            "" => "metadata.name",
            path => path,
        };
        let resource = resources.get(*at);
        let Some(value) = FieldPath::parse(&indexed(path)).get(&resource.node).cloned() else {
            let message = format!("{} has no `{path}`, which variable `{name}` takes its value from", resource.id());
            return Err(Diagnostic::on(entry, message).note(&resource.node.origin.at, "the object").into());
        };
        values.insert(name.clone(), value);
    }
    resources.edit_all(|resource| {
        let id = resource.id().clone();
        let by = resource.node.origin.at.clone();
        for spec in specs.iter().filter(|spec| spec.selects(&id)) {
            spec.visit(&mut resource.node, Make::Nothing, &by, &mut |node| substitute(node, &values))?;
        }
        Ok(())
    })
}

/// `a.b[0].c` as `a.b.0.c`.
fn indexed(path: &str) -> String {
    let mut text = String::new();
    for character in path.chars() {
        match character {
            '[' if !text.ends_with('.') && !text.is_empty() => text.push('.'),
            '[' | ']' => {}
            other => text.push(other),
        }
    }
    text
}

fn substitute(node: &mut Node, values: &HashMap<String, Node>) -> Result<()> {
    match &mut node.value {
        Value::Scalar(_) => {
            expand(node, values);
            Ok(())
        }
        Value::Mapping(mapping) => {
            mapping.entries.iter_mut().for_each(|entry| expand(&mut entry.value, values));
            Ok(())
        }
        Value::Sequence(items) => items.iter_mut().try_for_each(|item| match is_text(item) {
            true => {
                expand(item, values);
                Ok(())
            }
            false => Err(Diagnostic::on(item, format!("expected text, found {}", item.describe())).into()),
        }),
    }
}

fn is_text(node: &Node) -> bool {
    node.as_scalar().is_some_and(|scalar| matches!(resolve(scalar), Resolved::Str(_) | Resolved::Timestamp(_)))
}

/// Replaces `$(NAME)`; `$$` stands for `$`, names nobody knows stay.
fn expand(node: &mut Node, values: &HashMap<String, Node>) {
    if !is_text(node) {
        return;
    }
    let text = node.as_scalar().map(|scalar| scalar.text.clone()).unwrap_or_default();
    if !text.contains('$') {
        return;
    }
    let whole = text.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')')).and_then(|name| values.get(name));
    if let Some(value) = whole {
        let cause = value.origin.at.clone();
        node.replace(value.clone(), Cause::new(ChangeKind::Variable, &cause));
        return;
    }
    let mut result = String::new();
    let mut rest = text.as_str();
    let mut supplier = None;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match values.get(name).map(|value| (value, value.text())) {
                Some((value, Some(text))) => {
                    result.push_str(text);
                    supplier = Some(value);
                }
                _ => result.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    if result != text {
        node.value = Value::Scalar(Scalar { text: result, style: Style::DoubleQuoted, tag: Some(Tag::Str) });
        let by = supplier.map_or(&node.origin.at, |value| &value.origin.at).clone();
        node.origin.changes.push(Cause::new(ChangeKind::Variable, &by).change(None));
    }
}
