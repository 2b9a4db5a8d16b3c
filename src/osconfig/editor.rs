//! What a setting works with: the Tree, the documents' values, and short ways to write files at the right place with
//! the right origin.
//!
//! Owns: [`Editor`]. All paths are followed inside the Tree (tree::edit), so none leads outside.

use super::Facts;
use crate::api::Params;
use crate::error::{Error, Result};
use crate::tree::{Kind, Meta, Origin, Tree, TreePath};

/// First line of the files that hold nothing but our text.
pub const HEADER: &str = "# Written by imagebuilder from the documents of this image.\n";

pub struct Editor<'a> {
    pub tree: &'a mut Tree,
    pub params: &'a Params,
    pub facts: &'a Facts<'a>,
}

impl<'a> Editor<'a> {
    pub fn new(tree: &'a mut Tree, params: &'a Params, facts: &'a Facts<'a>) -> Self {
        Editor { tree, params, facts }
    }

    /// Where a value stands: `file:line` when known, else its path below `params` as a JSON pointer (RFC 6901).
    pub fn origin(&self, path: &[&str]) -> Origin {
        match (self.facts.origins)(path) {
            Some(place) => place.into(),
            None => pointer(path).into(),
        }
    }

    /// Writes a root-owned file at the build's time, whatever stood there before.
    pub fn write(&mut self, path: &str, text: impl Into<Vec<u8>>, mode: u16, origin: &Origin) -> Result<()> {
        self.write_as(path, text, self.meta(mode, 0, 0), origin)
    }

    pub fn write_as(&mut self, path: &str, text: impl Into<Vec<u8>>, meta: Meta, origin: &Origin) -> Result<()> {
        self.tree.write_file(&tree_path(path)?, text, meta, origin).map(|_| ())
    }

    pub fn link(&mut self, path: &str, target: &str, origin: &Origin) -> Result<()> {
        self.tree.write_symlink(&tree_path(path)?, target, self.facts.epoch, origin).map(|_| ())
    }

    pub fn remove(&mut self, path: &str) -> Result<bool> {
        self.tree.remove(&tree_path(path)?)
    }

    /// The text of a file; `None` if there is none. Bytes that are no UTF-8 are an error.
    pub fn read(&self, path: &str) -> Result<Option<String>> {
        read_text(self.tree, path)
    }

    /// Whether a path leads to something, symbolic links followed.
    pub fn exists(&self, path: &str) -> bool {
        exists(self.tree, path)
    }

    pub fn meta(&self, mode: u16, uid: u32, gid: u32) -> Meta {
        Meta { uid, gid, mtime: self.facts.epoch, ..Meta::root(mode) }
    }

    /// Sets mode and owner of what a path leads to (itself, or the target of its links), on all its hard links.
    pub fn set_meta(&mut self, at: &TreePath, change: impl Fn(&mut Meta), origin: &Origin) -> Result<()> {
        let Some(target) = self.tree.inode(at).map(|(path, _)| path.clone()) else {
            return Err(Error::documents(format!("{at} does not exist in the image")));
        };
        for (path, entry) in self.tree.iter_mut() {
            if *path == target || matches!(&entry.kind, Kind::HardLink(other) if *other == target) {
                change(&mut entry.meta);
                entry.origin = origin.clone();
            }
        }
        Ok(())
    }
}

pub fn exists(tree: &Tree, path: &str) -> bool {
    TreePath::new(path).and_then(|path| tree.resolve(&path).ok()).is_some_and(|path| tree.contains(&path))
}

pub fn read_text(tree: &Tree, path: &str) -> Result<Option<String>> {
    match tree.read_file(&tree_path(path)?)? {
        None => Ok(None),
        Some(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Error::build(format!("{path} of the image is not UTF-8 text"))),
        },
    }
}

/// A path from a document.
pub fn tree_path(path: &str) -> Result<TreePath> {
    TreePath::new(path)
        .ok_or_else(|| Error::documents(format!("`{}` is not a path inside the image", path.escape_debug())))
}

/// RFC 6901.
fn pointer(path: &[&str]) -> String {
    path.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect()
}

/// A name that becomes part of a file name: letters, digits and `._@:-`, not starting with a dot.
pub fn file_name<'t>(name: &'t str, what: &str) -> Result<&'t str> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._@:-+".contains(c);
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.chars().all(fine) {
        return Err(Error::documents(format!("{what} `{}` cannot become a file name", name.escape_debug()))
            .hint("use letters, digits, `-`, `_` and `.`, not starting with a dot"));
    }
    Ok(name)
}

/// A value that must stay on its line.
pub fn one_line<'t>(text: &'t str, what: &str) -> Result<&'t str> {
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Error::documents(format!("{what} holds a line break or another control character")));
    }
    Ok(text)
}

/// A value that must be one word.
pub fn one_word<'t>(text: &'t str, what: &str) -> Result<&'t str> {
    one_line(text, what)?;
    if text.is_empty() || text.chars().any(char::is_whitespace) {
        return Err(Error::documents(format!("{what} `{text}` is not one word")));
    }
    Ok(text)
}

/// An error about a package that a declared setting needs.
pub fn needs_package(what: &str, package: &str) -> Error {
    Error::documents(format!("{what}, but the image has no package `{package}`"))
        .hint(format!("add it: `software.packages.{package}: {{}}`"))
}
