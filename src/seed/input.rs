//! Where user data and network data come from: a file, or documents by selector, with airshipctl's defaults.

use std::path::PathBuf;

use base64::Engine;

use crate::document::{Diagnostic, Loader, Node, Position, Source, read_limited};
use crate::error::{Error, Result};
use crate::kustomize::{self, Selector};

/// Larger user data is refused by every platform, and a machine would hold it in memory.
const LIMIT: usize = 16 << 20;

#[derive(Clone)]
pub enum Input<'a> {
    File(PathBuf),
    /// Rendered documents, and which of them.
    Documents(&'a [Node], Selection),
    /// Bytes that are there already, shown under a name.
    Bytes(String, Vec<u8>),
}

/// Which document, and which key of a Secret. Empty parts have the defaults that airshipctl has for the part of the
/// seed.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub selector: Option<Selector>,
    pub key: Option<String>,
}

/// What differs between the parts of a seed.
pub(super) struct Part {
    what: &'static str,
    kind: &'static str,
    label: &'static str,
    key: &'static str,
    flag: &'static str,
}

pub(super) const USER_DATA: Part = Part {
    what: "user data",
    kind: "Secret",
    label: "airshipit.org/ephemeral-user-data in (True, true)",
    key: "userData",
    flag: "--user-data",
};

pub(super) const NETWORK_DATA: Part = Part {
    what: "network data",
    kind: "BareMetalHost",
    label: "airshipit.org/ephemeral-node in (True, true)",
    key: "networkData",
    flag: "--network-data",
};

/// Bytes that know where they were written.
pub(super) struct Text {
    pub bytes: Vec<u8>,
    origin: Origin,
    host: Option<String>,
}

enum Origin {
    Named(String),
    /// The scalar that is the text.
    Inline(Node),
}

impl Text {
    /// All documents of it as YAML, with positions.
    pub fn parse(&self) -> Result<Vec<Node>> {
        let loaded = match &self.origin {
            Origin::Named(name) => Loader::default().text(name, &self.bytes),
            Origin::Inline(node) => Loader::default().inline(node),
        };
        Ok(loaded?.documents)
    }

    pub fn place(&self) -> Position {
        match &self.origin {
            Origin::Named(name) => Position::whole(&Source::new(name, "")),
            Origin::Inline(node) => node.origin.at.clone(),
        }
    }

    /// A line of it, from 1 on, for messages.
    pub fn line(&self, line: usize) -> String {
        match &self.origin {
            Origin::Named(name) => format!("{name}:{line}"),
            Origin::Inline(node) => match node.as_scalar().map(|scalar| scalar.style) {
                Some(crate::document::Style::Literal) => {
                    format!("{}:{}", node.origin.at.file(), node.origin.at.line() as usize + line - 1)
                }
                _ => format!("{} (its line {line})", node.origin.at),
            },
        }
    }

    /// The BareMetalHost it was found by.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }
}

impl Input<'_> {
    pub(super) fn find(&self, part: &Part) -> Result<Text> {
        let text = match self {
            Input::File(path) => {
                let name = path.display().to_string();
                let bytes = read_limited(path).map_err(|error| {
                    let error = error.add_context(format!("reading {name}"));
                    error.at(&name, 0, 0).hint(format!("name the file that holds the {}", part.what))
                })?;
                Text { bytes, origin: Origin::Named(name), host: None }
            }
            Input::Bytes(name, bytes) => Text { bytes: bytes.clone(), origin: Origin::Named(name.clone()), host: None },
            Input::Documents(documents, selection) => selection.find(documents, part)?,
        };
        match text.bytes.len() {
            0 => Err(super::fault(&text, format!("the {} is empty", part.what))),
            length if length > LIMIT => {
                Err(super::fault(&text, format!("the {} has more than {} MiB", part.what, LIMIT >> 20)))
            }
            _ => Ok(text),
        }
    }
}

impl Selection {
    fn find(&self, documents: &[Node], part: &Part) -> Result<Text> {
        let selector = self.selector(part);
        let mut found = kustomize::select(documents, &selector)?.into_iter();
        let described = || describe(&selector);
        let first = found.next().ok_or_else(|| {
            Error::documents(format!("no document holds the {}: there is no {}", part.what, described()))
                .hint(format!("add one to the documents, or name a file with `{}`", part.flag))
        })?;
        if let Some(second) = found.next() {
            let message = format!("more than one document holds the {}: {}", part.what, described());
            let place = |node: &Node| node.at(&["metadata", "name"]).unwrap_or(node).origin.at.clone();
            return Err(Diagnostic::at(&place(second), message).note(&place(first), "the first one").into());
        }
        let key = self.key.as_deref().filter(|key| !key.is_empty()).unwrap_or(part.key);
        if first.get("kind").and_then(Node::text) != Some("BareMetalHost") {
            return value(first, key);
        }
        let secret = network_secret(first, documents)?;
        let host = first.at(&["metadata", "name"]).and_then(Node::text).map(str::to_owned);
        Ok(Text { host, ..value(secret, key)? })
    }

