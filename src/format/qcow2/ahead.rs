//! What can be done of an image while the last file of its disk is still being made.
//!
//! Owns: [`prepare`]. It keeps clusters and checksums as [`super::write_kept`] would, and writes no file. The disk may hold
//! contents that cannot be read yet. Nothing here decides a byte: what turns out differently is not found later, because
//! everything is kept by what it is made of.

use std::sync::atomic::{AtomicBool, Ordering};

use super::compress::Compression;
use super::format::CLUSTER;
use super::kept::{Maker, Segment, Source, Worker};
use super::resume::Marks;
use super::stream::{self, Target};
use super::tables::Tables;
use super::write::Options;
use crate::error::Result;
use crate::format::disk::DiskImage;
use crate::format::disk::parallel::{Jobs, in_order};
use crate::format::disk::sums::Digests;
use crate::tree::clusters::{Clusters, Fate};

/// Clusters that a thread makes before it hands over.
const BATCH: usize = 16;

/// Makes and hashes the steady part of `disk` until `stop` is set, as far as its contents can be read.
pub fn prepare(
    disk: &DiskImage,
    options: &Options,
    clusters: &Clusters,
    digests: Digests,
    stop: &AtomicBool,
) -> Result<()> {
    let (order, count) = disk.steady_first(CLUSTER);
    let new = clusters.begin()?;
    let maker = Maker::new(disk, options, clusters, &new)?;
    let mut tables = Tables::new(disk.size(), options.compression)?;
    let (mut segments, mut missing) = (Vec::new(), false);
    let make = |worker: &mut Worker, turn: u64| match stop.load(Ordering::Relaxed) {
        true => Ok(Some(None)),
        // Not there yet, or damaged: that is found when the image is written.
        false => Ok(Some(maker.make(worker, order[turn as usize]).ok())),
    };
    let put = &mut |turn: u64, known: Option<super::kept::Known>| {
        let index = order[turn as usize];
        missing |= known.is_none();
        // What is not there yet holds its place, as long as that is known.
        let fate = known.as_ref().map(|known| known.fate);
        let (length, compressed) = match fate {
            Some(Fate::Zeros) => return Ok(()),
            Some(Fate::Packed(kept)) => (u64::from(kept.length), Some(u64::from(kept.length))),
            Some(Fate::Plain(_)) | None => (CLUSTER, None),
        };
        let offset = tables.put(index, compressed);
        if let (Some(known), false) = (known, missing) {
            let source = Source::Cluster(index, known.fate);
            segments.push(Segment { offset, length, source, key: known.key, progress: 0 });
        }
        Ok(())
    };
    let jobs = Jobs { items: 0..count as u64, batch: BATCH, threads: options.threads };
    in_order(jobs, &|| Worker::new(options), &make, put, &|_| ())?;
    new.finish()?;
    // The header has the length of the steady part.
    let no_header = missing && options.compression != Compression::None;
    if no_header || digests != Digests::BOTH || stop.load(Ordering::Relaxed) {
        return Ok(());
    }
    segments.push(Segment::header(tables.settle()));
    segments.sort_by_key(|segment| segment.offset);
    let marks = Marks::of(&segments);
    let start = marks.known(clusters, digests);
    let target = Target { disk, file: None, options, clusters, stop: Some(stop) };
    let hashed = stream::write(&target, &segments, start, &marks.behind(start.length()), &|_| ())?;
    marks.keep(&hashed.states, clusters)
}
