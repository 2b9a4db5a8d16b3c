//! Structures on the disk, little-endian (SF).

/// At the start of the file system.
pub const MAGIC: u32 = 0x7371_7368;
pub const SUPERBLOCK: usize = 96;
/// Bytes of a metadata block before compression (`SQUASHFS_METADATA_SIZE`).
pub const METADATA: usize = 8192;
/// In the header of a metadata block: stored as it is.
pub const METADATA_RAW: u16 = 1 << 15;
/// In the size of a block of data: stored as it is.
pub const DATA_RAW: u32 = 1 << 24;
/// No table, no fragment, no extended attributes.
pub const NO_TABLE: u64 = u64::MAX;
pub const NONE: u32 = u32::MAX;
/// What is not used is filled up to a multiple of this, for loop devices.
pub const PADDING: u64 = 4096;

/// Flags of the superblock: every content is there once.
pub const FLAG_DUPLICATES: u16 = 1 << 6;
pub const FLAG_EXPORT: u16 = 1 << 7;
/// A metadata block with the options of the compressor follows the superblock.
pub const FLAG_COMPRESSOR_OPTIONS: u16 = 1 << 10;

/// Types of inodes; entries of directories always have the short form.
pub const DIRECTORY: u16 = 1;
pub const FILE: u16 = 2;
pub const SYMLINK: u16 = 3;
pub const BLOCK_DEVICE: u16 = 4;
pub const CHAR_DEVICE: u16 = 5;
pub const FIFO: u16 = 6;
pub const SOCKET: u16 = 7;
/// From the short form to the long one, which has extended attributes.
pub const LONG: u16 = 7;

/// Bytes that end up in an image.
#[derive(Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// `struct squashfs_super_block`.
pub struct Superblock {
    pub inodes: u32,
    pub time: u32,
    pub block_size: u32,
    pub fragments: u32,
    pub compressor: u16,
    pub flags: u16,
    pub ids: u16,
    pub root: u64,
    pub bytes_used: u64,
    pub id_table: u64,
    pub xattr_table: u64,
    pub inode_table: u64,
    pub directory_table: u64,
    pub fragment_table: u64,
    pub export_table: u64,
}

impl Superblock {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Bytes::default();
        out.u32(MAGIC).u32(self.inodes).u32(self.time).u32(self.block_size).u32(self.fragments);
        out.u16(self.compressor).u16(self.block_size.trailing_zeros() as u16).u16(self.flags).u16(self.ids);
        // Version 4.0.
        out.u16(4).u16(0).u64(self.root).u64(self.bytes_used).u64(self.id_table).u64(self.xattr_table);
        out.u64(self.inode_table).u64(self.directory_table).u64(self.fragment_table).u64(self.export_table);
        out.0
    }
}

/// A place in a table of metadata blocks: where the block begins, and the byte within it once unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    pub block: u64,
    pub offset: u16,
}

impl Place {
    pub fn reference(self) -> u64 {
        self.block << 16 | u64::from(self.offset)
    }
}
