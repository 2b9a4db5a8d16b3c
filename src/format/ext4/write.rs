//! What follows from a finished plan: bitmaps, inode tables, descriptors, superblocks; then all as sparse extents.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::Options;
use super::crc32c::crc32c;
use super::format::*;
use super::layout::Plan;
use crate::error::Result;
use crate::format::disk::{DiskImage, Extent};

pub fn write(mut plan: Plan, options: &Options) -> Result<DiskImage> {
    let mut extents = std::mem::take(&mut plan.extents);
    inode_tables(&plan, &mut extents);
    let mut descriptors = Vec::new();
    let (mut free_blocks, mut free_inodes) = (0, 0);
    for group in 0..plan.geometry.groups {
        let descriptor = describe(&plan, group, &mut extents);
        free_blocks += u64::from(descriptor.free_blocks);
        free_inodes += descriptor.free_inodes;
        descriptors.extend(descriptor.encode(group, plan.seed));
    }
    descriptors.resize((plan.geometry.descriptor_blocks * BLOCK) as usize, 0);
    let descriptors: Arc<[u8]> = descriptors.into();
    let superblock = superblock(&plan, options, free_blocks, free_inodes);
    for group in std::iter::once(0).chain(plan.geometry.backup_groups()) {
        let start = plan.geometry.group_start(group) * BLOCK;
        // The first one leaves room for a boot sector.
        let at = if group == 0 { 1024 } else { 0 };
        extents.push(Extent::bytes(start + at, superblock.encode(group)));
        extents.push(Extent::bytes(start + BLOCK, descriptors.clone()));
    }
    DiskImage::new(options.size, extents)
}

fn superblock(plan: &Plan, options: &Options, free_blocks: u64, free_inodes: u32) -> Superblock {
    let geometry = &plan.geometry;
    Superblock {
        blocks: geometry.blocks,
        reserved_blocks: geometry.blocks * options.reserved_percent.min(50) / 100,
        free_blocks,
        inodes: geometry.inodes() as u32,
        free_inodes,
        inodes_per_group: geometry.inodes_per_group as u32,
        reserved_gdt_blocks: geometry.reserved_gdt_blocks as u16,
        log_groups_per_flex: geometry.log_groups_per_flex as u8,
        uuid: options.uuid,
        hash_seed: options.hash_seed,
        label: options.label.as_bytes().to_vec(),
        time: options.time.seconds.clamp(0, i64::from(u32::MAX)) as u32,
        csum_seed_feature: options.features.metadata_csum_seed,
        ea_inode_feature: plan.outside_values,
        journal_blocks: plan.journal_data,
        journal_size: geometry.journal_blocks * BLOCK,
        kilobytes_written: 0,
    }
}

/// Only blocks with inodes; the rest of the tables stays a hole.
fn inode_tables(plan: &Plan, extents: &mut Vec<Extent>) {
    let mut current: Option<(u64, Vec<u8>)> = None;
    for (number, inode) in &plan.inodes {
        let offset = plan.geometry.inode_offset(*number);
        let block = offset / BLOCK * BLOCK;
        match &mut current {
            Some((at, bytes)) if *at + bytes.len() as u64 > block => {}
            Some((at, bytes)) if *at + bytes.len() as u64 == block => bytes.resize(bytes.len() + BLOCK as usize, 0),
            _ => {
                extents.extend(current.take().map(|(at, bytes)| Extent::bytes(at, bytes)));
                current = Some((block, vec![0; BLOCK as usize]));
            }
        }
        if let Some((at, bytes)) = &mut current {
            let within = (offset - *at) as usize;
            bytes[within..within + INODE as usize].copy_from_slice(inode);
        }
    }
    extents.extend(current.map(|(at, bytes)| Extent::bytes(at, bytes)));
}

