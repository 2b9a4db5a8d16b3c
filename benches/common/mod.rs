//! What the benchmarks of file systems have in common: the largest Tree of a cache, and processes with their time.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use imagebuilder::error::{Context, Error, Result};
use imagebuilder::tree::store::{self, Store};
use imagebuilder::tree::{Digest, Tree};

pub fn load(cache: &Path, key: Digest) -> Result<Tree> {
    Store::open(cache)?.load(key)?.ok_or_else(|| Error::build("the tree is gone from the cache"))
}

/// The Tree with the most entries.
pub fn largest(cache: &Path) -> Result<(Digest, Tree)> {
    let folder = cache.join(store::folder_name());
    let mut found: Option<(Digest, Tree)> = None;
    for file in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = file.context("reading the cache")?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some(key) = Digest::from_hex(&name).filter(|_| path.extension().is_some_and(|it| it == "tree")) else {
            continue;
        };
        let tree = load(cache, key)?;
        if found.as_ref().is_none_or(|(_, most)| tree.len() > most.len()) {
            found = Some((key, tree));
        }
    }
    found.ok_or_else(|| Error::build(format!("there is no tree in {}", folder.display())))
}

/// Seconds that a process takes, and what it prints.
pub fn timed(command: &mut Command) -> Result<(f64, String)> {
    let began = Instant::now();
    let output = command.output().with_context(|| format!("running {:?}", command.get_program()))?;
    let wall = began.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(Error::build(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok((wall, String::from_utf8_lossy(&output.stdout).into_owned()))
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
