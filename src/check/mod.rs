//! Rules as records: what must hold, each with a name, a severity and the reason.
//!
//! Owns: [`Severity`], the records' shape and running them. Rules on documents are in [`documents`], rules
//! on finished images in [`hygiene`]. Adding a rule is one function and one row of its table; `validate --list` and the
//! documentation read the tables.

pub mod documents;
pub mod hygiene;
pub mod problem;
mod sysctl;

pub use sysctl::sysctl_path;

use crate::document::Diagnostic;
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Warning,
    Error,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// What a rule found, with the place it is about.
#[derive(Debug, Clone)]
pub struct Finding {
    pub rule: &'static str,
    pub severity: Severity,
    pub diagnostic: Diagnostic,
}

impl Finding {
    /// As an error that shows the place and names the rule.
    pub fn into_error(self) -> Error {
        let rule = self.rule;
        Error::from(self.diagnostic.hint(format!("rule `{rule}`")))
    }
}

/// Turns findings of severity `error` into one error, the first in full and the others as hints; hands back the
/// warnings.
pub fn enforce(findings: Vec<Finding>) -> Result<Vec<Finding>> {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    let mut errors = errors.into_iter();
    match errors.next() {
        None => Ok(warnings),
        Some(first) => Err(errors.fold(first.into_error(), |error, other| {
            let rule = other.rule;
            error.hint(format!("also: {} (rule `{rule}`)", Error::from(other.diagnostic)))
        })),
    }
}
