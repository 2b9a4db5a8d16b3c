//! The builder's image, made by this program itself: where no registry can be reached, or nobody wants to pull.
//!
//! Owns: [`Base`], [`Recipe`], [`archive`], and [`shell`] for images that need one. The image holds this very program and
//! what it is linked to, and a shell, from packages of a signed archive; no script of a package runs, so anybody can make
//! one, in seconds. The same program, packages and labels give the same bytes. `Dockerfile.ubuntu` makes the same image on
//! a base that is pulled.

mod program;
mod root;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::docker::image::{PROGRAM, PROGRAM_LABEL, VERSION_LABEL};
use crate::error::{Context, Error, Result};
use crate::format::oci::{Config, Layout};
use crate::format::tar::Compression;
use crate::package::Environment;
use crate::tree::{Meta, Mtime, Origin, Tree, TreePath};

/// Whose packages the image is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Base {
    #[default]
    Ubuntu,
    Debian,
}

impl Base {
    pub const ALL: [Base; 2] = [Base::Ubuntu, Base::Debian];

    /// The release, as `DISTRO` names it; new enough for programs linked on any supported host.
    pub fn release(self) -> &'static str {
        match self {
            Base::Ubuntu => "ubuntu_noble",
            Base::Debian => "debian_trixie",
        }
    }

    /// The function that says where its packages are.
    fn documents(self) -> &'static str {
        match self {
            Base::Ubuntu => include_str!("../../../functions/images/ubuntu-noble/distribution.yaml"),
            Base::Debian => include_str!("../../../functions/images/debian-trixie/distribution.yaml"),
        }
    }
}

/// What goes into an image beside the packages.
pub struct Recipe<'a> {
    pub base: Base,
    /// The name it is loaded under.
    pub reference: &'a str,
    pub labels: BTreeMap<String, String>,
    /// `functions/` of the repository, for containers that are given variable files only.
    pub functions: Option<PathBuf>,
}

/// Where containers start, and find `functions/`.
const HOME: &str = "/usr/share/imagebuilder";
/// Upstream's entry (its path is spelled that way there, too): the program under a name that it knows.
const ENTRY: &str = "/usr/bin/local/entrypoint.sh";
/// Where containers look for programs.
pub const SEARCHED: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the image as `docker load` takes it.
pub fn archive(recipe: &Recipe<'_>, environment: &Environment) -> Result<Vec<u8>> {
    let own = std::env::current_exe().context("finding this program")?;
    let program = std::fs::read(&own).with_context(|| format!("reading {}", own.display()))?;
    let step = environment.reporter.step("make the builder's image");
    let (mut tree, time) = root::builder(recipe.base, environment).context("making the builder's root file system")?;
    add_program(&mut tree, &program, time)?;
    if let Some(functions) = &recipe.functions {
        let below = TreePath::literal(HOME.trim_start_matches('/')).join(b"functions");
        add_folder(&mut tree, functions, &below, time, 0)?;
    }
    let config = Config {
        created: time.seconds,
        entrypoint: vec![ENTRY.into()],
        environment: vec![SEARCHED.into()],
        labels: labels(recipe, &program),
        working_folder: HOME.into(),
        ..Config::default()
    };
    let folder = tempfile::tempdir().context("making a folder for the image")?;
    let layout = Layout::create(folder.path())?;
    let layer = layout.add_layer(&tree, Compression::None, &|_| ())?;
    layout.add_image(&config, &[layer], &[recipe.reference.to_owned()])?;
    let mut archive = Vec::new();
    layout.archive(&mut archive)?;
    step.finish(crate::report::words::bytes(archive.len() as u64));
    Ok(archive)
}

/// The least that `sh -c "cp ..."` needs, as files of an image, and how old it is.
pub fn shell(base: Base, environment: &Environment) -> Result<(Tree, i64)> {
    let (tree, time) = root::shell(base, environment).context("making a shell")?;
    Ok((tree, time.seconds))
}

/// As the label of a program has it.
pub fn digest(program: &[u8]) -> String {
    hex::encode(Sha256::digest(program))
}

fn labels(recipe: &Recipe<'_>, program: &[u8]) -> BTreeMap<String, String> {
    let mut labels = recipe.labels.clone();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let own = [
        (VERSION_LABEL, version.clone()),
        (PROGRAM_LABEL, digest(program)),
        ("org.opencontainers.image.version", version),
        ("org.opencontainers.image.title", "imagebuilder".to_owned()),
        (
            "org.opencontainers.image.description",
            "Builds operating-system images from Airship-style documents".to_owned(),
        ),
        ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE").to_owned()),
        ("org.opencontainers.image.base.name", recipe.base.release().to_owned()),
    ];
    labels.extend(own.map(|(name, value)| (name.to_owned(), value)));
    labels
}

fn add_program(tree: &mut Tree, program: &[u8], time: Mtime) -> Result<()> {
    let meta = |mode| Meta { mtime: time, ..Meta::root(mode) };
    let origin: Origin = "imagebuilder".into();
    let path = TreePath::literal(PROGRAM.trim_start_matches('/'));
    tree.write_file(&path, program::loadable(program), meta(0o755), &origin)?;
    tree.write_symlink(&TreePath::literal(ENTRY.trim_start_matches('/')), PROGRAM, time, &origin)?;
    Ok(())
}

/// Folders nested deeper are not ours.
const DEPTH: u32 = 16;

fn add_folder(tree: &mut Tree, folder: &Path, below: &TreePath, time: Mtime, depth: u32) -> Result<()> {
    let reading = || format!("reading {}", folder.display());
    if depth > DEPTH {
        return Err(Error::build("its folders are nested too deeply")).with_context(reading);
    }
    let origin: Origin = "functions".into();
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(reading)? {
        entries.push(entry.with_context(reading)?.path());
    }
    entries.sort();
    for path in entries {
        let Some(name) = path.file_name() else { continue };
        let at = below.join(name.as_encoded_bytes());
        let reading = || format!("reading {}", path.display());
        let kind = std::fs::symlink_metadata(&path).with_context(reading)?.file_type();
        if kind.is_dir() {
            add_folder(tree, &path, &at, time, depth + 1)?;
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).with_context(reading)?;
            tree.write_file(&at, bytes, Meta { mtime: time, ..Meta::root(0o644) }, &origin)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Release;

    #[test]
    fn bases_are_releases() {
        for base in Base::ALL {
            let release = Release::by_distro(base.release()).unwrap();
            assert!(base.documents().contains(&format!("release: {}\n", release.name)), "{base:?}");
        }
    }
}
