//! Paths to values, as people type them: `spec.params.kernel.sysctl["vm.swappiness"]`, `spec.list[0]`,
//! `spec.list[name=x].field`, or a JSON pointer (RFC 6901).
//!
//! Owns: [`ValuePath`] (parsing, looking up, telling what is near a path that leads nowhere), [`leaves`] and
//! [`path_text`], which write such paths.

use super::diagnostic::{Diagnostic, nearest, suggestion};
use super::node::{Node, Value};
use crate::error::{Error, Kind, Result};

/// How many paths of the same last key a hint names.
const ELSEWHERE: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// A key of a mapping, or the number of a list element.
    Key(String),
    /// `[key=value]`, an element of a list.
    Element(String, String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValuePath {
    parts: Vec<Part>,
    written: String,
}

impl ValuePath {
    pub fn parse(text: &str) -> Result<Self> {
        let parts = match text.strip_prefix('/') {
            Some(rest) => rest.split('/').map(|part| Part::Key(part.replace("~1", "/").replace("~0", "~"))).collect(),
            None => {
                let inner = text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(text);
                let inner = inner.strip_prefix('$').unwrap_or(inner);
                parts(inner.strip_prefix('.').unwrap_or(inner)).ok_or_else(|| {
                    Error::new(Kind::Usage, format!("`{text}` is not a path"))
                        .hint("write it like `spec.params.kernel.sysctl[\"vm.swappiness\"]` or `spec.list[0]`")
                })?
            }
        };
        Ok(ValuePath { parts, written: text.to_owned() })
    }

    /// The value, and the path to it as [`path_text`] writes it; an error that names what is near otherwise. Keys with
    /// dots are found without their brackets, too.
    pub fn find<'n>(&self, node: &'n Node) -> Result<(String, &'n Node)> {
        let mut way = Vec::new();
        match walk(node, &self.parts, &mut way) {
            Ok(found) => Ok((path_text(&way), found)),
            Err((depth, last)) => Err(self.missing(node, depth, last)),
        }
    }

    fn missing(&self, root: &Node, depth: usize, last: &Node) -> Error {
        let wanted = match &self.parts[depth] {
            Part::Key(key) => key.clone(),
            Part::Element(key, value) => format!("{key}={value}"),
        };
        let message = format!("there is no `{}`: {} has no `{wanted}`", self.written, self.reached(depth));
        let mut diagnostic = Diagnostic::on(last, message);
        let names: Vec<String> = match &last.value {
            Value::Mapping(mapping) => mapping.entries.iter().map(|entry| entry.key.text.clone()).collect(),
            Value::Sequence(items) => items.iter().enumerate().map(|(at, item)| named(at, item)).collect(),
            Value::Scalar(_) => Vec::new(),
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let hint = suggestion(&wanted, "there", &names);
        diagnostic = diagnostic.hint(hint.unwrap_or_else(|| format!("{} is there", last.describe())));
        let elsewhere = elsewhere(root, self.parts.last());
        if !elsewhere.is_empty() {
            diagnostic = diagnostic.hint(format!("paths that end so: `{}`", elsewhere.join("`, `")));
        }
        diagnostic.into()
    }

    fn reached(&self, depth: usize) -> String {
        if depth == 0 {
            return "the document".into();
        }
        let text = |part: &Part| match part {
            Part::Key(key) => key.clone(),
            Part::Element(key, value) => format!("{key}={value}"),
        };
        format!("`{}`", path_text(&self.parts[..depth].iter().map(text).collect::<Vec<_>>()))
    }
}

/// At dots outside brackets and quotes; `None` where a bracket is not closed.
fn parts(text: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut key = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => key.extend(characters.next()),
            '.' | '[' => {
                if !key.is_empty() {
                    parts.push(Part::Key(std::mem::take(&mut key)));
                }
                if character == '[' {
                    parts.push(bracket(&mut characters)?);
                }
            }
            _ => key.push(character),
        }
    }
    if !key.is_empty() {
        parts.push(Part::Key(key));
    }
    (!parts.is_empty()).then_some(parts)
}

