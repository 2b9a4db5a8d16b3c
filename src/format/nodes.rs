//! A Tree as inodes and the entries of its directories; pure. What file systems with inodes have in common.

use std::collections::HashMap;

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
    let mut folders: HashMap<&'a [u8], usize> = HashMap::new();
    for (path, entry) in tree.iter().chain(made) {
        if !matches!(entry.kind, Kind::HardLink(_)) {
            if matches!(entry.kind, Kind::Directory) {
                folders.insert(path.as_bytes(), nodes.len());
            }
            let (meta, kind) = (&entry.meta, &entry.kind);
            nodes.push(Node { path, meta, kind, links: 0, parent: 0, entries: Vec::new() });
        }
    }
    // In the order in which they were entered, so that each finds itself without looking.
    let mut next = 0;
    for (path, entry) in tree.iter().chain(made) {
        let place = match &entry.kind {
            Kind::HardLink(target) => {
                let found = target_of(&nodes[..nodes.len() - usize::from(made.is_some())], target);
                found.ok_or_else(|| Error::build(format!("{path} is a link to nothing")))?
            }
            _ => next,
        };
        connect(&mut nodes, &folders, path, place)?;
        next += usize::from(!matches!(entry.kind, Kind::HardLink(_)));
    }
    Ok(nodes)
}

/// Nodes are ascending by path, but for a made one at the end.
fn target_of(nodes: &[Node<'_>], target: &TreePath) -> Option<usize> {
    nodes.binary_search_by(|node| node.path.cmp(target)).ok()
}

/// Enters a path into the folder above it and counts the links.
fn connect<'a>(
    nodes: &mut [Node<'a>],
    folders: &HashMap<&'a [u8], usize>,
    path: &'a TreePath,
    place: usize,
) -> Result<()> {
    let own = nodes[place].path == path;
    let folder = nodes[place].is_folder();
    if folder && !own {
        return Err(Error::build(format!("{path} is a hard link to a folder")));
    }
    nodes[place].links += if folder { 2 } else { 1 };
    if path.is_root() {
        return Ok(());
    }
    let bytes = path.as_bytes();
    let above = bytes.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &bytes[..at]);
    let above = *folders.get(above).ok_or_else(|| Error::build(format!("{path} has no folder above it")))?;
    if own {
        nodes[place].parent = above;
    }
    nodes[above].entries.push((path.file_name(), place));
    nodes[above].links += u64::from(folder);
    Ok(())
}
