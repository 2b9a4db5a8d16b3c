//! What a cache folder holds.
//!
//! Owns: [`list`], [`Item`] and [`Area`]. An item is the smallest thing that can be removed by itself. A step and the
//! pack files its contents lie in are apart: several steps, and packages that were decompressed for one, refer to one
//! pack, which goes with the last of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::package::fetch::plain;
use crate::package::lock::answers;
use crate::tree::{clusters, records, store};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    Packages,
    Indexes,
    Answers,
    Steps,
    /// Packages that need not be decompressed again.
    Unpacked,
    /// Pack files: the contents of steps and packages.
    Contents,
    Clusters,
    /// Set aside because it was damaged.
    Damaged,
    /// Made by another version of the program.
    Old,
}

impl Area {
    pub const ALL: [Area; 9] = [
        Area::Packages,
        Area::Indexes,
        Area::Answers,
        Area::Steps,
        Area::Unpacked,
        Area::Contents,
        Area::Clusters,
        Area::Damaged,
        Area::Old,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Area::Packages => "packages",
            Area::Indexes => "indexes",
            Area::Answers => "answers",
            Area::Steps => "steps",
            Area::Unpacked => "unpacked",
            Area::Contents => "contents",
            Area::Clusters => "clusters",
            Area::Damaged => "damaged",
            Area::Old => "old",
        }
    }

    pub fn description(self) -> &'static str {
        match self {
            Area::Packages => "packages as downloaded",
            Area::Indexes => "package indexes, as downloaded and decompressed",
            Area::Answers => "which packages the resolver chose",
            Area::Steps => "layers and initramfs, as lists of files",
            Area::Unpacked => "packages decompressed, as lists of files",
            Area::Contents => "the contents of those files",
            Area::Clusters => "clusters of disks, blocks of squashfs, boot images",
            Area::Damaged => "set aside because it was damaged",
            Area::Old => "of another version of the program",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub area: Area,
    /// Below the cache folder.
    pub name: String,
    pub path: PathBuf,
    /// What it takes on the disk.
    pub size: u64,
    /// When it was last used, in seconds since the epoch.
    pub used: i64,
    /// Names of the items it needs: the packs of a step or of packages.
    pub needs: Vec<String>,
}

/// Everything, by area and name.
pub fn list(cache: &Path) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut walk = |folder: &str, area: &dyn Fn(&str) -> Option<Area>| -> Result<()> {
        for (path, about) in files(&cache.join(folder))? {
            let name = path.strip_prefix(cache).unwrap_or(&path).to_string_lossy().into_owned();
            if let Some(area) = area(&name) {
                items.push(Item {
                    area,
                    name,
                    size: about.blocks() * 512,
                    used: about.mtime(),
                    path,
                    needs: Vec::new(),
                });
            }
        }
        Ok(())
    };
    let ends = |name: &str, ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    walk("debs", &|name| Some(if ends(name, &[".damaged"]) { Area::Damaged } else { Area::Packages }))?;
    walk("indexes/sha256", &|name| Some(if ends(name, &[".damaged"]) { Area::Damaged } else { Area::Indexes }))?;
    walk(plain::FOLDER, &|_| Some(Area::Indexes))?;
    walk(answers::FOLDER, &|_| Some(Area::Answers))?;
    walk(clusters::FOLDER, &|name| ends(name, &[".pack"]).then_some(Area::Clusters))?;
    let steps = store::folder_name();
    walk(&steps, &|name| match name {
        _ if name.contains("/damaged/") => Some(Area::Damaged),
        _ if ends(name, &[".tree"]) => Some(Area::Steps),
        _ if ends(name, &[&format!(".{}", records::EXTENSION)]) => Some(Area::Unpacked),
        _ if name.contains(".records-v") => Some(Area::Old),
        _ if ends(name, &[".pack"]) && !name.contains("/.") => Some(Area::Contents),
        _ => None,
    })?;
    for folder in store::other_formats(cache) {
        let inside = files(&folder)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let size = inside.iter().map(|(_, about)| about.blocks() * 512).sum();
        let used = inside.iter().map(|(_, about)| about.mtime()).max().unwrap_or(0);
        items.push(Item { area: Area::Old, name, path: folder, size, used, needs: Vec::new() });
    }
    for item in items.iter_mut().filter(|item| matches!(item.area, Area::Steps | Area::Unpacked)) {
        let packs = store::packs_of(&item.path).into_iter();
        item.needs = packs.map(|pack| format!("{steps}/{pack}.pack")).collect();
    }
    date_contents(&mut items);
    items.sort_by(|a, b| (a.area, &a.name).cmp(&(b.area, &b.name)));
    Ok(items)
}

/// Contents are as young as what used them last.
fn date_contents(items: &mut [Item]) {
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    for item in items.iter() {
        for need in &item.needs {
            let latest = used.entry(need.clone()).or_insert(item.used);
            *latest = (*latest).max(item.used);
        }
    }
    for item in items.iter_mut() {
        if let Some(used) = used.get(&item.name) {
            item.used = *used;
        }
    }
}

/// Names of items that some item needs.
pub fn needed(items: &[Item]) -> BTreeSet<&str> {
    items.iter().flat_map(|item| item.needs.iter().map(String::as_str)).collect()
}

/// All plain files below a folder. What goes away meanwhile is left out.
fn files(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
        };
        for entry in entries.flatten() {
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() {
                todo.push(entry.path());
            } else if about.is_file() {
                found.push((entry.path(), about));
            }
        }
    }
    Ok(found)
}
