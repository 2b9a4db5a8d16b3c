//! [`Node`]s to typed values through serde, with the exact place of whatever does not fit.
//!
//! Owns: [`decode`], [`Decoder`], [`Misfit`]. A field that wants text gets the raw text of any scalar, so `0644`, `no` and
//! `1.10` arrive as written; fields that want numbers or booleans get what the text means. A null field of a struct
//! counts as absent, as in the Kubernetes API.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, IntoDeserializer, Visitor};

use super::diagnostic::{Diagnostic, suggestion};
use super::node::{Entry, Node, Origin, Scalar, Style, Value};
use super::scalar::{Resolved, needs_quotes, resolve};
use crate::error::Result;

/// Decodes a document; errors are of kind `Documents` and show the offending line.
pub fn decode<'de, T: Deserialize<'de>>(node: &'de Node) -> Result<T> {
    Decoder::default().decode(node)
}

/// Reading rules, where they differ from document to document.
#[derive(Debug, Clone, Copy, Default)]
pub struct Decoder {
    /// Field names of structs match in any case (kustomization files).
    pub any_case: bool,
    /// A field that wants text refuses plain text that YAML 1.1 reads as something else (kustomization files).
    pub strict_text: bool,
}

impl Decoder {
    pub fn decode<'de, T: Deserialize<'de>>(self, node: &'de Node) -> Result<T> {
        T::deserialize(Reader { node, rules: self }).map_err(|failure| failure.diagnostic(node).into())
    }

    /// Everything that does not fit, not only the first: what was found is taken out, and the rest read again. Fields
    /// that are missing only because they were taken out are not told.
    pub fn misfits<T: serde::de::DeserializeOwned>(self, node: &Node) -> Vec<Misfit> {
        let mut rest = node.clone();
        let mut found = Vec::new();
        let mut taken: BTreeSet<Vec<String>> = BTreeSet::new();
        while found.len() < MISFITS {
            let Err(failure) = T::deserialize(Reader { node: &rest, rules: self }) else { break };
            let path: Vec<String> = failure.path.iter().rev().cloned().collect();
            let diagnostic = failure.diagnostic(&rest);
            let follows = failure.missing.is_some_and(|field| {
                let mut missing = path.clone();
                missing.push(field.to_owned());
                taken.contains(&missing)
            });
            if !follows {
                found.push(Misfit { path: path.clone(), diagnostic });
            }
            if !take(&mut rest, &path) {
                break;
            }
            match path.split_last() {
                // Entries of a list move up: what is known of those taken out says nothing of the next one.
                Some((_, list)) if at_path(&rest, list).and_then(Node::as_sequence).is_some() => {
                    taken.retain(|other| !other.starts_with(list));
                }
                _ => drop(taken.insert(path)),
            }
        }
        found
    }
}

/// How many errors of one document are worth telling.
const MISFITS: usize = 100;

/// A value that does not fit.
#[derive(Debug, Clone)]
pub struct Misfit {
    /// Keys and indices from the document down. An index counts what is left when those before it were taken out.
    pub path: Vec<String>,
    pub diagnostic: Diagnostic,
}

fn at_path<'a>(node: &'a Node, path: &[String]) -> Option<&'a Node> {
    path.iter().try_fold(node, |node, part| match &node.value {
        Value::Mapping(mapping) => mapping.get(part),
        Value::Sequence(items) => items.get(part.parse::<usize>().ok()?),
        Value::Scalar(_) => None,
    })
}

/// Removes the value at a path; the document itself stays.
fn take(node: &mut Node, path: &[String]) -> bool {
    let Some((last, above)) = path.split_last() else { return false };
    let above = above.iter().try_fold(node, |node, part| match &mut node.value {
        Value::Mapping(mapping) => mapping.get_mut(part),
        Value::Sequence(items) => items.get_mut(part.parse::<usize>().ok()?),
        Value::Scalar(_) => None,
    });
    match above.map(|above| &mut above.value) {
        Some(Value::Mapping(mapping)) => mapping.remove(last).is_some(),
        Some(Value::Sequence(items)) => match last.parse::<usize>() {
            Ok(index) if index < items.len() => {
                items.remove(index);
                true
            }
            _ => false,
        },
        _ => false,
    }
}

