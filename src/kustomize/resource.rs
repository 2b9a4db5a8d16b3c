//! Objects on their way through the overlays, and the set of them.
//!
//! Owns: [`Resource`], [`Resources`] with its index of identities (so that looking an object up costs the same
//! however many there are), turning documents into resources.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::identity::{Id, Key};
use crate::document::{
    Change, ChangeKind, Diagnostic, Node, Position, Resolved, Tag, Value, nearest, resolve, suggestion,
};
use crate::error::{Error, Result};

/// What a generated object does where one of the same identity is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behavior {
    #[default]
    Create,
    Merge,
    Replace,
}

/// Where an object or a change came from, as `buildMetadata` says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// Of a file, relative to the folder that is built.
    pub path: Option<String>,
    /// The file that configures a generator or transformer, and its identity there.
    pub configured: Option<(String, Id)>,
}

/// One object and who it has been.
#[derive(Debug, Clone)]
pub struct Resource {
    pub node: Node,
    id: Id,
    /// Earlier identities, oldest first; patches may use any of them.
    pub earlier: Vec<Id>,
    /// Innermost first.
    pub prefixes: Vec<String>,
    pub suffixes: Vec<String>,
    pub behavior: Behavior,
    pub needs_hash: bool,
    pub generated: bool,
    /// The variables that take their value here.
    pub variables: Vec<String>,
    pub origin: Option<Provenance>,
    pub transformations: Vec<Provenance>,
    /// Fields that are one value to kustomize.
    shared: Vec<Shared>,
    deleted: bool,
}

/// Fields that one entry of labels or annotations made, by the keys on the way to each. Kustomize keeps them as one value:
/// whatever changes one of them in place changes them all (a patch of the label of a Deployment, its selector).
#[derive(Debug, Clone)]
struct Shared {
    paths: Vec<Vec<String>>,
    value: Node,
}

impl Resource {
    pub fn new(node: Node) -> Self {
        Resource {
            id: Id::of(&node),
            node,
            earlier: Vec::new(),
            prefixes: Vec::new(),
            suffixes: Vec::new(),
            behavior: Behavior::Create,
            needs_hash: false,
            generated: false,
            variables: Vec::new(),
            origin: None,
            transformations: Vec::new(),
            shared: Vec::new(),
            deleted: false,
        }
    }

    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Who it was when it was read.
    pub fn first_id(&self) -> &Id {
        self.earlier.first().unwrap_or(&self.id)
    }

    /// The present identity first, then the earlier ones.
    pub fn ids(&self) -> impl Iterator<Item = &Id> {
        std::iter::once(&self.id).chain(self.earlier.iter())
    }

    /// Notes the present identity as one to be known by later.
    pub fn remember(&mut self) {
        let mut id = self.id.clone();
        id.namespace = id.effective_namespace().to_owned();
        if !self.earlier.contains(&id) {
            self.earlier.push(id);
        }
    }

    /// Forgets where it came from, because a patch took the annotations away that kustomize keeps that in. (Its former
    /// names are kept apart from them.)
    pub fn forget(&mut self) {
        self.origin = None;
        self.transformations.clear();
    }

    /// Whether kustomize would have notes on this object, which it keeps in annotations.
    pub fn is_noted(&self) -> bool {
        self.generated || !self.earlier.is_empty() || self.origin.is_some()
    }

    /// From now on, what is at these paths is one value.
    pub fn share(&mut self, paths: Vec<Vec<String>>) {
        let first = paths.first().and_then(|path| at_keys(&mut self.node, path)).cloned();
        if let Some(value) = first.filter(|_| paths.len() > 1) {
            self.shared.push(Shared { paths, value });
        }
    }

    /// What kustomize does where it writes an object as JSON and reads it again: every value is one of its own.
    pub fn unshare(&mut self) {
        self.shared.clear();
    }

