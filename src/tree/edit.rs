//! Edits of a Tree as OS configuration makes them.
//!
//! Owns: writing files, links and folders, removing, and following symbolic links *inside* the Tree, so that an edit
//! of `/lib/modules-load.d/x` lands in `/usr/lib/...` on a merged-/usr system and no link can lead outside.

use super::{Content, Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};
use crate::error::{Error, Result};

impl Tree {
    /// Where a path really lies: every symbolic link in a *parent* component is followed inside the Tree; the last
    /// component is not. Components that do not exist stay as they are.
    pub fn resolve_parent(&self, path: &TreePath) -> Result<TreePath> {
        match path.parent() {
            None => Ok(TreePath::root()),
            Some(parent) => Ok(self.resolve(&parent)?.join(path.file_name())),
        }
    }

    /// As [`Tree::resolve_parent`], with the last component followed too.
    pub fn resolve(&self, path: &TreePath) -> Result<TreePath> {
        path.follow(|at| match self.get(at).map(|entry| &entry.kind) {
            Some(Kind::Symlink(target)) => Some(target),
            _ => None,
        })
    }

    /// Makes sure a folder and its parents are there; new ones are root-owned 0755. Returns where it really lies.
    pub fn make_directories(&mut self, path: &TreePath, mtime: Mtime, origin: &Origin) -> Result<TreePath> {
        let resolved = self.resolve(path)?;
        let mut here = TreePath::root();
        for component in resolved.components().map(<[u8]>::to_vec).collect::<Vec<_>>() {
            here = here.join(&component);
            match self.get(&here).map(|entry| &entry.kind) {
                Some(Kind::Directory) => {}
                Some(_) => return Err(Error::build(format!("{here} is in the way: it is not a folder"))),
                None => {
                    let meta = Meta { mtime, ..Meta::root(0o755) };
                    self.insert_raw(here.clone(), Entry { meta, kind: Kind::Directory, origin: origin.clone() });
                }
            }
        }
        Ok(resolved)
    }

    /// Writes a file, whatever stood there before (a folder is an error; a symbolic link is replaced, not followed).
    /// Parents are made as needed. Returns where it really lies.
    pub fn write_file(
        &mut self,
        path: &TreePath,
        bytes: impl Into<Vec<u8>>,
        meta: Meta,
        origin: &Origin,
    ) -> Result<TreePath> {
        self.put(path, Entry { meta, kind: Kind::File(Content::inline(bytes.into())), origin: origin.clone() })
    }

    /// Makes a symbolic link, replacing what stood there (a folder is an error).
    pub fn write_symlink(
        &mut self,
        path: &TreePath,
        target: impl Into<Vec<u8>>,
        mtime: Mtime,
        origin: &Origin,
    ) -> Result<TreePath> {
        let meta = Meta { mtime, ..Meta::root(0o777) };
        self.put(path, Entry { meta, kind: Kind::Symlink(target.into()), origin: origin.clone() })
    }

    /// Puts any entry but a folder at a path, parents made as needed.
    pub fn put(&mut self, path: &TreePath, entry: Entry) -> Result<TreePath> {
        if path.is_root() {
            return Err(Error::build("the root of the file system is a folder and stays one"));
        }
        if let Some(parent) = path.parent() {
            self.make_directories(&parent, entry.meta.mtime, &entry.origin)?;
        }
        let at = self.resolve_parent(path)?;
        if matches!(self.get(&at).map(|old| &old.kind), Some(Kind::Directory)) {
            return Err(Error::build(format!("{at} is in the way: it is a folder")));
        }
        self.detach_links(&at);
        self.insert_raw(at.clone(), entry);
        Ok(at)
    }

    /// Removes a path (last component not followed) with everything below it. Tells whether something was there.
    pub fn remove(&mut self, path: &TreePath) -> Result<bool> {
        let at = self.resolve_parent(path)?;
        if at.is_root() || !self.contains(&at) {
            return Ok(false);
        }
        let below: Vec<TreePath> = self.below(&at).map(|(path, _)| path.clone()).collect();
        for path in below.into_iter().chain([at]) {
            self.detach_links(&path);
            self.remove_raw(&path);
        }
        Ok(true)
    }

    /// The bytes of a file, links followed; `None` if there is no file.
    pub fn read_file(&self, path: &TreePath) -> Result<Option<Vec<u8>>> {
        let at = self.resolve(path)?;
        match self.inode(&at) {
            Some((_, Entry { kind: Kind::File(content), .. })) => content.bytes().map(Some),
            _ => Ok(None),
        }
    }

