//! Tables read back by gptman and, where installed, sgdisk.

use std::process::Command;

use super::*;
use crate::format::disk::DiskImage;
use uuid::Uuid;

const LINUX: Uuid = Uuid::from_u128(0x0FC63DAF_8483_4772_8E79_3D69D8477DE4);

fn table(disk_size: u64) -> Table {
    let partition = |number: u64, first_lba, last_lba| Partition {
        type_guid: LINUX,
        guid: Uuid::from_u128(0x1000 + u128::from(number)),
        first_lba,
        last_lba,
        attributes: if number == 2 { 1 << 2 } else { 0 },
        name: format!("part-ä{number}"),
    };
    Table {
        disk_size,
        disk_guid: Uuid::from_u128(0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF),
        // Not in order of their place, as upstream's layout.
        partitions: vec![
            partition(1, 4096, last_usable(disk_size / 512)),
            partition(2, 34, 2047),
            partition(3, 2048, 4095),
        ],
        boot_code: vec![0x90; 440],
    }
}

fn image(table: &Table) -> tempfile::NamedTempFile {
    let disk = DiskImage::new(table.disk_size, table.layout().unwrap().extents().into()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    crate::format::raw::write(&disk, file.as_file(), &|_| ()).unwrap();
    file
}

#[test]
fn gptman_reads_both_copies() {
    let table = table(64 << 20);
    let file = image(&table);
    for wipe in [None, Some(512), Some((64 << 20) - 512)] {
        if let Some(offset) = wipe {
            let original = {
                use std::os::unix::fs::FileExt;
                let mut sector = [0; 512];
                file.as_file().read_exact_at(&mut sector, offset).unwrap();
                file.as_file().write_all_at(&[0; 512], offset).unwrap();
                sector
            };
            check_with_gptman(&file, &table);
            use std::os::unix::fs::FileExt;
            file.as_file().write_all_at(&original, offset).unwrap();
        } else {
            check_with_gptman(&file, &table);
        }
    }
}

fn check_with_gptman(file: &tempfile::NamedTempFile, table: &Table) {
    let read = gptman::GPT::find_from(&mut file.reopen().unwrap()).unwrap();
    assert_eq!(read.header.disk_guid, table.disk_guid.to_bytes_le());
    assert_eq!((read.header.first_usable_lba, read.header.last_usable_lba), (34, table.disk_size / 512 - 34));
    for (index, partition) in table.partitions.iter().enumerate() {
        let found = &read[index as u32 + 1];
        assert_eq!(found.partition_type_guid, partition.type_guid.to_bytes_le());
        assert_eq!(found.unique_partition_guid, partition.guid.to_bytes_le());
        assert_eq!((found.starting_lba, found.ending_lba), (partition.first_lba, partition.last_lba));
        assert_eq!(found.attribute_bits, partition.attributes);
        assert_eq!(found.partition_name.as_str(), partition.name);
    }
    assert!(!read[4].is_used());
}

#[test]
fn sgdisk_finds_no_problem() {
    for size in [64 << 20, 19 << 30, 3 << 40] {
        let file = image(&table(size));
        let Ok(output) = Command::new("sgdisk").arg("-v").arg(file.path()).output() else {
            println!("skipped: sgdisk is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("No problems found"), "{said}");
    }
}

#[test]
fn boot_code_and_protective_partition_are_in_the_first_sector() {
    let tables = table(3 << 40).layout().unwrap();
    assert_eq!(&tables.primary[..440], &[0x90; 440]);
    assert_eq!(&tables.primary[440..446], &[0; 6]);
    assert_eq!(tables.primary[450], 0xEE);
    assert_eq!(&tables.primary[458..462], &[0xFF; 4], "too large for 32 bits");
    assert_eq!(&tables.primary[510..512], &[0x55, 0xAA]);
}

#[test]
fn refuses_what_cannot_be() {
    let with = |change: &dyn Fn(&mut Table)| {
        let mut table = table(64 << 20);
        change(&mut table);
        table.layout().unwrap_err().to_string()
    };
    assert_eq!(with(&|table| table.partitions[2].last_lba = 4096), "partitions 3 and 1 overlap");
    assert!(with(&|table| table.partitions[1].first_lba = 33).contains("not inside 34"));
    assert!(with(&|table| table.partitions[0].last_lba += 1).contains("not inside"));
    assert!(with(&|table| table.partitions[0].name = "x".repeat(37)).contains("longer than 36"));
    assert!(with(&|table| table.boot_code.push(0)).contains("441 bytes"));
    assert!(with(&|table| table.disk_size = 34 * 512).contains("cannot hold"));
    assert!(with(&|table| table.disk_size += 1).contains("cannot hold"));
}
