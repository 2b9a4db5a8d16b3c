//! The extents of a laid-out file system: boot sectors, FATs as far as used, folders, and the contents of files.

use super::format::{
    ATTRIBUTE_ARCHIVE, ATTRIBUTE_DIRECTORY, ATTRIBUTE_VOLUME, BACKUP_SECTOR, BootSector, FSINFO_SECTOR, ROOT_CLUSTER,
    SECTOR, ShortEntry, encode_fsinfo, encode_long, push_fat_entry, reserved_entries,
};
use super::layout::{Layout, Node, NodeKind, Options};
use crate::error::Result;
use crate::format::disk::{DiskImage, Extent};

pub fn write(layout: &Layout, options: &Options) -> Result<DiskImage> {
    let geometry = &layout.geometry;
    let mut extents = boot_sectors(layout, options);
    let fat = fat(layout);
    extents.extend((0..2).map(|copy| Extent::bytes(geometry.fat_offset(copy), fat.clone())));
    for (index, node) in layout.nodes.iter().enumerate() {
        let offset = match node.cluster {
            0 if index == 0 => geometry.root_offset(),
            0 => continue,
            cluster => geometry.cluster_offset(cluster),
        };
        extents.push(match &node.kind {
            NodeKind::Directory { parent, children } => {
                Extent::bytes(offset, directory(layout, index, *parent, children))
            }
            NodeKind::File(content) => Extent::content(offset, content.clone()),
        });
    }
    DiskImage::new(options.size, extents)
}

fn boot_sectors(layout: &Layout, options: &Options) -> Vec<Extent> {
    let geometry = &layout.geometry;
    // The casts hold: the geometry was checked to be one of a FAT.
    let boot = BootSector {
        fat32: geometry.fat32,
        sectors_per_cluster: geometry.sectors_per_cluster as u8,
        reserved_sectors: geometry.reserved_sectors as u16,
        root_entries: geometry.root_entries as u16,
        sectors: geometry.sectors as u32,
        fat_sectors: geometry.fat_sectors as u32,
        hidden_sectors: options.hidden_sectors,
        volume_id: options.volume_id,
        label: layout.label.unwrap_or(*b"NO NAME    "),
    }
    .encode();
    if !geometry.fat32 {
        return vec![Extent::bytes(0, boot)];
    }
    let fsinfo = encode_fsinfo((geometry.clusters - layout.used) as u32, ROOT_CLUSTER + layout.used as u32);
    // The third sector of the boot record holds nothing but its signature.
    let mut third = [0; SECTOR as usize];
    third[510..512].copy_from_slice(&[0x55, 0xAA]);
    let record = [&boot[..], &fsinfo, &third].concat();
    debug_assert_eq!(FSINFO_SECTOR, 1);
    [0, BACKUP_SECTOR].map(|sector| Extent::bytes(sector * SECTOR, record.clone())).into()
}

/// One copy, up to the last entry in use.
fn fat(layout: &Layout) -> Vec<u8> {
    let fat32 = layout.geometry.fat32;
    let mut out = reserved_entries(fat32);
    let mut placed: Vec<&Node> = layout.nodes.iter().filter(|node| node.clusters > 0).collect();
    placed.sort_by_key(|node| node.cluster);
    for node in placed {
        for cluster in node.cluster + 1..node.cluster + node.clusters {
            push_fat_entry(&mut out, fat32, Some(cluster));
        }
        push_fat_entry(&mut out, fat32, None);
    }
    out
}

fn directory(layout: &Layout, index: usize, parent: usize, children: &[usize]) -> Vec<u8> {
    let nodes = &layout.nodes;
    let mut out = Vec::new();
    let folder = |name: &[u8; 11], time, cluster| {
        ShortEntry { name: *name, attributes: ATTRIBUTE_DIRECTORY, time, cluster, size: 0 }.encode()
    };
    if index != 0 {
        out.extend(folder(b".          ", nodes[index].time, nodes[index].cluster));
        // The root counts as cluster 0 here, also in FAT32.
        let above = if parent == 0 { 0 } else { nodes[parent].cluster };
        out.extend(folder(b"..         ", nodes[parent].time, above));
    } else if let Some(name) = layout.label {
        let time = nodes[0].time;
        out.extend(ShortEntry { name, attributes: ATTRIBUTE_VOLUME, time, cluster: 0, size: 0 }.encode());
    }
    for child in children.iter().map(|child| &nodes[*child]) {
        if !child.name.long.is_empty() {
            out.extend(encode_long(&child.name.long, &child.name.short));
        }
        let (attributes, size) = match &child.kind {
            NodeKind::Directory { .. } => (ATTRIBUTE_DIRECTORY, 0),
            // Fits: checked when the node was made.
            NodeKind::File(content) => (ATTRIBUTE_ARCHIVE, content.size() as u32),
        };
        let (name, time, cluster) = (child.name.short, child.time, child.cluster);
        out.extend(ShortEntry { name, attributes, time, cluster, size }.encode());
    }
    out
}
