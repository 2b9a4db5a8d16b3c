//! What a builder elsewhere reports (the lines of `--progress json`, see [`super::json`]), said again here.
//!
//! Owns: [`Replay`], which reads such a builder's standard error. Its steps, notes and warnings become the caller's, so
//! that a build in a container looks like any other; its lines are hostile input.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{Reporter, Timing, Unit};
use crate::error::{Error, Kind};

/// Steps that run at once, and lines kept for who asks why it failed.
const MOST_STEPS: usize = 1000;
const KEPT_LINES: usize = 40;
const LONGEST_LINE: usize = 64 * 1024;

pub struct Replay {
    reporter: Reporter,
    /// Bytes of a line that has not ended.
    partial: Vec<u8>,
    /// Numbers of steps over there, and here.
    steps: BTreeMap<u64, u64>,
    /// The last lines that were no events.
    lines: std::collections::VecDeque<String>,
    failures: Vec<Error>,
}

impl Replay {
    pub fn new(reporter: &Reporter) -> Self {
        Replay {
            reporter: reporter.clone(),
            partial: Vec::new(),
            steps: BTreeMap::new(),
            lines: std::collections::VecDeque::new(),
            failures: Vec::new(),
        }
    }

    /// Takes in a piece of standard error, which may end anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LONGEST_LINE.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                self.line(&String::from_utf8_lossy(&line));
            }
        }
    }

    /// What went wrong over there, as it said itself; what ended it comes last.
    pub fn failures(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.failures)
    }

    /// The last lines that were no events, for who asks why it failed.
    pub fn tail(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        let event: Option<Value> = line.starts_with('{').then(|| serde_json::from_str(line).ok()).flatten();
        match event.as_ref().and_then(|event| Some((event.get("event")?.as_str()?, event))) {
            Some((name, event)) => self.event(name, event),
            None => {
                tracing::debug!("builder: {line}");
                if self.lines.len() == KEPT_LINES {
                    self.lines.pop_front();
                }
                self.lines.push_back(line.to_owned());
            }
        }
    }

    fn event(&mut self, name: &str, event: &Value) {
        let text = |key: &str| text(event, key);
        let number = |key: &str| event.get(key).and_then(Value::as_u64);
        match name {
            "step-started" => {
                let unit = if text("unit") == "bytes" { Unit::Bytes } else { Unit::Items };
                if let Some(id) = number("id").filter(|_| self.steps.len() < MOST_STEPS) {
                    self.steps.insert(id, self.reporter.replay_start(&text("name"), number("total"), unit));
                }
            }
            "step-progress" => {
                if let (Some(id), Some(done)) = (number("id").and_then(|id| self.steps.get(&id)), number("done")) {
                    self.reporter.replay_progress(*id, done);
                }
            }
            "step-finished" => {
                if let Some(id) = number("id").and_then(|id| self.steps.remove(&id)) {
                    self.reporter.replay_finish(id, timing(event));
                }
            }
            "note" => self.reporter.note(text("text")),
            "warning" => self.reporter.warning(text("text")),
            "failed" if self.failures.len() < MOST_STEPS => self.failures.push(error(event)),
            // Of a newer builder.
            _ => {}
        }
    }
}

/// A field, without what would steer a terminal.
fn text(event: &Value, key: &str) -> String {
    let text = event.get(key).and_then(Value::as_str).unwrap_or_default();
    text.chars().filter(|letter| !letter.is_control()).collect()
}

fn timing(event: &Value) -> Timing {
    let text = |key: &str| text(event, key);
    let number = |key: &str| event.get(key).and_then(Value::as_u64).unwrap_or(0);
    let seconds = |key: &str| {
        let seconds = event.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    };
    Timing {
        name: text("name"),
        start: seconds("startSeconds"),
        wall: seconds("wallSeconds"),
        cpu: seconds("cpuSeconds"),
        bytes: number("bytes"),
        items: number("items"),
        peak_memory: number("peakMemory"),
        detail: text("detail"),
    }
}

