//! Marking packages for installation together with what they need.
//!
//! Owns: [`Marks`], the state of one layer's resolution. The order of events follows apt 2.x: all requested
//! packages are marked and protected first, then the dependencies of each are followed depth first in the order of
//! their fields (Pre-Depends, Depends, Conflicts, Breaks). A protected package passes its protection on to what
//! only it can be satisfied by, and what it conflicts with is barred. A choice that turns out impossible is undone
//! and its candidate given up, so that the next alternative is tried.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::error::Result;
use crate::package::index::{Alternative, Group, NameId, Relationship, Universe, VersionId};

use super::Chosen;

/// A chain of dependencies longer than this is given up.
const DEPTH_LIMIT: u32 = 1000;

/// Enough for [`DEPTH_LIMIT`] with room to spare.
pub const STACK: usize = 64 << 20;

#[derive(Debug, Clone, Default)]
pub struct State {
    /// Installed by a lower layer.
    installed: Option<VersionId>,
    /// What will be there in the end.
    chosen: Option<VersionId>,
    /// What may be chosen; `None` once that turned out impossible.
    candidate: Option<VersionId>,
    /// The candidate before anything was given up.
    offered: Option<VersionId>,
    marked: bool,
    protected: bool,
    automatic: bool,
}

pub struct Marks<'u, 'a> {
    pub universe: &'u Universe<'a>,
    states: Vec<State>,
}

impl<'u, 'a> Marks<'u, 'a> {
    pub fn new(universe: &'u Universe<'a>, installed: &[Option<VersionId>], unapproved: &BTreeSet<String>) -> Self {
        let states = universe
            .names()
            .map(|(id, name)| {
                let installed = installed[id as usize];
                let barred = unapproved.contains(name.name);
                let candidate = installed.or_else(|| if barred { None } else { best(universe, &name.versions) });
                State { installed, chosen: installed, candidate, offered: candidate, ..State::default() }
            })
            .collect();
        Marks { universe, states }
    }

    pub fn candidate(&self, name: NameId) -> Option<VersionId> {
        self.state(name).candidate
    }

    pub fn offered(&self, name: NameId) -> Option<VersionId> {
        self.state(name).offered
    }

    pub fn chosen(&self, name: NameId) -> Option<VersionId> {
        self.state(name).chosen
    }

    /// An explicit version. Fails with the installed one when a lower layer has another.
    pub fn choose_candidate(&mut self, name: NameId, version: VersionId) -> Result<(), String> {
        let universe = self.universe;
        let state = self.state_mut(name);
        match state.installed {
            Some(installed) if installed != version => Err(universe.version(installed).version.to_owned()),
            _ => {
                state.candidate = Some(version);
                state.offered = Some(version);
                Ok(())
            }
        }
    }

    /// Marks all requested packages, then what they need.
    pub fn install_all(&mut self, wanted: &[NameId]) -> Result<()> {
        for name in wanted {
            self.state_mut(*name).protected = true;
            self.mark(*name, false, 0, true);
        }
        for name in wanted {
            crate::interrupt::check()?;
            self.mark(*name, true, 0, true);
        }
        Ok(())
    }

    /// The first package, requested ones first, that has a critical relation which does not hold.
    pub fn first_broken(&self, wanted: &[NameId]) -> Option<NameId> {
        let all = self.universe.names().map(|(id, _)| id);
        wanted.iter().copied().chain(all).find(|name| match self.state(*name).chosen {
            Some(version) => self.is_broken(version),
            // A requested package that could not be marked at all.
            None => wanted.contains(name),
        })
    }

    /// Packages that were tried on the way and are not needed in the end. Recommended and suggested ones count as
    /// needed, as in apt's automatic removal.
    pub fn drop_unneeded(&mut self) {
        let mut needed = vec![false; self.states.len()];
        let mut open: Vec<NameId> = Vec::new();
        for (id, name) in self.universe.names() {
            let state = self.state(id);
            if state.chosen.is_some()
                && (state.installed.is_some() || !state.automatic || name.essential || name.important)
            {
                needed[id as usize] = true;
                open.push(id);
            }
        }
        while let Some(name) = open.pop() {
            let Some(version) = self.state(name).chosen else { continue };
            for group in self.universe.groups(version).iter().filter(|group| !group.kind.is_negative()) {
                for alternative in self.universe.alternatives(group) {
                    for version in self.matches(alternative, |state| state.chosen) {
                        let owner = self.universe.version(version).name;
                        if !std::mem::replace(&mut needed[owner as usize], true) {
                            open.push(owner);
                        }
                    }
                }
            }
        }
        for (state, needed) in self.states.iter_mut().zip(needed) {
            if !needed {
                state.chosen = state.installed;
            }
        }
    }

