//! Text to [`Node`]s: YAML 1.2 events of granit-parser, under limits, with every position kept.
//!
//! Owns: [`load_str`], [`load_file`], [`Loader`]. Refuses what has no place in documents: other encodings than
//! UTF-8, tags outside the core schema, keys that are not scalars, duplicate keys, aliases that grow without bound.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span, StrInput};

use super::diagnostic::Diagnostic;
use super::node::{Entry, Key, Mapping, Node, Origin, Scalar, Style, Tag, Value};
use super::scalar::{Resolved, resolve};
use super::source::{Position, Source};
use super::syntax::{culprit, with_indent};
use crate::error::{Context, Error, Result};

const FILE_LIMIT: u64 = 64 << 20;
const DOCUMENT_LIMIT: usize = 4 << 20;
const DOCUMENTS_LIMIT: usize = 1000;
const DEPTH_LIMIT: usize = 128;
/// How many bytes are read again in all because of quoted text that is indented too little.
const REREAD_LIMIT: usize = 64 << 20;
/// What aliases may add to a document, as [`Node::weight`] counts: values, and 25 MB if it is all text.
const ALIAS_BUDGET: usize = 100_000;

/// Reads all documents of a file. Empty documents are left out.
pub fn load_file(path: &Path) -> Result<Vec<Node>> {
    Ok(Loader::default().file(path, &path.display().to_string())?.documents)
}

/// Reads all documents of a text that is shown under `name`. Empty documents are left out.
pub fn load_str(name: &str, text: &str) -> Result<Vec<Node>> {
    Ok(Loader::default().text(name, text.as_bytes())?.documents)
}

/// How to read, where it differs from file to file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Loader {
    /// The last of several equal keys counts, with a notice (kustomization files); otherwise an error.
    pub last_key_wins: bool,
}

/// What was read.
#[derive(Debug)]
pub struct Loaded {
    pub source: Arc<Source>,
    pub documents: Vec<Node>,
    pub notices: Vec<String>,
}

impl Loader {
    /// Reads a file, to be shown under `name`.
    pub fn file(self, path: &Path, name: &str) -> Result<Loaded> {
        self.file_of(None, path, name)
    }

    /// Reads a file that the kustomization in `folder` names.
    pub fn file_of(self, folder: Option<&str>, path: &Path, name: &str) -> Result<Loaded> {
        self.text_of(folder, name, &read_limited(path).with_context(|| format!("reading {name}"))?)
    }

    pub fn text(self, name: &str, bytes: &[u8]) -> Result<Loaded> {
        self.text_of(None, name, bytes)
    }

    /// Reads a text that the kustomization in `folder` brings.
    pub fn text_of(self, folder: Option<&str>, name: &str, bytes: &[u8]) -> Result<Loaded> {
        let mut source = Source::in_folder(name, decode_text(name, bytes)?, folder);
        let (mut first, mut work) = (None, 0);
        // Each time another quoted text of several lines is mended; what needs more is no such text.
        let mut rereads = source.text().lines().count() / 2;
        loop {
            let (read, thin) = Run::new(self, &source, source.text()).finish();
            let error = match read {
                Ok((documents, notices)) => return Ok(Loaded { documents, notices, source }),
                Err(error) => first.unwrap_or(error),
            };
            // Other readers take quoted text whose lines are indented too little. What they stand for is known, so it is
            // read again with more indentation; if that leads nowhere, the first error is the one to tell.
            work += source.text().len();
            let again = work <= REREAD_LIMIT && rereads > 0;
            rereads = rereads.saturating_sub(1);
            let wider = thin.filter(|_| again).and_then(|at| with_indent(source.text(), at));
            let Some(wider) = wider else { return Err(error) };
            first = Some(error);
            source = Source::in_folder(name, wider, folder);
        }
    }

    /// Reads documents written inside a text of another document (an inline patch). Where the text is a literal
    /// block, positions are those of the file around it.
    pub fn inline(self, node: &Node) -> Result<Loaded> {
        let text = node.text().unwrap_or_default();
        let outer = node.origin.at.source();
        if let Some(masked) = masked_block(node, text) {
            // The file with everything before the block blanked out: same lines, same columns.
            let (documents, notices) = Run::new(self, outer, &masked).finish().0?;
            return Ok(Loaded { documents, notices, source: outer.clone() });
        }
        self.text_of(node.origin.at.overlay(), &format!("{} (inline)", node.origin.at), text.as_bytes())
    }
}

