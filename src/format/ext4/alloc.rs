//! Hands out data blocks from the front to the back, around the metadata of the groups; pure.

use std::ops::Range;

use super::geometry::Geometry;

/// A run of blocks; at most as long as one extent can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub start: u64,
    pub length: u64,
}

/// "An initialized extent covers at most 32768 blocks".
const LONGEST_RUN: u64 = 32768;

pub struct Allocator {
    /// Stretches without metadata, ascending.
    free: Vec<Range<u64>>,
    /// The stretch that is being used up.
    current: usize,
    /// All that was asked for, also what could not be given.
    pub asked: u64,
    /// What the file system had at the start.
    pub total: u64,
}

impl Allocator {
    pub fn new(geometry: &Geometry) -> Allocator {
        let mut free: Vec<Range<u64>> = Vec::new();
        for group in 0..geometry.groups {
            let start = geometry.metadata(group).end;
            let end = geometry.group_start(group) + geometry.group_blocks(group);
            match free.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ if start < end => free.push(start..end),
                _ => {}
            }
        }
        let total = free.iter().map(|range| range.end - range.start).sum();
        Allocator { free, current: 0, asked: 0, total }
    }

    /// The next `count` blocks. When they run out the answer is short; [`Allocator::asked`] tells afterwards.
    pub fn take(&mut self, count: u64) -> Vec<Run> {
        self.asked += count;
        let mut left = count;
        let mut runs = Vec::new();
        while left > 0 {
            let Some(range) = self.free.get_mut(self.current) else { break };
            let length = left.min(LONGEST_RUN).min(range.end - range.start);
            if length == 0 {
                self.current += 1;
                continue;
            }
            runs.push(Run { start: range.start, length });
            range.start += length;
            left -= length;
        }
        runs
    }

    /// One block; 0 when there is none left.
    pub fn take_one(&mut self) -> u64 {
        self.take(1).first().map_or(0, |run| run.start)
    }

    /// Everything that was not handed out.
    pub fn rest(&self) -> &[Range<u64>] {
        &self.free[self.current.min(self.free.len())..]
    }
}
