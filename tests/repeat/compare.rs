//! What differs between two builds, by name: published files, structures of a disk, paths of a layer.
//!
//! Owns: [`published`], [`layers`], [`clock_was`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use imagebuilder::seal;
use imagebuilder::tree::store::Store;
use imagebuilder::tree::{Digest, Kind, Mtime, Tree, TreePath};
use libtest_mimic::Failed;

use super::text;

const SHOWN: usize = 20;

/// Compares two output folders: names, and every byte.
pub fn published(one: &Path, other: &Path) -> Result<Vec<String>, Failed> {
    let names = |folder: &Path| -> Result<BTreeSet<String>, Failed> {
        let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    };
    let (of_one, of_other) = (names(one)?, names(other)?);
    let mut report: Vec<String> =
        of_one.symmetric_difference(&of_other).map(|name| format!("{name}: only one build has it")).collect();
    for name in of_one.intersection(&of_other) {
        if let Some(offset) = first_difference(&one.join(name), &other.join(name))? {
            let place = match name.ends_with(".raw") {
                true => format!(", {}", structure(&other.join(name), offset)?),
                false => String::new(),
            };
            report.push(format!("{name}: byte {offset}{place}"));
        }
    }
    Ok(report)
}

fn first_difference(one: &Path, other: &Path) -> Result<Option<u64>, Failed> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    let length = one.metadata()?.len().min(other.metadata()?.len());
    let same_length = one.metadata()?.len() == other.metadata()?.len();
    let (mut left, mut right) = (vec![0; 4 << 20], vec![0; 4 << 20]);
    let mut at = 0;
    while at < length {
        let count = (length - at).min(4 << 20) as usize;
        one.read_exact_at(&mut left[..count], at)?;
        other.read_exact_at(&mut right[..count], at)?;
        if left[..count] != right[..count] {
            let inside = left.iter().zip(&right).position(|(one, other)| one != other).unwrap_or(0);
            return Ok(Some(at + inside as u64));
        }
        at += count as u64;
    }
    Ok((!same_length).then_some(length))
}

/// What lies at an offset of a raw disk: partition, file system, path.
fn structure(disk: &Path, offset: u64) -> Result<String, Failed> {
    let file = File::open(disk)?;
    let read = |at: u64, length: usize| -> Result<Vec<u8>, Failed> {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    };
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    for index in 0..128 {
        let entry = read(1024 + index * 128, 128)?;
        let (start, end) = (number(&entry, 32) * 512, (number(&entry, 40) + 1) * 512);
        if !(start..end).contains(&offset) || start == 0 {
            continue;
        }
        let which = format!("partition {}, byte {}", index + 1, offset - start);
        let superblock = read(start + 1024, 1024)?;
        if superblock[56..58] != [0x53, 0xef] {
            return Ok(which);
        }
        let block = (offset - start) / (1024 << superblock[24]);
        let ask = |request: String| {
            let ran = Command::new("debugfs")
                .args(["-R", &request, &format!("{}?offset={start}", text(disk))])
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .output();
            let answer = ran.map(|ran| String::from_utf8_lossy(&ran.stdout).into_owned()).unwrap_or_default();
            answer.lines().last().and_then(|line| Some(line.split_once('\t')?.1.to_owned())).unwrap_or_default()
        };
        let inode = ask(format!("icheck {block}"));
        let path = inode.parse::<u64>().map(|inode| ask(format!("ncheck {inode}"))).unwrap_or_default();
        return Ok(match path.is_empty() {
            true => format!("{which}, ext4 block {block} ({inode}), which is metadata"),
            false => format!("{which}, ext4 file {path}"),
        });
    }
    Ok("outside of all partitions: partition table or boot code".into())
}

/// How the layers in two caches differ.
#[derive(Default)]
pub struct Layers {
    pub count: usize,
    /// By rule: paths that differ until the rule has been applied.
    pub explained: BTreeMap<&'static str, BTreeSet<String>>,
    pub unexplained: Vec<String>,
}

impl Layers {
    pub fn summary(&self) -> String {
        let rules: Vec<String> = self
            .explained
            .iter()
            .map(|(rule, paths)| {
                let few: Vec<&str> = paths.iter().take(4).map(String::as_str).collect();
                format!("\n    {rule}: {} paths, such as {}", paths.len(), few.join(" "))
            })
            .collect();
        format!("{} steps in the store; differences that a rule of `seal` puts right:{}", self.count, rules.concat())
    }
}

