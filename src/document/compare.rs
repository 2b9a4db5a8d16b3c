//! What differs between two states of a document, value by value.
//!
//! Owns: [`differences`]. The order of keys does not count, that of list elements does. Elements that all have a `name`
//! of their own are paired by it; other lists are compared between what they begin and end with in common.

use std::collections::BTreeSet;

use super::node::{Node, Value};
use super::path::path_text;

/// One value that one state has and the other has not, or has otherwise. Whole mappings and lists that only one of both
/// has are one difference.
#[derive(Debug, Clone)]
pub struct Difference<'a> {
    /// As [`path_text`] writes it, in the new document unless the value is gone.
    pub path: String,
    pub old: Option<&'a Node>,
    pub new: Option<&'a Node>,
}

/// All differences, in the order of the old document, what is new at each level last.
pub fn differences<'a>(old: &'a Node, new: &'a Node) -> Vec<Difference<'a>> {
    let mut found = Vec::new();
    Walk { way: Vec::new(), found: &mut found }.values(old, new);
    found
}

struct Walk<'w, 'a> {
    way: Vec<String>,
    found: &'w mut Vec<Difference<'a>>,
}

impl<'a> Walk<'_, 'a> {
    fn values(&mut self, old: &'a Node, new: &'a Node) {
        match (&old.value, &new.value) {
            (Value::Mapping(before), Value::Mapping(after)) => {
                for entry in &before.entries {
                    let key = &entry.key.text;
                    self.both(key.clone(), Some(&entry.value), after.get(key));
                }
                for entry in after.entries.iter().filter(|entry| before.get(&entry.key.text).is_none()) {
                    self.both(entry.key.text.clone(), None, Some(&entry.value));
                }
            }
            (Value::Sequence(before), Value::Sequence(after)) => match (names(before), names(after)) {
                (Some(olds), Some(news)) => self.named(before, &olds, after, &news),
                _ => self.lists(before, after),
            },
            _ if old == new => {}
            _ => self.note(Some(old), Some(new)),
        }
    }

    fn both(&mut self, part: String, old: Option<&'a Node>, new: Option<&'a Node>) {
        self.way.push(part);
        match (old, new) {
            (Some(old), Some(new)) => self.values(old, new),
            (old, new) => self.note(old, new),
        }
        self.way.pop();
    }

    fn note(&mut self, old: Option<&'a Node>, new: Option<&'a Node>) {
        self.found.push(Difference { path: path_text(&self.way), old, new });
    }

    fn named(&mut self, before: &'a [Node], olds: &[&str], after: &'a [Node], news: &[&str]) {
        for (at, name) in olds.iter().enumerate() {
            match news.iter().position(|other| other == name) {
                Some(found) => self.both(found.to_string(), Some(&before[at]), Some(&after[found])),
                None => self.both(at.to_string(), Some(&before[at]), None),
            }
        }
        for (at, _) in news.iter().enumerate().filter(|(_, name)| !olds.contains(*name)) {
            self.both(at.to_string(), None, Some(&after[at]));
        }
        // The same elements in another order are another list.
        let kept: Vec<&&str> = olds.iter().filter(|name| news.contains(*name)).collect();
        let now: Vec<&&str> = news.iter().filter(|name| olds.contains(*name)).collect();
        if kept != now {
            if let Some(at) = kept.iter().zip(&now).position(|(old, new)| old != new) {
                let place = |names: &[&str], name: &str| names.iter().position(|other| *other == name);
                let old = place(olds, kept[at]).map(|at| &before[at]);
                let (at, new) = place(news, now[at]).map_or((0, None), |at| (at, Some(&after[at])));
                self.way.push(at.to_string());
                self.note(old, new);
                self.way.pop();
            }
        }
    }

    fn lists(&mut self, before: &'a [Node], after: &'a [Node]) {
        let shorter = before.len().min(after.len());
        let start = before.iter().zip(after).take_while(|(old, new)| old == new).count();
        let end = before.iter().rev().zip(after.iter().rev()).take(shorter - start);
        let end = end.take_while(|(old, new)| old == new).count();
        let (olds, news) = (&before[start..before.len() - end], &after[start..after.len() - end]);
        for at in 0..olds.len().max(news.len()) {
            self.both((start + at).to_string(), olds.get(at), news.get(at));
        }
    }
}

/// The names of a list's elements, if each has one of its own.
fn names(items: &[Node]) -> Option<Vec<&str>> {
    let names: Vec<&str> = items.iter().map(|item| item.get("name")?.text()).collect::<Option<_>>()?;
    let different: BTreeSet<&str> = names.iter().copied().collect();
    (different.len() == names.len() && !names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::load_str;

    fn compare(old: &str, new: &str) -> Vec<String> {
        let (old, new) = (load_str("old", old).unwrap().remove(0), load_str("new", new).unwrap().remove(0));
        let text = |node: Option<&Node>| node.map_or("none", |node| node.text().unwrap_or("some")).to_owned();
        let row = |one: &Difference<'_>| format!("{} {} {}", one.path, text(one.old), text(one.new));
        differences(&old, &new).iter().map(row).collect()
    }

    #[test]
    fn values_differ_by_meaning() {
        assert!(compare("{a: 1, b: [x]}", "{b: ['x'], a: 0x1}").is_empty());
        assert_eq!(compare("{a: 1, c: {d: 2}}", "{a: '1', e: []}"), ["a 1 1", "c some none", "e none some"]);
    }

    #[test]
    fn lists_are_paired_by_name_or_from_both_ends() {
        assert_eq!(compare("[a, b, c]", "[a, x, b, c]"), ["[1] none x"]);
        assert_eq!(compare("[a, b, c]", "[a, c]"), ["[1] b none"]);
        assert_eq!(
            compare("[{name: a, v: 1}, {name: b, v: 2}]", "[{name: n}, {name: a, v: 1}, {name: b, v: 3}]"),
            ["[2].v 2 3", "[0] none some"]
        );
        assert_eq!(compare("[{name: a}, {name: b}]", "[{name: b}, {name: a}]").len(), 1);
    }
}
