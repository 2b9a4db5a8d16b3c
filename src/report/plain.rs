//! The plain sink: one line per event on standard error, for logs and pipes.
//!
//! Owns: the wording. A step says when it starts, how far it is every ten seconds, and when it ends with its time.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use super::throttle::Throttle;
use super::{Sink, Timing, Unit, words};

const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Plain {
    quiet: bool,
    throttle: Throttle,
    running: Mutex<BTreeMap<u64, Running>>,
}

struct Running {
    name: String,
    total: Option<u64>,
    unit: Unit,
}

impl Plain {
    pub fn quiet() -> Self {
        Plain { quiet: true, ..Plain::default() }
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            line(text);
        }
    }
}

impl Sink for Plain {
    fn step_started(&self, id: u64, name: &str, total: Option<u64>, unit: Unit) {
        self.say(&format!("{name} ..."));
        self.throttle.start(id);
        if let Ok(mut running) = self.running.lock() {
            running.insert(id, Running { name: name.to_owned(), total, unit });
        }
    }

    fn step_progress(&self, id: u64, done: u64) {
        if self.quiet || !self.throttle.due(id, INTERVAL) {
            return;
        }
        let Ok(running) = self.running.lock() else { return };
        let Some(Running { name, total, unit }) = running.get(&id) else { return };
        self.say(&format!("{name}: {}", progress(done, *total, *unit)));
    }

    fn step_finished(&self, id: u64, timing: &Timing) {
        self.throttle.end(id);
        if let Ok(mut running) = self.running.lock() {
            running.remove(&id);
        }
        self.say(&finished(timing));
    }

    fn note(&self, text: &str) {
        self.say(text);
    }

    fn warning(&self, text: &str) {
        line(&format!("warning: {text}"));
    }
}

/// `name: 3.2 s (detail)`.
pub fn finished(timing: &Timing) -> String {
    let detail = if timing.detail.is_empty() { String::new() } else { format!(" ({})", timing.detail) };
    format!("{}: {}{detail}", timing.name, words::duration(timing.wall))
}

/// `40 of 225` or `12.3 MB of 182 MB`.
fn progress(done: u64, total: Option<u64>, unit: Unit) -> String {
    let amount = |count| match unit {
        Unit::Items => format!("{count}"),
        Unit::Bytes => words::bytes(count),
    };
    match total {
        Some(total) => format!("{} of {}", amount(done), amount(total)),
        None => amount(done),
    }
}

/// A line on standard error; whether anybody reads it is not our business.
fn line(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wording() {
        let timing = Timing {
            name: "fetching packages".into(),
            wall: Duration::from_millis(3210),
            detail: "225 packages".into(),
            ..Timing::default()
        };
        assert_eq!(finished(&timing), "fetching packages: 3.2 s (225 packages)");
        assert_eq!(progress(12_300_000, Some(182_000_000), Unit::Bytes), "12.3 MB of 182 MB");
        assert_eq!(progress(40, None, Unit::Items), "40");
    }
}
