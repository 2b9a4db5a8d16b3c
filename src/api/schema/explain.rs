//! A kind or one of its fields in words: type, default, meaning, what is below.
//!
//! Owns: [`Explanation`], [`find`]. A path steps through lists by itself, and through maps by a key or by `*`:
//! `AirshipImage.spec.params.users.*.password`, or shorter `...users.password`.

use serde_json::{Map, Value, json};

use super::{KINDS, Kind};
use crate::api::API_VERSION;
use crate::api::realm::{Realm, of_field};
use crate::document::suggestion;
use crate::error::{Error, Kind as ErrorKind, Result};

/// A field, or a whole kind.
pub struct Explanation {
    pub kind: &'static Kind,
    /// As far as it was named, in the spelling of the documents.
    pub path: Vec<String>,
    pub required: bool,
    schema: Value,
}

/// One field below.
struct Field<'a> {
    name: &'a str,
    required: bool,
    schema: &'a Value,
}

/// Looks up `KIND[.path]`.
pub fn find(wanted: &str) -> Result<Explanation> {
    let mut parts = split(wanted)?.into_iter();
    let name = parts.next().unwrap_or_default();
    let lower = name.to_lowercase();
    let kind = KINDS.iter().find(|kind| kind.name.to_lowercase() == lower || kind.plural == lower);
    let kind = kind.ok_or_else(|| {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        usage(format!("no kind is called `{name}`"), suggestion(&name, "kinds", &names))
    })?;
    let mut found = Explanation { kind, path: Vec::new(), required: false, schema: kind.plain() };
    for part in parts {
        found.step(&part)?;
    }
    Ok(found)
}

fn usage(message: String, hint: Option<String>) -> Error {
    let error = Error::new(ErrorKind::Usage, message);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// At dots; a key with dots stands in brackets: `sysctl["vm.swappiness"]`, `files[/etc/motd]`.
fn split(path: &str) -> Result<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(bracket) = rest.strip_prefix('[') {
            let Some((inside, after)) = bracket.split_once(']') else {
                return Err(usage(format!("`{path}` has a bracket that is not closed"), None));
            };
            parts.push(inside.trim_matches(['"', '\'']).to_owned());
            rest = after.strip_prefix('.').unwrap_or(after);
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            parts.push(rest[..end].to_owned());
            rest = rest[end..].strip_prefix('.').unwrap_or(&rest[end..]);
        }
    }
    Ok(parts)
}

impl Explanation {
    fn step(&mut self, part: &str) -> Result<()> {
        // Lists have one shape for all their entries.
        while let Some(items) = self.schema.get("items") {
            self.schema = items.clone();
            if part == "*" || part.parse::<usize>().is_ok() {
                self.path.push(part.to_owned());
                return Ok(());
            }
        }
        if let Some(values) = self.schema.get("additionalProperties").filter(|values| values.is_object()).cloned() {
            self.schema = values;
            self.required = false;
            if !fields(&self.schema).iter().any(|field| field.name == part) {
                self.path.push(part.to_owned());
                return Ok(());
            }
        }
        let known = fields(&self.schema);
        let here = if self.path.is_empty() { self.kind.name.to_owned() } else { self.path.join(".") };
        let Some(field) = known.iter().find(|field| is_called(field, part)) else {
            let names: Vec<&str> = known.iter().map(|field| field.name).collect();
            let hint = suggestion(part, "fields", &names)
                .unwrap_or_else(|| format!("`{here}` is of type `{}`, which has no fields", type_of(&self.schema)));
            return Err(usage(format!("`{here}` has no field `{part}`"), Some(hint)));
        };
        self.path.push(field.name.to_owned());
        (self.required, self.schema) = (field.required, field.schema.clone());
        Ok(())
    }

    /// As kubectl shows it. `recursive`: all fields below, without their descriptions.
    pub fn text(&self, recursive: bool) -> String {
        let mut text = format!("KIND:     {}\nVERSION:  {API_VERSION}\n", self.kind.name);
        if let Some(name) = self.path.last() {
            text += &format!("\nFIELD: {name} <{}>{}\n", type_of(&self.schema), mark(self.required));
        }
        let description = self.schema.get("description").and_then(Value::as_str).unwrap_or_default();
        if !description.is_empty() {
            text += &format!("\nDESCRIPTION:\n{}", indented(description, 4));
        }
        text += &facts(&self.schema, 0).join("");
        if !self.path.is_empty() {
            text += &format!("REALM: {}\n", self.realm().name());
        }
        let inner = inner(&self.schema);
        let below = fields(inner);
        if !below.is_empty() {
            text += "\nFIELDS:\n";
            match recursive {
                true => tree(&below, 2, &mut text),
                false => below.iter().for_each(|field| text += &self.shown(field)),
            }
        }
        text
    }

    /// Where the field takes effect.
    pub fn realm(&self) -> Realm {
        of_field(self.kind.name, &self.path)
    }

    /// A field below, with its realm where that is another one.
    fn shown(&self, field: &Field) -> String {
        let path: Vec<&str> = self.path.iter().map(String::as_str).chain([field.name]).collect();
        let realm = of_field(self.kind.name, &path);
        let text = shown(field);
        match realm == self.realm() {
            true => text + "\n",
            false => format!("{text}    REALM: {}\n\n", realm.name()),
        }
    }

