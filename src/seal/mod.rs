//! The last edits of a Tree: named hygiene rules that take out what maintainer scripts leave by chance, and the image's
//! own description.
//!
//! Owns: [`RULES`] and [`seal`]. Every rule is idempotent and leaves declared files (`files` of the documents) alone.
//! The result depends on the Tree, the epoch and the bytes of the metadata only. Adding a rule is one function and one
//! row; `docs/reference/hygiene.md` is checked against the table. May use: osconfig (account files), tree, error.

mod rules;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Context, Result};
use crate::osconfig::account::Accounts;
use crate::tree::{Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

/// Where an image describes itself.
pub const META: &str = "etc/imagebuilder/meta";

/// One thing that chance leaves and an image must not have.
pub struct Rule {
    pub id: &'static str,
    pub description: &'static str,
    apply: fn(&mut Seal) -> Result<()>,
}

/// In this order; the clamping of times comes last because the others edit.
pub const RULES: &[Rule] = rules::RULES;

/// Applies every rule and writes `meta` to [`META`].
///
/// `declared` are the paths that the documents themselves ask for; no rule removes or changes their content.
pub fn seal(tree: &mut Tree, epoch: Mtime, declared: &[TreePath], meta: &[u8]) -> Result<()> {
    let keep = declared.iter().map(|path| tree.resolve_parent(path)).collect::<Result<_>>()?;
    let mut work = Seal { tree, epoch, keep, origin: Arc::from("seal") };
    for rule in RULES {
        crate::interrupt::check()?;
        (rule.apply)(&mut work).with_context(|| format!("sealing the image, rule `{}`", rule.id))?;
    }
    let mode = Meta { mtime: epoch, ..Meta::root(0o644) };
    work.tree.write_file(&TreePath::literal(META), meta, mode, &work.origin).map(|_| ())
}

/// Applies one rule alone, for tests that ask which one puts a difference right.
pub fn apply_one(rule: &Rule, tree: &mut Tree, epoch: Mtime, declared: &[TreePath]) -> Result<()> {
    let keep = declared.iter().map(|path| tree.resolve_parent(path)).collect::<Result<_>>()?;
    (rule.apply)(&mut Seal { tree, epoch, keep, origin: Arc::from("seal") })
}

/// What a rule works with.
struct Seal<'a> {
    tree: &'a mut Tree,
    epoch: Mtime,
    keep: BTreeSet<TreePath>,
    origin: Origin,
}

impl Seal<'_> {
    /// Removes what lies below a folder and fits; kept paths, and folders on the way to one, stay.
    fn remove_below(&mut self, folder: &'static str, fits: impl Fn(&TreePath, &Entry) -> bool) -> Result<()> {
        let folder = self.tree.resolve(&TreePath::literal(folder))?;
        let doomed: BTreeSet<TreePath> = self
            .tree
            .below(&folder)
            .filter(|(path, entry)| fits(path, entry) && !self.kept(path))
            .map(|(path, _)| path.clone())
            .collect();
        self.remove_all(doomed)
    }

    /// Removes files (not folders) below a folder.
    fn remove_files(&mut self, folder: &'static str) -> Result<()> {
        self.remove_below(folder, |_, entry| !matches!(entry.kind, Kind::Directory))
    }

    /// Removes everything below a folder.
    fn empty(&mut self, folder: &'static str) -> Result<()> {
        self.remove_below(folder, |_, _| true)
    }

    /// Removes single paths.
    fn remove(&mut self, paths: &[&'static str]) -> Result<()> {
        for path in paths {
            let path = self.tree.resolve_parent(&TreePath::literal(path))?;
            if !self.kept(&path) {
                self.tree.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Whether a path is declared, or a folder on the way to a declared one.
    fn kept(&self, path: &TreePath) -> bool {
        // The empty component makes the smallest key below the folder (`etc/a-b` sorts before `etc/a/b`).
        self.keep.contains(path)
            || self.keep.range(path.join(b"")..).next().is_some_and(|next| next.is_below(path))
            || path.as_bytes().iter().enumerate().any(|(at, byte)| {
                *byte == b'/' && TreePath::new(&path.as_bytes()[..at]).is_some_and(|folder| self.keep.contains(&folder))
            })
    }

    fn kind(&self, path: &TreePath) -> Option<&Kind> {
        self.tree.get(path).map(|entry| &entry.kind)
    }

    /// Hard links are looked for once, not once a path; a doomed file whose other names stay hands them its content.
    fn remove_all(&mut self, doomed: BTreeSet<TreePath>) -> Result<()> {
        if doomed.is_empty() {
            return Ok(());
        }
        let mut linked = BTreeSet::new();
        for (path, entry) in self.tree.iter() {
            if let Kind::HardLink(target) = &entry.kind {
                if doomed.contains(target) && !doomed.contains(path) {
                    linked.insert(target.clone());
                }
            }
        }
        for path in &doomed {
            if linked.contains(path) {
                self.tree.remove(path)?;
            } else {
                self.tree.remove_raw(path);
            }
        }
        Ok(())
    }

    fn accounts(&self) -> Result<Accounts> {
        Accounts::load(self.tree)
    }
}

#[cfg(test)]
mod tests;
