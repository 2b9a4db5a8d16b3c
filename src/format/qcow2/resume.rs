//! Checksums that go on where the ones of an earlier image were the same.
//!
//! Owns: [`Marks`], places in a file for which digest states are kept. A mark is known by all segments that lie before it:
//! their places and the keys of what they hold, which say what every byte there is; so a state that is found under it is
//! that of this file. Nothing is compared with the bytes themselves: those are compared with their own checksums when they
//! are written.

use sha2::{Digest as _, Sha256};

use super::kept::Segment;
use crate::error::Result;
use crate::format::disk::sums::{Digests, State};
use crate::tree::Digest;
use crate::tree::clusters::{Clusters, Made};

/// States are kept for every so many bytes.
const SPACING: u64 = 4 << 20;

/// A place in a file and what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    position: u64,
    key: Digest,
}

/// Ascending.
pub struct Marks(Vec<Mark>);

impl Marks {
    /// `segments` are ascending and all that lies before the end of the last; between them are zeros.
    pub fn of(segments: &[Segment]) -> Marks {
        let mut marks = Vec::new();
        let mut chain = Digest::of(b"qcow2 sums 2");
        let mut next = SPACING;
        for segment in segments {
            let mut hash = Sha256::new();
            hash.update(chain.as_bytes());
            hash.update(segment.key.as_bytes());
            hash.update(segment.offset.to_le_bytes());
            hash.update(segment.length.to_le_bytes());
            chain = Digest::from_bytes(hash.finalize().into());
            while next <= segment.end() {
                let key = Sha256::new().chain_update(chain.as_bytes()).chain_update(next.to_le_bytes());
                marks.push(Mark { position: next, key: Digest::from_bytes(key.finalize().into()) });
                next += SPACING;
            }
        }
        Marks(marks)
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
        self.0.iter().rev().find_map(state).unwrap_or_else(|| State::start(digests))
    }

    /// The places behind a position.
    pub fn behind(&self, position: u64) -> Vec<u64> {
        self.0.iter().map(|mark| mark.position).filter(|mark| *mark > position).collect()
    }

    /// Keeps states that were met on the way.
    pub fn keep(&self, states: &[State], clusters: &Clusters) -> Result<()> {
        if states.is_empty() {
            return Ok(());
        }
        let new = clusters.begin()?;
        for state in states {
            let mark = self.0.iter().find(|mark| mark.position == state.length());
            if let (Some(mark), Some(bytes)) = (mark, state.encode()) {
                new.append(mark.key, Made::Packed(&bytes))?;
            }
        }
        new.finish()
    }
}
