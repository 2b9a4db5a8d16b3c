//! The upstream image-builder's variable files as an overlay on our own functions.
//!
//! Owns: the folder layout that `make cut_image` reads (`rootfs/*-vars.yaml`, `qcow-bundle/<name>/*-vars.yaml`,
//! `scripts/`), what each variable means in a NodeProfile ([`multistrap`], [`osconfig`], [`qcow`]: one table each),
//! and nothing else: the result is rendered documents like those of any entry point ([`documents`]), whose values
//! stand where the variable files say. Override rules are upstream's: a key replaces the setting as a whole, a key of
//! a later file replaces that of an earlier one, `_append` keys add.
//! May use api, kustomize, document.

pub mod container;
mod function;
mod livecd;
mod multistrap;
mod osconfig;
mod overlay;
mod qcow;
#[cfg(test)]
mod tests;
mod variables;

use std::path::{Path, PathBuf};

use self::overlay::Overlay;
use self::variables::Variables;
use crate::api::Release;
use crate::api::release::RELEASES;
use crate::document::{Node, Origin, suggestion};
use crate::error::{Context, Error, Kind, Result};

/// The folder below a workdir that holds one folder per image.
pub const BUNDLE: &str = "qcow-bundle";

/// The folder of a workdir with the data of the ephemeral node's ISO.
pub const ISO: &str = "iso";
/// The image of the ISO, and the role that makes it a live system.
const EPHEMERAL: &str = "ephemeral";

/// Every variable: the file it is given in, its name, and what becomes of it.
pub fn reference() -> Vec<(&'static str, &'static str, &'static str)> {
    let tables = [
        ("multistrap-vars.yaml", multistrap::TABLE),
        ("osconfig-vars.yaml", osconfig::TABLE),
        ("qcow-vars.yaml", qcow::TABLE),
        ("livecdcontent-vars.yaml", livecd::TABLE),
    ];
    let rows = |(file, table): (&'static str, variables::Table)| {
        table.iter().map(move |variable| (file, variable.name, variable.becomes))
    };
    tables.into_iter().flat_map(rows).collect()
}

/// The images of a workdir, by name: one per folder of `qcow-bundle`.
pub fn bundles(workdir: &Path) -> Result<Vec<String>> {
    let folder = workdir.join(BUNDLE);
    let context = || format!("listing {}", folder.display());
    if !folder.is_dir() {
        return Err(Error::new(Kind::Usage, format!("no images to build: there is no folder {}", folder.display()))
            .hint(format!(
                "name the folder that holds `{BUNDLE}/` and `rootfs/`, such as `config` (make: `WORKDIR=`)"
            )));
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        // Through symbolic links: upstream's folders may be links.
        if entry.path().is_dir() {
            let name = entry.file_name().into_string();
            names.push(name.map_err(|name| Error::documents(format!("{name:?} is not a name for an image")))?);
        }
    }
    names.sort();
    if names.is_empty() {
        return Err(Error::documents(format!("no image to build: {} has no folder in it", folder.display()))
            .hint(format!("make one folder per image, for example `{BUNDLE}/control-plane`")));
    }
    Ok(names)
}