    pub fn json(&self, recursive: bool) -> Value {
        let name = self.path.last().map_or(self.kind.name, String::as_str);
        let depth = if recursive { usize::MAX } else { 1 };
        let mut object = json!({"apiVersion": API_VERSION, "kind": self.kind.name, "path": self.path.join(".")});
        let way: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let field = Field { name, required: self.required, schema: &self.schema };
        let own = object_of(&field, depth, (self.kind.name, &way));
        if let (Value::Object(object), Value::Object(own)) = (&mut object, own) {
            object.extend(own);
        }
        object
    }
}

fn is_called(field: &Field, name: &str) -> bool {
    field.name == name || field.schema.get("x-alias").and_then(Value::as_str) == Some(name)
}

fn mark(required: bool) -> &'static str {
    if required { " -required-" } else { "" }
}

/// What the entries of lists and maps look like.
fn inner(schema: &Value) -> &Value {
    let below = schema.get("items").or_else(|| schema.get("additionalProperties").filter(|below| below.is_object()));
    below.map_or(schema, inner)
}

fn fields(schema: &Value) -> Vec<Field<'_>> {
    let required = schema.get("required").and_then(Value::as_array);
    let needed = |name: &str| required.is_some_and(|names| names.iter().any(|other| other == name));
    let properties = schema.get("properties").and_then(Value::as_object);
    let field = |(name, schema)| {
        let name: &String = name;
        Field { name, required: needed(name), schema }
    };
    properties.into_iter().flatten().map(field).collect()
}

fn type_of(schema: &Value) -> String {
    if let Some(format) = schema.get("x-format").and_then(Value::as_str) {
        return format.to_owned();
    }
    if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
        return branches.iter().map(type_of).collect::<Vec<_>>().join(" or ");
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => format!("list of {}", schema.get("items").map_or_else(|| "any".into(), type_of)),
        Some("object") => match schema.get("additionalProperties").filter(|values| values.is_object()) {
            Some(values) => format!("map of {}", type_of(values)),
            None => "object".into(),
        },
        Some(name) => name.to_owned(),
        None => "any".into(),
    }
}

/// The words a field, or its entries, may be one of.
fn values_of(schema: &Value) -> Option<&Value> {
    let entries = inner(schema);
    let branches = entries.get("anyOf").and_then(Value::as_array);
    branches.into_iter().flatten().chain([entries]).find_map(|schema| schema.get("enum"))
}

/// Enum, bounds, default, units and the other name, a line each.
fn facts(schema: &Value, indent: usize) -> Vec<String> {
    let pad = " ".repeat(indent);
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |values: &[Value]| values.iter().map(word).collect::<Vec<_>>().join(", ");
    let mut lines = Vec::new();
    let mut line = |name: &str, text: String| lines.push(format!("{pad}{name}: {text}\n"));
    if let Some(values) = values_of(schema).and_then(Value::as_array) {
        line("VALUES", list(values));
    }
    if let Some(value) = schema.get("const") {
        line("VALUE", word(value));
    }
    if let (Some(least), Some(most)) = (schema.get("minimum"), schema.get("maximum")) {
        line("RANGE", format!("{least} to {most}"));
    }
    if let Some(value) = schema.get("default") {
        line("DEFAULT", word(value));
    }
    if let Some(units) = schema.get("x-units") {
        line("UNITS", word(units));
    }
    if let Some(examples) = schema.get("examples").and_then(Value::as_array) {
        line("EXAMPLES", list(examples));
    }
    if let Some(alias) = schema.get("x-alias") {
        line("ALSO", word(alias));
    }
    lines
}

fn shown(field: &Field) -> String {
    let mut text = format!("  {} <{}>{}\n", field.name, type_of(field.schema), mark(field.required));
    if let Some(description) = field.schema.get("description").and_then(Value::as_str) {
        text += &indented(description, 4);
    }
    text += &facts(field.schema, 4).join("");
    text
}

fn tree(fields: &[Field], indent: usize, text: &mut String) {
    for field in fields {
        *text += &format!("{}{} <{}>{}\n", " ".repeat(indent), field.name, type_of(field.schema), mark(field.required));
        tree(&self::fields(inner(field.schema)), indent + 2, text);
    }
}

/// Wrapped at 100 columns.
fn indented(text: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let mut lines = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut line = pad.clone();
        for word in paragraph.split_whitespace() {
            if line.len() > indent && line.chars().count() + word.chars().count() >= 100 {
                lines.push(std::mem::replace(&mut line, pad.clone()));
            }
            if line.len() > indent {
                line.push(' ');
            }
            line += word;
        }
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

fn object_of(field: &Field, depth: usize, (kind, way): (&str, &[&str])) -> Value {
    let mut object = Map::new();
    object.insert("realm".into(), of_field(kind, way).name().into());
    object.insert("name".into(), field.name.into());
    object.insert("type".into(), type_of(field.schema).into());
    object.insert("required".into(), field.required.into());
    let names = [
        ("description", "description"),
        ("default", "default"),
        ("const", "const"),
        ("pattern", "pattern"),
        ("minimum", "minimum"),
        ("maximum", "maximum"),
        ("examples", "examples"),
        ("x-units", "units"),
        ("x-alias", "alias"),
    ];
    for (key, name) in names {
        if let Some(value) = field.schema.get(key) {
            object.insert(name.into(), value.clone());
        }
    }
    if let Some(values) = values_of(field.schema) {
        object.insert("enum".into(), values.clone());
    }
    let below = fields(inner(field.schema));
    if depth > 0 && !below.is_empty() {
        object.insert(
            "fields".into(),
            below.iter().map(|field| object_of(field, depth - 1, (kind, &[way, &[field.name]].concat()))).collect(),
        );
    }
    Value::Object(object)
}
