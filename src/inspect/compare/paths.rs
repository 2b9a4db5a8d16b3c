//! Two listings side by side.
//!
//! Owns: [`paths`], which names what differs at every path, and [`packages`], which reads the package databases.
//! Contents are compared byte by byte, without digests, and only where the sizes agree.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Context, Result};
use crate::inspect::listing::{FileData, Found, Item, Listing};
use crate::interrupt;
use crate::tree::{ReadAt, TreePath};

/// One thing that differs: `mode`, `owner`, ...
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Aspect {
    pub what: String,
    pub left: String,
    pub right: String,
}

impl Aspect {
    pub fn new(what: &str, left: impl ToString, right: impl ToString) -> Aspect {
        Aspect { what: what.to_owned(), left: left.to_string(), right: right.to_string() }
    }
}

impl std::fmt::Display for Aspect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let absent = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        write!(f, "{} {} -> {}", self.what, absent(&self.left), absent(&self.right))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// Only in the first one.
    Removed,
    /// Only in the second one.
    Added,
    Changed(Vec<Aspect>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub path: TreePath,
    pub what: What,
}

/// The changes in byte order of the paths, at most `limit` of them, and whether there may be more.
pub fn paths(left: &Listing, right: &Listing, limit: usize) -> Result<(Vec<Change>, bool)> {
    let mut changes = Vec::new();
    let (mut lefts, mut rights) = (left.iter().peekable(), right.iter().peekable());
    loop {
        interrupt::check()?;
        let order = match (lefts.peek(), rights.peek()) {
            (None, None) => return Ok((changes, false)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((left, _)), Some((right, _))) => left.cmp(right),
        };
        let one = if order.is_le() { lefts.next() } else { None };
        let two = if order.is_ge() { rights.next() } else { None };
        let change = match (one, two) {
            (Some((path, one)), Some((_, two))) => {
                let aspects = item(one, two).with_context(|| format!("comparing {path}"))?;
                if aspects.is_empty() {
                    continue;
                }
                Change { path: path.clone(), what: What::Changed(aspects) }
            }
            (Some((path, _)), None) => Change { path: path.clone(), what: What::Removed },
            (None, Some((path, _))) => Change { path: path.clone(), what: What::Added },
            (None, None) => return Ok((changes, false)),
        };
        if changes.len() == limit {
            return Ok((changes, true));
        }
        changes.push(change);
    }
}

fn item(left: &Item, right: &Item) -> Result<Vec<Aspect>> {
    let mut out = Vec::new();
    let mut note = |what: &str, left: String, right: String| {
        if left != right {
            out.push(Aspect::new(what, left, right));
        }
    };
    note("type", kind(&left.found).to_owned(), kind(&right.found).to_owned());
    let (a, b) = (&left.meta, &right.meta);
    note("mode", format!("{:04o}", a.mode), format!("{:04o}", b.mode));
    note("owner", format!("{}:{}", a.uid, a.gid), format!("{}:{}", b.uid, b.gid));
    let time = |time: crate::tree::Mtime| format!("{}.{:09}", time.seconds, time.nanoseconds);
    note("mtime", time(a.mtime), time(b.mtime));
    let names: std::collections::BTreeSet<&Vec<u8>> = a.xattrs.keys().chain(b.xattrs.keys()).collect();
    for name in names {
        let value = |item: &crate::tree::Meta| item.xattrs.get(name).map(hex::encode).unwrap_or_default();
        note(&format!("xattr {}", String::from_utf8_lossy(name)), value(a), value(b));
    }
    match (&left.found, &right.found) {
        (Found::File(one), Found::File(two)) => {
            note("size", one.size.to_string(), two.size.to_string());
            // What is hidden from others on the node is not shown here either.
            let readable = a.mode & b.mode & 0o004 != 0;
            match if readable { line(one, two)? } else { None } {
                Some(line) => out.push(line),
                None if one.size == two.size => out.extend(content(one, two)?),
                None => {}
            }
        }
        (Found::Symlink(one), Found::Symlink(two)) => {
            let show = |target: &[u8]| String::from_utf8_lossy(target).into_owned();
            note("target", show(one), show(two));
        }
        (Found::HardLink(one), Found::HardLink(two)) => note("hard link to", one.to_string(), two.to_string()),
        (Found::CharDevice { major, minor }, Found::CharDevice { major: major2, minor: minor2 })
        | (Found::BlockDevice { major, minor }, Found::BlockDevice { major: major2, minor: minor2 }) => {
            note("device", format!("{major}:{minor}"), format!("{major2}:{minor2}"));
        }
        _ => {}
    }
    Ok(out)
}

