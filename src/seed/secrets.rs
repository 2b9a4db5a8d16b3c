//! What in a seed is secret: private keys and passwords in clear text, by place and name, never by value.

use std::io::Read;

use base64::Engine;

use super::input::Text;
use crate::document::Node;

/// Something that everybody who gets the image can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// `private key`, `password`, ...
    pub what: &'static str,
    /// The file or the user it belongs to, or where in the user data it stands.
    pub of: String,
    /// `file:line:column`.
    pub place: String,
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} of `{}`", self.place, self.what, self.of)
    }
}

/// More unpacked than this is looked at no further.
const UNPACKED: u64 = 4 << 20;

const PASSWORDS: [&str; 3] = ["password", "plain_text_passwd", "passphrase"];
const HASHES: [&str; 2] = ["passwd", "hashed_passwd"];

/// In the text of a script, line by line.
pub(super) fn in_text(text: &Text, content: &str) -> Vec<Secret> {
    let keys = content.lines().enumerate().filter(|(_, line)| begins_key(line));
    keys.map(|(index, _)| Secret { what: "private key", of: "user data".into(), place: text.line(index + 1) }).collect()
}

fn begins_key(line: &str) -> bool {
    let rest = line.split_once("-----BEGIN ").map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split_once("-----")).is_some_and(|(label, _)| label.ends_with("PRIVATE KEY"))
}

/// In a cloud-config.
pub(super) fn in_config(document: &Node) -> Vec<Secret> {
    let mut search = Search { found: Vec::new() };
    search.node(document, &mut Vec::new());
    search.files(document);
    search.chpasswd(document);
    search.found.sort_by(|one, other| (&one.of, one.what).cmp(&(&other.of, other.what)));
    search.found
}

struct Search {
    found: Vec<Secret>,
}

impl Search {
    fn put(&mut self, what: &'static str, of: impl Into<String>, node: &Node) {
        self.found.push(Secret { what, of: of.into(), place: node.origin.at.to_string() });
    }

    /// Everywhere but in the files, which have names of their own.
    fn node(&mut self, node: &Node, path: &mut Vec<String>) {
        if let Some(mapping) = node.as_mapping() {
            for entry in &mapping.entries {
                let key = entry.key.text.as_str();
                if path.is_empty() && ["write_files", "chpasswd"].contains(&key) {
                    continue;
                }
                path.push(key.to_owned());
                if let Some(what) = entry.value.text().and_then(|value| password(key, value)) {
                    let user = node.get("name").and_then(Node::text).map(str::to_owned);
                    self.put(what, user.unwrap_or_else(|| path.join(".")), &entry.value);
                }
                self.node(&entry.value, path);
                path.pop();
            }
        } else if let Some(items) = node.as_sequence() {
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                self.node(item, path);
                path.pop();
            }
        } else if let Some(what) = node.text().and_then(|text| of_content(text.as_bytes())) {
            self.put(what, path.join("."), node);
        }
    }

    fn files(&mut self, document: &Node) {
        for file in document.get("write_files").and_then(Node::as_sequence).unwrap_or_default() {
            let Some((content, text)) = file.get("content").and_then(|node| Some((node, node.text()?))) else {
                continue;
            };
            let encoding = file.get("encoding").and_then(Node::text).unwrap_or_default();
            let name = file.get("path").and_then(Node::text).unwrap_or("?");
            if let Some(what) = unpack(text, encoding).and_then(|bytes| of_content(&bytes)) {
                self.put(what, name, content);
            }
        }
    }

    /// `list` as text or as a list of `user:password`, `users` as mappings.
    fn chpasswd(&mut self, document: &Node) {
        let mut line = |text: &str, node: &Node| {
            let Some((user, value)) = text.trim().split_once(':') else { return };
            if let Some(what) = password("password", value.trim()) {
                self.put(what, user, node);
            }
        };
        let list = document.at(&["chpasswd", "list"]);
        if let Some((node, text)) = list.and_then(|node| Some((node, node.text()?))) {
            text.lines().for_each(|text| line(text, node));
        }
        for node in list.and_then(Node::as_sequence).unwrap_or_default() {
            line(node.text().unwrap_or_default(), node);
        }
        for user in document.at(&["chpasswd", "users"]).and_then(Node::as_sequence).unwrap_or_default() {
            let Some((node, value)) = user.get("password").and_then(|node| Some((node, node.text()?))) else {
                continue;
            };
            if let Some(what) = password("password", value) {
                self.put(what, user.get("name").and_then(Node::text).unwrap_or("?"), node);
            }
        }
    }
}

fn password(key: &str, value: &str) -> Option<&'static str> {
    let known = PASSWORDS.contains(&key) || HASHES.contains(&key);
    // A random one is made by the machine; `!` and `*` lock an account.
    if !known || value.is_empty() || ["R", "RANDOM"].contains(&value) || value.starts_with(['!', '*']) {
        return None;
    }
    Some(if value.starts_with('$') { "password hash" } else { "password" })
}

/// What a file holds that should not be seen.
fn of_content(bytes: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(bytes);
    if text.lines().any(begins_key) {
        return Some("private key");
    }
    let value = |line: &str| line.split_once(':').is_some_and(|(_, value)| !value.trim().is_empty());
    let kubeconfig = |line: &str| {
        let line = line.trim_start().trim_start_matches("- ");
        (line.starts_with("client-key-data:") || line.starts_with("token:")) && value(line)
    };
    text.lines().any(kubeconfig).then_some("key or token in clear text")
}

/// The bytes of a file as cloud-init would write them; `None` for what it would not.
fn unpack(text: &str, encoding: &str) -> Option<Vec<u8>> {
    let packed = match encoding {
        "b64" | "base64" | "gz+b64" | "gzip+b64" | "gz+base64" | "gzip+base64" => {
            let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
            base64::engine::general_purpose::STANDARD.decode(digits).ok()?
        }
        _ => text.as_bytes().to_vec(),
    };
    if !encoding.starts_with("gz") {
        return Some(packed);
    }
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(&packed[..]).take(UNPACKED).read_to_end(&mut out).ok()?;
    Some(out)
}
