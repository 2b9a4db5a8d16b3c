//! From a Tree to the place of everything in the file system; pure.

use super::format::{
    ENTRY, FAT16_MIN_CLUSTERS, FAT32_MIN_CLUSTERS, LONG_UNITS, MAX_ENTRIES, ROOT_CLUSTER, SECTOR, Timestamp,
};
use super::names::{self, Name};
use crate::error::{Context, Error, Kind, Result};
use crate::tree::{self, Content, Mtime, Tree, TreePath};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FatType {
    /// FAT32 where the size allows (from 33 MiB on), else FAT16.
    #[default]
    Auto,
    Fat16,
    Fat32,
}

#[derive(Debug, Clone)]
pub struct Options {
    /// Of the partition, in bytes.
    pub size: u64,
    pub fat_type: FatType,
    /// Shown as `XXXX-XXXX`.
    pub volume_id: u32,
    /// At most eleven characters of a short name, upper case; empty for none.
    pub label: String,
    /// Sectors on the disk before the partition.
    pub hidden_sectors: u32,
    /// Later times become this one.
    pub latest: Mtime,
}

/// "At least 16 clusters away from the cut-off", because not everyone counts alike.
const MARGIN: u64 = 16;

/// Sectors and clusters of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    pub fat32: bool,
    pub sectors: u64,
    pub sectors_per_cluster: u64,
    pub reserved_sectors: u64,
    pub fat_sectors: u64,
    /// FAT16 only: entries and sectors of the root folder, which lies outside of the clusters.
    pub root_entries: u64,
    pub clusters: u64,
}

impl Geometry {
    pub fn cluster_size(&self) -> u64 {
        self.sectors_per_cluster * SECTOR
    }

    /// In bytes.
    pub fn fat_offset(&self, copy: u64) -> u64 {
        (self.reserved_sectors + copy * self.fat_sectors) * SECTOR
    }

    /// In bytes; where the root folder of FAT16 starts.
    pub fn root_offset(&self) -> u64 {
        self.fat_offset(2)
    }

    /// In bytes.
    pub fn cluster_offset(&self, cluster: u32) -> u64 {
        let root = self.root_entries * ENTRY as u64;
        self.root_offset() + root + u64::from(cluster - ROOT_CLUSTER) * self.cluster_size()
    }

    /// Chooses type and cluster size by Microsoft's tables ("FAT Volume Initialization").
    fn choose(options: &Options, root_entries: u64) -> Result<Geometry> {
        let sectors = options.size / SECTOR;
        if u32::try_from(sectors).is_err() {
            return Err(Error::build(format!("a FAT file system cannot have {} bytes", options.size)));
        }
        let fat32 = || {
            let table = [(260, 1), (8 << 10, 8), (16 << 10, 16), (32 << 10, 32), (u64::MAX, 64)];
            Geometry::compute(sectors, pick(&table, options.size), None)
                .filter(|found| found.clusters >= FAT32_MIN_CLUSTERS + MARGIN)
        };
        let fat16 = || {
            let table = [(16, 2), (128, 4), (256, 8), (512, 16), (1024, 32), (u64::MAX, 64)];
            let mut per_cluster = pick(&table, options.size);
            let mut found = Geometry::compute(sectors, per_cluster, Some(root_entries))?;
            while found.clusters >= FAT32_MIN_CLUSTERS - MARGIN && per_cluster < 64 {
                per_cluster *= 2;
                found = Geometry::compute(sectors, per_cluster, Some(root_entries))?;
            }
            let allowed = FAT16_MIN_CLUSTERS + MARGIN..FAT32_MIN_CLUSTERS - MARGIN;
            Some(found).filter(|found| allowed.contains(&found.clusters))
        };
        let found = match options.fat_type {
            FatType::Auto => fat32().or_else(fat16),
            FatType::Fat16 => fat16(),
            FatType::Fat32 => fat32(),
        };
        found.ok_or_else(|| {
            let message = format!("{} bytes is not a size for {:?}", options.size, options.fat_type);
            Error::new(Kind::Space, message).hint("FAT16 takes 9 MiB to 2 GiB, FAT32 34 MiB to 2 TiB")
        })
    }

