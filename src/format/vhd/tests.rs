//! Images read back by qemu-img (which calls them `vpc`) where it is installed; structure and sameness everywhere.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use proptest::prelude::*;
use uuid::Uuid;

use super::format::*;
use super::*;
use crate::format::disk::testing::{any_disk, compare, mixed, noise};
use crate::format::disk::{DiskImage, Extent};

const BOTH: [Subformat; 2] = [Subformat::Dynamic, Subformat::Fixed];

fn options(subformat: Subformat) -> Options {
    Options { subformat, uuid: Uuid::from_u128(0x6ba7_b810_9dad_51d1_80b4_00c0_4fd4_30c8), seconds: 1_700_000_000 }
}

fn image(disk: &DiskImage, subformat: Subformat) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    write(disk, file.as_file(), &options(subformat), &|_| ()).unwrap();
    file
}

fn verify(disk: &DiskImage, subformat: Subformat) {
    let file = image(disk, subformat);
    if subformat == Subformat::Dynamic {
        assert_blocks_are_the_disk(disk, file.path());
    }
    compare(disk, file.path(), "vpc");
}

/// Copy of the footer, table, bitmaps and blocks, each where the specification wants it, with the bytes of the disk.
fn assert_blocks_are_the_disk(disk: &DiskImage, path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    let read = |offset: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    };
    let size = disk.size().next_multiple_of(SECTOR);
    let end = file.metadata().unwrap().len();
    assert_eq!(read(0, FOOTER), read(end - FOOTER as u64, FOOTER));
    assert_eq!(read(0, FOOTER), footer(size, TYPE_DYNAMIC, 1_700_000_000, &options(Subformat::Dynamic).uuid));
    let header = read(DYNAMIC_HEADER_OFFSET, DYNAMIC_HEADER);
    let blocks = u32::from_be_bytes(header[28..32].try_into().unwrap());
    assert_eq!(u64::from(blocks), size.div_ceil(BLOCK));
    let mut next = TABLE_OFFSET + (u64::from(blocks) * 4).next_multiple_of(SECTOR);
    for (index, entry) in read(TABLE_OFFSET, blocks as usize * 4).chunks(4).enumerate() {
        let mut wanted = vec![0; BLOCK as usize];
        disk.read_at(&mut wanted, index as u64 * BLOCK).unwrap();
        let sector = u32::from_be_bytes(entry.try_into().unwrap());
        if sector == UNUSED {
            assert!(wanted.iter().all(|byte| *byte == 0));
            continue;
        }
        let bitmap = u64::from(sector) * SECTOR;
        assert!(bitmap >= next && bitmap + BITMAP + BLOCK + FOOTER as u64 <= end);
        assert_eq!(read(bitmap, BITMAP as usize), [0xFF; BITMAP as usize]);
        assert!(read(bitmap + BITMAP, BLOCK as usize) == wanted);
        next = bitmap + BITMAP + BLOCK;
    }
}

#[test]
fn independent_readers_see_the_disk() {
    for subformat in BOTH {
        verify(&mixed(1 << 30), subformat);
    }
}

#[test]
fn the_same_bytes_again() {
    let disk = mixed(19 << 30);
    let dynamic = || std::fs::read(image(&disk, Subformat::Dynamic).path()).unwrap();
    assert!(dynamic() == dynamic());
}

#[test]
fn zeros_are_holes_of_the_host() {
    for subformat in BOTH {
        let file = image(&mixed(19 << 30), subformat);
        let metadata = file.as_file().metadata().unwrap();
        // About 6 MB of data; a host without holes would need all of it.
        assert!(metadata.blocks() * 512 < 12 << 20, "{} of {}", metadata.blocks() * 512, metadata.len());
    }
    assert_eq!(image(&mixed(19 << 30), Subformat::Fixed).as_file().metadata().unwrap().len(), (19 << 30) + 512);
}

#[test]
fn odd_and_large_sizes() {
    let block = BLOCK;
    for size in [1, 511, 512, 513, 4095, 4097, block - 1, block, block + 1, (17 * 16 * 1024 + 1) * 512 + 7] {
        let disk = DiskImage::new(size, vec![Extent::bytes(size - 1, *b"!")]).unwrap();
        for subformat in BOTH {
            verify(&disk, subformat);
        }
    }
    for size in [412 << 30, MAX_VIRTUAL_SIZE] {
        let disk = DiskImage::new(size, vec![Extent::bytes(size - 512, noise(512, 1))]).unwrap();
        assert!(image(&disk, Subformat::Dynamic).as_file().metadata().unwrap().len() < 8 << 20);
        compare(&disk, image(&disk, Subformat::Dynamic).path(), "vpc");
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    for subformat in BOTH {
        for size in [0, MAX_VIRTUAL_SIZE + 1, u64::MAX] {
            let file = tempfile::tempfile().unwrap();
            let error = write(&DiskImage::empty(size), &file, &options(subformat), &|_| ()).unwrap_err();
            assert!(error.to_string().contains(&format!("virtual size of {size} bytes")), "{error}");
            assert_eq!(file.metadata().unwrap().len(), 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_disk_comes_back(disk in any_disk(), subformat in prop::sample::select(BOTH.to_vec())) {
        verify(&disk, subformat);
    }
}
