//! The overlay engine: a kustomization folder in, documents out, as stock `kustomize build` gives them, with every
//! value still knowing which line and which overlay set it.
//!
//! Owns: [`build`], [`render`], [`select`], [`Options`], [`find_object`]. Uses document, report, error. Behaviour follows kustomize 5 (official
//! builds), down to the bytes. Stricter than kustomize on purpose: remote resources (unless pinned and allowed), helm and
//! plugins that are programs are refused. The order of work in a folder is in `folder.rs`; each transformer and generator
//! has a file of its own, named as kustomize names it.

mod affix;
mod build_metadata;
mod config;
mod crds;
mod embedded;
mod fieldpath;
mod fieldspec;
mod folder;
pub mod function;
mod generator;
mod hash;
mod identity;
mod images;
mod json;
mod json6902;
mod keyed_list;
mod kustomization;
mod labels;
mod lint;
mod merge;
mod name_reference;
mod namespace;
mod object;
mod order;
mod patch;
mod place;
mod plugin;
mod remote;
mod replacement;
mod replicas;
mod resource;
mod schema;
mod selector;
mod steps;
mod transformer;
mod value_add;
mod variables;

use std::path::Path;
use std::sync::{Arc, Mutex};

pub use lint::lint;
pub use object::{find_object, object_name};
pub use order::Order;
pub use remote::Fetch;
pub use selector::Selector;

use crate::document::{Cause, ChangeKind, Diagnostic, Node, Origin, load_str, to_yaml};
use crate::error::{Error, Result};
use crate::report::Reporter;

/// How to build.
#[derive(Clone, Default)]
pub struct Options {
    /// Files may lie anywhere (`--load-restrictor=LoadRestrictionsNone` of kustomize). Default: in or below the folder
    /// of the kustomization that names them, after following symbolic links.
    pub unrestricted: bool,
    /// Of the documents, where the kustomization has no `sortOptions`.
    pub order: Order,
    /// Hears of odd but accepted input. Default: nobody.
    pub reporter: Option<Reporter>,
    /// How resources at an address are fetched, each pinned by its digest. Default: they are refused.
    pub fetch: Option<Fetch>,
    /// Runs functions in containers. Default: as [`function::run_with`] says; without, they are refused.
    pub functions: Option<function::Run>,
    /// Takes the patches and replacements that match nothing. Default: the reporter is told, as kustomize accepts them.
    pub unmatched: Option<Unmatched>,
}

/// Patches and replacements that match nothing, each with the nearest candidates.
pub type Unmatched = Arc<Mutex<Vec<Diagnostic>>>;

/// The documents that a selector finds, as patches find theirs.
pub fn select<'a>(documents: &'a [Node], selector: &Selector) -> Result<Vec<&'a Node>> {
    let matcher = selector.compile(&Node::mapping(Origin::built("selector")))?;
    Ok(documents.iter().filter(|document| matcher.matches_document(document)).collect())
}

/// Builds a folder: all its documents, patched and ordered.
pub fn build(dir: &Path, options: &Options) -> Result<Vec<Node>> {
    finish(folder::Builder::new(options).root(dir)?, options)
}

/// The same for what is going to be built: a patch or replacement that matches nothing is an error, because what it says
/// would be missing from the image without a word.
pub fn build_strict(dir: &Path, options: &Options) -> Result<Vec<Node>> {
    let unmatched = Unmatched::default();
    let documents = build(dir, &Options { unmatched: Some(unmatched.clone()), ..options.clone() })?;
    let mut found = unmatched.lock().map(|found| found.clone()).unwrap_or_default().into_iter().map(Error::from);
    match found.next() {
        None => Ok(documents),
        Some(first) => Err(found.fold(first, |error, other| error.hint(format!("also: {other}")))),
    }
}

/// Builds a kustomization given as text, as if it lay in `dir`.
pub fn build_generated(dir: &Path, kustomization: &str, options: &Options) -> Result<Vec<Node>> {
    finish(folder::Builder::new(options).generated(dir, kustomization)?, options)
}

fn finish(built: folder::Built, options: &Options) -> Result<Vec<Node>> {
    let mut resources = built.resources;
    resources.retain(|resource| !resource.is_local());
    for resource in &mut resources {
        build_metadata::write(resource, built.metadata, &built.metadata_at);
        resource::settle_annotations(&mut resource.node)?;
    }
    order::sort(&mut resources, built.sort.as_ref(), options.order);
    Ok(resources.into_iter().map(|resource| resource.node).collect())
}

/// One object with a patch text applied: objects to merge, or a list of JSON patch operations. `None` when the patch
/// deletes the object.
pub fn patched(object: &Node, patch: &str) -> Result<Option<Node>> {
    let mut object = object.clone();
    let schema = schema::Schema::builtin();
    for document in load_str("patch", patch)? {
        if document.as_sequence().is_some() {
            json6902::apply(&mut object, &document, &document.origin.at)?;
            continue;
        }
        let id = identity::Id::of(&object);
        let cause = Cause::new(ChangeKind::Patch, &document.origin.at);
        let of = schema.of(&id.api_version(), &id.kind);
        if merge::merge(&mut object, &document, &schema, of, cause)? == merge::Outcome::Deleted {
            return Ok(None);
        }
    }
    Ok(Some(object))
}

/// Builds a folder and writes it as kustomize does.
pub fn render(dir: &Path) -> Result<String> {
    Ok(to_yaml(&build(dir, &Options::default())?))
}
