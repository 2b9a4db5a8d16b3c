//! Everything wrong with a kustomization file that can be told without building: for when a build stopped at the first.
//!
//! Owns: [`lint`].

use std::path::{Path, PathBuf};

use super::kustomization::{File, Kustomization};
use super::place::Place;
use super::transformer::find_field;
use crate::document::{Decoder, Node};
use crate::error::{Error, Result};

/// Lists of files and folders.
const PATHS: [&str; 8] =
    ["resources", "bases", "components", "configurations", "crds", "generators", "transformers", "validators"];

/// Folders behind folders; the same bound as that of a build.
const FOLDERS: usize = 1000;

/// The mistakes in the kustomization of a folder and of all folders it uses, and the folders.
pub fn lint(dir: &Path) -> Result<(Vec<Error>, Vec<PathBuf>)> {
    let mut open = vec![Place::root(dir, false)?];
    let (mut errors, mut folders) = (Vec::new(), Vec::<PathBuf>::new());
    while let Some(place) = open.pop() {
        crate::interrupt::check()?;
        let known = folders.iter().any(|known| known.canonicalize().is_ok_and(|known| known == place.real()));
        if known || folders.len() >= FOLDERS {
            continue;
        }
        folders.push(place.shown().to_owned());
        let node = match File::node(place.real(), place.shown()) {
            Ok(Some(node)) => node,
            Ok(None) => continue,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let rules = Decoder { any_case: true, strict_text: true };
        errors.extend(rules.misfits::<Kustomization>(&node).into_iter().map(|misfit| Error::from(misfit.diagnostic)));
        references(&place, &node, &mut open, &mut errors);
    }
    Ok((errors, folders))
}

/// Follows what a kustomization names, and tells what is not there.
fn references(place: &Place, node: &Node, open: &mut Vec<Place>, errors: &mut Vec<Error>) {
    let list = |field: &str| find_field(node, field).and_then(Node::as_sequence).unwrap_or_default();
    let in_place =
        |entry: &Node| entry.text().is_none_or(|text| text.contains('\n') || text.trim_start().starts_with('{'));
    for entry in PATHS.into_iter().flat_map(list).filter(|entry| !in_place(entry) && !place.is_elsewhere(entry)) {
        match place.is_folder(entry) {
            Ok(true) => match place.folder(entry) {
                Ok(inner) => open.push(inner),
                Err(error) => errors.push(error),
            },
            Ok(false) => errors.extend(place.check_file(entry).err()),
            Err(error) => errors.push(error),
        }
    }
    let patches = list("patchesStrategicMerge").iter().filter(|entry| !in_place(entry));
    let with_path = ["patches", "patchesJson6902", "replacements"].into_iter().flat_map(list);
    for entry in patches.chain(with_path.filter_map(|entry| find_field(entry, "path"))) {
        errors.extend(place.check_file(entry).err());
    }
}
