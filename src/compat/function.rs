//! Rendering the release function and, where there is one, the role of the bundle's name.
//!
//! Owns: finding the `functions` folder and the generated kustomization that stacks the two.

use std::path::{Path, PathBuf};

use super::variables::internal;
use crate::api::Release;
use crate::document::Node;
use crate::error::{Context, Result};
use crate::kustomize;

const IMAGES: &str = "functions/images";

/// The `functions/images` that belongs to a workdir: of the nearest folder above it that has one, else of the nearest
/// above the current folder (a workdir outside of the repository).
pub(super) fn functions_folder(workdir: &Path, release: &Release) -> Result<PathBuf> {
    // Names as short as the caller's own come first: messages and the table of origins show them.
    for start in [workdir, Path::new("")] {
        let short = start.ancestors().map(|folder| folder.join(IMAGES));
        let real = if start.as_os_str().is_empty() { Path::new(".") } else { start };
        let real = real.canonicalize().with_context(|| format!("opening {}", real.display()))?;
        let long = real.ancestors().map(|folder| folder.join(IMAGES));
        let found = short.chain(long).find(|images| images.join(release.function).is_dir());
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(internal(format!("no folder above {} has `{IMAGES}/{}`", workdir.display(), release.function))
        .hint("run this in a clone of the repository, or keep the workdir inside one"))
}

/// Release and role, without the copy into the AirshipImage.
pub(super) fn render(images: &Path, release: &Release, bundle: &str) -> Result<Vec<Node>> {
    let options = kustomize::Options::default();
    if !images.join(bundle).join("kustomization.yaml").is_file() {
        return kustomize::build(&images.join(release.function), &options);
    }
    let quoted = serde_json::Value::from(bundle);
    let text = format!("resources: [{}]\ncomponents: [{quoted}]\n", release.function);
    kustomize::build_generated(images, &text, &options)
}
