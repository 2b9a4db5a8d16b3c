//! Rules as records: what must hold, each with a name, a severity and the reason.
//!
//! Owns: [`Severity`]. Rules on finished images are in [`hygiene`].

pub mod hygiene;

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