    /// Changes the values that are one with a changed one.
    fn follow(&mut self) {
        let node = &mut self.node;
        self.shared.retain_mut(|shared| {
            shared.paths.retain(|path| at_keys(node, path).is_some_and(|found| became(&shared.value, found)));
            let found = shared.paths.iter().filter_map(|path| at_keys(node, path).cloned());
            if let Some(changed) = found.into_iter().find(|found| *found != shared.value) {
                for path in &shared.paths {
                    if let Some(found) = at_keys(node, path) {
                        found.clone_from(&changed);
                    }
                }
                shared.value = changed;
            }
            shared.paths.len() > 1
        });
    }

    /// To be called after the node was changed.
    pub fn refresh(&mut self) {
        self.follow();
        if !self.id.is_of(&self.node) {
            self.id = Id::of(&self.node);
        }
    }

    pub fn delete(&mut self) {
        self.deleted = true;
    }

    /// Objects for local tools only, which builds leave out.
    pub fn is_local(&self) -> bool {
        let local = self.node.at(&["metadata", "annotations", "config.kubernetes.io/local-config"]);
        local.and_then(Node::text).is_some_and(|text| text != "false")
    }
}

/// Whether a value is what another one was changed into, and nothing that was put in its place.
fn became(before: &Node, now: &Node) -> bool {
    let (known, changes) = (&before.origin.changes, &now.origin.changes);
    let same = |(a, b): (&Change, &Change)| a.kind == b.kind && a.by.same(&b.by);
    let goes_on = known.len() <= changes.len() && known.iter().zip(changes).all(same);
    // A replacement hands on the history of what it copies.
    let copied = changes.last().filter(|last| last.kind == ChangeKind::Replacement);
    let copied = copied.and_then(|last| last.replaced.as_ref()).is_some_and(|place| place.same(&before.origin.at));
    now.as_scalar().is_some() && (goes_on || copied)
}

fn at_keys<'n>(node: &'n mut Node, path: &[String]) -> Option<&'n mut Node> {
    path.iter().try_fold(node, |node, key| node.get_mut(key))
}

/// Objects in order, no two the same.
#[derive(Debug, Default)]
pub struct Resources {
    items: Vec<Resource>,
    /// From the hash of an identity, present or earlier, to where it may be; built when first asked for.
    index: Option<HashMap<u64, Vec<usize>>>,
}

