//! Field specifications: where in which kinds a transformer works (`path: spec/template/metadata/labels`).
//!
//! Owns: [`FieldSpec`], [`Specs`] (a list of them, merged as kustomize merges them), visiting the fields of an object.

use serde::Deserialize;

use super::identity::{Gvk, Id};
use crate::document::{Diagnostic, Entry, Key, Node, Origin, Position, Style, Value};
use crate::error::Result;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FieldSpec {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub path: String,
    #[serde(rename = "create")]
    pub create: bool,
}

/// What is made where a field is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    Nothing,
    Mapping,
    Text,
}

pub type Specs = Vec<FieldSpec>;

/// Adds a specification to a list, where it is not in it already.
pub fn add(specs: &mut Specs, spec: FieldSpec, at: &Position) -> Result<()> {
    let gvk = spec.gvk();
    match specs.iter().find(|known| known.path == spec.path && known.gvk().within(&gvk)) {
        Some(known) if known.create != spec.create => {
            let message = format!("field specification `{}` is known already, with another `create`", spec.path);
            Err(Diagnostic::at(at, message).into())
        }
        Some(_) => Ok(()),
        None => {
            specs.push(spec);
            Ok(())
        }
    }
}

pub fn add_all(specs: &mut Specs, more: &[FieldSpec], at: &Position) -> Result<()> {
    more.iter().try_for_each(|spec| add(specs, spec.clone(), at))
}

impl FieldSpec {
    pub fn gvk(&self) -> Gvk {
        Gvk { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }

    pub fn selects(&self, id: &Id) -> bool {
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        fits(&self.kind, &id.kind) && fits(&self.group, &id.group) && fits(&self.version, &id.version)
    }

    /// Calls `set` on every value the path leads to in an object of a fitting kind. `by` is the entry that asks for
    /// it, and the place of what is made on the way.
    pub fn visit(
        &self,
        object: &mut Node,
        make: Make,
        by: &Position,
        set: &mut dyn FnMut(&mut Node) -> Result<()>,
    ) -> Result<()> {
        let parts = split(&self.path);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Visit { make: if self.create { make } else { Make::Nothing }, by, spec: self }.step(object, &parts, set)
    }

    /// Whether an object has anything where the path starts, to sort out most of what need not be visited.
    pub fn may_be_in(&self, object: &Node) -> bool {
        let first = self.path.split('/').next().unwrap_or_default();
        object.get(first.trim_end_matches("[]")).is_some()
    }
}

/// Splits at slashes that are not escaped.
pub fn split(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut escaped = false;
    for part in path.split('/') {
        let continues = std::mem::replace(&mut escaped, part.ends_with('\\'));
        let part = part.strip_suffix('\\').unwrap_or(part);
        match parts.last_mut() {
            Some(last) if continues => {
                last.push('/');
                last.push_str(part);
            }
            _ => parts.push(part.to_owned()),
        }
    }
    parts
}

struct Visit<'a> {
    make: Make,
    by: &'a Position,
    spec: &'a FieldSpec,
}

impl Visit<'_> {
    fn step(&self, node: &mut Node, path: &[&str], set: &mut dyn FnMut(&mut Node) -> Result<()>) -> Result<()> {
        let Some((part, rest)) = path.split_first() else { return set(node) };
        if node.is_null() {
            return Ok(());
        }
        let found = node.describe();
        match &mut node.value {
            // Lists on the way are not named in the path.
            Value::Sequence(items) => items.iter_mut().try_for_each(|item| self.step(item, path, set)),
            Value::Mapping(_) => self.field(node, part, rest, set),
            Value::Scalar(_) => {
                let message = format!("`{}` leads through {found}", self.spec.path);
                Err(Diagnostic::on(node, message).note(self.by, "asked for here").into())
            }
        }
    }

    fn field(
        &self,
        node: &mut Node,
        part: &str,
        rest: &[&str],
        set: &mut dyn FnMut(&mut Node) -> Result<()>,
    ) -> Result<()> {
        let (name, is_list) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
        if name.is_empty() {
            return Err(Diagnostic::at(self.by, format!("`{}` has a part without name", self.spec.path)).into());
        }
        let make = match (self.make, is_list, rest.is_empty()) {
            (Make::Nothing, ..) | (_, true, _) => Make::Nothing,
            (make, false, true) => make,
            (_, false, false) => Make::Mapping,
        };
        let Value::Mapping(mapping) = &mut node.value else { return Ok(()) };
        if mapping.get(name).is_none() {
            if make == Make::Nothing {
                return Ok(());
            }
            mapping.entries.push(Entry { key: Key::new(name, self.by), value: self.made(make) });
        }
        let Some(field) = mapping.get_mut(name) else { return Ok(()) };
        if field.is_null() && !is_unset(field) {
            // A null becomes what would have been made; a list if the path says that it is one.
            if is_list {
                *field = Node::sequence(Vec::new(), field.origin.clone());
            } else if make != Make::Nothing {
                *field = self.made(make);
            }
        }
        self.step(field, rest, set)
    }

    fn made(&self, make: Make) -> Node {
        let origin = Origin::new(self.by.clone());
        match make {
            Make::Mapping => Node::mapping(origin),
            _ => Node::string("", origin),
        }
    }
}

/// A text just made, which is no null.
fn is_unset(node: &Node) -> bool {
    node.as_scalar().is_some_and(|scalar| scalar.style != Style::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_may_be_escaped() {
        assert_eq!(split(r"metadata/annotations/a.b\/c"), ["metadata", "annotations", "a.b/c"]);
    }
}
