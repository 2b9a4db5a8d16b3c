//! What is known of kinds: which lists are merged by key, which kinds have no namespace.
//!
//! Owns: [`Schema`], [`Type`]. The built-in one is a compact table (`schema/kubernetes.txt`); `openapi.path` of a
//! kustomization replaces it with one read from a file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::document::{Key, Loader, Node};

const TABLE: &str = include_str!("schema/kubernetes.txt");

#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<Fields>,
    names: HashMap<String, usize>,
    kinds: HashMap<(String, String), usize>,
    cluster: HashMap<(String, String), ()>,
}

type Fields = HashMap<String, Field>;

#[derive(Debug, Clone, Default)]
struct Field {
    /// `None`: not a list, or one that is replaced as a whole.
    keys: Option<Vec<String>>,
    below: Option<usize>,
}

/// The type of a value, if anything is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Type<'s> {
    schema: &'s Schema,
    fields: &'s Fields,
}

/// How the value of a field merges.
#[derive(Debug, Clone)]
pub struct Below<'s> {
    /// The keys of a list that is merged element by element; empty for a set of plain values.
    pub keys: Option<Cow<'s, [String]>>,
    /// Of the value, or of the elements of the list.
    pub inner: Option<Type<'s>>,
}

impl<'s> Type<'s> {
    pub fn field(self, name: &str) -> Option<Below<'s>> {
        let field = self.fields.get(name)?;
        let inner = field.below.map(|at| Type { schema: self.schema, fields: &self.schema.types[at] });
        Some(Below { keys: field.keys.as_deref().map(Cow::Borrowed), inner })
    }
}

impl Schema {
    /// The one that comes with the program.
    pub fn builtin() -> Arc<Schema> {
        static BUILTIN: OnceLock<Arc<Schema>> = OnceLock::new();
        BUILTIN.get_or_init(|| Arc::new(Schema::parse(TABLE))).clone()
    }

    pub fn of(&self, api_version: &str, kind: &str) -> Option<Type<'_>> {
        let at = *self.kinds.get(&(api_version.to_owned(), kind.to_owned()))?;
        Some(Type { schema: self, fields: &self.types[at] })
    }

    pub fn is_cluster_scoped(&self, api_version: &str, kind: &str) -> bool {
        self.cluster.contains_key(&(api_version.to_owned(), kind.to_owned()))
    }

    /// A schema written as a comment behind a key, or on the line above it:
    /// `containers: # {"items": ..., "x-kubernetes-patch-merge-key": ...}`. It counts instead of the one that is known.
    pub fn comment(&self, key: &Key) -> Option<Below<'_>> {
        let text = key.at.source().text();
        let (start, end) = key.at.bytes();
        let json = match behind(text.get(end..)?) {
            Some(comment) => comment,
            None => above(text.get(..start)?)?,
        };
        let json = Some(json.trim_start_matches('#').trim()).filter(|json| json.starts_with('{'))?;
        let documents = Loader::default().text("comment", json.as_bytes()).ok()?.documents;
        let schema = documents.first().filter(|schema| schema.as_mapping().is_some_and(|map| !map.is_empty()))?;
        let inner = schema.get("items").unwrap_or(schema).get("$ref").and_then(Node::text);
        let name = inner.and_then(|reference| reference.rsplit('/').next()).unwrap_or_default();
        let at = self.names.get(name).or_else(|| self.names.get(name.rsplit('.').next().unwrap_or_default()));
        let inner = at.map(|at| Type { schema: self, fields: &self.types[*at] });
        Some(Below { keys: merge_keys(schema).map(Cow::Owned), inner })
    }

    fn parse(table: &str) -> Schema {
        let lines = || table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut names: HashMap<&str, usize> = HashMap::new();
        for line in lines().filter(|line| !line.starts_with('@')) {
            let count = names.len();
            names.insert(line.split(' ').next().unwrap_or_default(), count);
        }
        let mut schema = Schema { types: vec![Fields::new(); names.len()], ..Schema::default() };
        schema.names = names.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect();
        for line in lines() {
            let mut words = line.split(' ');
            let first = words.next().unwrap_or_default();
            if first == "@" {
                let mut word = || words.next().unwrap_or_default();
                let kind = (word().to_owned(), word().to_owned());
                if let Some(at) = names.get(word()) {
                    schema.kinds.insert(kind.clone(), *at);
                }
                if word() == "cluster" {
                    schema.cluster.insert(kind, ());
                }
                continue;
            }
            let fields = words.map(|word| {
                let (field, below) = word.split_once('=').map_or((word, None), |(f, b)| (f, names.get(b).copied()));
                let (name, keys) = match field.strip_suffix(']').and_then(|field| field.split_once('[')) {
                    Some((name, keys)) => {
                        (name, Some(keys.split(',').filter(|key| !key.is_empty()).map(str::to_owned).collect()))
                    }
                    None => (field, None),
                };
                (name.to_owned(), Field { keys, below })
            });
            schema.types[names[first]] = fields.collect();
        }
        schema
    }

    /// The definitions of an OpenAPI description (version 2).
    pub fn from_openapi(document: &Node) -> Schema {
        let mut schema = Schema::default();
        let Some(definitions) = document.get("definitions").and_then(Node::as_mapping) else { return schema };
        let names: HashMap<&str, usize> =
            definitions.entries.iter().enumerate().map(|(at, entry)| (entry.key.text.as_str(), at)).collect();
        let mut reader = OpenApi { names: &names, extra: Vec::new(), first: definitions.len() };
        for (at, entry) in definitions.entries.iter().enumerate() {
            let fields = reader.fields(&entry.value);
            schema.types.push(fields);
            for kind in entry.value.get("x-kubernetes-group-version-kind").and_then(Node::as_sequence).unwrap_or(&[]) {
                let text = |name: &str| kind.get(name).and_then(Node::text).unwrap_or_default().to_owned();
                let (group, version) = (text("group"), text("version"));
                let api_version = if group.is_empty() { version } else { format!("{group}/{version}") };
                schema.kinds.insert((api_version, text("kind")), at);
            }
        }
        schema.types.append(&mut reader.extra);
        schema.names = names.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect();
        schema
    }
}

