//! On-disk structures of a stream-optimised sparse extent, all little-endian; section names are those of VDF.

pub const SECTOR: u64 = 512;
/// "Hosted Sparse Extent Header", `grainSize`: the default, and the only one for streams.
pub const GRAIN: u64 = 64 << 10;
pub const GRAIN_SECTORS: u64 = GRAIN / SECTOR;
/// `numGTEsPerGT`: entries of four bytes in a grain table.
pub const TABLE_ENTRIES: u64 = 512;
/// Virtual bytes that one grain table maps.
pub const TABLE_COVERS: u64 = TABLE_ENTRIES * GRAIN;

/// "Hosted Sparse Extent Header", `SPARSE_MAGICNUMBER`: "KDMV".
pub const MAGIC: u32 = 0x564D_444B;
/// Of stream-optimised extents ("Stream-Optimized Compressed"); 1 and 2 have grains in place.
pub const VERSION: u32 = 3;
/// `flags`: valid new line detection test; the grains are compressed; there are markers.
pub const FLAG_NEW_LINE: u32 = 1 << 0;
pub const FLAG_COMPRESSED: u32 = 1 << 16;
pub const FLAG_MARKERS: u32 = 1 << 17;
/// `gdOffset` of the header (`GD_AT_END`): the footer tells.
pub const DIRECTORY_AT_END: u64 = u64::MAX;
/// `compressAlgorithm`: `COMPRESSION_DEFLATE` (RFC 1950 around RFC 1951).
pub const COMPRESSION_DEFLATE: u16 = 1;

/// "Stream-Optimized Compressed", markers: what comes before metadata.
pub const MARKER_END_OF_STREAM: u32 = 0;
pub const MARKER_GRAIN_TABLE: u32 = 1;
pub const MARKER_GRAIN_DIRECTORY: u32 = 2;
pub const MARKER_FOOTER: u32 = 3;

/// The descriptor lies behind the header; room for what virtualisation products add to it.
pub const DESCRIPTOR_SECTOR: u64 = 1;
pub const DESCRIPTOR_SECTORS: u64 = 20;
/// `overHead`: where the first grain may lie.
pub const OVERHEAD_SECTORS: u64 = 128;

/// vSphere's largest virtual disk, and a directory that stays small.
pub const MAX_VIRTUAL_SIZE: u64 = 62 << 40;

/// `SparseExtentHeader`: header and, with the place of the directory, footer.
pub fn header(capacity_sectors: u64, directory_sector: u64) -> [u8; SECTOR as usize] {
    let mut out = [0; SECTOR as usize];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC.to_le_bytes());
    put(4, &VERSION.to_le_bytes());
    put(8, &(FLAG_NEW_LINE | FLAG_COMPRESSED | FLAG_MARKERS).to_le_bytes());
    put(12, &capacity_sectors.to_le_bytes());
    put(20, &GRAIN_SECTORS.to_le_bytes());
    put(28, &DESCRIPTOR_SECTOR.to_le_bytes());
    put(36, &DESCRIPTOR_SECTORS.to_le_bytes());
    put(44, &(TABLE_ENTRIES as u32).to_le_bytes());
    // No redundant grain directory.
    put(48, &0u64.to_le_bytes());
    put(56, &directory_sector.to_le_bytes());
    put(64, &OVERHEAD_SECTORS.to_le_bytes());
    // Shut down cleanly; then the characters that tell whether a transfer as text spoilt the file.
    put(72, b"\0\n \r\n");
    put(77, &COMPRESSION_DEFLATE.to_le_bytes());
    out
}

/// The sector before metadata of so many sectors ("Marker").
pub fn metadata_marker(sectors: u64, kind: u32) -> [u8; SECTOR as usize] {
    let mut out = [0; SECTOR as usize];
    out[0..8].copy_from_slice(&sectors.to_le_bytes());
    // A size of zero tells it from a grain.
    out[12..16].copy_from_slice(&kind.to_le_bytes());
    out
}

/// "Grain marker": where the grain belongs, its length, its bytes; then zeros up to a whole sector.
pub fn grain(index: u64, compressed: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity((12 + compressed.len()).next_multiple_of(SECTOR as usize));
    out.extend((index * GRAIN_SECTORS).to_le_bytes());
    out.extend((compressed.len() as u32).to_le_bytes());
    out.extend(compressed);
    out.resize(out.len().next_multiple_of(SECTOR as usize), 0);
    out
}
