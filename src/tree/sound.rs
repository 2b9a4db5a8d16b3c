//! Whether the contents of a loaded Tree are what their digests say, before anything is made of them.
//!
//! Owns: [`Sound`]. Writers of images read contents in stretches that no digest covers, so every content is compared
//! once a process when its Tree comes from the store; what this process has stored itself is known. All processors
//! take part, each pack is read from its start to its end.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::content::PackFile;
use super::{Content, Kind, Tree};
use crate::error::Result;
use crate::interrupt;

/// What one thread takes on at a time.
const BATCH: u64 = 8 << 20;
const BUFFER: usize = 1 << 20;

/// Contents known to be good: by pack, their place and size.
#[derive(Debug, Default)]
pub(super) struct Sound(Mutex<HashMap<PathBuf, HashMap<u64, Content>>>);

/// A pack that does not hold what it should.
#[derive(Debug)]
pub(super) struct Damaged {
    pub pack: PathBuf,
}

impl Sound {
    /// Compares what has not been compared yet; the first damaged pack, if there is one. `Err` is an interrupt.
    pub(super) fn check(&self, tree: &Tree) -> Result<Option<Damaged>> {
        let batches = batches(self.unknown(tree));
        let found = batches.par_iter().map(|batch| check_batch(batch)).collect::<Result<Vec<_>>>()?;
        if let Some(pack) = found.into_iter().flatten().next() {
            return Ok(Some(Damaged { pack: pack.path.clone() }));
        }
        batches.iter().flatten().for_each(|content| self.trust(content));
        Ok(None)
    }

    /// A content whose bytes were hashed on their way into the store.
    pub(super) fn trust(&self, content: &Content) {
        let Some((pack, offset)) = content.segment() else { return };
        let mut known = self.0.lock().expect("no thread panics while it holds this");
        match known.get_mut(&pack.path) {
            Some(places) => _ = places.insert(offset, content.clone()),
            None => _ = known.insert(pack.path.clone(), HashMap::from([(offset, content.clone())])),
        }
    }

    /// Sorted by pack and place.
    fn unknown(&self, tree: &Tree) -> Vec<Content> {
        let known = self.0.lock().expect("no thread panics while it holds this");
        let mut unknown: BTreeMap<&PathBuf, BTreeMap<u64, &Content>> = BTreeMap::new();
        for (_, entry) in tree.iter() {
            let Kind::File(content) = &entry.kind else { continue };
            let Some((pack, offset)) = content.segment() else { continue };
            if known.get(&pack.path).and_then(|places| places.get(&offset)) != Some(content) {
                unknown.entry(&pack.path).or_default().insert(offset, content);
            }
        }
        unknown.into_values().flat_map(BTreeMap::into_values).cloned().collect()
    }
}

fn batches(contents: Vec<Content>) -> Vec<Vec<Content>> {
    let mut batches: Vec<Vec<Content>> = Vec::new();
    let mut room = 0;
    for content in contents {
        if room == 0 {
            batches.push(Vec::new());
            room = BATCH;
        }
        room = room.saturating_sub(content.size().max(1));
        batches.last_mut().expect("one was made").push(content);
    }
    batches
}

/// The pack of the first content that is not as it should be. One that cannot be read is damaged, too.
fn check_batch(batch: &[Content]) -> Result<Option<&Arc<PackFile>>> {
    let mut buffer = vec![0; BUFFER];
    for content in batch {
        interrupt::check()?;
        let Some((pack, _)) = content.segment() else { continue };
        if !is_good(content, &mut buffer) {
            return Ok(Some(pack));
        }
    }
    Ok(None)
}

fn is_good(content: &Content, buffer: &mut [u8]) -> bool {
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < content.size() {
        let length = (content.size() - at).min(buffer.len() as u64) as usize;
        if content.read_at(&mut buffer[..length], at).is_err() {
            return false;
        }
        hash.update(&buffer[..length]);
        at += length as u64;
    }
    hash.finalize()[..] == content.digest().as_bytes()[..]
}
