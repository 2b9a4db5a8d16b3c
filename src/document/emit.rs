//! [`Node`]s to text, byte for byte as `kustomize build` writes them.
//!
//! Owns: [`to_yaml`]. Keys sorted in natural order, two spaces, dashes under their key, plain text where possible,
//! folded beyond 80 columns, literal blocks for several lines, double quotes for strings that would read as
//! something else. The rules are those of the YAML 1.1 emitter family (libyaml and its translations), observed.

use super::node::{Node, Scalar, Value};
use super::order::sort_by_key;
use super::scalar::{Resolved, needs_quotes, number_text, resolve};

const WIDTH: usize = 80;
const INDENT: usize = 2;
/// A longer key (in bytes) needs `? `.
const SIMPLE_KEY: usize = 128;

/// All documents of a build, joined by `---` lines.
pub fn to_yaml(nodes: &[Node]) -> String {
    nodes.iter().map(document).collect::<Vec<_>>().join("---\n")
}

/// The same with a comment behind every scalar and empty collection, as `comment` has it. It means the same: a comment
/// stands at the end of a value, or behind the bar of a literal block.
pub fn to_yaml_commented(nodes: &[Node], comment: &dyn Fn(&Node) -> String) -> String {
    nodes.iter().map(|node| emit(node, Some(comment))).collect::<Vec<_>>().join("---\n")
}

/// One document, with its final newline.
pub fn document(node: &Node) -> String {
    emit(node, None)
}

fn emit(node: &Node, comment: Option<&dyn Fn(&Node) -> String>) -> String {
    let (out, column, whitespace, indention) = (String::new(), 0, true, true);
    let mut emitter = Emitter { out, column, whitespace, indention, comment, pending: None };
    emitter.node(node, None, false);
    emitter.start_line(0);
    emitter.out
}

struct Emitter<'a> {
    out: String,
    column: usize,
    /// The last thing written was white space.
    whitespace: bool,
    /// Nothing but indentation and indicators is on the line so far.
    indention: bool,
    comment: Option<&'a dyn Fn(&Node) -> String>,
    /// The comment of the value at hand, until it is written.
    pending: Option<String>,
}

