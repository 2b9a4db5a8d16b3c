//! Every time that the structures of a disk hold, read straight from its bytes: what an image says about when it was
//! made. ext4 as in the kernel's documentation (filesystems/ext4), FAT as in Microsoft's specification 1.03, GPT as in
//! UEFI 2.10. Written for tests, shares nothing with the writers.

#![allow(dead_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Where a time stands, and the time.
pub type Found = (String, i64);

/// All times of a raw disk image with a GPT.
pub fn of_disk(disk: &File) -> Vec<Found> {
    let header = read(disk, 512, 512);
    assert_eq!(&header[..8], b"EFI PART", "no GPT");
    let (table, count) = (u64_at(&header, 72) * 512, u32_at(&header, 80));
    let mut found = Vec::new();
    for number in 0..u64::from(count) {
        let entry = read(disk, table + number * 128, 128);
        if entry[..16].iter().any(|byte| *byte != 0) {
            let start = u64_at(&entry, 32) * 512;
            let which = format!("partition {}", number + 1);
            let head = read(disk, start, 4096);
            if head[1024 + 56..1024 + 58] == [0x53, 0xef] {
                found.extend(of_ext4(disk, start, &which));
            } else if head[510..512] == [0x55, 0xaa] {
                found.extend(of_fat(disk, start, &head, &which));
            }
        }
    }
    found
}

fn of_ext4(disk: &File, start: u64, which: &str) -> Vec<Found> {
    let superblock = read(disk, start + 1024, 1024);
    let mut found = Vec::new();
    // (name, low 32 bits, high 8 bits)
    for (name, low, high) in [
        ("s_mtime", 44, 0x274),
        ("s_wtime", 48, 0x274 + 1),
        ("s_lastcheck", 64, 0x274 + 3),
        ("s_mkfs_time", 264, 0x274 + 2),
    ] {
        let seconds = i64::from(u32_at(&superblock, low)) | i64::from(superblock[high]) << 32;
        found.push((format!("{which}, ext4 superblock {name}"), seconds));
    }
    let block = 1024u64 << u32_at(&superblock, 24);
    let (inodes, per_group) = (u32_at(&superblock, 0), u32_at(&superblock, 40));
    let (size, descriptor) = (u64::from(u16_at(&superblock, 88)), u64::from(u16_at(&superblock, 254)).max(32));
    let first = if block == 1024 { 2 } else { 1 };
    for group in 0..u64::from(inodes.div_ceil(per_group)) {
        let at = read(disk, start + first * block + group * descriptor, descriptor as usize);
        let high = if descriptor >= 64 { u64::from(u32_at(&at, 40)) << 32 } else { 0 };
        let table = start + (u64::from(u32_at(&at, 8)) | high) * block;
        let inodes = read(disk, table, (u64::from(per_group) * size) as usize);
        for (index, inode) in inodes.chunks(size as usize).enumerate() {
            if inode.iter().all(|byte| *byte == 0) {
                continue;
            }
            let number = group * u64::from(per_group) + index as u64 + 1;
            for (name, low, extra) in
                [("atime", 8, 140), ("ctime", 12, 132), ("mtime", 16, 136), ("crtime", 144, 148), ("dtime", 20, 0)]
            {
                // The extra field: two bits that extend the seconds, thirty of nanoseconds. The low word is signed.
                let extended = if extra == 0 { 0 } else { i64::from(u32_at(inode, extra) & 3) << 32 };
                found.push((
                    format!("{which}, ext4 inode {number} {name}"),
                    i64::from(u32_at(inode, low) as i32) + extended,
                ));
            }
        }
    }
    found
}

fn of_fat(disk: &File, start: u64, head: &[u8], which: &str) -> Vec<Found> {
    let sector = u64::from(u16_at(head, 11));
    let cluster = u64::from(head[13]) * sector;
    let reserved = u64::from(u16_at(head, 14)) * sector;
    let (fats, root_entries) = (u64::from(head[16]), u64::from(u16_at(head, 17)));
    let fat_sectors = match u16_at(head, 22) {
        0 => u64::from(u32_at(head, 36)),
        few => u64::from(few),
    };
    let fat_size = fat_sectors * sector;
    let root = start + reserved + fats * fat_size;
    let data = root + root_entries * 32;
    let fat = read(disk, start + reserved, fat_size as usize);
    let wide = u16_at(head, 22) == 0;
    let next = |number: u64| {
        if wide {
            u64::from(u32_at(&fat, number as usize * 4) & 0x0fff_ffff)
        } else {
            u64::from(u16_at(&fat, number as usize * 2))
        }
    };
    let last = if wide { 0x0fff_fff8 } else { 0xfff8 };
    let chain = |mut number: u64| {
        let mut bytes = Vec::new();
        while number >= 2 && number < last {
            bytes.extend(read(disk, data + (number - 2) * cluster, cluster as usize));
            number = next(number);
        }
        bytes
    };
    let top = if wide { chain(u64::from(u32_at(head, 44))) } else { read(disk, root, (root_entries * 32) as usize) };
    let mut todo = vec![(String::new(), top)];
    let mut found = Vec::new();
    while let Some((folder, bytes)) = todo.pop() {
        for entry in bytes.chunks(32).take_while(|entry| entry[0] != 0) {
            let attributes = entry[11];
            if attributes == 0x0f || entry[0] == 0xe5 {
                continue;
            }
            let name = format!("{folder}/{}", String::from_utf8_lossy(&entry[..11]).trim_end());
            for (what, date, time) in [("made", 16, Some(14)), ("read", 18, None), ("written", 24, Some(22))] {
                let time = time.map_or(0, |at| u16_at(entry, at));
                found.push((format!("{which}, FAT entry {name} {what}"), fat_time(u16_at(entry, date), time)));
            }
            if attributes & 0x10 != 0 && entry[0] != b'.' {
                let first = u64::from(u16_at(entry, 26)) | u64::from(u16_at(entry, 20)) << 16;
                todo.push((name, chain(first)));
            }
        }
    }
    found
}

/// Seconds since 1970 of a FAT date and time, read as UTC; no date is no time.
fn fat_time(date: u16, time: u16) -> i64 {
    if date == 0 {
        return 0;
    }
    let (year, month, day) = (1980 + i64::from(date >> 9), i64::from(date >> 5 & 15), i64::from(date & 31));
    // Days from the civil calendar: years begin in March, so that the leap day comes last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    days * 86_400 + i64::from(time >> 11) * 3600 + i64::from(time >> 5 & 63) * 60 + i64::from(time & 31) * 2
}

fn read(file: &File, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
