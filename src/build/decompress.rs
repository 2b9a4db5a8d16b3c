//! Decompressing packages on all cores while one thread uses the results in their order.
//!
//! Owns: [`in_order`]. A bounded number of bytes waits to be used; a package that is larger is alone in memory with the
//! one before it.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::package::binary::Binary;

/// No further package is begun while this much waits or is being decompressed.
const WAITING_BYTES: u64 = 96 << 20;
/// How much larger a package is thought to be before it is decompressed.
const LIKELY_RATIO: u64 = 5;

#[derive(Default)]
struct State {
    /// The next package to begin with.
    next: usize,
    /// The package that is to be used next.
    wanted: usize,
    done: BTreeMap<usize, Result<Vec<u8>>>,
    /// Finished and not used yet, or thought to come.
    bytes: u64,
    stop: bool,
}

/// Calls `each` with every package and its decompressed data, in the given order.
pub fn in_order(packages: &[&Binary], mut each: impl FnMut(&Binary, &[u8]) -> Result<()>) -> Result<()> {
    let state = Mutex::new(State::default());
    let changed = Condvar::new();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(packages.len()).max(1);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(packages, &state, &changed));
        }
        let result = (0..packages.len()).try_for_each(|at| {
            let data = take(at, &state, &changed)?;
            each(packages[at], &data)
        });
        lock(&state).stop = true;
        changed.notify_all();
        result
    })
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn length(result: &Result<Vec<u8>>) -> u64 {
    result.as_ref().map_or(0, |data| data.len() as u64)
}

fn take(at: usize, state: &Mutex<State>, changed: &Condvar) -> Result<Vec<u8>> {
    let mut guard = lock(state);
    guard.wanted = at;
    changed.notify_all();
    loop {
        if let Some(result) = guard.done.remove(&at) {
            guard.bytes -= length(&result);
            guard.wanted = at + 1;
            changed.notify_all();
            return result;
        }
        if guard.stop {
            return Err(Error::build("decompressing packages stopped"));
        }
        guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
}

fn work(packages: &[&Binary], state: &Mutex<State>, changed: &Condvar) {
    loop {
        let (at, likely) = {
            let mut guard = lock(state);
            let likely = loop {
                if guard.stop || guard.next >= packages.len() {
                    return;
                }
                // The one that is waited for is begun in any case.
                let likely = packages[guard.next].deb.data_size().saturating_mul(LIKELY_RATIO);
                if guard.bytes.saturating_add(likely) <= WAITING_BYTES || guard.next == guard.wanted {
                    guard.bytes += likely;
                    break likely;
                }
                guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            };
            let at = guard.next;
            guard.next += 1;
            (at, likely)
        };
        let result = packages[at].deb.data();
        let mut guard = lock(state);
        guard.bytes = guard.bytes - likely + length(&result);
        guard.done.insert(at, result);
        changed.notify_all();
    }
}