    /// `None` when there is no room for a single cluster.
    fn compute(sectors: u64, sectors_per_cluster: u64, root_entries: Option<u64>) -> Option<Geometry> {
        let fat32 = root_entries.is_none();
        let root_entries = root_entries.unwrap_or(0);
        let root_sectors = root_entries * ENTRY as u64 / SECTOR;
        let reserved = if fat32 { 32 } else { 1 };
        let width = if fat32 { 4 } else { 2 };
        // As large as the FATs could be if they took no room themselves.
        let most = sectors.checked_sub(reserved + root_sectors)? / sectors_per_cluster;
        let fat_sectors = ((most + 2) * width).div_ceil(SECTOR);
        // The data area starts at a multiple of the cluster size.
        let before = reserved + 2 * fat_sectors + root_sectors;
        let pad = before.next_multiple_of(sectors_per_cluster) - before;
        let clusters = sectors.checked_sub(before + pad)? / sectors_per_cluster;
        let reserved_sectors = reserved + pad;
        Some(Geometry { fat32, sectors, sectors_per_cluster, reserved_sectors, fat_sectors, root_entries, clusters })
    }
}

/// The value of the first line of a table whose limit in MiB is not exceeded.
fn pick(table: &[(u64, u64)], size: u64) -> u64 {
    table.iter().find(|(limit, _)| size.div_ceil(1 << 20) <= *limit).map_or(64, |(_, value)| *value)
}

/// A file or folder with its place.
pub struct Node {
    pub name: Name,
    pub time: Timestamp,
    pub kind: NodeKind,
    /// 0 for an empty file, and for the root folder of FAT16.
    pub cluster: u32,
    pub clusters: u32,
}

pub enum NodeKind {
    /// Index of the folder above (of itself for the root), and of what is in it.
    Directory {
        parent: usize,
        children: Vec<usize>,
    },
    File(Content),
}

pub struct Layout {
    pub geometry: Geometry,
    /// The root first, parents before children.
    pub nodes: Vec<Node>,
    /// Padded with spaces; `None` without a label.
    pub label: Option<[u8; 11]>,
    /// Clusters in use; they are the first ones.
    pub used: u64,
}

impl Layout {
    pub fn new(tree: &Tree, options: &Options) -> Result<Layout> {
        let label = label(&options.label)?;
        let mut nodes = nodes(tree, options)?;
        let root_entries = root_entries(&nodes, label.is_some())?;
        let geometry = Geometry::choose(options, root_entries)?;
        let used = place(&mut nodes, &geometry, label.is_some())?;
        if used > geometry.clusters {
            let required = (geometry.sectors - geometry.clusters * geometry.sectors_per_cluster) * SECTOR
                + used * geometry.cluster_size();
            let message = format!("the content needs {required} bytes, the file system has {}", options.size);
            return Err(Error::new(Kind::Space, message).hint("make the partition larger"));
        }
        Ok(Layout { geometry, nodes, label, used })
    }
}

/// The smallest size in bytes, a multiple of 512 and not below `options.size`, at which the file system can be made.
pub fn required(tree: &Tree, options: &Options) -> Result<u64> {
    let label = label(&options.label)?;
    let mut nodes = nodes(tree, options)?;
    let root_entries = root_entries(&nodes, label.is_some())?;
    // Sectors that a size lacks, at least one; `None` if it fits.
    let mut shortage = |sectors: u64| -> Result<Option<u64>> {
        let options = Options { size: sectors * SECTOR, ..options.clone() };
        let geometry = match Geometry::choose(&options, root_entries) {
            Ok(geometry) => geometry,
            Err(error) if error.kind() == Kind::Space => return Ok(Some(1)),
            Err(error) => return Err(error),
        };
        let used = place(&mut nodes, &geometry, label.is_some())?;
        let lacking = used.checked_sub(geometry.clusters).filter(|lacking| *lacking > 0);
        // What is over the last whole cluster counts already.
        Ok(lacking.map(|lacking| {
            (lacking * geometry.sectors_per_cluster).saturating_sub(geometry.sectors_per_cluster).max(1)
        }))
    };
    let least = options.size.div_ceil(SECTOR);
    let mut sectors = least;
    while let Some(more) = shortage(sectors)? {
        sectors += more;
    }
    while sectors > least && shortage(sectors - 1)?.is_none() {
        sectors -= 1;
    }
    Ok(sectors * SECTOR)
}

/// Of FAT16, whose root folder has its size from the start.
fn root_entries(nodes: &[Node], labelled: bool) -> Result<u64> {
    let bytes = directory_size(nodes, 0, labelled)?;
    Ok((bytes / ENTRY as u64).next_multiple_of(SECTOR / ENTRY as u64).max(512))
}

