//! Writes a [`DiskImage`] as a qcow2 file with clusters that were compressed before.
//!
//! Owns: [`write_kept`]: the same file as `write`, in two passes. The first finds out what becomes of each cluster:
//! clusters are known by what they are made of, so those of an earlier image cost neither reading nor compressing; the
//! others are compressed into the cache. Then the place of everything is known, and the second pass writes the file
//! from front to back, hashing it on the way.

use std::fs::File;
use std::os::unix::fs::FileExt;

use sha2::{Digest as _, Sha256};

use super::compress::Compressor;
use super::format::CLUSTER;
use super::tables::Tables;
use super::write::Options;
use crate::error::{Context, Error, Result};
use crate::format::disk::DiskImage;
use crate::format::disk::parallel::{Jobs, in_order};
use crate::format::disk::sparse::{begin_to_flush, is_zero};
use crate::format::disk::sums::{Sums, while_writing};
use crate::tree::Digest;
use crate::tree::clusters::{Clusters, Fate, NewClusters};

/// Clusters that a thread looks up before it hands over.
const BATCH: usize = 64;
/// The file is written in pieces of at least this size.
const PIECE: u64 = 1 << 20;
/// Raised when clusters are made in another way.
const RECIPE: u32 = 1;

/// Where bytes of the file come from.
enum Source {
    Bytes(Vec<u8>),
    /// A cluster of the disk: as it is, or as what became of it.
    Cluster(u64, Fate),
}

struct Segment {
    offset: u64,
    length: u64,
    source: Source,
}

/// Writes `disk` into `file`, which must be empty, and gives the checksums of the file. `progress` gets the number of
/// bytes of the disk done since the last call; together they are close to [`DiskImage::data_size`].
pub fn write_kept(
    disk: &DiskImage,
    file: &File,
    options: &Options,
    clusters: &Clusters,
    progress: &dyn Fn(u64),
) -> Result<Sums> {
    let segments = plan(disk, options, clusters, progress)?;
    stream(disk, file, options, clusters, &segments)
}

/// What a thread works with.
struct Worker {
    compressor: Compressor,
    cluster: Vec<u8>,
    packed: Vec<u8>,
}

impl Worker {
    fn new(options: &Options) -> Result<Worker> {
        let compressor = Compressor::new(options.compression)?;
        Ok(Worker { compressor, cluster: vec![0; CLUSTER as usize], packed: Vec::new() })
    }

    /// Reads a cluster and finds out what becomes of it.
    fn make(&mut self, disk: &DiskImage, index: u64, key: Digest, new: &NewClusters<'_>) -> Result<Fate> {
        disk.read_at(&mut self.cluster, index * CLUSTER)?;
        let zeros = is_zero(&self.cluster);
        let bytes = if zeros { None } else { self.compressor.compress(&self.cluster) };
        new.append(key, bytes, zeros)
    }
}

/// Every piece of the file, ascending.
fn plan(disk: &DiskImage, options: &Options, clusters: &Clusters, progress: &dyn Fn(u64)) -> Result<Vec<Segment>> {
    let mut tables = Tables::new(disk.size(), options.compression)?;
    let mut segments = Vec::new();
    let recipe = recipe(options)?;
    let new = clusters.begin()?;
    let fate = |worker: &mut Worker, index: u64| {
        let key = key(&recipe, disk.identity(index * CLUSTER, CLUSTER));
        match clusters.find(&key) {
            Some(fate) => Ok(Some(fate)),
            None => worker.make(disk, index, key, &new).map(Some),
        }
    };
    let put = &mut |index: u64, fate: Fate| {
        let compressed = match fate {
            Fate::Zeros => return Ok(()),
            Fate::Plain => None,
            Fate::Packed(kept) => Some(u64::from(kept.length)),
        };
        let (offset, complete) = tables.put(index, compressed);
        segments.extend(complete.map(Segment::of));
        let length = compressed.unwrap_or(CLUSTER);
        segments.push(Segment { offset, length, source: Source::Cluster(index, fate) });
        Ok(())
    };
    let jobs = Jobs { items: disk.touched_blocks(CLUSTER), batch: BATCH, threads: options.threads };
    in_order(jobs, &|| Worker::new(options), &fate, put, &|done| progress(done as u64 * CLUSTER))?;
    new.finish()?;
    segments.extend(tables.finish().into_iter().map(Segment::of));
    // Compressed clusters flow around plain ones and are not quite in order.
    segments.sort_by_key(|segment| segment.offset);
    Ok(segments)
}