    /// What this layer adds, by package name.
    pub fn newly_installed(&self) -> Vec<Chosen> {
        let mut new: Vec<Chosen> = self
            .states
            .iter()
            .filter(|state| state.installed.is_none())
            .filter_map(|state| Some(Chosen { version: state.chosen?, automatic: state.automatic }))
            .collect();
        new.sort_by_key(|chosen| self.universe.name(self.universe.version(chosen.version).name).name);
        new
    }

    pub fn into_installed(self) -> Vec<Option<VersionId>> {
        self.states.into_iter().map(|state| state.chosen).collect()
    }

    /// Whether a group of a version holds among the chosen packages.
    pub fn holds(&self, owner: VersionId, group: &Group) -> bool {
        let owner = self.universe.version(owner).name;
        let mut met = self.universe.alternatives(group).iter().map(|alternative| {
            self.matches(alternative, |state| state.chosen)
                .into_iter()
                .any(|version| !group.kind.is_negative() || self.universe.version(version).name != owner)
        });
        if group.kind.is_negative() { !met.any(|met| met) } else { met.any(|met| met) }
    }

    /// The versions that `pick` shows and an alternative accepts: the package of that name, then those that provide
    /// it.
    pub fn matches(&self, alternative: &Alternative<'a>, pick: impl Fn(&State) -> Option<VersionId>) -> Vec<VersionId> {
        let mut found = Vec::new();
        if let Some(version) = pick(self.state(alternative.target)) {
            if alternative.relation.allows(Some(self.universe.version(version).version)) {
                found.push(version);
            }
        }
        for (version, provided_as) in &self.universe.name(alternative.target).providers {
            let owner = self.universe.version(*version).name;
            if pick(self.state(owner)) == Some(*version) && alternative.relation.allows(*provided_as) {
                found.push(*version);
            }
        }
        found
    }

    pub fn offers(&self, alternative: &Alternative<'a>) -> Vec<VersionId> {
        self.matches(alternative, |state| state.offered)
    }

    pub fn chosen_matches(&self, alternative: &Alternative<'a>) -> Vec<VersionId> {
        self.matches(alternative, |state| state.chosen)
    }

    fn is_broken(&self, version: VersionId) -> bool {
        self.universe.groups(version).iter().any(|group| group.kind.is_critical() && !self.holds(version, group))
    }

    /// Marks one package; with `follow` also what it needs. `false` when that is not possible.
    fn mark(&mut self, name: NameId, follow: bool, depth: u32, requested: bool) -> bool {
        let state = self.state(name);
        let passing_protection =
            state.protected && !state.marked && state.candidate.is_some() && state.candidate == state.installed;
        let may_change = requested || state.marked || !state.protected;
        if depth > DEPTH_LIMIT || (!passing_protection && !may_change) {
            return false;
        }
        let Some(candidate) = state.candidate else { return false };
        let broken = state.chosen.is_some_and(|version| self.is_broken(version));
        if !state.protected && !broken && (Some(candidate) == state.installed || state.marked) {
            return true;
        }
        if follow && Some(candidate) != state.installed && !self.is_possible(candidate) {
            let state = self.state_mut(name);
            if !state.protected {
                state.candidate = state.installed;
                state.marked = false;
            }
            return false;
        }
        if requested {
            self.choose(name, candidate, true);
        }
        if !follow {
            if !requested {
                self.choose(name, candidate, false);
            }
            return true;
        }
        self.mark_with_needs(name, candidate, depth, requested)
    }

    fn mark_with_needs(&mut self, name: NameId, candidate: VersionId, depth: u32, requested: bool) -> bool {
        let universe = self.universe;
        let was_protected = self.state(name).protected;
        let lenient = was_protected || requested;
        let mut good = true;
        // What holds already needs no work, except that a protected package protects what it stands on.
        let groups = universe.groups(candidate).iter().filter(|group| group.kind.is_critical());
        let open: Vec<&Group> = groups.filter(|group| was_protected || !self.holds(candidate, group)).collect();
        let (barred, wanted): (Vec<&Group>, Vec<&Group>) = open.into_iter().partition(|group| group.kind.is_negative());
        for group in barred {
            if !self.keep_out(candidate, group, was_protected) {
                good = false;
                if !lenient {
                    return false;
                }
            }
        }
        if !requested {
            self.choose(name, candidate, false);
        }
        self.state_mut(name).protected = true;
        for group in wanted {
            if !self.satisfy(candidate, group, depth, was_protected) {
                good = false;
                if !lenient {
                    break;
                }
            }
        }
        let state = self.state_mut(name);
        state.protected = was_protected;
        if !good && !lenient {
            state.chosen = state.installed;
            state.candidate = state.installed;
            state.marked = false;
        }
        good
    }

