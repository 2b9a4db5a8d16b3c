//! Reads FAT12, FAT16 and FAT32: Microsoft's "FAT32 File System Specification", version 1.03 (fatgen103).
//!
//! Owns: [`Fat`]. Long names, the case flags of short names, chains checked against loops and against the number of
//! clusters there are. What FAT does not have is filled in as a mount without options shows it: root's, 0755 and 0644
//! (0444 where read-only). Times are taken as UTC. Short names outside of ASCII are read as Latin-1.

use super::fields::Fields;
use super::listing::{FileData, Found, Item, Listing, Run};
use super::source::{SharedSource, Source};
use crate::error::{Context, Error, Result};
use crate::tree::{Meta, Mtime, TreePath};

const ENTRY: usize = 32;
const ATTRIBUTE_READ_ONLY: u8 = 0x01;
const ATTRIBUTE_VOLUME: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_LONG: u8 = 0x0F;
/// A table of 64 MiB serves 16 million clusters; ours have a few thousand.
const MAX_TABLE: u64 = 64 << 20;
/// "Long Name Limits": a folder is at most 2 MiB.
const MAX_FOLDER: u64 = 65536 * ENTRY as u64;

fn broken(what: &str) -> Error {
    Error::build(format!("the FAT file system is damaged: {what}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    pub fn name(self) -> &'static str {
        match self {
            Width::Fat12 => "fat12",
            Width::Fat16 => "fat16",
            Width::Fat32 => "fat32",
        }
    }
}

pub struct Fat {
    source: SharedSource,
    pub width: Width,
    pub volume_id: u32,
    pub label: String,
    pub size: u64,
    pub cluster: u64,
    pub clusters: u32,
    pub regions: Regions,
    table: Vec<u8>,
}

/// Where things lie, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Regions {
    pub tables: u64,
    pub table_size: u64,
    pub table_count: u64,
    /// The root folder of FAT12 and FAT16; empty for FAT32.
    pub root: u64,
    pub root_size: u64,
    pub data: u64,
    /// The root folder of FAT32, 0 otherwise.
    pub root_cluster: u32,
}

impl Fat {
    /// Whether the boot sector looks like one of FAT.
    pub fn probe(source: &dyn Source) -> bool {
        let Ok(sector) = source.bytes(0, 512) else { return false };
        let jump = sector[0] == 0xEB && sector[2] == 0x90 || sector[0] == 0xE9;
        let name = sector[54..59] == *b"FAT12" || sector[54..59] == *b"FAT16" || sector[82..87] == *b"FAT32";
        jump && name && sector[510..512] == [0x55, 0xAA]
    }

    pub fn open(source: SharedSource) -> Result<Fat> {
        let boot = source.bytes(0, 512)?;
        let (sector, per_cluster) = (u64::from(boot.le16(11)), u64::from(boot[13]));
        if !sector.is_power_of_two() || !(512..=4096).contains(&sector) || !per_cluster.is_power_of_two() {
            return Err(broken("the size of sectors or clusters is impossible"));
        }
        let either = |short: u16, long: u32| if short != 0 { u64::from(short) } else { u64::from(long) };
        let sectors = either(boot.le16(19), boot.le32(32));
        let table_sectors = either(boot.le16(22), boot.le32(36));
        let (reserved, tables) = (u64::from(boot.le16(14)), u64::from(boot[16]));
        let root_size = u64::from(boot.le16(17)) * ENTRY as u64;
        let root = reserved + tables * table_sectors;
        let data = root + root_size.div_ceil(sector);
        if reserved == 0 || tables == 0 || data >= sectors || sectors * sector > source.size() {
            return Err(broken("its parts do not fit"));
        }
        let clusters = (sectors - data) / per_cluster;
        // "FAT Type Determination".
        let width = match clusters {
            0..4085 => Width::Fat12,
            4085..65525 => Width::Fat16,
            _ => Width::Fat32,
        };
        let clusters = u32::try_from(clusters).ok().filter(|count| *count < 0x0FFF_FFF5);
        let clusters = clusters.ok_or_else(|| broken("there are more clusters than can be"))?;
        let needed = match width {
            Width::Fat12 => (u64::from(clusters) + 2) * 3 / 2 + 1,
            Width::Fat16 => (u64::from(clusters) + 2) * 2,
            Width::Fat32 => (u64::from(clusters) + 2) * 4,
        };
        let table_size = table_sectors * sector;
        if needed > table_size || needed > MAX_TABLE {
            return Err(broken("the table does not fit the number of clusters"));
        }
        let table = source.bytes(reserved * sector, needed as usize)?;
        let extended = if width == Width::Fat32 { 64 } else { 36 };
        let signed = boot[extended + 2] == 0x29;
        let label = if signed { boot[extended + 7..extended + 18].to_vec() } else { Vec::new() };
        Ok(Fat {
            source,
            width,
            volume_id: if signed { boot.le32(extended + 3) } else { 0 },
            label: latin(&label).trim_end().to_owned(),
            size: sectors * sector,
            cluster: per_cluster * sector,
            clusters,
            regions: Regions {
                tables: reserved * sector,
                table_size,
                table_count: tables,
                root: root * sector,
                root_size,
                data: data * sector,
                root_cluster: if width == Width::Fat32 { boot.le32(44) } else { 0 },
            },
            table,
        })
    }

