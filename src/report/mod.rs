//! What people see while work goes on: steps with progress, notes, warnings.
//!
//! Owns: [`Reporter`], a cheap handle that every room may hold, and [`Step`], which ends when dropped. Libraries
//! report here and never print. What it looks like is decided by the sink behind it.

pub mod json;
mod plain;
pub mod replay;
mod terminal;
mod throttle;
pub mod timeline;
pub mod usage;
pub mod words;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a step counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Items,
    Bytes,
}

/// One finished step, for the closing summary.
#[derive(Debug, Clone, Default)]
pub struct Timing {
    pub name: String,
    /// Since the reporter was made.
    pub start: Duration,
    pub wall: Duration,
    /// Processor time of this process and of its finished children while the step ran. Steps that run side by side
    /// each count all of it.
    pub cpu: Duration,
    /// What it worked on, as far as it says ([`Step::bytes`], [`Step::advance`]).
    pub bytes: u64,
    pub items: u64,
    /// The largest resident set of this process, from its beginning to the end of the step.
    pub peak_memory: u64,
    pub detail: String,
}

/// Where reports go. Implementations must be quick: they are called from inner loops.
pub trait Sink: Send + Sync {
    fn step_started(&self, id: u64, name: &str, total: Option<u64>, unit: Unit);
    fn step_progress(&self, id: u64, done: u64);
    fn step_finished(&self, id: u64, timing: &Timing);
    fn note(&self, text: &str);
    fn warning(&self, text: &str);
}

#[derive(Clone)]
pub struct Reporter {
    shared: Arc<Shared>,
    /// What steps and notes are about, where the same is done of several things side by side.
    about: Option<Arc<str>>,
}

struct Shared {
    sink: Box<dyn Sink>,
    next: AtomicU64,
    began: Instant,
    timings: std::sync::Mutex<Vec<Timing>>,
}

impl Reporter {
    pub fn new(sink: impl Sink + 'static) -> Self {
        let shared = Arc::new(Shared {
            sink: Box::new(sink),
            next: AtomicU64::new(0),
            began: Instant::now(),
            timings: std::sync::Mutex::default(),
        });
        Reporter { shared, about: None }
    }

    /// The same reporter for one of several things: its name stands before steps, notes and warnings that do not say it.
    #[must_use]
    pub fn about(&self, what: &str) -> Self {
        Reporter { shared: self.shared.clone(), about: Some(Arc::from(what)) }
    }

    fn said<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.about {
            Some(about) if !text.split([' ', ',', '`']).any(|word| word == &**about) => {
                Cow::Owned(format!("{about}: {text}"))
            }
            _ => Cow::Borrowed(text),
        }
    }

    /// Says nothing but warnings; for tests and `--progress quiet`.
    pub fn quiet() -> Self {
        Self::new(plain::Plain::quiet())
    }

    /// One line per event on standard error; for logs and pipes.
    pub fn plain() -> Self {
        Self::new(plain::Plain::default())
    }

    /// A live display with bars; for a terminal on standard error.
    pub fn terminal() -> Self {
        Self::new(terminal::Terminal::new())
    }

    /// One JSON object per line on standard error; for programs. The format is described in `json.rs`.
    pub fn json() -> Self {
        Self::new(json::Json::default())
    }

    /// Starts a step. It ends when the returned handle is dropped or [`Step::finish`]ed.
    pub fn step(&self, name: impl Into<String>) -> Step {
        self.start(name.into(), None, Unit::Items)
    }

    /// As [`Reporter::step`], with a known amount of work.
    pub fn step_of(&self, name: impl Into<String>, total: u64, unit: Unit) -> Step {
        self.start(name.into(), Some(total), unit)
    }

    pub fn note(&self, text: impl AsRef<str>) {
        self.shared.sink.note(&self.said(text.as_ref()));
    }

    pub fn warning(&self, text: impl AsRef<str>) {
        self.shared.sink.warning(&self.said(text.as_ref()));
    }

    /// All steps finished so far, in the order they finished.
    pub fn timings(&self) -> Vec<Timing> {
        self.shared.timings.lock().map(|timings| timings.clone()).unwrap_or_default()
    }

    /// A step of another process, which times itself.
    fn replay_start(&self, name: &str, total: Option<u64>, unit: Unit) -> u64 {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.sink.step_started(id, name, total, unit);
        id
    }

    fn replay_progress(&self, id: u64, done: u64) {
        self.shared.sink.step_progress(id, done);
    }

    fn replay_finish(&self, id: u64, timing: Timing) {
        self.shared.sink.step_finished(id, &timing);
        if let Ok(mut timings) = self.shared.timings.lock() {
            timings.push(timing);
        }
    }

    fn start(&self, name: String, total: Option<u64>, unit: Unit) -> Step {
        let name = self.said(&name).into_owned();
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.sink.step_started(id, &name, total, unit);
        Step {
            reporter: self.clone(),
            id,
            name,
            started: Instant::now(),
            cpu: usage::cpu_time(),
            done: AtomicU64::new(0),
            unit,
            bytes: AtomicU64::new(0),
            detail: std::sync::Mutex::default(),
        }
    }
}

/// A running step. Shareable between threads by reference.
pub struct Step {
    reporter: Reporter,
    id: u64,
    name: String,
    started: Instant,
    cpu: Duration,
    done: AtomicU64,
    unit: Unit,
    bytes: AtomicU64,
    detail: std::sync::Mutex<String>,
}

impl Step {
    /// This much more is done.
    pub fn advance(&self, amount: u64) {
        let done = self.done.fetch_add(amount, Ordering::Relaxed) + amount;
        self.reporter.shared.sink.step_progress(self.id, done);
    }

    /// This many more bytes were worked on; for the timeline only.
    pub fn bytes(&self, amount: u64) {
        self.bytes.fetch_add(amount, Ordering::Relaxed);
    }

    /// Ends the step with a few words on its result ("225 packages, 182 MB").
    pub fn finish(self, detail: impl Into<String>) {
        if let Ok(mut slot) = self.detail.lock() {
            *slot = detail.into();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let detail = self.detail.lock().map(|detail| detail.clone()).unwrap_or_default();
        let cpu = usage::cpu_time().saturating_sub(self.cpu);
        let (done, bytes) = (self.done.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let (items, counted) = match self.unit {
            Unit::Items => (done, 0),
            Unit::Bytes => (0, done),
        };
        let timing = Timing {
            name: self.name.clone(),
            start: self.started.saturating_duration_since(self.reporter.shared.began),
            wall: self.started.elapsed(),
            cpu,
            bytes: bytes + counted,
            items,
            peak_memory: usage::peak_memory().0,
            detail,
        };
        self.reporter.shared.sink.step_finished(self.id, &timing);
        if let Ok(mut timings) = self.reporter.shared.timings.lock() {
            timings.push(timing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_of_several_things_says_of_which() {
        let all = Reporter::quiet();
        all.step("fetch packages").finish("");
        let one = all.about("node");
        one.step("qcow2 image").finish("");
        one.step("seal node").finish("");
        one.about("node-2").step("seal node").finish("");
        let names: Vec<String> = all.timings().into_iter().map(|timing| timing.name).collect();
        assert_eq!(names, ["fetch packages", "node: qcow2 image", "seal node", "node-2: seal node"]);
    }
}