fn bracket(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Part> {
    let quote = characters.next_if(|next| matches!(next, '"' | '\''));
    let mut inner = String::new();
    loop {
        let next = characters.next()?;
        match quote {
            Some(_) if next == '\\' => inner.extend(characters.next()),
            Some(quote) if next == quote => {
                return (characters.next() == Some(']')).then_some(Part::Key(inner));
            }
            None if next == ']' => break,
            _ => inner.push(next),
        }
    }
    Some(match inner.split_once('=') {
        Some((key, value)) => Part::Element(key.to_owned(), value.trim_matches(['"', '\'']).to_owned()),
        None => Part::Key(inner),
    })
}

/// Follows a path; on failure, how deep it went and the value there.
fn walk<'n>(node: &'n Node, rest: &[Part], way: &mut Vec<String>) -> Result<&'n Node, (usize, &'n Node)> {
    let Some((part, after)) = rest.split_first() else { return Ok(node) };
    let depth = way.len();
    match (&node.value, part) {
        (Value::Mapping(mapping), Part::Key(key)) => {
            if let Some(value) = mapping.get(key) {
                way.push(key.clone());
                return walk(value, after, way).map_err(|(inner, last)| (inner.max(depth + 1), last));
            }
            // `sysctl.vm.swappiness`: a key with dots, written without brackets.
            let mut joined = key.clone();
            for (count, part) in after.iter().enumerate() {
                let Part::Key(more) = part else { break };
                joined = format!("{joined}.{more}");
                if let Some(value) = mapping.get(&joined) {
                    way.push(joined);
                    return walk(value, &after[count + 1..], way).map_err(|(_, last)| (depth + count + 1, last));
                }
            }
        }
        (Value::Sequence(items), _) => {
            let at = match part {
                Part::Key(key) => key.parse::<usize>().ok().filter(|at| *at < items.len()),
                Part::Element(key, value) => {
                    items.iter().position(|item| item.get(key).and_then(Node::text) == Some(value))
                }
            };
            if let Some(at) = at {
                way.push(at.to_string());
                return walk(&items[at], after, way).map_err(|(inner, last)| (inner.max(depth + 1), last));
            }
        }
        _ => {}
    }
    Err((depth, node))
}

/// A list element for a hint: by its name, if it has one.
fn named(at: usize, item: &Node) -> String {
    match item.get("name").and_then(Node::text) {
        Some(name) => format!("name={name}"),
        None => at.to_string(),
    }
}

/// Other paths that end with the same key, or one much like it.
fn elsewhere(root: &Node, last: Option<&Part>) -> Vec<String> {
    let Some(Part::Key(wanted)) = last else { return Vec::new() };
    let mut paths = Vec::new();
    collect(root, &mut Vec::new(), &mut |way, _| paths.push(way.to_vec()));
    let ends: Vec<&str> = paths.iter().filter_map(|way| way.last().map(String::as_str)).collect();
    let Some(near) = nearest(wanted, ends.iter().copied()) else { return Vec::new() };
    let fits = |way: &&Vec<String>| way.last().is_some_and(|last| last == near);
    paths.iter().filter(fits).take(ELSEWHERE).map(|way| path_text(way)).collect()
}

/// Calls `visit` on all scalars and empty collections with the way there, in the order of the document.
fn collect<'n>(node: &'n Node, way: &mut Vec<String>, visit: &mut impl FnMut(&[String], &'n Node)) {
    match &node.value {
        Value::Mapping(mapping) if !mapping.is_empty() => {
            for entry in &mapping.entries {
                way.push(entry.key.text.clone());
                collect(&entry.value, way, visit);
                way.pop();
            }
        }
        Value::Sequence(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                way.push(at.to_string());
                collect(item, way, visit);
                way.pop();
            }
        }
        _ => visit(way, node),
    }
}

