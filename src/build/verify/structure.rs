//! What our own code says of an image's structure.
//!
//! Owns: [`Container`] (which format, from its magic bytes), the partitions of a GPT (UEFI 2.10 section 5.3) and
//! whether the file systems stay inside them. Everything read is hostile.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{EXTENT, Outcomes, PARTITIONS, Verdict};
use crate::error::{Context, Error, Kind, Result};
use crate::format::gpt::SECTOR;
use crate::report::words;

/// More entries than any tool makes.
const MOST_ENTRIES: u32 = 1024;

/// How the disk is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Raw,
    Qcow2,
    Vmdk,
    Vhd,
}

impl Format {
    /// As qemu-img calls it.
    pub fn qemu(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
            Format::Vhd => "vpc",
        }
    }
}

/// An image file as its header describes it.
pub struct Container {
    pub format: Format,
    /// Size of the disk inside, where the header says it plainly.
    pub virtual_size: Option<u64>,
    /// Bytes of the file.
    pub length: u64,
    header: [u8; 104],
}

impl Container {
    pub fn examine(path: &Path) -> Result<Self> {
        let context = || format!("reading {}", path.display());
        let file = File::open(path).with_context(context)?;
        let metadata = file.metadata().with_context(context)?;
        let length = metadata.len();
        if !metadata.is_file() || length < 1024 {
            return Err(Error::new(Kind::Usage, format!("{} is not a disk image", path.display())));
        }
        let mut header = [0; 104];
        file.read_exact_at(&mut header, 0).with_context(context)?;
        // The footer of a fixed VHD is its last sector.
        let mut footer = [0; 8];
        file.read_exact_at(&mut footer, length - SECTOR).with_context(context)?;
        let format = match &header[..8] {
            [b'Q', b'F', b'I', 0xFB, ..] => Format::Qcow2,
            [b'K', b'D', b'M', b'V', ..] => Format::Vmdk,
            b"conectix" => Format::Vhd,
            _ if &footer == b"conectix" => Format::Vhd,
            _ => Format::Raw,
        };
        let virtual_size = match format {
            Format::Raw => Some(length),
            Format::Qcow2 => Some(u64::from_be_bytes(field(&header, 24))),
            Format::Vmdk => u64::from_le_bytes(field(&header, 12)).checked_mul(SECTOR),
            Format::Vhd => None,
        };
        Ok(Container { format, virtual_size, length, header })
    }

    /// What can be said from the header alone.
    pub fn check(&self) -> Result<String, String> {
        let size = self.virtual_size.map(|size| format!(", disk of {}", words::bytes(size))).unwrap_or_default();
        let good = format!("{}{size}", self.format.qemu());
        match self.format {
            Format::Raw if self.length % SECTOR != 0 => Err("a raw disk has whole sectors, this file does not".into()),
            Format::Qcow2 => self.check_qcow2().map(|()| good),
            _ => Ok(good),
        }
    }

    /// docs/interop/qcow2.rst of QEMU, "Header".
    fn check_qcow2(&self) -> Result<(), String> {
        let word = |at| u32::from_be_bytes(field(&self.header, at));
        let long = |at| u64::from_be_bytes(field(&self.header, at));
        let (version, cluster_bits) = (word(4), word(20));
        if !matches!(version, 2 | 3) {
            return Err(format!("qcow2 version {version} is unknown"));
        }
        if long(8) != 0 || word(16) != 0 {
            return Err("it needs another file below it (a backing file)".into());
        }
        if !(9..=21).contains(&cluster_bits) {
            return Err(format!("its clusters have 2^{cluster_bits} bytes, which is not allowed"));
        }
        if word(32) != 0 {
            return Err("it is encrypted".into());
        }
        for (what, offset) in [("first table", long(40)), ("reference counts", long(48))] {
            if offset % (1 << cluster_bits) != 0 || offset >= self.length {
                return Err(format!("its {what} should lie at {offset}, the file has {} bytes", self.length));
            }
        }
        let incompatible = long(72);
        if version == 3 && incompatible & 0b11 != 0 {
            return Err("it is marked as dirty or corrupt".into());
        }
        Ok(())
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes.get(at + index).copied().unwrap_or(0))
}

