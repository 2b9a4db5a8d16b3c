//! [`Node`]s to JSON values and back.
//!
//! Owns: [`to_json`], [`from_json`].

use serde_json::{Number, Value as Json};

use super::node::{Entry, Key, Mapping, Node, Origin, Value};
use super::scalar::{Resolved, resolve};

/// What the document means, without positions. Numbers that JSON does not know become null.
pub fn to_json(node: &Node) -> Json {
    match &node.value {
        Value::Mapping(mapping) => {
            Json::Object(mapping.entries.iter().map(|e| (e.key.text.clone(), to_json(&e.value))).collect())
        }
        Value::Sequence(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Scalar(scalar) => match resolve(scalar) {
            Resolved::Null => Json::Null,
            Resolved::Bool(value) => Json::Bool(value),
            Resolved::Int(value) => Number::from_i128(value).map_or(Json::Null, Json::Number),
            Resolved::Float(value) => Number::from_f64(value).map_or(Json::Null, Json::Number),
            Resolved::Timestamp(text) => Json::String(text),
            Resolved::Str(text) => Json::String(text.to_owned()),
        },
    }
}

/// A tree in which every value has the given origin.
pub fn from_json(value: &Json, origin: &Origin) -> Node {
    let node = |value| Node::new(value, origin.clone());
    match value {
        Json::Null => Node::plain("null", origin.clone()),
        Json::Bool(value) => Node::plain(value.to_string(), origin.clone()),
        Json::Number(value) => Node::plain(value.to_string(), origin.clone()),
        Json::String(text) => Node::string(text.clone(), origin.clone()),
        Json::Array(items) => node(Value::Sequence(items.iter().map(|item| from_json(item, origin)).collect())),
        Json::Object(map) => {
            let entry = |(key, value): (&String, &Json)| Entry {
                key: Key { text: key.clone(), at: origin.at.clone(), is_string: true },
                value: from_json(value, origin),
            };
            node(Value::Mapping(Mapping { entries: map.iter().map(entry).collect() }))
        }
    }
}
