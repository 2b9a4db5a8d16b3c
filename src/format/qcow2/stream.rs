//! The second pass of a qcow2 file whose plan is complete: everything to its place, on all cores.
//!
//! Owns: [`write`]. What has to be hashed comes in the order of the file, and what only has to be written evenly between,
//! so that hashing goes on all the time. Bytes of files are not compared with their digests again: every cluster has a
//! checksum of its own.

use std::cell::Cell;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::format::CLUSTER;
use super::kept::{Segment, Source, Worker};
use super::write::Options;
use crate::error::{Context, Error, Result};
use crate::format::disk::DiskImage;
use crate::format::disk::parallel::{Jobs, in_order};
use crate::format::disk::sums::{Hashed, Spare, State, while_writing};
use crate::tree::begin_to_flush;
use crate::tree::clusters::{Clusters, Fate};
use crate::tree::quick::Check;

/// The file is written in pieces of at least this size.
const PIECE: u64 = 1 << 20;

pub struct Target<'a> {
    pub disk: &'a DiskImage,
    /// Without it, what there is to hash is hashed and nothing written.
    pub file: Option<&'a File>,
    pub options: &'a Options,
    pub clusters: &'a Clusters,
    /// When it is set the rest is left out.
    pub stop: Option<&'a AtomicBool>,
}

/// Stretches of segments, each of [`PIECE`] bytes or a little more.
struct Stretch {
    segments: Range<usize>,
    offset: u64,
    end: u64,
    progress: u64,
}

fn stretches(segments: &[Segment]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        match stretches.last_mut() {
            Some(last) if segment.offset - last.offset < PIECE => {
                last.segments.end = index + 1;
                last.end = segment.end();
                last.progress += segment.progress;
            }
            last => {
                // Gaps belong to what is before them.
                last.into_iter().for_each(|last| last.end = segment.offset);
                let (segments, offset, end) = (index..index + 1, segment.offset, segment.end());
                stretches.push(Stretch { segments, offset, end, progress: segment.progress });
            }
        }
    }
    stretches
}

/// Writes all segments and hashes the file from the end of `start` on; `marks` are places whose states are wanted.
pub fn write(
    target: &Target<'_>,
    segments: &[Segment],
    start: State,
    marks: &[u64],
    progress: &dyn Fn(u64),
) -> Result<Hashed> {
    let stretches = stretches(segments);
    let hashed_from = stretches.partition_point(|stretch| stretch.end <= start.length());
    tracing::debug!("hashing from byte {} of {}", start.length(), stretches.last().map_or(0, |last| last.end));
    let only_written = if target.file.is_some() { hashed_from } else { 0 };
    let order = spread(hashed_from..stretches.len(), 0..only_written);
    let spare = Spare::default();
    let writing = Mutex::new(());
    let fill = |worker: &mut Worker, turn: u64| {
        let number = order[turn as usize];
        let stretch = &stretches[number];
        if target.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Ok(None);
        }
        let mut bytes = spare.take((stretch.end - stretch.offset) as usize);
        target.fill(worker, &segments[stretch.segments.clone()], stretch.offset, &mut bytes)?;
        if let Some(file) = target.file {
            // A file has one writer at a time; the kernel lets the others turn round and round meanwhile.
            let turn = writing.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all_at(&bytes, stretch.offset).context("writing the qcow2 image")?;
            drop(turn);
            begin_to_flush(file, stretch.offset, bytes.len() as u64);
        }
        if number < hashed_from {
            spare.give(bytes);
            return Ok(None);
        }
        Ok(Some(bytes))
    };
    let turn = Cell::new(0);
    let done = |count: usize| {
        let done = &order[turn.get()..turn.get() + count];
        progress(done.iter().map(|number| stretches[*number].progress).sum());
        turn.set(turn.get() + count);
    };
    while_writing(start, marks, &spare, |pieces| {
        let mut next = hashed_from;
        let mut hash = |turn: u64, mut bytes: Vec<u8>| {
            let number = order[turn as usize];
            // One was left out.
            if number != next {
                return Ok(());
            }
            next += 1;
            let known = start.length().saturating_sub(stretches[number].offset);
            bytes.drain(..known as usize);
            pieces.next(bytes)
        };
        let jobs = Jobs { items: 0..order.len() as u64, batch: 1, threads: target.options.threads };
        in_order(jobs, &|| Worker::new(target.options), &fill, &mut hash, &done)
    })
}

