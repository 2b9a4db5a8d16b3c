//! Words for requests that cannot be met: which package wants what, and why each alternative fails.
//!
//! Owns: the errors of the resolver. They are built after the fact from the final marks.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::package::index::{Alternative, Group, NameId, Universe, VersionId};

use super::mark::Marks;

/// How many levels of "which needs" are spelled out.
const DEPTH: usize = 6;

/// Where a package is asked for in the documents.
pub fn package(name: &str) -> [&str; 3] {
    ["software", "packages", name]
}

pub fn unknown(universe: &Universe<'_>, name: &str) -> Error {
    let mut near: Vec<(usize, &str)> = universe
        .names()
        .filter(|(id, known)| !known.versions.is_empty() && universe.find(known.name) == Some(*id))
        .map(|(_, known)| (strsim::osa_distance(name, known.name), known.name))
        .filter(|(distance, known)| *distance <= (name.len() / 3).max(1) || known.strip_prefix("lib") == Some(name))
        .collect();
    near.sort_unstable();
    near.truncate(3);
    let error = Error::documents(format!("package `{name}` is in none of the repositories")).about(&package(name));
    if near.is_empty() {
        return error.hint("check the release and the components of `distribution.repositories`");
    }
    let near: Vec<String> = near.iter().map(|(_, name)| format!("`{name}`")).collect();
    error.hint(format!("similar names: {}", near.join(", ")))
}

pub fn unknown_version(universe: &Universe<'_>, id: NameId, wanted: &str) -> Error {
    let name = universe.name(id);
    let versions: Vec<&str> = name.versions.iter().map(|id| universe.version(*id).version).take(5).collect();
    let [software, packages, package] = package(name.name);
    Error::documents(format!("package `{}` is not there in version {wanted}", name.name))
        .about(&[software, packages, package, "version"])
        .hint(format!("the repositories offer {}", versions.join(", ")))
}

/// `broken` is chosen (or was asked for) and cannot be installed with the rest.
pub fn no_solution(marks: &Marks<'_, '_>, wanted: &[NameId], unapproved: &BTreeSet<String>, broken: NameId) -> Error {
    let universe = marks.universe;
    let explainer = Explainer { marks, wanted, unapproved, spoilt: spoilt(marks) };
    let broken = wanted.iter().copied().find(|name| explainer.spoilt.contains(name)).unwrap_or(broken);
    let mut lines = Vec::new();
    let version = marks.chosen(broken).or(marks.offered(broken));
    match version.and_then(|version| Some((version, explainer.open_group(version)?))) {
        Some((version, group)) => {
            explainer.group(version, group, 1, &mut vec![broken], &mut lines);
        }
        None => lines.push("  it could not be chosen together with the others".to_owned()),
    }
    let asked = if wanted.contains(&broken) { "" } else { ", which other packages need," };
    let message = format!("package `{}`{asked} cannot be installed:\n{}", universe.name(broken).name, lines.join("\n"));
    Error::documents(message)
        .about(&package(universe.name(broken).name))
        .hint("leave out the package, or add the repository or component that holds what is missing")
}

/// Chosen packages that cannot work: a relation does not hold, or only by packages that cannot work themselves.
fn spoilt(marks: &Marks<'_, '_>) -> BTreeSet<NameId> {
    let universe = marks.universe;
    let mut spoilt = BTreeSet::new();
    loop {
        let before = spoilt.len();
        for (id, _) in universe.names().filter(|(id, _)| marks.chosen(*id).is_some()) {
            let groups = marks.chosen(id).map(|version| (version, universe.groups(version)));
            let bad = groups.is_some_and(|(version, groups)| {
                groups.iter().any(|group| group.kind.is_critical() && fails(marks, &spoilt, version, group))
            });
            if bad {
                spoilt.insert(id);
            }
        }
        if spoilt.len() == before {
            return spoilt;
        }
    }
}

fn fails(marks: &Marks<'_, '_>, spoilt: &BTreeSet<NameId>, owner: VersionId, group: &Group) -> bool {
    let universe = marks.universe;
    let only_by_spoilt = || {
        let met = universe.alternatives(group).iter().flat_map(|one| marks.chosen_matches(one));
        !group.kind.is_negative() && met.map(|met| universe.version(met).name).all(|name| spoilt.contains(&name))
    };
    !marks.holds(owner, group) || only_by_spoilt()
}

struct Explainer<'m, 'u, 'a> {
    marks: &'m Marks<'u, 'a>,
    wanted: &'m [NameId],
    unapproved: &'m BTreeSet<String>,
    spoilt: BTreeSet<NameId>,
}

