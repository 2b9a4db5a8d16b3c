//! Images read back by qemu-img where it is installed; structure and sameness for any number of threads everywhere.

use std::io::Read;
use std::path::Path;

use proptest::prelude::*;
use uuid::Uuid;

use super::format::*;
use super::*;
use crate::format::disk::testing::{any_disk, compare, mixed, noise, qemu_img};
use crate::format::disk::{DiskImage, Extent};

const IDENTITY: Uuid = Uuid::from_u128(0x6ba7_b810_9dad_51d1_80b4_00c0_4fd4_30c8);

fn image(disk: &DiskImage, threads: usize) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    write(disk, file.as_file(), &Options { uuid: IDENTITY, threads: Some(threads) }, &|_| ()).unwrap();
    file
}

fn verify(disk: &DiskImage) {
    let file = image(disk, 2);
    assert_follows_the_specification(disk, file.path());
    let Some(said) = qemu_img(&["check", "-f", "vmdk"], file.path()) else { return };
    assert!(said.contains("No errors"), "{said}");
    compare(disk, file.path(), "vmdk");
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Walks the stream from front to back as an importer does: every grain by its marker, each table behind its grains,
/// directory, footer, end. What the markers say and what the tables say must be the same, and the bytes the disk's.
fn assert_follows_the_specification(disk: &DiskImage, path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let sectors = disk.size().div_ceil(SECTOR);
    assert_eq!(bytes[..512], header(sectors, DIRECTORY_AT_END));
    assert!(bytes[512..].starts_with(b"# Disk DescriptorFile\n"));
    let mut at = (OVERHEAD_SECTORS * SECTOR) as usize;
    let (mut grains, mut tables, mut directory) = (Vec::new(), Vec::new(), None);
    loop {
        let (value, size, kind) = (number64(&bytes, at), number32(&bytes, at + 8), number32(&bytes, at + 12));
        if size > 0 {
            let mut grain = Vec::new();
            let stream = &bytes[at + 12..at + 12 + size as usize];
            flate2::read::ZlibDecoder::new(stream).read_to_end(&mut grain).unwrap();
            assert_eq!(grain.len() as u64, GRAIN.min((sectors - value) * SECTOR));
            let mut wanted = vec![0; grain.len()];
            disk.read_at(&mut wanted, value * SECTOR).unwrap();
            assert!(grain == wanted);
            grains.push((value / GRAIN_SECTORS, (at as u64 / SECTOR) as u32));
            at += (12 + size as usize).next_multiple_of(512);
            continue;
        }
        at += 512;
        let content = &bytes[at..at + value as usize * 512];
        match kind {
            MARKER_GRAIN_TABLE => tables.push((at as u64 / SECTOR, content)),
            MARKER_GRAIN_DIRECTORY => directory = Some((at as u64 / SECTOR, content)),
            MARKER_FOOTER => assert_eq!(content, header(sectors, directory.unwrap().0)),
            MARKER_END_OF_STREAM => break,
            other => panic!("marker {other}"),
        }
        at += content.len();
    }
    assert_eq!(at, bytes.len());
    let mut found = Vec::new();
    for (index, entry) in directory.unwrap().1.chunks(4).enumerate() {
        let entry = u64::from(number32(entry, 0));
        let Some((_, table)) = tables.iter().find(|(sector, _)| *sector == entry) else {
            assert_eq!(entry, 0);
            continue;
        };
        let entries = table.chunks(4).enumerate().map(|(slot, entry)| (slot as u64, number32(entry, 0)));
        let used = entries.filter(|(_, sector)| *sector != 0);
        found.extend(used.map(|(slot, sector)| (index as u64 * TABLE_ENTRIES + slot, sector)));
    }
    assert_eq!(found, grains);
}

#[test]
fn independent_readers_see_the_disk() {
    verify(&mixed(19 << 30));
}

#[test]
fn threads_do_not_change_the_bytes() {
    let disk = mixed(19 << 30);
    let one = std::fs::read(image(&disk, 1).path()).unwrap();
    for threads in [2, 3, 8] {
        assert!(one == std::fs::read(image(&disk, threads).path()).unwrap());
    }
}

#[test]
fn odd_and_large_sizes() {
    for size in [1, 511, 512, 513, 65_535, 65_536, 65_537, TABLE_COVERS - 1, TABLE_COVERS, TABLE_COVERS + 1] {
        verify(&DiskImage::new(size, vec![Extent::bytes(size - 1, *b"!")]).unwrap());
    }
    verify(&DiskImage::empty(412 << 30));
    let size = 412 << 30;
    verify(&DiskImage::new(size, vec![Extent::bytes(size - 512, vec![1; 512])]).unwrap());
    verify(&DiskImage::new(1 << 20, vec![Extent::bytes(0, noise(1 << 20, 3))]).unwrap());
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    for size in [0, MAX_VIRTUAL_SIZE + 1, u64::MAX] {
        let file = tempfile::tempfile().unwrap();
        let options = Options { uuid: IDENTITY, threads: None };
        let error = write(&DiskImage::empty(size), &file, &options, &|_| ()).unwrap_err();
        assert!(error.to_string().contains(&format!("virtual size of {size} bytes")), "{error}");
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}

#[test]
fn info_names_the_kind_and_the_content_id() {
    let file = image(&mixed(19 << 30), 1);
    let Some(said) = qemu_img(&["info", "--output=json"], file.path()) else { return };
    let info: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(info["format"], "vmdk");
    assert_eq!(info["format-specific"]["data"]["create-type"], "streamOptimized");
    assert_eq!(info["format-specific"]["data"]["cid"], 0x4fd4_30c8);
    assert_eq!(info["format-specific"]["data"]["parent-cid"], u32::MAX);
    assert_eq!(info["format-specific"]["data"]["extents"][0]["compressed"], true);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_disk_comes_back(disk in any_disk()) {
        verify(&disk);
    }
}
