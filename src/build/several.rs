//! Several images in one run, side by side.
//!
//! Owns: how many at once ([`Crowd`]), preparing and building them all, what one that fails means for the others, and
//! when a build begins again because the cache was damaged. Which image comes next is [`Turns`]'.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::delivery::Delivery;
use super::pack;
use super::prepare::{Prepared, prepare};
use super::run::{Built, Caches, Options, build, output_folder};
use super::turns::Turns;
use super::workplace::Workplace;
use crate::error::{Context, Error, Kind, Result};
use crate::package::lock::Lock;
use crate::plan::{Intent, StepName};
use crate::sandbox::workarea::{RESERVE, available_memory};
use crate::tree::Digest;
use crate::tree::store::Store;

/// Each meets another damaged layer, so there need be no more than layers.
const ATTEMPTS: u32 = 5;
/// What an image in the making takes beside its root file system.
const MEMORY: u64 = 600 << 20;

/// How many images are made at once, and what they need for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Crowd {
    pub workers: usize,
    /// Bytes that the work area should hold.
    pub need: u64,
}

impl Crowd {
    pub fn of(prepared: &[Prepared<'_>], options: &Options<'_>) -> Crowd {
        // Images on one topmost layer need one root file system: the first one's.
        let mut roots: BTreeMap<Option<Digest>, u64> = BTreeMap::new();
        for one in prepared {
            let need = roots.entry(one.layer_keys().last().copied()).or_default();
            *need = (*need).max(space_needed(&one.lock));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::sized(roots.into_values().collect(), prepared.len(), cores, available_memory(), options.verify)
    }

    fn sized(mut roots: Vec<u64>, images: usize, cores: usize, memory: u64, verify: bool) -> Crowd {
        roots.sort_unstable_by(|a, b| b.cmp(a));
        let factor = if verify { 2 } else { 1 };
        let need = |workers: usize| {
            roots.iter().take(workers).fold(0u64, |sum, root| sum.saturating_add(root.saturating_mul(factor)))
        };
        let by_memory = usize::try_from(memory / MEMORY).unwrap_or(usize::MAX);
        let mut workers = cores.min(images).min(by_memory).max(1);
        // Better one after another in memory than side by side on a disk.
        while need(workers) > need(1) && need(workers).saturating_add(RESERVE) > memory {
            workers -= 1;
        }
        Crowd { workers, need: need(workers) }
    }
}

/// Bytes that the work area should hold: packages unpack to about six times their size, scripts write more, and boot
/// images are made there.
fn space_needed(lock: &Lock) -> u64 {
    let packages = lock.packages().map(|package| package.size).sum::<u64>();
    packages.saturating_mul(8).saturating_add(pack::SCRATCH_NEED)
}

/// Files of two images that would lie in one place.
pub(super) fn refuse_collisions(intents: &[Intent], options: &Options<'_>) -> Result<()> {
    let mut names: BTreeMap<(PathBuf, &str), &str> = BTreeMap::new();
    for intent in intents {
        let folder = output_folder(intent, options);
        // The image's own name stands for the files beside it.
        let own = [Some(intent.image.as_str()), intent.output_metadata_file_name.as_deref()];
        let files = intent.outputs.iter().map(|output| output.file_name.as_str());
        let all: BTreeSet<&str> = files.chain(own.into_iter().flatten()).collect();
        for name in all {
            if let Some(other) = names.insert((folder.clone(), name), &intent.image) {
                let message = match other == intent.image {
                    true => format!("two images of one run are called `{other}`"),
                    false => format!("images `{other}` and `{}` both write `{name}`", intent.image),
                };
                return Err(Error::documents(format!("{message}, and go to {}", folder.display()))
                    .hint("name them differently (`metadata.name` of the AirshipImage), or build them in two runs"));
            }
        }
    }
    Ok(())
}

/// Prepares all images. The first one alone: what the others ask for as well, they find answered.
pub(super) fn prepare_all<'a>(
    intents: &'a [Intent],
    options: &Options<'_>,
    store: &Store,
) -> Result<Vec<Prepared<'a>>> {
    let one = |intent: &'a Intent| {
        prepare(intent, &options.about(&intent.image, intents.len()), store)
            .map_err(|error| intent.locate(error))
            .with_context(|| format!("preparing image `{}`", intent.image))
    };
    let Some((first, rest)) = intents.split_first() else { return Ok(Vec::new()) };
    let mut prepared = vec![one(first)?];
    let rest: Vec<Result<Prepared<'a>>> = rest.par_iter().map(one).collect();
    for one in rest {
        prepared.push(one?);
    }
    Ok(prepared)
}

