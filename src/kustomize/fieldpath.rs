//! Field paths of replacements: `spec.list.[name=x].field`, `spec.list.*.field`, `metadata.annotations.a\.b`.
//!
//! Owns: [`FieldPath`]: parsing, looking up one value, visiting all values that match, with creation of what is
//! missing.

use regex::Regex;

use super::embedded::Embedded;
use super::fieldspec;
use crate::document::{
    Cause, ChangeKind, Diagnostic, Entry, Key, Mapping, Node, Origin, Position, Scalar, Style, Tag, Value,
};
use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// A key of a mapping, or the number of a list element.
    Field(String),
    /// `[key=value]`; without key, the element itself.
    Element(String, String),
    /// `*`
    Every,
}

#[derive(Debug, Clone)]
pub struct FieldPath(Vec<Part>);

/// What is made where a path ends in nothing.
#[derive(Debug, Clone, Copy)]
pub enum Create<'a> {
    No,
    /// An empty value of the same shape as this one, at the position of the entry that asks for it.
    Like(&'a Node, &'a Position),
}

impl FieldPath {
    pub fn parse(text: &str) -> Self {
        FieldPath(split(text).into_iter().map(|part| Part::parse(&part)).collect())
    }

    /// A path whose parts are parted by slashes, escaped where they are meant.
    pub fn from_slashes(text: &str) -> Self {
        FieldPath(fieldspec::split(text).iter().map(|part| Part::parse(part)).collect())
    }

    /// The value of a source.
    pub fn get<'n>(&self, node: &'n Node) -> Option<&'n Node> {
        self.0.iter().try_fold(node, |node, part| match (part, &node.value) {
            (Part::Field(key), Value::Mapping(mapping)) => mapping.get(key),
            (Part::Field(key), Value::Sequence(items)) if key == "-" => items.last(),
            (Part::Field(key), Value::Sequence(items)) => items.get(key.parse::<usize>().ok()?),
            (Part::Element(key, value), Value::Sequence(items)) => items.iter().find(|item| fits(item, key, value)),
            _ => None,
        })
    }

    /// Calls `visit` on every value the path leads to, and returns how many there were. `asked` is the path as
    /// written, for errors.
    pub fn visit(
        &self,
        node: &mut Node,
        create: Create<'_>,
        asked: &Node,
        visit: &mut dyn FnMut(&mut Node) -> Result<()>,
    ) -> Result<usize> {
        Walk { create, asked }.step(node, &self.0, visit)
    }

    /// The longest leading part of the path that exists, as text, for messages.
    pub fn existing_prefix(&self, node: &Node) -> String {
        let mut prefix = String::new();
        for end in 1..=self.0.len() {
            if FieldPath(self.0[..end].to_vec()).get(node).is_none() {
                break;
            }
            prefix = self.0[..end].iter().map(Part::text).collect::<Vec<_>>().join(".");
        }
        prefix
    }
}

impl Part {
    fn parse(text: &str) -> Self {
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match inner.map(|inner| (inner, inner.split_once('='))) {
            Some((_, Some((key, value)))) => Part::Element(key.to_owned(), unquoted(value).to_owned()),
            Some((inner, None)) => Part::Field(inner.to_owned()),
            None if text == "*" => Part::Every,
            None => Part::Field(text.to_owned()),
        }
    }

    fn text(&self) -> String {
        match self {
            Part::Field(key) => key.clone(),
            Part::Element(key, value) => format!("[{key}={value}]"),
            Part::Every => "*".into(),
        }
    }

    fn wants_list(&self) -> bool {
        match self {
            Part::Field(key) => key.parse::<usize>().is_ok(),
            Part::Element(..) | Part::Every => true,
        }
    }
}

fn unquoted(value: &str) -> &str {
    let quoted = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    quoted('\'').or_else(|| quoted('"')).unwrap_or(value)
}

/// Splits at dots that are neither escaped nor within brackets.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut bracket) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&'.') => part.extend(characters.next()),
            '.' if !bracket => parts.push(std::mem::take(&mut part)),
            _ => {
                bracket = match character {
                    '[' if part.is_empty() => true,
                    ']' => false,
                    _ => bracket,
                };
                part.push(character);
            }
        }
    }
    parts.push(part);
    parts.retain(|part| !part.is_empty());
    parts
}

fn fits(item: &Node, key: &str, value: &str) -> bool {
    let found = if key.is_empty() { Some(item) } else { item.get(key) };
    found.and_then(Node::text).is_some_and(|text| text == value)
}

fn blank(rest: &[Part], like: &Node, at: &Position) -> Node {
    let origin = Origin::new(at.clone());
    match rest.first() {
        // Kustomize takes a star for a name here, and then finds no list.
        Some(part) if part.wants_list() && *part != Part::Every => Node::sequence(Vec::new(), origin),
        Some(_) => Node::mapping(origin),
        None => match &like.value {
            Value::Mapping(_) => Node::mapping(origin),
            Value::Sequence(_) => Node::sequence(Vec::new(), origin),
            Value::Scalar(_) => Node::plain("", origin),
        },
    }
}

