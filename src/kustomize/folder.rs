//! One folder after the other: what a kustomization names, in the order in which kustomize works.
//!
//! Owns: [`Builder`]: recursion, cycles, load restrictions, components, and the pipeline: resources, components,
//! then the transformers (strategic-merge patches, `patches`, JSON patches, replacements).

use std::path::{Component as Part, Path, PathBuf};

use super::kustomization::{File, Role};
use super::resource::{Resource, Resources, from_documents, settle_annotations};
use super::{Options, patch, replacement};
use crate::document::{Diagnostic, Loaded, Loader, Node, nearest};
use crate::error::{Context, Error, Result};
use crate::interrupt;

/// Folders inside folders; far more than any real tree has.
const DEPTH_LIMIT: usize = 64;

pub struct Builder<'a> {
    options: &'a Options,
    /// Real paths of the folders being built, outermost first.
    open: Vec<PathBuf>,
}

/// A folder and the name it is shown under.
#[derive(Debug, Clone)]
pub struct Place {
    real: PathBuf,
    shown: PathBuf,
    unrestricted: bool,
}

impl<'a> Builder<'a> {
    pub fn new(options: &'a Options) -> Self {
        Builder { options, open: Vec::new() }
    }

    pub fn root(&mut self, dir: &Path) -> Result<Vec<Resource>> {
        let place = self.place(dir)?;
        let file = File::read(&place.real, &place.shown)?;
        Ok(self.file(&place, file, Resources::default())?.0)
    }

    /// A kustomization given as text, whose paths are relative to `dir`.
    pub fn generated(&mut self, dir: &Path, text: &str) -> Result<Vec<Resource>> {
        let place = self.place(dir)?;
        let name = place.shown.join("kustomization.yaml (generated)").display().to_string();
        let file = File::parse(text, &name)?;
        Ok(self.file(&place, file, Resources::default())?.0)
    }

    fn place(&self, dir: &Path) -> Result<Place> {
        let real = dir.canonicalize().map_err(|error| Error::documents(error.to_string()));
        let real = real.with_context(|| format!("opening {}", dir.display()))?;
        if !real.is_dir() {
            return Err(Error::documents(format!("{} is not a folder", dir.display()))
                .hint("give the folder that holds the kustomization file"));
        }
        Ok(Place { real, shown: tidy(dir), unrestricted: self.options.unrestricted })
    }

    /// Builds a folder that an entry names for a role. Components get what their parent has so far, all others start
    /// with nothing.
    fn folder(&mut self, place: &Place, (entry, role): (&Node, Role), start: Resources) -> Result<Resources> {
        let file = File::read(&place.real, &place.shown)?;
        check_role(entry, role, file.role)?;
        self.file(place, file, start)
    }

    fn file(&mut self, place: &Place, file: File, start: Resources) -> Result<Resources> {
        interrupt::check()?;
        if let Some(reporter) = &self.options.reporter {
            file.notices.iter().for_each(|notice| reporter.warning(notice));
        }
        self.open.push(place.real.clone());
        let mut resources = start;
        let mut added = Vec::new();
        for field in ["resources", "bases"] {
            for entry in entries(&file, field) {
                added.extend(self.resource(place, entry)?);
            }
        }
        resources.append(added)?;
        for entry in entries(&file, "components") {
            let inner = place.folder(entry)?;
            self.check_cycle(&inner, entry)?;
            resources = self.folder(&inner, (entry, Role::Component), resources)?;
        }
        patch::apply_all(&file, place, &mut resources)?;
        replacement::apply_all(&file, place, &mut resources)?;
        self.open.pop();
        Ok(resources)
    }

    /// An entry of `resources`: a folder or a file.
    fn resource(&mut self, place: &Place, entry: &Node) -> Result<Vec<Resource>> {
        let path = place.real.join(place.relative(entry)?);
        if path.is_dir() {
            let inner = place.folder(entry)?;
            self.check_cycle(&inner, entry)?;
            return Ok(self.folder(&inner, (entry, Role::Kustomization), Resources::default())?.0);
        }
        let mut resources = from_documents(place.load(entry)?.documents)?;
        resources.iter_mut().try_for_each(|resource| settle_annotations(&mut resource.node))?;
        Ok(resources)
    }

