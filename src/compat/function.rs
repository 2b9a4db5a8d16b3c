//! Rendering the release function and, where there is one, the role of the bundle's name.
//!
//! Owns: finding the `functions` folder and the generated kustomization that stacks the two.

use std::path::{Component, Path, PathBuf};

use super::variables::internal;
use crate::api::Release;
use crate::document::Node;
use crate::error::{Context, Result};
use crate::kustomize;

/// The `functions/images` that belongs to a workdir: of the nearest folder above it that has one, else of the nearest
/// above the current folder (a workdir outside of the repository).
pub(super) fn functions_folder(workdir: &Path, release: &Release) -> Result<PathBuf> {
    for start in [workdir, Path::new(".")] {
        let start = start.canonicalize().with_context(|| format!("opening {}", start.display()))?;
        let images = start.ancestors().map(|folder| folder.join("functions/images"));
        if let Some(found) = images.into_iter().find(|images| images.join(release.function).is_dir()) {
            return Ok(found);
        }
    }
    Err(internal(format!("no folder above {} has `functions/images/{}`", workdir.display(), release.function))
        .hint("run this in a clone of the repository, or keep the workdir inside one"))
}

/// Release and role, without the copy into the AirshipImage.
pub(super) fn render(images: &Path, release: &Release, bundle: &str) -> Result<Vec<Node>> {
    let folder = images.join(release.function);
    let role = images.join(bundle);
    if !role.join("kustomization.yaml").is_file() {
        return kustomize::build(&folder, &kustomize::Options::default());
    }
    let overlay = tempfile::tempdir().context("making a folder for the generated kustomization")?;
    let place = overlay.path().canonicalize().context("opening the folder of the generated kustomization")?;
    let quote = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    let text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - {}\ncomponents:\n  - {}\n",
        quote(&relative(&place, &folder)),
        quote(&relative(&place, &role)),
    );
    std::fs::write(place.join("kustomization.yaml"), text).context("writing the generated kustomization")?;
    kustomize::build(&place, &kustomize::Options::default())
}

/// The way from one absolute folder to another; kustomizations refuse absolute ones.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let from: Vec<Component> = from.components().collect();
    let to: Vec<Component> = to.components().collect();
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[common..].iter().map(|_| Component::ParentDir);
    up.chain(to[common..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths() {
        assert_eq!(relative(Path::new("/tmp/x"), Path::new("/srv/a/b")), Path::new("../../srv/a/b"));
        assert_eq!(relative(Path::new("/srv/a"), Path::new("/srv/a/b")), Path::new("b"));
    }
}
