//! Paths inside a Tree: bytes, relative to the root, normalised.
//!
//! Owns: [`TreePath`], which can hold neither a leading slash nor `.`, `..` or empty components, so that joining one
//! to a directory of the host never leaves that directory.

use std::fmt;

use crate::error::{Error, Result};

/// As in the kernel (`MAXSYMLINKS`, linux/namei.h).
const MAX_LINKS: usize = 40;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    pub fn root() -> Self {
        TreePath(Vec::new())
    }

    /// Normalises `/a//b/./c` and `./a/b/` to `a/b/c`. `None` if a component is `..` or the path holds a NUL byte.
    pub fn new(path: impl AsRef<[u8]>) -> Option<Self> {
        let path = path.as_ref();
        if path.contains(&0) {
            return None;
        }
        let mut out = Vec::with_capacity(path.len());
        for component in path.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return None,
                _ => {
                    if !out.is_empty() {
                        out.push(b'/');
                    }
                    out.extend_from_slice(component);
                }
            }
        }
        Some(TreePath(out))
    }

    /// For paths written in our own source. Panics on a path that [`TreePath::new`] refuses.
    pub fn literal(path: &'static str) -> Self {
        Self::new(path).expect("a literal path is well formed")
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn parent(&self) -> Option<TreePath> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(TreePath(self.0[..cut].to_vec()))
    }

    /// The last component; empty for the root.
    pub fn file_name(&self) -> &[u8] {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => &self.0[slash + 1..],
            None => &self.0,
        }
    }

    /// Appends one component (no slash inside); an empty one gives the prefix `self/` for range queries only.
    pub(crate) fn join(&self, component: &[u8]) -> TreePath {
        let mut out = self.0.clone();
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(component);
        TreePath(out)
    }

    /// Appends a relative path.
    pub fn append(&self, other: &TreePath) -> TreePath {
        if other.is_root() { self.clone() } else { self.join(&other.0) }
    }

    /// Strictly below `directory`.
    pub fn is_below(&self, directory: &TreePath) -> bool {
        directory.is_root() && !self.is_root()
            || self.0.len() > directory.0.len() && self.0.starts_with(&directory.0) && self.0[directory.0.len()] == b'/'
    }

    /// The path seen from `directory`: itself gives the root, something below the rest, anything else `None`.
    pub fn strip_prefix(&self, directory: &TreePath) -> Option<TreePath> {
        if self == directory {
            return Some(TreePath::root());
        }
        if !self.is_below(directory) {
            return None;
        }
        let skip = if directory.is_root() { 0 } else { directory.0.len() + 1 };
        Some(TreePath(self.0[skip..].to_vec()))
    }

    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }

    /// Where the path really lies, all symbolic links followed, the last component too. `link` says what the link at a path
    /// says, if there is one. Nothing leads out of the root.
    pub fn follow<'a>(&self, link: impl Fn(&TreePath) -> Option<&'a Vec<u8>>) -> Result<TreePath> {
        let mut todo: Vec<&[u8]> = self.components().rev().collect();
        let (mut here, mut links) = (TreePath::root(), 0);
        while let Some(component) = todo.pop() {
            match component {
                b"" | b"." => continue,
                b".." => {
                    here = here.parent().unwrap_or_else(TreePath::root);
                    continue;
                }
                _ => {}
            }
            let next = here.join(component);
            let Some(target) = link(&next) else {
                here = next;
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::build(format!("too many symbolic links on the way to {self}")));
            }
            if target.starts_with(b"/") {
                here = TreePath::root();
            }
            todo.extend(target.split(|byte| *byte == b'/').rev());
        }
        Ok(here)
    }

    /// As a relative path of the host, for joining to a directory.
    pub fn to_host(&self) -> &std::path::Path {
        use std::os::unix::ffi::OsStrExt;
        std::path::Path::new(std::ffi::OsStr::from_bytes(&self.0))
    }
}

/// With a leading slash, for people.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn normalises_and_refuses() {
        let path = |text: &str| TreePath::new(text).map(|path| path.to_string());
        assert_eq!(path("./usr//lib/./x/").as_deref(), Some("/usr/lib/x"));
        assert_eq!(path("/").as_deref(), Some("/"));
        assert_eq!(path("a/../b"), None);
        assert_eq!(path("a\0b"), None);
    }

    #[test]
    fn follows_links_and_stays_inside() {
        let links: BTreeMap<TreePath, Vec<u8>> =
            [("lib", "usr/lib"), ("usr/lib/up", "../../../etc"), ("etc/x", "/lib/./y"), ("loop", "/loop/z")]
                .map(|(path, target)| (TreePath::literal(path), target.as_bytes().to_vec()))
                .into();
        let follow = |path: &str| TreePath::new(path).unwrap().follow(|at| links.get(at));
        assert_eq!(follow("lib/up/x").unwrap().to_string(), "/usr/lib/y");
        assert_eq!(follow("new/lib").unwrap().to_string(), "/new/lib");
        assert_eq!(follow("/").unwrap(), TreePath::root());
        assert!(follow("loop/a").unwrap_err().to_string().contains("too many symbolic links on the way to /loop/a"));
    }

    #[test]
    fn knows_what_is_below() {
        let usr = TreePath::literal("usr");
        assert!(TreePath::literal("usr/lib").is_below(&usr));
        assert!(!TreePath::literal("usr-local").is_below(&usr));
        assert!(!usr.is_below(&usr));
        assert!(usr.is_below(&TreePath::root()));
        assert_eq!(TreePath::literal("usr/lib/x").strip_prefix(&usr), TreePath::new("lib/x"));
        assert_eq!(usr.parent(), Some(TreePath::root()));
    }
}
