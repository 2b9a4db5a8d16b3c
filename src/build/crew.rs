//! Threads that prepare the packages of one layer while something else uses the results, or works on the layer below.
//!
//! Owns: [`Crew`]. Packages are prepared in the order in which they are likely to be wanted; one that is wanted earlier
//! comes next. A crew that works ahead of its layer lets everybody else go first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crate::error::{Error, Result};
use crate::package::binary::Binary;
use crate::package::stage::{Stage, Staged};
use crate::report::{Reporter, Step, Unit};
use crate::tree::store::PackWriter;

/// nice(2) of a crew that works ahead.
const AHEAD: i32 = 12;
/// And of its first package: a kernel takes as long as all the others together, and must not end alone.
const AHEAD_FIRST: i32 = 5;

/// What a crew works on.
#[derive(Clone)]
pub(super) struct Work<'a> {
    pub packages: Arc<Vec<Binary>>,
    /// Positions, in the order in which they are likely to be wanted.
    pub order: Vec<usize>,
    pub stage: &'a Stage,
    pub pack: Arc<PackWriter>,
}

struct Shared<'a> {
    work: Work<'a>,
    state: Mutex<State<'a>>,
    changed: Condvar,
    /// Ends with the last package.
    step: Mutex<Option<Step>>,
}

struct State<'a> {
    /// Not begun yet; the next one last.
    todo: Vec<usize>,
    running: usize,
    done: BTreeMap<usize, Result<Staged<'a>>>,
    stop: bool,
}

pub(super) struct Crew<'scope, 'a> {
    shared: Arc<Shared<'a>>,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

/// Changes the priority of this thread alone. It can only go down.
fn give_way(nice: i32) {
    if nice > 0 {
        // SAFETY: no memory is touched; it may fail without harm.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    }
}

impl<'scope, 'a: 'scope> Crew<'scope, 'a> {
    pub fn start(
        scope: &'scope Scope<'scope, '_>,
        work: Work<'a>,
        ahead: bool,
        title: String,
        reporter: &Reporter,
    ) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(work.packages.len()).max(1);
        let todo: Vec<usize> = work.order.iter().rev().copied().collect();
        let step = (!todo.is_empty()).then(|| reporter.step_of(title, todo.len() as u64, Unit::Items));
        let state = State { todo, running: 0, done: BTreeMap::new(), stop: false };
        let shared =
            Arc::new(Shared { work, state: Mutex::new(state), changed: Condvar::new(), step: Mutex::new(step) });
        let threads = (0..workers).map(|number| {
            let shared = shared.clone();
            let first = (number == 0).then(|| shared.next()).flatten();
            scope.spawn(move || {
                if let Some(at) = first {
                    give_way(if ahead { AHEAD_FIRST } else { 0 });
                    shared.prepare(at);
                }
                give_way(if ahead { AHEAD } else { 0 });
                while let Some(at) = shared.next() {
                    shared.prepare(at);
                }
            })
        });
        Crew { threads: threads.collect(), shared }
    }

    pub fn packages(&self) -> &[Binary] {
        &self.shared.work.packages
    }

    /// Says in which order packages will be wanted; those that are not named come last.
    pub fn reorder(&self, order: impl DoubleEndedIterator<Item = usize>) {
        let mut state = self.shared.state();
        let left: BTreeSet<usize> = state.todo.iter().copied().collect();
        let named: Vec<usize> = order.rev().filter(|at| left.contains(at)).collect();
        let mut todo: Vec<usize> = state.todo.iter().copied().filter(|at| !named.contains(at)).collect();
        todo.extend(named);
        state.todo = todo;
    }

    /// A package, as soon as it is prepared. Each can be had once.
    pub fn take(&self, at: usize) -> Result<Staged<'a>> {
        let mut state = self.shared.state();
        if let Some(place) = state.todo.iter().position(|waiting| *waiting == at) {
            let wanted = state.todo.remove(place);
            state.todo.push(wanted);
        }
        loop {
            if let Some(result) = state.done.remove(&at) {
                return result;
            }
            if state.stop {
                return Err(Error::build("preparing packages stopped"));
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the crew and gives back where the store's new contents go.
    pub fn finish(mut self) -> Result<PackWriter> {
        self.end()?;
        let shared = self.shared.clone();
        drop(self);
        let shared = Arc::into_inner(shared).ok_or_else(|| Error::build("a thread still prepares packages"))?;
        let pack = Arc::into_inner(shared.work.pack);
        pack.ok_or_else(|| Error::build("a thread still writes to the store"))
    }

    fn end(&mut self) -> Result<()> {
        self.shared.state().stop = true;
        self.shared.changed.notify_all();
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            result = result.and(thread.join().map_err(|_| Error::build("a thread that prepares packages has failed")));
        }
        result
    }
}

/// A build that fails does not wait for packages nobody wants.
impl Drop for Crew<'_, '_> {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.changed.notify_all();
    }
}

impl<'a> Shared<'a> {
    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to prepare now; it counts as running from here on.
    fn next(&self) -> Option<usize> {
        let mut state = self.state();
        if state.stop {
            return None;
        }
        let at = state.todo.pop()?;
        state.running += 1;
        Some(at)
    }

    fn prepare(&self, at: usize) {
        let result = self.work.stage.prepare(&self.work.packages[at], Some(&self.work.pack));
        let size = result.as_ref().map_or(0, |staged| staged.size);
        let mut state = self.state();
        state.running -= 1;
        state.done.insert(at, result);
        let last = state.todo.is_empty() && state.running == 0;
        drop(state);
        self.changed.notify_all();
        self.report(size, last);
    }

    fn report(&self, size: u64, last: bool) {
        let mut slot = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(step) = slot.as_ref() {
            step.advance(1);
            step.bytes(size);
        }
        if let Some(step) = slot.take_if(|_| last) {
            step.finish(format!("{} packages", self.work.order.len()));
        }
    }
}