/// All of both, each in its own order, spread evenly: one thread hashes, and must neither wait nor be waited for.
fn spread(one: Range<usize>, two: Range<usize>) -> Vec<usize> {
    let (first, second) = (one.len(), two.len());
    let (mut one, mut two) = (one.peekable(), two.peekable());
    let mut order = Vec::with_capacity(first + second);
    let mut taken = (0, 0);
    while one.peek().is_some() || two.peek().is_some() {
        if two.peek().is_none() || one.peek().is_some() && taken.0 * second <= taken.1 * first {
            order.extend(one.next());
            taken.0 += 1;
        } else {
            order.extend(two.next());
            taken.1 += 1;
        }
    }
    order
}

impl Target<'_> {
    /// Segments from `offset` of the file on; what is between them becomes zeros.
    fn fill(&self, worker: &mut Worker, mut segments: &[Segment], offset: u64, bytes: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while let Some(first) = segments.first() {
            let run = run(segments);
            let (now, rest) = segments.split_at(run);
            let place = (first.offset - offset) as usize..(now[run - 1].end() - offset) as usize;
            bytes[done..place.start].fill(0);
            done = place.end;
            match &first.source {
                Source::Cluster(_, Fate::Plain(_)) => self.plain(now, &mut bytes[place])?,
                _ => self.segment(worker, first, &mut bytes[place])?,
            }
            segments = rest;
        }
        bytes[done..].fill(0);
        Ok(())
    }

    fn segment(&self, worker: &mut Worker, segment: &Segment, target: &mut [u8]) -> Result<()> {
        match &segment.source {
            Source::Bytes(bytes) => target.copy_from_slice(bytes),
            Source::Cluster(index, Fate::Packed(kept)) => {
                if self.clusters.read(*kept, target) {
                    return Ok(());
                }
                self.disk.read_at(&mut worker.cluster, index * CLUSTER)?;
                match worker.compressor.compress(&worker.cluster) {
                    Some(bytes) if bytes.len() == target.len() => target.copy_from_slice(bytes),
                    // Its length was taken from a line that had a digest of its own.
                    _ => return Err(not_as_kept(*index)),
                }
            }
            Source::Cluster(index, _) => self.disk.read_at(target, index * CLUSTER)?,
        }
        Ok(())
    }

    /// Plain clusters that lie side by side on the disk and in the file.
    fn plain(&self, segments: &[Segment], target: &mut [u8]) -> Result<()> {
        let Some(Segment { source: Source::Cluster(first, _), .. }) = segments.first() else { return Ok(()) };
        self.disk.read_unchecked_at(target, first * CLUSTER)?;
        for (segment, bytes) in segments.iter().zip(target.chunks_exact_mut(CLUSTER as usize)) {
            let Source::Cluster(index, Fate::Plain(check)) = segment.source else { continue };
            if Check::of(bytes) != check {
                // Finds the content that has changed, and says so.
                self.disk.read_at(bytes, index * CLUSTER)?;
                if Check::of(bytes) != check {
                    return Err(not_as_kept(index));
                }
            }
        }
        Ok(())
    }
}

/// How many segments from the first on can be read in one piece.
fn run(segments: &[Segment]) -> usize {
    let follows = |pair: &[Segment]| match (&pair[0].source, &pair[1].source) {
        (Source::Cluster(one, Fate::Plain(_)), Source::Cluster(two, Fate::Plain(_))) => {
            *two == one + 1 && pair[1].offset == pair[0].end()
        }
        _ => false,
    };
    1 + segments.windows(2).take_while(|pair| follows(pair)).count()
}

fn not_as_kept(index: u64) -> Error {
    Error::build(format!("cluster {index} is not what the cache said of it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashing_is_spread_over_the_writing() {
        assert_eq!(spread(6..9, 0..6), [6, 0, 1, 7, 2, 3, 8, 4, 5]);
        assert_eq!(spread(2..3, 0..2), [2, 0, 1]);
        assert_eq!(spread(0..3, 0..0), [0, 1, 2]);
        assert_eq!(spread(3..3, 0..3), [0, 1, 2]);
    }
}
