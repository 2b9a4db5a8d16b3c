//! What is different between two locks, package by package.
//!
//! Owns: [`diff`] and [`Change`]. Evidence does not count: it changes no byte of the image.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::{Lock, LockedPackage};
use crate::package::version;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Added,
    Removed,
    Upgraded,
    Downgraded,
    /// Anything else: other bytes under one version, another layer, another epoch.
    Changed,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Added => "added",
            Kind::Removed => "removed",
            Kind::Upgraded => "upgraded",
            Kind::Downgraded => "downgraded",
            Kind::Changed => "changed",
        }
    }
}

/// One difference. What is not there on one side has an empty text on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: Kind,
    /// `base`, `distribution`, `role` or `tools` for packages; `files`, `recipes`, or `lock` for the rest.
    pub part: String,
    pub name: String,
    pub old: String,
    pub new: String,
}

/// Packages first, by part and name, then the rest.
pub fn diff(old: &Lock, new: &Lock) -> Vec<Change> {
    let mut changes = Vec::new();
    packages(&of_image(old), &of_image(new), &mut changes);
    packages(&of_tools(old), &of_tools(new), &mut changes);
    let files = |lock: &Lock| -> BTreeMap<String, String> {
        lock.files.iter().map(|file| (file.path.clone(), format!("sha256:{}", file.sha256))).collect()
    };
    values("files", &files(old), &files(new), &mut changes);
    let recipes = |lock: &Lock| -> BTreeMap<String, String> {
        lock.recipes.iter().map(|(step, version)| (step.clone(), version.to_string())).collect()
    };
    values("recipes", &recipes(old), &recipes(new), &mut changes);
    let rest = |lock: &Lock| -> BTreeMap<String, String> {
        let epoch = lock.epoch.map(|epoch| ("epoch".to_owned(), epoch.to_string()));
        let fixed = [("image".to_owned(), lock.image.clone()), ("architecture".to_owned(), lock.architecture.clone())];
        fixed.into_iter().chain(epoch).collect()
    };
    values("lock", &rest(old), &rest(new), &mut changes);
    if old.asked != new.asked {
        let (old, new) = ("documents of then".to_owned(), "documents of now".to_owned());
        changes.push(Change { kind: Kind::Changed, part: "lock".into(), name: "asked".into(), old, new });
    }
    changes
}

/// By name: the part and the package.
type Packages<'a> = BTreeMap<&'a str, (&'static str, &'a LockedPackage)>;

fn of_image(lock: &Lock) -> Packages<'_> {
    let all = lock.layers.iter().flat_map(|layer| layer.packages.iter().map(|package| (layer.layer.name(), package)));
    all.map(|(part, package)| (package.name.as_str(), (part, package))).collect()
}

fn of_tools(lock: &Lock) -> Packages<'_> {
    lock.tools.iter().map(|package| (package.name.as_str(), ("tools", package))).collect()
}

fn packages(old: &Packages<'_>, new: &Packages<'_>, changes: &mut Vec<Change>) {
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let mut found: Vec<Change> = Vec::new();
    for name in names {
        let change = |kind, part: &str, old: String, new: String| Change {
            kind,
            part: part.to_owned(),
            name: name.to_owned(),
            old,
            new,
        };
        match (old.get(name), new.get(name)) {
            (Some((part, package)), None) => {
                found.push(change(Kind::Removed, part, package.version.clone(), String::new()));
            }
            (None, Some((part, package))) => {
                found.push(change(Kind::Added, part, String::new(), package.version.clone()));
            }
            (Some((part_before, before)), Some((part, now))) => {
                let kind = match version::compare(&now.version, &before.version) {
                    Ordering::Greater => Kind::Upgraded,
                    Ordering::Less => Kind::Downgraded,
                    Ordering::Equal => Kind::Changed,
                };
                let described = |own_part: &str, package: &LockedPackage| match kind {
                    Kind::Changed => details(own_part, package, (part_before, before), (part, now)),
                    _ => package.version.clone(),
                };
                let same_bytes = (before.sha256, &before.version) == (now.sha256, &now.version);
                if !same_bytes || part_before != part || before.automatic != now.automatic {
                    found.push(change(kind, part, described(part_before, before), described(part, now)));
                }
            }
            (None, None) => {}
        }
    }
    let order = ["base", "distribution", "role", "tools"];
    found.sort_by_key(|change| order.iter().position(|part| *part == change.part));
    changes.append(&mut found);
}

/// A version, and beside it whatever tells two packages of one version apart.
fn details(
    part: &str,
    package: &LockedPackage,
    (old_part, old): (&str, &LockedPackage),
    (new_part, new): (&str, &LockedPackage),
) -> String {
    let mut text = package.version.clone();
    if old.sha256 != new.sha256 {
        text += &format!(" sha256:{:.12}", package.sha256.to_hex());
    }
    if old_part != new_part {
        text += &format!(" in {part}");
    }
    if old.automatic != new.automatic {
        text += if package.automatic { " (dependency)" } else { " (asked for)" };
    }
    text
}

fn values(part: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>, changes: &mut Vec<Change>) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names.into_iter().filter(|name| old.get(*name) != new.get(*name)) {
        let kind = match (old.get(name), new.get(name)) {
            (None, _) => Kind::Added,
            (_, None) => Kind::Removed,
            _ => Kind::Changed,
        };
        let of = |side: &BTreeMap<String, String>| side.get(name).cloned().unwrap_or_default();
        changes.push(Change { kind, part: part.into(), name: name.clone(), old: of(old), new: of(new) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::params::software::Layer;
    use crate::package::lock::tests::{lock, package};

    #[test]
    fn every_kind_of_change() {
        let old = lock();
        assert!(diff(&old, &old).is_empty());
        let mut new = lock();
        new.evidence = Default::default();
        assert!(diff(&old, &new).is_empty(), "evidence does not count");
        let base = &mut new.layers[0].packages;
        base[0] = package("hello", "1:2.9");
        base.push(package("zlib1g", "1"));
        let moved = base.remove(1);
        new.layers[1].packages.push(moved);
        new.tools = vec![package("mtools", "4.0.1")];
        new.files.clear();
        new.recipes.insert("pack".into(), 3);
        new.epoch = Some(5);
        let lines: Vec<String> = diff(&old, &new)
            .iter()
            .map(|change| {
                format!("{} {} {} [{}] [{}]", change.kind.name(), change.part, change.name, change.old, change.new)
            })
            .collect();
        let key = crate::tree::Digest::of(b"key");
        assert_eq!(
            lines,
            [
                "downgraded base hello [1:2.10-3] [1:2.9]".to_owned(),
                "added base zlib1g [] [1]".to_owned(),
                "changed role libc6 [2.36-9+deb12u7 in base] [2.36-9+deb12u7 in role]".to_owned(),
                "upgraded tools mtools [4.0] [4.0.1]".to_owned(),
                format!("removed files /usr/share/keyrings/x.gpg [sha256:{key}] []"),
                "changed recipes pack [2] [3]".to_owned(),
                "changed lock epoch [1700000000] [5]".to_owned(),
            ]
        );
        assert_eq!(new.layers[1].layer, Layer::Role);
    }
}
