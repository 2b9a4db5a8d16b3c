//! The blocks that are not metadata of the groups, as one row from front to back; pure.

use std::ops::Range;

use super::geometry::Geometry;

/// A run of blocks; at most as long as one extent can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub start: u64,
    pub length: u64,
}

/// "An initialized extent covers at most 32768 blocks".
pub const LONGEST_RUN: u64 = 32768;

/// Blocks for content, numbered without the gaps; remembers which are taken.
pub struct Space {
    /// Stretches without metadata, ascending, each with the number of blocks in those before it.
    stretches: Vec<(u64, Range<u64>)>,
    pub total: u64,
    used: Vec<Range<u64>>,
}

impl Space {
    pub fn new(geometry: &Geometry) -> Space {
        let mut stretches: Vec<(u64, Range<u64>)> = Vec::new();
        let mut total = 0;
        for group in 0..geometry.groups {
            let start = geometry.metadata(group).end;
            let end = geometry.group_start(group) + geometry.group_blocks(group);
            match stretches.last_mut() {
                Some((_, last)) if last.end == start => last.end = end,
                _ if start < end => stretches.push((total, start..end)),
                _ => {}
            }
            total += end.saturating_sub(start);
        }
        Space { stretches, total, used: Vec::new() }
    }

    /// Takes `count` blocks from number `at` of the row on. The caller has looked that there are so many.
    pub fn take(&mut self, at: u64, count: u64) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut index = self.stretches.partition_point(|(before, _)| *before <= at).saturating_sub(1);
        let (mut at, mut left) = (at, count);
        while left > 0 {
            let Some((before, range)) = self.stretches.get(index) else { break };
            let start = range.start + (at - before);
            let length = left.min(LONGEST_RUN).min(range.end - start);
            if start == range.end {
                index += 1;
                continue;
            }
            self.used.push(start..start + length);
            runs.push(Run { start, length });
            at += length;
            left -= length;
        }
        runs
    }

    /// How many times at most a row of `count` blocks is cut, at gaps and because a run may not be longer.
    pub fn most_cuts(&self, count: u64) -> u64 {
        let inner = self.stretches.iter().skip(1).rev().skip(1).map(|(_, range)| range.end - range.start);
        // The first and the last stretch may be short.
        count / LONGEST_RUN + inner.min().map_or(0, |shortest| count / shortest) + 2
    }

    /// Everything that was handed out, ascending and joined.
    pub fn used(mut self) -> Vec<Range<u64>> {
        self.used.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in self.used {
            match joined.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => joined.push(range),
            }
        }
        joined
    }
}