/// Compares every step that `other` has in its store, as it is and after each rule of `seal`.
pub fn layers(one: &Path, other: &Path) -> Result<Layers, Failed> {
    let mut layers = Layers::default();
    let (store, other_store) = (Store::open(one)?, Store::open(other)?);
    for key in steps(other)? {
        let short = &key.to_hex()[..12];
        let (Some(mut left), Some(mut right)) = (store.load(key)?, other_store.load(key)?) else {
            layers.unexplained.push(format!("step {short}: the reference has not made it"));
            continue;
        };
        layers.count += 1;
        let mut differing = differences(&left, &right)?;
        for rule in seal::RULES {
            if differing.is_empty() {
                break;
            }
            let epoch = Mtime { seconds: newest(&left).max(newest(&right)), nanoseconds: 0 };
            for tree in [&mut left, &mut right] {
                seal::apply_one(rule, tree, epoch, &[])?;
            }
            let rest = differences(&left, &right)?;
            for (path, _) in differing.iter().filter(|(path, _)| !rest.contains_key(*path)) {
                layers.explained.entry(rule.id).or_default().insert(path.to_string());
            }
            differing = rest;
        }
        let left_over = differing.iter().take(SHOWN).map(|(path, what)| format!("step {short}: {path}: {what}"));
        layers.unexplained.extend(left_over);
    }
    Ok(layers)
}

/// The steps that the store of a cache holds, in the version of its format that the program has.
fn steps(cache: &Path) -> Result<BTreeSet<Digest>, Failed> {
    let mut keys = BTreeSet::new();
    for folder in std::fs::read_dir(cache)?.collect::<Result<Vec<_>, _>>()? {
        if !folder.file_name().to_string_lossy().starts_with("trees-v") {
            continue;
        }
        for entry in std::fs::read_dir(folder.path())? {
            let path = entry?.path();
            let is_tree = path.extension().is_some_and(|extension| extension == "tree");
            let key = path.file_stem().and_then(|stem| Digest::from_hex(stem.to_str()?));
            keys.extend(key.filter(|_| is_tree));
        }
    }
    if keys.is_empty() {
        return Err(format!("no step is in the store {}", cache.display()).into());
    }
    Ok(keys)
}

/// Layers have settled their times already, so none may differ: this one changes none.
fn newest(tree: &Tree) -> i64 {
    tree.iter().map(|(_, entry)| entry.meta.mtime.seconds).max().unwrap_or(0)
}

fn differences(one: &Tree, other: &Tree) -> Result<BTreeMap<TreePath, String>, Failed> {
    let mut found = BTreeMap::new();
    let paths: BTreeSet<&TreePath> = one.iter().chain(other.iter()).map(|(path, _)| path).collect();
    for path in paths {
        let what = match (one.get(path), other.get(path)) {
            (Some(left), Some(right)) if left.kind == right.kind && left.meta == right.meta => continue,
            (Some(left), Some(right)) if left.kind == right.kind => {
                format!("{:?} and {:?}", left.meta, right.meta)
            }
            (Some(left), Some(right)) => match (&left.kind, &right.kind) {
                (Kind::File(left), Kind::File(right)) => first_line(&left.bytes()?, &right.bytes()?),
                (left, right) => format!("{left:?} and {right:?}"),
            },
            _ => "only one has it".into(),
        };
        found.insert(path.clone(), what);
    }
    Ok(found)
}

fn first_line(one: &[u8], other: &[u8]) -> String {
    let (one, other) = (String::from_utf8_lossy(one), String::from_utf8_lossy(other));
    let pair = one.lines().zip(other.lines()).enumerate().find(|(_, (left, right))| left != right);
    let cut = |line: &str| line.chars().take(120).collect::<String>();
    match pair {
        Some((number, (left, right))) => format!("line {}: {:?} and {:?}", number + 1, cut(left), cut(right)),
        None => format!("{} and {} bytes", one.len(), other.len()),
    }
}

/// Programs in the sandbox must have seen the clock of the cell, or it has shown nothing.
pub fn clock_was(cache: &Path, year: i64) -> Result<(), Failed> {
    let store = Store::open(cache)?;
    for key in steps(cache)? {
        let Some(tree) = store.load(key)? else { continue };
        if let Some(log) = tree.read_file(&TreePath::literal("var/log/dpkg.log"))? {
            if String::from_utf8_lossy(&log).lines().last().is_some_and(|line| line.starts_with(&year.to_string())) {
                return Ok(());
            }
        }
    }
    Err(format!("no program in the sandbox has seen the year {year}").into())
}
