//! User data: what cloud-init would do with it, as far as that can be known before
//! (<https://cloudinit.readthedocs.io/en/latest/explanation/format.html>).

use super::input::Text;
use super::secrets::{self, Secret};
use super::{enforce, fault};
use crate::document::{Diagnostic, Node};
use crate::error::Result;

/// First lines by which cloud-init knows what it has.
const HEADERS: [&str; 8] = [
    "#cloud-config",
    "#!",
    "#include",
    "#cloud-boothook",
    "#part-handler",
    "#cloud-config-archive",
    "#cloud-config-jsonp",
    "## template:",
];
/// Parts in the form of a mail.
const MIME: [&str; 2] = ["content-type: multipart/", "mime-version:"];
const GZIP: [u8; 2] = [0x1F, 0x8B];

/// Checks it and lists what in it is secret.
pub(super) fn check(text: &Text) -> Result<Vec<Secret>> {
    if text.bytes.starts_with(&GZIP) {
        return Ok(Vec::new());
    }
    let Ok(content) = std::str::from_utf8(&text.bytes) else {
        return Err(fault(text, "the user data is neither text nor compressed by gzip"));
    };
    let first = content.lines().next().unwrap_or_default().trim_end();
    let lower = content.trim_start().to_ascii_lowercase();
    if first != "#cloud-config" {
        let known = HEADERS.iter().any(|header| first.starts_with(header)) && !first.starts_with("#cloud-config ")
            || MIME.iter().any(|header| lower.starts_with(header));
        if !known {
            let message = "the user data does not begin with a line that cloud-init knows";
            return Err(fault(text, message).hint(
                "the first line of a configuration is `#cloud-config`, alone; that of a script begins with `#!`",
            ));
        }
        return Ok(secrets::in_text(text, content));
    }
    // What it says about itself may hold passwords.
    let documents = text.parse().map_err(crate::error::Error::without_snippet)?;
    let mut documents = documents.into_iter();
    let Some(document) = documents.next() else { return Ok(Vec::new()) };
    if let Some(second) = documents.next() {
        let message = "the user data has more than one YAML document; cloud-init reads one";
        return Err(Diagnostic::on(&second, message).without_text().into());
    }
    enforce(config(&document))?;
    Ok(secrets::in_config(&document))
}

/// Keys that are lists, keys that are mappings; what cloud-init skips with a warning that nobody sees.
const LISTS: [&str; 5] = ["write_files", "runcmd", "bootcmd", "packages", "ssh_authorized_keys"];

fn config(document: &Node) -> Vec<Diagnostic> {
    let Some(_) = document.as_mapping() else {
        let message = format!("expected a mapping, found {}", document.describe());
        return vec![Diagnostic::on(document, message).without_text()];
    };
    let mut found = Vec::new();
    for key in LISTS {
        let Some(node) = document.get(key).filter(|node| !node.is_null()) else { continue };
        if node.as_sequence().is_none() {
            let what = if node.as_mapping().is_some() { "a mapping" } else { "a scalar" };
            found.push(Diagnostic::on(node, format!("`{key}` is {what}; it has to be a list")).without_text());
        }
    }
    let files = document.get("write_files").and_then(Node::as_sequence).unwrap_or_default();
    for file in files {
        let path = file.get("path").and_then(Node::text);
        if path.is_none_or(|path| !path.starts_with('/')) {
            let place = file.get("path").unwrap_or(file);
            found.push(
                Diagnostic::on(place, "an entry of `write_files` has no absolute `path`")
                    .without_text()
                    .hint("`path: /etc/example`"),
            );
        }
        if let Some(permissions) = file.get("permissions") {
            let text = permissions.text().unwrap_or_default();
            let digits = text.strip_prefix("0o").unwrap_or(text);
            if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) {
                found.push(
                    Diagnostic::on(permissions, format!("`{text}` are no permissions"))
                        .hint("octal digits in quotes: `'0644'`"),
                );
            }
        }
    }
    found
}