impl Explainer<'_, '_, '_> {
    fn open_group(&self, version: VersionId) -> Option<&Group> {
        let groups = self.marks.universe.groups(version);
        groups.iter().find(|group| group.kind.is_critical() && fails(self.marks, &self.spoilt, version, group))
    }

    fn group(&self, version: VersionId, group: &Group, depth: usize, path: &mut Vec<NameId>, lines: &mut Vec<String>) {
        let universe = self.marks.universe;
        let alternatives = universe.alternatives(group);
        let relation: Vec<String> = alternatives.iter().map(|one| one.relation.to_string()).collect();
        let indent = "  ".repeat(depth);
        let owner = universe.version(version);
        let name = universe.name(owner.name).name;
        let verb = if group.kind.is_negative() { "excludes" } else { "needs" };
        let field = group.kind.field();
        lines.push(format!("{indent}{name} {} {verb} {} ({field})", owner.version, relation.join(" | ")));
        for alternative in alternatives {
            if group.kind.is_negative() {
                self.excluded(version, alternative, &indent, lines);
            } else {
                self.alternative(alternative, depth, path, lines);
            }
        }
    }

    fn excluded(&self, owner: VersionId, alternative: &Alternative<'_>, indent: &str, lines: &mut Vec<String>) {
        let universe = self.marks.universe;
        for (id, name) in universe.names() {
            let Some(chosen) = self.marks.chosen(id) else { continue };
            let provides = universe
                .name(alternative.target)
                .providers
                .iter()
                .any(|(version, as_version)| *version == chosen && alternative.relation.allows(*as_version));
            let is = id == alternative.target && alternative.relation.allows(Some(universe.version(chosen).version));
            if (is || provides) && id != universe.version(owner).name {
                let version = universe.version(chosen).version;
                lines.push(format!("{indent}  but {} {version} is chosen{}", name.name, self.reason(id)));
            }
        }
    }

    /// Why a chosen package is there.
    fn reason(&self, name: NameId) -> String {
        let universe = self.marks.universe;
        if self.wanted.contains(&name) {
            return ", it was asked for".to_owned();
        }
        for (id, other) in universe.names() {
            let Some(chosen) = self.marks.chosen(id) else { continue };
            let groups = universe.groups(chosen).iter().filter(|group| group.kind.is_critical());
            for group in groups.filter(|group| !group.kind.is_negative()) {
                let mut met = universe.alternatives(group).iter().flat_map(|one| self.marks.chosen_matches(one));
                if met.any(|version| universe.version(version).name == name) {
                    return format!(", {} needs it", other.name);
                }
            }
        }
        String::new()
    }

    fn alternative(&self, one: &Alternative<'_>, depth: usize, path: &mut Vec<NameId>, lines: &mut Vec<String>) {
        let universe = self.marks.universe;
        let indent = "  ".repeat(depth + 1);
        let name = universe.name(one.target);
        let offers = self.marks.offers(one);
        if offers.is_empty() {
            lines.push(format!("{indent}{}: {}", one.relation, self.why_nothing_offered(one)));
            return;
        }
        for version in offers {
            let owner = universe.version(version).name;
            let text = universe.name(owner).name;
            let through = if owner == one.target { String::new() } else { format!(" (provides {})", name.name) };
            if path.contains(&owner) || depth >= DEPTH {
                lines.push(format!("{indent}{text}{through}: see above"));
            } else if let Some(conflict) = self.conflict(version) {
                lines.push(format!("{indent}{text}{through}: {conflict}"));
            } else if let Some(group) = self.open_group(version) {
                path.push(owner);
                self.group(version, group, depth + 1, path, lines);
                path.pop();
            } else {
                lines.push(format!("{indent}{text}{through}: was given up because of other choices"));
            }
        }
    }

    fn why_nothing_offered(&self, one: &Alternative<'_>) -> String {
        let universe = self.marks.universe;
        let name = universe.name(one.target);
        if self.unapproved.contains(name.name) {
            return "is unapproved".to_owned();
        }
        let providers: BTreeSet<&str> =
            name.providers.iter().map(|(version, _)| universe.name(universe.version(*version).name).name).collect();
        match (name.versions.first(), self.marks.offered(one.target)) {
            (Some(_), Some(candidate)) => format!("only version {} is on offer", universe.version(candidate).version),
            (Some(_), None) => "is kept out by a pin priority".to_owned(),
            (None, _) if providers.iter().any(|name| self.unapproved.contains(*name)) => {
                "what provides it is unapproved".to_owned()
            }
            (None, _) if providers.is_empty() => "no repository has it".to_owned(),
            (None, _) => "nothing provides it in a fitting version".to_owned(),
        }
    }

    /// A chosen package that this version and it keep out of each other's way.
    fn conflict(&self, version: VersionId) -> Option<String> {
        let universe = self.marks.universe;
        let name = universe.version(version).name;
        for (id, other) in universe.names() {
            let Some(chosen) = self.marks.chosen(id).filter(|_| id != name) else { continue };
            for (one, two) in [(version, chosen), (chosen, version)] {
                for group in universe.groups(one).iter().filter(|group| group.kind.is_negative()) {
                    if universe.alternatives(group).iter().any(|rule| self.hits(rule, two)) {
                        return Some(format!("conflicts with {}, which is chosen", other.name));
                    }
                }
            }
        }
        None
    }

    fn hits(&self, rule: &Alternative<'_>, version: VersionId) -> bool {
        let universe = self.marks.universe;
        let hit = universe.version(version);
        (hit.name == rule.target && rule.relation.allows(Some(hit.version)))
            || universe
                .name(rule.target)
                .providers
                .iter()
                .any(|(provider, as_version)| *provider == version && rule.relation.allows(*as_version))
    }
}