/// The keys that a list is merged by, as its schema says; nothing if it is replaced as a whole.
fn merge_keys(schema: &Node) -> Option<Vec<String>> {
    let text = |name: &str| schema.get(name).and_then(Node::text);
    let merges = text("x-kubernetes-patch-strategy")?.split(',').any(|part| part == "merge");
    let list = schema.get("x-kubernetes-list-map-keys").and_then(Node::as_sequence);
    let keys = match (list, text("x-kubernetes-patch-merge-key")) {
        (Some(keys), _) => keys.iter().filter_map(Node::text).map(str::to_owned).collect(),
        (None, Some(key)) => vec![key.to_owned()],
        (None, None) => Vec::new(),
    };
    merges.then_some(keys)
}

/// The comment at the end of a line whose key ends where `rest` starts.
fn behind(rest: &str) -> Option<&str> {
    let line = rest.lines().next()?;
    line.find(" #").map(|at| &line[at + 1..])
}

/// The comment that is all of the line above a key, and all there is: of several lines, none is a schema.
fn above(before: &str) -> Option<&str> {
    let mut lines = before.rsplit('\n').skip(1).map(str::trim);
    let comment = lines.next().filter(|line| line.starts_with('#'))?;
    lines.next().is_none_or(|line| !line.starts_with('#')).then_some(comment)
}

/// Reads definitions; types that are written in place come after the named ones.
struct OpenApi<'a> {
    names: &'a HashMap<&'a str, usize>,
    extra: Vec<Fields>,
    first: usize,
}

impl OpenApi<'_> {
    fn fields(&mut self, definition: &Node) -> Fields {
        let mut fields = Fields::new();
        for property in definition.get("properties").and_then(Node::as_mapping).iter().flat_map(|m| &m.entries) {
            let value = &property.value;
            let below = self.type_of(value.get("items").unwrap_or(value));
            fields.insert(property.key.text.clone(), Field { keys: merge_keys(value), below });
        }
        fields
    }

    fn type_of(&mut self, value: &Node) -> Option<usize> {
        if let Some(reference) = value.get("$ref").and_then(Node::text) {
            return self.names.get(reference.rsplit('/').next()?).copied();
        }
        value.get("properties")?;
        let fields = self.fields(value);
        self.extra.push(fields);
        Some(self.first + self.extra.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_knows_keys_and_scopes() {
        let schema = Schema::builtin();
        let pod = schema.of("apps/v1", "Deployment").and_then(|t| t.field("spec")?.inner?.field("template")?.inner);
        let container = pod.and_then(|t| t.field("spec")?.inner?.field("containers")).unwrap();
        assert_eq!(container.keys.as_deref().unwrap(), ["name"]);
        let ports = container.inner.unwrap().field("ports").unwrap();
        assert_eq!(ports.keys.as_deref().unwrap(), ["containerPort", "protocol"]);
        assert!(schema.of("example.com/v1", "Deployment").is_none());
        assert!(schema.is_cluster_scoped("v1", "Namespace") && !schema.is_cluster_scoped("v1", "Secret"));
    }
}
