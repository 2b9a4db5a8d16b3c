//! Everything below a folder that can be rendered for its own sake: the phases of sites, entry points, and the images of
//! upstream's variable files.
//!
//! Owns: [`Entry`], [`entries`]. A folder is what `validate` takes, too: a site, an entry point, a folder of variable files,
//! or what holds such. Files that a build reads beside the documents (the user data of an ISO) come as documents of kind
//! `SeedFile`.

use std::path::{Path, PathBuf};

use super::validate::Found;
use super::{METADATA, Site, executor, is_inside};
use crate::api::{AirshipImage, Phase};
use crate::compat;
use crate::document::{Diagnostic, Entry as Field, Key as FieldName, Node, Origin, Value, decode, load_file};
use crate::error::{Context, Error, Kind, Result};
use crate::kustomize;
use crate::plan::{self, Intent};

/// One thing to render, and what came of it.
#[derive(Debug)]
pub struct Entry {
    /// The folder of the site, relative to the base.
    pub site: Option<String>,
    pub phase: Option<String>,
    /// The folder that is rendered, relative to the base.
    pub folder: String,
    /// The ImageConfiguration that a phase names.
    pub executor: Option<Node>,
    pub documents: Result<Vec<Node>>,
    /// Where it lies.
    pub path: PathBuf,
    /// Of variable files: the release that they are for.
    pub distro: Option<String>,
}

/// What makes two entries of two states the same.
pub type Key = (Option<String>, Option<String>, String);

impl Entry {
    /// A phase keeps its identity when its entry point moves.
    pub fn key(&self) -> Key {
        let folder = if self.phase.is_some() { String::new() } else { self.folder.clone() };
        (self.site.clone(), self.phase.clone(), folder)
    }

    /// For people.
    pub fn name(&self) -> String {
        match (&self.site, &self.phase) {
            (Some(site), Some(phase)) => format!("phase {phase} of {site}"),
            _ => self.folder.clone(),
        }
    }

    /// What is asked for.
    pub fn intent(&self) -> Result<Intent> {
        let documents = self.documents.as_ref().map_err(again)?;
        Ok(plan::from_documents(documents, self.executor.as_ref())?.locked_in(&self.path, self.distro.as_deref()))
    }

    /// Adds the files that a build of it reads, so that they are compared like documents.
    fn add_seed_files(&mut self) {
        if self.phase.is_none() && self.distro.is_none() {
            return;
        }
        let files = self.intent().ok().and_then(|intent| intent.seed).map(|seed| seed.files()).unwrap_or_default();
        let Ok(documents) = &mut self.documents else { return };
        for path in files {
            // What is no document is told by the build.
            let content = load_file(&path).ok().and_then(|mut documents| documents.pop());
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            documents.extend(content.map(|content| seed_file(&name, content)));
        }
    }

    /// Whether an image comes of it: of documents that hold a complete AirshipImage. What was never copied into one is
    /// made for others to build on.
    pub fn is_image(&self) -> bool {
        let Ok(documents) = &self.documents else { return self.phase.is_some() || self.distro.is_some() };
        let mut images = documents.iter().filter(|node| node.get("kind").and_then(Node::text) == Some("AirshipImage"));
        self.phase.is_some()
            || self.distro.is_some()
            || images.any(|node| match decode::<AirshipImage>(node) {
                Ok(image) => {
                    let params = node.at(&["spec", "params"]).and_then(Node::as_mapping);
                    image.spec.node_profile.is_none() || params.is_some_and(|params| !params.is_empty())
                }
                Err(_) => true,
            })
    }
}

/// What to render, and how strictly.
pub struct Search<'a> {
    /// What names are relative to.
    pub base: &'a Path,
    /// A patch that matches nothing is an error, as it is in a build.
    pub strict: bool,
    /// The release that upstream's variable files are for.
    pub distro: &'a str,
}

/// All entries of a folder, in the order of their names; of a site its phases that are ours to run, and the folder of
/// the phases itself. Failures of single entries are theirs.
pub fn entries(folder: &Path, search: &Search<'_>) -> Result<Vec<Entry>> {
    if !folder.is_dir() {
        return Err(Error::new(Kind::Usage, format!("there is no folder {}", folder.display())));
    }
    let mut found = Found::default();
    found.search(folder, 0)?;
    let mut entries = Vec::new();
    for site in &found.sites {
        search.site(site, &mut entries)?;
    }
    for folder in found.entry_points() {
        entries.push(search.entry(None, None, &folder, None));
    }
    for workdir in &found.workdirs {
        search.workdir(workdir, &mut entries);
    }
    entries.iter_mut().for_each(Entry::add_seed_files);
    entries.sort_by_key(Entry::key);
    Ok(entries)
}

