//! Documents as a tree in which every value remembers where it came from.
//!
//! Owns: reading YAML and JSON ([`load_file`], [`load_str`]), the tree ([`Node`]), typed access with exact
//! positions in errors ([`decode`]), output as kustomize writes it ([`to_yaml`]), JSON ([`to_json`], [`from_json`])
//! the table of origins ([`origins`], [`steps`]) and paths to values ([`ValuePath`]). Uses error and interrupt only.

mod compare;
mod de;
mod diagnostic;
mod emit;
mod json;
mod load;
mod node;
mod order;
mod origins;
mod path;
mod scalar;
mod source;
mod syntax;

pub use compare::{Difference, differences};
pub use de::{Decoder, Misfit, decode};
pub use diagnostic::{Diagnostic, nearest, suggestion};
pub use emit::{document, to_yaml, to_yaml_commented};
pub use json::{from_json, to_json};
pub use load::{Loaded, Loader, load_file, load_str, read_limited};
pub use node::{Cause, Change, ChangeKind, Entry, Key, Mapping, Node, Origin, Scalar, Style, Tag, Value};
pub use order::sort_by_key;
pub use origins::{OriginEntry, Step, origins, place, steps, steps_json};
pub use path::{ValuePath, leaves, path_text};
pub use scalar::{Resolved, json_number, needs_quotes, resolve, resolve_plain};
pub use source::{Position, Source};
