//! Writes a [`DiskImage`] as a qcow2 file with clusters that were made before.
//!
//! Owns: [`write_kept`], the same file as `write` in two passes, and the first of them: what becomes of each cluster.
//! Clusters are known by what they are made of, so those of an earlier image cost neither compressing nor comparing with
//! digests; the others are made and kept. Then the place of everything is known, and the second pass ([`super::stream`])
//! writes the file and hashes it on the way, from the place on at which it differs from what was hashed before
//! ([`super::resume`]).

use std::fs::File;

use sha2::{Digest as _, Sha256};

use super::compress::{Compression, Compressor};
use super::format::{CLUSTER, Header};
use super::resume::Marks;
use super::stream;
use super::tables::{Piece, Tables};
use super::write::Options;
use crate::error::Result;
use crate::format::disk::DiskImage;
use crate::format::disk::parallel::{Jobs, in_order};
use crate::format::disk::sparse::is_zero;
use crate::format::disk::sums::{Digests, Sums};
use crate::tree::Digest;
use crate::tree::clusters::{Clusters, Fate, Made, NewClusters};

/// Clusters that a thread looks up before it hands over.
const BATCH: usize = 64;
/// Raised when clusters are made in another way.
const RECIPE: u32 = 1;

/// Where bytes of the file come from.
pub enum Source {
    Bytes(Vec<u8>),
    /// A cluster of the disk: as it is, or as what became of it.
    Cluster(u64, Fate),
}

/// A piece of the file.
pub struct Segment {
    pub offset: u64,
    pub length: u64,
    pub source: Source,
    /// The same one means the same bytes, for an equal length.
    pub key: Digest,
    /// Bytes of the disk that are done when it is written.
    pub progress: u64,
}

impl Segment {
    fn of(piece: Piece) -> Segment {
        Segment {
            offset: piece.offset,
            length: piece.bytes.len() as u64,
            key: Digest::of(&piece.bytes),
            source: Source::Bytes(piece.bytes),
            progress: 0,
        }
    }

    pub fn header(header: &Header) -> Segment {
        Segment::of(Piece { offset: 0, bytes: header.encode() })
    }

    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Writes `disk` into `file`, which must be empty, and gives the checksums of the file. `progress` gets the number of
/// bytes of the disk done since the last call; together they are [`DiskImage::touched_size`] of clusters.
pub fn write_kept(
    disk: &DiskImage,
    file: &File,
    options: &Options,
    clusters: &Clusters,
    digests: Digests,
    progress: &dyn Fn(u64),
) -> Result<Sums> {
    let segments = plan(disk, options, clusters, progress)?;
    let marks = Marks::of(&segments);
    let start = marks.known(clusters, digests);
    let target = stream::Target { disk, file: Some(file), options, clusters, stop: None };
    let hashed = stream::write(&target, &segments, start, &marks.behind(start.length()), progress)?;
    marks.keep(&hashed.states, clusters)?;
    Ok(hashed.sums)
}

/// What a thread works with.
pub struct Worker {
    pub compressor: Compressor,
    pub cluster: Vec<u8>,
}

impl Worker {
    pub fn new(options: &Options) -> Result<Worker> {
        let compressor = Compressor::new(options.compression)?;
        Ok(Worker { compressor, cluster: vec![0; CLUSTER as usize] })
    }
}

/// What became of a cluster.
pub struct Known {
    pub key: Digest,
    pub fate: Fate,
    /// Else it was known before.
    pub new: bool,
}

/// Finds clusters among those that are kept, and makes the others.
pub struct Maker<'a> {
    disk: &'a DiskImage,
    clusters: &'a Clusters,
    new: &'a NewClusters<'a>,
    recipe: Digest,
}

