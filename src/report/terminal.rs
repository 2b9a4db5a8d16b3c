//! The terminal sink: a bar or a spinner per running step, a line with its time when it ends.
//!
//! Owns: what it looks like. Drawn on standard error by indicatif, which limits how often it redraws, so the sink is
//! cheap enough for inner loops.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::plain::finished;
use super::{Sink, Timing, Unit};

pub struct Terminal {
    display: MultiProgress,
    bars: Mutex<BTreeMap<u64, ProgressBar>>,
}

impl Terminal {
    pub fn new() -> Self {
        Terminal { display: MultiProgress::new(), bars: Mutex::default() }
    }

    /// A line above the bars.
    fn say(&self, text: &str) {
        let _ = self.display.println(text);
    }
}

/// A template that does not parse would be a mistake of ours; indicatif's own look is a fine fallback.
fn style(total: Option<u64>, unit: Unit) -> ProgressStyle {
    let template = match (total, unit) {
        (None, _) => "{spinner} {msg} {elapsed}",
        (Some(_), Unit::Items) => "{spinner} {msg:32!} {wide_bar} {pos}/{len} {elapsed}",
        (Some(_), Unit::Bytes) => {
            "{spinner} {msg:32!} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {elapsed}"
        }
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Sink for Terminal {
    fn step_started(&self, id: u64, name: &str, total: Option<u64>, unit: Unit) {
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let bar = self.display.add(bar.with_style(style(total, unit)).with_message(name.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(120));
        if let Ok(mut bars) = self.bars.lock() {
            bars.insert(id, bar);
        }
    }

    fn step_progress(&self, id: u64, done: u64) {
        let Ok(bars) = self.bars.lock() else { return };
        if let Some(bar) = bars.get(&id) {
            bar.set_position(done);
        }
    }

    fn step_finished(&self, id: u64, timing: &Timing) {
        let bar = self.bars.lock().ok().and_then(|mut bars| bars.remove(&id));
        if let Some(bar) = bar {
            bar.finish_and_clear();
            self.display.remove(&bar);
        }
        let tick = anstyle::AnsiColor::Green.on_default();
        self.say(&format!("{tick}\u{2713}{tick:#} {}", finished(timing)));
    }

    fn note(&self, text: &str) {
        self.say(text);
    }

    fn warning(&self, text: &str) {
        let yellow = anstyle::AnsiColor::Yellow.on_default().bold();
        self.say(&format!("{yellow}warning:{yellow:#} {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_parses() {
        for (total, unit) in [(None, Unit::Items), (Some(1), Unit::Items), (Some(1), Unit::Bytes)] {
            style(total, unit);
        }
        assert!(ProgressStyle::with_template("{decimal_bytes_per_sec}").is_ok());
    }
}