    /// Everything that can be reached from the root.
    pub fn listing(&self) -> Result<Listing> {
        let mut walk = Walk { fat: self, listing: Listing::default(), clusters: 0, todo: Vec::new() };
        let root = match self.width {
            Width::Fat32 => walk.chain(self.regions.root_cluster, MAX_FOLDER)?,
            _ => vec![Run { logical: 0, physical: self.regions.root, length: self.regions.root_size }],
        };
        let meta = Meta::root(0o755);
        walk.listing.insert(TreePath::root(), Item { meta, found: Found::Directory, number: 0 })?;
        walk.todo.push((TreePath::root(), root));
        while let Some((path, runs)) = walk.todo.pop() {
            crate::interrupt::check()?;
            walk.folder(&path, runs).with_context(|| format!("reading {path}"))?;
        }
        Ok(walk.listing)
    }

    /// A name for the byte at an offset of the file system. Reads all folders.
    pub fn explain(&self, offset: u64) -> Result<String> {
        let regions = &self.regions;
        if offset >= self.size {
            return Ok("the unused area behind the file system".to_owned());
        }
        if offset < 512 {
            return Ok("the FAT boot sector".to_owned());
        }
        if offset < regions.tables {
            let what =
                if self.width == Width::Fat32 { "reserved sectors (FSInfo, copies)" } else { "reserved sectors" };
            return Ok(format!("the FAT's {what}"));
        }
        if offset < regions.root {
            let (copy, within) = ((offset - regions.tables) / regions.table_size, offset - regions.tables);
            let within = within % regions.table_size;
            let cluster = match self.width {
                Width::Fat12 => within * 2 / 3,
                Width::Fat16 => within / 2,
                Width::Fat32 => within / 4,
            };
            return Ok(format!("copy {} of the FAT, the entry of cluster {cluster}", copy + 1));
        }
        if offset < regions.data {
            return Ok("the root folder".to_owned());
        }
        let cluster = (offset - regions.data) / self.cluster + 2;
        let mut walk = Walk { fat: self, listing: Listing::default(), clusters: 0, todo: Vec::new() };
        for (path, item) in self.listing()?.iter() {
            let first = if path.is_root() { regions.root_cluster } else { item.number as u32 };
            let (runs, what) = match &item.found {
                Found::Directory if first != 0 => (walk.chain(first, MAX_FOLDER)?, "the folder"),
                Found::File(data) => (data.runs.to_vec(), "the content of"),
                _ => continue,
            };
            if runs.iter().any(|run| (run.physical..run.physical + run.length).contains(&offset)) {
                return Ok(format!("{what} {path}"));
            }
        }
        Ok(format!("an unused area (cluster {cluster})"))
    }

