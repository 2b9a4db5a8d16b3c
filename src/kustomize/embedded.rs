//! Data inside of a text: a replacement may reach into a YAML or JSON document that a field holds.
//!
//! Owns: [`Embedded`]. JSON is written anew (compact, or in lines if it was); YAML keeps everything but the values that
//! change, so that comments and layout stay.

use super::json;
use crate::document::{Loader, Node, Source, Style, Value, document};

/// A text that is data.
pub struct Embedded {
    text: String,
    pub root: Node,
    is_json: bool,
    /// What of the text is to be replaced by what.
    edits: Vec<(std::ops::Range<usize>, String)>,
    /// Something was made or is no scalar, so that the whole must be written anew.
    anew: bool,
}

impl Embedded {
    /// `None` where the text is just a text.
    pub fn of(node: &Node) -> Option<Embedded> {
        let text = node.text()?.to_owned();
        let name = format!("{} (inside)", node.origin.at);
        let mut documents = Loader::default().text(&name, text.as_bytes()).ok()?.documents;
        let root = documents.pop().filter(|root| root.as_scalar().is_none() && documents.is_empty())?;
        let is_json = text.trim_start().starts_with(['{', '[']);
        Some(Embedded { text, root, is_json, edits: Vec::new(), anew: false })
    }

    /// Notes that the value that stood at a place is another now.
    pub fn changed(&mut self, before: &Node, after: &Node, source: &Source) {
        let (start, end) = before.origin.at.bytes();
        let here = before.origin.at.source().text() == source.text() && self.text.get(start..end).is_some();
        match (&before.value, &after.value) {
            (Value::Scalar(_), Value::Scalar(_)) if here && start < end => {
                let raw = spelled(&self.text[start..end], after);
                self.edits.push((start..end, raw));
            }
            _ => self.anew = true,
        }
    }

    pub fn into_text(mut self) -> String {
        let mut out = String::new();
        if self.is_json {
            match self.text.contains('\n') {
                true => json::pretty(&self.root, &mut out),
                false => json::compact(&self.root, &mut out),
            }
            return out;
        }
        if self.anew {
            out = document(&self.root);
            if !self.text.ends_with('\n') {
                out.truncate(out.trim_end().len());
            }
            return out;
        }
        self.edits.sort_by_key(|(range, _)| range.start);
        let mut from = 0;
        for (range, raw) in self.edits {
            if range.start >= from {
                out.push_str(&self.text[from..range.start]);
                out.push_str(&raw);
                from = range.end;
            }
        }
        out.push_str(&self.text[from..]);
        with_flat_lists(&out)
    }
}

/// YAML with the dashes of lists under their key, as kustomize lays it out, everything else as it is.
fn with_flat_lists(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Of the lines around: how far they were indented, how far they are now, whether they are elements of a list.
    let mut around: Vec<(usize, usize, bool)> = Vec::new();
    // A block of text keeps its own shape, deeper than this.
    let mut block: Option<(usize, isize)> = None;
    for line in text.split_inclusive('\n') {
        let content = line.trim_start_matches(' ');
        let indent = line.len() - content.len();
        if let Some((limit, shift)) = block {
            if content.trim().is_empty() || indent > limit {
                let moved = if content.trim().is_empty() { indent } else { indent.saturating_add_signed(shift) };
                out.push_str(&" ".repeat(moved));
                out.push_str(content);
                continue;
            }
            block = None;
        }
        if content.trim().is_empty() {
            out.push_str(line);
            continue;
        }
        let dash = content.starts_with("- ") || content.trim_end() == "-";
        while around.last().is_some_and(|(was, _, item)| *was > indent || (*was == indent && (*item || !dash))) {
            around.pop();
        }
        let now = match around.last() {
            None => indent,
            Some((_, now, false)) if dash => *now,
            Some((was, now, _)) => now + (indent - was).min(2),
        };
        around.push((indent, now, dash));
        // What follows a dash is a level of its own.
        let (mut inner, mut rest) = (indent, content);
        let mut new = now;
        while let Some(after) = rest.strip_prefix("- ") {
            let blanks = after.len() - after.trim_start_matches(' ').len();
            (inner, new, rest) = (inner + 2 + blanks, new + 2 + blanks, after.trim_start_matches(' '));
            around.push((inner, new, rest.starts_with("- ")));
        }
        let last = content.split(" #").next().unwrap_or_default().trim_end();
        if ["|", ">", "|-", ">-", "|+", ">+"].iter().any(|mark| last.ends_with(&format!(" {mark}"))) {
            block = Some((inner, new as isize - inner as isize));
        }
        out.push_str(&" ".repeat(now));
        out.push_str(content);
    }
    out
}

/// A scalar as it is written in place of one written in some way.
fn spelled(before: &str, after: &Node) -> String {
    let text = after.as_scalar().map_or("", |scalar| &scalar.text);
    let one_line = !text.contains(['\n', '\r', '\t']);
    match before.as_bytes().first() {
        Some(b'"') => {
            let mut raw = String::new();
            json::quote(text, &mut raw);
            raw
        }
        Some(b'\'') if one_line => format!("'{}'", text.replace('\'', "''")),
        _ if after.as_scalar().is_some_and(|scalar| scalar.style == Style::Plain && scalar.tag.is_none()) => {
            text.into()
        }
        _ => document(&Node::string(text, after.origin.clone())).trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_move_under_their_keys() {
        let text = "a:\n  - b: 1\n    c:\n      - x\n      - y: |\n          t\n           u\n# note\nd: [1]\n";
        assert_eq!(with_flat_lists(text), "a:\n- b: 1\n  c:\n  - x\n  - y: |\n      t\n       u\n# note\nd: [1]\n");
        assert_eq!(with_flat_lists("a:\n- b\nc: d\n"), "a:\n- b\nc: d\n");
    }
}
