//! A Tree as numbered inodes and the entries of its directories; pure.

use std::collections::BTreeMap;

use super::Options;
use super::directory::{
    DirectoryEntry, TYPE_BLOCK, TYPE_CHAR, TYPE_DIRECTORY, TYPE_FIFO, TYPE_FILE, TYPE_SOCKET, TYPE_SYMLINK,
};
use super::format::{FIRST_INODE, ROOT_INODE};
use crate::error::{Error, Result};
use crate::tree::{Kind, Meta, Tree, TreePath};

/// One inode.
pub struct Node {
    pub number: u32,
    pub path: TreePath,
    pub meta: Meta,
    pub kind: Kind,
    /// Names of a file; folders in a folder, with its own two.
    pub links: u64,
    /// Of a folder.
    pub parent: u32,
    pub entries: Vec<DirectoryEntry>,
}

/// All inodes but resize and journal, ascending by path; lost+found is made when missing.
pub fn nodes(tree: &Tree, options: &Options) -> Result<Vec<Node>> {
    let lost_found = TreePath::literal("lost+found");
    let mut nodes: Vec<Node> = Vec::with_capacity(tree.len() + 1);
    let mut places: BTreeMap<TreePath, usize> = BTreeMap::new();
    let mut next = FIRST_INODE + 1;
    let mut add = |path: &TreePath, meta: &Meta, kind: &Kind| -> Result<()> {
        let number = match path {
            path if path.is_root() => ROOT_INODE,
            path if *path == lost_found => FIRST_INODE,
            _ => {
                next = next.checked_add(1).ok_or_else(|| Error::build("there are too many files for ext4"))?;
                next - 1
            }
        };
        places.insert(path.clone(), nodes.len());
        let (meta, kind) = (meta.clone(), kind.clone());
        nodes.push(Node { number, path: path.clone(), meta, kind, links: 0, parent: 0, entries: Vec::new() });
        Ok(())
    };
    for (path, entry) in tree.iter().filter(|(_, entry)| !matches!(entry.kind, Kind::HardLink(_))) {
        add(path, &entry.meta, &entry.kind)?;
    }
    match tree.get(&lost_found).map(|entry| &entry.kind) {
        None => add(&lost_found, &Meta { mtime: options.time, ..Meta::root(0o700) }, &Kind::Directory)?,
        Some(Kind::Directory) => {}
        Some(_) => return Err(Error::build("/lost+found is not a folder")),
    }
    let made = (!tree.contains(&lost_found)).then_some((&lost_found, &Kind::Directory));
    for (path, kind) in tree.iter().map(|(path, entry)| (path, &entry.kind)).chain(made) {
        connect(&mut nodes, &places, path, kind)?;
    }
    Ok(nodes)
}

/// Enters a path into the folder above it and counts the links.
fn connect(nodes: &mut [Node], places: &BTreeMap<TreePath, usize>, path: &TreePath, kind: &Kind) -> Result<()> {
    let inode = match kind {
        Kind::HardLink(target) => target,
        _ => path,
    };
    let place = *places.get(inode).ok_or_else(|| Error::build(format!("{path} is a link to nothing")))?;
    let folder = matches!(nodes[place].kind, Kind::Directory);
    if folder && inode != path {
        return Err(Error::build(format!("{path} is a hard link to a folder")));
    }
    nodes[place].links += if folder { 2 } else { 1 };
    let Some(above) = path.parent() else {
        nodes[place].parent = ROOT_INODE;
        return Ok(());
    };
    let above = places.get(&above).copied().filter(|above| matches!(nodes[*above].kind, Kind::Directory));
    let above = above.ok_or_else(|| Error::build(format!("{path} has no folder above it")))?;
    nodes[place].parent = nodes[above].number;
    let entry = DirectoryEntry {
        inode: nodes[place].number,
        file_type: file_type(&nodes[place].kind),
        name: path.file_name().to_vec(),
    };
    nodes[above].entries.push(entry);
    nodes[above].links += u64::from(folder);
    Ok(())
}

fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::Directory => TYPE_DIRECTORY,
        Kind::File(_) | Kind::HardLink(_) => TYPE_FILE,
        Kind::Symlink(_) => TYPE_SYMLINK,
        Kind::CharDevice { .. } => TYPE_CHAR,
        Kind::BlockDevice { .. } => TYPE_BLOCK,
        Kind::Fifo => TYPE_FIFO,
        Kind::Socket => TYPE_SOCKET,
    }
}
