//! Disks and readers for the tests of the image writers.

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::{DiskImage, Extent};
use crate::format::raw;

/// Bytes that do not compress, the same each time.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| byte()).collect()
}

/// Text, noise and zeros, also across the borders of blocks; from 800 MiB on.
pub fn mixed(size: u64) -> DiskImage {
    let text = b"the quick brown fox ".repeat(40_000);
    let extents = vec![
        Extent::bytes(0, *b"boot"),
        Extent::bytes(65_530, text),
        Extent::bytes(2 << 20, noise(300_000, 7)),
        Extent::bytes(3 << 20, vec![0; 200_000]),
        Extent::bytes((700 << 20) + 123, noise(70_000, 8)),
        Extent::bytes(701 << 20, vec![b'x'; 5_000_000]),
        Extent::bytes(size - 5, *b"final"),
    ];
    DiskImage::new(size, extents).unwrap()
}

/// Small disks with anything on them.
pub fn any_disk() -> impl Strategy<Value = DiskImage> {
    let piece = (0.0..1.0f64, 1usize..300_000, 0u8..3, any::<u64>());
    (1u64..20_000_000, prop::collection::vec(piece, 0..12)).prop_map(|(size, pieces)| {
        let mut extents: Vec<Extent> = Vec::new();
        for (place, length, kind, seed) in pieces {
            let offset = (place * size as f64) as u64;
            let length = length.min((size - offset) as usize);
            let clear = extents.iter().all(|other| offset + length as u64 <= other.offset || other.end() <= offset);
            if clear && length > 0 {
                let bytes = match kind {
                    0 => noise(length, seed),
                    1 => vec![seed as u8; length],
                    _ => noise(length.min(97), seed).into_iter().cycle().take(length).collect(),
                };
                extents.push(Extent::bytes(offset, bytes));
            }
        }
        DiskImage::new(size, extents).unwrap()
    })
}

/// What qemu-img says; `None` without qemu-img.
pub fn qemu_img(arguments: &[&str], path: &Path) -> Option<String> {
    let output = match Command::new("qemu-img").args(arguments).arg(path).output() {
        Ok(output) => output,
        Err(_) => {
            println!("skipped: qemu-img is not installed");
            return None;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Some(said)
}

/// `qemu-img compare` finds the bytes of the disk in an image, which it knows as `format`, and `info` its size.
pub fn compare(disk: &DiskImage, image: &Path, format: &str) {
    let plain = tempfile::NamedTempFile::new().unwrap();
    raw::write(disk, plain.as_file(), &|_| ()).unwrap();
    plain.as_file().set_len(disk.size().next_multiple_of(512)).unwrap();
    let arguments = ["compare", "-f", format, "-F", "raw", image.to_str().unwrap()];
    qemu_img(&arguments, plain.path());
    if let Some(said) = qemu_img(&["info", "-f", format, "--output=json"], image) {
        let info: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(info["virtual-size"], disk.size().next_multiple_of(512));
    }
}
