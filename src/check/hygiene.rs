//! Checks of the finished Tree, part of every build: what an image must never carry, and that what the documents ask
//! for is really there. They look at the result only, not at how it was made.
//!
//! Owns: [`RULES`], [`run`] and [`enforce`]. Adding a check is one function and one row; `docs/reference/hygiene.md` is
//! compared with the table. May use: api, tree, error.

mod declared;
mod leftovers;
mod permissions;
mod secrets;
mod structure;
mod times;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::Severity;
use crate::api::Params;
use crate::api::params::files::FileState;
use crate::error::{Error, Kind as Failure, Result};
use crate::tree::clusters::Clusters;
use crate::tree::{Entry, Kind, Mtime, Tree, TreePath};

/// What the image was asked to be.
pub struct Declared<'a> {
    pub params: &'a Params,
    /// `SOURCE_DATE_EPOCH` of the build.
    pub epoch: Mtime,
    /// What earlier checks found in contents that take long to look into. Changes no result.
    pub known: Option<&'a Clusters>,
}

/// One thing that is wrong with an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub rule: &'static str,
    pub severity: Severity,
    /// With the path and what is wrong there.
    pub message: String,
}

/// One check.
pub struct Rule {
    pub id: &'static str,
    pub severity: Severity,
    pub description: &'static str,
    check: fn(&Image) -> Result<Vec<String>>,
}

/// All checks, by what they guard.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    [secrets::RULES, leftovers::RULES, permissions::RULES, structure::RULES, times::RULES, declared::RULES]
        .into_iter()
        .flatten()
}

/// Runs every check. `Err` means that the Tree could not be read.
pub fn run(tree: &Tree, declared: &Declared) -> Result<Vec<Finding>> {
    let image = Image::new(tree, declared)?;
    let rules: Vec<&Rule> = rules().collect();
    // Some read much: side by side, and what they find in the order of the rules.
    let check = |rule: &&Rule| -> Result<Vec<Finding>> {
        crate::interrupt::check()?;
        let found = (rule.check)(&image)?;
        Ok(found.into_iter().map(|message| Finding { rule: rule.id, severity: rule.severity, message }).collect())
    };
    // One at a time: a few take as long as all the others.
    let found = rules.par_iter().with_max_len(1).map(check).collect::<Result<Vec<_>>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// Errors become one error of kind `Checks`, the first as its message and the others as hints; warnings come back.
pub fn enforce(findings: Vec<Finding>) -> Result<Vec<Finding>> {
    const SHOWN: usize = 20;
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|one| one.severity == Severity::Error);
    let Some((first, rest)) = errors.split_first() else { return Ok(warnings) };
    let shown = |one: &Finding| format!("{} (check `{}`)", one.message, one.rule);
    let mut error = Error::new(Failure::Checks, shown(first)).add_context("checking the finished image");
    for other in rest.iter().take(SHOWN) {
        error = error.hint(format!("also: {}", shown(other)));
    }
    if rest.len() > SHOWN {
        error = error.hint(format!("and {} more", rest.len() - SHOWN));
    }
    Err(error)
}

/// What checks look at: the Tree, the documents, and the paths that the documents ask for by name.
struct Image<'a> {
    tree: &'a Tree,
    params: &'a Params,
    epoch: Mtime,
    known: Option<&'a Clusters>,
    files: BTreeSet<TreePath>,
}

impl<'a> Image<'a> {
    fn new(tree: &'a Tree, declared: &Declared<'a>) -> Result<Self> {
        let wanted = declared.params.files.iter().filter(|(_, file)| file.state != FileState::Absent);
        let files = wanted
            .filter_map(|(path, _)| TreePath::new(path))
            .map(|path| tree.resolve_parent(&path))
            .collect::<Result<_>>()?;
        let Declared { params, epoch, known } = *declared;
        Ok(Image { tree, params, epoch, known, files })
    }

    /// Whether the documents ask for this path.
    fn declares(&self, path: &TreePath) -> bool {
        self.files.contains(path)
    }

    /// Everything below a folder that is no folder itself and not declared.
    fn files_below(&self, folder: &'static str) -> Result<Vec<(&'a TreePath, &'a Entry)>> {
        let folder = self.tree.resolve(&TreePath::literal(folder))?;
        let all = self.tree.iter().filter(|(path, _)| path.is_below(&folder));
        Ok(all.filter(|(path, entry)| !matches!(entry.kind, Kind::Directory) && !self.declares(path)).collect())
    }

    fn resolved(&self, path: &'static str) -> Result<(TreePath, Option<&'a Entry>)> {
        let at = self.tree.resolve_parent(&TreePath::literal(path))?;
        let entry = self.tree.get(&at);
        Ok((at, entry))
    }

    fn exists(&self, path: &str) -> Result<bool> {
        let Some(path) = TreePath::new(path) else { return Ok(false) };
        Ok(self.tree.contains(&self.tree.resolve(&path)?))
    }

    /// The lines of a text file; none if it is missing.
    fn lines(&self, path: &str) -> Result<Vec<String>> {
        let Some(path) = TreePath::new(path) else { return Ok(Vec::new()) };
        let bytes = self.tree.read_file(&path)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    }

    /// The rows of an account file.
    fn rows(&self, path: &str, fields: usize) -> Result<Vec<Vec<String>>> {
        let rows = self.lines(path)?.into_iter().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
        Ok(rows.filter(|row| row.len() >= fields).collect())
    }
}