fn hash(key: Key<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Resources {
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.items.iter()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn get(&self, at: usize) -> &Resource {
        &self.items[at]
    }

    pub fn into_items(self) -> Vec<Resource> {
        self.items
    }

    /// Changes one object.
    pub fn edit<R>(&mut self, at: usize, change: impl FnOnce(&mut Resource) -> R) -> R {
        let resource = &mut self.items[at];
        let (before, known) = (resource.id.clone(), resource.earlier.len());
        let result = change(resource);
        resource.refresh();
        if let Some(index) = &mut self.index {
            let resource = &self.items[at];
            for id in resource.earlier.iter().skip(known).chain((resource.id != before).then_some(&resource.id)) {
                index.entry(hash(id.key())).or_default().push(at);
            }
        }
        result
    }

    /// Changes objects, one after the other.
    pub fn edit_all(&mut self, mut change: impl FnMut(&mut Resource) -> Result<()>) -> Result<()> {
        self.index = None;
        for resource in &mut self.items {
            change(resource)?;
            resource.refresh();
        }
        Ok(())
    }

    /// Drops what was deleted.
    pub fn sweep(&mut self) {
        if self.items.iter().any(|resource| resource.deleted) {
            self.items.retain(|resource| !resource.deleted);
            self.index = None;
        }
    }

    fn candidates(&mut self, id: &Id) -> Vec<usize> {
        let items = &self.items;
        let index = self.index.get_or_insert_with(|| {
            let mut index: HashMap<u64, Vec<usize>> = HashMap::with_capacity(items.len() * 2);
            for (at, resource) in items.iter().enumerate() {
                for id in resource.ids() {
                    index.entry(hash(id.key())).or_default().push(at);
                }
            }
            index
        });
        let mut found = index.get(&hash(id.key())).cloned().unwrap_or_default();
        found.sort_unstable();
        found.dedup();
        found.retain(|at| !items[*at].deleted);
        found
    }

    /// The objects that are or were `id`.
    pub fn find(&mut self, id: &Id) -> Vec<usize> {
        let mut found = self.candidates(id);
        found.retain(|at| self.items[*at].ids().any(|own| own.same(id)));
        found
    }

    /// The objects that are `id` now.
    pub fn find_current(&mut self, id: &Id) -> Vec<usize> {
        let mut found = self.candidates(id);
        found.retain(|at| self.items[*at].id.same(id));
        found
    }

    pub fn push(&mut self, resource: Resource) -> Result<()> {
        if let Some(first) = self.find_current(&resource.id).first() {
            return Err(twice(&resource, &self.items[*first]));
        }
        let at = self.items.len();
        if let Some(index) = &mut self.index {
            for id in resource.ids() {
                index.entry(hash(id.key())).or_default().push(at);
            }
        }
        self.items.push(resource);
        Ok(())
    }

    pub fn append(&mut self, more: impl IntoIterator<Item = Resource>) -> Result<()> {
        more.into_iter().try_for_each(|resource| self.push(resource))
    }

    /// Puts another object in the place of one.
    pub fn substitute(&mut self, at: usize, resource: Resource) {
        self.items[at] = resource;
        self.index = None;
    }

    /// Fails where two objects have become the same; `by` is the entry that made them so.
    pub fn check_unique(&mut self, by: &Position) -> Result<()> {
        let mut seen: HashMap<Key<'_>, usize> = HashMap::with_capacity(self.items.len());
        for (at, resource) in self.items.iter().enumerate() {
            if let Some(first) = seen.insert(resource.id.key(), at) {
                let first = &self.items[first].node.origin.at;
                return Err(Diagnostic::at(by, format!("this makes two objects the same: {}", resource.id))
                    .note(first, "one of them")
                    .note(&resource.node.origin.at, "the other")
                    .into());
            }
        }
        Ok(())
    }

    /// "did you mean ...?" for an identity that was not found.
    pub fn nearest(&self, id: &Id) -> Option<String> {
        let of_kind = |resource: &&Resource| resource.id.kind == id.kind;
        let mut names: Vec<String> = self.items.iter().filter(of_kind).map(|r| r.id.to_string()).collect();
        if names.is_empty() {
            names = self.items.iter().map(|resource| resource.id.to_string()).collect();
        }
        names.sort();
        names.dedup();
        let wanted = id.to_string();
        let near = nearest(&wanted, names.iter().map(String::as_str)).map(str::to_owned);
        let mut shown: Vec<&str> = names.iter().map(String::as_str).take(8).collect();
        shown.extend(near.as_deref().filter(|near| !names[..names.len().min(8)].iter().any(|name| name == near)));
        suggestion(&wanted, "defined here", &shown)
    }
}

fn twice(resource: &Resource, first: &Resource) -> Error {
    Diagnostic::on(&resource.node, format!("{} is defined twice", resource.id))
        .note(&first.node.origin.at, "first defined here")
        .hint("give one another name, or make it a patch")
        .into()
}

/// Documents to resources: lists unpacked, names and kinds present, nothing that JSON cannot say.
pub fn from_documents(documents: Vec<Node>) -> Result<Vec<Resource>> {
    let mut resources = Vec::new();
    let mut queue: VecDeque<Node> = documents.into();
    while let Some(mut node) = queue.pop_front() {
        check_object(&node)?;
        let kind = node.get("kind").and_then(Node::text).unwrap_or_default();
        if !kind.ends_with("List") || node.get("items").is_none() {
            resources.push(Resource::new(node));
            continue;
        }
        let items = node.as_mapping_mut().and_then(|mapping| mapping.remove("items"));
        match items {
            // What a list holds comes after everything beside it.
            Some(Node { value: Value::Sequence(items), .. }) => queue.extend(items),
            Some(items) if !items.is_null() => {
                return Err(Diagnostic::on(&items, format!("expected a list, found {}", items.describe())).into());
            }
            _ => {}
        }
    }
    Ok(resources)
}

fn check_object(node: &Node) -> Result<()> {
    if node.as_mapping().is_none() {
        return Err(Diagnostic::on(node, format!("expected an object, found {}", node.describe())).into());
    }
    let kind = node.get("kind").and_then(Node::text).unwrap_or_default();
    if kind.is_empty() {
        return Err(Diagnostic::on(node, "object without `kind`").into());
    }
    let is_list = kind.ends_with("List") && node.get("items").is_some();
    if !is_list && node.at(&["metadata", "name"]).and_then(Node::text).is_none_or(str::is_empty) {
        return Err(nameless(node, kind).into());
    }
    check(node, true)
}

/// An object without name; where a key looks as if it were meant, that is the place.
fn nameless(node: &Node, kind: &str) -> Diagnostic {
    let message = format!("object of kind {kind} without `metadata.name`");
    let (within, wanted) = match node.get("metadata") {
        Some(metadata) => (metadata, "name"),
        None => (node, "metadata"),
    };
    let keys = || within.as_mapping().into_iter().flat_map(|mapping| &mapping.entries).map(|entry| &entry.key);
    let near = nearest(wanted, keys().map(|key| key.text.as_str()));
    match keys().find(|key| Some(key.text.as_str()) == near && key.text != wanted) {
        Some(key) => Diagnostic::at(&key.at, message).hint(format!("did you mean `{wanted}`?")),
        None => Diagnostic::on(within, message),
    }
}

/// Annotations are text, whatever they look like, and empty ones are left out: kustomize reads and writes them as a
/// map of strings. (Labels it leaves alone.)
pub fn read_annotations(node: &mut Node) -> Result<()> {
    let annotations = node.at(&["metadata", "annotations"]).and_then(Node::as_mapping);
    for entry in annotations.iter().flat_map(|map| &map.entries) {
        if entry.value.as_scalar().is_none() {
            let message = format!("annotation `{}` must be text, found {}", entry.key.text, entry.value.describe());
            return Err(Diagnostic::on(&entry.value, message).into());
        }
    }
    settle_annotations(node)
}

/// The same of what was made of an object; what is no text has none, as in kustomize.
pub fn settle_annotations(node: &mut Node) -> Result<()> {
    let Some(metadata) = node.as_mapping_mut().and_then(|object| object.get_mut("metadata")) else { return Ok(()) };
    let Some(metadata) = metadata.as_mapping_mut() else { return Ok(()) };
    let Some(annotations) = metadata.get_mut("annotations") else { return Ok(()) };
    let empty = annotations.is_null() || annotations.as_mapping().is_some_and(|map| map.is_empty());
    if empty {
        metadata.remove("annotations");
        return Ok(());
    }
    let found = annotations.describe();
    let Some(mapping) = annotations.as_mapping_mut() else {
        return Err(Diagnostic::on(annotations, format!("annotations must be a mapping, found {found}")).into());
    };
    for entry in &mut mapping.entries {
        match &mut entry.value.value {
            Value::Scalar(scalar) => scalar.tag = Some(Tag::Str),
            _ => entry.value = Node::string("", entry.value.origin.clone()),
        }
    }
    Ok(())
}

/// Refuses what cannot be said in JSON. (Keys of the root are read as text whatever they look like.)
fn check(node: &Node, root: bool) -> Result<()> {
    match &node.value {
        Value::Mapping(mapping) => mapping.entries.iter().try_for_each(|entry| {
            if !entry.key.is_string && !root {
                let diagnostic = Diagnostic::at(&entry.key.at, format!("key `{}` is not a string", entry.key.text));
                return Err(diagnostic.hint(format!("write \"{}\" in quotes", entry.key.text)).into());
            }
            check(&entry.value, false)
        }),
        Value::Sequence(items) => items.iter().try_for_each(|item| check(item, false)),
        Value::Scalar(scalar) => match resolve(scalar) {
            Resolved::Float(value) if !value.is_finite() => {
                Err(Diagnostic::on(node, format!("`{}` cannot be said in JSON", scalar.text)).into())
            }
            _ => Ok(()),
        },
    }
}