/// The source of a literal block, blank up to the block's content; `None` where that would read differently.
fn masked_block(node: &Node, text: &str) -> Option<String> {
    const LARGEST: usize = 1 << 20;
    let outer = node.origin.at.source().text();
    let literal = node.as_scalar()?.style == Style::Literal;
    // Separators only count at the start of a line, which they are not in an indented block.
    let separators = text.starts_with("---") || text.contains("\n---") || text.contains("\n...");
    if !literal || separators || outer.len() > LARGEST {
        return None;
    }
    let (start, end) = node.origin.at.bytes();
    // The position is that of the first text in the block; its line starts with the indentation.
    let body = outer.get(..start)?.rfind('\n')? + 1;
    let mut masked: String = outer[..body].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
    masked.push_str(outer.get(body..end)?);
    Some(masked)
}

/// The content of a file of bounded size.
pub fn read_limited(path: &Path) -> Result<Vec<u8>> {
    let fail = |error: std::io::Error| Error::documents(error.to_string());
    // Asked before opening, too: to open a named pipe is to wait for somebody who writes into it.
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(Error::documents("not a regular file"));
    }
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(Error::documents(format!("larger than {} MiB", FILE_LIMIT >> 20)));
    }
    Ok(bytes)
}

fn decode_text<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Error::documents(format!("{name}: encoded as UTF-16")).hint("save the file as UTF-8"));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = &bytes[..error.valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = valid.len() - valid.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) + 1;
        Error::documents(format!("{name}:{line}:{column}: not UTF-8 text")).hint("save the file as UTF-8")
    })
}

/// Documents and notices.
type Outcome = Result<(Vec<Node>, Vec<String>)>;

/// One pass over a source.
struct Run<'a> {
    options: Loader,
    source: &'a Arc<Source>,
    parser: Parser<'a, StrInput<'a>>,
    /// Finished anchored nodes; `None` while the node is being built.
    anchors: HashMap<usize, Option<Node>>,
    budget: usize,
    notices: Vec<String>,
    /// Where quoted text goes on with too little indentation.
    thin: Option<usize>,
}

impl<'a> Run<'a> {
    /// `text` is what is read, `source` what positions refer to.
    fn new(options: Loader, source: &'a Arc<Source>, text: &'a str) -> Self {
        let mut limits = granit_parser::Options::default();
        limits.set_emit_comments(false);
        limits.disallow_directives = true;
        let parser = Parser::new_from_str_with_options(text, limits);
        Run { options, source, parser, anchors: HashMap::new(), budget: ALIAS_BUDGET, notices: Vec::new(), thin: None }
    }

    /// Documents and notices, and where quoted text is indented too little, if that is why reading stopped.
    fn finish(mut self) -> (Outcome, Option<usize>) {
        let documents = self.documents();
        let notices = self.notices;
        (documents.map(|documents| (documents, notices)), self.thin)
    }

