//! Where a mistake in the syntax was made, when the parser only notices it lines later: the quote or bracket that nobody
//! closed, the key without colon, the tab.
//!
//! Owns: [`culprit`], [`with_indent`]. Looks at text only, and only backwards from where the parser stopped.

use std::ops::Range;

/// How far back is looked, in lines; a mistake further away is not guessed.
const REACH: usize = 200;

/// What was found instead of where the parser stopped.
#[derive(Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Line from 1, column from 1 in characters, and the bytes to mark.
    pub line: usize,
    pub column: usize,
    pub range: Range<usize>,
    pub message: &'static str,
}

/// One line of a text and where it starts.
struct Line<'a> {
    number: usize,
    start: usize,
    text: &'a str,
}

impl Line<'_> {
    fn indent(&self) -> usize {
        self.text.len() - self.text.trim_start_matches(' ').len()
    }

    fn mark(&self, from: usize, length: usize, message: &'static str) -> Culprit {
        let column = self.text.get(..from).map_or(from, |before| before.chars().count()) + 1;
        Culprit { line: self.number, column, range: self.start + from..self.start + from + length, message }
    }
}

/// The place of the mistake that made the parser stop at `offset` with `complaint`; `None` where that is the place.
pub fn culprit(text: &str, offset: usize, complaint: &str) -> Option<Culprit> {
    let lines = lines_before(text, offset.min(text.len()));
    if complaint.contains("quoted scalar") {
        return lines.iter().rev().find_map(open_quote);
    }
    if complaint.contains("flow mapping") || complaint.contains("flow sequence") {
        return open_bracket(&lines);
    }
    if complaint.contains("found a tab") {
        return first_tab(text, offset);
    }
    if complaint.starts_with("mapping values") || complaint.contains("could not find expected ':'") {
        return no_colon(&lines);
    }
    None
}

/// The lines up to the one that holds `offset`, that one included.
fn lines_before(text: &str, offset: usize) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut start = 0;
    for (at, line) in text.split_inclusive('\n').enumerate() {
        if start > offset {
            break;
        }
        lines.push(Line { number: at + 1, start, text: line.trim_end_matches(['\n', '\r']) });
        start += line.len();
    }
    let first = lines.len().saturating_sub(REACH);
    lines.split_off(first)
}

/// The text with the quoted value that goes on at `offset` indented as deep as its quote; `None` where none is found. The
/// blanks at the start of such a line are no part of the value.
pub fn with_indent(text: &str, offset: usize) -> Option<String> {
    let line = text.get(..offset)?.rfind('\n')?;
    let lines = lines_before(text, line);
    let opened = lines.iter().rev().find_map(open_quote)?;
    let from = opened.range.start;
    let bytes = text.as_bytes();
    let quote = *bytes.get(from)?;
    let mut end = from + 1;
    loop {
        match bytes.get(end)? {
            b'\\' if quote == b'"' => end += 1,
            b'\'' if quote == b'\'' && bytes.get(end + 1) == Some(&b'\'') => end += 1,
            byte if *byte == quote => break,
            _ => {}
        }
        end += 1;
    }
    let deep = " ".repeat(opened.column);
    let value = text.get(from..end)?;
    let mut wider = String::with_capacity(text.len() + value.len());
    wider.push_str(&text[..from]);
    for (at, line) in value.split('\n').enumerate() {
        if at > 0 {
            wider.push('\n');
            wider.push_str(if line.trim().is_empty() { "" } else { &deep });
        }
        wider.push_str(line);
    }
    wider.push_str(&text[end..]);
    (wider.len() > text.len()).then_some(wider)
}

/// A quote that starts a value and is not closed on its line.
fn open_quote(line: &Line<'_>) -> Option<Culprit> {
    let mut quote: Option<(u8, usize)> = None;
    let bytes = line.text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        match quote {
            None if byte == b'#' && (at == 0 || bytes[at - 1] == b' ') => break,
            None if matches!(byte, b'"' | b'\'') && (at == 0 || b" [{,".contains(&bytes[at - 1])) => {
                quote = Some((byte, at));
            }
            Some((b'"', _)) if byte == b'\\' => at += 1,
            Some((b'\'', _)) if byte == b'\'' && bytes.get(at + 1) == Some(&b'\'') => at += 1,
            Some((open, _)) if byte == open => quote = None,
            _ => {}
        }
        at += 1;
    }
    let (_, from) = quote?;
    Some(line.mark(from, line.text.len() - from, "this quote is not closed"))
}

