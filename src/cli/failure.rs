//! How an error looks: what was being done, what went wrong, where, and what helps.
//!
//! Owns: the rendering. Colour goes through anstream (off when not a terminal, `NO_COLOR`), and is never the only
//! carrier.

use std::fmt::Write as _;
use std::io::Write as _;

use anstyle::AnsiColor;

use crate::error::{Error, Kind};

/// On standard error; nobody is left to tell when that fails.
pub fn print(error: &Error) {
    let _ = anstream::stderr().lock().write_all(render(error).as_bytes());
}

/// The text, with colour codes.
pub fn render(error: &Error) -> String {
    let red = AnsiColor::Red.on_default().bold();
    let cyan = AnsiColor::Cyan.on_default().bold();
    let mut text = String::new();
    if error.kind() == Kind::Interrupted {
        return format!("{error}\n");
    }
    let _ = writeln!(text, "{red}error:{red:#} {error}");
    if let Some(snippet) = error.rendered_snippet().filter(|snippet| !snippet.is_empty()) {
        text.push_str(snippet);
        if !snippet.ends_with('\n') {
            text.push('\n');
        }
    }
    for hint in error.hints() {
        let _ = writeln!(text, "{cyan}hint:{cyan:#} {}", hint.replace('\n', "\n      "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_then_snippet_then_hints() {
        let error = Error::documents("unknown field `kernle`")
            .add_context("reading NodeProfile base")
            .snippet(" --> a.yaml:3:1")
            .hint("did you mean `kernel`?");
        let plain = anstream::adapter::strip_str(&render(&error)).to_string();
        assert_eq!(
            plain,
            "error: reading NodeProfile base: unknown field `kernle`\n --> a.yaml:3:1\nhint: did you mean `kernel`?\n"
        );
    }
}
