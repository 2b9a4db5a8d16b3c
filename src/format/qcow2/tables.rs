//! The tables of an image that grows: where each cluster goes, and what points to it; pure.

use super::compress::Compression;
use super::format::{CLUSTER, Header, L2_COVERS, L2_ENTRIES, MAX_VIRTUAL_SIZE, SECTOR, compressed_entry, plain_entry};
use super::layout::Allocator;
use crate::error::{Error, Result};

/// Bytes and their place in the file.
pub struct Piece {
    pub offset: u64,
    pub bytes: Vec<u8>,
}

pub struct Tables {
    compression: Compression,
    size: u64,
    l1: Vec<u64>,
    /// The table that fills up, and its place in L1.
    l2: Vec<u64>,
    l2_index: usize,
    allocator: Allocator,
}

impl Tables {
    pub fn new(size: u64, compression: Compression) -> Result<Tables> {
        if size == 0 || size > MAX_VIRTUAL_SIZE {
            return Err(Error::build(format!("a qcow2 image cannot have a virtual size of {size} bytes")));
        }
        let size = size.next_multiple_of(SECTOR);
        let l1_entries = size.div_ceil(L2_COVERS);
        let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
        let allocator = Allocator::new(1 + l1_clusters);
        let (l1, l2) = (vec![0; l1_entries as usize], vec![0; L2_ENTRIES as usize]);
        Ok(Tables { compression, size, l1, l2, l2_index: 0, allocator })
    }

    /// The place of the next cluster, indices ascend; a table that is complete with that comes back. `compressed` is
    /// the length of its compressed form, if that is stored.
    pub fn put(&mut self, index: u64, compressed: Option<u64>) -> (u64, Option<Piece>) {
        let l1_index = (index / L2_ENTRIES) as usize;
        let mut complete = None;
        if l1_index != self.l2_index {
            complete = self.flush_l2();
            self.l2_index = l1_index;
        }
        let (offset, entry) = match compressed {
            Some(length) => {
                let offset = self.allocator.packed(length);
                (offset, compressed_entry(offset, length))
            }
            None => {
                let offset = self.allocator.clusters(1);
                (offset, plain_entry(offset))
            }
        };
        self.l2[(index % L2_ENTRIES) as usize] = entry;
        (offset, complete)
    }

    fn flush_l2(&mut self) -> Option<Piece> {
        if self.l2.iter().all(|entry| *entry == 0) {
            return None;
        }
        let offset = self.allocator.clusters(1);
        let bytes = big_endian(&self.l2);
        self.l1[self.l2_index] = plain_entry(offset);
        self.l2.fill(0);
        Some(Piece { offset, bytes })
    }

    /// All that points to the rest. The header comes last, so that a torn file is not mistaken for an image.
    pub fn finish(mut self) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = self.flush_l2().into_iter().collect();
        let refcounts = self.allocator.finish();
        for (index, bytes) in refcounts.blocks().enumerate() {
            pieces.push(Piece { offset: refcounts.blocks_offset + index as u64 * CLUSTER, bytes });
        }
        pieces.push(Piece { offset: refcounts.table_offset, bytes: refcounts.table() });
        pieces.push(Piece { offset: CLUSTER, bytes: big_endian(&self.l1) });
        let header = Header {
            compression: self.compression,
            size: self.size,
            l1_entries: self.l1.len() as u64,
            l1_offset: CLUSTER,
            refcount_table_offset: refcounts.table_offset,
            refcount_table_clusters: refcounts.table_clusters,
        };
        pieces.push(Piece { offset: 0, bytes: header.encode() });
        pieces
    }
}

fn big_endian(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}
