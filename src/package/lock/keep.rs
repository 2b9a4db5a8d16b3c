//! A new lock that moves as little as possible: what is locked stays, unless it was named or something needs it newer.
//!
//! Owns: [`resolve_keeping`]. What archives have dropped since is described by the packages themselves, from the store
//! or from where the lock says they are. Locked versions become the candidates of their names, as an apt pin above 1000
//! makes them; those that the moved and the new packages cannot live with are let go first, and no others.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;

use super::{Answer, Lock, LockedPackage, Request, choose, choose_tools, indexes, lock_of, update_all};
use crate::document::suggestion;
use crate::error::{Context, Error, Kind, Result};
use crate::package::Environment;
use crate::package::binary::Binary;
use crate::package::fetch::fetch_all;
use crate::package::index::{Alternative, Group, Index, NameId, Universe, VersionId};
use crate::package::resolve;

/// Resolves a request again. Of `old`, all packages keep their version but those in `moved`, and those that the moved
/// or new ones do not go together with.
pub fn resolve_keeping(
    request: &Request,
    old: &Lock,
    moved: &BTreeSet<String>,
    environment: &Environment,
) -> Result<Lock> {
    for name in moved {
        check_name(old, name)?;
    }
    let step = environment.reporter.step("resolve packages");
    let updated = update_all(request, environment)?;
    let kept = |package: &&LockedPackage| {
        !moved.contains(&package.name) && request.repositories.contains_key(&package.repository)
    };
    // What is in the image decides where the tools have another version.
    let kept: Vec<&LockedPackage> = old.tools.iter().chain(old.packages()).filter(kept).collect();
    let known = indexes(&updated);
    let gone = {
        let universe = Universe::read(&request.architecture, &known)?;
        kept.iter().filter(|package| find(&universe, package).is_none()).map(|package| (*package).clone()).collect()
    };
    let described = describe(gone, old, request, environment)?;
    let mut all = known;
    // Behind the real indexes: the first one to name a package numbers it.
    all.extend(described.iter().map(|(repository, text)| Index { repository, pin: 500, text }));
    let mut universe = Universe::read(&request.architecture, &all)?;
    let mut keep: HashMap<NameId, VersionId> = HashMap::new();
    for package in kept {
        if let Some(version) = find(&universe, package) {
            keep.insert(universe.version(version).name, version);
        }
    }
    let asked = request.layers.iter().flat_map(|layer| &layer.packages);
    let exact: HashMap<NameId, VersionId> = asked
        .filter_map(|package| {
            let id = universe.find(&package.name)?;
            let is_wanted = |id: &&VersionId| Some(universe.version(**id).version) == package.version.as_deref();
            Some((id, *universe.name(id).versions.iter().find(is_wanted)?))
        })
        .collect();
    let mut settling = Settling { universe: &universe, keep, exact, seen: BTreeSet::new(), open: VecDeque::new() };
    settling.run(request, moved);
    let keep = settling.keep;
    for (name, version) in keep {
        let newest = resolve::best(&universe, &universe.name(name).versions);
        if let Some(priority) = newest.map(|newest| universe.version(newest).priority) {
            universe.set_priority(version, priority);
        }
        universe.prefer(version);
    }
    let layers = choose(request, &universe).map_err(|error| {
        error.hint(
            "with the locked versions there is no way; `imagebuilder lock --update` without names moves everything",
        )
    })?;
    let tools = choose_tools(request, &universe);
    drop(universe);
    let lock = lock_of(request, Answer { layers, tools }, updated);
    step.finish(format!("{} packages", lock.packages().count()));
    Ok(lock)
}

fn check_name(old: &Lock, name: &str) -> Result<()> {
    if old.all_packages().any(|package| package.name == name) {
        return Ok(());
    }
    let names: Vec<&str> = old.all_packages().map(|package| package.name.as_str()).collect();
    let error = Error::new(Kind::Usage, format!("package `{name}` is not in the lock"));
    Err(match suggestion(name, "packages of the lock", &names).filter(|hint| hint.starts_with("did you mean")) {
        Some(hint) => error.hint(hint),
        None => error.hint("`--update` takes names of packages that are in the lock already, after the folder"),
    })
}

fn find(universe: &Universe<'_>, package: &LockedPackage) -> Option<VersionId> {
    let versions = &universe.name(universe.find(&package.name)?).versions;
    let same = |id: &VersionId| {
        let version = universe.version(*id);
        version.version == package.version && version.sha256 == package.sha256
    };
    versions.iter().copied().find(same)
}