/// All scalars and empty collections below a value, with their paths, which begin with `above`.
pub fn leaves<'n>(above: &str, node: &'n Node) -> Vec<(String, &'n Node)> {
    let mut found = Vec::new();
    collect(node, &mut Vec::new(), &mut |way, leaf| {
        let below = path_text(way);
        let path = match (above.is_empty(), below.is_empty() || below.starts_with('[')) {
            (true, _) => below,
            (false, true) => format!("{above}{below}"),
            (false, false) => format!("{above}.{below}"),
        };
        found.push((path, leaf));
    });
    found
}

/// Keys and element numbers as a path: dots where that is clear, brackets else.
pub fn path_text(way: &[impl AsRef<str>]) -> String {
    let mut text = String::new();
    for part in way {
        let part = part.as_ref();
        let number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let word =
            !part.is_empty() && part.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_'));
        match (number, word) {
            (true, _) => text.push_str(&format!("[{part}]")),
            (false, true) if text.is_empty() => text.push_str(part),
            (false, true) => text.push_str(&format!(".{part}")),
            (false, false) => {
                text.push_str(&format!("[\"{}\"]", part.replace('\\', "\\\\").replace('"', "\\\"")));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::load_str;

    const TEXT: &str = "spec: {sysctl: {vm.swappiness: 10, \"a\\\"]b\": 1}, list: [{name: x, size: 4}, 7], \"1\": one}";

    fn find(path: &str) -> Result<(String, String)> {
        let node = load_str("t", TEXT)?.remove(0);
        let (path, found) = ValuePath::parse(path)?.find(&node)?;
        Ok((path, found.text().unwrap_or_default().to_owned()))
    }

    #[test]
    fn every_way_to_write_a_path_leads_to_the_value() {
        let wanted = ("spec.sysctl[\"vm.swappiness\"]".to_owned(), "10".to_owned());
        for path in [
            "spec.sysctl[\"vm.swappiness\"]",
            "spec.sysctl['vm.swappiness']",
            "spec.sysctl[vm.swappiness]",
            "spec.sysctl.[vm.swappiness]",
            "spec.sysctl.vm.swappiness",
            "spec.sysctl.vm\\.swappiness",
            ".spec.sysctl.vm\\.swappiness",
            "{.spec.sysctl['vm.swappiness']}",
            "$.spec.sysctl['vm.swappiness']",
            "/spec/sysctl/vm.swappiness",
        ] {
            assert_eq!(find(path).unwrap(), wanted, "{path}");
        }
        assert_eq!(find("spec.list[0].size").unwrap().1, "4");
        assert_eq!(find("spec.list[name=x].size").unwrap(), ("spec.list[0].size".into(), "4".into()));
        assert_eq!(find("spec.list.1").unwrap().1, "7");
        assert_eq!(find("spec[\"1\"]").unwrap().1, "one");
    }

    #[test]
    fn what_a_path_is_written_as_leads_back() {
        let node = load_str("t", TEXT).unwrap().remove(0);
        let all = leaves("", &node);
        assert_eq!(all.len(), 6);
        for (path, leaf) in all {
            let (again, found) = ValuePath::parse(&path).unwrap().find(&node).unwrap();
            assert_eq!((again, found), (path, leaf));
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_names_what_is_near() {
        let error = find("spec.sysctl[\"vm.swapiness\"]").unwrap_err();
        assert_eq!(error.kind().exit_code(), 3);
        assert!(error.to_string().contains("`spec.sysctl` has no `vm.swapiness`"), "{error}");
        assert!(error.hints()[0].starts_with("did you mean `vm.swappiness`?"), "{:?}", error.hints());
        let error = find("sysctl[\"vm.swappiness\"]").unwrap_err();
        assert!(error.hints().iter().any(|hint| hint.contains("spec.sysctl[\"vm.swappiness\"]")), "{error}");
        assert!(find("spec.list[name=y]").unwrap_err().hints()[0].contains("`name=x`"));
        assert!(find("spec.list[0].size.deeper").is_err());
        for path in ["spec[", "spec[\"a]", "", "."] {
            assert_eq!(ValuePath::parse(path).unwrap_err().kind().exit_code(), 2, "{path}");
        }
    }
}
