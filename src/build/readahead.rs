//! Asking the disk for what will be read.
//!
//! Owns: [`begin`]. Where a root file system comes from the cache, most of an image is copied out of pack files that may
//! not have been read since the machine was started. The disk has nothing to do while settings are applied and the file
//! system is laid out; what it brings meanwhile needs no waiting for later. Nothing depends on it.

use std::sync::Arc;

use super::pack::Format;
use crate::plan::Output;
use crate::sandbox::workarea::available_memory;
use crate::tree::{Kind, PackFile, Tree};

/// Begins to read what `tree` is made of, if all of it goes into one of the outputs.
pub fn begin(tree: &Tree, outputs: &[Output]) {
    let copies = |output| Format::of(output).is_ok_and(Format::reads_all);
    if !outputs.iter().any(copies) {
        return;
    }
    let packs = packs(tree);
    // The kernel takes this memory back when somebody else wants it, but not before other things it has read.
    let most = available_memory() / 4;
    let ask = move || _ = packs.iter().fold(most, |rest, pack| rest.saturating_sub(pack.read_ahead(rest)));
    // Nobody waits for it: it ends by itself when the disk has answered, or with the program.
    _ = std::thread::Builder::new().name("readahead".into()).spawn(ask);
}

/// In the order in which the tree wants them.
fn packs(tree: &Tree) -> Vec<Arc<PackFile>> {
    let mut packs: Vec<Arc<PackFile>> = Vec::new();
    for (_, entry) in tree.iter() {
        let Kind::File(content) = &entry.kind else { continue };
        let Some((pack, _)) = content.segment() else { continue };
        if !packs.iter().any(|known| Arc::ptr_eq(known, pack)) {
            packs.push(pack.clone());
        }
    }
    packs
}
