//! Sites and their phases: metadata.yaml -> Phase -> executor and document entry point -> Intent.
//!
//! Owns: finding a site ([`Site::discover`]), its list of phases ([`list`]) and what one of them builds ([`load`]).
//! Paths in documents are relative to the repository, as airshipctl has them. Other executors than
//! ImageConfiguration are listed and not run.

pub mod affected;
pub mod changes;
pub mod entries;
#[cfg(test)]
mod tests;
pub mod validate;

use std::path::{Component, Path, PathBuf};

use crate::api::{self, ManifestMetadata, Phase};
use crate::document::{Diagnostic, Node, decode, load_file, suggestion};
use crate::error::{Context, Error, Kind, Result};
use crate::kustomize;
use crate::plan::{self, Intent};

/// The site that a plain clone builds.
const EXAMPLE: &str = "manifests/site/example";
const METADATA: &str = "metadata.yaml";

/// A site folder with its metadata read.
#[derive(Debug, Clone)]
pub struct Site {
    /// The repository: what the paths in the metadata are relative to.
    root: PathBuf,
    metadata: ManifestMetadata,
}

/// One phase as `phase list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub namespace: String,
    pub name: String,
    pub cluster: String,
    /// Kind of the executor.
    pub executor: String,
    /// Empty when the phase has none.
    pub entry_point: String,
}

impl Site {
    /// The folder given, or the example site of the repository that `start` lies in.
    pub fn discover(folder: Option<&Path>, start: &Path) -> Result<Site> {
        if let Some(folder) = folder {
            return Site::open(folder);
        }
        let place = start.canonicalize().with_context(|| format!("opening {}", start.display()))?;
        let found = place.ancestors().map(|folder| folder.join(EXAMPLE)).find(|site| site.join(METADATA).is_file());
        match found {
            // A path as short as the caller's own, for messages.
            Some(site) if site == place.join(EXAMPLE) => Site::open(&start.join(EXAMPLE)),
            Some(site) => Site::open(&site),
            None => {
                Err(Error::new(Kind::Usage, format!("no site here: no folder above {} has {EXAMPLE}", place.display()))
                    .hint("name the folder that holds the site's `metadata.yaml` with `--site`"))
            }
        }
    }

    /// Reads `metadata.yaml` of a site folder.
    pub fn open(folder: &Path) -> Result<Site> {
        let path = folder.join(METADATA);
        let reading = || format!("reading {}", path.display());
        let documents = load_file(&path).with_context(reading)?;
        let document = documents
            .iter()
            .find(|node| node.get("kind").and_then(Node::text) == Some("ManifestMetadata"))
            .ok_or_else(|| Error::documents("no ManifestMetadata in it"))
            .with_context(reading)?;
        let metadata: ManifestMetadata = decode(document)?;
        for (field, value) in
            [("path", &metadata.spec.phase.path), ("docEntryPointPrefix", &metadata.spec.phase.doc_entry_point_prefix)]
        {
            if !is_inside(value) {
                let node = document.at(&["spec", "phase", field]).unwrap_or(document);
                return Err(Diagnostic::on(node, format!("`{value}` leads out of the repository"))
                    .hint("write the path relative to the repository, without `..`")
                    .into());
            }
        }
        let root = repository(folder, &metadata.spec.phase.path)?.ok_or_else(|| {
            let node = document.at(&["spec", "phase", "path"]).unwrap_or(document);
            let message = format!("no folder above {} has `{}`", folder.display(), metadata.spec.phase.path);
            Error::from(Diagnostic::on(node, message).hint("write the path relative to the repository"))
        })?;
        Ok(Site { root, metadata })
    }

    /// The repository that the site lies in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn documents(&self) -> Result<Vec<Node>> {
        let path = join(&self.root, &self.metadata.spec.phase.path);
        kustomize::build(&path, &kustomize::Options::default())
            .with_context(|| format!("loading phases of {}", path.display()))
    }

    /// The same for a phase that is going to be run.
    fn documents_to_run(&self) -> Result<Vec<Node>> {
        let path = join(&self.root, &self.metadata.spec.phase.path);
        kustomize::build_strict(&path, &kustomize::Options::default())
            .with_context(|| format!("loading phases of {}", path.display()))
    }

    /// The folder of an entry point.
    fn entry_point(&self, entry: &str) -> PathBuf {
        join(&join(&self.root, &self.metadata.spec.phase.doc_entry_point_prefix), entry)
    }
}

/// All phases of a site, in the order of their names.
pub fn list(site: &Site) -> Result<Vec<Row>> {
    let documents = site.documents()?;
    let mut rows = Vec::new();
    for (phase, _) in phases(&documents)? {
        rows.push(Row {
            namespace: phase.metadata.namespace.unwrap_or_default(),
            name: phase.metadata.name,
            cluster: phase.metadata.cluster_name.unwrap_or_default(),
            executor: phase.config.executor_ref.kind,
            entry_point: phase.config.document_entry_point.unwrap_or_default(),
        });
    }
    rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(rows)
}

