//! Everything wrong with the documents below some folders, at once: no network, no privileges, nothing written.
//!
//! Owns: [`validate`]. A folder is a site (its phases are followed), an entry point (a kustomization), or holds such, or
//! upstream's variable files;
//! kustomizations that others refer to are looked at through those.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{METADATA, Site, executor, is_inside};
use crate::api::release::RELEASES;
use crate::api::schema;
use crate::api::{AirshipImage, ImageConfiguration, Phase};
use crate::check::documents::{self, Subject};
use crate::check::problem::{Problem, UNMATCHED};
use crate::check::{Finding, Severity};
use crate::compat;
use crate::document::{Diagnostic, Node, decode, load_file};
use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;
use crate::kustomize;
use crate::plan;
use crate::report::{Reporter, Sink, Timing, Unit};

const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Folders below folders: deeper ones are no documents of people.
const DEPTH: usize = 32;

/// What was looked at and what was found, in the order it was found.
#[derive(Debug, Default)]
pub struct Outcome {
    pub problems: Vec<Problem>,
    /// Entry points, sites and files.
    pub entries: usize,
    pub documents: usize,
    pub images: usize,
}

impl Outcome {
    pub fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }
}

/// Looks at folders and files; `skip` names rules that are not asked.
pub fn validate(paths: &[PathBuf], skip: &[String]) -> Result<Outcome> {
    let mut work = Work { outcome: Outcome::default(), skip, found_by_search: false };
    for path in paths {
        work.path(path)?;
    }
    Ok(work.outcome)
}

struct Work<'a> {
    outcome: Outcome,
    skip: &'a [String],
    /// Nobody named the folder at hand: it may be a function, made for others to build on.
    found_by_search: bool,
}

/// Keeps the warnings of a render.
#[derive(Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Sink for Warnings {
    fn step_started(&self, _: u64, _: &str, _: Option<u64>, _: Unit) {}
    fn step_progress(&self, _: u64, _: u64) {}
    fn step_finished(&self, _: u64, _: &Timing) {}
    fn note(&self, _: &str) {}
    fn warning(&self, text: &str) {
        if let Ok(mut texts) = self.0.lock() {
            texts.push(text.to_owned());
        }
    }
}

