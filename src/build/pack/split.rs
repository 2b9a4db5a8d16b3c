//! The final Tree cut along mount points: one Tree a file system.
//!
//! Owns: [`split`]. Pure. The folder of a mount point stays in the outer file system, empty, and its metadata becomes
//! that of the inner root.

use std::collections::BTreeMap;

use crate::boot::layout::{Layout, Mounted, Partition};
use crate::error::Result;
use crate::tree::{Kind, Tree, TreePath};

/// A partition with a file system and what goes into it.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    pub partition: &'a Partition,
    pub mounted: &'a Mounted,
    pub tree: Tree,
}

/// In mount order, so that the root is first.
pub fn split<'a>(tree: &Tree, layout: &'a Layout) -> Result<Vec<Part<'a>>> {
    layout.root()?;
    let mounts = layout.mounts();
    let points: Vec<&TreePath> = mounts.iter().map(|(_, mounted)| &mounted.at).collect();
    let mut trees: Vec<Tree> = points.iter().map(|_| Tree::new()).collect();
    // Where the bytes of a hard link's target ended up, per file system.
    let mut moved: BTreeMap<(usize, TreePath), TreePath> = BTreeMap::new();
    for (path, entry) in tree.iter() {
        let at = home(&points, path);
        if let Some(inside) = path.strip_prefix(points[at]) {
            let entry = match &entry.kind {
                Kind::HardLink(target) => relink(tree, &points, at, entry.clone(), &inside, target, &mut moved),
                _ => entry.clone(),
            };
            trees[at].insert_raw(inside, entry);
        }
        // A mount point is also a folder of the file system around it.
        if !path.is_root() && points[at] == path {
            if let Some(parent) = path.parent() {
                let outer = home(&points, &parent);
                if let Some(inside) = path.strip_prefix(points[outer]) {
                    trees[outer].insert_raw(inside, entry.clone());
                }
            }
        }
    }
    let parts = mounts.into_iter().zip(trees);
    Ok(parts.map(|((partition, mounted), tree)| Part { partition, mounted, tree }).collect())
}

/// The same parts on a layout whose sizes are known.
pub fn on<'a>(layout: &'a Layout, parts: Vec<Part<'_>>) -> Vec<Part<'a>> {
    let find = |number| layout.mounts().into_iter().find(move |(partition, _)| partition.number == number);
    let moved = |part: Part<'_>| {
        let (partition, mounted) = find(part.partition.number)?;
        Some(Part { partition, mounted, tree: part.tree })
    };
    parts.into_iter().filter_map(moved).collect()
}

/// The innermost mount point a path lies at or below. The root always matches.
fn home(points: &[&TreePath], path: &TreePath) -> usize {
    let depth = |point: &TreePath| point.components().count();
    (0..points.len())
        .filter(|index| path == points[*index] || path.is_below(points[*index]))
        .max_by_key(|index| depth(points[*index]))
        .unwrap_or(0)
}

/// A hard link cannot cross file systems: the first of its names in another one becomes a file with the same bytes,
/// the next ones link to that.
fn relink(
    tree: &Tree,
    points: &[&TreePath],
    at: usize,
    mut entry: crate::tree::Entry,
    inside: &TreePath,
    target: &TreePath,
    moved: &mut BTreeMap<(usize, TreePath), TreePath>,
) -> crate::tree::Entry {
    if home(points, target) == at {
        if let Some(target) = target.strip_prefix(points[at]) {
            entry.kind = Kind::HardLink(target);
            return entry;
        }
    }
    match moved.get(&(at, target.clone())) {
        Some(first) => entry.kind = Kind::HardLink(first.clone()),
        None => {
            if let Some((_, original)) = tree.inode(target) {
                entry.kind = original.kind.clone();
            }
            moved.insert((at, target.clone()), inside.clone());
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::params::storage::Storage;
    use crate::boot::layout::Identity;
    use crate::tree::{Entry, Meta, Mtime, Origin};

    #[test]
    fn cuts_along_mount_points() {
        let origin: Origin = "test".into();
        let mut tree = Tree::new();
        let path = |text: &str| TreePath::new(text).unwrap();
        tree.make_directories(&path("boot/efi"), Mtime::default(), &origin).unwrap();
        tree.get_mut(&path("boot")).unwrap().meta.mode = 0o700;
        for name in ["bin/a", "boot/kernel", "boot/efi/EFI/BOOT/x", "bootless"] {
            tree.write_file(&path(name), name, Meta::root(0o644), &origin).unwrap();
        }
        for name in ["bin/b", "boot/l1", "boot/l2"] {
            let kind = Kind::HardLink(path("bin/a"));
            tree.insert_raw(path(name), Entry { meta: Meta::root(0o644), kind, origin: origin.clone() });
        }
        let identity = Identity { site: "s".into(), image: "i".into() };
        let layout = Layout::new(&Storage::default(), &identity).unwrap();
        let parts = split(&tree, &layout).unwrap();
        let names: Vec<Vec<String>> =
            parts.iter().map(|part| part.tree.iter().map(|(path, _)| path.to_string()).collect()).collect();
        assert_eq!(names[0], ["/", "/bin", "/bin/a", "/bin/b", "/boot", "/bootless"]);
        assert_eq!(names[1], ["/", "/efi", "/kernel", "/l1", "/l2"]);
        assert_eq!(names[2], ["/", "/EFI", "/EFI/BOOT", "/EFI/BOOT/x"]);
        // the mount point's own metadata holds on both sides
        assert_eq!(parts[0].tree.get(&path("boot")).unwrap().meta.mode, 0o700);
        assert_eq!(parts[1].tree.get(&TreePath::root()).unwrap().meta.mode, 0o700);
        // links stay links inside one file system, and become one file and a link in another
        assert_eq!(parts[0].tree.get(&path("bin/b")).unwrap().kind, Kind::HardLink(path("bin/a")));
        assert!(matches!(parts[1].tree.get(&path("l1")).unwrap().kind, Kind::File(_)));
        assert_eq!(parts[1].tree.get(&path("l2")).unwrap().kind, Kind::HardLink(path("l1")));
    }
}