impl Emitter<'_> {
    /// `indent` is that of the collection around this node, `None` at the root; `in_mapping` tells whether it is the
    /// value of a mapping.
    fn node(&mut self, node: &Node, indent: Option<usize>, in_mapping: bool) {
        let deeper = indent.map_or(0, |indent| indent + INDENT);
        match &node.value {
            Value::Scalar(scalar) => {
                self.pending = self.comment.map(|comment| comment(node));
                self.scalar(scalar, indent.unwrap_or(0) + INDENT);
                self.write_comment();
            }
            Value::Mapping(mapping) if mapping.is_empty() => self.empty(node, "{}"),
            Value::Sequence(items) if items.is_empty() => self.empty(node, "[]"),
            Value::Sequence(items) => {
                // Dashes stand under the key itself.
                let own = if in_mapping && !self.indention { indent.unwrap_or(0) } else { deeper };
                for item in items {
                    self.start_line(own);
                    self.indicator("-", true, true);
                    self.node(item, Some(own), false);
                }
            }
            Value::Mapping(mapping) => {
                let mut entries: Vec<_> = mapping.entries.iter().collect();
                sort_by_key(&mut entries, |entry| &entry.key.text);
                for entry in entries {
                    self.start_line(deeper);
                    self.entry(&entry.key.text, &entry.value, deeper);
                }
            }
        }
    }

    fn empty(&mut self, node: &Node, text: &str) {
        self.token(text);
        self.pending = self.comment.map(|comment| comment(node));
        self.write_comment();
    }

    /// Nothing but the end of the line comes behind it. What would end a comment is left out of it.
    fn write_comment(&mut self) {
        if let Some(comment) = self.pending.take().filter(|comment| !comment.is_empty()) {
            self.out.push_str(" # ");
            self.out.extend(comment.chars().map(|c| if is_printable(c) && !is_break(c) { c } else { '?' }));
        }
    }

    fn entry(&mut self, key: &str, value: &Node, indent: usize) {
        if key.len() <= SIMPLE_KEY && !key.contains(is_break) {
            self.string(key, indent + INDENT, true);
            self.indicator(":", false, false);
        } else {
            self.indicator("?", true, true);
            self.string(key, indent + INDENT, false);
            self.start_line(indent);
            self.indicator(":", true, true);
        }
        self.node(value, Some(indent), true);
    }

    fn scalar(&mut self, scalar: &Scalar, indent: usize) {
        match resolve(scalar) {
            Resolved::Null => self.token("null"),
            Resolved::Bool(value) => self.token(if value { "true" } else { "false" }),
            Resolved::Int(value) => self.token(&value.to_string()),
            Resolved::Float(value) if value.is_nan() => self.token(".nan"),
            Resolved::Float(value) if value.is_infinite() => self.token(if value > 0.0 { ".inf" } else { "-.inf" }),
            Resolved::Float(value) => self.token(&number_text(value)),
            Resolved::Timestamp(text) => self.string(&text, indent, false),
            Resolved::Str(text) => self.string(text, indent, false),
        }
    }

    fn string(&mut self, text: &str, indent: usize, simple_key: bool) {
        let can = Allowed::of(text);
        if text.contains('\n') {
            match can.block && !simple_key {
                true => self.literal(text, indent),
                false => self.double_quoted(text, indent, simple_key),
            }
        } else if needs_quotes(text) || (simple_key && text == "<<") {
            self.double_quoted(text, indent, simple_key);
        } else if can.plain {
            self.plain(text, indent, simple_key);
        } else if can.single {
            self.single_quoted(text, indent, simple_key);
        } else {
            self.double_quoted(text, indent, simple_key);
        }
    }

    fn plain(&mut self, text: &str, indent: usize, simple_key: bool) {
        self.separate();
        let mut spaces = false;
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let space = character == ' ';
            if space && !simple_key && !spaces && self.column > WIDTH && characters.peek() != Some(&' ') {
                self.start_line(indent);
            } else {
                self.put(character);
            }
            spaces = space;
            self.clear();
        }
    }

    fn single_quoted(&mut self, text: &str, indent: usize, simple_key: bool) {
        self.indicator("'", true, false);
        let (mut spaces, mut broken) = (false, false);
        let mut characters = text.chars().enumerate().peekable();
        while let Some((at, character)) = characters.next() {
            if is_break(character) {
                self.line_break(character);
                broken = true;
                continue;
            }
            if std::mem::take(&mut broken) {
                self.start_line(indent);
            }
            let space = character == ' ';
            let inside = at > 0 && characters.peek().is_some_and(|(_, next)| *next != ' ');
            if space && !simple_key && !spaces && self.column > WIDTH && inside {
                self.start_line(indent);
            } else {
                if character == '\'' {
                    self.put('\'');
                }
                self.put(character);
            }
            spaces = space;
            self.clear();
        }
        self.indicator("'", false, false);
    }

    fn double_quoted(&mut self, text: &str, indent: usize, simple_key: bool) {
        self.indicator("\"", true, false);
        let mut spaces = false;
        // A quirk of the emitter family: after a leading byte-order mark, every character is escaped.
        let everything = text.starts_with('\u{feff}');
        let mut characters = text.chars().enumerate().peekable();
        while let Some((at, character)) = characters.next() {
            if everything || !is_printable(character) || is_break(character) || matches!(character, '"' | '\\') {
                self.escape(character);
                spaces = false;
            } else if character == ' ' {
                let next = characters.peek().map(|(_, next)| *next);
                if !simple_key && !spaces && self.column > WIDTH && at > 0 && next.is_some() {
                    self.start_line(indent);
                    if next == Some(' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(' ');
                }
                spaces = true;
            } else {
                self.put(character);
                spaces = false;
            }
        }
        self.clear();
        self.indicator("\"", false, false);
    }

    fn escape(&mut self, character: char) {
        let short = match character {
            '\0' => "\\0",
            '\x07' => "\\a",
            '\x08' => "\\b",
            '\t' => "\\t",
            '\n' => "\\n",
            '\x0b' => "\\v",
            '\x0c' => "\\f",
            '\r' => "\\r",
            '\x1b' => "\\e",
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{85}' => "\\N",
            '\u{a0}' => "\\_",
            '\u{2028}' => "\\L",
            '\u{2029}' => "\\P",
            _ => "",
        };
        let code = character as u32;
        let text = match code {
            _ if !short.is_empty() => short.to_owned(),
            0..=0xff => format!("\\x{code:02X}"),
            0x100..=0xffff => format!("\\u{code:04X}"),
            _ => format!("\\U{code:08X}"),
        };
        text.chars().for_each(|character| self.put(character));
    }

    fn literal(&mut self, text: &str, indent: usize) {
        let mut header = String::from("|");
        if text.starts_with(|first| first == ' ' || is_break(first)) {
            header.push('2');
        }
        let mut tail = text.chars().rev();
        match (tail.next().is_some_and(is_break), tail.next()) {
            (false, _) => header.push('-'),
            (true, None) => header.push('+'),
            (true, Some(before)) if is_break(before) => header.push('+'),
            _ => {}
        }
        self.indicator(&header, true, false);
        self.write_comment();
        self.newline();
        let mut at_start = true;
        for character in text.chars() {
            if is_break(character) {
                self.line_break(character);
                at_start = true;
            } else {
                if at_start {
                    self.start_line(indent);
                }
                self.put(character);
                self.clear();
                at_start = false;
            }
        }
    }

    fn line_break(&mut self, character: char) {
        if character == '\n' {
            self.newline();
        } else {
            self.out.push(character);
            self.column = 0;
            (self.whitespace, self.indention) = (true, true);
        }
    }

    fn newline(&mut self) {
        self.out.push('\n');
        self.column = 0;
        (self.whitespace, self.indention) = (true, true);
    }

    /// Begins a line at `indent`, unless the present one is still free up to there.
    fn start_line(&mut self, indent: usize) {
        if !self.indention || self.column > indent || (self.column == indent && !self.whitespace) {
            self.newline();
        }
        while self.column < indent {
            self.put(' ');
        }
        (self.whitespace, self.indention) = (true, true);
    }

    /// Something that is never folded or quoted.
    fn token(&mut self, text: &str) {
        self.separate();
        text.chars().for_each(|character| self.put(character));
        self.clear();
    }

    fn indicator(&mut self, text: &str, separated: bool, keeps_indention: bool) {
        if separated {
            self.separate();
        }
        text.chars().for_each(|character| self.put(character));
        self.whitespace = false;
        self.indention &= keeps_indention;
    }

    fn separate(&mut self) {
        if !self.whitespace {
            self.put(' ');
        }
    }

    fn put(&mut self, character: char) {
        self.out.push(character);
        self.column += 1;
    }

    fn clear(&mut self) {
        (self.whitespace, self.indention) = (false, false);
    }
}