impl Work<'_> {
    fn path(&mut self, path: &Path) -> Result<()> {
        if path.is_file() {
            self.outcome.entries += 1;
            match load_file(path) {
                Ok(documents) => self.documents(&path.display().to_string(), &documents, None),
                Err(error) => self.add(Problem::of_error("render", &path.display().to_string(), &error)),
            }
            return Ok(());
        }
        if !path.is_dir() {
            return Err(Error::new(Kind::Usage, format!("there is no file or folder {}", path.display())));
        }
        if path.join(compat::BUNDLE).is_dir() {
            self.bundles(path);
            return Ok(());
        }
        let mut found = Found::default();
        found.search(path, 0)?;
        let entries: Vec<PathBuf> = found.entry_points();
        if entries.is_empty() && found.sites.is_empty() && found.workdirs.is_empty() {
            let message = format!("{} holds neither a site nor a kustomization", path.display());
            return Err(Error::new(Kind::Usage, message)
                .hint("name a folder with a `kustomization.yaml`, a site with its `metadata.yaml`, or a file"));
        }
        for site in &found.sites {
            self.site(site)?;
        }
        found.workdirs.iter().for_each(|workdir| self.bundles(workdir));
        for entry in entries {
            self.found_by_search = entry != path;
            self.entry(&entry, None)?;
        }
        self.found_by_search = false;
        Ok(())
    }

    /// Upstream's variable files, as an image of the default release is made of them.
    fn bundles(&mut self, workdir: &Path) {
        let name = workdir.display().to_string();
        let bundles = match compat::bundles(workdir) {
            Ok(bundles) => bundles,
            Err(error) => return self.add(Problem::of_error("render", &name, &error)),
        };
        for bundle in bundles {
            self.outcome.entries += 1;
            let name = format!("bundle {bundle} of {name}");
            match compat::documents(workdir, &bundle, RELEASES[0].distro) {
                Ok(documents) => self.documents(&name, &documents, None),
                Err(error) => self.add(Problem::of_error("render", &name, &error)),
            }
        }
        if workdir.join(compat::ISO).is_dir() {
            self.outcome.entries += 1;
            let name = workdir.join(compat::ISO).display().to_string();
            match compat::iso_documents(workdir, RELEASES[0].distro) {
                Ok(documents) => self.documents(&name, &documents, None),
                Err(error) => self.add(Problem::of_error("render", &name, &error)),
            }
            let seed = plan::load_iso(workdir, RELEASES[0].distro).ok().and_then(|intent| intent.seed);
            if let Some(Err(error)) = seed.map(|seed| seed.load()) {
                self.add(Problem::of_error("seed", &name, &error));
            }
        }
    }

    fn add(&mut self, problem: Problem) {
        if !self.outcome.problems.iter().any(|other| other.same(&problem)) {
            self.outcome.problems.push(problem);
        }
    }

    /// A site: its metadata, its phases, and what each of them builds.
    fn site(&mut self, folder: &Path) -> Result<()> {
        let name = folder.display().to_string();
        self.outcome.entries += 1;
        let path = folder.join(METADATA);
        match load_file(&path) {
            Ok(documents) => self.documents(&name, &documents, None),
            Err(error) => {
                self.add(Problem::of_error("render", &name, &error));
                return Ok(());
            }
        }
        let site = match Site::open(folder) {
            Ok(site) => site,
            Err(error) => {
                let known = self.outcome.problems.iter().any(|problem| problem.entry == name);
                if !known {
                    self.add(Problem::of_error("phase", &name, &error));
                }
                return Ok(());
            }
        };
        let phases = super::join(&site.root, &site.metadata.spec.phase.path);
        let Some(documents) = self.render(&phases)? else { return Ok(()) };
        self.documents(&phases.display().to_string(), &documents, None);
        for document in documents.iter().filter(|node| schema::of(node).is_some_and(|kind| kind.name == "Phase")) {
            // What does not fit was told above.
            if let Ok(phase) = decode::<Phase>(document) {
                self.phase(&site, &phase, document, &documents)?;
            }
        }
        Ok(())
    }

    fn phase(&mut self, site: &Site, phase: &Phase, document: &Node, documents: &[Node]) -> Result<()> {
        let name = format!("phase {}", phase.metadata.name);
        // Other executors than ours are not run here, and their documents are none of ours.
        let (reference, Some(entry)) = (&phase.config.executor_ref, &phase.config.document_entry_point) else {
            return Ok(());
        };
        if reference.kind != "ImageConfiguration" {
            return Ok(());
        }
        let executor = match executor(phase, document, documents) {
            Ok(node) => Some(node),
            Err(error) => {
                self.add(Problem::of_error("phase", &name, &error));
                None
            }
        };
        let place = document.at(&["config", "documentEntryPoint"]).unwrap_or(document);
        let folder = site.entry_point(entry);
        if !is_inside(entry) || !folder.is_dir() {
            let message = format!("entry point {} is not there", folder.display());
            let diagnostic = Diagnostic::on(place, message);
            self.add(Problem::of_diagnostic("phase", Severity::Error, &name, diagnostic));
            return Ok(());
        }
        self.entry(&folder, executor)
    }

    fn entry(&mut self, folder: &Path, executor: Option<&Node>) -> Result<()> {
        if let Some(documents) = self.render(folder)? {
            self.outcome.entries += 1;
            self.documents(&folder.display().to_string(), &documents, executor);
        }
        Ok(())
    }

    /// The documents of a kustomization. When there are none, every file that cannot be read is told, not only the
    /// first one met.
    fn render(&mut self, folder: &Path) -> Result<Option<Vec<Node>>> {
        interrupt::check()?;
        let name = folder.display().to_string();
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let reporter = Some(Reporter::new(Warnings(warnings.clone())));
        let unmatched = kustomize::Unmatched::default();
        let options =
            kustomize::Options { reporter, unmatched: Some(unmatched.clone()), ..kustomize::Options::default() };
        let built = kustomize::build(folder, &options);
        if !self.skip.iter().any(|id| id == UNMATCHED) {
            for diagnostic in unmatched.lock().map(|found| found.clone()).unwrap_or_default() {
                self.add(Problem::of_diagnostic(UNMATCHED, Severity::Error, &name, diagnostic));
            }
        }
        for text in warnings.lock().map(|texts| texts.clone()).unwrap_or_default() {
            let problem = Problem::of_error("render", &name, &Error::documents(text));
            self.add(Problem { severity: Severity::Warning, ..problem });
        }
        match built {
            Ok(documents) => Ok(Some(documents)),
            Err(error) if matches!(error.kind(), Kind::Interrupted | Kind::Space) => Err(error),
            Err(error) => {
                self.add(Problem::of_error("render", &name, &error));
                self.piecemeal(&name, folder)?;
                Ok(None)
            }
        }
    }

    /// What can be told of a kustomization that does not build: everything wrong with its file, with those of the
    /// folders it uses, and with every document in them by itself.
    fn piecemeal(&mut self, name: &str, folder: &Path) -> Result<()> {
        let (errors, mut folders) = kustomize::lint(folder).unwrap_or_default();
        errors.iter().for_each(|error| self.add(Problem::of_error("render", name, error)));
        if folders.is_empty() {
            folders.push(folder.to_owned());
        }
        for file in folders.iter().map(|folder| yaml_files(folder)).collect::<Result<Vec<_>>>()?.concat() {
            let documents = match load_file(&file) {
                Ok(documents) => documents,
                Err(error) => {
                    self.add(Problem::of_error("render", name, &error));
                    continue;
                }
            };
            for document in &documents {
                let misfits = schema::of(document).map(|kind| kind.misfits(document)).unwrap_or_default();
                // A part of a document need not be whole.
                let told = misfits.into_iter().filter(|misfit| !misfit.diagnostic.message().contains("missing field"));
                told.for_each(|misfit| {
                    self.add(Problem::of_diagnostic("schema", Severity::Error, name, misfit.diagnostic));
                });
            }
        }
        Ok(())
    }

    fn documents(&mut self, entry: &str, documents: &[Node], executor: Option<&Node>) {
        let mut fits = true;
        let known = documents.iter().chain(executor).filter_map(|node| Some((node, schema::of(node)?)));
        for (document, kind) in known {
            self.outcome.documents += 1;
            for misfit in kind.misfits(document) {
                fits = false;
                self.add(Problem::of_diagnostic("schema", Severity::Error, entry, misfit.diagnostic));
            }
        }
        let of_kind = |wanted: &str| {
            documents.iter().filter(|node| schema::of(node).is_some_and(|kind| kind.name == wanted)).collect::<Vec<_>>()
        };
        let images = of_kind("AirshipImage");
        let executor = executor.or_else(|| of_kind("ImageConfiguration").first().copied());
        let configuration = executor.and_then(|node| decode::<ImageConfiguration>(node).ok());
        for document in &images {
            let Ok(image) = decode::<AirshipImage>(document) else { continue };
            // An image into which nothing was copied yet is complete only where somebody says it is.
            let params = document.at(&["spec", "params"]).and_then(Node::as_mapping);
            if self.found_by_search
                && image.spec.node_profile.is_some()
                && params.is_none_or(|params| params.is_empty())
            {
                fits = false;
                continue;
            }
            self.outcome.images += 1;
            let executor = configuration.as_ref().zip(executor);
            let subject = Subject { image: &image, document, profiles: of_kind("NodeProfile"), executor };
            for finding in documents::run(&subject) {
                if !self.skips(&finding) {
                    fits &= finding.severity != Severity::Error;
                    self.add(Problem::of_finding(entry, finding));
                }
            }
        }
        // Contradictions between documents; only when each of them is fine by itself.
        if fits && !images.is_empty() && self.skip.is_empty() {
            if let Err(error) = plan::from_documents(documents, executor) {
                self.add(Problem::of_error("plan", entry, &error));
            }
        }
    }

    fn skips(&self, finding: &Finding) -> bool {
        self.skip.iter().any(|id| id == finding.rule)
    }
}

