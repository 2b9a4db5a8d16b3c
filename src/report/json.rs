//! The JSON sink: one object per line on standard error, for programs that watch a build.
//!
//! Owns: the format. Every object has `version` (1, raised when a field changes its meaning or goes) and `event`:
//! `step-started` {id, name, total?, unit}, `step-progress` {id, done}, `step-finished` {id, name, startSeconds,
//! wallSeconds, cpuSeconds, detail, bytes, items, peakMemory}, `note` {text}, `warning` {text}, and, at the end of what did
//! not succeed, `failed` {exitCode, message, hints, snippet?}, before the same in words. Readers ignore fields and events
//! they do not know; [`super::replay`] is one.

use std::io::Write;

use serde_json::{Value, json};

use super::throttle::Throttle;
use super::{Sink, Timing, Unit};
use crate::error::Error;

const VERSION: u64 = 1;

#[derive(Default)]
pub struct Json {
    throttle: Throttle,
}

fn emit(event: &str, fields: &Value) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr().lock(), "{}", object(event, fields));
}

fn object(event: &str, fields: &Value) -> Value {
    let mut object = json!({ "version": VERSION, "event": event });
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields.clone());
    }
    object
}

/// The end of what did not succeed.
pub fn failed(error: &Error) {
    emit("failed", &failure(error));
}

fn failure(error: &Error) -> Value {
    json!({
        "exitCode": error.kind().exit_code(),
        "message": error.to_string(),
        "hints": error.hints(),
        "snippet": error.rendered_snippet(),
    })
}

impl Sink for Json {
    fn step_started(&self, id: u64, name: &str, total: Option<u64>, unit: Unit) {
        let unit = match unit {
            Unit::Items => "items",
            Unit::Bytes => "bytes",
        };
        self.throttle.start(id);
        emit("step-started", &json!({ "id": id, "name": name, "total": total, "unit": unit }));
    }

    fn step_progress(&self, id: u64, done: u64) {
        if self.throttle.due(id, std::time::Duration::from_secs(1)) {
            emit("step-progress", &json!({ "id": id, "done": done }));
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
            "bytes": timing.bytes,
            "items": timing.items,
            "peakMemory": timing.peak_memory,
        });
        emit("step-finished", &fields);
    }

    fn note(&self, text: &str) {
        emit("note", &json!({ "text": text }));
    }

    fn warning(&self, text: &str) {
        emit("warning", &json!({ "text": text }));
    }
}

/// The text of a `failed` event, for the tests of who reads it.
#[cfg(test)]
pub(super) fn failed_line(error: &Error) -> String {
    object("failed", &failure(error)).to_string()
}
