//! On-disk structures of qcow2 version 3; section names are those of QEMU's docs/interop/qcow2.txt.

use super::compress::Compression;

pub const CLUSTER_BITS: u32 = 16;
pub const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of 8 bytes in an L2 table of one cluster.
pub const L2_ENTRIES: u64 = CLUSTER / 8;
/// Virtual bytes that one L2 table maps.
pub const L2_COVERS: u64 = L2_ENTRIES * CLUSTER;
/// Reference counts of 16 bits in a block of one cluster.
pub const REFCOUNTS_PER_BLOCK: u64 = CLUSTER / 2;
/// Compressed data is addressed in these.
pub const SECTOR: u64 = 512;

/// QEMU reads L1 tables of up to 32 MiB (`QCOW_MAX_L1_SIZE`): 2 PiB with our clusters.
pub const MAX_VIRTUAL_SIZE: u64 = (32 << 20) / 8 * L2_COVERS;

const HEADER_LENGTH: u32 = 112;
const REFCOUNT_ORDER: u32 = 4;
/// "Compression type bit": set when the type is not deflate.
const INCOMPATIBLE_COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;

/// L1 and L2: "refcount is exactly one".
const COPIED: u64 = 1 << 63;
/// L2: compressed cluster descriptor follows.
const COMPRESSED: u64 = 1 << 62;
/// Compressed cluster descriptor: the offset takes bits 0 to x - 1, x = 62 - (cluster_bits - 8).
const SECTORS_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);

/// An L1 entry, or the L2 entry of a plain cluster.
pub fn plain_entry(host_offset: u64) -> u64 {
    host_offset | COPIED
}

/// The L2 entry of a compressed cluster of that many bytes.
pub fn compressed_entry(host_offset: u64, length: u64) -> u64 {
    let additional_sectors = (host_offset + length - 1) / SECTOR - host_offset / SECTOR;
    COMPRESSED | additional_sectors << SECTORS_SHIFT | host_offset
}

/// "Header".
pub struct Header {
    pub compression: Compression,
    pub size: u64,
    pub l1_entries: u64,
    pub l1_offset: u64,
    pub refcount_table_offset: u64,
    pub refcount_table_clusters: u64,
}

impl Header {
    /// Header and header extensions; shorter than a cluster.
    pub fn encode(&self) -> Vec<u8> {
        let zstd = self.compression == Compression::Zstd;
        let mut out = Vec::new();
        out.extend(b"QFI\xfb");
        out.extend(3u32.to_be_bytes());
        // No backing file.
        out.extend([0; 12]);
        out.extend(CLUSTER_BITS.to_be_bytes());
        out.extend(self.size.to_be_bytes());
        // Not encrypted.
        out.extend(0u32.to_be_bytes());
        out.extend((self.l1_entries as u32).to_be_bytes());
        out.extend(self.l1_offset.to_be_bytes());
        out.extend(self.refcount_table_offset.to_be_bytes());
        out.extend((self.refcount_table_clusters as u32).to_be_bytes());
        // No snapshots.
        out.extend([0; 12]);
        out.extend((if zstd { INCOMPATIBLE_COMPRESSION_TYPE } else { 0 }).to_be_bytes());
        // No compatible, no autoclear features.
        out.extend([0; 16]);
        out.extend(REFCOUNT_ORDER.to_be_bytes());
        out.extend(HEADER_LENGTH.to_be_bytes());
        out.push(u8::from(zstd));
        out.resize(HEADER_LENGTH as usize, 0);
        if zstd {
            // So that a QEMU older than 5.1 says what it does not know.
            out.extend(EXTENSION_FEATURE_NAMES.to_be_bytes());
            out.extend(48u32.to_be_bytes());
            let mut name = [0; 48];
            name[1] = 3;
            name[2..18].copy_from_slice(b"compression type");
            out.extend(name);
        }
        // End of the extensions.
        out.extend([0; 8]);
        out
    }
}