/// What a folder holds.
#[derive(Default)]
pub(super) struct Found {
    pub(super) sites: Vec<PathBuf>,
    kustomizations: Vec<PathBuf>,
    /// Folders with upstream's variable files.
    pub(super) workdirs: Vec<PathBuf>,
    /// Folders that a kustomization refers to, without symbolic links.
    referred: BTreeSet<PathBuf>,
}

impl Found {
    pub(super) fn search(&mut self, folder: &Path, depth: usize) -> Result<()> {
        interrupt::check()?;
        if depth > DEPTH {
            return Ok(());
        }
        let metadata = folder.join(METADATA);
        if metadata.is_file() && std::fs::read_to_string(&metadata).is_ok_and(|text| text.contains("ManifestMetadata"))
        {
            self.sites.push(folder.to_owned());
            return self.references(folder, depth);
        }
        if folder.join(compat::BUNDLE).is_dir() && folder.join("rootfs").is_dir() {
            self.workdirs.push(folder.to_owned());
            return Ok(());
        }
        if let Some(file) = NAMES.iter().map(|name| folder.join(name)).find(|file| file.is_file()) {
            let document = load_file(&file).ok().and_then(|mut documents| documents.pop());
            let is_component =
                document.as_ref().and_then(|node| node.get("kind")).and_then(Node::text) == Some("Component");
            self.refer(folder, document.as_ref());
            if !is_component {
                self.kustomizations.push(folder.to_owned());
            }
            if depth == 0 {
                return Ok(());
            }
        }
        for path in sorted(folder)? {
            let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
            if path.is_dir() && !is_link {
                self.search(&path, depth + 1)?;
            }
        }
        Ok(())
    }

