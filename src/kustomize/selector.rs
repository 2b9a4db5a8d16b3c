//! Which objects an entry applies to: regular expressions on identity, Kubernetes selectors on labels and annotations.
//!
//! Owns: [`Selector`] (as written) and [`Matcher`] (ready to match).

use regex::Regex;
use serde::Deserialize;

use super::identity::Id;
use super::resource::Resource;
use crate::document::{Diagnostic, Node};
use crate::error::Result;

#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Selector {
    pub group: Option<String>,
    pub version: Option<String>,
    pub kind: Option<String>,
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub label_selector: Option<String>,
    pub annotation_selector: Option<String>,
}

/// A selector, compiled. A part that was not given matches everything.
pub struct Matcher {
    group: Option<Regex>,
    version: Option<Regex>,
    kind: Option<Regex>,
    name: Option<Regex>,
    namespace: Option<Regex>,
    labels: Vec<Requirement>,
    annotations: Vec<Requirement>,
}

impl Selector {
    /// What is looked for, as if the texts were no regular expressions; for suggestions.
    pub fn wanted(&self) -> Id {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Id { kind: text(&self.kind), name: text(&self.name), namespace: text(&self.namespace), ..Id::default() }
    }

    /// `at` is the node of the selector, for errors.
    pub fn compile(&self, at: &Node) -> Result<Matcher> {
        let regex = |field: &str, text: &Option<String>| -> Result<Option<Regex>> {
            let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
            // Anchored as a whole, so that `a|b` is not half open.
            Regex::new(&format!("^(?:{text})$")).map(Some).map_err(|_| {
                let at = at.get(field).unwrap_or(at);
                Diagnostic::on(at, format!("`{text}` is not a regular expression")).into()
            })
        };
        let requirements = |field: &str, text: &Option<String>| -> Result<Vec<Requirement>> {
            let text = text.as_deref().unwrap_or_default();
            Requirement::parse(text).ok_or_else(|| {
                let at = at.get(field).unwrap_or(at);
                Diagnostic::on(at, format!("`{text}` is not a selector"))
                    .hint("expected something like `tier=web,env!=test,team in (a, b),!legacy`")
                    .into()
            })
        };
        Ok(Matcher {
            group: regex("group", &self.group)?,
            version: regex("version", &self.version)?,
            kind: regex("kind", &self.kind)?,
            name: regex("name", &self.name)?,
            namespace: regex("namespace", &self.namespace)?,
            labels: requirements("labelSelector", &self.label_selector)?,
            annotations: requirements("annotationSelector", &self.annotation_selector)?,
        })
    }
}

fn fits(regex: &Option<Regex>, text: &str) -> bool {
    regex.as_ref().is_none_or(|regex| regex.is_match(text))
}

impl Matcher {
    /// Names and namespaces may be the first or the present ones, group, version and kind are the present ones. A
    /// namespace that was not given is `default`.
    pub fn matches(&self, resource: &Resource) -> bool {
        let (id, first) = (resource.id(), resource.first_id());
        let either = |regex: &Option<Regex>, now: &str, then: &str| fits(regex, now) || fits(regex, then);
        fits(&self.group, &id.group)
            && fits(&self.version, &id.version)
            && fits(&self.kind, &id.kind)
            && either(&self.namespace, id.effective_namespace(), first.effective_namespace())
            && either(&self.name, &id.name, &first.name)
            && self.matches_metadata(resource)
    }

    /// One identity as a whole.
    pub fn matches_id(&self, id: &Id) -> bool {
        fits(&self.group, &id.group)
            && fits(&self.version, &id.version)
            && fits(&self.kind, &id.kind)
            && fits(&self.namespace, &id.namespace)
            && fits(&self.name, &id.name)
    }

    /// A document as it is, whatever its name was before.
    pub fn matches_document(&self, document: &Node) -> bool {
        self.matches_id(&Id::of(document)) && self.labels_and_annotations(document)
    }

    /// Whether nothing is said of identities.
    pub fn any_id(&self) -> bool {
        [&self.group, &self.version, &self.kind, &self.name, &self.namespace].iter().all(|part| part.is_none())
    }

    /// Whether labels or annotations are asked for.
    pub fn asks_metadata(&self) -> bool {
        !self.labels.is_empty() || !self.annotations.is_empty()
    }

    pub fn matches_metadata(&self, resource: &Resource) -> bool {
        self.labels_and_annotations(&resource.node)
    }

    fn labels_and_annotations(&self, node: &Node) -> bool {
        let fits = |requirements: &[Requirement], field: &str| {
            let map = node.at(&["metadata", field]);
            requirements.iter().all(|requirement| requirement.fits(map))
        };
        fits(&self.labels, "labels") && fits(&self.annotations, "annotations")
    }
}

/// One part of a label selector.
struct Requirement {
    key: String,
    test: Test,
}

enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl Requirement {
    /// `None` when the text is not a selector. The empty one has no requirements.
    fn parse(text: &str) -> Option<Vec<Requirement>> {
        split_outside_parentheses(text)?.into_iter().map(Self::parse_one).collect()
    }

    fn parse_one(text: &str) -> Option<Requirement> {
        let values = |list: &str| -> Option<Vec<String>> {
            let inner = list.trim().strip_prefix('(')?.strip_suffix(')')?;
            Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
        };
        let one = |value: &str| vec![value.trim().to_owned()];
        let (key, test) = if let Some((key, value)) = text.split_once("!=") {
            (key, Test::NotIn(one(value)))
        } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            (key, Test::In(one(value)))
        } else if let Some((key, list)) = text.split_once(" notin ").or_else(|| text.split_once(" notin(")) {
            (key, Test::NotIn(values(&reopened(list))?))
        } else if let Some((key, list)) = text.split_once(" in ").or_else(|| text.split_once(" in(")) {
            (key, Test::In(values(&reopened(list))?))
        } else if let Some(key) = text.strip_prefix('!') {
            (key, Test::Absent)
        } else {
            (text, Test::Exists)
        };
        let key = key.trim();
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        (!key.is_empty() && key.chars().all(word)).then(|| Requirement { key: key.to_owned(), test })
    }

    fn fits(&self, map: Option<&Node>) -> bool {
        let value = map.and_then(|map| map.get(&self.key)).map(|value| value.text().unwrap_or_default());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
        }
    }
}

/// `in(` swallowed the parenthesis.
fn reopened(list: &str) -> String {
    if list.trim_start().starts_with('(') { list.to_owned() } else { format!("({list}") }
}

fn split_outside_parentheses(text: &str) -> Option<Vec<&str>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0u32);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    (depth == 0).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::load_str;

    #[test]
    fn label_selectors() {
        let map = &load_str("x", "{app: web, tier: front}").unwrap()[0];
        let fits = |text: &str| Requirement::parse(text).unwrap().iter().all(|one| one.fits(Some(map)));
        for yes in
            ["", "app=web", "app==web", "app!=db", "app in (db, web)", "tier", "!db", "x notin (a)", "app,tier=front"]
        {
            assert!(fits(yes), "{yes}");
        }
        for no in ["app=db", "app!=web", "app in (a,b)", "!app", "app notin(web)", "app,x"] {
            assert!(!fits(no), "{no}");
        }
        assert!(Requirement::parse("a in (b").is_none());
        assert!(Requirement::parse("a b").is_none());
    }
}
