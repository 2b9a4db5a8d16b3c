//! The JSON sink: one object per line on standard error, for programs that watch a build.
//!
//! Owns: the format. Every object has `version` (1, raised when a field changes its meaning or goes) and `event`:
//! `step-started` {id, name, total?, unit}, `step-progress` {id, done}, `step-finished` {id, name, startSeconds,
//! wallSeconds, cpuSeconds, detail}, `note` {text}, `warning` {text}. Readers ignore fields and events they do not know.

use std::io::Write;

use serde_json::{Value, json};

use super::throttle::Throttle;
use super::{Sink, Timing, Unit};

const VERSION: u64 = 1;

#[derive(Default)]
pub struct Json {
    throttle: Throttle,
}

impl Json {
    fn emit(&self, event: &str, fields: Value) {
        let mut object = json!({ "version": VERSION, "event": event });
        if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
            object.extend(fields);
        }
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(std::io::stderr().lock(), "{object}");
    }
}

impl Sink for Json {
    fn step_started(&self, id: u64, name: &str, total: Option<u64>, unit: Unit) {
        let unit = match unit {
            Unit::Items => "items",
            Unit::Bytes => "bytes",
        };
        self.throttle.start(id);
        self.emit("step-started", json!({ "id": id, "name": name, "total": total, "unit": unit }));
    }

    fn step_progress(&self, id: u64, done: u64) {
        if self.throttle.due(id, std::time::Duration::from_secs(1)) {
            self.emit("step-progress", json!({ "id": id, "done": done }));
        }
    }

    fn step_finished(&self, id: u64, timing: &Timing) {
        self.throttle.end(id);
        let fields = json!({
            "id": id,
            "name": timing.name,
            "startSeconds": timing.start.as_secs_f64(),
            "wallSeconds": timing.wall.as_secs_f64(),
            "cpuSeconds": timing.cpu.as_secs_f64(),
            "detail": timing.detail,
        });
        self.emit("step-finished", fields);
    }

    fn note(&self, text: &str) {
        self.emit("note", json!({ "text": text }));
    }

    fn warning(&self, text: &str) {
        self.emit("warning", json!({ "text": text }));
    }
}
