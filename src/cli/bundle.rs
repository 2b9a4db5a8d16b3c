//! `bundle`: finished images as one container image, the way upstream ships them to a cluster.
//!
//! Owns: what lies where in the bundle (`/qcows`, `/profiles`, upstream's places), its labels, and which of layout, archive
//! and registry it goes to. How a container image looks is `format::oci`'s, how it is pushed `registry`'s.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::builder::BaseName;
use super::inspect::read_meta;
use super::{Globals, build, output};
use crate::document::{load_str, to_json};
use crate::engine::builder;
use crate::error::{Context, Error, Kind, Result};
use crate::format::disk::sums::{Digests, Sums};
use crate::format::oci::{Config, Layout, OnDisk};
use crate::format::tar::Compression;
use crate::inspect::image::Image;
use crate::plan::meta;
use crate::registry::{Credentials, Reference, Registry};
use crate::tree::{Content, Digest, Entry, Kind as NodeKind, Meta, Mtime, Origin, Tree, TreePath};

/// Put finished images into a container image, as a layout, for `docker load`, or into a registry
///
/// The bundle has `/qcows/<image>` with its `.md5sum` and `.sha256`, and the profiles that lie beside the images
/// (`/profiles/profile_*.json`) or are made from what each image says about itself, as upstream's qcow-bundle. With `--base`
/// there is a shell in it, which the init container of Airship's Ironic copies the images with. It is an OCI image layout,
/// written without a container engine; the same images (and packages) give the same digest. `--archive` writes it as one
/// file for `docker load` and `podman load` as well, `--push` sends it to the registry that each tag names, with the
/// credentials of `docker login`. A registry on this machine (`localhost`, `127.0.0.1`) is spoken to without TLS.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder bundle out/*.qcow2 --base ubuntu --tag registry.example/airshipit/qcow-bundle:latest
  imagebuilder bundle out/*.qcow2 --tag qcow-bundle:latest --archive out/qcow-bundle.tar && docker load -i out/qcow-bundle.tar
  imagebuilder bundle out/*.qcow2 --tag localhost:5000/qcow-bundle:1 --push
  imagebuilder bundle --layout out/qcow-bundle.oci --tag registry.example/qcow-bundle:2 --push   push what is there")]
pub struct Args {
    /// Image files; without any, the image that the layout holds is pushed or archived
    #[arg(value_name = "IMAGE", required_unless_present_any = ["push", "archive"])]
    pub images: Vec<PathBuf>,
    /// What the bundle is called, `registry/name:tag`; can be repeated
    #[arg(long = "tag", value_name = "NAME", required = true)]
    pub tags: Vec<String>,
    /// Add a shell and the usual small programs, from a package of this distribution's archive (busybox, 2 MB)
    #[arg(long, value_enum, requires = "images")]
    pub base: Option<BaseName>,
    /// The folder that becomes the layout [default: `qcow-bundle.oci` in the output folder]
    #[arg(long, value_name = "DIR")]
    pub layout: Option<PathBuf>,
    /// Also write one file that `docker load` takes
    #[arg(long, value_name = "FILE")]
    pub archive: Option<PathBuf>,
    /// Send it to the registry of each tag
    #[arg(long)]
    pub push: bool,
    /// A label of the container image; can be repeated
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    // What is mistyped is said before anything is written.
    let references = args.tags.iter().map(|tag| Reference::parse(tag)).collect::<Result<Vec<_>>>()?;
    let labels = labels(&args.labels)?;
    let folder = args.layout.clone().unwrap_or_else(|| globals.output_dir().join("qcow-bundle.oci"));
    let layout = match args.images.is_empty() {
        true => Layout::open(&folder)?,
        false => pack(args, &folder, labels, globals)?,
    };
    let (manifest, _) = layout.image()?;
    if let Some(path) = &args.archive {
        archive(&layout, path)?;
    }
    if args.push {
        let reporter = globals.reporter();
        let files = Credentials::files(|name| std::env::var(name).ok());
        for reference in &references {
            let credentials = Credentials::find(&files, &reference.registry)?;
            Registry::new(reference, credentials).push(&layout, &reporter)?;
        }
    }
    let mut text = format!("{}  sha256:{}\n", folder.display(), manifest.digest);
    if let Some(path) = &args.archive {
        text.push_str(&format!("{}\n", path.display()));
    }
    for reference in references.iter().filter(|_| args.push) {
        text.push_str(&format!("{reference}@sha256:{}\n", manifest.digest));
    }
    output::print(&text)
}

fn labels(given: &[String]) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::from([
        ("org.opencontainers.image.title".to_owned(), "qcow-bundle".to_owned()),
        ("org.opencontainers.image.description".to_owned(), "disk images made by imagebuilder".to_owned()),
    ]);
    for label in given {
        let (name, value) = label.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
            Error::new(Kind::Usage, format!("`{label}` is not a label")).hint("a label is `NAME=VALUE`")
        })?;
        labels.insert(name.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn pack(args: &Args, folder: &Path, labels: BTreeMap<String, String>, globals: &Globals) -> Result<Layout> {
    let reporter = globals.reporter();
    let step = reporter.step("bundle");
    let (tree, mut newest) = tree(&args.images)?;
    // A bundle is as old as what is in it, which is as old as its packages: the day of the build is not in it.
    let mut config = Config { labels, working_folder: "/qcows".into(), ..Config::default() };
    let mut layers = Vec::new();
    let layout = Layout::create(folder)?;
    if let Some(base) = args.base {
        let environment = build::environment(globals, globals.cache_dir()?)?;
        let (shell, time) = builder::shell(base.into(), &environment)?;
        newest = newest.max(time);
        config.environment = vec![builder::SEARCHED.into()];
        config.command = vec!["/bin/sh".into()];
        layers.push(layout.add_layer(&shell, Compression::Gzip, &|_| ())?);
    }
    config.created = super::epoch::source_date_epoch()?.unwrap_or(newest);
    // Images are compressed already.
    layers.push(layout.add_layer(&tree, Compression::None, &|_| ())?);
    let manifest = layout.add_image(&config, &layers, &args.tags)?;
    layout.sweep()?;
    step.finish(format!("sha256:{}", manifest.digest));
    Ok(layout)
}

/// What the bundle holds, at upstream's places, and how old it is.
fn tree(images: &[PathBuf]) -> Result<(Tree, i64)> {
    let origin: Origin = Arc::from("bundle");
    let mut tree = Tree::new();
    let mut profiles: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut newest = 0;
    for image in images {
        let name = image.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let context = || format!("reading image {}", image.display());
        let file = File::open(image).with_context(context)?;
        if !file.metadata().with_context(context)?.is_file() {
            return Err(Error::new(Kind::Usage, format!("{} is not an image file", image.display())));
        }
        let sums = Sums::of(&file, Digests::BOTH).with_context(context)?;
        let (Some(sha256), Some(md5)) = (sums.sha256, sums.md5) else { continue };
        let digest = Digest::from_bytes(sha256);
        check_recorded(image, &digest.to_hex())?;
        let place =
            |suffix: &str| TreePath::new(format!("qcows/{name}{suffix}")).ok_or_else(|| Error::build("not a name"));
        let path = place("")?;
        if tree.contains(&path) {
            return Err(Error::new(Kind::Usage, format!("two images are called `{name}`")));
        }
        tree.make_directories(&TreePath::literal("qcows"), Mtime::default(), &origin)?;
        let kind = NodeKind::File(Content::elsewhere(digest, sums.size, Arc::new(OnDisk(file))));
        tree.put(&path, Entry { meta: meta(), kind, origin: origin.clone() })?;
        for (suffix, text) in [(".md5sum", hex::encode(md5)), (".sha256", digest.to_hex())] {
            tree.write_file(&place(suffix)?, format!("{text}\n").into_bytes(), meta(), &origin)?;
        }
        if let Some(meta) = meta_of(image) {
            let epoch = meta.header.get("epoch").and_then(|epoch| epoch.parse::<i64>().ok());
            newest = newest.max(epoch.unwrap_or(0));
            let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
            profiles.insert(format!("profile_qcow_{stem}.json"), profile(name, &meta)?);
        }
        profiles.extend(profiles_beside(image)?);
    }
    for (name, bytes) in profiles {
        let path = TreePath::new(format!("profiles/{name}")).ok_or_else(|| Error::build("not a name"))?;
        tree.write_file(&path, bytes, meta(), &origin)?;
    }
    Ok((tree, newest))
}

/// What an image says about itself; one that says nothing, or is none of ours, is bundled all the same.
fn meta_of(image: &Path) -> Option<meta::Parsed> {
    let image = Image::open(image).ok()?;
    let listing = image.mounted().ok()?.listing;
    read_meta(&listing).ok().flatten()
}

/// As upstream's profiles, one object; what the image was made from is in it, without secrets.
fn profile(name: &str, meta: &meta::Parsed) -> Result<Vec<u8>> {
    let documents = load_str("the image's documents", &meta.image)?;
    let image = documents.first().map(to_json).unwrap_or_default();
    let profile = json!({"img_name": name, "run_context": "qcow", "airship_image": image});
    Ok(format!("{profile:#}\n").into_bytes())
}

fn meta() -> Meta {
    Meta { mtime: Mtime::default(), ..Meta::root(0o644) }
}

/// An image that is not what its checksum says is not passed on.
fn check_recorded(image: &Path, digest: &str) -> Result<()> {
    let mut name = image.as_os_str().to_owned();
    name.push(".sha256");
    let Ok(recorded) = std::fs::read_to_string(&name) else { return Ok(()) };
    if recorded.trim() == digest {
        return Ok(());
    }
    Err(Error::new(Kind::Authenticity, format!("{} is not what {} says", image.display(), Path::new(&name).display()))
        .hint("build the image again"))
}

fn profiles_beside(image: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = image.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let listing = || format!("listing {}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("profile_") && name.ends_with(".json") && entry.path().is_file() {
            let bytes = std::fs::read(entry.path()).with_context(|| format!("reading {}", entry.path().display()))?;
            found.push((name, bytes));
        }
    }
    Ok(found)
}

/// Complete or not at all.
fn archive(layout: &Layout, path: &Path) -> Result<()> {
    let context = || format!("writing {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder).with_context(context)?;
    layout.archive(file.as_file())?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).with_context(context)?;
    file.persist(path).map_err(|error| error.error).with_context(context)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_lie_where_upstream_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("node.qcow2");
        std::fs::write(&image, "image").unwrap();
        std::fs::write(folder.path().join("profile_node.json"), "{}").unwrap();
        let (made, newest) = tree(std::slice::from_ref(&image)).unwrap();
        assert_eq!(newest, 0);
        let text =
            |path: &str| String::from_utf8(made.read_file(&TreePath::new(path).unwrap()).unwrap().unwrap()).unwrap();
        assert_eq!(text("qcows/node.qcow2"), "image");
        assert_eq!(text("qcows/node.qcow2.md5sum"), "78805a221a988e79ef3f42d7c5bfd418\n");
        assert_eq!(text("profiles/profile_node.json"), "{}");
        assert!(tree(&[image.clone(), image.clone()]).unwrap_err().to_string().contains("two images"));
        std::fs::write(folder.path().join("node.qcow2.sha256"), "00\n").unwrap();
        let error = tree(&[image]).unwrap_err();
        assert_eq!(error.kind(), Kind::Authenticity);
    }

    #[test]
    fn labels_are_pairs() {
        assert_eq!(labels(&["a=b=c".into()]).unwrap()["a"], "b=c");
        assert!(labels(&["a".into()]).is_err() && labels(&["=b".into()]).is_err());
    }
}
