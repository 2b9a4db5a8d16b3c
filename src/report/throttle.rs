//! "Is it time to say something again?", per running step.
//!
//! Owns: the moment of the last word on each step. Cheap, because inner loops ask.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Throttle(Mutex<BTreeMap<u64, Instant>>);

impl Throttle {
    pub fn start(&self, id: u64) {
        if let Ok(mut last) = self.0.lock() {
            last.insert(id, Instant::now());
        }
    }

    /// True at most once per `interval`. A thread that finds the lock taken goes on working instead of waiting.
    pub fn due(&self, id: u64, interval: Duration) -> bool {
        let Ok(mut last) = self.0.try_lock() else { return false };
        match last.get_mut(&id) {
            Some(moment) if moment.elapsed() >= interval => {
                *moment = Instant::now();
                true
            }
            _ => false,
        }
    }

    pub fn end(&self, id: u64) {
        if let Ok(mut last) = self.0.lock() {
            last.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_once_per_interval_and_only_of_running_steps() {
        let throttle = Throttle::default();
        assert!(!throttle.due(1, Duration::ZERO));
        throttle.start(1);
        assert!(!throttle.due(1, Duration::from_secs(3600)));
        assert!(throttle.due(1, Duration::ZERO));
        throttle.end(1);
        assert!(!throttle.due(1, Duration::ZERO));
    }
}
