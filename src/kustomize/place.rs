//! Where the files and folders that a kustomization names may lie.
//!
//! Owns: [`Place`]: paths made sense of, load restrictions, remote addresses refused, files read.

use std::path::{Component as Part, Path, PathBuf};

use super::remote::{is_remote, refusal};
use crate::document::{Diagnostic, Loaded, Loader, Node, nearest, read_limited};
use crate::error::{Context, Error, Result};

/// A folder and the name it is shown under.
#[derive(Debug, Clone)]
pub struct Place {
    real: PathBuf,
    shown: PathBuf,
    /// The way here from the folder that is built.
    trail: PathBuf,
    unrestricted: bool,
}

impl Place {
    /// The folder that is built.
    pub fn root(dir: &Path, unrestricted: bool) -> Result<Place> {
        let real = dir.canonicalize().map_err(|error| Error::documents(error.to_string()));
        let real = real.with_context(|| format!("opening {}", dir.display()))?;
        if !real.is_dir() {
            return Err(Error::documents(format!("{} is not a folder", dir.display()))
                .hint("give the folder that holds the kustomization file"));
        }
        Ok(Place { real, shown: tidy(dir), trail: PathBuf::new(), unrestricted })
    }

    pub fn real(&self) -> &Path {
        &self.real
    }

    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The folder as it is shown, which names the overlay.
    pub fn name(&self) -> String {
        self.shown.display().to_string()
    }

    /// The way from the folder that is built to a file of this one.
    pub fn trail(&self, file: &str) -> String {
        tidy(&self.trail.join(file)).display().to_string()
    }

    /// Whether an entry names something elsewhere, and nothing here.
    pub fn is_elsewhere(&self, entry: &Node) -> bool {
        entry.text().is_some_and(|text| is_remote(text) && !self.real.join(text).exists())
    }

    pub fn is_folder(&self, entry: &Node) -> Result<bool> {
        Ok(self.real.join(self.relative(entry, entry.text().unwrap_or_default())?).is_dir())
    }

    /// The path an entry names, checked for form only.
    fn relative(&self, entry: &Node, text: &str) -> Result<PathBuf> {
        let path = PathBuf::from(text);
        if text.is_empty() || text.contains('\0') {
            return Err(Diagnostic::on(entry, "expected a path").into());
        }
        // An absolute path to a file that may be read is as good as a relative one.
        if path.is_absolute() && !(path.is_file() && (self.unrestricted || path.starts_with(&self.real))) {
            return Err(Diagnostic::on(entry, format!("absolute path `{text}`"))
                .hint("name files and folders relative to this kustomization")
                .into());
        }
        if is_remote(text) && !self.real.join(&path).exists() {
            return Err(refusal(entry, text));
        }
        Ok(path)
    }

    pub fn folder(&self, entry: &Node) -> Result<Place> {
        let relative = self.relative(entry, entry.text().unwrap_or_default())?;
        let real = self.existing(entry, &relative)?;
        if !real.is_dir() {
            return Err(Diagnostic::on(entry, format!("`{}` is not a folder", relative.display())).into());
        }
        let (shown, trail) = (tidy(&self.shown.join(&relative)), tidy(&self.trail.join(&relative)));
        Ok(Place { real, shown, trail, unrestricted: self.unrestricted })
    }

    /// Reads the documents of a file that an entry names, within the load restriction.
    pub fn load(&self, entry: &Node) -> Result<Loaded> {
        let (real, shown) = self.file(entry, entry.text().unwrap_or_default())?;
        Loader::default().file_of(Some(&self.name()), &real, &shown)
    }

    /// Reads a file as it is; `path` is what an entry says, or a part of it. Returns the name to show it under, too.
    pub fn read(&self, entry: &Node, path: &str) -> Result<(Vec<u8>, String)> {
        let (real, shown) = self.file(entry, path)?;
        let bytes = read_limited(&real).with_context(|| format!("reading {shown}"))?;
        Ok((bytes, shown))
    }

    /// Whether a file that an entry names is there and may be read.
    pub fn check_file(&self, entry: &Node) -> Result<()> {
        self.file(entry, entry.text().unwrap_or_default()).map(drop)
    }

    fn file(&self, entry: &Node, path: &str) -> Result<(PathBuf, String)> {
        let relative = self.relative(entry, path)?;
        let real = self.existing(entry, &relative)?;
        let shown = tidy(&self.shown.join(&relative));
        if !self.unrestricted && !real.starts_with(&self.real) {
            return Err(Diagnostic::on(entry, format!("{} lies outside of this folder", shown.display()))
                .hint("files must be in or below the folder of the kustomization that names them; folders may be anywhere")
                .into());
        }
        Ok((real, shown.display().to_string()))
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