pub fn kind(found: &Found) -> &'static str {
    match found {
        Found::Directory => "folder",
        Found::File(_) => "file",
        Found::Symlink(_) => "symbolic link",
        Found::HardLink(_) => "hard link",
        Found::CharDevice { .. } => "character device",
        Found::BlockDevice { .. } => "block device",
        Found::Fifo => "named pipe",
        Found::Socket => "socket",
    }
}

/// The first line that differs between two small texts.
fn line(left: &FileData, right: &FileData) -> Result<Option<Aspect>> {
    /// Larger ones are seldom written by hand.
    const LIMIT: u64 = 256 << 10;
    /// Longer lines are cut.
    const SHOWN: usize = 120;
    if left.size.max(right.size) > LIMIT {
        return Ok(None);
    }
    let visible = |character: char| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    let (Some(left), Some(right)) = (text(left.bytes(LIMIT)?), text(right.bytes(LIMIT)?)) else { return Ok(None) };
    let mut lines = (left.lines(), right.lines());
    for number in 1.. {
        let (one, two) = (lines.0.next(), lines.1.next());
        let show = |line: Option<&str>| match line {
            Some(line) => format!("`{}`", line.chars().take(SHOWN).map(visible).collect::<String>()),
            None => "the end".into(),
        };
        match (one, two) {
            (None, None) => return Ok(None),
            _ if one == two => {}
            // Two long lines that look the same say nothing.
            _ if show(one) == show(two) => return Ok(None),
            _ => return Ok(Some(Aspect::new(&format!("line {number}"), show(one), show(two)))),
        }
    }
    Ok(None)
}

/// Two files of one size.
fn content(left: &FileData, right: &FileData) -> Result<Option<Aspect>> {
    let mut buffers = [vec![0; left.size.min(1 << 20) as usize], vec![0; left.size.min(1 << 20) as usize]];
    let mut at = 0;
    while at < left.size {
        interrupt::check()?;
        let length = (left.size - at).min(1 << 20) as usize;
        let [one, two] = &mut buffers;
        left.read_at(&mut one[..length], at)?;
        right.read_at(&mut two[..length], at)?;
        if let Some(within) = super::bytes::first_of(&one[..length], &two[..length]) {
            let show = |byte: u8| format!("{byte:#04x} at byte {}", at + within as u64);
            return Ok(Some(Aspect::new("content", show(one[within]), show(two[within]))));
        }
        at += length as u64;
    }
    Ok(None)
}

/// Packages of a Debian system by name (and architecture, where two are installed), with their versions.
pub fn packages(listing: &Listing) -> Result<BTreeMap<String, String>> {
    /// A status file of a large system has a few megabytes.
    const LIMIT: u64 = 256 << 20;
    let mut packages = BTreeMap::new();
    let status = TreePath::literal("var/lib/dpkg/status");
    let Some(Found::File(data)) = listing.inode(&status).map(|item| &item.found) else { return Ok(packages) };
    let bytes = data.bytes(LIMIT).context("reading /var/lib/dpkg/status")?;
    let text = String::from_utf8_lossy(&bytes);
    for paragraph in text.split("\n\n") {
        let value = |key: &str| paragraph.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let installed = value("Status:").is_some_and(|status| status.ends_with(" installed"));
        if let (true, Some(name), Some(version)) = (installed, value("Package:"), value("Version:")) {
            let foreign = packages.contains_key(name);
            let name =
                if foreign { format!("{name}:{}", value("Architecture:").unwrap_or_default()) } else { name.into() };
            packages.insert(name, version.to_owned());
        }
    }
    Ok(packages)
}

/// One line for each package that came, went or changed; an absent version is empty.
pub fn package_changes(left: &Listing, right: &Listing) -> Result<Vec<Aspect>> {
    let (left, right) = (packages(left)?, packages(right)?);
    let names: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let version = |of: &BTreeMap<String, String>, name: &String| of.get(name).cloned().unwrap_or_default();
    let changes = names.into_iter().map(|name| Aspect::new(name, version(&left, name), version(&right, name)));
    Ok(changes.filter(|change| change.left != change.right).collect())
}
