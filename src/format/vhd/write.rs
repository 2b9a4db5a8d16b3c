//! Writes a [`DiskImage`] as a fixed or a dynamic VHD.

use std::fs::File;
use std::os::unix::fs::FileExt;

use uuid::Uuid;

use super::format::{
    BITMAP, BLOCK, DYNAMIC_HEADER_OFFSET, MAX_VIRTUAL_SIZE, SECTOR, TABLE_OFFSET, TYPE_DYNAMIC, TYPE_FIXED, UNUSED,
    dynamic_header, footer,
};
use crate::error::{Context, Error, Result};
use crate::format::disk::{DiskImage, sparse};
use crate::interrupt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Subformat {
    /// Only blocks with data.
    #[default]
    Dynamic,
    /// The whole disk, then a footer: the only kind that Azure takes.
    Fixed,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub subformat: Subformat,
    /// "Unique ID" of the disk.
    pub uuid: Uuid,
    /// When the image was made, in seconds since 1970; clamped to what the field can hold.
    pub seconds: i64,
}

/// The data of a block starts at a multiple of this, so that its pages are pages of the host and zeros can be holes.
const ALIGNMENT: u64 = 4096;

/// Refuses what the format cannot hold.
pub fn check_size(size: u64) -> Result<()> {
    if size == 0 || size > MAX_VIRTUAL_SIZE {
        return Err(Error::documents(format!("a VHD cannot have a virtual size of {size} bytes"))
            .hint("it takes 1 byte to 2040 GiB: change `storage.qcow_capacity`, or leave `vhd` out"));
    }
    Ok(())
}

/// Writes `disk` into `file`, which must be empty. `progress` gets the number of bytes of the disk done since the last
/// call; together they are [`DiskImage::data_size`] where the whole disk is stored, else [`DiskImage::touched_size`] of
/// blocks.
pub fn write(disk: &DiskImage, file: &File, options: &Options, progress: &dyn Fn(u64)) -> Result<()> {
    check_size(disk.size())?;
    let size = disk.size().next_multiple_of(SECTOR);
    match options.subformat {
        Subformat::Fixed => fixed(disk, size, file, options, progress),
        Subformat::Dynamic => dynamic(disk, size, file, options, progress),
    }
    .context("writing the VHD")
}

fn fixed(disk: &DiskImage, size: u64, file: &File, options: &Options, progress: &dyn Fn(u64)) -> Result<()> {
    file.set_len(size).context("sizing the image")?;
    sparse::copy(disk, file, progress)?;
    // Last, so that a torn file is not mistaken for an image.
    put(file, &footer(size, TYPE_FIXED, options.seconds, &options.uuid), size)
}

fn dynamic(disk: &DiskImage, size: u64, file: &File, options: &Options, progress: &dyn Fn(u64)) -> Result<()> {
    let blocks = size.div_ceil(BLOCK);
    let mut table = vec![UNUSED; blocks as usize];
    let mut end = TABLE_OFFSET + (blocks * 4).next_multiple_of(SECTOR);
    let mut buffer = vec![0; BLOCK as usize];
    for index in disk.touched_blocks(BLOCK) {
        interrupt::check()?;
        disk.read_at(&mut buffer, index * BLOCK)?;
        progress(BLOCK);
        if sparse::is_zero(&buffer) {
            continue;
        }
        let data = (end + BITMAP).next_multiple_of(ALIGNMENT);
        let bitmap = data - BITMAP;
        table[index as usize] = sector(bitmap)?;
        // Every sector of the block counts as written: what is not data reads as zero in the file as well.
        put(file, &[0xFF; BITMAP as usize], bitmap)?;
        end = data + BLOCK;
        file.set_len(end).context("sizing the image")?;
        sparse::write_at(file, &buffer, data).context("writing a block")?;
    }
    let footer = footer(size, TYPE_DYNAMIC, options.seconds, &options.uuid);
    put(file, &footer, end)?;
    let mut bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
    // "The BAT is always extended to a sector boundary."
    bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0xFF);
    put(file, &bytes, TABLE_OFFSET)?;
    // The cast holds: at most 2040 GiB in blocks of 2 MiB.
    put(file, &dynamic_header(blocks as u32), DYNAMIC_HEADER_OFFSET)?;
    // Last, so that a torn file is not mistaken for an image.
    put(file, &footer, 0)
}

/// As the BAT has it. 2040 GiB of blocks with their bitmaps stay below what 32 bits can address.
fn sector(offset: u64) -> Result<u32> {
    u32::try_from(offset / SECTOR).map_err(|_| Error::build("a VHD file cannot be larger than 2 TiB"))
}

fn put(file: &File, bytes: &[u8], offset: u64) -> Result<()> {
    file.write_all_at(bytes, offset).context("writing")
}