fn label(text: &str) -> Result<Option<[u8; 11]>> {
    let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" $%'-_@~`!(){}^#&".contains(&byte);
    if text.len() > 11 || !text.bytes().all(allowed) || text.starts_with(' ') {
        return Err(Error::build(format!("`{text}` cannot be the label of a FAT file system"))
            .hint("at most 11 upper-case letters, digits, `-` or `_`"));
    }
    let mut label = [b' '; 11];
    label[..text.len()].copy_from_slice(text.as_bytes());
    Ok(Some(label).filter(|_| !text.is_empty()))
}

/// All of the Tree, without places.
fn nodes(tree: &Tree, options: &Options) -> Result<Vec<Node>> {
    let mut nodes: Vec<Node> = Vec::with_capacity(tree.len());
    let mut places: std::collections::BTreeMap<TreePath, usize> = std::collections::BTreeMap::new();
    for (path, entry) in tree.iter() {
        let index = nodes.len();
        let parent = match path.parent() {
            None => 0,
            Some(above) => *places.get(&above).ok_or_else(|| Error::build(format!("{path} has no folder above it")))?,
        };
        let kind = match &entry.kind {
            tree::Kind::Directory => {
                places.insert(path.clone(), index);
                NodeKind::Directory { parent, children: Vec::new() }
            }
            tree::Kind::File(content) if u32::try_from(content.size()).is_ok() => NodeKind::File(content.clone()),
            tree::Kind::File(_) => return Err(Error::build(format!("{path} is larger than the 4 GiB of FAT"))),
            _ => return Err(Error::build(format!("{path} is a link or device, which FAT cannot hold"))),
        };
        let time = Timestamp::new(entry.meta.mtime.min(options.latest));
        let name = Name { short: [b' '; 11], long: Vec::new() };
        nodes.push(Node { name, time, kind, cluster: 0, clusters: 0 });
        if let (NodeKind::Directory { children, .. }, false) = (&mut nodes[parent].kind, path.is_root()) {
            children.push(index);
        }
    }
    for (path, index) in &places {
        let NodeKind::Directory { children, .. } = &nodes[*index].kind else { continue };
        let children = children.clone();
        let names: Vec<&[u8]> = tree.children(path).map(|(path, _)| path.file_name()).collect();
        let names = names::assign(&names).with_context(|| format!("naming the files of {path}"))?;
        for (child, name) in children.into_iter().zip(names) {
            nodes[child].name = name;
        }
    }
    Ok(nodes)
}

/// Bytes of the entries of a folder.
fn directory_size(nodes: &[Node], index: usize, labelled: bool) -> Result<u64> {
    let NodeKind::Directory { children, .. } = &nodes[index].kind else { return Ok(0) };
    let extra = match (index, labelled) {
        (0, true) => 1,
        (0, false) => 0,
        // `.` and `..`
        _ => 2,
    };
    let entries: usize = children.iter().map(|child| 1 + nodes[*child].name.long.len().div_ceil(LONG_UNITS)).sum();
    if entries + extra > MAX_ENTRIES {
        return Err(Error::build(format!("a folder with {} files is too large for FAT", children.len())));
    }
    Ok(((entries + extra) * ENTRY) as u64)
}

/// Gives clusters to all, folders first so that looking up a path stays in one corner. Returns how many are used.
fn place(nodes: &mut [Node], geometry: &Geometry, labelled: bool) -> Result<u64> {
    let mut used = 0;
    for folders in [true, false] {
        for index in 0..nodes.len() {
            let size = match &nodes[index].kind {
                NodeKind::Directory { .. } if folders && index == 0 && !geometry.fat32 => 0,
                // An empty folder has a cluster too.
                NodeKind::Directory { .. } if folders => directory_size(nodes, index, labelled)?.max(1),
                NodeKind::File(content) if !folders => content.size(),
                _ => continue,
            };
            let clusters = size.div_ceil(geometry.cluster_size());
            if clusters > 0 && used + clusters <= geometry.clusters {
                // Below the number of clusters, which is less than 2^28.
                nodes[index].cluster = ROOT_CLUSTER + used as u32;
                nodes[index].clusters = clusters as u32;
            }
            used += clusters;
        }
    }
    Ok(used)
}
