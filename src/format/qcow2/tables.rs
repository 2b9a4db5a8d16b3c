//! The tables of an image that grows: where each cluster goes, and what points to it; pure.
//!
//! A file is, from front to back: the header, the steady clusters (`DiskImage::steady_first`), the L1 table and the
//! refcount table, the other clusters, the L2 tables, the refcount blocks. Up to the end of the steady clusters nothing
//! depends on what comes behind, the header included, which has the places of the two tables.

use std::collections::BTreeMap;

use super::compress::Compression;
use super::format::{CLUSTER, Header, L2_COVERS, L2_ENTRIES, MAX_VIRTUAL_SIZE, SECTOR, compressed_entry, plain_entry};
use super::layout::{Allocator, refcount_table_clusters};
use crate::error::{Error, Result};

/// Bytes and their place in the file.
pub struct Piece {
    pub offset: u64,
    pub bytes: Vec<u8>,
}

pub struct Tables {
    compression: Compression,
    size: u64,
    /// By their place in L1.
    l2: BTreeMap<u64, Vec<u64>>,
    allocator: Allocator,
    header: Option<Header>,
}

impl Tables {
    pub fn new(size: u64, compression: Compression) -> Result<Tables> {
        if size == 0 || size > MAX_VIRTUAL_SIZE {
            return Err(Error::build(format!("a qcow2 image cannot have a virtual size of {size} bytes")));
        }
        let size = size.next_multiple_of(SECTOR);
        Ok(Tables { compression, size, l2: BTreeMap::new(), allocator: Allocator::new(), header: None })
    }

    /// The place of a cluster of the disk. `compressed` is the length of its compressed form, if that is stored.
    pub fn put(&mut self, index: u64, compressed: Option<u64>) -> u64 {
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
        let table = self.l2.entry(index / L2_ENTRIES).or_insert_with(|| vec![0; L2_ENTRIES as usize]);
        table[(index % L2_ENTRIES) as usize] = entry;
        offset
    }

    /// Ends the steady clusters: the header is known now.
    pub fn settle(&mut self) -> &Header {
        self.allocator.close();
        let l1_entries = self.size.div_ceil(L2_COVERS);
        let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
        let refcount_table_clusters = refcount_table_clusters(l1_entries, l1_clusters, self.size.div_ceil(CLUSTER));
        let l1_offset = self.allocator.clusters(l1_clusters);
        let refcount_table_offset = self.allocator.clusters(refcount_table_clusters);
        let (compression, size) = (self.compression, self.size);
        let header =
            Header { compression, size, l1_entries, l1_offset, refcount_table_offset, refcount_table_clusters };
        self.header.insert(header)
    }

    /// All that points to the rest. The header comes last, so that a torn file is not mistaken for an image.
    pub fn finish(mut self) -> Result<Vec<Piece>> {
        let header = self.header.take().ok_or_else(|| Error::build("the steady clusters have no end"))?;
        let mut l1 = vec![0; header.l1_entries as usize];
        let mut pieces = Vec::with_capacity(self.l2.len() + 8);
        for (index, table) in &self.l2 {
            let offset = self.allocator.clusters(1);
            l1[*index as usize] = plain_entry(offset);
            pieces.push(Piece { offset, bytes: big_endian(table) });
        }
        let refcounts = self.allocator.finish();
        for (index, bytes) in refcounts.blocks().enumerate() {
            pieces.push(Piece { offset: refcounts.offset + index as u64 * CLUSTER, bytes });
        }
        let table = refcounts.table(header.refcount_table_clusters);
        pieces.push(Piece { offset: header.refcount_table_offset, bytes: table });
        pieces.push(Piece { offset: header.l1_offset, bytes: big_endian(&l1) });
        pieces.push(Piece { offset: 0, bytes: header.encode() });
        Ok(pieces)
    }
}

fn big_endian(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}