    /// Before a path goes away or changes: if hard links point to it, the first of them becomes the file.
    fn detach_links(&mut self, path: &TreePath) {
        if !matches!(self.get(path).map(|entry| &entry.kind), Some(Kind::File(_))) {
            return;
        }
        let links: Vec<TreePath> = self
            .iter()
            .filter(|(_, entry)| matches!(&entry.kind, Kind::HardLink(target) if target == path))
            .map(|(link, _)| link.clone())
            .collect();
        let Some((first, rest)) = links.split_first() else { return };
        let kind = self.get(path).map(|entry| entry.kind.clone());
        if let (Some(entry), Some(kind)) = (self.get_mut(first), kind) {
            entry.kind = kind;
        }
        for link in rest {
            if let Some(entry) = self.get_mut(link) {
                entry.kind = Kind::HardLink(first.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn merged_usr() -> Tree {
        let origin: Origin = Arc::from("test");
        let mut tree = Tree::new();
        tree.make_directories(&path("usr/lib"), Mtime::default(), &origin).unwrap();
        tree.write_symlink(&path("lib"), "usr/lib", Mtime::default(), &origin).unwrap();
        tree
    }

    #[test]
    fn edits_follow_merged_usr() {
        let mut tree = merged_usr();
        let at = tree.write_file(&path("/lib/a/b"), "x", Meta::root(0o644), &Arc::from("t")).unwrap();
        assert_eq!(at, path("usr/lib/a/b"));
        assert_eq!(tree.read_file(&path("lib/a/b")).unwrap().as_deref(), Some(&b"x"[..]));
        assert!(tree.remove(&path("lib/a")).unwrap());
        assert!(!tree.contains(&path("usr/lib/a/b")));
    }

    #[test]
    fn links_never_lead_outside() {
        let mut tree = merged_usr();
        let origin: Origin = Arc::from("t");
        tree.write_symlink(&path("out"), "../../../usr/lib", Mtime::default(), &origin).unwrap();
        assert_eq!(tree.resolve(&path("out/x")).unwrap(), path("usr/lib/x"));
        tree.write_symlink(&path("loop"), "loop", Mtime::default(), &origin).unwrap();
        assert!(tree.resolve(&path("loop/x")).is_err());
    }

    #[test]
    fn a_hard_link_outlives_its_target() {
        let mut tree = Tree::new();
        let origin: Origin = Arc::from("t");
        tree.write_file(&path("a"), "x", Meta::root(0o644), &origin).unwrap();
        for name in ["b", "c"] {
            let kind = Kind::HardLink(path("a"));
            tree.put(&path(name), Entry { meta: Meta::root(0o644), kind, origin: origin.clone() }).unwrap();
        }
        tree.remove(&path("a")).unwrap();
        assert_eq!(tree.read_file(&path("c")).unwrap().as_deref(), Some(&b"x"[..]));
        assert_eq!(tree.get(&path("c")).unwrap().kind, Kind::HardLink(path("b")));
    }

    #[test]
    fn origins_do_not_enter_the_digest() {
        let (mut one, mut two) = (Tree::new(), Tree::new());
        one.write_file(&path("a"), "x", Meta::root(0o644), &Arc::from("one")).unwrap();
        two.write_file(&path("a"), "x", Meta::root(0o644), &Arc::from("two")).unwrap();
        assert_eq!(one.digest(), two.digest());
        two.write_file(&path("a"), "y", Meta::root(0o644), &Arc::from("two")).unwrap();
        assert_ne!(one.digest(), two.digest());
    }

    #[test]
    fn below_is_exact() {
        let mut tree = Tree::new();
        let origin: Origin = Arc::from("t");
        for name in ["a/x", "a/y/z", "a-b", "b"] {
            tree.write_file(&path(name), "", Meta::root(0o644), &origin).unwrap();
        }
        let a = path("a");
        let names: Vec<String> = tree.below(&a).map(|(path, _)| path.to_string()).collect();
        assert_eq!(names, ["/a/x", "/a/y", "/a/y/z"]);
        let names: Vec<String> = tree.children(&a).map(|(path, _)| path.to_string()).collect();
        assert_eq!(names, ["/a/x", "/a/y"]);
        assert_eq!(tree.below(&TreePath::root()).count(), tree.len() - 1);
    }
}
