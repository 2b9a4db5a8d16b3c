//! Edits on a rendered release: what a generated kustomization would do, with values that keep their place in the
//! variable file.
//!
//! Owns: [`Overlay`]: setting and appending below NodeProfile.spec, the ImageConfiguration of the image, and the
//! final copy of every area into the AirshipImage, as `functions/replacements` does it.

use super::variables::internal;
use crate::api::API_VERSION;
use crate::document::{Change, ChangeKind, Entry, Key, Mapping, Node, Origin, Position, Value};
use crate::error::Result;

pub(super) struct Overlay {
    image: Node,
    profile: Node,
    others: Vec<Node>,
    /// Name of the image, and of the file unless `img_name` says otherwise.
    output_file_name: Node,
    qcow_compress: Option<Node>,
    /// Of an ISO: the settings of its builder.
    iso: Option<Vec<(&'static str, Node)>>,
}

impl Overlay {
    /// Takes the documents of a release and names image and profile after the bundle.
    pub(super) fn new(documents: Vec<Node>, bundle: &str) -> Result<Overlay> {
        let (mut image, mut profile, mut others) = (None, None, Vec::new());
        for document in documents {
            match document.get("kind").and_then(Node::text) {
                Some("AirshipImage") if image.is_none() => image = Some(document),
                Some("NodeProfile") if profile.is_none() => profile = Some(document),
                _ => others.push(document),
            }
        }
        let missing = |kind: &str| internal(format!("the release function renders no {kind}"));
        let built = Origin::built(&format!("bundle {bundle}"));
        let mut overlay = Overlay {
            image: image.ok_or_else(|| missing("AirshipImage"))?,
            profile: profile.ok_or_else(|| missing("NodeProfile"))?,
            others,
            output_file_name: Node::string(format!("{bundle}.qcow2"), built.clone()),
            qcow_compress: None,
            iso: None,
        };
        let name = || Node::string(bundle, built.clone());
        put(&mut overlay.image, &["metadata", "name"], name(), None);
        put(&mut overlay.image, &["spec", "nodeProfile"], name(), None);
        put(&mut overlay.profile, &["metadata", "name"], name(), None);
        Ok(overlay)
    }

    /// The same for an ISO, whose user data and network data are files of upstream's names.
    pub(super) fn new_iso(documents: Vec<Node>, image: &str) -> Result<Overlay> {
        let mut overlay = Overlay::new(documents, image)?;
        let built = Origin::built("iso");
        let text = |text: &str| Node::string(text, built.clone());
        overlay.output_file_name = text(&format!("{image}.iso"));
        overlay.iso =
            Some(vec![("userDataFileName", text("user_data")), ("networkConfigFileName", text("network_data.json"))]);
        Ok(overlay)
    }

    pub(super) fn set_iso_builder(&mut self, key: &'static str, value: Node) {
        self.iso.get_or_insert_default().push((key, value));
    }

    /// Replaces the value at a path below NodeProfile.spec. `by` is the variable that asks for it.
    pub(super) fn set(&mut self, path: &[&str], value: Node, by: &Key) {
        let path: Vec<&str> = ["spec"].iter().chain(path).copied().collect();
        put(&mut self.profile, &path, value, Some(&by.at));
    }

    /// Adds to the end of a list.
    pub(super) fn append(&mut self, path: &[&str], items: &[Node], by: &Key) {
        let mut list = self.get(path).and_then(Node::as_sequence).unwrap_or_default().to_vec();
        list.extend(items.iter().cloned());
        self.set(path, Node::sequence(list, Origin::new(by.at.clone())), by);
    }

    pub(super) fn get(&self, path: &[&str]) -> Option<&Node> {
        self.profile.get("spec")?.at(path)
    }

