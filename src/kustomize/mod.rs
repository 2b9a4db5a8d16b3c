//! The overlay engine: a kustomization folder in, documents out, as stock `kustomize build` gives them, with every
//! value still knowing which line and which overlay set it.
//!
//! Owns: [`build`], [`render`], [`Options`]. Uses document, report, error. Behaviour follows kustomize 5 (official
//! builds); what is not supported yet is refused with its position, never ignored. Stricter than kustomize on purpose:
//! remote resources, a replacement of text by a mapping (kustomize empties the field) or below a null (it does
//! nothing), a JSON patch that copies what is not there. The order of work in a folder is
//! in `folder.rs`; each transformer has a file of its own.

mod fieldpath;
mod folder;
mod identity;
mod json6902;
mod kustomization;
mod merge;
mod order;
mod patch;
mod replacement;
mod resource;
mod selector;

use std::path::Path;

use crate::document::{Node, to_yaml};
use crate::error::Result;
use crate::report::Reporter;

/// How to build.
#[derive(Clone, Default)]
pub struct Options {
    /// Files may lie anywhere (`--load-restrictor=LoadRestrictionsNone` of kustomize). Default: in or below the folder
    /// of the kustomization that names them, after following symbolic links.
    pub unrestricted: bool,
    /// Hears of odd but accepted input. Default: nobody.
    pub reporter: Option<Reporter>,
}

/// Builds a folder: all its documents, patched and ordered.
pub fn build(dir: &Path, options: &Options) -> Result<Vec<Node>> {
    finish(folder::Builder::new(options).root(dir)?)
}

/// Builds a kustomization given as text, as if it lay in `dir`.
pub fn build_generated(dir: &Path, kustomization: &str, options: &Options) -> Result<Vec<Node>> {
    finish(folder::Builder::new(options).generated(dir, kustomization)?)
}

fn finish(mut resources: Vec<resource::Resource>) -> Result<Vec<Node>> {
    resources.retain(|resource| !resource.is_local());
    resources.iter_mut().try_for_each(|resource| resource::settle_annotations(&mut resource.node))?;
    order::legacy(&mut resources);
    Ok(resources.into_iter().map(|resource| resource.node).collect())
}

/// Builds a folder and writes it as kustomize does.
pub fn render(dir: &Path) -> Result<String> {
    Ok(to_yaml(&build(dir, &Options::default())?))
}
