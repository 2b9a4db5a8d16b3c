//! What differs between two states of documents: which values, in which objects, of which entry points.
//!
//! Owns: [`changes`]. Objects are paired by kind, name and namespace; generated ones by their name without the hash.

use std::collections::BTreeMap;

use super::entries::{Entry, Key};
use crate::document::{Node, differences};
use crate::error::Result;
use crate::kustomize::object_name;

/// One difference. A whole object that only one state has is one, with an empty path.
#[derive(Debug)]
pub struct Change {
    pub entry: String,
    pub object: String,
    pub path: String,
    pub old: Option<Node>,
    pub new: Option<Node>,
}

/// All differences, by entry and object. Both states have to be free of mistakes.
pub fn changes(old: Vec<Entry>, new: Vec<Entry>) -> Result<Vec<Change>> {
    let mut pairs: BTreeMap<Key, (Option<Entry>, Option<Entry>)> = BTreeMap::new();
    for entry in old {
        let key = entry.key();
        pairs.entry(key).or_default().0 = Some(entry);
    }
    for entry in new {
        let key = entry.key();
        pairs.entry(key).or_default().1 = Some(entry);
    }
    let mut found = Vec::new();
    for (old, new) in pairs.into_values() {
        let Some(name) = new.as_ref().or(old.as_ref()).map(Entry::name) else { continue };
        objects(&name, &documents(old)?, &documents(new)?, &mut found);
    }
    Ok(found)
}

/// The rendered documents. (What a phase is run by is among the documents of the phases.)
fn documents(entry: Option<Entry>) -> Result<Vec<Node>> {
    entry.map_or_else(|| Ok(Vec::new()), |entry| entry.documents)
}

fn objects(entry: &str, old: &[Node], new: &[Node], found: &mut Vec<Change>) {
    let mut olds: Vec<&Node> = old.iter().collect();
    let mut news: Vec<&Node> = new.iter().collect();
    let mut paired: Vec<(String, Option<&Node>, Option<&Node>)> = Vec::new();
    // Whoever has kept its name is the same; of the others, generated ones may have got another hash.
    for name in [object_name as fn(&Node) -> String, without_hash] {
        let mut rest = Vec::new();
        let mut by_name: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
        news.drain(..).for_each(|node| by_name.entry(name(node)).or_default().push(node));
        for node in olds {
            match by_name.get_mut(&name(node)).and_then(Vec::pop) {
                Some(after) => paired.push((object_name(after), Some(node), Some(after))),
                None => rest.push(node),
            }
        }
        news = by_name.into_values().flatten().collect();
        olds = rest;
    }
    paired.extend(olds.into_iter().map(|node| (object_name(node), Some(node), None)));
    paired.extend(news.into_iter().map(|node| (object_name(node), None, Some(node))));
    paired.sort_by(|a, b| a.0.cmp(&b.0));
    for (object, old, new) in paired {
        let change = |path: String, old: Option<&Node>, new: Option<&Node>| Change {
            entry: entry.to_owned(),
            object: object.clone(),
            path,
            old: old.cloned(),
            new: new.cloned(),
        };
        match (old, new) {
            (Some(old), Some(new)) => {
                found.extend(differences(old, new).into_iter().map(|one| change(one.path, one.old, one.new)));
            }
            (old, new) => found.push(change(String::new(), old, new)),
        }
    }
}

/// The name of a generated ConfigMap or Secret without the hash of its content.
fn without_hash(node: &Node) -> String {
    const LENGTH: usize = 10;
    let hash = |text: &str| text.len() == LENGTH && text.bytes().all(|byte| b"2456789bcdfghkmt".contains(&byte));
    let name = node.at(&["metadata", "name"]).and_then(Node::text).unwrap_or_default();
    let kind = node.get("kind").and_then(Node::text).unwrap_or_default();
    let whole = object_name(node);
    match name.rsplit_once('-') {
        Some((stem, end)) if hash(end) && matches!(kind, "ConfigMap" | "Secret") => whole.replacen(name, stem, 1),
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::load_str;

    #[test]
    fn hashes_are_told_from_names() {
        let stem = |kind: &str, name: &str| {
            let text = format!("{{kind: {kind}, metadata: {{name: {name}, namespace: prod}}}}");
            without_hash(&load_str("t", &text).unwrap()[0])
        };
        assert_eq!(stem("ConfigMap", "settings-f2fg2f8dc4"), "ConfigMap/settings.prod");
        assert_eq!(stem("ConfigMap", "settings-production"), "ConfigMap/settings-production.prod");
        assert_eq!(stem("Phase", "build-f2fg2f8dc4"), "Phase/build-f2fg2f8dc4.prod");
    }
}