impl Search<'_> {
    /// The images of a folder with upstream's variable files.
    fn workdir(&self, workdir: &Path, entries: &mut Vec<Entry>) {
        let mut image = |path: PathBuf, documents: Result<Vec<Node>>| {
            let (folder, documents) =
                (self.relative(&path), documents.with_context(|| format!("loading {}", path.display())));
            let distro = Some(self.distro.to_owned());
            entries.push(Entry { site: None, phase: None, folder, executor: None, documents, path, distro });
        };
        if workdir.join(compat::BUNDLE).is_dir() {
            match compat::bundles(workdir) {
                Ok(bundles) => bundles.iter().for_each(|bundle| {
                    image(workdir.join(compat::BUNDLE).join(bundle), compat::documents(workdir, bundle, self.distro));
                }),
                Err(error) => image(workdir.join(compat::BUNDLE), Err(error)),
            }
        }
        if workdir.join(compat::ISO).is_dir() {
            image(workdir.join(compat::ISO), compat::iso_documents(workdir, self.distro));
        }
    }

    fn site(&self, folder: &Path, entries: &mut Vec<Entry>) -> Result<()> {
        let name = self.relative(folder);
        let (site, phases) = match Site::open(folder) {
            Ok(site) => {
                let phases = super::join(&site.root, &site.metadata.spec.phase.path);
                (site, phases)
            }
            Err(error) => {
                entries.push(self.failed((name, None), &folder.join(METADATA), error));
                return Ok(());
            }
        };
        let rendered = self.entry(None, None, &phases, None);
        if let Ok(documents) = &rendered.documents {
            for (phase, node) in super::phases(documents).unwrap_or_default() {
                entries.extend(self.phase(&site, &name, &phase, node, documents));
            }
        }
        entries.push(rendered);
        Ok(())
    }

    fn phase(&self, site: &Site, of: &str, phase: &Phase, node: &Node, documents: &[Node]) -> Option<Entry> {
        let entry = phase.config.document_entry_point.as_ref()?;
        if phase.config.executor_ref.kind != "ImageConfiguration" {
            return None;
        }
        let (of, name) = (of.to_owned(), phase.metadata.name.clone());
        let folder = site.entry_point(entry);
        if !is_inside(entry) || !folder.is_dir() {
            let place = node.at(&["config", "documentEntryPoint"]).unwrap_or(node);
            let error = Diagnostic::on(place, format!("entry point {} is not there", folder.display())).into();
            return Some(self.failed((of, Some(name)), &folder, error));
        }
        Some(match executor(phase, node, documents) {
            Ok(executor) => self.entry(Some(of), Some(name), &folder, Some(executor.clone())),
            Err(error) => self.failed((of, Some(name)), &folder, error),
        })
    }

    fn entry(&self, site: Option<String>, phase: Option<String>, path: &Path, executor: Option<Node>) -> Entry {
        let options = kustomize::Options::default();
        let built =
            if self.strict { kustomize::build_strict(path, &options) } else { kustomize::build(path, &options) };
        let documents = built.with_context(|| format!("loading {}", path.display()));
        Entry { site, phase, folder: self.relative(path), executor, documents, path: path.to_owned(), distro: None }
    }

    fn failed(&self, (site, phase): (String, Option<String>), path: &Path, error: Error) -> Entry {
        let folder = self.relative(path);
        let (path, documents) = (path.to_owned(), Err(error));
        Entry { site: Some(site), phase, folder, executor: None, documents, path, distro: None }
    }

    /// Relative to the base where it lies below, as it is elsewhere.
    fn relative(&self, path: &Path) -> String {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (path, base) = (real(path), real(self.base));
        let shown = path.strip_prefix(&base).unwrap_or(&path).display().to_string();
        if shown.is_empty() { ".".into() } else { shown }
    }
}

/// Errors are not copied; what they say is.
fn again(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.to_string());
    error.hints().iter().fold(copy, Error::hint)
}

/// A file that a build reads, in the shape of an object.
fn seed_file(name: &str, content: Node) -> Node {
    let at = content.origin.at.clone();
    let mapping = |fields: Vec<(&str, Node)>| {
        let mut node = Node::mapping(Origin::new(at.clone()));
        if let Value::Mapping(mapping) = &mut node.value {
            mapping.entries =
                fields.into_iter().map(|(key, value)| Field { key: FieldName::new(key, &at), value }).collect();
        }
        node
    };
    let text = |text: &str| Node::string(text, Origin::new(at.clone()));
    let metadata = mapping(vec![("name", text(name))]);
    mapping(vec![("kind", text("SeedFile")), ("metadata", metadata), ("content", content)])
}
