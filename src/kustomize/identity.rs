//! What makes an object itself: group, version, kind, name, namespace.
//!
//! Owns: [`Id`], [`Gvk`] (a filter on kinds). Kinds without namespace are those of the built-in schema.

use std::fmt;

use serde::Deserialize;

use super::schema::Schema;
use crate::document::Node;

/// The namespace of a kind that has none, where a namespace is asked for.
pub const NO_NAMESPACE: &str = "_non_namespaceable_";
pub const DEFAULT_NAMESPACE: &str = "default";

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    /// Whether the kind is known to have no namespace.
    pub cluster: bool,
}

/// What two ids that are the same have in common.
pub type Key<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

impl Id {
    /// Missing parts are empty; whether that is allowed is for the caller to say.
    pub fn of(node: &Node) -> Self {
        let text = |path: &[&str]| node.at(path).and_then(raw).unwrap_or_default();
        Id::new(text(&["apiVersion"]), text(&["kind"]), text(&["metadata", "name"]), text(&["metadata", "namespace"]))
    }

    pub fn new(api_version: &str, kind: &str, name: &str, namespace: &str) -> Self {
        let (group, version) = split_api_version(api_version);
        Id {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            name: name.into(),
            namespace: namespace.into(),
            cluster: Schema::builtin().is_cluster_scoped(api_version, kind),
        }
    }

    /// Whether this is what the id of a node would be.
    pub fn is_of(&self, node: &Node) -> bool {
        let same = |path: &[&str], known: &str| node.at(path).and_then(raw).unwrap_or_default() == known;
        let api_version = node.get("apiVersion").and_then(raw).unwrap_or_default();
        same(&["metadata", "name"], &self.name)
            && same(&["metadata", "namespace"], &self.namespace)
            && same(&["kind"], &self.kind)
            && split_api_version(api_version) == (&self.group, &self.version)
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The namespace that counts: the empty one is `default`, kinds without namespace have none.
    pub fn effective_namespace(&self) -> &str {
        if self.cluster {
            NO_NAMESPACE
        } else if self.namespace.is_empty() {
            DEFAULT_NAMESPACE
        } else {
            &self.namespace
        }
    }

    /// Equal as kustomize sees it.
    pub fn same(&self, other: &Id) -> bool {
        self.key() == other.key()
    }

    pub fn key(&self) -> Key<'_> {
        (&self.group, &self.version, &self.kind, &self.name, self.effective_namespace())
    }
}

/// A scalar's text, whatever it means.
fn raw(node: &Node) -> Option<&str> {
    node.text()
}

fn split_api_version(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or(("", text))
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind.is_empty() { "object" } else { &self.kind };
        f.write_str(kind)?;
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        if !self.namespace.is_empty() && self.namespace != NO_NAMESPACE {
            write!(f, " in namespace {}", self.namespace)?;
        }
        Ok(())
    }
}

/// Kinds that something applies to; an empty part fits everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Gvk {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl Gvk {
    pub fn selects(&self, id: &Id) -> bool {
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        fits(&self.kind, &id.kind) && fits(&self.group, &id.group) && fits(&self.version, &id.version)
    }

    /// Whether everything that fits this fits the other one, too.
    pub fn within(&self, other: &Gvk) -> bool {
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        fits(&other.kind, &self.kind) && fits(&other.group, &self.group) && fits(&other.version, &self.version)
    }
}