    /// What the folders of a site stand on is looked at through them, too.
    fn references(&mut self, folder: &Path, depth: usize) -> Result<()> {
        interrupt::check()?;
        if depth > DEPTH {
            return Ok(());
        }
        if let Some(file) = NAMES.iter().map(|name| folder.join(name)).find(|file| file.is_file()) {
            let document = load_file(&file).ok().and_then(|mut documents| documents.pop());
            self.refer(folder, document.as_ref());
        }
        for path in sorted(folder)? {
            if path.is_dir() && !path.is_symlink() {
                self.references(&path, depth + 1)?;
            }
        }
        Ok(())
    }

    fn refer(&mut self, folder: &Path, kustomization: Option<&Node>) {
        for field in ["resources", "bases", "components"] {
            let list = kustomization.and_then(|node| node.get(field)).and_then(Node::as_sequence);
            let texts = list.into_iter().flatten().filter_map(Node::text);
            self.referred.extend(texts.filter_map(|text| folder.join(text).canonicalize().ok()));
        }
    }

    pub(super) fn entry_points(&self) -> Vec<PathBuf> {
        let referred = |folder: &Path| folder.canonicalize().is_ok_and(|real| self.referred.contains(&real));
        self.kustomizations.iter().filter(|folder| !referred(folder)).cloned().collect()
    }
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading {}", folder.display());
    let entries = std::fs::read_dir(folder).with_context(reading)?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.with_context(reading)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = sorted(folder)?;
    files.retain(|path| path.is_file() && path.extension().is_some_and(|end| end == "yaml" || end == "yml"));
    Ok(files)
}
