//! Blocks that were compressed before.
//!
//! Owns: [`Keeper`], which finds blocks among those that earlier file systems have left (`tree::clusters`) and keeps new
//! ones. A block is known by what it is made of: the digests of its contents, and how it is compressed. So a file system of
//! which little has changed costs little more than copying it, with the bytes that compressing all of it gives.

use sha2::{Digest as _, Sha256};

use super::Options;
use super::compress::Compressor;
use super::layout::{Job, Plan};
use crate::error::Result;
use crate::tree::Digest;
use crate::tree::clusters::{Clusters, Fate, Made, NewClusters, check_length};

/// Raised when blocks are made in another way.
const RECIPE: u32 = 1;

/// What became of a block.
pub enum Packed {
    /// Nothing is written.
    Zeros,
    /// Its bytes as they are.
    Raw,
    Compressed(Vec<u8>),
}

pub struct Keeper<'a> {
    clusters: &'a Clusters,
    new: NewClusters<'a>,
    recipe: Digest,
}

impl<'a> Keeper<'a> {
    pub fn new(clusters: &'a Clusters, options: &Options) -> Result<Keeper<'a>> {
        check_length(options.block_size.into())?;
        Ok(Keeper { clusters, new: clusters.begin()?, recipe: recipe(options)? })
    }

    pub fn key(&self, plan: &Plan<'_>, job: Job) -> Digest {
        let mut hash = Sha256::new();
        hash.update(self.recipe.as_bytes());
        hash.update(job.size().to_le_bytes());
        let digest = |content: usize| plan.contents[content].content.digest();
        match job {
            Job::Block { content, block, .. } => {
                hash.update(b"b");
                hash.update(digest(content).as_bytes());
                hash.update(block.to_le_bytes());
            }
            Job::Fragment { index, .. } => {
                hash.update(b"f");
                plan.fragments[index as usize]
                    .members
                    .iter()
                    .for_each(|member| hash.update(digest(*member).as_bytes()));
            }
        }
        Digest::from_bytes(hash.finalize().into())
    }

    /// `None` if it has to be made.
    pub fn find(&self, key: &Digest) -> Option<Packed> {
        Some(match self.clusters.find(key)? {
            Fate::Zeros => Packed::Zeros,
            Fate::Plain(_) => Packed::Raw,
            Fate::Packed(kept) => Packed::Compressed(self.clusters.bytes(kept)?),
        })
    }

    /// `bytes` are those of the block before it was compressed.
    pub fn keep(&self, key: Digest, packed: &Packed, bytes: &[u8]) -> Result<()> {
        let made = match packed {
            Packed::Zeros => Made::Zeros,
            Packed::Raw => Made::Plain(bytes),
            Packed::Compressed(bytes) => Made::Packed(bytes),
        };
        self.new.append(key, made).map(drop)
    }

    /// For later file systems.
    pub fn finish(self) -> Result<()> {
        self.new.finish()
    }
}

/// Everything beside its contents that decides a block. A sample tells compressors apart that have one name.
fn recipe(options: &Options) -> Result<Digest> {
    let sample: Vec<u8> =
        (0..4000u32).flat_map(|at| (at.wrapping_mul(2_654_435_761) >> 23).to_string().into_bytes()).collect();
    let packed = Compressor::new(options.compression, options.block_size)?.compress(&sample)?;
    let packed = packed.map(|packed| Digest::of(&packed).to_hex()).unwrap_or_default();
    let name = format!("squashfs {RECIPE} {:?} {} {packed}", options.compression, options.block_size);
    Ok(Digest::of(name.as_bytes()))
}