/// The descriptor of a group; its bitmaps are written unless they say nothing that the reader could not tell.
fn describe(plan: &Plan, group: u64, extents: &mut Vec<Extent>) -> Descriptor {
    let geometry = &plan.geometry;
    let mut out = Descriptor {
        block_bitmap: geometry.block_bitmap(group),
        inode_bitmap: geometry.inode_bitmap(group),
        inode_table: geometry.inode_table(group),
        directories: plan.directories.get(&group).copied().unwrap_or(0),
        flags: GROUP_INODE_ZEROED,
        ..Descriptor::default()
    };
    inode_bitmap(plan, group, &mut out, extents);
    let (bitmap, free) = block_bitmap(plan, group);
    out.free_blocks = free as u32;
    let last = group + 1 == geometry.groups;
    let own_metadata = geometry.metadata(group).end - geometry.group_start(group) > geometry.super_blocks(group);
    let untouched = geometry.group_blocks(group) - free == geometry.super_blocks(group);
    if untouched && !own_metadata && !last {
        out.flags |= GROUP_BLOCK_UNINIT;
    } else {
        out.block_bitmap_checksum = crc32c(plan.seed, &bitmap);
        extents.push(Extent::bytes(out.block_bitmap * BLOCK, bitmap));
    }
    out
}

/// Reserved inodes, and those that there are; what lies behind the end of the table is taken.
fn inode_bitmap(plan: &Plan, group: u64, out: &mut Descriptor, extents: &mut Vec<Extent>) {
    let per_group = plan.geometry.inodes_per_group;
    let mut bitmap = vec![0; BLOCK as usize];
    set(&mut bitmap, per_group..8 * BLOCK);
    if group == 0 {
        set(&mut bitmap, 0..u64::from(FIRST_INODE) - 1);
    }
    let first = (group * per_group) as u32 + 1;
    for number in numbers(&plan.inodes, first..first + per_group as u32) {
        let bit = u64::from(number - first);
        set(&mut bitmap, bit..bit + 1);
    }
    let table = &bitmap[..(per_group / 8) as usize];
    let used: u64 = table.iter().map(|byte| u64::from(byte.count_ones())).sum();
    let end = table
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at as u64 * 8 + 8 - u64::from(table[at].leading_zeros()));
    out.free_inodes = (per_group - used) as u32;
    out.unused_inodes = (per_group - end) as u32;
    if used == 0 {
        out.flags |= GROUP_INODE_UNINIT;
    } else {
        out.inode_bitmap_checksum = crc32c(plan.seed, table);
        extents.push(Extent::bytes(out.inode_bitmap * BLOCK, bitmap));
    }
}

fn numbers<T>(inodes: &BTreeMap<u32, T>, range: Range<u32>) -> impl Iterator<Item = u32> + '_ {
    inodes.range(range).map(|(number, _)| *number)
}

/// Metadata of the group, what the plan uses, and what lies behind the end of the disk is taken.
fn block_bitmap(plan: &Plan, group: u64) -> (Vec<u8>, u64) {
    let start = plan.geometry.group_start(group);
    let blocks = plan.geometry.group_blocks(group);
    let end = start + blocks;
    let mut bitmap = vec![0; BLOCK as usize];
    let metadata = plan.geometry.metadata(group);
    let mut free = blocks - (metadata.end - metadata.start);
    set(&mut bitmap, blocks..8 * BLOCK);
    set(&mut bitmap, metadata.start - start..metadata.end - start);
    let first = plan.used.partition_point(|range| range.end <= start);
    for range in plan.used[first..].iter().take_while(|range| range.start < end) {
        let (from, to) = (range.start.max(start), range.end.min(end));
        set(&mut bitmap, from - start..to - start);
        free -= to - from;
    }
    (bitmap, free)
}

fn set(bitmap: &mut [u8], bits: Range<u64>) {
    for bit in bits {
        bitmap[(bit / 8) as usize] |= 1 << (bit % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::Geometry;

    #[test]
    fn backups_are_where_readers_look() {
        let groups: Vec<u64> = (0..130).filter(|group| Geometry::has_super(*group)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }
}