/// The last bracket that is not closed up to where the parser stopped.
fn open_bracket(lines: &[Line<'_>]) -> Option<Culprit> {
    // The parser stops in the line after the one that lacks the bracket, or later.
    let mut open: Vec<(usize, usize)> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let bytes = line.text.as_bytes();
        let mut quote = None;
        for (at, byte) in bytes.iter().enumerate() {
            match (quote, byte) {
                (None, b'#') if at == 0 || bytes[at - 1] == b' ' => break,
                (None, b'"' | b'\'') if at == 0 || b" [{,".contains(&bytes[at - 1]) => quote = Some(*byte),
                (Some(mark), byte) if mark == *byte => quote = None,
                (None, b'{' | b'[') => open.push((index, at)),
                (None, b'}' | b']') => drop(open.pop()),
                _ => {}
            }
        }
    }
    let (index, at) = open.into_iter().rfind(|(index, _)| index + 1 < lines.len())?;
    let line = &lines[index];
    Some(line.mark(at, line.text.len() - at, "this bracket is not closed"))
}

fn first_tab(text: &str, offset: usize) -> Option<Culprit> {
    let at = offset + text.get(offset..)?.find('\t')?;
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let number = text[..at].matches('\n').count() + 1;
    let line = text[start..].lines().next().unwrap_or_default();
    Some(Line { number, start, text: line }.mark(at - start, 1, "a tab"))
}

/// A line of words before one with a key, in the same column: its colon is missing.
fn no_colon(lines: &[Line<'_>]) -> Option<Culprit> {
    let (last, before) = lines.split_last()?;
    let blank = |line: &&Line<'_>| line.text.trim().is_empty() || line.text.trim_start().starts_with('#');
    let previous = before.iter().rev().find(|line| !blank(line))?;
    let words = previous.text.trim_start();
    let has_colon = words.contains(": ") || words.ends_with(':');
    let from = previous.indent();
    (!has_colon && from == last.indent() && !words.starts_with("- "))
        .then(|| previous.mark(from, words.len(), "a key without `:`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, stop: &str, complaint: &str) -> Option<(usize, usize)> {
        let offset = text.find(stop).unwrap();
        culprit(text, offset, complaint).map(|culprit| (culprit.line, culprit.column))
    }

    #[test]
    fn the_open_quote_and_not_the_line_after_it() {
        let complaint = "invalid indentation in multiline quoted scalar";
        assert_eq!(line("a: 'x'\nb: \"y\nc: z\n", "c:", complaint), Some((2, 4)));
        assert_eq!(line("a: it's\nb: 'y\nc: z\n", "c:", complaint), Some((2, 4)));
        assert_eq!(line("a: \"x\\\"\"\nb: y\nc: z\n", "c:", complaint), None);
    }

    #[test]
    fn quoted_text_is_indented_to_its_end() {
        let text = "a:\n  b: 'x\n  it''s\n\n  z'\n  c: d\n";
        let wider = with_indent(text, text.find("it").unwrap()).unwrap();
        assert_eq!(wider, "a:\n  b: 'x\n        it''s\n\n        z'\n  c: d\n");
        assert_eq!(with_indent("a: \"x\nb: c\n", 6), None);
    }

    #[test]
    fn the_open_bracket_and_not_the_line_after_it() {
        let complaint = "while parsing a flow mapping, did not find expected ',' or '}'";
        assert_eq!(line("a: {b: [c]}\nd: {e: f\ng: h\n", "h", complaint), Some((2, 4)));
        assert_eq!(line("a: {b: c d: e}\n", "d:", complaint), None);
    }

    #[test]
    fn the_line_without_colon() {
        let complaint = "mapping values are not allowed in this context";
        assert_eq!(line("a:\n  b c\n  d: e\n", ": e", complaint), Some((2, 3)));
        assert_eq!(line("a: b: c\n", ": c", complaint), None);
    }

    #[test]
    fn the_tab_and_not_the_value_before_it() {
        assert_eq!(line("a: b\n\tc: d\n", "b", "while scanning a plain scalar, found a tab"), Some((2, 1)));
    }
}
