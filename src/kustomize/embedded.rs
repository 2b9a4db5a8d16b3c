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
        out
    }
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