/// Which ways of writing a text are possible.
struct Allowed {
    plain: bool,
    single: bool,
    block: bool,
}

impl Allowed {
    fn of(text: &str) -> Self {
        if text.is_empty() {
            return Allowed { plain: true, single: true, block: false };
        }
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut special, mut space_break, mut break_space, mut breaks) = (false, false, false, false);
        let mut previous = None;
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let before_blank = characters.peek().is_none_or(|next| is_blank(*next));
            let after_blank = previous.is_none_or(is_blank);
            indicators |= match (previous, character) {
                (None, '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>') => true,
                (None, '\'' | '"' | '%' | '@' | '`') => true,
                (None, '?' | '-') | (_, ':') => before_blank,
                (Some(_), '#') => after_blank,
                _ => false,
            };
            special |= !is_printable(character);
            breaks |= is_break(character);
            space_break |= is_break(character) && previous == Some(' ');
            break_space |= character == ' ' && previous.is_some_and(is_break);
            previous = Some(character);
        }
        let edge = |character: char| character == ' ' || is_break(character);
        let edges = text.starts_with(edge) || text.ends_with(edge);
        Allowed {
            plain: !(edges || break_space || space_break || special || breaks || indicators),
            single: !(break_space || space_break || special),
            block: !(text.ends_with(' ') || space_break || special),
        }
    }
}

fn is_break(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\0') || is_break(character)
}

/// What may stand as it is. Neither the tab nor anything beyond the basic plane may.
fn is_printable(character: char) -> bool {
    matches!(character, '\n' | ' '..='~' | '\u{a0}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
}