    fn check_cycle(&self, inner: &Place, entry: &Node) -> Result<()> {
        if self.open.iter().any(|open| open.starts_with(&inner.real)) {
            let message = format!("cycle: {} is being built already", inner.shown.display());
            return Err(Diagnostic::on(entry, message)
                .hint("a folder cannot use itself, a folder around it, or one that uses it")
                .into());
        }
        if self.open.len() >= DEPTH_LIMIT {
            return Err(Diagnostic::on(entry, format!("folders use each other more than {DEPTH_LIMIT} deep")).into());
        }
        Ok(())
    }
}

fn check_role(entry: &Node, wanted: Role, found: Role) -> Result<()> {
    match (wanted, found) {
        (Role::Kustomization, Role::Component) => {
            Err(Diagnostic::on(entry, "this folder is a component").hint("list it under `components`").into())
        }
        (Role::Component, Role::Kustomization) => {
            Err(Diagnostic::on(entry, "this folder is not a component").hint("list it under `resources`").into())
        }
        _ => Ok(()),
    }
}

/// The nodes of a list field of plain texts.
fn entries<'f>(file: &'f File, field: &str) -> &'f [Node] {
    file.field(field).and_then(Node::as_sequence).unwrap_or_default()
}

impl Place {
    /// The path an entry names, checked for form only.
    fn relative(&self, entry: &Node) -> Result<PathBuf> {
        let text = entry.text().unwrap_or_default();
        let path = PathBuf::from(text);
        if text.is_empty() || text.contains('\0') {
            return Err(Diagnostic::on(entry, "expected a path").into());
        }
        if path.is_absolute() {
            return Err(Diagnostic::on(entry, format!("absolute path `{text}`"))
                .hint("name files and folders relative to this kustomization")
                .into());
        }
        let remote = ["://", "?ref=", "git::"].iter().any(|mark| text.contains(mark))
            || ["git@", "gh:", "github.com/", "github.com:"].iter().any(|start| text.starts_with(start));
        if remote && !self.real.join(&path).exists() {
            return Err(Diagnostic::on(entry, format!("remote resource `{text}`"))
                .hint("builds do not depend on what a server gives today: keep a copy in the repository")
                .into());
        }
        Ok(path)
    }

    fn folder(&self, entry: &Node) -> Result<Place> {
        let relative = self.relative(entry)?;
        let real = self.existing(entry, &relative)?;
        if !real.is_dir() {
            return Err(Diagnostic::on(entry, format!("`{}` is not a folder", relative.display())).into());
        }
        Ok(Place { real, shown: tidy(&self.shown.join(relative)), unrestricted: self.unrestricted })
    }

    /// Reads the documents of a file that an entry names, within the load restriction.
    pub fn load(&self, entry: &Node) -> Result<Loaded> {
        let relative = self.relative(entry)?;
        let real = self.existing(entry, &relative)?;
        let shown = tidy(&self.shown.join(&relative));
        if !self.unrestricted && !real.starts_with(&self.real) {
            return Err(Diagnostic::on(entry, format!("{} lies outside of this folder", shown.display()))
                .hint("files must be in or below the folder of the kustomization that names them; folders may be anywhere")
                .into());
        }
        Loader::default().file(&real, &shown.display().to_string())
    }

    fn existing(&self, entry: &Node, relative: &Path) -> Result<PathBuf> {
        let path = self.real.join(relative);
        path.canonicalize().map_err(|error| {
            let mut diagnostic = Diagnostic::on(entry, format!("`{}`: {error}", relative.display()));
            if error.kind() == std::io::ErrorKind::NotFound {
                diagnostic = Diagnostic::on(entry, format!("`{}` does not exist", relative.display()));
                let near = sibling(&path).and_then(|name| relative.with_file_name(name).to_str().map(str::to_owned));
                if let Some(near) = near {
                    diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
                }
            }
            diagnostic.into()
        })
    }
}

/// The name in the same folder that is most like a missing one.
fn sibling(path: &Path) -> Option<String> {
    let names = std::fs::read_dir(path.parent()?).ok()?;
    let mut names: Vec<String> = names.flatten().take(1000).filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str)).map(str::to_owned)
}

/// A path without `.` and, where it can be said without looking, without `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Part::CurDir => {}
            Part::ParentDir if matches!(tidy.components().next_back(), Some(Part::Normal(_))) => {
                tidy.pop();
            }
            part => tidy.push(part),
        }
    }
    if tidy.as_os_str().is_empty() { PathBuf::from(".") } else { tidy }
}
