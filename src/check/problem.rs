//! What validation found, as data for people and programs.
//!
//! Owns: [`Problem`], its JSON form ([`Problem::json`]) and SARIF 2.1.0 ([`sarif`]).

use serde_json::{Value, json};

use super::{Finding, Severity, documents::RULES};
use crate::document::{Diagnostic, Position};
use crate::error::Error;

/// The one of [`ALWAYS`] that may be skipped.
pub const UNMATCHED: &str = "unmatched";

/// What is always looked at, beside the rules: id, what has to hold, why, how to mend it.
pub const ALWAYS: [(&str, &str, &str, &str); 5] = [
    (
        "render",
        "files can be read, and the kustomization worked in",
        "there would be no documents",
        "the message names the line; `imagebuilder render` shows the same",
    ),
    (
        UNMATCHED,
        "each patch and each replacement finds an object to change",
        "what it says would be missing from the image without a word",
        "correct the target, or remove the entry",
    ),
    (
        "schema",
        "documents have known fields, with values of their type",
        "a misspelt setting would be lost without a word",
        "`imagebuilder explain KIND.path` says what a field takes",
    ),
    (
        "phase",
        "each phase names an executor and an entry point that are there",
        "the phase could not be run",
        "correct the reference, or add the document",
    ),
    (
        "plan",
        "the documents of an image add up to something that can be built",
        "the build would stop at once",
        "the message says what contradicts what",
    ),
];

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: String,
    /// From 1; 0 is the whole file.
    pub line: u32,
    pub column: u32,
}

impl Place {
    fn of(at: &Position) -> Self {
        Place { file: at.file().to_owned(), line: at.line(), column: at.column() }
    }

    fn sarif(&self) -> Value {
        let mut location = json!({"artifactLocation": {"uri": uri(&self.file)}});
        if self.line > 0 {
            location["region"] = json!({"startLine": self.line, "startColumn": self.column.max(1)});
        }
        location
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Problem {
    /// Of a rule, or one of [`ALWAYS`].
    pub id: &'static str,
    pub severity: Severity,
    pub place: Option<Place>,
    pub message: String,
    pub hints: Vec<String>,
    /// Who put the value there, and what else the message is about.
    pub related: Vec<(Place, String)>,
    /// The lines themselves, marked.
    pub snippet: String,
    /// What was looked at when it was found, the first of several.
    pub entry: String,
}

impl Problem {
    pub fn of_diagnostic(id: &'static str, severity: Severity, entry: &str, diagnostic: Diagnostic) -> Self {
        let place = Some(Place::of(diagnostic.place()));
        let message = diagnostic.message().to_owned();
        let hints = diagnostic.hints().to_vec();
        let related = diagnostic.notes().iter().map(|(at, text)| (Place::of(at), text.clone())).collect();
        let snippet = Error::from(diagnostic).rendered_snippet().unwrap_or_default().to_owned();
        Problem { id, severity, place, message, hints, related, snippet, entry: entry.to_owned() }
    }

    pub fn of_finding(entry: &str, finding: Finding) -> Self {
        Self::of_diagnostic(finding.rule, finding.severity, entry, finding.diagnostic)
    }

    pub fn of_error(id: &'static str, entry: &str, error: &Error) -> Self {
        let place = error.place().map(|(file, line, column)| Place { file: file.to_owned(), line, column });
        let text = error.message();
        let message = match place.as_ref().and_then(|place| text.strip_prefix(&format!("{place}: "))) {
            Some(rest) => rest.to_owned(),
            None => text.to_owned(),
        };
        let (hints, snippet) = (error.hints().to_vec(), error.rendered_snippet().unwrap_or_default().to_owned());
        let entry = entry.to_owned();
        Problem { id, severity: Severity::Error, place, message, hints, related: Vec::new(), snippet, entry }
    }

    /// Whether both tell the same.
    pub fn same(&self, other: &Problem) -> bool {
        (self.id, &self.place, &self.message) == (other.id, &other.place, &other.message)
    }

    pub fn json(&self) -> Value {
        let related = self.related.iter();
        let related: Vec<Value> = related
            .map(|(place, text)| {
                json!({"message": text, "file": place.file, "line": place.line, "column": place.column})
            })
            .collect();
        let place = |of: fn(&Place) -> Value| self.place.as_ref().map_or(Value::Null, of);
        json!({
            "id": self.id,
            "severity": self.severity.name(),
            "message": self.message,
            "file": place(|place| place.file.as_str().into()),
            "line": place(|place| place.line.into()),
            "column": place(|place| place.column.into()),
            "hints": self.hints,
            "related": related,
            "entry": self.entry,
        })
    }
}

/// A path as the reference of a URI (RFC 3986).
fn uri(path: &str) -> String {
    let mut text = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.trim_start_matches("./").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// SARIF 2.1.0 (OASIS): what code hosts and editors read.
pub fn sarif(problems: &[Problem]) -> Value {
    let rule = |id: &str, severity: Severity, texts: [&str; 3]| {
        json!({
            "id": id,
            "shortDescription": {"text": texts[0]},
            "fullDescription": {"text": texts[1]},
            "help": {"text": texts[2]},
            "defaultConfiguration": {"level": severity.name()},
        })
    };
    let mut rules: Vec<Value> =
        ALWAYS.iter().map(|(id, title, why, mend)| rule(id, Severity::Error, [title, why, mend])).collect();
    rules.extend(RULES.iter().map(|own| rule(own.id, own.severity, [own.title, own.why, own.mend])));
    let index = |id: &str| rules.iter().position(|rule| rule["id"] == id);
    let results: Vec<Value> = problems.iter().map(|problem| result(problem, index(problem.id))).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "imagebuilder", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(problem: &Problem, rule: Option<usize>) -> Value {
    let text = std::iter::once(&problem.message).chain(&problem.hints).map(String::as_str).collect::<Vec<_>>();
    let mut result = json!({
        "ruleId": problem.id,
        "level": problem.severity.name(),
        "message": {"text": text.join("; ")},
    });
    if let Some(rule) = rule {
        result["ruleIndex"] = rule.into();
    }
    if let Some(place) = &problem.place {
        result["locations"] = json!([{"physicalLocation": place.sarif()}]);
    }
    let related =
        |(place, text): &(Place, String)| json!({"message": {"text": text}, "physicalLocation": place.sarif()});
    if !problem.related.is_empty() {
        result["relatedLocations"] = problem.related.iter().map(related).collect();
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_become_uris_and_regions() {
        let place = |file: &str, line| Place { file: file.into(), line, column: 3 }.sarif();
        assert_eq!(
            place("site/a b.yaml", 2),
            json!({"artifactLocation": {"uri": "site/a%20b.yaml"}, "region": {"startLine": 2, "startColumn": 3}})
        );
        assert_eq!(place("/x", 0), json!({"artifactLocation": {"uri": "file:///x"}}));
    }

    #[test]
    fn every_id_is_known_to_sarif_once() {
        let error = Error::documents("f.yaml:1:2: x").at("f.yaml", 1, 2).hint("y");
        let problem = Problem::of_error("schema", "e", &error);
        assert_eq!(problem.message, "x");
        let log = sarif(&[problem]);
        let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
        let mut ids: Vec<&str> = rules.iter().filter_map(|rule| rule["id"].as_str()).collect();
        assert_eq!(ids[log["runs"][0]["results"][0]["ruleIndex"].as_u64().unwrap() as usize], "schema");
        assert_eq!(log["runs"][0]["results"][0]["message"]["text"], "x; y");
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), count), (RULES.len() + ALWAYS.len(), count));
    }
}