impl Segment {
    fn of(piece: super::tables::Piece) -> Segment {
        Segment { offset: piece.offset, length: piece.bytes.len() as u64, source: Source::Bytes(piece.bytes) }
    }

    fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Everything beside the cluster that decides its compressed form. A sample tells compressors apart that have one name.
fn recipe(options: &Options) -> Result<Digest> {
    let mut sample = Vec::with_capacity(CLUSTER as usize);
    let mut state = 1u32;
    while sample.len() < CLUSTER as usize {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        sample.extend_from_slice(format!("{} ", state >> 22).as_bytes());
    }
    sample.truncate(CLUSTER as usize);
    let mut compressor = Compressor::new(options.compression)?;
    let result = compressor.compress(&sample).map(Digest::of);
    let name = format!("qcow2 {RECIPE} {:?} {CLUSTER} {}", options.compression, zstd::zstd_safe::version_number());
    let mut hash = Sha256::new();
    hash.update(Digest::of(name.as_bytes()).as_bytes());
    result.iter().for_each(|digest| hash.update(digest.as_bytes()));
    Ok(Digest::from_bytes(hash.finalize().into()))
}

fn key(recipe: &Digest, identity: Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update(recipe.as_bytes());
    hash.update(identity.as_bytes());
    Digest::from_bytes(hash.finalize().into())
}

/// Stretches of segments, each of [`PIECE`] bytes or a little more: first and last index, begin and end in the file.
struct Stretch {
    segments: std::ops::Range<usize>,
    offset: u64,
    end: u64,
}

fn stretches(segments: &[Segment]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        match stretches.last_mut() {
            Some(last) if segment.offset - last.offset < PIECE => {
                last.segments.end = index + 1;
                last.end = segment.end();
            }
            last => {
                // Gaps belong to what is before them.
                last.into_iter().for_each(|last| last.end = segment.offset);
                stretches.push(Stretch { segments: index..index + 1, offset: segment.offset, end: segment.end() });
            }
        }
    }
    stretches
}

fn stream(disk: &DiskImage, file: &File, options: &Options, clusters: &Clusters, segments: &[Segment]) -> Result<Sums> {
    let stretches = stretches(segments);
    let fill = |worker: &mut Worker, number: u64| {
        let stretch = &stretches[number as usize];
        let mut bytes = vec![0; (stretch.end - stretch.offset) as usize];
        for segment in &segments[stretch.segments.clone()] {
            let from = (segment.offset - stretch.offset) as usize;
            fill_segment(disk, clusters, worker, segment, &mut bytes[from..from + segment.length as usize])?;
        }
        file.write_all_at(&bytes, stretch.offset).context("writing the qcow2 image")?;
        begin_to_flush(file, stretch.offset, bytes.len() as u64);
        Ok(Some(bytes))
    };
    while_writing(|pieces| {
        let jobs = Jobs { items: 0..stretches.len() as u64, batch: 1, threads: options.threads };
        in_order(jobs, &|| Worker::new(options), &fill, &mut |_, bytes| pieces.next(bytes), &|_| ())
    })
}

fn fill_segment(
    disk: &DiskImage,
    clusters: &Clusters,
    worker: &mut Worker,
    segment: &Segment,
    target: &mut [u8],
) -> Result<()> {
    match &segment.source {
        Source::Bytes(bytes) => target.copy_from_slice(bytes),
        Source::Cluster(index, Fate::Packed(kept)) => {
            if clusters.read(*kept, &mut worker.packed) {
                target.copy_from_slice(&worker.packed);
                return Ok(());
            }
            disk.read_at(&mut worker.cluster, index * CLUSTER)?;
            match worker.compressor.compress(&worker.cluster) {
                Some(bytes) if bytes.len() == target.len() => target.copy_from_slice(bytes),
                // Its length was taken from a line that had a digest of its own.
                _ => return Err(Error::build(format!("cluster {index} is not what the cache said of it"))),
            }
        }
        Source::Cluster(index, _) => disk.read_at(target, index * CLUSTER)?,
    }
    Ok(())
}
