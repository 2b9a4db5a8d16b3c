//! Which image comes next, when several are made side by side.
//!
//! Owns: [`Turns`]. Images of one run share layers, the initramfs and the clusters of their disks; what two of them share
//! is made by one, and the others wait. So that waiting costs no worker, an image begins when nothing it is made of is
//! just being made: of all images on one topmost layer the first goes ahead alone, and no layer has two makers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Result;
use crate::interrupt;
use crate::tree::Digest;

/// How long a waiting worker does not hear Ctrl-C, nor that a layer is finished.
const PORTION: Duration = Duration::from_millis(50);

pub(super) struct Turns<'a> {
    /// The identities of each image's layers, lowest first.
    chains: Vec<Vec<Digest>>,
    /// Whether a layer is finished.
    is_made: &'a (dyn Fn(Digest) -> bool + Sync),
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Not begun yet, in order.
    todo: BTreeSet<usize>,
    /// In work; whether others on the same topmost layer wait for it.
    running: BTreeMap<usize, bool>,
    /// Topmost layers of images that are finished.
    led: BTreeSet<Digest>,
}

impl<'a> Turns<'a> {
    pub fn new(chains: Vec<Vec<Digest>>, is_made: &'a (dyn Fn(Digest) -> bool + Sync)) -> Self {
        let state = State { todo: (0..chains.len()).collect(), running: BTreeMap::new(), led: BTreeSet::new() };
        Turns { chains, is_made, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next image for a worker without one, as soon as there is one that may begin; nothing when none is left.
    pub fn next(&self) -> Result<Option<usize>> {
        let mut state = self.state();
        loop {
            interrupt::check()?;
            if state.todo.is_empty() {
                return Ok(None);
            }
            if let Some(image) = state.todo.iter().copied().find(|image| self.may_begin(*image, &state)) {
                state.todo.remove(&image);
                let leads = self.chains[image].last().is_some_and(|top| !state.led.contains(top));
                state.running.insert(image, leads);
                return Ok(Some(image));
            }
            state = self.changed.wait_timeout(state, PORTION).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn may_begin(&self, image: usize, state: &State) -> bool {
        let chain = &self.chains[image];
        state.running.iter().all(|(other, leads)| {
            let other = &self.chains[*other];
            if *leads && chain.last() == other.last() {
                return false;
            }
            // An identity covers all layers below, so layers in common are those at the bottom.
            let shared = chain.iter().zip(other).take_while(|(own, of_other)| own == of_other).last();
            shared.is_none_or(|(layer, _)| (self.is_made)(*layer))
        })
    }

    /// Those that have not begun yet.
    pub fn left(&self) -> BTreeSet<usize> {
        self.state().todo.clone()
    }

    /// An image is finished, or has failed.
    pub fn done(&self, image: usize) {
        let mut state = self.state();
        state.running.remove(&image);
        state.led.extend(self.chains[image].last());
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn chain(names: &[&str]) -> Vec<Digest> {
        names.iter().map(|name| Digest::of(name.as_bytes())).collect()
    }

    /// Which images may begin now, without beginning them.
    fn ready(turns: &Turns<'_>) -> Vec<usize> {
        let state = turns.state();
        state.todo.iter().copied().filter(|image| turns.may_begin(*image, &state)).collect()
    }

    #[test]
    fn the_first_image_on_a_layer_goes_ahead_and_the_others_follow_together() {
        let turns = Turns::new(vec![chain(&["base", "top"]); 4], &|_| true);
        assert_eq!(turns.next().unwrap(), Some(0));
        assert_eq!(ready(&turns), [0usize; 0]);
        turns.done(0);
        assert_eq!((turns.next().unwrap(), turns.next().unwrap()), (Some(1), Some(2)));
        assert_eq!(ready(&turns), [3]);
    }

    #[test]
    fn a_layer_has_one_maker() {
        let base_is_made = AtomicBool::new(false);
        let is_made = |layer| layer == Digest::of(b"base") && base_is_made.load(Ordering::Relaxed);
        let chains = vec![chain(&["base", "one"]), chain(&["base", "two"]), chain(&["other", "two on other"])];
        let turns = Turns::new(chains, &is_made);
        assert_eq!(turns.next().unwrap(), Some(0));
        assert_eq!(ready(&turns), [2]);
        base_is_made.store(true, Ordering::Relaxed);
        assert_eq!(ready(&turns), [1, 2]);
    }

    #[test]
    fn whoever_waits_is_woken_and_in_the_end_none_is_left() {
        let turns = Turns::new(vec![chain(&["top"]), chain(&["top"]), chain(&[])], &|_| false);
        let made = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some(image) = turns.next().unwrap() {
                        made.lock().unwrap().push(image);
                        turns.done(image);
                    }
                });
            }
        });
        let mut made = made.into_inner().unwrap();
        made.sort_unstable();
        assert_eq!(made, [0, 1, 2]);
    }
}