/// Builds while packages are still on their way; what became of each image.
pub(super) fn build_all(
    prepared: &[Prepared<'_>],
    options: &Options<'_>,
    caches: &Caches,
    workers: usize,
    work: &Path,
) -> Vec<Result<Built>> {
    let delivery = Delivery::new(prepared.len());
    let is_made = |layer: Digest| caches.store.has(layer);
    let turns = Turns::new(prepared.iter().map(Prepared::layer_keys).collect(), &is_made);
    let hall = Hall { prepared, options, caches, delivery: &delivery, repaired: AtomicU32::new(0) };
    let results: Mutex<Vec<Option<Result<Built>>>> = Mutex::new(prepared.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        scope.spawn(|| delivery.bring(prepared, &options.environment));
        for number in 0..workers {
            let (hall, turns, results) = (&hall, &turns, &results);
            scope.spawn(move || {
                let mut place = Workplace::new(work.join(format!("worker{number}")));
                while let Ok(Some(image)) = turns.next() {
                    let result = hall.build(image, turns, &mut place);
                    results.lock().unwrap_or_else(PoisonError::into_inner)[image] = Some(result);
                    turns.done(image);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let closed = |(image, result): (usize, Option<Result<Built>>)| {
        let result = result.unwrap_or_else(|| Err(Error::new(Kind::Interrupted, "interrupted")));
        let result = result.map_err(|error| delivery.why(image).unwrap_or(error));
        let intent = prepared[image].intent;
        result.map_err(|error| intent.locate(error)).with_context(|| format!("building image `{}`", intent.image))
    };
    results.into_iter().enumerate().map(closed).collect()
}

/// What all workers share.
struct Hall<'a> {
    prepared: &'a [Prepared<'a>],
    options: &'a Options<'a>,
    caches: &'a Caches,
    delivery: &'a Delivery,
    /// How often damaged packs were set aside.
    repaired: AtomicU32,
}

impl Hall<'_> {
    fn build(&self, image: usize, turns: &Turns<'_>, place: &mut Workplace) -> Result<Built> {
        let one = &self.prepared[image];
        let options = self.options.about(&one.intent.image, self.prepared.len());
        let arrived = |layer: usize| self.delivery.wait(image, layer);
        let is_free = || !turns.left().into_iter().any(|image| self.wants_folder(image));
        let mut attempt = 1;
        loop {
            let repaired = self.repaired.load(Ordering::Relaxed);
            let result = build(one, &options, self.caches, &arrived, place, &is_free);
            let Err(error) = result else { return result };
            place.clear();
            if attempt == ATTEMPTS || !self.repaired_since(repaired)? {
                return Err(error);
            }
            // What is missing now is made again.
            attempt += 1;
        }
    }

    /// Whether programs have to run in the root file system of an image.
    fn wants_folder(&self, image: usize) -> bool {
        let (one, store) = (&self.prepared[image], &self.caches.store);
        let layers = one.layer_keys().last().is_some_and(|top| store.has(*top));
        let settled = || one.settle(&self.options.environment);
        !layers || !settled().is_ok_and(|settled| store.has(settled.plan.digest_of(StepName::Initramfs)))
    }

    /// Whether damaged packs were set aside: now, or since then by another worker, who may have met the same ones.
    fn repaired_since(&self, then: u32) -> Result<bool> {
        if self.caches.store.set_damaged_aside()? {
            self.repaired.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self.repaired.load(Ordering::Relaxed) != then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn cores_and_memory_bound_how_many_are_made_at_once() {
        let sized = |roots: &[u64], images, cores, memory| Crowd::sized(roots.to_vec(), images, cores, memory, false);
        assert_eq!(sized(&[2 * GIB], 1, 8, 64 * GIB), Crowd { workers: 1, need: 2 * GIB });
        // Twenty on one base: one root file system.
        assert_eq!(sized(&[2 * GIB], 20, 4, 64 * GIB), Crowd { workers: 4, need: 2 * GIB });
        assert_eq!(sized(&[2 * GIB], 20, 16, 3 * GIB), Crowd { workers: 5, need: 2 * GIB });
        assert_eq!(sized(&[2 * GIB, 3 * GIB], 2, 4, 64 * GIB), Crowd { workers: 2, need: 5 * GIB });
        assert_eq!(sized(&[2 * GIB, 3 * GIB], 2, 4, 5 * GIB), Crowd { workers: 1, need: 3 * GIB });
        assert_eq!(sized(&[2 * GIB], 3, 4, 0), Crowd { workers: 1, need: 2 * GIB });
        assert_eq!(Crowd::sized(vec![GIB], 1, 1, 8 * GIB, true).need, 2 * GIB);
    }
}
