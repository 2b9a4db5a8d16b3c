//! Two disks byte by byte, and names for the places where they differ.
//!
//! Owns: [`first_difference`], which skips what is a hole on both sides, [`name_on_disk`] and [`name_in_file`].

use std::ops::Range;

use crate::error::Result;
use crate::format::gpt::SECTOR;
use crate::inspect::disk::{qcow2::Qcow2, vhd::Vhd, vmdk::Vmdk};
use crate::inspect::gpt::{Gpt, Place};
use crate::inspect::image::{Container, FileSystem, Image, Volume};
use crate::inspect::source::Source;
use crate::interrupt;

const CHUNK: u64 = 1 << 20;

/// Where two stretches of one length differ first.
pub fn first_of(left: &[u8], right: &[u8]) -> Option<usize> {
    if left == right {
        return None;
    }
    left.iter().zip(right).position(|(one, two)| one != two)
}

/// The first offset in `range` at which the two differ. The range lies inside both.
pub fn first_difference(left: &dyn Source, right: &dyn Source, range: Range<u64>) -> Result<Option<u64>> {
    let mut buffers = [vec![0; CHUNK as usize], vec![0; CHUNK as usize]];
    let mut at = range.start;
    while at < range.end {
        interrupt::check()?;
        // From the next byte that is data on either side to the end of both stretches.
        let (one, two) = (left.data_after(at)?, right.data_after(at)?);
        let starts = [&one, &two].into_iter().flatten().map(|range| range.start).min();
        let Some(start) = starts.filter(|start| *start < range.end) else { return Ok(None) };
        let ends = [&one, &two].into_iter().flatten().filter(|range| range.start <= start).map(|range| range.end);
        let end = ends.max().unwrap_or(range.end).min(range.end);
        at = start;
        while at < end {
            interrupt::check()?;
            let length = (end - at).min(CHUNK) as usize;
            let [a, b] = &mut buffers;
            left.read_at(&mut a[..length], at)?;
            right.read_at(&mut b[..length], at)?;
            if let Some(within) = first_of(&a[..length], &b[..length]) {
                return Ok(Some(at + within as u64));
            }
            at += length as u64;
        }
    }
    Ok(None)
}

/// The structure at an offset of the disk, and where the region ends that it lies in.
pub fn name_on_disk(image: &Image, offset: u64) -> Result<(String, u64)> {
    let Some(table) = &image.table else {
        let name = image.volumes.first().map(|volume| explain(&volume.file_system, offset)).transpose()?;
        return Ok((name.unwrap_or_default(), image.disk.size()));
    };
    if let Some((name, end)) = in_table(table, offset) {
        return Ok((name, end));
    }
    for volume in &image.volumes {
        let Some(partition) = &volume.partition else { continue };
        if (partition.start..partition.end()).contains(&offset) {
            let inside = explain(&volume.file_system, offset - partition.start)?;
            return Ok((format!("partition {}: {inside}", partition.number), partition.end()));
        }
    }
    if let Some(FileSystem::Iso9660(iso)) = image.volumes.first().and_then(Volume::file_system) {
        return iso.explain(offset);
    }
    let next = table.partitions.iter().map(|partition| partition.start).filter(|start| *start > offset).min();
    Ok(("a gap between the partitions".to_owned(), next.unwrap_or(image.disk.size())))
}

fn explain(file_system: &Result<Option<FileSystem>>, offset: u64) -> Result<String> {
    match file_system {
        Ok(Some(FileSystem::Ext4(ext4))) => ext4.explain(offset),
        Ok(Some(FileSystem::Fat(fat))) => fat.explain(offset),
        Ok(Some(FileSystem::Squashfs(_))) => Ok("the squashfs".to_owned()),
        Ok(Some(FileSystem::Iso9660(iso))) => Ok(iso.explain(offset)?.0),
        Ok(None) => Ok("data without a file system (boot loader code)".to_owned()),
        Err(error) => Ok(format!("a file system that cannot be read: {error}")),
    }
}

/// Header fields by their first byte: UEFI 2.10 table 5.5.
const HEADER: [(u64, &str); 13] = [
    (0, "signature"),
    (8, "revision"),
    (12, "header size"),
    (16, "header checksum"),
    (24, "own place"),
    (32, "place of the other header"),
    (40, "first usable sector"),
    (48, "last usable sector"),
    (56, "disk identifier"),
    (72, "place of the entries"),
    (80, "number of entries"),
    (88, "checksum of the entries"),
    (92, "unused rest"),
];

fn in_table(table: &Gpt, offset: u64) -> Option<(String, u64)> {
    if offset < SECTOR {
        let part = match offset {
            0..440 => "boot code",
            440..446 => "disk signature",
            446..510 => "partition record",
            _ => "signature",
        };
        return Some((format!("the protective MBR, {part}"), SECTOR));
    }
    for (place, name) in table.places.iter().zip(["primary", "backup"]) {
        let Place { header, entries, entries_size } = *place;
        if (header..header + SECTOR).contains(&offset) {
            let field = HEADER.iter().rev().find(|(start, _)| *start <= offset - header).map_or("", |(_, name)| *name);
            return Some((format!("the {name} GPT header, field `{field}`"), header + SECTOR));
        }
        if (entries..entries + entries_size).contains(&offset) {
            let number = (offset - entries) / 128 + 1;
            return Some((format!("entry {number} of the {name} GPT"), entries + entries_size));
        }
    }
    None
}

