//! Packages on their way: brought in the background, layer by layer, while those that are there are worked on.
//!
//! Owns: [`Delivery`]. One thread brings ([`Delivery::bring`]), anybody waits for what he needs next. Where something
//! cannot be had, those who wait hear that it is over; why, says the one who brought.

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
    failed: bool,
}

impl Delivery {
    pub fn new(images: usize) -> Delivery {
        Delivery { state: Mutex::new(State { arrived: vec![0; images], failed: false }), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the packages of all images, in order.
    pub fn bring(&self, prepared: &[Prepared<'_>], environment: &Environment) -> Result<()> {
        let result = self.bring_all(prepared, environment);
        self.state().failed = result.is_err();
        self.changed.notify_all();
        result
    }

    fn bring_all(&self, prepared: &[Prepared<'_>], environment: &Environment) -> Result<()> {
        for (image, one) in prepared.iter().enumerate() {
            for layer in 0..one.lock.layers.len() {
                one.fetch_layer(layer, environment)?;
                self.state().arrived[image] = layer + 1;
                self.changed.notify_all();
            }
        }
        Ok(())
    }

    /// Waits for the packages of one layer of an image.
    pub fn wait(&self, image: usize, layer: usize) -> Result<()> {
        let mut state = self.state();
        while state.arrived[image] <= layer {
            if state.failed {
                return Err(Error::build("its packages could not be brought"));
            }
            interrupt::check()?;
            state = self.changed.wait_timeout(state, PORTION).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}