/// What a phase builds.
pub fn load(site: &Site, name: &str) -> Result<Intent> {
    let documents = site.documents_to_run()?;
    let phases = phases(&documents)?;
    let (phase, node) = find(&phases, name)?;
    let executor = executor(phase, node, &documents)?;
    let entry = phase.config.document_entry_point.as_deref().ok_or_else(|| {
        Error::from(
            Diagnostic::on(node.get("config").unwrap_or(node), format!("phase `{name}` has no `documentEntryPoint`"))
                .hint("an image is built of documents: name the folder that renders its AirshipImage"),
        )
    })?;
    let place = node.at(&["config", "documentEntryPoint"]).unwrap_or(node);
    if !is_inside(entry) {
        return Err(Diagnostic::on(place, format!("`{entry}` leads out of the site")).into());
    }
    let folder = site.entry_point(entry);
    if !folder.is_dir() {
        return Err(Diagnostic::on(place, format!("entry point {} is not there", folder.display())).into());
    }
    let loading = || format!("loading phase `{name}`");
    let rendered = kustomize::build_strict(&folder, &kustomize::Options::default()).with_context(loading)?;
    Ok(plan::from_documents(&rendered, Some(executor)).with_context(loading)?.locked_in(&folder, None))
}

/// Every Phase of ours, typed, with its document.
fn phases(documents: &[Node]) -> Result<Vec<(Phase, &Node)>> {
    let of_ours = documents.iter().filter(|node| {
        node.get("kind").and_then(Node::text) == Some("Phase")
            && node.get("apiVersion").and_then(Node::text) == Some(api::API_VERSION)
    });
    of_ours.map(|node| Ok((decode(node)?, node))).collect()
}

fn find<'a>(phases: &'a [(Phase, &'a Node)], name: &str) -> Result<(&'a Phase, &'a Node)> {
    let mut found = phases.iter().filter(|(phase, _)| phase.metadata.name == name);
    match (found.next(), found.next()) {
        (Some((phase, node)), None) => Ok((phase, node)),
        (Some(_), Some((_, second))) => {
            Err(Diagnostic::on(second, format!("more than one phase is called `{name}`")).into())
        }
        (None, _) => {
            let names: Vec<&str> = phases.iter().map(|(phase, _)| phase.metadata.name.as_str()).collect();
            let error = Error::new(Kind::Usage, format!("no phase is called `{name}`"));
            Err(match suggestion(name, "phases of this site", &names) {
                Some(hint) => error.hint(hint),
                None => error.hint("this site has no phases"),
            })
        }
    }
}

/// The ImageConfiguration that a phase refers to.
fn executor<'a>(phase: &Phase, node: &Node, documents: &'a [Node]) -> Result<&'a Node> {
    let wanted = &phase.config.executor_ref;
    let place = node.at(&["config", "executorRef"]).unwrap_or(node);
    if wanted.kind != "ImageConfiguration" {
        let message = format!("phase `{}` is run by `{}`", phase.metadata.name, wanted.kind);
        let place = place.get("kind").unwrap_or(place);
        return Err(Diagnostic::on(place, message).hint("phases with an ImageConfiguration can be run here").into());
    }
    let text = |node: &'a Node, path: &[&str]| node.at(path).and_then(Node::text);
    let candidates: Vec<&Node> = documents
        .iter()
        .filter(|node| text(node, &["kind"]) == Some("ImageConfiguration"))
        .filter(|node| wanted.api_version.is_empty() || text(node, &["apiVersion"]) == Some(&wanted.api_version))
        .filter(|node| {
            wanted.namespace.is_none() || text(node, &["metadata", "namespace"]) == wanted.namespace.as_deref()
        })
        .collect();
    let mut found = candidates.iter().filter(|node| text(node, &["metadata", "name"]) == Some(&wanted.name));
    match (found.next(), found.next()) {
        (Some(executor), None) => Ok(executor),
        (Some(_), Some(second)) => {
            Err(Diagnostic::on(second, format!("more than one ImageConfiguration is called `{}`", wanted.name)).into())
        }
        (None, _) => {
            let names: Vec<&str> = candidates.iter().filter_map(|node| text(node, &["metadata", "name"])).collect();
            let place = place.get("name").unwrap_or(place);
            let diagnostic = Diagnostic::on(place, format!("no ImageConfiguration is called `{}`", wanted.name));
            Err(match suggestion(&wanted.name, "ImageConfigurations here", &names) {
                Some(hint) => diagnostic.hint(hint).into(),
                None => diagnostic.hint("add it beside the phase").into(),
            })
        }
    }
}

/// The nearest folder above a site that has its phases.
fn repository(folder: &Path, phases: &str) -> Result<Option<PathBuf>> {
    let real = folder.canonicalize().with_context(|| format!("opening {}", folder.display()))?;
    let found = real.ancestors().find(|root| join(root, phases).is_dir());
    let Some(root) = found else { return Ok(None) };
    // Keeps the caller's spelling where it can: messages then show paths that can be typed.
    let depth = real.components().count() - root.components().count();
    let mut short = folder;
    for _ in 0..depth {
        match short.parent() {
            Some(parent) if short.file_name().is_some() => short = parent,
            _ => return Ok(Some(root.to_owned())),
        }
    }
    let short = if short.as_os_str().is_empty() { Path::new(".") } else { short };
    let same = short.canonicalize().is_ok_and(|short| short == root);
    Ok(Some(if same { short.to_owned() } else { root.to_owned() }))
}

fn is_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Joins without a `./` in front.
fn join(folder: &Path, path: &str) -> PathBuf {
    match (folder == Path::new("."), path.is_empty()) {
        (true, false) => PathBuf::from(path),
        (_, true) => folder.to_owned(),
        _ => folder.join(path),
    }
}