/// The disk of an image as a raw file, holes and all.
pub struct Disk {
    pub path: PathBuf,
    pub file: File,
    pub size: u64,
}

impl Disk {
    pub fn open(path: &Path) -> Result<Self> {
        let context = || format!("opening {}", path.display());
        let file = File::open(path).with_context(context)?;
        let size = file.metadata().with_context(context)?.len();
        Ok(Disk { path: path.to_owned(), file, size })
    }

    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).with_context(|| format!("reading {}", self.path.display()))
    }
}

/// Where a partition lies, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub number: u32,
    pub start: u64,
    pub size: u64,
    pub file_system: FileSystem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext,
    Fat,
    Unknown,
}

impl Partition {
    pub fn name(&self) -> String {
        format!("partition {}", self.number)
    }
}

/// Checks the partition table; the partitions, or none if there is no table to go by.
pub(super) fn partitions(disk: &Disk, outcomes: &mut Outcomes) -> Result<Vec<Partition>> {
    let (table, partitions) = match table(disk)? {
        Ok(partitions) => (Ok(format!("{} partitions", partitions.len())), partitions),
        Err(problem) => (Err(problem), Vec::new()),
    };
    outcomes.of(PARTITIONS, "", table);
    Ok(partitions)
}

/// The inner error is what is wrong with the table.
fn table(disk: &Disk) -> Result<Result<Vec<Partition>, String>> {
    if disk.size < 68 * SECTOR || disk.size % SECTOR != 0 {
        return Ok(Err(format!("a disk of {} bytes has no room for a GPT", disk.size)));
    }
    let last = disk.size / SECTOR - 1;
    let primary = match header(disk, 1, last)? {
        Ok(header) => header,
        Err(problem) => return Ok(Err(format!("first header: {problem}"))),
    };
    let backup = match header(disk, last, 1)? {
        Ok(header) => header,
        Err(problem) => return Ok(Err(format!("backup header: {problem}"))),
    };
    if primary.entries != backup.entries {
        return Ok(Err("the two tables differ".into()));
    }
    let mut partitions = Vec::new();
    for (index, entry) in primary.entries.chunks_exact(primary.entry_size).enumerate() {
        if entry[..16].iter().all(|byte| *byte == 0) {
            continue;
        }
        let number = index as u32 + 1;
        let (first, end) = (u64::from_le_bytes(field(entry, 32)), u64::from_le_bytes(field(entry, 40)));
        if first < primary.first_usable || end > primary.last_usable || first > end {
            return Ok(Err(format!("partition {number} lies outside of the disk's usable part")));
        }
        // Inside of the disk, whose size in bytes is known to fit.
        let (start, size) = (first * SECTOR, (end - first + 1) * SECTOR);
        partitions.push(Partition { number, start, size, file_system: file_system(disk, start, size)? });
    }
    let mut order: Vec<&Partition> = partitions.iter().collect();
    order.sort_by_key(|partition| partition.start);
    if let Some(pair) = order.windows(2).find(|pair| pair[0].start + pair[0].size > pair[1].start) {
        return Ok(Err(format!("partitions {} and {} overlap", pair[0].number, pair[1].number)));
    }
    Ok(Ok(partitions))
}

struct Header {
    first_usable: u64,
    last_usable: u64,
    entry_size: usize,
    entries: Vec<u8>,
}