impl<'a> Maker<'a> {
    pub fn new(
        disk: &'a DiskImage,
        options: &Options,
        clusters: &'a Clusters,
        new: &'a NewClusters<'a>,
    ) -> Result<Maker<'a>> {
        Ok(Maker { disk, clusters, new, recipe: recipe(options)? })
    }

    pub fn make(&self, worker: &mut Worker, index: u64) -> Result<Known> {
        let key = key(&self.recipe, self.disk.identity(index * CLUSTER, CLUSTER));
        if let Some(fate) = self.clusters.find(&key) {
            return Ok(Known { key, fate, new: false });
        }
        self.disk.read_at(&mut worker.cluster, index * CLUSTER)?;
        let made = match worker.compressor.compress(&worker.cluster) {
            _ if is_zero(&worker.cluster) => Made::Zeros,
            Some(bytes) => Made::Packed(bytes),
            None => Made::Plain(&worker.cluster),
        };
        Ok(Known { key, fate: self.new.append(key, made)?, new: true })
    }
}

/// All segments of the file, ascending.
pub fn plan(disk: &DiskImage, options: &Options, clusters: &Clusters, progress: &dyn Fn(u64)) -> Result<Vec<Segment>> {
    let mut tables = Tables::new(disk.size(), options.compression)?;
    let mut segments = Vec::new();
    let new = clusters.begin()?;
    let maker = Maker::new(disk, options, clusters, &new)?;
    let (order, count) = disk.steady_first(CLUSTER);
    let fate = |worker: &mut Worker, turn: u64| maker.make(worker, order[turn as usize]).map(Some);
    let put = &mut |turn: u64, known: Known| {
        if turn == count as u64 {
            tables.settle();
        }
        let (length, compressed) = match known.fate {
            Fate::Zeros => {
                progress(CLUSTER);
                return Ok(());
            }
            Fate::Plain(_) => (CLUSTER, None),
            Fate::Packed(kept) => (u64::from(kept.length), Some(u64::from(kept.length))),
        };
        // What takes time is compressing, or else writing.
        let done_now = known.new && compressed.is_some();
        progress(if done_now { CLUSTER } else { 0 });
        let index = order[turn as usize];
        let offset = tables.put(index, compressed);
        let progress = if done_now { 0 } else { CLUSTER };
        segments.push(Segment { offset, length, source: Source::Cluster(index, known.fate), key: known.key, progress });
        Ok(())
    };
    let jobs = Jobs { items: 0..order.len() as u64, batch: BATCH, threads: options.threads };
    in_order(jobs, &|| Worker::new(options), &fate, put, &|_| ())?;
    new.finish()?;
    if count == order.len() {
        tables.settle();
    }
    segments.extend(tables.finish()?.into_iter().map(Segment::of));
    // Compressed clusters flow around plain ones and are not quite in order.
    segments.sort_by_key(|segment| segment.offset);
    Ok(segments)
}

/// Everything beside the cluster that decides its compressed form. A sample tells compressors apart that have one name.
fn recipe(options: &Options) -> Result<Digest> {
    let mut hash = Sha256::new();
    let name = format!("qcow2 {RECIPE} {:?} {CLUSTER} {}", options.compression, zstd::zstd_safe::version_number());
    hash.update(Digest::of(name.as_bytes()).as_bytes());
    if options.compression != Compression::None {
        let result = Compressor::new(options.compression)?.compress(&sample()).map(Digest::of);
        result.iter().for_each(|digest| hash.update(digest.as_bytes()));
    }
    Ok(Digest::from_bytes(hash.finalize().into()))
}

fn sample() -> Vec<u8> {
    let mut sample = Vec::with_capacity(CLUSTER as usize);
    let mut state = 1u32;
    while sample.len() < CLUSTER as usize {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        sample.extend_from_slice(format!("{} ", state >> 22).as_bytes());
    }
    sample.truncate(CLUSTER as usize);
    sample
}

fn key(recipe: &Digest, identity: Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update(recipe.as_bytes());
    hash.update(identity.as_bytes());
    Digest::from_bytes(hash.finalize().into())
}
