//! Which images of a tree of sites differ between two states of it, and which provably do not.
//!
//! Owns: [`affected`]. What an image is made of is compared (its Intent, and its lock where there is one), not text: a
//! comment, a line that moved or a file that nothing reads affects nothing.

use std::collections::BTreeMap;

use super::entries::{Entry, Key};
use crate::document::{Node, differences, place};
use crate::error::{Kind, Result};
use crate::interrupt;
use crate::package::lock::Lock;
use crate::plan::{LockedPlan, StepName};
use crate::tree::Digest;

/// How many changed values of an image are named.
const VALUES: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Changed,
    Added,
    Removed,
    Unchanged,
    /// The new state has mistakes.
    Invalid,
}

impl Fate {
    pub fn name(self) -> &'static str {
        match self {
            Fate::Changed => "changed",
            Fate::Added => "added",
            Fate::Removed => "removed",
            Fate::Unchanged => "unchanged",
            Fate::Invalid => "invalid",
        }
    }
}

/// One image and what becomes of it.
#[derive(Debug)]
pub struct Image {
    pub site: Option<String>,
    pub phase: Option<String>,
    /// The folder that is rendered.
    pub entry_point: String,
    /// Name of the AirshipImage; empty when that is not known.
    pub image: String,
    pub fate: Fate,
    /// In words.
    pub reason: String,
    /// Whether a lock says which packages it is made of; otherwise they may differ from build to build.
    pub locked: bool,
    /// Steps of the build that have to be done again; known for images with locks.
    pub steps: Vec<&'static str>,
    /// Paths of the AirshipImage that differ, with the place of the new value.
    pub values: Vec<(String, serde_json::Value)>,
}

/// One side of an image.
struct State {
    name: String,
    document: Node,
    digest: Digest,
    /// Of the cloud-init data that the image holds.
    seed: Option<Digest>,
    plan: Option<LockedPlan>,
    locked: bool,
    outdated: bool,
}

/// Compares two states. The old one may be invalid: then everything that is valid now is new.
pub fn affected(old: Vec<Entry>, new: Vec<Entry>) -> Result<Vec<Image>> {
    let by_key = |entries: Vec<Entry>| -> BTreeMap<Key, Entry> {
        entries.into_iter().filter(Entry::is_image).map(|entry| (entry.key(), entry)).collect()
    };
    let (mut old, new) = (by_key(old), by_key(new));
    let mut images = Vec::new();
    for (key, entry) in new {
        interrupt::check()?;
        let before = old.remove(&key).map(|before| state(&before));
        images.push(compare(&entry, before, state(&entry)));
    }
    for entry in old.into_values() {
        let name = state(&entry).map(|state| state.name).unwrap_or_default();
        images.push(Image { image: name, ..image(&entry, Fate::Removed, "is not there any more") });
    }
    Ok(images)
}

fn image(entry: &Entry, fate: Fate, reason: impl Into<String>) -> Image {
    Image {
        site: entry.site.clone(),
        phase: entry.phase.clone(),
        entry_point: entry.folder.clone(),
        image: String::new(),
        fate,
        reason: reason.into(),
        locked: false,
        steps: Vec::new(),
        values: Vec::new(),
    }
}

fn compare(entry: &Entry, before: Option<Result<State>>, after: Result<State>) -> Image {
    let after = match after {
        Ok(after) => after,
        Err(error) => return image(entry, Fate::Invalid, error.to_string()),
    };
    let (fate, reason) = match &before {
        None => (Fate::Added, "was not there before".to_owned()),
        Some(Err(_)) => (Fate::Changed, "its documents had mistakes before".to_owned()),
        Some(Ok(before)) => reason(before, &after),
    };
    let mut found = Image { image: after.name.clone(), locked: after.locked, ..image(entry, fate, reason) };
    if let (Some(Ok(before)), Fate::Changed) = (&before, fate) {
        found.steps = steps(before, &after);
        let differing = differences(&before.document, &after.document).into_iter().take(VALUES);
        found.values = differing
            .map(|one| (one.path, one.new.map_or(serde_json::Value::Null, |node| place(&node.origin.at))))
            .collect();
    }
    found
}

fn reason(before: &State, after: &State) -> (Fate, String) {
    let unfit = if after.outdated { "; its lock does not fit its documents any more" } else { "" };
    let plans = before.plan.as_ref().zip(after.plan.as_ref());
    let same_plan = plans.is_none_or(|(old, new)| old.digest_of(StepName::Pack) == new.digest_of(StepName::Pack));
    match (before.digest == after.digest, before.plan.is_some() == after.plan.is_some()) {
        (false, _) => (Fate::Changed, format!("its documents ask for something else{unfit}")),
        (true, _) if before.seed != after.seed => (Fate::Changed, "its cloud-init data has changed".to_owned()),
        (true, false) if before.locked != after.locked => {
            let word = if after.locked { "has a lock now" } else { "has no lock any more" };
            (Fate::Changed, word.to_owned())
        }
        (true, false) => (Fate::Changed, format!("its lock has changed{unfit}")),
        (true, true) if !same_plan => (Fate::Changed, "its lock has changed".to_owned()),
        (true, true) => (Fate::Unchanged, "its documents ask for the same".to_owned()),
    }
}

/// Steps whose inputs differ.
fn steps(before: &State, after: &State) -> Vec<&'static str> {
    let Some((old, new)) = before.plan.as_ref().zip(after.plan.as_ref()) else { return Vec::new() };
    let differs = |step: &&StepName| old.digest_of(**step) != new.digest_of(**step);
    StepName::ALL.iter().filter(differs).map(|step| step.name()).collect()
}

fn state(entry: &Entry) -> Result<State> {
    let intent = entry.intent()?;
    // A seed with mistakes is told by the build; until then it counts as none.
    let seed = intent.seed.as_ref().and_then(|seed| seed.load().ok()).map(|seed| {
        let files = seed.files();
        Digest::of(serde_json::json!(files.each_ref().map(|(name, bytes)| (name, bytes))).to_string().as_bytes())
    });
    let path = intent.lock_path.clone().filter(|path| path.is_file());
    let lock = path.map(|path| Lock::read(&path)).transpose()?;
    let plan = match lock.as_ref().map(|lock| LockedPlan::new(&intent, lock)) {
        Some(Ok(plan)) => Some(plan),
        Some(Err(error)) if error.kind() != Kind::Drift => return Err(error),
        _ => None,
    };
    let outdated = lock.is_some() && plan.is_none();
    let (name, digest) = (intent.image.clone(), intent.digest());
    Ok(State { name, digest, seed, document: intent.document, locked: lock.is_some(), plan, outdated })
}
