//! Where in the image file things go: an allocator of host clusters with their reference counts; pure.

use super::format::{CLUSTER, REFCOUNTS_PER_BLOCK};

/// Hands out places in order and counts the references to every cluster of the file.
pub struct Allocator {
    /// One count for each cluster handed out so far.
    refcounts: Vec<u16>,
    /// The next byte for compressed data, and the end of the cluster it lies in.
    packed: u64,
    packed_end: u64,
}

impl Allocator {
    /// The first cluster is taken by the header.
    pub fn new() -> Allocator {
        Allocator { refcounts: vec![1], packed: 0, packed_end: 0 }
    }

    /// The size of the file so far.
    pub fn end(&self) -> u64 {
        self.refcounts.len() as u64 * CLUSTER
    }

    /// Leaves the rest of an open cluster free.
    pub fn close(&mut self) {
        self.packed_end = self.packed;
    }

    /// Whole clusters in a row, referenced once.
    pub fn clusters(&mut self, count: u64) -> u64 {
        let offset = self.end();
        self.refcounts.resize(self.refcounts.len() + count as usize, 1);
        offset
    }

    /// Room for compressed data, directly behind the last where that may continue: across the end of a cluster only
    /// into the one that follows. Plain clusters in between leave the rest of an open cluster usable.
    pub fn packed(&mut self, length: u64) -> u64 {
        let fits = self.packed + length <= self.packed_end;
        if !fits && self.packed_end != self.end() {
            self.packed = self.end();
            self.packed_end = self.end();
        }
        while self.packed + length > self.packed_end {
            self.refcounts.push(0);
            self.packed_end = self.end();
        }
        let offset = self.packed;
        self.packed += length;
        // A place for a compressed cluster touches one or two clusters. The smallest result is longer than ten bytes,
        // so that no count comes near the limit of 16 bits.
        for cluster in offset / CLUSTER..=(offset + length - 1) / CLUSTER {
            self.refcounts[cluster as usize] += 1;
        }
        offset
    }

    /// Appends refcount blocks, which count themselves. Nothing can be allocated afterwards.
    pub fn finish(mut self) -> Refcounts {
        let used = self.refcounts.len() as u64;
        let mut count = 0;
        while (used + count).div_ceil(REFCOUNTS_PER_BLOCK) != count {
            count = (used + count).div_ceil(REFCOUNTS_PER_BLOCK);
        }
        let offset = self.clusters(count);
        Refcounts { counts: self.refcounts, offset, count }
    }
}

/// Clusters of a refcount table that is large enough for any image of that virtual size: each of its clusters stored
/// plain or not, all tables, and as much again for room that compressed data leaves.
pub fn refcount_table_clusters(l1_entries: u64, l1_clusters: u64, data_clusters: u64) -> u64 {
    let most = 2 * data_clusters + l1_entries + l1_clusters + REFCOUNTS_PER_BLOCK;
    let blocks = most.div_ceil(REFCOUNTS_PER_BLOCK - 1);
    (blocks * 8).div_ceil(CLUSTER)
}

/// The finished reference counts and where they go.
pub struct Refcounts {
    counts: Vec<u16>,
    pub offset: u64,
    count: u64,
}

impl Refcounts {
    /// The bytes of each block, in order.
    pub fn blocks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.counts.chunks(REFCOUNTS_PER_BLOCK as usize).map(|counts| {
            let mut block: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
            block.resize(CLUSTER as usize, 0);
            block
        })
    }

    /// The table that points to them, of `clusters` clusters.
    pub fn table(&self, clusters: u64) -> Vec<u8> {
        let entry = |index: u64| (self.offset + index * CLUSTER).to_be_bytes();
        let mut table: Vec<u8> = (0..self.count).flat_map(entry).collect();
        table.resize((clusters * CLUSTER) as usize, 0);
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_data_flows_around_plain_clusters() {
        let mut allocator = Allocator::new();
        assert_eq!(allocator.packed(1000), CLUSTER);
        assert_eq!(allocator.clusters(1), 2 * CLUSTER);
        // Still fits into the open cluster.
        assert_eq!(allocator.packed(1000), CLUSTER + 1000);
        // Does not, and the neighbour is taken.
        assert_eq!(allocator.packed(65_000), 3 * CLUSTER);
        // Runs over into the neighbour.
        assert_eq!(allocator.packed(1000), 3 * CLUSTER + 65_000);
        assert_eq!(allocator.refcounts, [1, 2, 1, 2, 1]);
        allocator.close();
        assert_eq!(allocator.packed(9), 5 * CLUSTER);
    }

    #[test]
    fn refcounts_count_themselves() {
        for used in [1, REFCOUNTS_PER_BLOCK - 2, REFCOUNTS_PER_BLOCK - 1, REFCOUNTS_PER_BLOCK, 5 * REFCOUNTS_PER_BLOCK]
        {
            let mut allocator = Allocator::new();
            allocator.clusters(used - 1);
            let refcounts = allocator.finish();
            let total = refcounts.counts.len() as u64;
            assert_eq!(total, used + refcounts.count);
            assert_eq!(refcounts.count, total.div_ceil(REFCOUNTS_PER_BLOCK));
            assert_eq!(refcounts.blocks().count() as u64, refcounts.count);
            assert!(refcounts.table(refcount_table_clusters(1, 1, used)).len() as u64 >= refcounts.count * 8);
        }
    }
}
