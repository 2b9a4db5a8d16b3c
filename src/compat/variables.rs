//! Variable files: loading, layering, and the refusal of what only Ansible could evaluate.
//!
//! Owns: [`Variables`] and the shape of the tables that say what a variable means.

use std::path::Path;

use super::overlay::Overlay;
use crate::document::{Diagnostic, Entry, Key, Mapping, Node, Value, load_file, load_str, suggestion};
use crate::error::{Context, Error, Kind, Result};

/// What a variable means.
pub(super) enum Meaning {
    /// Its effect on the documents.
    Sets(Effect),
    /// How upstream worked, with no effect on what is built.
    Ignored,
    /// Not available yet: an error unless empty.
    Later,
}

pub(super) struct Variable {
    pub(super) name: &'static str,
    /// What becomes of it, for the reference page: a path below `NodeProfile.spec` and how it is changed.
    pub(super) becomes: &'static str,
    pub(super) meaning: Meaning,
}

type Effect = fn(&mut Overlay, &Key, &Node) -> Result<()>;

pub(super) const fn sets(name: &'static str, becomes: &'static str, effect: Effect) -> Variable {
    Variable { name, becomes, meaning: Meaning::Sets(effect) }
}

pub(super) const fn ignored(name: &'static str) -> Variable {
    Variable { name, becomes: "nothing: it told how upstream worked", meaning: Meaning::Ignored }
}

pub(super) const fn later(name: &'static str) -> Variable {
    Variable { name, becomes: "not available yet: must be empty", meaning: Meaning::Later }
}

/// In the order of a table, variables are applied; so a base comes before what is appended to it.
pub(super) type Table = &'static [Variable];

/// The variables of several files, the later file winning key by key.
#[derive(Default)]
pub(super) struct Variables {
    entries: Vec<Entry>,
}

impl Variables {
    /// Adds a file if it is there. Its keys must all be in the table.
    pub(super) fn add(&mut self, path: &Path, table: Table) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let documents = load_file(path).with_context(|| format!("reading {}", path.display()))?;
        self.add_documents(documents, table)
    }

    /// Adds what a file would hold.
    pub(super) fn add_text(&mut self, name: &str, text: Option<&str>, table: Table) -> Result<()> {
        let documents = text.map(|text| load_str(name, text)).transpose()?;
        self.add_documents(documents.unwrap_or_default(), table)
    }

    fn add_documents(&mut self, documents: Vec<Node>, table: Table) -> Result<()> {
        let mut documents = documents.into_iter();
        let Some(document) = documents.next() else { return Ok(()) };
        if let Some(second) = documents.next() {
            return Err(Diagnostic::on(&second, "a variable file holds one document").into());
        }
        let Value::Mapping(Mapping { entries }) = document.value else {
            if document.is_null() {
                return Ok(());
            }
            return Err(Diagnostic::on(&document, format!("expected variables, found {}", document.describe())).into());
        };
        for entry in entries {
            check_name(&entry.key, table)?;
            match self.entries.iter_mut().find(|known| known.key.text == entry.key.text) {
                Some(known) => *known = entry,
                None => self.entries.push(entry),
            }
        }
        Ok(())
    }

    /// Applies those of one table, in its order.
    pub(super) fn apply(&self, table: Table, overlay: &mut Overlay) -> Result<()> {
        for variable in table {
            let Some(entry) = self.entries.iter().find(|entry| entry.key.text == variable.name) else { continue };
            match variable.meaning {
                Meaning::Ignored => {}
                Meaning::Later if is_empty(&entry.value) => {}
                Meaning::Later => {
                    let message = format!("variable `{}` is not available yet", variable.name);
                    return Err(Diagnostic::at(&entry.key.at, message).hint("take it out of the file to build").into());
                }
                Meaning::Sets(effect) => {
                    refuse_templates(&entry.value)?;
                    effect(overlay, &entry.key, &entry.value)?;
                }
            }
        }
        Ok(())
    }
}

fn check_name(key: &Key, table: Table) -> Result<()> {
    if table.iter().any(|variable| variable.name == key.text) {
        return Ok(());
    }
    let names: Vec<&str> = table.iter().map(|variable| variable.name).collect();
    let diagnostic = Diagnostic::at(&key.at, format!("unknown variable `{}`", key.text));
    Err(match suggestion(&key.text, "variables of this file", &names) {
        Some(hint) => diagnostic.hint(hint).into(),
        None => diagnostic.into(),
    })
}

fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Mapping(mapping) => mapping.is_empty(),
        Value::Sequence(items) => items.is_empty(),
        Value::Scalar(scalar) => node.is_null() || scalar.text.is_empty(),
    }
}

/// References of upstream's own defaults whose meaning is fixed here.
pub(super) const KNOWN_TEMPLATES: &[&str] =
    &["{{ default_run_context }}", "{{ qcow_run_context }}", "{{ ubuntu_packages }}"];

/// Upstream's values are Jinja templates. Plain text means itself; anything else would be built wrong.
fn refuse_templates(node: &Node) -> Result<()> {
    match &node.value {
        Value::Mapping(mapping) => mapping.entries.iter().try_for_each(|entry| refuse_templates(&entry.value)),
        Value::Sequence(items) => items.iter().try_for_each(refuse_templates),
        Value::Scalar(scalar) => {
            let text = scalar.text.as_str();
            let template = ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark));
            if !template || KNOWN_TEMPLATES.contains(&text.trim()) {
                return Ok(());
            }
            Err(Diagnostic::on(node, "template values are not available yet")
                .hint("write the value that the template stands for")
                .into())
        }
    }
}

/// The entries of a mapping; anything else is an error that says what was expected.
pub(super) fn mapping<'a>(node: &'a Node, what: &str) -> Result<&'a [Entry]> {
    match &node.value {
        Value::Mapping(mapping) => Ok(&mapping.entries),
        _ => Err(expected(node, &format!("{what} as a mapping"))),
    }
}

/// The items of a list; null is an empty one.
pub(super) fn list<'a>(node: &'a Node, what: &str) -> Result<&'a [Node]> {
    match &node.value {
        Value::Sequence(items) => Ok(items),
        _ if node.is_null() => Ok(&[]),
        _ => Err(expected(node, &format!("a list of {what}"))),
    }
}

/// The text of a scalar.
pub(super) fn text<'a>(node: &'a Node, what: &str) -> Result<&'a str> {
    node.text().ok_or_else(|| expected(node, what))
}

/// The value of a key that must be there.
pub(super) fn required<'a>(node: &'a Node, key: &str, what: &str) -> Result<&'a Node> {
    mapping(node, what)?;
    node.get(key).ok_or_else(|| Diagnostic::on(node, format!("{what} without `{key}`")).into())
}

/// Refuses keys that are not known.
pub(super) fn known_keys(node: &Node, what: &str, known: &[&str]) -> Result<()> {
    for entry in mapping(node, what)? {
        if !known.contains(&entry.key.text.as_str()) {
            let diagnostic = Diagnostic::at(&entry.key.at, format!("unknown key `{}` of {what}", entry.key.text));
            return Err(match suggestion(&entry.key.text, "known keys", known) {
                Some(hint) => diagnostic.hint(hint).into(),
                None => diagnostic.into(),
            });
        }
    }
    Ok(())
}

fn expected(node: &Node, what: &str) -> Error {
    Error::from(Diagnostic::on(node, format!("expected {what}, found {}", node.describe())))
}

/// For failures that no document explains.
pub(super) fn internal(message: impl Into<String>) -> Error {
    Error::new(Kind::Documents, message)
}