    pub(super) fn remove(&mut self, path: &[&str], key: &str) {
        let spec = self.profile.as_mapping_mut().and_then(|profile| profile.get_mut("spec"));
        let parent = path.iter().try_fold(spec, |node, key| Some(node?.as_mapping_mut()?.get_mut(key)));
        if let Some(mapping) = parent.flatten().and_then(Node::as_mapping_mut) {
            mapping.remove(key);
        }
    }

    pub(super) fn set_output_file_name(&mut self, name: Node) {
        self.output_file_name = name;
    }

    pub(super) fn set_qcow_compress(&mut self, compress: Node) {
        self.qcow_compress = Some(compress);
    }

    /// Copies the areas and adds the ImageConfiguration.
    pub(super) fn finish(mut self) -> Result<Vec<Node>> {
        let areas = self.profile.get("spec").and_then(Node::as_mapping).cloned();
        let areas = areas.ok_or_else(|| internal("the NodeProfile of the release function has no `spec`"))?;
        for Entry { key, value } in areas.entries {
            put(&mut self.image, &["spec", "params", &key.text], value, None);
        }
        let built = Origin::built("bundle");
        let mut executor = Node::mapping(built.clone());
        let name = self.image.at(&["metadata", "name"]).and_then(Node::text).unwrap_or_default();
        let kind = if self.iso.is_some() { "iso" } else { "qcow" };
        let name = if self.iso.is_some() { "build-iso".to_owned() } else { format!("build-qcow-{name}") };
        let name = Node::string(name, built.clone());
        let text = |text: &str| Node::string(text, built.clone());
        put(&mut executor, &["apiVersion"], text(API_VERSION), None);
        put(&mut executor, &["kind"], text("ImageConfiguration"), None);
        put(&mut executor, &["metadata", "name"], name, None);
        put(&mut executor, &["spec", "image", "type"], text(kind), None);
        put(&mut executor, &["spec", "image", "outputFileName"], self.output_file_name, None);
        for (key, value) in self.iso.into_iter().flatten() {
            put(&mut executor, &["spec", "params", "isobuilder", key], value, None);
        }
        if let Some(compress) = self.qcow_compress {
            put(&mut executor, &["spec", "params", "qcowbuilder", "qcow_compress"], compress, None);
        }
        let mut documents = vec![self.image, executor, self.profile];
        documents.append(&mut self.others);
        Ok(documents)
    }
}

/// Sets the value at a path, making mappings on the way. What stood there is remembered in the value's history.
fn put(node: &mut Node, path: &[&str], mut value: Node, by: Option<&Position>) {
    let Some((key, rest)) = path.split_first() else {
        if let Some(by) = by {
            let change = Change { kind: ChangeKind::Patch, by: by.clone(), replaced: Some(node.origin.at.clone()) };
            value.origin.changes.push(change);
        }
        *node = value;
        return;
    };
    if node.as_mapping().is_none() {
        node.value = Value::Mapping(Mapping::default());
    }
    let at = value.origin.at.clone();
    let Some(mapping) = node.as_mapping_mut() else { return };
    if let Some(child) = mapping.get_mut(key) {
        return put(child, rest, value, by);
    }
    let key = Key { text: (*key).to_owned(), at: at.clone(), is_string: true };
    let value = match rest.is_empty() {
        true => value,
        false => {
            let mut child = Node::mapping(Origin::new(at));
            put(&mut child, rest, value, by);
            child
        }
    };
    mapping.entries.push(Entry { key, value });
}

/// A mapping made of pairs, at a place.
pub(super) fn mapping_of(pairs: impl IntoIterator<Item = (Key, Node)>, at: &Position) -> Node {
    let mut mapping = Mapping::default();
    for (key, value) in pairs {
        mapping.set(key, value);
    }
    Node::new(Value::Mapping(mapping), Origin::new(at.clone()))
}

/// A key that stands where a value stands.
pub(super) fn key(text: &str, at: &Position) -> Key {
    Key { text: text.to_owned(), at: at.clone(), is_string: true }
}
