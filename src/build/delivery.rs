//! Packages on their way: brought in the background, layer by layer, while those that are there are worked on.
//!
//! Owns: [`Delivery`]. One thread brings ([`Delivery::bring`]), anybody waits for what he needs next. Where something
//! cannot be had, those who wait hear that it is over; why, is asked for afterwards ([`Delivery::why`]).

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::prepare::Prepared;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::package::Environment;

/// How long a waiting thread does not hear Ctrl-C.
const PORTION: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Delivery {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Layers that are there, of each image.
    arrived: Vec<usize>,
    /// Why the rest of an image's packages cannot be had.
    failures: Vec<Option<Error>>,
}

impl Delivery {
    pub fn new(images: usize) -> Delivery {
        let state = State { arrived: vec![0; images], failures: (0..images).map(|_| None).collect() };
        Delivery { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the packages of all images, in order; each package once.
    pub fn bring(&self, prepared: &[Prepared<'_>], environment: &Environment) {
        let mut there = BTreeSet::new();
        for (image, one) in prepared.iter().enumerate() {
            for layer in 0..one.lock.layers.len() {
                let fetched = one.fetch_layer(layer, &mut there, environment);
                let failed = fetched.is_err();
                match fetched {
                    Ok(()) => self.state().arrived[image] = layer + 1,
                    Err(error) => self.state().failures[image] = Some(error),
                }
                self.changed.notify_all();
                if failed {
                    break;
                }
            }
        }
    }

    /// Waits for the packages of one layer of an image.
    pub fn wait(&self, image: usize, layer: usize) -> Result<()> {
        let mut state = self.state();
        while state.arrived[image] <= layer {
            if state.failures[image].is_some() {
                return Err(Error::build("its packages could not be brought"));
            }
            interrupt::check()?;
            state = self.changed.wait_timeout(state, PORTION).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// What could not be fetched is why something could not be built.
    pub fn why(&self, image: usize) -> Option<Error> {
        self.state().failures[image].take()
    }
}