    fn documents(&mut self) -> Result<Vec<Node>> {
        let mut documents = Vec::new();
        let mut seen = 0;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(documents),
                Event::DocumentStart(..) => {
                    crate::interrupt::check()?;
                    seen += 1;
                    if seen > DOCUMENTS_LIMIT {
                        return Err(self.fail(&span, format!("more than {DOCUMENTS_LIMIT} documents in one file")));
                    }
                    let start = self.offset(span.start);
                    self.anchors.clear();
                    self.budget = ALIAS_BUDGET;
                    let (event, span) = self.next()?;
                    let node = self.node(event, &span, 1)?;
                    let (_, end) = self.next()?;
                    if self.offset(end.end) - start.min(self.offset(end.end)) > DOCUMENT_LIMIT {
                        return Err(self.fail(&span, format!("document larger than {} MiB", DOCUMENT_LIMIT >> 20)));
                    }
                    if !node.is_null() {
                        documents.push(node);
                    }
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span)> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node> {
        if depth > DEPTH_LIMIT {
            return Err(self.fail(span, format!("nested deeper than {DEPTH_LIMIT} levels")));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = self.scalar_tag(tag.as_deref(), span)?;
                // A value that is not there arrives as `~`.
                let absent = style == ScalarStyle::Plain && span.is_empty();
                let text = if absent { String::new() } else { text.into_owned() };
                let scalar = Scalar { text, style: style_of(style), tag };
                (Node::new(Value::Scalar(scalar), Origin::new(self.position(span))), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", span)?;
                self.open_anchor(anchor);
                (self.sequence(span, depth)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", span)?;
                self.open_anchor(anchor);
                (self.mapping(span, depth)?, anchor)
            }
            Event::Alias(id) => (self.alias(id, span)?, 0),
            _ => return Err(self.fail(span, "unexpected end of the document")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, Some(node.clone()));
        }
        Ok(node)
    }

    fn open_anchor(&mut self, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
    }

    fn alias(&mut self, id: usize, span: &Span) -> Result<Node> {
        match self.anchors.get(&id) {
            Some(Some(node)) => {
                let node = node.clone();
                self.spend(node.weight(), span)?;
                Ok(node)
            }
            Some(None) => Err(self.fail(span, "alias inside the very value that it stands for")),
            None => Err(self.fail(span, "alias without an anchor before it")),
        }
    }

    fn spend(&mut self, weight: usize, span: &Span) -> Result<()> {
        match self.budget.checked_sub(weight) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(self.fail(span, format!("aliases add more than {ALIAS_BUDGET} values, or too much text"))),
        }
    }

    fn sequence(&mut self, span: &Span, depth: usize) -> Result<Node> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => break,
                (event, at) => items.push(self.node(event, &at, depth + 1)?),
            }
        }
        Ok(Node::new(Value::Sequence(items), Origin::new(self.position(span))))
    }

    fn mapping(&mut self, span: &Span, depth: usize) -> Result<Node> {
        let mut mapping = Mapping::default();
        let mut index: HashMap<String, usize> = HashMap::new();
        let mut merges = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.key(event, &at)?;
            let (event, value_at) = self.next()?;
            let mut value = self.node(event, &value_at, depth + 1)?;
            if is_merge {
                merges.push((value, value_at));
                continue;
            }
            if value.is_null() && value.text().is_none() && value_at.is_empty() {
                // An absent value has no text of its own: its key stands for it.
                value.origin = Origin::new(key.at.clone());
            }
            match index.get(&key.text) {
                None => {
                    index.insert(key.text.clone(), mapping.len());
                    mapping.entries.push(Entry { key, value });
                }
                Some(&first) if self.options.last_key_wins => {
                    let earlier = &mapping.entries[first].key.at;
                    self.notices.push(format!("{}: `{}` given again; {earlier} is ignored", key.at, key.text));
                    mapping.entries[first] = Entry { key, value };
                }
                Some(&first) => {
                    let first = &mapping.entries[first].key.at;
                    let diagnostic = Diagnostic::at(&key.at, format!("duplicate key `{}`", key.text));
                    return Err(diagnostic.label("given again").note(first, "first given here").into());
                }
            }
        }
        for (value, at) in merges {
            self.merge(&mut mapping, &mut index, value, &at, true)?;
        }
        // A block mapping starts with its first key, which makes a better mark than an empty range.
        let first = mapping.entries.first().map(|entry| &entry.key.at);
        let position = first.filter(|_| span.is_empty()).cloned().unwrap_or_else(|| self.position(span));
        Ok(Node::new(Value::Mapping(mapping), Origin::new(position)))
    }

    /// `<<`: keys of the mapping or mappings named there, where the mapping itself does not have them.
    fn merge(
        &mut self,
        into: &mut Mapping,
        index: &mut HashMap<String, usize>,
        value: Node,
        at: &Span,
        lists: bool,
    ) -> Result<()> {
        match value.value {
            Value::Mapping(from) => {
                for entry in from.entries {
                    if !index.contains_key(&entry.key.text) {
                        index.insert(entry.key.text.clone(), into.len());
                        into.entries.push(entry);
                    }
                }
                Ok(())
            }
            Value::Sequence(items) if lists => {
                items.into_iter().try_for_each(|item| self.merge(into, index, item, at, false))
            }
            _ => Err(self.fail(at, "`<<` needs a mapping or a list of mappings")),
        }
    }

    fn key(&mut self, event: Event<'a>, span: &Span) -> Result<Key> {
        let node = match event {
            Event::Scalar(..) | Event::Alias(_) => self.node(event, span, 1)?,
            _ => return Err(self.fail(span, "a key must be plain or quoted text")),
        };
        match node.value {
            Value::Scalar(scalar) => {
                let is_string = matches!(resolve(&scalar), Resolved::Str(_));
                Ok(Key { is_string, text: scalar.text, at: self.position(span) })
            }
            _ => Err(self.fail(span, "a key must be plain or quoted text")),
        }
    }

    fn scalar_tag(&self, tag: Option<&granit_parser::Tag>, span: &Span) -> Result<Option<Tag>> {
        Ok(Some(match tag.map(|tag| (tag, tag.core_suffix())) {
            None => return Ok(None),
            Some((_, Some("str"))) => Tag::Str,
            Some((_, Some("int"))) => Tag::Int,
            Some((_, Some("float"))) => Tag::Float,
            Some((_, Some("bool"))) => Tag::Bool,
            Some((_, Some("null"))) => Tag::Null,
            // The non-specific tag says nothing, as kustomize reads it.
            Some((tag, _)) if tag.parts() == ("", "!") || tag.parts() == ("!", "") => return Ok(None),
            Some((tag, _)) => return Err(self.unknown_tag(tag, span)),
        }))
    }

    fn collection_tag(&self, tag: Option<&granit_parser::Tag>, allowed: &str, span: &Span) -> Result<()> {
        match tag {
            Some(tag) if tag.core_suffix() != Some(allowed) => Err(self.unknown_tag(tag, span)),
            _ => Ok(()),
        }
    }

    fn unknown_tag(&self, tag: &granit_parser::Tag, span: &Span) -> Error {
        let at = span.tag_span().map_or_else(|| self.position(span), |span| self.position(&span));
        Diagnostic::at(&at, format!("unknown tag `{}`", tag.original()))
            .hint("only the core tags `!!str`, `!!int`, `!!float`, `!!bool`, `!!null`, `!!map`, `!!seq` are known")
            .into()
    }

    fn offset(&self, marker: granit_parser::Marker) -> usize {
        marker.byte_offset().unwrap_or_default()
    }

    fn position(&self, span: &Span) -> Position {
        let (start, end) = (self.offset(span.start), self.offset(span.end));
        Position::new(self.source, span.start.line(), span.start.col() + 1, start..end.max(start))
    }

    fn fail(&self, span: &Span, message: impl Into<String>) -> Error {
        Diagnostic::at(&self.position(span), message).into()
    }

    fn syntax(&mut self, error: &granit_parser::ScanError) -> Error {
        let marker = *error.marker();
        let start = self.offset(marker);
        if matches!(error.kind(), ErrorKind::InvalidQuotedScalarIndent) {
            self.thin = Some(start);
        }
        let width = self.source.text().get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        let at = Position::new(self.source, marker.line(), marker.col() + 1, start..start + width);
        let mut diagnostic = Diagnostic::at(&at, format!("not valid YAML: {}", error.info()));
        if let Some(found) = culprit(self.source.text(), start, &error.info()) {
            let place = Position::new(self.source, found.line, found.column, found.range);
            diagnostic = Diagnostic::at(&place, format!("not valid YAML: {}", error.info()));
            diagnostic = diagnostic.label(found.message);
            if place.line() != at.line() {
                diagnostic = diagnostic.note(&at, "where reading stopped");
            }
        }
        match error.kind() {
            ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation => {
                diagnostic.hint("YAML is indented with spaces; replace the tab").into()
            }
            ErrorKind::UnknownAnchor => diagnostic.hint("anchors do not reach beyond their document").into(),
            ErrorKind::DirectiveDisallowed => diagnostic.hint("remove the line that starts with `%`").into(),
            ErrorKind::UnexpectedCharacter { character: '{' | '}' | '[' | ']' | '%' | '@' | '`' | '*' | '&' } => {
                diagnostic.hint("quote text that starts with a character that YAML uses itself").into()
            }
            _ if error.info().starts_with("mapping values") => {
                diagnostic.hint("keys of one mapping start in one column; text that holds `: ` needs quotes").into()
            }
            _ => diagnostic.into(),
        }
    }
}

fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::SingleQuoted,
        ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
        ScalarStyle::Literal => Style::Literal,
        ScalarStyle::Folded => Style::Folded,
    }
}
