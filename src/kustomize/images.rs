//! `images` and the plugin `ImageTagTransformer`: other names, tags and digests for container images.
//!
//! Owns: [`Image`], [`ImageEntry`] (as written).

use regex::Regex;
use serde::Deserialize;

use super::fieldspec::{Make, Specs};
use super::transformer::{Transform, Work, field};
use crate::document::{Cause, ChangeKind, Diagnostic, Node, Value};
use crate::error::Result;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ImageEntry {
    pub name: String,
    pub new_name: String,
    pub tag_suffix: String,
    pub new_tag: String,
    pub digest: String,
}

pub struct Image {
    pub typed: ImageEntry,
    pub entry: Node,
    pub specs: Specs,
}

impl Transform for Image {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let pattern = format!("^{}(:[a-zA-Z0-9_.{{}}-]*)?(@sha256:[a-zA-Z0-9_.{{}}-]*)?$", self.typed.name);
        let Ok(regex) = Regex::new(&pattern) else {
            // Kustomize takes it for a name that no image has.
            let at = &field(&self.entry, "name").origin.at;
            work.warn(format!("{at}: `{}` is not a regular expression and fits no image", self.typed.name));
            return Ok(());
        };
        let by = &self.entry.origin.at;
        work.resources.edit_all(|resource| {
            let id = resource.id().clone();
            if id.kind == "CustomResourceDefinition" {
                return Ok(());
            }
            self.containers(&mut resource.node, &regex)?;
            for spec in self.specs.iter().filter(|spec| spec.selects(&id)) {
                spec.visit(&mut resource.node, Make::Nothing, by, &mut |node| self.set(node, &regex))?;
            }
            Ok(())
        })
    }
}

impl Image {
    /// The images of every list of containers, at any depth.
    fn containers(&self, node: &mut Node, regex: &Regex) -> Result<()> {
        match &mut node.value {
            Value::Mapping(mapping) => mapping.entries.iter_mut().try_for_each(|entry| {
                self.containers(&mut entry.value, regex)?;
                let items = match entry.key.text.as_str() {
                    "containers" | "initContainers" => entry.value.as_sequence_mut(),
                    _ => None,
                };
                for item in items.into_iter().flatten() {
                    if let Some(image) = item.get_mut("image") {
                        self.set(image, regex)?;
                    }
                }
                Ok(())
            }),
            Value::Sequence(items) => items.iter_mut().try_for_each(|item| self.containers(item, regex)),
            Value::Scalar(_) => Ok(()),
        }
    }

    fn set(&self, node: &mut Node, regex: &Regex) -> Result<()> {
        if node.is_null() {
            return Ok(());
        }
        let Some(scalar) = node.as_scalar() else {
            let message = format!("expected the name of an image, found {}", node.describe());
            return Err(Diagnostic::on(node, message).note(&self.entry.origin.at, "to be changed").into());
        };
        if regex.is_match(&scalar.text) {
            let text = self.renamed(&scalar.text);
            node.rewrite(text, Cause::new(ChangeKind::Image, &self.entry.origin.at));
        }
        Ok(())
    }

    fn renamed(&self, text: &str) -> String {
        let image = &self.typed;
        let (name, mut tag, mut digest) = split(text);
        let mut result = if image.new_name.is_empty() { name } else { &image.new_name }.to_owned();
        let suffixed = format!("{tag}{}", image.tag_suffix);
        match (image.new_tag.is_empty(), image.digest.is_empty()) {
            (false, false) => (tag, digest) = (&image.new_tag, &image.digest),
            (false, true) => (tag, digest) = (&image.new_tag, ""),
            (true, false) => (tag, digest) = ("", &image.digest),
            (true, true) if !image.tag_suffix.is_empty() => (tag, digest) = (&suffixed, ""),
            (true, true) => {}
        }
        if !tag.is_empty() {
            result.push(':');
            result.push_str(tag);
        }
        if !digest.is_empty() {
            result.push('@');
            result.push_str(digest);
        }
        result
    }
}

/// Name, tag and digest; a colon before the first slash belongs to the host.
fn split(image: &str) -> (&str, &str, &str) {
    let from = image.find('/').unwrap_or(0);
    let (rest, digest) = match image[from..].find('@') {
        Some(at) => (&image[..from + at], &image[from + at + 1..]),
        None => (image, ""),
    };
    match rest[from..].find(':') {
        Some(at) => (&rest[..from + at], &rest[from + at + 1..], digest),
        None => (rest, "", digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart() {
        assert_eq!(split("nginx"), ("nginx", "", ""));
        assert_eq!(split("host:5000/a/b:1@sha256:f"), ("host:5000/a/b", "1", "sha256:f"));
        assert_eq!(split("a@sha256:f"), ("a", "", "sha256:f"));
    }
}