/// An index, by repository, of packages that no index has any more, made of the packages themselves.
fn describe(
    gone: Vec<LockedPackage>,
    old: &Lock,
    request: &Request,
    environment: &Environment,
) -> Result<BTreeMap<String, String>> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    if gone.is_empty() {
        return Ok(texts);
    }
    let debs = fetch_all(&gone, &old.repositories_at(request)?, environment).map_err(|error| match error.kind() {
        Kind::Network => error.hint(
            "the archive has dropped this version and the store does not have it: let it move with `lock --update`",
        ),
        _ => error,
    })?;
    for (package, deb) in gone.iter().zip(debs) {
        let binary = Binary::open(&deb).with_context(|| format!("reading package {}", package.name))?;
        let text = texts.entry(package.repository.clone()).or_default();
        _ = write!(
            text,
            "Package: {}\nVersion: {}\nArchitecture: {}\n",
            binary.name, binary.version, binary.architecture
        );
        for field in ["Essential", "Priority", "Pre-Depends", "Depends", "Conflicts", "Breaks", "Provides", "Replaces"]
        {
            let value = binary.field(field).replace('\n', " ");
            if !value.is_empty() {
                _ = writeln!(text, "{field}: {value}");
            }
        }
        _ = write!(text, "Filename: {}\nSize: {}\nSHA256: {}\n\n", package.path, package.size, package.sha256);
    }
    Ok(texts)
}

/// Lets locked versions go until what moves, what is new and what stays go together.
struct Settling<'u, 'a> {
    universe: &'u Universe<'a>,
    /// What is still kept.
    keep: HashMap<NameId, VersionId>,
    /// Versions that the documents ask for exactly.
    exact: HashMap<NameId, VersionId>,
    /// Moved and new packages that were looked at.
    seen: BTreeSet<NameId>,
    open: VecDeque<NameId>,
}

impl<'a> Settling<'_, 'a> {
    fn run(&mut self, request: &Request, moved: &BTreeSet<String>) {
        let asked = request.layers.iter().flat_map(|layer| &layer.packages).chain(&request.tools);
        let asked = asked.map(|package| &package.name);
        let start: Vec<NameId> = moved.iter().chain(asked).filter_map(|name| self.universe.find(name)).collect();
        for name in start {
            let other =
                self.exact.get(&name).is_some_and(|exact| self.keep.get(&name).is_some_and(|kept| kept != exact));
            if other {
                self.keep.remove(&name);
            }
            if !self.keep.contains_key(&name) {
                self.open.push_back(name);
            }
        }
        loop {
            while let Some(name) = self.open.pop_front() {
                self.look_at(name);
            }
            if !self.look_back() {
                return;
            }
        }
    }

    fn candidate(&self, name: NameId) -> Option<VersionId> {
        let kept = self.keep.get(&name).or_else(|| self.exact.get(&name)).copied();
        kept.or_else(|| self.newest(name))
    }

    fn newest(&self, name: NameId) -> Option<VersionId> {
        resolve::best(self.universe, &self.universe.name(name).versions)
    }

    /// What a moved or new package needs and what it does not bear.
    fn look_at(&mut self, name: NameId) {
        if !self.seen.insert(name) {
            return;
        }
        let Some(version) = self.candidate(name) else { return };
        let universe = self.universe;
        for group in universe.groups(version).iter().filter(|group| group.kind.is_critical()) {
            let met = self.owners(group, |settling, name| settling.candidate(name));
            if group.kind.is_negative() {
                for hit in met.into_iter().filter(|hit| *hit != name) {
                    self.release(hit);
                }
            } else if met.is_empty() {
                let newer = self.owners(group, Self::newest);
                if let Some(first) = newer.into_iter().find(|name| self.keep.contains_key(name)) {
                    self.release(first);
                }
            } else if !met.iter().any(|name| self.keep.contains_key(name)) {
                self.open.push_back(met[0]);
            }
        }
    }

    /// Kept packages that do not go together with what moves; whether any had to be let go.
    fn look_back(&mut self) -> bool {
        let universe = self.universe;
        let mut kept: Vec<(NameId, VersionId)> = self.keep.iter().map(|(name, version)| (*name, *version)).collect();
        kept.sort_unstable();
        let mut released = false;
        for (name, version) in kept {
            let broken = universe.groups(version).iter().filter(|group| group.kind.is_critical()).any(|group| {
                let met = self.owners(group, |settling, name| settling.candidate(name));
                match group.kind.is_negative() {
                    true => met.iter().any(|hit| *hit != name && self.seen.contains(hit)),
                    false => met.is_empty(),
                }
            });
            if broken {
                released |= self.release(name);
            }
        }
        released
    }

    fn release(&mut self, name: NameId) -> bool {
        let released = self.keep.remove(&name).is_some();
        if released {
            self.open.push_back(name);
        }
        released
    }

    /// The packages that fulfil a group in the version that `pick` shows.
    fn owners(&self, group: &Group, pick: impl Fn(&Self, NameId) -> Option<VersionId>) -> Vec<NameId> {
        let universe = self.universe;
        let fulfils = |alternative: &Alternative<'a>| {
            let own = pick(self, alternative.target)
                .filter(|version| alternative.relation.allows(Some(universe.version(*version).version)));
            let provided = universe.name(alternative.target).providers.iter().filter(|(version, provided_as)| {
                pick(self, universe.version(*version).name) == Some(*version)
                    && alternative.relation.allows(*provided_as)
            });
            let provided = provided.map(|(version, _)| *version);
            own.into_iter().chain(provided).map(|version| universe.version(version).name).collect::<Vec<_>>()
        };
        universe.alternatives(group).iter().flat_map(fulfils).collect()
    }
}
