//! Stanzas of fields (deb822(5)), read in place: nothing is copied.
//!
//! Owns: [`stanzas`], which cuts a text into stanzas, and [`Stanza::fields`]. Field names are compared by the caller
//! without regard to case. Comments are not part of the form used in indexes.

use memchr::{memchr, memmem};

/// One paragraph: lines up to an empty line.
#[derive(Debug, Clone, Copy)]
pub struct Stanza<'a>(&'a str);

/// Cuts at empty lines.
pub fn stanzas(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let separator = memmem::Finder::new(b"\n\n");
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches('\n');
        if rest.is_empty() {
            return None;
        }
        let end = separator.find(rest.as_bytes()).unwrap_or(rest.len());
        let (stanza, after) = rest.split_at(end);
        rest = after;
        Some(Stanza(stanza))
    })
}

impl<'a> Stanza<'a> {
    /// As written, without the empty line after it.
    pub fn text(self) -> &'a str {
        self.0
    }

    /// Name and value of each field in order. A value spans its continuation lines as written; white space around
    /// it is left out. Lines that are no field are skipped.
    pub fn fields(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                if rest.is_empty() {
                    return None;
                }
                let (field, after) = rest.split_at(field_end(rest.as_bytes()));
                rest = after.strip_prefix('\n').unwrap_or(after);
                if let Some((name, value)) = field.split_once(':') {
                    return Some((name, value.trim_matches([' ', '\t', '\n', '\r'])));
                }
            }
        })
    }

    /// The value of the first field of this name.
    pub fn get(self, name: &str) -> Option<&'a str> {
        self.fields().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Where the field that starts here ends: at a line break that no white space follows.
fn field_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(offset) = memchr(b'\n', &bytes[at..]) {
        at += offset;
        match bytes.get(at + 1) {
            Some(b' ' | b'\t') => at += 1,
            _ => return at,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_continuation_lines_and_odd_ends() {
        let text = "\n\nPackage: a\nDepends: b,\n c (>= 1),\n\td\nEmpty:\n\n\n\nPackage: e\nnonsense\nsize:  7 ";
        let stanzas: Vec<_> = stanzas(text).collect();
        assert_eq!(stanzas.len(), 2);
        let fields: Vec<_> = stanzas[0].fields().collect();
        assert_eq!(fields, [("Package", "a"), ("Depends", "b,\n c (>= 1),\n\td"), ("Empty", "")]);
        assert_eq!(stanzas[1].get("SIZE"), Some("7"));
        assert_eq!(stanzas[1].get("missing"), None);
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert_eq!(stanzas("").count(), 0);
        assert_eq!(stanzas("\n\n\n").count(), 0);
        assert_eq!(stanzas(": \n:").next().unwrap().fields().count(), 2);
    }
}