/// What went wrong, and where once that is known.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    label: String,
    hints: Vec<String>,
    at: Option<Box<Origin>>,
    /// Keys and indices down to it, innermost first.
    path: Vec<String>,
    missing: Option<&'static str>,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        let (label, hints, path) = (String::new(), Vec::new(), Vec::new());
        Failure { message: message.into(), label, hints, at: None, path, missing: None }
    }

    fn below(mut self, part: impl Into<String>) -> Self {
        self.path.push(part.into());
        self
    }

    fn diagnostic(&self, node: &Node) -> Diagnostic {
        let origin = self.at.as_deref().unwrap_or(&node.origin);
        let diagnostic = Diagnostic::at(&origin.at, self.message.clone()).label(self.label.clone()).history(origin);
        self.hints.iter().fold(diagnostic, Diagnostic::hint)
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The innermost place wins: outer ones come later and are ignored.
    fn at(mut self, origin: &Origin) -> Self {
        self.at.get_or_insert_with(|| Box::new(origin.clone()));
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Failure::new(message.to_string())
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = expectation(expected);
        Failure::new(format!("expected {expected}, found {unexpected}")).label(format!("expected {expected}"))
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let failure = Failure::new(format!("unknown field `{field}`")).label("unknown field");
        match suggestion(field, "known fields", expected) {
            Some(hint) => failure.hint(hint),
            None => failure.hint("no fields are known here"),
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let failure = Failure::new(format!("unknown value `{variant}`")).label("not one of the known values");
        match suggestion(variant, "known values", expected) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    fn missing_field(field: &'static str) -> Self {
        let failure = Failure::new(format!("missing field `{field}`")).label(format!("`{field}` is missing here"));
        Failure { missing: Some(field), ..failure }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Failure::new(format!("field `{field}` given twice (also under another spelling?)"))
    }
}

/// What serde expects, in the words of documents.
fn expectation(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    let unsigned = |bits: u32| format!("a whole number from 0 to {}", u128::MAX >> (128 - bits));
    match text.as_str() {
        "a sequence" => "a list".into(),
        "a map" => "a mapping".into(),
        "u8" => unsigned(8),
        "u16" => unsigned(16),
        "u32" => unsigned(32),
        "u64" | "usize" => "a whole number that is not negative".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        _ if text.starts_with("struct ") => "a mapping".into(),
        _ if text.starts_with("enum ") => "one of the known values".into(),
        _ => text,
    }
}

#[derive(Clone, Copy)]
struct Reader<'de> {
    node: &'de Node,
    rules: Decoder,
}

type Answer<T> = std::result::Result<T, Failure>;

impl<'de> Reader<'de> {
    fn below(self, node: &'de Node) -> Self {
        Reader { node, ..self }
    }

    fn wrong(self, expected: &dyn de::Expected) -> Failure {
        let (found, expected) = (self.node.describe(), expectation(expected));
        let failure = Failure::new(format!("expected {expected}, found {found}")).label(format!("expected {expected}"));
        let failure = match (self.node.is_null(), self.node.as_scalar()) {
            (true, _) => failure.hint("`null` removes an entry only in a patch; write `{}` for an empty mapping"),
            (false, Some(Scalar { style: Style::SingleQuoted | Style::DoubleQuoted, .. })) => {
                failure.hint("quotes make it a string; leave them out if a number or boolean is meant")
            }
            _ => failure,
        };
        failure.at(&self.node.origin)
    }

    fn place<T>(self, answer: Answer<T>) -> Answer<T> {
        answer.map_err(|failure| failure.at(&self.node.origin))
    }

    fn meaning(self) -> Option<Resolved<'de>> {
        self.node.as_scalar().map(resolve)
    }

    /// Raw text for a field that wants text.
    fn raw_text(self, expected: &dyn de::Expected) -> Answer<&'de str> {
        match self.node.as_scalar() {
            Some(scalar) if !self.node.is_null() => {
                let typed = scalar.style == Style::Plain && scalar.tag.is_none() && needs_quotes(&scalar.text);
                if self.rules.strict_text && typed {
                    return Err(self.wrong(expected).hint(format!("write \"{}\" in quotes", scalar.text)));
                }
                Ok(&scalar.text)
            }
            _ => Err(self.wrong(expected)),
        }
    }

    fn integer<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        match self.meaning() {
            Some(Resolved::Int(value)) => self.place(if let Ok(value) = u64::try_from(value) {
                visitor.visit_u64(value)
            } else if let Ok(value) = i64::try_from(value) {
                visitor.visit_i64(value)
            } else {
                visitor.visit_i128(value)
            }),
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn float<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        match self.meaning() {
            Some(Resolved::Float(value)) => self.place(visitor.visit_f64(value)),
            Some(Resolved::Int(value)) => self.place(visitor.visit_f64(value as f64)),
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn sequence<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        match &self.node.value {
            Value::Sequence(items) => {
                self.place(visitor.visit_seq(Items { items: items.iter(), count: items.len(), reader: self }))
            }
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn fields<V: Visitor<'de>>(self, known: Option<&'static [&'static str]>, visitor: V) -> Answer<V::Value> {
        match &self.node.value {
            Value::Mapping(mapping) => {
                let entries = Entries { entries: mapping.entries.iter(), entry: None, known, reader: self };
                self.place(visitor.visit_map(entries))
            }
            _ => Err(self.wrong(&visitor)),
        }
    }
}

macro_rules! forward {
    ($target:ident: $($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> { self.$target(visitor) })*
    };
}

impl<'de> de::Deserializer<'de> for Reader<'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        match &self.node.value {
            Value::Mapping(_) => self.fields(None, visitor),
            Value::Sequence(_) => self.sequence(visitor),
            Value::Scalar(scalar) => match resolve(scalar) {
                Resolved::Null => self.place(visitor.visit_unit()),
                Resolved::Bool(value) => self.place(visitor.visit_bool(value)),
                Resolved::Int(_) => self.integer(visitor),
                Resolved::Float(value) => self.place(visitor.visit_f64(value)),
                Resolved::Timestamp(_) | Resolved::Str(_) => self.place(visitor.visit_borrowed_str(&scalar.text)),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        match self.meaning() {
            Some(Resolved::Bool(value)) => self.place(visitor.visit_bool(value)),
            Some(Resolved::Str(text)) => {
                let failure = self.wrong(&visitor);
                Err(match text.to_lowercase().as_str() {
                    "yes" | "on" | "y" => failure.hint("write `true`"),
                    "no" | "off" | "n" => failure.hint("write `false`"),
                    _ => failure,
                })
            }
            _ => Err(self.wrong(&visitor)),
        }
    }

    forward!(integer: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128);
    forward!(float: deserialize_f32 deserialize_f64);
    forward!(deserialize_str: deserialize_string deserialize_identifier);
    forward!(deserialize_any: deserialize_bytes deserialize_byte_buf);
    forward!(sequence: deserialize_seq);

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        let text = self.raw_text(&visitor)?;
        self.place(visitor.visit_borrowed_str(text))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        if self.node.is_null() { visitor.visit_none() } else { self.place(visitor.visit_some(self)) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        if self.node.is_null() { visitor.visit_unit() } else { Err(self.wrong(&visitor)) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Answer<V::Value> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Answer<V::Value> {
        self.place(visitor.visit_newtype_struct(self))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Answer<V::Value> {
        self.sequence(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Answer<V::Value> {
        self.sequence(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        self.fields(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Answer<V::Value> {
        self.fields(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Answer<V::Value> {
        match &self.node.value {
            Value::Scalar(_) => {
                let text = self.raw_text(&visitor)?;
                self.place(visitor.visit_enum(text.into_deserializer()))
            }
            Value::Mapping(mapping) if mapping.len() == 1 => {
                self.place(visitor.visit_enum(Variant { entry: &mapping.entries[0], reader: self }))
            }
            _ => {
                let known = variants.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                Err(self.wrong(&visitor).hint(format!("known values: {known}")))
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        visitor.visit_unit()
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Node>,
    count: usize,
    reader: Reader<'de>,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Answer<Option<T::Value>> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let index = self.count - self.items.len() - 1;
        let reader = self.reader.below(node);
        let answer = reader.place(seed.deserialize(reader));
        answer.map(Some).map_err(|failure| failure.below(index.to_string()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry>,
    entry: Option<&'de Entry>,
    /// The fields of the struct that is being read; `None` for maps.
    known: Option<&'static [&'static str]>,
    reader: Reader<'de>,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Answer<Option<K::Value>> {
        loop {
            let Some(entry) = self.entries.next() else { return Ok(None) };
            let Entry { key, value } = entry;
            let mut name = key.text.as_str();
            if let Some(known) = self.known {
                if self.reader.rules.any_case {
                    name = known.iter().copied().find(|field| field.eq_ignore_ascii_case(name)).unwrap_or(name);
                }
                // An unknown field is an error even when it is null.
                if value.is_null() && known.contains(&name) {
                    continue;
                }
            }
            self.entry = Some(entry);
            let origin = || Origin { at: key.at.clone(), changes: value.origin.changes.clone() };
            let key = de::value::BorrowedStrDeserializer::new(name);
            let answer = seed.deserialize(key).map(Some);
            return answer.map_err(|failure: Failure| failure.at(&origin()).below(&entry.key.text));
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Answer<V::Value> {
        let entry = self.entry.take().ok_or_else(|| Failure::new("value asked for before its key"))?;
        let reader = self.reader.below(&entry.value);
        reader.place(seed.deserialize(reader)).map_err(|failure| failure.below(&entry.key.text))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// `variant: {content}`.
struct Variant<'de> {
    entry: &'de Entry,
    reader: Reader<'de>,
}

impl<'de> de::EnumAccess<'de> for Variant<'de> {
    type Error = Failure;
    type Variant = Reader<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Answer<(V::Value, Reader<'de>)> {
        let key: de::value::BorrowedStrDeserializer<'de, Failure> =
            de::value::BorrowedStrDeserializer::new(&self.entry.key.text);
        let at = Origin { at: self.entry.key.at.clone(), changes: self.entry.value.origin.changes.clone() };
        let variant = seed.deserialize(key).map_err(|failure| failure.at(&at))?;
        Ok((variant, self.reader.below(&self.entry.value)))
    }
}

impl<'de> de::VariantAccess<'de> for Reader<'de> {
    type Error = Failure;

    fn unit_variant(self) -> Answer<()> {
        if self.node.is_null() { Ok(()) } else { Err(self.wrong(&"nothing")) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Answer<T::Value> {
        self.place(seed.deserialize(self))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Answer<V::Value> {
        self.sequence(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Answer<V::Value> {
        self.fields(Some(fields), visitor)
    }
}
