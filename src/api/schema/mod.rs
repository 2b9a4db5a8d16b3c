//! What documents may say, as data: JSON Schema and CustomResourceDefinitions of every kind, made of the types in
//! this room.
//!
//! Owns: the table [`KINDS`], [`Kind::json_schema`] (draft 2020-12), [`Kind::crd`] (apiextensions v1, structural) and
//! [`explain`]. The types' own comments are the descriptions and their `Default` the defaults, so that a schema cannot
//! say anything else than the program does. Published under `manifests/`; `tests/reference.rs` compares.

mod crd;
pub mod explain;
mod realms;
mod scalars;
#[cfg(test)]
mod tests;
mod tidy;

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{API_VERSION, AirshipImage, ImageConfiguration, ManifestMetadata, NodeProfile, Phase};
use crate::document::{Decoder, Misfit, Node};

/// One kind of document.
pub struct Kind {
    pub name: &'static str,
    pub plural: &'static str,
    schema: fn(&mut SchemaGenerator) -> Schema,
    misfits: fn(&Node) -> Vec<Misfit>,
}

macro_rules! kind {
    ($type:ident, $plural:literal) => {
        Kind {
            name: stringify!($type),
            plural: $plural,
            schema: |generator| generator.root_schema_for::<$type>(),
            misfits: |node| Decoder::default().misfits::<$type>(node),
        }
    };
}

/// Every kind the program reads, by name.
pub const KINDS: &[Kind] = &[
    kind!(AirshipImage, "airshipimages"),
    kind!(ImageConfiguration, "imageconfigurations"),
    kind!(ManifestMetadata, "manifestmetadatas"),
    kind!(NodeProfile, "nodeprofiles"),
    kind!(Phase, "phases"),
];

/// The kind of a document, if it is one of ours.
pub fn of(document: &Node) -> Option<&'static Kind> {
    let text = |key: &str| document.get(key).and_then(Node::text);
    KINDS.iter().find(|kind| text("kind") == Some(kind.name) && text("apiVersion") == Some(API_VERSION))
}

impl Kind {
    /// Everything in a document that does not fit its type.
    pub fn misfits(&self, document: &Node) -> Vec<Misfit> {
        (self.misfits)(document)
    }

    /// The schema with our own words (`x-format`, `x-alias`), from which the published ones are made: every reference
    /// resolved, `null` nowhere, text of type `string`.
    fn plain(&self) -> Value {
        let mut generator =
            SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
        let mut schema = (self.schema)(&mut generator).to_value();
        tidy::tidy(&mut schema);
        for (field, value) in [("apiVersion", API_VERSION), ("kind", self.name)] {
            let description = schema["properties"][field]["description"].clone();
            schema["properties"][field] = json!({"type": "string", "const": value, "description": description});
        }
        schema
    }

    /// JSON Schema, draft 2020-12: what editors check documents with.
    pub fn json_schema(&self) -> Value {
        let mut plain = self.plain();
        tidy::for_editors(&mut plain);
        realms::mark(&mut plain, self.name, true);
        let mut schema = Map::new();
        schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        schema.insert("title".into(), self.name.into());
        if let Value::Object(fields) = plain {
            schema.extend(fields.into_iter().filter(|(key, _)| key != "$schema" && key != "title"));
        }
        Value::Object(schema)
    }

    /// CustomResourceDefinition of `apiextensions.k8s.io/v1`, with a structural schema.
    pub fn crd(&self) -> Value {
        let mut plain = self.plain();
        realms::mark(&mut plain, self.name, false);
        crd::crd(self, plain)
    }

    /// Name of the schema's file under `manifests/schemas`.
    pub fn schema_file(&self) -> String {
        format!("{}.json", self.name.to_lowercase())
    }

    /// Name of the definition's file under `manifests/crds`, as controller-gen names it.
    pub fn crd_file(&self) -> String {
        format!("airshipit.org_{}.yaml", self.plural)
    }
}
