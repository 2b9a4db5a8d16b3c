//! Whether a lock is the right one for these documents and this program, and where exactly it is not.
//!
//! Owns: [`check`] and [`differences`]. Nothing is resolved here and no network is needed: a lock remembers what was
//! asked for ([`Asked`]), and that is compared with what the documents ask for now.

use std::collections::{BTreeMap, BTreeSet};

use super::intent::Intent;
use super::locked::recipes;
use crate::api::params::software::Layer;
use crate::error::{Error, Kind, Result};
use crate::package::lock::asked::{Asked, AskedRepository};
use crate::package::lock::{Lock, PackageRequest};

/// More differences than this are counted, not shown.
const SHOWN: usize = 20;

/// Fails with every difference when the lock may not be used for this Intent.
pub fn check(intent: &Intent, lock: &Lock) -> Result<()> {
    let differences = differences(intent, lock);
    let drift = |message: String| Error::new(Kind::Drift, message);
    let error = match differences.as_slice() {
        [] => return Ok(()),
        [one] => drift(one.clone()),
        several => {
            let mut lines: Vec<String> = several.iter().take(SHOWN).map(|one| format!("  - {one}")).collect();
            if several.len() > SHOWN {
                lines.push(format!("  and {} more", several.len() - SHOWN));
            }
            drift(format!("the lock does not fit the documents in {} points", several.len())).snippet(lines.join("\n"))
        }
    };
    Err(error.hint("`imagebuilder lock` on these documents brings the lock up to date and moves no more than needed"))
}

/// One line each, with the place in the documents where there is one.
pub fn differences(intent: &Intent, lock: &Lock) -> Vec<String> {
    let mut found = Vec::new();
    if lock.image != intent.image {
        found.push(format!("the lock is for image `{}`, the documents describe `{}`", lock.image, intent.image));
    }
    let architecture = intent.params.distribution.architecture();
    if lock.architecture != architecture {
        found.push(format!(
            "the lock is for architecture `{}`, the documents ask for `{architecture}`",
            lock.architecture
        ));
    }
    recipe_differences(lock, &mut found);
    let asked = Asked::of(&intent.package_request());
    repository_differences(intent, &asked, &lock.asked, &mut found);
    package_differences(intent, &asked, &lock.asked, &mut found);
    for name in asked.unapproved.difference(&lock.asked.unapproved) {
        let place = place(intent, &["software", "unapproved_packages", name]);
        found.push(format!("package `{name}` is unapproved{place}, the lock was made before that"));
    }
    for name in lock.asked.unapproved.difference(&asked.unapproved) {
        found.push(format!("package `{name}` was unapproved when the lock was made, and is not any more"));
    }
    found
}

fn recipe_differences(lock: &Lock, found: &mut Vec<String>) {
    let ours = recipes();
    let steps: BTreeSet<&String> = ours.keys().chain(lock.recipes.keys()).collect();
    for step in steps {
        let of = |recipes: &BTreeMap<String, u32>| match recipes.get(step) {
            Some(version) => format!("recipe {version}"),
            None => "no recipe".to_owned(),
        };
        if ours.get(step) != lock.recipes.get(step) {
            let by = match lock.evidence.builder.as_str() {
                "" => String::new(),
                builder => format!(" (made by {builder})"),
            };
            found.push(format!("step `{step}`: the lock has {}{by}, this program {}", of(&lock.recipes), of(&ours)));
        }
    }
}

fn repository_differences(intent: &Intent, asked: &Asked, locked: &Asked, found: &mut Vec<String>) {
    for (name, repository) in &asked.repositories {
        let place = place(intent, &["distribution", "repositories", name]);
        match locked.repositories.get(name) {
            None => found.push(format!("repository `{name}` is asked for{place}, the lock was made without it")),
            Some(before) if before != repository => {
                let what = changed_fields(before, repository);
                found.push(format!("repository `{name}` has changed{place}: {what}"));
            }
            Some(_) => {}
        }
    }
    for name in locked.repositories.keys().filter(|name| !asked.repositories.contains_key(*name)) {
        found.push(format!("the lock was made with repository `{name}`, which the documents do not have"));
    }
}

fn changed_fields(before: &AskedRepository, now: &AskedRepository) -> String {
    let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
    let number = |priority: Option<i32>| priority.map_or("unset".to_owned(), |priority| priority.to_string());
    let fields = |one: &AskedRepository| {
        [
            ("suite", one.suite.clone()),
            ("components", list(&one.components)),
            ("keyring", one.keyring.clone()),
            ("priority", number(one.priority)),
            ("snapshot", one.snapshot.clone().unwrap_or_else(|| "none".into())),
        ]
    };
    let pairs = fields(before).into_iter().zip(fields(now)).filter(|(before, now)| before != now);
    let words = pairs.map(|((key, before), (_, now))| format!("{key} `{before}` is now `{now}`"));
    words.collect::<Vec<_>>().join(", ")
}

fn package_differences(intent: &Intent, asked: &Asked, locked: &Asked, found: &mut Vec<String>) {
    let (now, before) = (by_name(asked), by_name(locked));
    for (name, (layer, request)) in &now {
        let place = place(intent, &["software", "packages", name]);
        let Some((layer_before, request_before)) = before.get(name) else {
            found.push(format!("package `{name}` is asked for{place}, the lock was made without it"));
            continue;
        };
        if layer != layer_before {
            let (layer, before) = (layer.name(), layer_before.name());
            found.push(format!("package `{name}` is asked for in layer {layer}{place}, the lock has it in {before}"));
        }
        if request.version != request_before.version {
            let of = |version: &Option<String>| version.clone().unwrap_or_else(|| "any version".into());
            let (now, before) = (of(&request.version), of(&request_before.version));
            found.push(format!("package `{name}`: {now} is asked for{place}, the lock was made for {before}"));
        }
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        found.push(format!("package `{name}` is in the lock because it was asked for, and is not asked for any more"));
    }
}

fn by_name(asked: &Asked) -> BTreeMap<&str, (Layer, &PackageRequest)> {
    let all = asked.packages.iter().flat_map(|(layer, list)| list.iter().map(|request| (*layer, request)));
    all.map(|(layer, request)| (request.name.as_str(), (layer, request))).collect()
}

/// ` (file:line:column)` of a value that the documents have.
fn place(intent: &Intent, path: &[&str]) -> String {
    intent.exact_origin(path).map(|at| format!(" ({at})")).unwrap_or_default()
}
