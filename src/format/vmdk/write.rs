//! Streams a [`DiskImage`] into a stream-optimised VMDK: threads read and compress, one writes in order.

use std::fs::File;
use std::os::unix::fs::FileExt;

use uuid::Uuid;

use super::compress::Compressor;
use super::descriptor;
use super::format::{
    DESCRIPTOR_SECTOR, DIRECTORY_AT_END, GRAIN, MARKER_END_OF_STREAM, MARKER_FOOTER, MARKER_GRAIN_DIRECTORY,
    MARKER_GRAIN_TABLE, MAX_VIRTUAL_SIZE, OVERHEAD_SECTORS, SECTOR, TABLE_COVERS, TABLE_ENTRIES, grain, header,
    metadata_marker,
};
use crate::error::{Context, Error, Result};
use crate::format::disk::DiskImage;
use crate::format::disk::parallel::{self, Work};

#[derive(Debug, Clone)]
pub struct Options {
    /// Identity of the disk: content id and UUID come from it.
    pub uuid: Uuid,
    /// All cores when `None`. Does not change the result.
    pub threads: Option<usize>,
}

/// Refuses what the format cannot hold.
pub fn check_size(size: u64) -> Result<()> {
    if size == 0 || size > MAX_VIRTUAL_SIZE {
        return Err(Error::documents(format!("a VMDK cannot have a virtual size of {size} bytes"))
            .hint("it takes 1 byte to 62 TiB: change `storage.qcow_capacity`, or leave `vmdk` out"));
    }
    Ok(())
}

/// Writes `disk` into `file`, which must be empty. `progress` gets the number of bytes of the disk done since the last
/// call; together they are [`DiskImage::touched_size`] of grains.
pub fn write(disk: &DiskImage, file: &File, options: &Options, progress: &dyn Fn(u64)) -> Result<()> {
    let mut stream = Stream::new(disk.size(), file)?;
    // The last grain ends with the disk.
    let size = stream.sectors * SECTOR;
    let work = Work {
        disk,
        block: GRAIN,
        threads: options.threads,
        start: || Ok(Compressor::new()),
        work: |compressor: &mut Compressor, index: u64, bytes: &[u8]| {
            let length = (size - index * GRAIN).min(GRAIN) as usize;
            Ok(grain(index, compressor.compress(&bytes[..length])?))
        },
    };
    parallel::blocks(&work, &mut |index, grain| stream.put(index, &grain), progress)?;
    stream.finish(&options.uuid)
}

/// The file that grows from front to back: grains, each grain table behind its grains, directory, footer.
struct Stream<'a> {
    file: &'a File,
    /// Capacity of the disk.
    sectors: u64,
    /// The next sector of the file.
    next: u64,
    /// Where each grain table lies; zero for one without grains.
    directory: Vec<u32>,
    /// The table that fills up, and its place in the directory.
    table: Vec<u32>,
    table_index: usize,
}

impl<'a> Stream<'a> {
    fn new(size: u64, file: &'a File) -> Result<Stream<'a>> {
        check_size(size)?;
        let sectors = size.div_ceil(SECTOR);
        let directory = vec![0; size.div_ceil(TABLE_COVERS) as usize];
        let table = vec![0; TABLE_ENTRIES as usize];
        Ok(Stream { file, sectors, next: OVERHEAD_SECTORS, directory, table, table_index: 0 })
    }

    /// The next grain; indices ascend.
    fn put(&mut self, index: u64, grain: &[u8]) -> Result<()> {
        let table_index = (index / TABLE_ENTRIES) as usize;
        if table_index != self.table_index {
            self.flush_table()?;
            self.table_index = table_index;
        }
        self.table[(index % TABLE_ENTRIES) as usize] = self.append(grain)?;
        Ok(())
    }

    fn flush_table(&mut self) -> Result<()> {
        if self.table.iter().all(|entry| *entry == 0) {
            return Ok(());
        }
        let bytes = little_endian(&self.table);
        self.directory[self.table_index] = self.append_metadata(MARKER_GRAIN_TABLE, &bytes)?;
        self.table.fill(0);
        Ok(())
    }

    fn finish(mut self, uuid: &Uuid) -> Result<()> {
        self.flush_table()?;
        let mut bytes = little_endian(&self.directory);
        bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
        let directory = self.append_metadata(MARKER_GRAIN_DIRECTORY, &bytes)?;
        let footer = header(self.sectors, u64::from(directory));
        self.append_metadata(MARKER_FOOTER, &footer)?;
        self.append(&metadata_marker(0, MARKER_END_OF_STREAM))?;
        self.write(&descriptor::encode(self.sectors, uuid), DESCRIPTOR_SECTOR)?;
        // Last, so that a torn file is not mistaken for an image.
        self.write(&header(self.sectors, DIRECTORY_AT_END), 0)
    }

    /// A marker and whole sectors of metadata. Returns where those lie.
    fn append_metadata(&mut self, kind: u32, bytes: &[u8]) -> Result<u32> {
        self.append(&metadata_marker(bytes.len() as u64 / SECTOR, kind))?;
        self.append(bytes)
    }

    /// Whole sectors at the end. Returns the first of them.
    fn append(&mut self, bytes: &[u8]) -> Result<u32> {
        let at = u32::try_from(self.next).map_err(|_| {
            Error::build("a VMDK file cannot be larger than 2 TiB").hint("choose another type, or a smaller disk")
        })?;
        self.write(bytes, self.next)?;
        self.next += bytes.len() as u64 / SECTOR;
        Ok(at)
    }

    fn write(&self, bytes: &[u8], sector: u64) -> Result<()> {
        self.file.write_all_at(bytes, sector * SECTOR).context("writing the VMDK")
    }
}

fn little_endian(entries: &[u32]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}
