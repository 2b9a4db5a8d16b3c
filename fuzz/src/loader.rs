//! Any bytes as a file of documents: reading ends, within bounds, and what was read is written as text that reads the
//! same again.

#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../src/document/mod.rs"]
mod document;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/interrupt.rs"]
mod interrupt;

use document::{Loader, Node, document as written};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for last_key_wins in [false, true] {
        let Ok(loaded) = Loader { last_key_wins }.text("fuzz", bytes) else { continue };
        for node in &loaded.documents {
            let text = written(node);
            // `.nan` is no number that equals itself.
            if text.contains(".nan") {
                continue;
            }
            // Line breaks to YAML 1.1, which kustomize writes; to YAML 1.2, which is read here, they are not.
            if text.contains(['\u{2028}', '\u{2029}']) {
                continue;
            }
            let again = Loader::default().text("written", text.as_bytes());
            let again = again.unwrap_or_else(|error| panic!("{error}\n{text}")).documents;
            let same = again.first().is_some_and(|first| written(&ordered(first)) == written(&ordered(node)));
            if !node.is_null() && !same {
                panic!("reads differently:\n{text}");
            }
        }
    }
});

/// With the keys of every mapping by their bytes: kustomize's order of keys that mix punctuation and digits depends on
/// the order they had.
fn ordered(node: &Node) -> Node {
    let mut node = node.clone();
    node.walk_mut(&mut |node| {
        if let Some(mapping) = node.as_mapping_mut() {
            mapping.entries.sort_by(|one, other| one.key.text.cmp(&other.key.text));
        }
    });
    node
}
