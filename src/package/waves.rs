//! In which order packages are unpacked: waves, each configured before the next begins.
//!
//! Owns: [`plan`]. A package's Pre-Depends (Debian Policy 7.2) must be configured before its preinst runs, so it comes
//! in a later wave than they do. The very first wave of a root is the exception that every bootstrap has: the Essential
//! packages and all they depend on are unpacked together before any script can run.

use std::collections::{BTreeMap, BTreeSet};

use super::binary::Binary;
use super::database::Database;
use super::relation;
use crate::error::{Error, Result};

/// Come first within a wave: users and folders before anything needs them, then what scripts need to run at all.
const FIRST: [&str; 7] = ["base-passwd", "base-files", "dpkg", "libc6", "bash", "dash", "perl-base"];

/// Which packages (by position) make up each wave, in the order in which their files are unpacked; `which` of all.
pub fn plan(all: &[Binary], which: &[usize], database: &Database) -> Result<Vec<Vec<usize>>> {
    let packages: Vec<&Binary> = which.iter().map(|at| &all[*at]).collect();
    let plan = Plan { providers: providers(&packages)?, packages, database };
    let bootstrap = database.packages().next().is_none();
    let first = if bootstrap { plan.bootstrap()? } else { BTreeSet::new() };
    let numbers = plan.numbers(&first, usize::from(bootstrap))?;
    let mut waves = vec![Vec::new(); numbers.iter().max().map_or(0, |most| most + 1)];
    for (number, at) in numbers.into_iter().zip(which) {
        waves[number].push(*at);
    }
    waves.retain(|wave| !wave.is_empty());
    for wave in &mut waves {
        wave.sort_by_key(|at| rank(&all[*at]));
    }
    Ok(waves)
}

/// The order in which packages are wanted if all are in one wave.
pub fn likely(packages: &[Binary]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..packages.len()).collect();
    order.sort_by_key(|at| rank(&packages[*at]));
    order
}

/// The largest first: none is left over that takes long when all others are done.
pub fn largest(packages: &[Binary]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..packages.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(packages[*at].size()));
    order
}

fn rank(package: &Binary) -> (usize, String) {
    let place = FIRST.iter().position(|name| *name == package.name).unwrap_or(FIRST.len());
    (place, package.name.clone())
}

struct Plan<'a> {
    packages: Vec<&'a Binary>,
    database: &'a Database,
    /// Real and virtual names; the real package comes first.
    providers: BTreeMap<String, Vec<usize>>,
}

fn providers(packages: &[&Binary]) -> Result<BTreeMap<String, Vec<usize>>> {
    let mut providers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, package) in packages.iter().enumerate() {
        providers.entry(package.name.clone()).or_default().insert(0, at);
        relation::alternatives(package.field("Provides"), |relation, _| {
            providers.entry(bare(relation.name).to_string()).or_default().push(at);
        })?;
    }
    Ok(providers)
}

fn bare(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

impl Plan<'_> {
    /// The packages of this set that a relation field asks for; groups that are fulfilled by what is there already,
    /// or by nothing here, give none.
    fn wanted(&self, field: &str) -> Result<Vec<usize>> {
        let mut groups: Vec<Vec<String>> = Vec::new();
        relation::alternatives(field, |relation, first| {
            if first {
                groups.push(Vec::new());
            }
            if let Some(group) = groups.last_mut() {
                group.push(bare(relation.name).to_string());
            }
        })?;
        let there = |name: &String| self.database.find(name).is_some();
        let groups = groups.into_iter().filter(|group| !group.iter().any(there));
        Ok(groups
            .filter_map(|group| group.iter().find_map(|name| self.providers.get(name)?.first().copied()))
            .collect())
    }

    /// Essential packages and everything they need.
    fn bootstrap(&self) -> Result<BTreeSet<usize>> {
        let essential = self.packages.iter().enumerate().filter(|(_, package)| package.essential).map(|(at, _)| at);
        let mut found: BTreeSet<usize> = essential.collect();
        if found.is_empty() {
            return Err(Error::build("no Essential package among the packages of the first layer"));
        }
        let mut todo: Vec<usize> = found.iter().copied().collect();
        while let Some(at) = todo.pop() {
            for field in ["Pre-Depends", "Depends"] {
                for next in self.wanted(self.packages[at].field(field))? {
                    if found.insert(next) {
                        todo.push(next);
                    }
                }
            }
        }
        Ok(found)
    }

    /// The wave of every package: later than what its preinst needs configured, not earlier than what it needs to be
    /// configured itself. Without a preinst nothing runs before it is unpacked, so its Pre-Depends are like Depends.
    fn numbers(&self, first: &BTreeSet<usize>, lowest: usize) -> Result<Vec<usize>> {
        let mut edges: Vec<(usize, usize, usize)> = Vec::new();
        for at in (0..self.packages.len()).filter(|at| !first.contains(at)) {
            let package = self.packages[at];
            let distance = usize::from(package.files.contains_key("preinst"));
            edges.extend(self.wanted(package.field("Pre-Depends"))?.into_iter().map(|before| (at, before, distance)));
            edges.extend(self.wanted(package.field("Depends"))?.into_iter().map(|before| (at, before, 0)));
        }
        let mut numbers: Vec<usize> =
            (0..self.packages.len()).map(|at| if first.contains(&at) { 0 } else { lowest }).collect();
        loop {
            let mut changed = false;
            for (at, before, distance) in &edges {
                let least = numbers[*before] + distance;
                if numbers[*at] < least {
                    numbers[*at] = least;
                    changed = true;
                    if least > self.packages.len() {
                        let name = &self.packages[*at].name;
                        return Err(Error::build(format!("package `{name}` pre-depends on something that needs it")));
                    }
                }
            }
            if !changed {
                return Ok(numbers);
            }
        }
    }
}