    /// What the table says about a cluster: the next one, or `None` at the end of a chain.
    fn next(&self, cluster: u32) -> Result<Option<u32>> {
        let at = cluster as usize;
        let (value, last) = match self.width {
            Width::Fat12 => {
                let pair = self.table.le16(at + at / 2);
                (u32::from(if at % 2 == 0 { pair & 0xFFF } else { pair >> 4 }), 0xFF8)
            }
            Width::Fat16 => (u32::from(self.table.le16(at * 2)), 0xFFF8),
            Width::Fat32 => (self.table.le32(at * 4) & 0x0FFF_FFFF, 0x0FFF_FFF8),
        };
        if value >= last {
            return Ok(None);
        }
        Ok(Some(value))
    }
}

struct Walk<'a> {
    fat: &'a Fat,
    listing: Listing,
    /// In all chains so far: more than there are means that some are shared or go round.
    clusters: u64,
    todo: Vec<(TreePath, Vec<Run>)>,
}

impl Walk<'_> {
    /// The runs of a chain, which must end before `most` bytes.
    fn chain(&mut self, first: u32, most: u64) -> Result<Vec<Run>> {
        let (fat, size) = (self.fat, self.fat.cluster);
        let mut runs: Vec<Run> = Vec::new();
        let mut next = Some(first);
        let mut logical = 0;
        while let Some(cluster) = next {
            if cluster < 2 || cluster - 2 >= fat.clusters {
                return Err(broken(&format!("a chain leads to cluster {cluster}, which does not exist")));
            }
            self.clusters += 1;
            if self.clusters > u64::from(fat.clusters) || logical >= most.next_multiple_of(size) {
                return Err(broken("a chain of clusters is too long"));
            }
            let physical = fat.regions.data + u64::from(cluster - 2) * size;
            match runs.last_mut() {
                Some(last) if last.physical + last.length == physical => last.length += size,
                _ => runs.push(Run { logical, physical, length: size }),
            }
            logical += size;
            next = fat.next(cluster)?;
        }
        Ok(runs)
    }

    fn folder(&mut self, path: &TreePath, runs: Vec<Run>) -> Result<()> {
        let size = runs.last().map_or(0, |run| run.logical + run.length);
        let data = FileData { size, runs: runs.into(), source: self.fat.source.clone() };
        let bytes = data.bytes(MAX_FOLDER + self.fat.cluster)?;
        let mut long = LongName::default();
        for entry in bytes.chunks_exact(ENTRY) {
            match (entry[0], entry[11]) {
                (0, _) => break,
                (0xE5, _) => long = LongName::default(),
                (_, attributes) if attributes & 0x3F == ATTRIBUTE_LONG => long.push(entry),
                (_, attributes) if attributes & ATTRIBUTE_VOLUME != 0 => long = LongName::default(),
                _ => {
                    let name = std::mem::take(&mut long).finish(entry).unwrap_or_else(|| short_name(entry));
                    if name != "." && name != ".." {
                        self.entry(path, &name, entry)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, folder: &TreePath, name: &str, entry: &[u8]) -> Result<()> {
        if name.is_empty() || name.contains(['/', '\0']) {
            return Err(broken("a folder holds a name that cannot be"));
        }
        let path = folder.join(name.as_bytes());
        let context = || format!("reading {path}");
        let cluster = u32::from(entry.le16(26))
            | if self.fat.width == Width::Fat32 { u32::from(entry.le16(20)) << 16 } else { 0 };
        let directory = entry[11] & ATTRIBUTE_DIRECTORY != 0;
        let size = if directory { MAX_FOLDER } else { u64::from(entry.le32(28)) };
        let empty = cluster == 0 && !directory && size == 0;
        let runs = if empty { Vec::new() } else { self.chain(cluster, size).with_context(context)? };
        let mode = match (directory, entry[11] & ATTRIBUTE_READ_ONLY != 0) {
            (true, _) => 0o755,
            (false, false) => 0o644,
            (false, true) => 0o444,
        };
        let mtime = Mtime { seconds: seconds(entry.le16(24), entry.le16(22)), nanoseconds: 0 };
        let meta = Meta { mtime, ..Meta::root(mode) };
        let found = if directory {
            self.todo.push((path.clone(), runs));
            Found::Directory
        } else {
            if runs.last().map_or(0, |run| run.logical + run.length) < size {
                return Err(broken("a chain of clusters is too short")).with_context(context);
            }
            Found::File(FileData { size, runs: runs.into(), source: self.fat.source.clone() })
        };
        self.listing.insert(path, Item { meta, found, number: u64::from(cluster) })
    }
}

/// "FAT Long Directory Entries": parts come last first, and must fit the short entry behind them.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    /// Of the part that must come next; 0 when complete.
    next: u8,
    checksum: u8,
    valid: bool,
}

impl LongName {
    fn push(&mut self, entry: &[u8]) {
        let (order, checksum) = (entry[0] & 0x3F, entry[13]);
        if entry[0] & 0x40 != 0 {
            *self = LongName { units: Vec::new(), next: order, checksum, valid: true };
        }
        self.valid = self.valid && order != 0 && order <= 20 && order == self.next && checksum == self.checksum;
        self.next = order.saturating_sub(1);
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        let mut units: Vec<u16> = places.map(|at| entry.le16(at)).collect();
        units.append(&mut self.units);
        self.units = units;
    }

    fn finish(self, short: &[u8]) -> Option<String> {
        let checksum = short[..11].iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if !self.valid || self.next != 0 || checksum != self.checksum {
            return None;
        }
        let units = self.units.split(|unit| *unit == 0).next().unwrap_or_default();
        String::from_utf16(units).ok()
    }
}

/// Eight and three, with the flags for lower case that Windows NT introduced.
fn short_name(entry: &[u8]) -> String {
    let part = |range: std::ops::Range<usize>, flag: u8| {
        let mut bytes = entry[range].to_vec();
        if let Some(first @ 0x05) = bytes.first_mut() {
            *first = 0xE5;
        }
        let text = latin(&bytes).trim_end_matches(' ').to_owned();
        if entry[12] & flag != 0 { text.to_ascii_lowercase() } else { text }
    };
    let (base, extension) = (part(0..8, 0x08), part(8..11, 0x10));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// "Date and Time Formats", in UTC.
fn seconds(date: u16, time: u16) -> i64 {
    let (year, month, day) = (1980 + i64::from(date >> 9), i64::from(date >> 5 & 15), i64::from(date & 31));
    let clock = i64::from(time >> 11) * 3600 + i64::from(time >> 5 & 63) * 60 + i64::from(time & 31) * 2;
    // Days of the civil calendar, with years that start in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    (days - 719_468) * 86400 + clock
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use super::*;
    use crate::format::fat as writer;
    use crate::inspect::source::{FileSource, MemorySource, Patched};
    use crate::tree::{Content, Entry, Kind, Tree};

    fn tree() -> Tree {
        let mut tree = Tree::new();
        let big: Vec<u8> = (0..300_000u32).map(|at| (at / 7) as u8).collect();
        let files: [(&str, &[u8]); 6] = [
            ("EFI/BOOT/BOOTX64.EFI", &big),
            ("EFI/debian/grub.cfg", b"search"),
            ("EFI/debian/a long name of some length äöü.txt", b"long"),
            ("EFI/debian/a long name of some length 2.txt", b""),
            ("empty", b""),
            ("a.b.c", b"x"),
        ];
        let mtime = Mtime { seconds: 1_700_000_000, nanoseconds: 0 };
        for (path, bytes) in files {
            let meta = Meta { mtime, ..Meta::root(0o644) };
            let entry = Entry { meta, kind: Kind::File(Content::inline(bytes)), origin: "t".into() };
            tree.put(&TreePath::new(path).unwrap(), entry).unwrap();
        }
        for number in 0..700 {
            let path = TreePath::new(format!("many/file number {number}")).unwrap();
            let meta = Meta { mtime, ..Meta::root(0o644) };
            let kind = Kind::File(Content::inline(format!("{number}").into_bytes()));
            tree.put(&path, Entry { meta, kind, origin: "t".into() }).unwrap();
        }
        tree
    }

    fn made(size: u64) -> crate::format::disk::DiskImage {
        let options = writer::Options {
            size,
            fat_type: writer::FatType::Auto,
            volume_id: 0x1234_ABCD,
            label: "ESP".into(),
            hidden_sectors: 0,
            latest: Mtime { seconds: i64::from(u32::MAX), nanoseconds: 0 },
        };
        writer::make(&tree(), &options).unwrap()
    }

    #[test]
    fn what_our_writer_wrote_is_read() {
        for (size, width) in [(32 << 20, Width::Fat16), (550 << 20, Width::Fat32)] {
            let disk = Arc::new(made(size));
            assert!(Fat::probe(&*disk));
            let fat = Fat::open(disk).unwrap();
            assert_eq!((fat.width, fat.volume_id), (width, 0x1234_ABCD));
            let back = fat.listing().unwrap().tree(&"t".into()).unwrap();
            assert_eq!(back.len(), tree().len());
            for (path, entry) in tree().iter().filter(|(path, _)| !path.is_root()) {
                assert_eq!(back.get(path), Some(entry), "{path}");
            }
        }
    }

    /// A floppy, which is FAT12, by dosfstools and mtools.
    #[test]
    fn fat12_by_others_is_read() {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(1440 << 10).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            Command::new(program).args(arguments).arg(image.path()).output().is_ok_and(|out| out.status.success())
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 100_000]).unwrap();
        let copied = || {
            let mut copy = Command::new("mcopy");
            copy.arg("-i").arg(image.path()).arg(file.path()).arg("::readme.txt");
            copy.output().is_ok_and(|out| out.status.success())
        };
        if !run("mkfs.vfat", &["-F", "12"]) || !copied() {
            println!("skipped: mkfs.vfat or mcopy is not installed");
            return;
        }
        let fat = Fat::open(Arc::new(FileSource::open(image.path()).unwrap())).unwrap();
        assert_eq!(fat.width, Width::Fat12);
        let listing = fat.listing().unwrap();
        let Some(Item { found: Found::File(data), .. }) = listing.get(&TreePath::literal("readme.txt")) else {
            panic!("no file among {:?}", listing.iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>());
        };
        assert_eq!(data.bytes(1 << 20).unwrap(), vec![7; 100_000]);
    }

    #[test]
    fn hostile_file_systems_do_no_harm() {
        let disk = made(32 << 20);
        let mut bytes = vec![0; 32 << 20];
        disk.read_at(&mut bytes, 0).unwrap();
        let fat = Fat::open(Arc::new(MemorySource(bytes.clone()))).unwrap();
        let areas = [(0, 64), (fat.regions.tables, 1600), (fat.regions.root, 512), (fat.regions.data, 4096)];
        let base = Arc::new(bytes.clone());
        let (mut state, mut failed) = (0x9E37_79B9_7F4A_7C15u64, 0);
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..1000 {
            let patch = |_| {
                let (start, length) = areas[random() as usize % areas.len()];
                (start + random() % length, random() as u8)
            };
            let patches = (0..3).map(patch).collect();
            let source = Arc::new(Patched { base: base.clone(), patches });
            failed += usize::from(Fat::open(source).and_then(|fat| fat.listing()).is_err());
        }
        assert!(failed > 50, "{failed}");
        // A chain that bites its tail: the second cluster of the first file points to the first one.
        let mut round = bytes.clone();
        let table = fat.regions.tables as usize;
        let long = (2..fat.clusters as usize).find(|at| bytes.le16(table + at * 2) == *at as u16 + 1).unwrap();
        round[table + (long + 1) * 2..][..2].copy_from_slice(&(long as u16).to_le_bytes());
        let error = Fat::open(Arc::new(MemorySource(round))).unwrap().listing().err().unwrap();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[test]
    fn times() {
        assert_eq!(seconds(1 << 5 | 1, 0), 315_532_800);
        assert_eq!(seconds(20 << 9 | 2 << 5 | 29, 12 << 11 | 34 << 5 | 28), 951_827_696);
    }
}
