//! What every transformer is given, and what it must do.
//!
//! Owns: [`Transform`], [`Work`], [`Step`].

use super::Options;
use super::place::Place;
use super::resource::{Provenance, Resources};
use super::schema::Schema;
use crate::document::{Diagnostic, Node};
use crate::error::Result;

/// What a transformer works on.
pub struct Work<'a> {
    pub resources: &'a mut Resources,
    /// The folder whose kustomization names the transformer; its files are relative to it.
    pub place: &'a Place,
    pub schema: &'a Schema,
    pub options: &'a Options,
}

impl Work<'_> {
    pub fn warn(&self, text: impl AsRef<str>) {
        if let Some(reporter) = &self.options.reporter {
            reporter.warning(text);
        }
    }
}

impl Work<'_> {
    /// A patch or replacement changes nothing: kustomize does not mind, whoever builds the documents decides.
    pub fn unmatched(&self, diagnostic: Diagnostic) {
        match &self.options.unmatched {
            Some(taken) => {
                if let Ok(mut taken) = taken.lock() {
                    taken.push(diagnostic);
                }
            }
            None => {
                let hints: String = diagnostic.hints().iter().map(|hint| format!("; {hint}")).collect();
                self.warn(format!("{}: {}{hints}", diagnostic.place(), diagnostic.message()));
            }
        }
    }
}

pub trait Transform {
    fn apply(&self, work: &mut Work<'_>) -> Result<()>;
}

/// A transformer, and how `buildMetadata` names it.
pub struct Step {
    pub transformer: Box<dyn Transform>,
    pub provenance: Option<Provenance>,
}

/// The field of an entry, whatever its case; the entry itself where it has none, so that there always is a place.
pub fn field<'n>(entry: &'n Node, name: &str) -> &'n Node {
    find_field(entry, name).unwrap_or(entry)
}

pub fn find_field<'n>(entry: &'n Node, name: &str) -> Option<&'n Node> {
    let mapping = entry.as_mapping()?;
    mapping.entries.iter().find(|e| e.key.text.eq_ignore_ascii_case(name)).map(|entry| &entry.value)
}

/// The elements of a list field of an entry.
pub fn elements<'n>(entry: &'n Node, name: &str) -> &'n [Node] {
    find_field(entry, name).and_then(Node::as_sequence).unwrap_or_default()
}
