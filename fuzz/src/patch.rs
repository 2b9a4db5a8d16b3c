//! Any bytes as an object and a patch of it, parted by a line `===`: patching ends without a panic, and what is left can
//! be written.

#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../src/document/mod.rs"]
mod document;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/interrupt.rs"]
mod interrupt;
#[path = "../../src/kustomize/mod.rs"]
mod kustomize;
#[path = "../../src/report/mod.rs"]
mod report;

use document::{load_str, to_yaml};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((object, patch)) = text.split_once("===\n") else { return };
    let Ok(objects) = load_str("object", object) else { return };
    let Some(object) = objects.first() else { return };
    if let Ok(Some(patched)) = kustomize::patched(object, patch) {
        to_yaml(&[patched]);
    }
});
