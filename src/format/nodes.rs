//! A Tree as inodes and the entries of its directories; pure. What file systems with inodes have in common.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::tree::{Entry, Kind, Meta, Tree, TreePath};

/// One inode.
pub struct Node<'a> {
    pub path: &'a TreePath,
    pub meta: &'a Meta,
    pub kind: &'a Kind,
    /// Names of a file; folders in a folder, with its own two.
    pub links: u64,
    /// Place in the list of the folder above; the root is its own.
    pub parent: usize,
    /// Of a folder: names with places in the list, by name but for a made one.
    pub entries: Vec<(&'a [u8], usize)>,
}

impl Node<'_> {
    pub fn is_folder(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }
}

/// All inodes, ascending by path, the root first. A folder that the file system `wants` is added when missing.
pub fn nodes<'a>(tree: &'a Tree, wants: Option<&'a (TreePath, Entry)>) -> Result<Vec<Node<'a>>> {
    let mut made = None;
    if let Some((path, entry)) = wants {
        match tree.get(path).map(|entry| &entry.kind) {
            None => made = Some((path, entry)),
            Some(Kind::Directory) => {}
            Some(_) => return Err(Error::build(format!("{path} is not a folder"))),
        }
    }
    let mut nodes: Vec<Node<'a>> = Vec::with_capacity(tree.len() + 1);
    let mut places: BTreeMap<&'a TreePath, usize> = BTreeMap::new();
    for (path, entry) in tree.iter().chain(made) {
        if !matches!(entry.kind, Kind::HardLink(_)) {
            places.insert(path, nodes.len());
            let (meta, kind) = (&entry.meta, &entry.kind);
            nodes.push(Node { path, meta, kind, links: 0, parent: 0, entries: Vec::new() });
        }
    }
    for (path, entry) in tree.iter().chain(made) {
        connect(&mut nodes, &places, path, &entry.kind)?;
    }
    Ok(nodes)
}

/// Enters a path into the folder above it and counts the links.
fn connect<'a>(
    nodes: &mut [Node<'a>],
    places: &BTreeMap<&'a TreePath, usize>,
    path: &'a TreePath,
    kind: &Kind,
) -> Result<()> {
    let inode = match kind {
        Kind::HardLink(target) => target,
        _ => path,
    };
    let place = *places.get(inode).ok_or_else(|| Error::build(format!("{path} is a link to nothing")))?;
    let folder = nodes[place].is_folder();
    if folder && inode != path {
        return Err(Error::build(format!("{path} is a hard link to a folder")));
    }
    nodes[place].links += if folder { 2 } else { 1 };
    let Some(above) = path.parent() else { return Ok(()) };
    let above = places.get(&above).copied().filter(|above| nodes[*above].is_folder());
    let above = above.ok_or_else(|| Error::build(format!("{path} has no folder above it")))?;
    if inode == path {
        nodes[place].parent = above;
    }
    nodes[above].entries.push((path.file_name(), place));
    nodes[above].links += u64::from(folder);
    Ok(())
}
