//! An earlier state of a folder, from the git repository it lies in.
//!
//! Owns: [`Revision`] and [`Shown`]. The revision is written into a temporary folder with an index of its own: the user's
//! work tree, index and hooks are left alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::{Context, Error, Kind, Result};

/// A revision in a folder of its own.
pub struct Revision {
    _scratch: tempfile::TempDir,
    /// What the repository held.
    pub base: PathBuf,
    /// What DIR held, if it was there.
    pub folder: Option<PathBuf>,
    /// The repository as it is now.
    pub top: PathBuf,
    /// The commit, in full.
    pub commit: String,
    /// The repository as the user would write it, to be put before names.
    prefix: String,
}

impl Revision {
    /// Reads the repository around `dir` at a revision.
    pub fn read(dir: &Path, revision: &str) -> Result<Revision> {
        let real = dir.canonicalize().map_err(|error| Error::new(Kind::Usage, error.to_string()));
        let real = real.with_context(|| format!("opening {}", dir.display()))?;
        let top = PathBuf::from(git(&real, &["rev-parse", "--show-toplevel"], None)?);
        let commit = format!("{revision}^{{commit}}");
        let commit =
            git(&real, &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit], None).map_err(|_| {
                Error::new(Kind::Usage, format!("the repository of {} has no revision `{revision}`", dir.display()))
                    .hint("name a branch, a tag or a commit; in CI, fetch enough history")
            })?;
        let scratch = tempfile::tempdir().context("making a temporary folder")?;
        let base = scratch.path().join("tree");
        std::fs::create_dir(&base).with_context(|| format!("making {}", base.display()))?;
        let index = scratch.path().join("index");
        git(&top, &["read-tree", &commit], Some(&index))?;
        let prefix = format!("--prefix={}/", base.display());
        git(&top, &["checkout-index", "--all", "--force", "--quiet", &prefix], Some(&index))?;
        let inside = real.strip_prefix(&top).unwrap_or(Path::new(""));
        let folder = Some(base.join(inside)).filter(|folder| folder.is_dir());
        let prefix = above(dir, inside).unwrap_or_else(|| top.clone()).display().to_string();
        Ok(Revision { _scratch: scratch, base, folder, top, commit, prefix })
    }

    /// How places in it are shown: as the same files are called now.
    pub fn shown(&self) -> Shown {
        let from = format!("{}/", self.base.display());
        let to = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        Shown { replaced: Some((from, to)) }
    }
}

/// What is left of `dir` when `inside` is taken from its end.
fn above(dir: &Path, inside: &Path) -> Option<PathBuf> {
    if inside.as_os_str().is_empty() {
        return Some(if dir == Path::new(".") { PathBuf::new() } else { dir.to_owned() });
    }
    dir.ends_with(inside).then(|| dir.ancestors().nth(inside.components().count()).map(Path::to_owned)).flatten()
}

/// Names of files in a temporary folder as the user knows them.
#[derive(Debug, Default)]
pub struct Shown {
    replaced: Option<(String, String)>,
}

impl Shown {
    pub fn text(&self, text: &str) -> String {
        match &self.replaced {
            Some((from, to)) => text.replace(from.as_str(), to),
            None => text.to_owned(),
        }
    }

    /// The same for every text of a value.
    pub fn json(&self, mut value: Value) -> Value {
        self.within(&mut value);
        value
    }

    fn within(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.within(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.within(field)),
            _ => {}
        }
    }
}

/// Runs git and returns what it prints.
fn git(folder: &Path, arguments: &[&str], index: Option<&Path>) -> Result<String> {
    let mut command = Command::new("git");
    // No hook, no monitor and nobody to ask; a sparse work tree is still a whole revision.
    let settings = ["core.hooksPath=/dev/null", "core.fsmonitor=false", "core.sparseCheckout=false"];
    for setting in settings {
        command.args(["-c", setting]);
    }
    command.arg("-C").arg(folder).args(arguments).stdin(std::process::Stdio::null());
    // Of a hook that runs us: they would lead to another repository.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_PREFIX", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0").env("GIT_LFS_SKIP_SMUDGE", "1");
    command.env("LC_ALL", "C");
    if let Some(index) = index {
        command.env("GIT_INDEX_FILE", index);
    }
    let output = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(Kind::Usage, "git is not installed").hint("`--since` reads revisions with it")
        }
        _ => Error::build(error.to_string()).add_context("running git"),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it does not say why").trim_start_matches("fatal: ").to_owned();
        return Err(Error::new(Kind::Usage, said).add_context(format!("asking git about {}", folder.display())));
    }
    let text = String::from_utf8(output.stdout).map_err(|_| Error::build("git printed what is not UTF-8"))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_short_as_the_users() {
        let above = |dir: &str, inside: &str| super::above(Path::new(dir), Path::new(inside));
        assert_eq!(above("sites/a", "sites/a"), Some("".into()));
        assert_eq!(above("../repo/sites/a", "sites/a"), Some("../repo".into()));
        assert_eq!(above("a", "sites/a"), None);
        assert_eq!(above(".", ""), Some("".into()));
        let shown = Shown { replaced: Some(("/tmp/x/".into(), String::new())) };
        assert_eq!(shown.json(serde_json::json!([{"a": "/tmp/x/b:1:2"}])), serde_json::json!([{"a": "b:1:2"}]));
    }
}
