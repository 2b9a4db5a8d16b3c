//! The part of the Tree that its own grub-mkimage needs to run.
//!
//! Owns: [`tools`]. Pure. Much less than the whole Tree, which need not be unpacked for it.

use crate::tree::{Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

const PROGRAM: &[u8] = b"grub-mkimage";
const GRUB: &[u8] = b"usr/lib/grub/";
const LINKER_CACHE: &[u8] = b"etc/ld.so.cache";

/// The program, GRUB's modules, the dynamic linker and every shared library in its search path.
pub fn tools(tree: &Tree) -> Tree {
    let mut out = Tree::new();
    for (path, entry) in tree.iter().filter(|(path, entry)| wanted(path, entry)) {
        // A hard link becomes a file: its target may not be among the tools.
        let kind = tree.inode(path).map_or(&entry.kind, |(_, target)| &target.kind).clone();
        insert(&mut out, tree, path, Entry { kind, ..entry.clone() });
    }
    let origin: Origin = "tools".into();
    for folder in ["dev", "proc", "sys", "tmp", "mnt", "etc", "usr/sbin"] {
        let entry = Entry { meta: Meta::root(0o755), kind: Kind::Directory, origin: origin.clone() };
        insert(&mut out, tree, &TreePath::literal(folder), entry);
    }
    out
}

fn wanted(path: &TreePath, entry: &Entry) -> bool {
    let name = path.file_name();
    // `/bin -> usr/bin` and its like
    if path.as_bytes().len() == name.len() {
        return matches!(entry.kind, Kind::Symlink(_));
    }
    // Most paths end here.
    let library = name.windows(3).any(|part| part == b".so");
    let grub = path.as_bytes().starts_with(GRUB);
    let linker_cache = path.as_bytes() == LINKER_CACHE;
    if matches!(entry.kind, Kind::Directory) || !(library || name == PROGRAM || linker_cache || grub) {
        return false;
    }
    let mut parents = path.components().rev().skip(1);
    let (parent, above) = (parents.next().unwrap_or_default(), parents.next().unwrap_or_default());
    let program = matches!(parent, b"bin" | b"sbin") && name == PROGRAM;
    let place = matches!(parent, b"lib" | b"lib64") || above == b"lib" && parent.ends_with(b"-linux-gnu");
    program || library && place || linker_cache || grub
}

/// With its parents, as they are in the whole Tree.
fn insert(out: &mut Tree, tree: &Tree, path: &TreePath, entry: Entry) {
    let mut missing = Vec::new();
    let mut parent = path.parent();
    while let Some(path) = parent.filter(|path| !out.contains(path)) {
        parent = path.parent();
        missing.push(path);
    }
    for path in missing {
        if let Some(entry) = tree.get(&path) {
            out.insert_raw(path, entry.clone());
        } else {
            let meta = Meta { mtime: Mtime::default(), ..Meta::root(0o755) };
            out.insert_raw(path, Entry { meta, kind: Kind::Directory, origin: entry.origin.clone() });
        }
    }
    if !out.contains(path) {
        out.insert_raw(path.clone(), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_program_needs_and_no_more() {
        let origin: Origin = "test".into();
        let mut tree = Tree::new();
        let file = |tree: &mut Tree, path: &'static str| {
            tree.write_file(&TreePath::literal(path), path, Meta::root(0o755), &origin).unwrap();
        };
        for path in [
            "usr/sbin/mke2fs",
            "usr/bin/grub-mkimage",
            "usr/bin/bash",
            "usr/lib/x86_64-linux-gnu/libdevmapper.so.1.02.1",
            "usr/lib/x86_64-linux-gnu/perl/x.so",
            "usr/lib64/ld-linux-x86-64.so.2",
            "usr/lib/grub/i386-pc/ext2.mod",
            "etc/ld.so.cache",
            "var/lib/big",
        ] {
            file(&mut tree, path);
        }
        tree.write_symlink(&TreePath::literal("lib64"), "usr/lib64", Mtime::default(), &origin).unwrap();
        let tools = tools(&tree);
        let files: Vec<String> = tools
            .iter()
            .filter(|(_, entry)| !matches!(entry.kind, Kind::Directory))
            .map(|(path, _)| path.to_string())
            .collect();
        assert_eq!(
            files,
            [
                "/etc/ld.so.cache",
                "/lib64",
                "/usr/bin/grub-mkimage",
                "/usr/lib/grub/i386-pc/ext2.mod",
                "/usr/lib/x86_64-linux-gnu/libdevmapper.so.1.02.1",
                "/usr/lib64/ld-linux-x86-64.so.2"
            ]
        );
        for (path, _) in tools.iter() {
            assert!(path.parent().is_none_or(|parent| tools.contains(&parent)), "{path} without its folder");
        }
    }
}