/// The structure at an offset of the image file, where that is not simply the disk.
pub fn name_in_file(image: &Image, offset: u64) -> Result<String> {
    match &image.container {
        Container::Raw | Container::Iso => Ok(name_on_disk(image, offset)?.0),
        Container::Qcow2(qcow2) => in_qcow2(qcow2, offset),
        Container::Vmdk(vmdk) => in_vmdk(vmdk, image.file.size(), offset),
        Container::Vhd(vhd) => Ok(in_vhd(vhd, offset)),
        Container::Tar(_) => Ok("a header or the padding of a member".to_owned()),
    }
}

fn in_qcow2(qcow2: &Qcow2, offset: u64) -> Result<String> {
    let cluster = qcow2.cluster_size();
    if offset < cluster {
        return Ok("the qcow2 header".to_owned());
    }
    let l1 = qcow2.l1();
    if (qcow2.l1_offset..qcow2.l1_offset + l1.len() as u64 * 8).contains(&offset) {
        return Ok(format!("entry {} of the qcow2 L1 table", (offset - qcow2.l1_offset) / 8));
    }
    if qcow2.refcount_table.contains(&offset) {
        return Ok("the qcow2 refcount table".to_owned());
    }
    for (index, entry) in l1.iter().enumerate() {
        interrupt::check()?;
        let table = Qcow2::l2_offset(*entry);
        if table == 0 {
            continue;
        }
        if (table..table.saturating_add(cluster)).contains(&offset) {
            return Ok(format!("entry {} of the qcow2 L2 table {index}", (offset - table) / 8));
        }
        for slot in 0..cluster / 8 {
            let number = index as u64 * (cluster / 8) + slot;
            let (start, length) = match qcow2.cluster(number)? {
                crate::inspect::disk::qcow2::Cluster::Zero => continue,
                crate::inspect::disk::qcow2::Cluster::Plain(start) => (start, cluster),
                crate::inspect::disk::qcow2::Cluster::Compressed { offset, length } => (offset, length),
            };
            if (start..start.saturating_add(length)).contains(&offset) {
                return Ok(format!("the stored form of the disk's bytes at {}", number.saturating_mul(cluster)));
            }
        }
    }
    Ok("a qcow2 refcount block or unused cluster".to_owned())
}

fn in_vmdk(vmdk: &Vmdk, file: u64, offset: u64) -> Result<String> {
    if offset < SECTOR {
        return Ok("the VMDK header".to_owned());
    }
    if offset < 21 * SECTOR && !vmdk.create_type.is_empty() && offset < vmdk.directory_offset {
        return Ok("the VMDK descriptor".to_owned());
    }
    if offset >= vmdk.directory_offset && offset >= file.saturating_sub(3 * SECTOR) {
        return Ok("the VMDK footer".to_owned());
    }
    // Compressed grains follow each other closely: the last one that starts before the offset is it.
    let mut best: Option<(u64, String)> = None;
    for index in 0..vmdk.size().div_ceil(vmdk.grain) {
        interrupt::check()?;
        if let Some(table) = vmdk.table_offset(index) {
            if (table..table + vmdk.table_size()).contains(&offset) {
                return Ok("a VMDK grain table".to_owned());
            }
        }
        let start = vmdk.grain_offset(index)?.filter(|start| (*start..*start + 2 * vmdk.grain).contains(&offset));
        if let Some(start) = start.filter(|start| best.as_ref().is_none_or(|(other, _)| other < start)) {
            best = Some((start, format!("the stored form of the disk's bytes from {} on", index * vmdk.grain)));
        }
    }
    if let Some((_, name)) = best.filter(|_| offset < vmdk.directory_offset) {
        return Ok(name);
    }
    Ok("the VMDK grain directory".to_owned())
}

fn in_vhd(vhd: &Vhd, offset: u64) -> String {
    let Some(blocks) = &vhd.blocks else {
        return if offset >= vhd.size() { "the VHD footer".to_owned() } else { "the disk".to_owned() };
    };
    let table = blocks.table_offset..blocks.table_offset + blocks.table.len() as u64 * 4;
    if table.contains(&offset) {
        return format!("entry {} of the VHD block table", (offset - table.start) / 4);
    }
    if offset < SECTOR {
        return "the copy of the VHD footer".to_owned();
    }
    for index in 0..blocks.table.len() as u64 {
        let Some(start) = blocks.offset(index) else { continue };
        if (start - blocks.bitmap * SECTOR..start).contains(&offset) {
            return format!("the bitmap of VHD block {index}");
        }
        if (start..start + blocks.size).contains(&offset) {
            return format!("the disk's bytes at {}", index * blocks.size + (offset - start));
        }
    }
    if offset < blocks.table_offset { "the VHD dynamic header".to_owned() } else { "the VHD footer".to_owned() }
}
