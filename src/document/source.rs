//! Where text came from: a named source kept whole for snippets, and a position in it.
//!
//! Owns: [`Source`], [`Position`]. Uses nothing.

use std::fmt;
use std::sync::Arc;

/// A text that was read, with the name it is shown under.
pub struct Source {
    name: String,
    text: String,
    /// The folder of the kustomization that named it, which is the overlay its values belong to.
    folder: Option<String>,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Source { name: name.into(), text: text.into(), folder: None })
    }

    /// A text that a kustomization in `folder` named.
    pub fn in_folder(name: impl Into<String>, text: impl Into<String>, folder: Option<&str>) -> Arc<Self> {
        Arc::new(Source { name: name.into(), text: text.into(), folder: folder.map(str::to_owned) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.name)
    }
}

/// A range of a source. Lines and columns count from 1, columns in characters; line 0 means the whole source
/// (values built by code).
#[derive(Clone)]
pub struct Position {
    source: Arc<Source>,
    line: u32,
    column: u32,
    start: u32,
    end: u32,
}

impl Position {
    pub(super) fn new(source: &Arc<Source>, line: usize, column: usize, range: std::ops::Range<usize>) -> Self {
        // A source is at most 64 MiB, so these conversions do not truncate.
        Position {
            source: source.clone(),
            line: line as u32,
            column: column as u32,
            start: range.start as u32,
            end: range.end as u32,
        }
    }

    /// The whole of a source; for values that no line of a file stands for.
    pub fn whole(source: &Arc<Source>) -> Self {
        Position { source: source.clone(), line: 0, column: 0, start: 0, end: 0 }
    }

    /// A whole line of a source that is not YAML; lines count from 1.
    pub fn line_of(source: &Arc<Source>, line: usize) -> Self {
        let start = source.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let length = source.text.get(start..).and_then(|rest| rest.lines().next()).map_or(0, str::len);
        Position::new(source, line, 1, start..start + length)
    }

    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// The overlay it belongs to: the folder of the kustomization that named the file, else the file's own.
    pub fn overlay(&self) -> Option<&str> {
        let source = &self.source;
        let own = || source.name.rsplit_once('/').map(|(folder, _)| folder);
        source.folder.as_deref().or_else(own)
    }

    /// The text there, no more than its first line.
    pub fn text(&self) -> &str {
        if self.line == 0 { "" } else { &self.source.text[self.range()] }
    }

    pub fn line(&self) -> u32 {
        self.line
    }

    pub fn column(&self) -> u32 {
        self.column
    }

    /// The byte range in the source, cut to character boundaries and to the first line.
    pub fn range(&self) -> std::ops::Range<usize> {
        let text = &self.source.text;
        let mut start = (self.start as usize).min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = (self.end as usize).clamp(start, text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let line_end = text[start..end].find(['\n', '\r']).map_or(end, |at| start + at);
        start..line_end
    }

    /// The byte range in the source as it was read.
    pub fn bytes(&self) -> (usize, usize) {
        (self.start as usize, self.end as usize)
    }

    /// Whether both stand for the same place of the same source.
    pub fn same(&self, other: &Position) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && (self.line, self.column) == (other.line, other.column)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str(&self.source.name)
        } else {
            write!(f, "{}:{}:{}", self.source.name, self.line, self.column)
        }
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
