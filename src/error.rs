//! The one error type of the program: a kind (which decides the exit code), a chain of contexts, hints.
//!
//! Owns: [`Error`], [`Kind`], [`Result`] and the [`Context`] extension that attaches what was being done.
//! Libraries return these and never print; `main` renders them. `std::io::Error` has no blanket conversion on
//! purpose: an input/output error without its path helps nobody, so `.context(..)` is the only way in.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a caller can act on it. The exit codes are those of the design, section 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A step failed (exit 1).
    Build,
    /// The command line does not make sense (exit 2).
    Usage,
    /// Documents are invalid (exit 3).
    Documents,
    /// Input is not authentic: bad signature, wrong digest, expired or rolled-back index (exit 4).
    Authenticity,
    /// The network did not deliver (exit 5).
    Network,
    /// Not enough space, on the host or in the image (exit 6).
    Space,
    /// Inputs differ from the lock (exit 7).
    Drift,
    /// A check of the result failed (exit 8).
    Checks,
    /// Stopped by the user (exit 130).
    Interrupted,
}

impl Kind {
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Build => 1,
            Kind::Usage => 2,
            Kind::Documents => 3,
            Kind::Authenticity => 4,
            Kind::Network => 5,
            Kind::Space => 6,
            Kind::Drift => 7,
            Kind::Checks => 8,
            Kind::Interrupted => 130,
        }
    }

    /// Of the exit code of a builder; what no builder gives is a failed build.
    pub fn of_exit_code(code: i64) -> Kind {
        const ALL: [Kind; 9] = [
            Kind::Build,
            Kind::Usage,
            Kind::Documents,
            Kind::Authenticity,
            Kind::Network,
            Kind::Space,
            Kind::Drift,
            Kind::Checks,
            Kind::Interrupted,
        ];
        ALL.into_iter().find(|kind| i64::from(kind.exit_code()) == code).unwrap_or(Kind::Build)
    }
}

/// An error: innermost message first, then what was being done, outermost last.
///
/// Messages are lower case without a full stop; contexts are gerunds with their object ("reading lock /x/y").
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    contexts: Vec<String>,
    hints: Vec<String>,
    /// A ready-made source snippet (file:line:column with the line shown), printed below the message.
    snippet: Option<String>,
    /// The setting at fault, as a path below `params`: who knows the documents can tell where it was written.
    subject: Option<Vec<String>>,
    /// File, line and column at fault, when the message names them too.
    place: Option<(String, u32, u32)>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            contexts: Vec::new(),
            hints: Vec::new(),
            snippet: None,
            subject: None,
            place: None,
        }))
    }

    pub fn build(message: impl Into<String>) -> Self {
        Self::new(Kind::Build, message)
    }

    pub fn documents(message: impl Into<String>) -> Self {
        Self::new(Kind::Documents, message)
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// A hint in place of those given so far, which lead nowhere here.
    #[must_use]
    pub fn only_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.clear();
        self.hint(hint)
    }

    #[must_use]
    pub fn snippet(mut self, snippet: impl Into<String>) -> Self {
        self.0.snippet = Some(snippet.into());
        self
    }

    /// Without the lines shown: they hold a secret.
    #[must_use]
    pub fn without_snippet(mut self) -> Self {
        self.0.snippet = None;
        self
    }

    #[must_use]
    pub fn add_context(mut self, context: impl Into<String>) -> Self {
        self.0.contexts.push(context.into());
        self
    }

    /// Names the setting at fault, by its path below `params` or below what [`Error::within`] will add. The first one
    /// named stays: it was nearest to the problem.
    #[must_use]
    pub fn about(mut self, path: &[&str]) -> Self {
        self.0.subject.get_or_insert_with(|| path.iter().map(|&part| part.to_owned()).collect());
        self
    }

    /// Puts a path in front of the setting at fault, if there is one.
    #[must_use]
    pub fn within(mut self, path: &[&str]) -> Self {
        let outer = path.iter().map(|&part| part.to_owned());
        self.0.subject = self.0.subject.take().map(|inner| outer.chain(inner).collect());
        self
    }

    /// The setting at fault, if the error is about one.
    pub fn subject(&self) -> Option<&[String]> {
        self.0.subject.as_deref()
    }

    /// Says for programs which file, line and column are at fault. The first one named stays.
    #[must_use]
    pub fn at(mut self, file: &str, line: u32, column: u32) -> Self {
        self.0.place.get_or_insert_with(|| (file.to_owned(), line, column));
        self
    }

    /// File, line and column at fault; line 0 is the whole file.
    pub fn place(&self) -> Option<(&str, u32, u32)> {
        self.0.place.as_ref().map(|(file, line, column)| (file.as_str(), *line, *column))
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The innermost message, without contexts.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }

    pub fn rendered_snippet(&self) -> Option<&str> {
        self.0.snippet.as_deref()
    }
}

/// One line: outermost context first, the cause last, joined by `: `.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for context in self.0.contexts.iter().rev() {
            write!(f, "{context}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

/// Attaching what was being done to a failure.
pub trait Context<T> {
    fn context(self, context: impl Into<String>) -> Result<T>;
    fn with_context<S: Into<String>>(self, context: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for Result<T, Error> {
    fn context(self, context: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.add_context(context))
    }
    fn with_context<S: Into<String>>(self, context: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.add_context(context()))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, context: impl Into<String>) -> Result<T> {
        self.map_err(|error| from_io(error).add_context(context))
    }
    fn with_context<S: Into<String>>(self, context: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| from_io(error).add_context(context()))
    }
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn context(self, context: impl Into<String>) -> Result<T> {
        self.map_err(|error| from_io(error.into()).add_context(context))
    }
    fn with_context<S: Into<String>>(self, context: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| from_io(error.into()).add_context(context()))
    }
}

fn from_io(error: std::io::Error) -> Error {
    // An `Error` that travelled through a `Read` implementation comes out as it went in.
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        if let Some(inner) = error.into_inner() {
            return match inner.downcast::<Error>() {
                Ok(error) => *error,
                Err(other) => Error::build(other.to_string()),
            };
        }
        return Error::build("unknown input/output error");
    }
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::new(Kind::Space, "no space left on device")
                .hint("free some space, or point `--cache-dir`, `--output-dir` or `TMPDIR` at a larger file system")
        }
        _ => Error::build(error.to_string()),
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_read_from_the_outside_in() {
        let failed: std::io::Result<()> = Err(std::io::Error::from(std::io::ErrorKind::NotFound));
        let error = failed.context("opening /x").context("reading lock").unwrap_err();
        assert_eq!(error.to_string(), "reading lock: opening /x: entity not found");
        assert_eq!(error.kind(), Kind::Build);
    }

    #[test]
    fn a_full_disk_has_its_own_exit_code() {
        let failed: std::io::Result<()> = Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(failed.context("writing out/x").unwrap_err().kind().exit_code(), 6);
    }

    #[test]
    fn the_setting_at_fault_is_the_one_named_first() {
        let error = Error::documents("x").about(&["suite"]).about(&["source"]).within(&["repositories", "debian"]);
        assert_eq!(error.subject().unwrap(), ["repositories", "debian", "suite"]);
        assert!(Error::documents("x").within(&["repositories"]).subject().is_none());
    }

    #[test]
    fn our_error_survives_a_trip_through_io() {
        let inner = Error::new(Kind::Authenticity, "wrong digest").hint("try again");
        let through: std::io::Result<()> = Err(inner.into());
        let back = through.context("fetching").unwrap_err();
        assert_eq!((back.kind(), back.hints().len()), (Kind::Authenticity, 1));
    }
}
