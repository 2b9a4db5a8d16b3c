//! Checksums that go on where the ones of an earlier image were the same.
//!
//! Owns: [`Steady`], the part of a file that only depends on the header and a row of clusters, [`Mark`]s in it, and the
//! digest states that are kept for them. A mark is known by the header and the keys of all clusters that lie before it,
//! which say what every byte there is; so a state that is found under it is that of this file. Nothing is compared with
//! the bytes themselves: those are compared with their own checksums when they are written.

use sha2::{Digest as _, Sha256};

use super::format::Header;
use crate::error::Result;
use crate::format::disk::sums::{Digests, State};
use crate::tree::Digest;
use crate::tree::clusters::{Clusters, Made};

/// States are kept for every so many bytes.
const SPACING: u64 = 4 << 20;

/// A place in a file and what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub position: u64,
    key: Digest,
}

#[derive(Default)]
pub struct Steady {
    /// The key of each cluster in the order of the file, and how much of the file is settled with it.
    clusters: Vec<(Digest, u64)>,
    /// Ascending.
    marks: Vec<Mark>,
}

impl Steady {
    /// The next cluster; `settled` bytes of the file depend on no later one.
    pub fn add(&mut self, key: Digest, settled: u64) {
        self.clusters.push((key, settled));
    }

    /// No more clusters come; the part has `end` bytes. Unless it is `whole`, some clusters at its end are not known.
    pub fn end(&mut self, (end, header): (u64, &Header), whole: bool) {
        let mut chain = link(&Digest::of(b"qcow2 sums 1"), &header.encode());
        let mut next = SPACING;
        for (key, settled) in &self.clusters {
            chain = link(&chain, key.as_bytes());
            while next <= *settled {
                self.marks.push(Mark { position: next, key: link(&chain, &next.to_le_bytes()) });
                next += SPACING;
            }
        }
        if whole && !self.clusters.is_empty() && self.marks.last().is_none_or(|last| last.position < end) {
            self.marks.push(Mark { position: end, key: link(&chain, &end.to_le_bytes()) });
        }
    }

    /// The last state that is kept; the beginning where there is none. Only both digests together are kept.
    pub fn known(&self, clusters: &Clusters, digests: Digests) -> State {
        if digests != Digests::BOTH {
            return State::start(digests);
        }
        let state = |mark: &Mark| {
            let state = State::decode(&clusters.piece(&mark.key)?)?;
            Some(state).filter(|state| state.length() == mark.position)
        };
        self.marks.iter().rev().find_map(state).unwrap_or_else(|| State::start(digests))
    }

    /// The marks behind a position.
    pub fn behind(&self, position: u64) -> impl Iterator<Item = &Mark> {
        self.marks.iter().filter(move |mark| mark.position > position)
    }
}

/// Keeps states that were met on the way.
pub fn keep(steady: &Steady, states: &[State], clusters: &Clusters) -> Result<()> {
    if states.is_empty() {
        return Ok(());
    }
    let new = clusters.begin()?;
    for state in states {
        let mark = steady.marks.iter().find(|mark| mark.position == state.length());
        if let (Some(mark), Some(bytes)) = (mark, state.encode()) {
            new.append(mark.key, Made::Packed(&bytes))?;
        }
    }
    new.finish()
}

fn link(chain: &Digest, next: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(chain.as_bytes());
    hash.update(next);
    Digest::from_bytes(hash.finalize().into())
}