/// UEFI 2.10 table 5.5.
fn header(disk: &Disk, lba: u64, other: u64) -> Result<Result<Header, String>> {
    let mut sector = [0; SECTOR as usize];
    disk.read(&mut sector, lba * SECTOR)?;
    let word = |at| u32::from_le_bytes(field(&sector, at));
    let long = |at| u64::from_le_bytes(field(&sector, at));
    let (size, count, entry_size, entries_lba) = (word(12) as usize, word(80), word(84), long(72));
    if !sector.starts_with(b"EFI PART") || !(92..=512).contains(&size) {
        return Ok(Err("there is none".into()));
    }
    let mut zeroed = sector;
    zeroed[16..20].fill(0);
    if crc32fast::hash(&zeroed[..size]) != word(16) {
        return Ok(Err("its checksum is wrong".into()));
    }
    if (long(24), long(32)) != (lba, other) {
        return Ok(Err(format!("it says that it lies at sector {} and the other at {}", long(24), long(32))));
    }
    if !(128..=4096).contains(&entry_size) || !entry_size.is_power_of_two() || count == 0 || count > MOST_ENTRIES {
        return Ok(Err(format!("{count} entries of {entry_size} bytes are not possible")));
    }
    let (first_usable, last_usable) = (long(40), long(48));
    let length = u64::from(count) * u64::from(entry_size);
    let end = entries_lba.checked_mul(SECTOR).and_then(|start| start.checked_add(length));
    if end.is_none_or(|end| end > disk.size) || first_usable > last_usable || last_usable >= disk.size / SECTOR {
        return Ok(Err("it points outside of the disk".into()));
    }
    let mut entries = vec![0; length as usize];
    disk.read(&mut entries, entries_lba * SECTOR)?;
    if crc32fast::hash(&entries) != word(88) {
        return Ok(Err("the checksum of the partition entries is wrong".into()));
    }
    Ok(Ok(Header { first_usable, last_usable, entry_size: entry_size as usize, entries }))
}

/// By the magic numbers of ext2/3/4 (superblock at 1024, `s_magic`) and FAT (boot sector).
fn file_system(disk: &Disk, start: u64, size: u64) -> Result<FileSystem> {
    if size < 4096 {
        return Ok(FileSystem::Unknown);
    }
    let mut head = [0; 2048];
    disk.read(&mut head, start)?;
    let fat = head[510..512] == [0x55, 0xAA] && (&head[54..57] == b"FAT" || &head[82..85] == b"FAT");
    Ok(match &head[1080..1082] {
        [0x53, 0xEF] => FileSystem::Ext,
        _ if fat => FileSystem::Fat,
        _ => FileSystem::Unknown,
    })
}

/// Whether the file system says that it is larger than its partition.
pub(super) fn extent(disk: &Disk, partition: &Partition, outcomes: &mut Outcomes) -> Result<()> {
    let name = partition.name();
    let mut head = [0; 2048];
    if partition.file_system == FileSystem::Unknown {
        outcomes.add(EXTENT, Verdict::Skipped, &name, "no file system that is known here");
        return Ok(());
    }
    disk.read(&mut head, partition.start)?;
    let size = match partition.file_system {
        FileSystem::Ext => ext_size(&head[1024..]),
        _ => fat_size(&head),
    };
    let result = match size {
        Some(size) if size <= partition.size => {
            Ok(format!("{} of {}", words::bytes(size), words::bytes(partition.size)))
        }
        Some(size) => Err(format!("the file system has {size} bytes, the partition {}", partition.size)),
        None => Err("the size of the file system makes no sense".to_owned()),
    };
    outcomes.of(EXTENT, &name, result);
    Ok(())
}

/// `s_blocks_count` and `s_log_block_size` of the superblock (kernel documentation, filesystems/ext4).
fn ext_size(superblock: &[u8]) -> Option<u64> {
    let word = |at| u32::from_le_bytes(field(superblock, at));
    let wide = word(96) & 0x80 != 0;
    let blocks = u64::from(word(4)) | if wide { u64::from(word(0x150)) << 32 } else { 0 };
    let shift = word(24).checked_add(10).filter(|shift| *shift <= 16)?;
    blocks.checked_mul(1 << shift)
}

