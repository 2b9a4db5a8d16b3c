//! The bytes of a file: their digest, their size, and where to read them.
//!
//! Owns: [`Digest`] and [`Content`]. Equality and hashing look at the digest alone. Bytes lie inline (small, made by
//! us), in a segment of a pack file of the store, or elsewhere, behind a [`ReadAt`] (an image that is looked at).

use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::holes::HoleFinder;
use super::pack_file::{PackFile, Place};
use crate::error::Result;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Digest(bytes)
    }

    /// From 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).ok()?;
        Some(Digest(bytes))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes that can be read from any place on: a file inside an image.
pub trait ReadAt: Send + Sync {
    /// Fills `buffer` with the bytes at `offset`; past the end is an error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
}

#[derive(Clone)]
enum Source {
    Inline(Arc<[u8]>),
    Pack { pack: Arc<PackFile>, offset: u64 },
    Elsewhere(Arc<dyn ReadAt>),
}

#[derive(Clone)]
pub struct Content {
    digest: Digest,
    size: u64,
    source: Source,
    /// Of a sparse file.
    holes: Option<Arc<[Range<u64>]>>,
}

impl Content {
    pub fn inline(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let (digest, size, holes) = (Digest::of(&bytes), bytes.len() as u64, HoleFinder::of(&bytes));
        Content { digest, size, source: Source::Inline(bytes), holes: None }.with_holes(holes)
    }

    /// `size` bytes at `offset` of a pack file, which are compared with the digest when they are first read.
    pub fn packed(digest: Digest, size: u64, pack: Arc<PackFile>, offset: u64) -> Self {
        Content { digest, size, source: Source::Pack { pack, offset }, holes: None }
    }

    /// Says where a [`HoleFinder`] found holes. They are part of what the bytes are, not of their digest.
    pub fn with_holes(self, holes: Vec<Range<u64>>) -> Self {
        Content { holes: (!holes.is_empty()).then(|| holes.into()), ..self }
    }

    /// Stretches of zeros that need no room, ascending.
    pub fn holes(&self) -> &[Range<u64>] {
        self.holes.as_deref().unwrap_or_default()
    }

    /// What lies between the holes, ascending; empty stretches are left out.
    pub fn data(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let starts = std::iter::once(0).chain(self.holes().iter().map(|hole| hole.end));
        let ends = self.holes().iter().map(|hole| hole.start).chain([self.size]);
        starts.zip(ends).map(|(start, end)| start..end).filter(|range| range.start < range.end)
    }

    /// `size` bytes behind a reader. The caller vouches for the digest.
    pub fn elsewhere(digest: Digest, size: u64, bytes: Arc<dyn ReadAt>) -> Self {
        Content { digest, size, source: Source::Elsewhere(bytes), holes: None }
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where in which pack file the bytes lie; `None` for content that is not in the store.
    pub fn segment(&self) -> Option<(&Arc<PackFile>, u64)> {
        match &self.source {
            Source::Inline(_) | Source::Elsewhere(_) => None,
            Source::Pack { pack, offset } => Some((pack, *offset)),
        }
    }

    fn place(&self, offset: u64) -> Place {
        Place { offset, size: self.size, digest: self.digest }
    }

    /// Says that these bytes were hashed on their way into their pack file.
    pub(super) fn trust(&self) {
        if let Source::Pack { pack, offset } = &self.source {
            pack.trust(self.place(*offset));
        }
    }

    /// Fills `buffer` with the bytes at `offset` of the content. Reading past the end is an error.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match &self.source {
            Source::Inline(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let slice = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
                match slice {
                    Some(slice) => {
                        buffer.copy_from_slice(slice);
                        Ok(())
                    }
                    None => Err(crate::error::Error::build("reading past the end of a file's content")),
                }
            }
            Source::Pack { pack, offset: start } => pack.read_at(self.place(*start), buffer, offset),
            Source::Elsewhere(bytes) => bytes.read_at(buffer, offset),
        }
    }

    /// As [`Content::read_at`], for a caller who compares the bytes with a checksum of his own: content of the store is not
    /// compared with its digest.
    pub fn read_unchecked_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match &self.source {
            Source::Pack { pack, offset: start } => pack.read_unchecked_at(self.place(*start), buffer, offset),
            Source::Inline(_) | Source::Elsewhere(_) => self.read_at(buffer, offset),
        }
    }

    /// All bytes, checked against the digest.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.size as usize];
        self.read_at(&mut bytes, 0)?;
        if self.segment().is_none() && Digest::of(&bytes) != self.digest {
            return Err(crate::error::Error::new(
                crate::error::Kind::Authenticity,
                format!("content {} is not what its digest says", self.digest),
            ));
        }
        Ok(bytes)
    }

    /// A reader over all bytes.
    pub fn reader(&self) -> impl Read + '_ {
        Reader { content: self, position: 0 }
    }
}

struct Reader<'a> {
    content: &'a Content,
    position: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.content.size - self.position;
        let length = (buffer.len() as u64).min(left) as usize;
        if length > 0 {
            self.content.read_at(&mut buffer[..length], self.position)?;
            self.position += length as u64;
        }
        Ok(length)
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.size == other.size
    }
}

impl Eq for Content {}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({}, {} bytes)", self.digest, self.size)
    }
}
