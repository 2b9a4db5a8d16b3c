//! Errors that show the place: `file:line:column: message`, the line itself, and how an overlay put the value there.
//!
//! Owns: [`Diagnostic`], which becomes a [`crate::error::Error`] of kind `Documents`; [`nearest`] for suggestions.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::node::{ChangeKind, Node, Origin};
use super::source::Position;
use crate::error::Error;

/// How many lines of history a diagnostic shows before it becomes noise.
const HISTORY: usize = 4;

/// An error in the making.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    message: String,
    label: String,
    at: Position,
    notes: Vec<(Position, String)>,
    hints: Vec<String>,
    /// The line holds a secret: say where it is, do not show it.
    secret: bool,
}

impl Diagnostic {
    pub fn at(at: &Position, message: impl Into<String>) -> Self {
        Diagnostic {
            message: message.into(),
            label: String::new(),
            at: at.clone(),
            notes: Vec::new(),
            hints: Vec::new(),
            secret: false,
        }
    }

    /// At the value that counts, with what was done to it since it was first written.
    pub fn on(node: &Node, message: impl Into<String>) -> Self {
        Self::at(&node.origin.at, message).history(&node.origin)
    }

    /// Shown under the marked text.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    #[must_use]
    pub fn note(mut self, at: &Position, text: impl Into<String>) -> Self {
        self.notes.push((at.clone(), text.into()));
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Says where the value stands without showing the line: it holds a secret.
    #[must_use]
    pub fn without_text(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Adds which overlay entries put the value there, newest first.
    #[must_use]
    pub fn history(mut self, origin: &Origin) -> Self {
        for change in origin.changes.iter().rev().take(HISTORY) {
            let (what, replaced) = match change.kind {
                ChangeKind::Removal => ("something was removed by this".to_owned(), "what was removed"),
                ChangeKind::Replacement => ("copied by this replacement".to_owned(), "instead of this value"),
                kind => (format!("set by this {}", kind.name()), "instead of this value"),
            };
            self = self.note(&change.by, what);
            if let Some(at) = &change.replaced {
                self = self.note(at, replaced);
            }
        }
        self
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn place(&self) -> &Position {
        &self.at
    }

    /// Other places, and what they have to do with it.
    pub fn notes(&self) -> &[(Position, String)] {
        &self.notes
    }

    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Adds the place to an error that came from elsewhere: its position to the message, the lines below it. The
    /// message of the diagnostic does not count.
    pub fn attach(self, error: Error) -> Error {
        let snippet = self.snippet();
        let error = error.add_context(self.at.to_string()).at(self.at.file(), self.at.line(), self.at.column());
        if snippet.is_empty() { error } else { error.snippet(snippet) }
    }

    fn snippet(&self) -> String {
        if self.secret {
            return String::new();
        }
        let mut groups = Vec::new();
        if let Some(snippet) = marked(&self.at, &self.label, AnnotationKind::Primary) {
            groups.push(Group::with_level(Level::ERROR).element(snippet));
        }
        for (at, text) in &self.notes {
            let title = match at.line() {
                0 => Level::NOTE.secondary_title(format!("{text}: {at}")),
                _ => Level::NOTE.secondary_title(text.clone()),
            };
            let group = Group::with_title(title);
            groups.push(match marked(at, "", AnnotationKind::Context) {
                Some(snippet) => group.element(snippet),
                None => group,
            });
        }
        if groups.is_empty() {
            return String::new();
        }
        let text = Renderer::plain().decor_style(DecorStyle::Ascii).render(&groups);
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

fn marked<'a>(
    at: &'a Position,
    label: &'a str,
    kind: AnnotationKind,
) -> Option<Snippet<'a, annotate_snippets::Annotation<'a>>> {
    if at.line() == 0 {
        return None;
    }
    // Only the line itself is handed over: rendering walks the text it is given, and sources may be large.
    let text = at.source().text();
    let range = at.range();
    let first = text[..range.start].rfind('\n').map_or(0, |newline| newline + 1);
    let last = text[range.start..].find('\n').map_or(text.len(), |newline| range.start + newline);
    let line = text[first..last].trim_end_matches('\r');
    let start = (range.start - first).min(line.len());
    let end = (range.end - first).clamp(start, line.len());
    let mut annotation = kind.span(start..end);
    if !label.is_empty() {
        annotation = annotation.label(label);
    }
    Some(Snippet::source(line).path(at.file()).line_start(at.line() as usize).annotation(annotation))
}

impl From<Diagnostic> for Error {
    fn from(diagnostic: Diagnostic) -> Self {
        let snippet = diagnostic.snippet();
        let at = &diagnostic.at;
        let error = Error::documents(format!("{at}: {}", diagnostic.message));
        let mut error = error.at(at.file(), at.line(), at.column());
        if !snippet.is_empty() {
            error = error.snippet(snippet);
        }
        diagnostic.hints.into_iter().fold(error, Error::hint)
    }
}

/// The candidate that is most like `word`, if one is like it at all.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .min_by(|a, b| a.0.cmp(&b.0))
        .filter(|(distance, candidate)| *distance <= 1.max(word.chars().count().max(candidate.chars().count()) / 3))
        .map(|(_, candidate)| candidate)
}

/// Longer lists of candidates are only shown when nothing is near.
const LIST: usize = 16;

/// "did you mean `x`?" and the list of what is known.
pub fn suggestion(word: &str, kind: &str, candidates: &[&str]) -> Option<String> {
    let list = || candidates.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match (nearest(word, candidates.iter().copied()), candidates.len()) {
        (_, 0) => None,
        (Some(near), count) if count == 1 || count > LIST => Some(format!("did you mean `{near}`?")),
        (Some(near), _) => Some(format!("did you mean `{near}`? {kind}: {}", list())),
        (None, _) => Some(format!("{kind}: {}", list())),
    }
}
