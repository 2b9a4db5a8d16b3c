//! What follows from a finished plan: bitmaps, inode tables, descriptors, superblocks; then all as sparse extents.

use super::Options;
use super::crc32c::crc32c;
use super::format::*;
use super::layout::Plan;
use crate::error::Result;
use crate::format::disk::{DiskImage, Extent};

pub fn write(mut plan: Plan, options: &Options) -> Result<DiskImage> {
    let mut extents = std::mem::take(&mut plan.extents);
    let highest = plan.inodes.keys().next_back().copied().unwrap_or(FIRST_INODE);
    inode_tables(&plan, &mut extents);
    let mut descriptors = Vec::new();
    let (mut free_blocks, mut free_inodes) = (0, 0);
    for group in 0..plan.geometry.groups {
        let descriptor = describe(&plan, group, highest, &mut extents);
        free_blocks += u64::from(descriptor.free_blocks);
        free_inodes += descriptor.free_inodes;
        descriptors.extend(descriptor.encode(group, plan.seed));
    }
    descriptors.resize((plan.geometry.descriptor_blocks * BLOCK) as usize, 0);
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
        if current.as_ref().is_none_or(|(at, _)| *at != block) {
            extents.extend(current.take().map(|(at, bytes)| Extent::bytes(at, bytes)));
            current = Some((block, vec![0; BLOCK as usize]));
        }
        if let Some((_, bytes)) = &mut current {
            let within = (offset - block) as usize;
            bytes[within..within + INODE as usize].copy_from_slice(inode);
        }
    }
    extents.extend(current.map(|(at, bytes)| Extent::bytes(at, bytes)));
}

/// The descriptor of a group; its bitmaps are written unless they say nothing that the reader could not tell.
fn describe(plan: &Plan, group: u64, highest: u32, extents: &mut Vec<Extent>) -> Descriptor {
    let geometry = &plan.geometry;
    let per_group = geometry.inodes_per_group;
    let used_inodes = u64::from(highest).saturating_sub(group * per_group).min(per_group);
    let mut out = Descriptor {
        block_bitmap: geometry.block_bitmap(group),
        inode_bitmap: geometry.inode_bitmap(group),
        inode_table: geometry.inode_table(group),
        free_inodes: (per_group - used_inodes) as u32,
        unused_inodes: (per_group - used_inodes) as u32,
        directories: plan.directories.get(&group).copied().unwrap_or(0),
        flags: GROUP_INODE_ZEROED,
        ..Descriptor::default()
    };
    if used_inodes == 0 {
        out.flags |= GROUP_INODE_UNINIT;
    } else {
        let mut bitmap = vec![0xFF; BLOCK as usize];
        clear(&mut bitmap, used_inodes, per_group);
        out.inode_bitmap_checksum = crc32c(plan.seed, &bitmap[..(per_group / 8) as usize]);
        extents.push(Extent::bytes(out.inode_bitmap * BLOCK, bitmap));
    }
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

/// All taken (also what lies behind the end of the disk), but for what was not handed out.
fn block_bitmap(plan: &Plan, group: u64) -> (Vec<u8>, u64) {
    let start = plan.geometry.group_start(group);
    let end = start + plan.geometry.group_blocks(group);
    let mut bitmap = vec![0xFF; BLOCK as usize];
    let mut free = 0;
    let rest = plan.allocator.rest();
    let first = rest.partition_point(|range| range.end <= start);
    for range in rest[first..].iter().take_while(|range| range.start < end) {
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            clear(&mut bitmap, from - start, to - start);
            free += to - from;
        }
    }
    (bitmap, free)
}

fn clear(bitmap: &mut [u8], from: u64, to: u64) {
    for bit in from..to {
        bitmap[(bit / 8) as usize] &= !(1 << (bit % 8));
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