struct Walk<'a> {
    create: Create<'a>,
    asked: &'a Node,
}

impl Walk<'_> {
    fn step(&self, node: &mut Node, path: &[Part], visit: &mut dyn FnMut(&mut Node) -> Result<()>) -> Result<usize> {
        let Some((part, rest)) = path.split_first() else {
            visit(node)?;
            return Ok(1);
        };
        if node.is_null() {
            // Kustomize makes nothing below a null, and takes that for done.
            return Ok(usize::from(matches!(self.create, Create::Like(..))));
        }
        match (part, &mut node.value) {
            (Part::Every, Value::Sequence(items)) => {
                items.iter_mut().try_fold(0, |count, item| Ok(count + self.step(item, rest, visit)?))
            }
            (Part::Element(key, value), Value::Sequence(items)) => {
                let found = self.chosen(key, value)?;
                if let (false, Create::Like(_, at)) = (items.iter().any(&found), self.create) {
                    items.push(element(key, value, at));
                }
                let mut matching = items.iter_mut().filter(|item| found(item));
                matching.try_fold(0, |count, item| Ok(count + self.step(item, rest, visit)?))
            }
            (Part::Field(key), Value::Sequence(items)) if part.wants_list() => {
                let index = key.parse::<usize>().unwrap_or(usize::MAX);
                if let (true, Create::Like(like, at)) = (index == items.len(), self.create) {
                    items.push(blank(rest, like, at));
                }
                items.get_mut(index).map_or(Ok(0), |item| self.step(item, rest, visit))
            }
            (Part::Field(key), Value::Mapping(mapping)) if !part.wants_list() => {
                if let (None, Create::Like(like, at)) = (mapping.get(key), self.create) {
                    let key = Key { text: key.clone(), at: at.clone(), is_string: true };
                    mapping.entries.push(Entry { key, value: blank(rest, like, at) });
                }
                mapping.get_mut(key).map_or(Ok(0), |value| self.step(value, rest, visit))
            }
            (_, Value::Scalar(_)) => match Embedded::of(node) {
                Some(data) => self.inside(node, data, path, visit),
                None => Err(self.misfit(part, node).into()),
            },
            _ => Err(self.misfit(part, node).into()),
        }
    }

    /// Which elements a selector means. In a target it is a regular expression that may fit anywhere in the value: that
    /// is what kustomize does, if not what it says.
    fn chosen<'s>(&self, key: &'s str, value: &'s str) -> Result<impl Fn(&Node) -> bool + use<'s>> {
        let plain = value.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '/' | ':' | '@'));
        let regex = match plain {
            true => None,
            false => Some(Regex::new(value).map_err(|_| {
                Error::from(Diagnostic::on(self.asked, format!("`{value}` is not a regular expression")))
            })?),
        };
        Ok(move |item: &Node| {
            let found = if key.is_empty() { Some(item) } else { item.get(key) };
            found.and_then(Node::text).is_some_and(|text| match &regex {
                Some(regex) => regex.is_match(text),
                None => text.contains(value),
            })
        })
    }

    /// The rest of the path leads into data that a text holds.
    fn inside(
        &self,
        node: &mut Node,
        mut data: Embedded,
        path: &[Part],
        visit: &mut dyn FnMut(&mut Node) -> Result<()>,
    ) -> Result<usize> {
        let source = data.root.origin.at.source().clone();
        let mut root = data.root.clone();
        let mut changed: Vec<(Node, Node)> = Vec::new();
        let mut note = |slot: &mut Node| {
            let before = slot.clone();
            visit(slot)?;
            changed.push((before, slot.clone()));
            Ok(())
        };
        let count = self.step(&mut root, path, &mut note)?;
        data.root = root;
        changed.iter().for_each(|(before, after)| data.changed(before, after, &source));
        if count > 0 {
            let text = data.into_text();
            let cause = Cause::new(ChangeKind::Replacement, &self.asked.origin.at);
            node.value = Value::Scalar(Scalar { text, style: Style::DoubleQuoted, tag: Some(Tag::Str) });
            node.origin.changes.push(cause.change(None));
        }
        Ok(count)
    }

    fn misfit(&self, part: &Part, node: &Node) -> Diagnostic {
        let wanted = if part.wants_list() { "a list" } else { "a mapping" };
        let message = format!("`{}` needs {wanted}, found {}", part.text(), node.describe());
        Diagnostic::on(self.asked, message).note(&node.origin.at, "the value there").history(&node.origin)
    }
}

/// A list element that a selector asks for.
fn element(key: &str, value: &str, at: &Position) -> Node {
    let origin = Origin::new(at.clone());
    let text = Node::plain(value, origin.clone());
    if key.is_empty() {
        return text;
    }
    let key = Key { text: key.to_owned(), at: at.clone(), is_string: true };
    Node::new(Value::Mapping(Mapping { entries: vec![Entry { key, value: text }] }), origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_at_plain_dots_only() {
        assert_eq!(split(r"a.[name=x.y].b\.c.0"), ["a", "[name=x.y]", "b.c", "0"]);
        assert_eq!(Part::parse("[name=x=y]"), Part::Element("name".into(), "x=y".into()));
    }
}