fn error(event: &Value) -> Error {
    let code = event.get("exitCode").and_then(Value::as_i64).unwrap_or(1);
    let message = event.get("message").and_then(Value::as_str).unwrap_or("the builder did not say why");
    let mut error = Error::new(Kind::of_exit_code(code), message);
    for hint in event.get("hints").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        error = error.hint(hint);
    }
    match event.get("snippet").and_then(Value::as_str) {
        Some(snippet) => error.snippet(snippet),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::Sink;
    use super::*;

    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<String>>>);

    impl Recorder {
        fn say(&self, text: String) {
            self.0.lock().unwrap().push(text);
        }
    }

    impl Sink for Recorder {
        fn step_started(&self, id: u64, name: &str, total: Option<u64>, _: Unit) {
            self.say(format!("start {id} {name} {total:?}"));
        }
        fn step_progress(&self, id: u64, done: u64) {
            self.say(format!("progress {id} {done}"));
        }
        fn step_finished(&self, id: u64, timing: &Timing) {
            self.say(format!("finish {id} {} {}", timing.name, timing.detail));
        }
        fn note(&self, text: &str) {
            self.say(format!("note {text}"));
        }
        fn warning(&self, text: &str) {
            self.say(format!("warning {text}"));
        }
    }

    #[test]
    fn steps_of_another_builder_become_ours() {
        let recorder = Recorder::default();
        let reporter = Reporter::new(recorder.clone());
        let own = reporter.step("own");
        let mut replay = Replay::new(&reporter);
        let text = "{\"event\":\"step-started\",\"id\":0,\"name\":\"fetch\",\"total\":9,\"unit\":\"bytes\"}\n\
                    {\"event\":\"step-progress\",\"id\":0,\"done\":4}\n\
                    {\"event\":\"step-progress\",\"id\":7,\"done\":4}\n\
                    {\"event\":\"step-finished\",\"id\":0,\"name\":\"fetch\",\"wallSeconds\":1e300,\"detail\":\"x\"}\n\
                    {\"event\":\"news\"}\n{broken\n\n{\"event\":\"note\",\"text\":\"\\u001bn\"}\n";
        // However it is cut.
        for piece in text.as_bytes().chunks(7) {
            replay.feed(piece);
        }
        drop(own);
        let said = recorder.0.lock().unwrap().clone();
        let wanted = [
            "start 0 own None",
            "start 1 fetch Some(9)",
            "progress 1 4",
            "finish 1 fetch x",
            "note n",
            "finish 0 own ",
        ];
        assert_eq!(said, wanted);
        assert_eq!(replay.tail(), "{broken\n");
        assert_eq!(reporter.timings().len(), 2);
    }

    #[test]
    fn a_failure_keeps_its_kind_and_its_hints() {
        let failed = Error::new(Kind::Space, "no space left").hint("free some").snippet(" --> a.yaml:1:1");
        let line = super::super::json::failed_line(&failed.add_context("writing x"));
        let mut replay = Replay::new(&Reporter::quiet());
        replay.feed(line.as_bytes());
        assert!(replay.failures().is_empty());
        replay.feed(b"\n");
        let error = replay.failures().pop().unwrap();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Space, "writing x: no space left"));
        assert_eq!((error.hints(), error.rendered_snippet()), (&["free some".to_owned()][..], Some(" --> a.yaml:1:1")));
    }

    #[test]
    fn endless_lines_do_not_fill_the_memory() {
        let mut replay = Replay::new(&Reporter::quiet());
        for _ in 0..100 {
            replay.feed(&[b'x'; 10_000]);
        }
        assert!(replay.partial.len() <= LONGEST_LINE);
        replay.feed(b"\n");
        assert_eq!(replay.tail().len(), LONGEST_LINE + 1);
    }
}
