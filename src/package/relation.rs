//! Relations between packages (Debian Policy 7.1): `a (>= 1) | b:any, c`.
//!
//! Owns: [`Relation`], one name with its constraint, and [`alternatives`], which walks a field. Architecture
//! lists and build profiles do not occur in binary indexes and are skipped over.

use std::fmt;

use crate::error::{Error, Kind, Result};

use super::version::{self, Operator};

/// One alternative of a relation field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation<'a> {
    /// With its architecture qualifier, if any: `python3`, `python3:any`, `libc6:amd64`.
    pub name: &'a str,
    pub constraint: Option<(Operator, &'a str)>,
}

impl Relation<'_> {
    /// Whether a package (or a Provides, whose version may be missing) of the right name fulfils the constraint.
    pub fn allows(&self, version: Option<&str>) -> bool {
        match (self.constraint, version) {
            (None, _) => true,
            (Some((operator, wanted)), Some(version)) => version::satisfies(version, operator, wanted),
            (Some(_), None) => false,
        }
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.constraint {
            Some((operator, version)) => write!(f, " ({} {version})", operator.as_str()),
            None => Ok(()),
        }
    }
}

/// Calls `each` for every alternative with `true` where it starts a new group (after a comma).
pub fn alternatives<'a>(field: &'a str, mut each: impl FnMut(Relation<'a>, bool)) -> Result<()> {
    for group in field.split(',') {
        if group.trim().is_empty() {
            // A trailing comma is legal.
            continue;
        }
        for (at, alternative) in group.split('|').enumerate() {
            each(parse(alternative)?, at == 0);
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<Relation<'_>> {
    let wrong = || Error::new(Kind::Build, format!("`{}` is not a package relation", text.trim()));
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    let end = text.find([' ', '\t', '\n', '(', '[', '<']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if !is_name(name) {
        return Err(wrong());
    }
    let rest = rest.trim_start();
    let Some(inner) = rest.strip_prefix('(') else { return Ok(Relation { name, constraint: None }) };
    let inner = &inner[..inner.find(')').ok_or_else(wrong)?];
    let inner = inner.trim();
    let version_at = inner.find(|character| !matches!(character, '<' | '=' | '>')).ok_or_else(wrong)?;
    let (operator, version) = inner.split_at(version_at);
    let operator = Operator::parse(operator).ok_or_else(wrong)?;
    let version = version.trim();
    if version.is_empty() || version.contains(char::is_whitespace) {
        return Err(wrong());
    }
    Ok(Relation { name, constraint: Some((operator, version)) })
}

/// Package names are of `[a-z0-9][a-z0-9+.-]*` (policy 5.6.1), here with a qualifier; archives also hold old names
/// with capitals and underscores.
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b':' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(field: &str) -> Result<Vec<(String, bool)>> {
        let mut found = Vec::new();
        alternatives(field, |relation, first| found.push((relation.to_string(), first)))?;
        Ok(found)
    }

    #[test]
    fn groups_alternatives_constraints_and_qualifiers() {
        let found = all("a (>= 1:2~) | b:any,\n c(<<3) [amd64] <!nocheck>, d ( > 1 ) ,").unwrap();
        let expected = [("a (>= 1:2~)", true), ("b:any", false), ("c (<< 3)", true), ("d (>= 1)", true)];
        assert_eq!(found, expected.map(|(text, first)| (text.to_owned(), first)));
    }

    #[test]
    fn constraints_and_versions_of_provides() {
        let mut checked = 0;
        alternatives("mta, mail (>= 2)", |relation, _| {
            checked += 1;
            assert_eq!(relation.allows(None), relation.name == "mta");
            assert!(relation.allows(Some("2.1")));
        })
        .unwrap();
        assert_eq!(checked, 2);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["a |", "a (", "a (>= )", "a (1)", "a (== 1)", "-a", "../a", "a (>= 1 2)"] {
            assert!(all(text).is_err(), "{text}");
        }
    }
}
