//! The plain sink: one line per event on standard error, for logs and pipes.

use super::{Sink, Timing, Unit};

#[derive(Default)]
pub struct Plain {
    quiet: bool,
}

impl Plain {
    pub fn quiet() -> Self {
        Plain { quiet: true }
    }
}

impl Sink for Plain {
    fn step_started(&self, _id: u64, name: &str, _total: Option<u64>, _unit: Unit) {
        if !self.quiet {
            anstream::eprintln!("{name} ...");
        }
    }

    fn step_progress(&self, _id: u64, _done: u64) {}

    fn step_finished(&self, _id: u64, timing: &Timing) {
        if !self.quiet {
            let detail = if timing.detail.is_empty() { String::new() } else { format!(": {}", timing.detail) };
            anstream::eprintln!("{} done in {:.1} s{detail}", timing.name, timing.wall.as_secs_f64());
        }
    }

    fn note(&self, text: &str) {
        if !self.quiet {
            anstream::eprintln!("{text}");
        }
    }

    fn warning(&self, text: &str) {
        anstream::eprintln!("warning: {text}");
    }
}