/// `BPB_TotSec16`, `BPB_TotSec32` and `BPB_BytsPerSec` of the boot sector.
fn fat_size(sector: &[u8]) -> Option<u64> {
    let short = |at| u64::from(u16::from_le_bytes(field(sector, at)));
    let sectors = match short(19) {
        0 => u64::from(u32::from_le_bytes(field(sector, 32))),
        sectors => sectors,
    };
    let bytes = short(11);
    (bytes >= 512 && bytes.is_power_of_two() && sectors > 0).then(|| sectors * bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::gpt;
    use uuid::Uuid;

    fn disk_with(partitions: Vec<(u64, u64)>) -> (tempfile::NamedTempFile, Disk) {
        let partition = |(number, (first_lba, last_lba)): (usize, (u64, u64))| gpt::Partition {
            type_guid: Uuid::from_u128(1),
            guid: Uuid::from_u128(10 + number as u128),
            first_lba,
            last_lba,
            attributes: 0,
            name: String::new(),
        };
        let table = gpt::Table {
            disk_size: 4 << 20,
            disk_guid: Uuid::from_u128(2),
            partitions: partitions.into_iter().enumerate().map(partition).collect(),
            boot_code: Vec::new(),
        };
        let tables = table.layout().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        file.as_file().write_all_at(&tables.primary, 0).unwrap();
        file.as_file().write_all_at(&tables.backup, tables.backup_offset).unwrap();
        let disk = Disk::open(file.path()).unwrap();
        (file, disk)
    }

    fn problem(disk: &Disk) -> String {
        table(disk).unwrap().unwrap_err()
    }

    #[test]
    fn a_good_table_is_read() {
        let (_file, disk) = disk_with(vec![(2048, 4095), (4096, 6143)]);
        let found = table(&disk).unwrap().unwrap();
        assert_eq!(
            found.iter().map(|one| (one.number, one.start, one.size)).collect::<Vec<_>>(),
            [(1, 1 << 20, 1 << 20), (2, 2 << 20, 1 << 20)]
        );
    }

    #[test]
    fn every_flipped_byte_of_a_table_is_found() {
        let (file, disk) = disk_with(vec![(2048, 4095)]);
        for (at, words) in [
            (512, "first header: there is none"),
            (512 + 60, "first header: its checksum"),
            (1024 + 33, "first header: the checksum of the partition entries"),
            ((4 << 20) - 512, "backup header: there is none"),
            ((4 << 20) - 33 * 512 + 3, "backup header: the checksum of the partition entries"),
        ] {
            let mut byte = [0];
            disk.read(&mut byte, at).unwrap();
            file.as_file().write_all_at(&[byte[0] ^ 1], at).unwrap();
            assert!(problem(&disk).starts_with(words), "{at}: {}", problem(&disk));
            file.as_file().write_all_at(&byte, at).unwrap();
        }
        assert!(table(&disk).unwrap().is_ok());
    }

    #[test]
    fn an_empty_or_short_file_is_no_disk() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Container::examine(file.path()).err().unwrap().kind(), Kind::Usage);
        file.as_file().set_len(64 << 10).unwrap();
        assert!(problem(&Disk::open(file.path()).unwrap()).contains("there is none"));
    }

    #[test]
    fn sizes_of_file_systems() {
        let mut superblock = [0; 1024];
        superblock[4..8].copy_from_slice(&100u32.to_le_bytes());
        superblock[24..28].copy_from_slice(&2u32.to_le_bytes());
        assert_eq!(ext_size(&superblock), Some(409_600));
        superblock[24] = 60;
        assert_eq!(ext_size(&superblock), None);
        let mut sector = [0; 512];
        assert_eq!(fat_size(&sector), None);
        sector[11..13].copy_from_slice(&512u16.to_le_bytes());
        sector[32..36].copy_from_slice(&2048u32.to_le_bytes());
        assert_eq!(fat_size(&sector), Some(1 << 20));
    }

    #[test]
    fn headers_of_qcow2() {
        let mut header = [0; 104];
        header[..4].copy_from_slice(b"QFI\xfb");
        header[7] = 3;
        header[23] = 16;
        header[40 + 5] = 1;
        header[48 + 5] = 2;
        let check = |header| Container { format: Format::Qcow2, virtual_size: None, length: 1 << 20, header }.check();
        assert!(check(header).is_ok());
        for (at, words) in
            [(15, "backing file"), (7, "version"), (23, "2^"), (79, "dirty"), (35, "encrypted"), (40, "table")]
        {
            let mut bad = header;
            bad[at] = if at == 79 { 1 } else { 77 };
            assert!(check(bad).unwrap_err().contains(words), "{at}");
        }
    }
}
