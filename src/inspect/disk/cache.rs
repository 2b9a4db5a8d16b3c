//! The pieces of an image that were unpacked or read last, shared by all threads.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use crate::error::Result;

/// Bounded by the bytes it holds; the piece not used for the longest time goes first.
pub struct Cache {
    room: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Only looked up, never iterated.
    pieces: HashMap<u64, (Arc<[u8]>, u64)>,
    by_age: BTreeMap<u64, u64>,
    clock: u64,
    held: usize,
}

impl Cache {
    pub fn new(room: usize) -> Cache {
        Cache { room, state: Mutex::default() }
    }

    /// The piece of that name; made outside of the lock when it is not there. Two threads may make the same one.
    pub fn get(&self, key: u64, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Arc<[u8]>> {
        if let Some(found) = self.state().find(key) {
            return Ok(found);
        }
        let piece: Arc<[u8]> = make()?.into();
        self.state().keep(key, piece.clone(), self.room);
        Ok(piece)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this")
    }
}

impl State {
    fn find(&mut self, key: u64) -> Option<Arc<[u8]>> {
        self.clock += 1;
        let (piece, age) = self.pieces.get_mut(&key)?;
        self.by_age.remove(age);
        *age = self.clock;
        self.by_age.insert(self.clock, key);
        Some(piece.clone())
    }

    fn keep(&mut self, key: u64, piece: Arc<[u8]>, room: usize) {
        self.clock += 1;
        self.held += piece.len();
        if let Some((old, age)) = self.pieces.insert(key, (piece, self.clock)) {
            self.held -= old.len();
            self.by_age.remove(&age);
        }
        self.by_age.insert(self.clock, key);
        while self.held > room {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            if let Some((gone, _)) = self.pieces.remove(&oldest) {
                self.held -= gone.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let cache = Cache::new(10);
        let mut made = Vec::new();
        for key in [1, 2, 1, 3, 1, 2] {
            cache
                .get(key, || {
                    made.push(key);
                    Ok(vec![0; 4])
                })
                .unwrap();
        }
        assert_eq!(made, [1, 2, 3, 2]);
        assert!(cache.state().held <= 10);
    }
}