    /// A negative relation: what it hits must not be chosen.
    fn keep_out(&mut self, owner: VersionId, group: &Group, protected: bool) -> bool {
        let universe = self.universe;
        let own = universe.version(owner).name;
        let mut good = true;
        for alternative in universe.alternatives(group) {
            for version in self.matches(alternative, |state| state.candidate) {
                let name = universe.version(version).name;
                if name == own {
                    continue;
                }
                let state = self.state_mut(name);
                if state.candidate != Some(version) {
                    continue;
                }
                if state.installed.is_some() || (state.marked && state.protected) {
                    // Lower layers stay as they are, and so does what was asked for.
                    good = false;
                    if !protected {
                        return false;
                    }
                    continue;
                }
                state.marked = false;
                state.chosen = None;
                if protected {
                    state.candidate = None;
                    state.protected = true;
                }
            }
        }
        good
    }

    /// A positive relation: one of its alternatives must be chosen.
    fn satisfy(&mut self, owner: VersionId, group: &Group, depth: u32, protected: bool) -> bool {
        if self.holds(owner, group) {
            return !protected || self.protect_only_solution(group, depth);
        }
        let solutions = self.solutions(group);
        let only = solutions.len() == 1;
        for version in solutions {
            let name = self.universe.version(version).name;
            if self.state(name).candidate != Some(version) {
                continue;
            }
            if protected && only {
                if !self.mark(name, false, depth + 1, false) {
                    continue;
                }
                self.state_mut(name).protected = true;
            }
            if self.mark(name, true, depth + 1, false) {
                return true;
            }
        }
        false
    }

    /// A relation of a protected package that holds and could hold in one way only protects that one as well.
    fn protect_only_solution(&mut self, group: &Group, depth: u32) -> bool {
        let universe = self.universe;
        let mut solutions = BTreeSet::new();
        for alternative in universe.alternatives(group) {
            solutions.extend(self.matches(alternative, |state| state.candidate));
            solutions.extend(self.matches(alternative, |state| state.installed));
        }
        solutions.retain(|version| !self.is_shut_out(universe.version(*version).name));
        let mut solutions = solutions.into_iter();
        let (Some(only), None) = (solutions.next(), solutions.next()) else { return true };
        let name = universe.version(only).name;
        if self.state(name).protected {
            return true;
        }
        self.state_mut(name).protected = true;
        self.mark(name, true, depth + 1, false)
    }

    /// The candidates that would satisfy a group, best first: what is installed, then by alternative and, within
    /// one, real before provided, essential before not, by priority, by age in the index.
    fn solutions(&self, group: &Group) -> Vec<VersionId> {
        let universe = self.universe;
        let mut found: Vec<VersionId> = Vec::new();
        for alternative in universe.alternatives(group) {
            let mut matching = self.matches(alternative, |state| state.candidate);
            matching.sort_by_key(|version| {
                let version = universe.version(*version);
                let name = universe.name(version.name);
                let state = self.state(version.name);
                (
                    !state.protected,
                    state.installed.is_none(),
                    version.name != alternative.target,
                    !name.essential,
                    !name.important,
                    version.priority,
                    Reverse(version.name),
                )
            });
            found.extend(matching);
        }
        found.sort_by_key(|version| self.state(universe.version(*version).name).installed.is_none());
        let mut seen = BTreeSet::new();
        found.retain(|version| seen.insert(*version) && !self.is_shut_out(universe.version(*version).name));
        found
    }

    /// Every critical need of a version could be met by something chosen or offered.
    fn is_possible(&self, version: VersionId) -> bool {
        let positive = |group: &&Group| matches!(group.kind, Relationship::PreDepends | Relationship::Depends);
        self.universe.groups(version).iter().filter(positive).all(|group| {
            self.universe.alternatives(group).iter().any(|alternative| {
                !self.matches(alternative, |state| state.chosen).is_empty() || !self.offers(alternative).is_empty()
            })
        })
    }

    /// Protected against being installed: something protected conflicts with it.
    pub fn is_shut_out(&self, name: NameId) -> bool {
        let state = self.state(name);
        state.protected && !state.marked && state.installed.is_none()
    }

    fn choose(&mut self, name: NameId, candidate: VersionId, requested: bool) {
        let state = self.state_mut(name);
        if state.protected && state.chosen == Some(candidate) {
            return;
        }
        state.chosen = Some(candidate);
        state.marked = state.installed != Some(candidate);
        if state.installed.is_none() {
            state.automatic = !requested;
        }
    }

    fn state(&self, name: NameId) -> &State {
        &self.states[name as usize]
    }

    fn state_mut(&mut self, name: NameId) -> &mut State {
        &mut self.states[name as usize]
    }
}

/// The candidate: the highest pin, then the latest version. Pins below 1 keep a version out.
pub fn best(universe: &Universe<'_>, versions: &[VersionId]) -> Option<VersionId> {
    // `max_by_key` keeps the last of equals; versions come latest first, so they are walked backwards.
    versions.iter().rev().copied().filter(|id| universe.version(*id).pin > 0).max_by_key(|id| universe.version(*id).pin)
}