    /// The defaults count only where nothing is said about kind, name, labels and annotations.
    fn selector(&self, part: &Part) -> Selector {
        let mut selector = self.selector.clone().unwrap_or_default();
        let given = [&selector.kind, &selector.name, &selector.label_selector, &selector.annotation_selector];
        if given.iter().all(|field| field.as_deref().unwrap_or_default().is_empty()) {
            selector.kind = Some(part.kind.into());
            selector.label_selector = Some(part.label.into());
        }
        selector
    }
}

fn describe(selector: &Selector) -> String {
    let kind = selector.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("document");
    let parts = [
        ("called", &selector.name),
        ("in namespace", &selector.namespace),
        ("with label", &selector.label_selector),
        ("with annotation", &selector.annotation_selector),
    ];
    let given = parts.iter().filter_map(|(words, value)| {
        let value = value.as_deref().filter(|value| !value.is_empty())?;
        Some(format!(" {words} `{value}`"))
    });
    format!("{kind}{}", given.collect::<String>())
}

/// The Secret that `spec.networkData` of a BareMetalHost names.
fn network_secret<'a>(host: &Node, documents: &'a [Node]) -> Result<&'a Node> {
    let missing = |field: &str, at: &Node| {
        Diagnostic::on(at, format!("this BareMetalHost has no `spec.networkData.{field}`"))
            .hint("name the Secret with its network data: `networkData: {name: NAME, namespace: NAMESPACE}`")
    };
    let spec = host.get("spec").unwrap_or(host);
    let data = spec.get("networkData").unwrap_or(spec);
    let field = |field: &str| data.get(field).filter(|node| node.text().is_some_and(|text| !text.is_empty()));
    let name = field("name").ok_or_else(|| missing("name", data))?;
    let namespace = field("namespace").ok_or_else(|| missing("namespace", data))?;
    let text = |node: &Node| node.text().unwrap_or_default().to_owned();
    let is = |document: &&Node| {
        let of = |path: &[&str]| document.at(path).and_then(Node::text).unwrap_or_default();
        // A document without one gets the default when it is applied.
        let within = of(&["metadata", "namespace"]);
        let within = if within.is_empty() { "default" } else { within };
        of(&["kind"]) == "Secret" && of(&["metadata", "name"]) == text(name) && within == text(namespace)
    };
    documents.iter().find(is).ok_or_else(|| {
        let message = format!("there is no Secret `{}` in namespace `{}`", text(name), text(namespace));
        Diagnostic::on(name, message).hint("it has to be among the documents of the entry point").into()
    })
}

/// A value of a Secret: `stringData` before `data`, as the API server merges them.
fn value(document: &Node, key: &str) -> Result<Text> {
    let string = document.at(&["stringData", key]);
    if let Some(node) = string.filter(|node| node.text().is_some()) {
        let bytes = node.text().unwrap_or_default().as_bytes().to_vec();
        return Ok(Text { bytes, origin: Origin::Inline(node.clone()), host: None });
    }
    let Some(node) = document.at(&["data", key]).filter(|node| node.text().is_some()) else {
        let place = document.at(&["metadata", "name"]).unwrap_or(document);
        let name = document.at(&["metadata", "name"]).and_then(Node::text).unwrap_or_default();
        let kind = document.get("kind").and_then(Node::text).unwrap_or("document");
        return Err(Diagnostic::on(place, format!("{kind} `{name}` has no key `{key}` in `stringData` or `data`"))
            .hint("the key can be chosen: `userDataKey`, `networkConfigKey`")
            .into());
    };
    let packed: Vec<u8> = node.text().unwrap_or_default().bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).map_err(|_| {
        Error::from(
            Diagnostic::on(node, format!("`data.{key}` is not base64"))
                .without_text()
                .hint("plain text goes into `stringData`"),
        )
    })?;
    Ok(Text { bytes, origin: Origin::Named(format!("{} (decoded)", node.origin.at)), host: None })
}