/// The release that a value of `DISTRO` names.
pub fn release(distro: &str) -> Result<&'static Release> {
    Release::by_distro(distro).ok_or_else(|| {
        let names = RELEASES.map(|release| release.distro);
        let error = Error::new(Kind::Usage, format!("unknown distribution `{distro}`"));
        match suggestion(distro, "values of `DISTRO`", &names) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

/// The documents of one image: release function, role where there is one of that name, and the variables on top.
pub fn documents(workdir: &Path, bundle: &str, distro: &str) -> Result<Vec<Node>> {
    let folder = bundle_folder(workdir, bundle)?;
    let mut variables = common(workdir, true)?;
    variables.add(&folder.join("osconfig-vars.yaml"), osconfig::TABLE)?;
    variables.add(&folder.join("qcow-vars.yaml"), qcow::TABLE)?;
    overlaid(workdir, bundle, release(distro)?, &variables)?.finish()
}

/// Variables of one image that come from elsewhere, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    pub osconfig: Option<String>,
    pub qcow: Option<String>,
    /// Whether `rootfs/osconfig-vars.yaml` of the workdir counts no more.
    pub replaces_osconfig: bool,
}

/// The same for an image without a folder of its own in the workdir.
pub fn documents_of_texts(workdir: &Path, image: &str, distro: &str, texts: &Texts, file: &str) -> Result<Vec<Node>> {
    let mut variables = common(workdir, !texts.replaces_osconfig)?;
    variables.add_text("osconfig variables", texts.osconfig.as_deref(), osconfig::TABLE)?;
    variables.add_text("qcow variables", texts.qcow.as_deref(), qcow::TABLE)?;
    let mut overlay = overlaid(workdir, image, release(distro)?, &variables)?;
    overlay.set_output_file_name(Node::string(file, Origin::built("output file name")));
    overlay.finish()
}

/// What all images of a workdir share.
fn common(workdir: &Path, osconfig: bool) -> Result<Variables> {
    refuse_scripts(workdir)?;
    let rootfs = workdir.join("rootfs");
    let mut variables = Variables::default();
    variables.add(&rootfs.join("multistrap-vars.yaml"), multistrap::TABLE)?;
    if osconfig {
        variables.add(&rootfs.join("osconfig-vars.yaml"), osconfig::TABLE)?;
    }
    Ok(variables)
}

fn overlaid(workdir: &Path, image: &str, release: &Release, variables: &Variables) -> Result<Overlay> {
    let functions = function::functions_folder(workdir, release)?;
    let mut overlay = Overlay::new(function::render(&functions, release, image)?, image)?;
    for table in [multistrap::TABLE, osconfig::TABLE, qcow::TABLE] {
        variables.apply(table, &mut overlay)?;
    }
    Ok(overlay)
}

/// The documents of the ephemeral node's ISO: release and role `ephemeral`, the variables of every image and those of the
/// ISO on top; user data and network data are the files of `<workdir>/iso`.
pub fn iso_documents(workdir: &Path, distro: &str) -> Result<Vec<Node>> {
    iso_overlay(workdir, distro, &Texts::default())?.finish()
}

/// The same with variables that come as text. `file` is the name of the ISO.
pub fn iso_documents_of_texts(workdir: &Path, distro: &str, texts: &Texts, file: &str) -> Result<Vec<Node>> {
    let mut overlay = iso_overlay(workdir, distro, texts)?;
    overlay.set_output_file_name(Node::string(file, Origin::built("output file name")));
    overlay.finish()
}

fn iso_overlay(workdir: &Path, distro: &str, texts: &Texts) -> Result<Overlay> {
    let release = release(distro)?;
    let mut variables = common(workdir, !texts.replaces_osconfig)?;
    variables.add_text("osconfig variables", texts.osconfig.as_deref(), osconfig::TABLE)?;
    variables.add(&workdir.join("rootfs/livecdcontent-vars.yaml"), livecd::TABLE)?;
    let functions = function::functions_folder(workdir, release)?;
    let rendered = function::render(&functions, release, EPHEMERAL)?;
    let mut overlay = Overlay::new_iso(rendered, EPHEMERAL)?;
    for table in [multistrap::TABLE, osconfig::TABLE, livecd::TABLE] {
        variables.apply(table, &mut overlay)?;
    }
    Ok(overlay)
}

fn bundle_folder(workdir: &Path, bundle: &str) -> Result<PathBuf> {
    let names = bundles(workdir)?;
    if names.iter().any(|name| name == bundle) {
        return Ok(workdir.join(BUNDLE).join(bundle));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let error = Error::new(Kind::Usage, format!("no image is called `{bundle}`"));
    Err(match suggestion(bundle, "images here", &names) {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

/// User scripts have an issue of their own; until then silence about one would be a lie.
fn refuse_scripts(workdir: &Path) -> Result<()> {
    for context in ["common", "qcow"] {
        let folder = workdir.join("scripts").join(context);
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let reading = || format!("listing {}", folder.display());
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.with_context(reading)?.file_name());
        }
        names.sort();
        if let Some(name) = names.iter().find(|name| *name != "README.md") {
            return Err(Error::documents(format!("script {} cannot be run yet", folder.join(name).display()))
                .hint("write what it does as packages, files, units or settings"));
        }
    }
    Ok(())
}
