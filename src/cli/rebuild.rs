//! `rebuild`: an image from itself.
//!
//! Owns: reading the definition out of an image and the secrets out of a folder, which file the result is compared with,
//! and the verdict. What is built, and how, is the room `build`'s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::inspect::{no_meta, read_meta};
use super::{Globals, build, output};
use crate::build::prepare::Locking;
use crate::build::reseed::Base;
use crate::error::{Context, Error, Kind, Result};
use crate::format::disk::sums::Digests;
use crate::inspect::difference;
use crate::inspect::disk::qcow2;
use crate::inspect::image::{Container, Image};
use crate::inspect::unpack::Packing;
use crate::package::lock::places;
use crate::plan::meta;
use crate::plan::rebuild::{Definition, definition};

/// Build an image again from what it says about itself, and compare
///
/// Takes documents and lock from `/etc/imagebuilder/meta` of the image, fetches exactly the packages that the lock names
/// (from the store, else from the repositories of the documents, found by digest), and builds the same kind of image
/// file; the seed of an ISO is that of the image. With `--check` the result is compared with the image, byte by byte, and thrown away: `identical`, or the first
/// path or structure that differs, with exit code 8. Without it the result is left in the output folder.
///
/// Secrets (password hashes, contents of private files) are not in the image. They are given again in a folder: one file
/// each, named by its place below `params`, as `imagebuilder inspect` lists it behind `left out`; a slash inside a name
/// is written `~1`. The file holds the value; one line break at the end of a password does not count.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder rebuild --check out/control-plane.qcow2
  imagebuilder rebuild --check node.qcow2 --secrets secrets      secrets/users/ops/password, secrets/files/~1etc~1key/file_content
  imagebuilder rebuild node.qcow2 --output-dir again")]
pub struct Args {
    /// The image file: qcow2, raw, vmdk, vhd, iso or tar
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// Only say whether the result is the same, byte for byte
    #[arg(long)]
    pub check: bool,
    /// Folder with the values that the image left out
    #[arg(long, value_name = "DIR")]
    pub secrets: Option<PathBuf>,
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    let cache = globals.cache_dir()?;
    let Definition { intent, mut lock } = read(args)?;
    // No thread may run before this.
    let entered =
        globals.enter_sandbox().map_err(|error| error.hint("`imagebuilder doctor` says what this machine lacks"))?;
    let environment = build::environment(globals, cache.clone())?;
    let reporter = environment.reporter.clone();
    entered.tell(&reporter);
    places::find(&mut lock, &intent.package_request(), &environment)?;
    std::fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    let scratch = tempfile::Builder::new()
        .prefix("rebuild-")
        .tempdir_in(&cache)
        .with_context(|| format!("making a folder in {}", cache.display()))?;
    let options = crate::build::Options {
        environment,
        // The lock says it.
        epoch: None,
        locking: Locking::Given(Box::new(lock)),
        output_folder: Some(if args.check { scratch.path().to_owned() } else { globals.output_dir() }),
        sandbox: entered.sandbox.as_ref(),
        work_folder: globals.work_dir(&cache),
        verify: false,
        plain_scripts: false,
        digests: Digests::BOTH,
    };
    let built = crate::build::run(std::slice::from_ref(&intent), &options)?.into_iter().next().transpose()?;
    if let Some(size) = globals.cache_size() {
        crate::build::cache::prune::keep_below(&options.environment.cache, size, &reporter)?;
    }
    let file = built.as_ref().and_then(|built| built.files.first());
    let file = file.ok_or_else(|| Error::build("the build gave no image file"))?;
    if !args.check {
        return output::print(&format!("{}\n", file.display()));
    }
    let step = reporter.step("compare");
    let found = difference(&args.image, file)?;
    drop(step);
    match found {
        None => output::print("identical\n"),
        Some(first) => {
            Err(Error::new(Kind::Checks, format!("the image is not what it says: first difference in {first}")).hint(
                "`imagebuilder rebuild IMAGE` without `--check` keeps the result, `imagebuilder diff image` shows all",
            ))
        }
    }
}

fn read(args: &Args) -> Result<Definition> {
    let image = Image::open(&args.image)?;
    let within = || format!("reading image {}", args.image.display());
    let listing = image.mounted().with_context(within)?.listing;
    let parsed = read_meta(&listing).with_context(within)?.ok_or_else(|| no_meta(&args.image))?;
    let secrets = match &args.secrets {
        Some(folder) => secrets(folder, &parsed)?,
        None => BTreeMap::new(),
    };
    let rebuilding = || format!("rebuilding {}", args.image.display());
    let mut definition = definition(&parsed, &secrets, &product(&image)?).with_context(rebuilding)?;
    if let Some(source) = &mut definition.intent.seed {
        source.take(Base::open(&args.image)?.seed()?);
    }
    Ok(definition)
}

/// The file that the image lies in, as the `spec` of an ImageConfiguration asks for it.
fn product(image: &Image) -> Result<Value> {
    Ok(match &image.container {
        Container::Raw => json!({"image": {"type": "raw"}}),
        Container::Qcow2(qcow2) => {
            // Clusters of zstd are announced in the header, those of deflate are not.
            let builder = match (qcow2.packing, qcow2.has_compressed()?) {
                (qcow2::Packing::Zstd, _) => json!({"compression": "zstd"}),
                (qcow2::Packing::Deflate, true) => json!({"compression": "zlib"}),
                (qcow2::Packing::Deflate, false) => json!({"qcow_compress": false}),
            };
            json!({"image": {"type": "qcow"}, "params": {"qcowbuilder": builder}})
        }
        Container::Vmdk(_) => json!({"image": {"type": "vmdk"}}),
        Container::Iso => {
            let (compression, level) =
                image.squashfs().ok_or_else(|| Error::build("the ISO is no live system: it has no squashfs"))?;
            let mut builder = json!({"compression": compression});
            if let Some(level) = level {
                builder["compressionLevel"] = level.into();
            }
            json!({"image": {"type": "iso"}, "params": {"isobuilder": builder}})
        }
        Container::Vhd(vhd) => {
            let subformat = if vhd.blocks.is_some() { "dynamic" } else { "fixed" };
            json!({"image": {"type": "vhd"}, "params": {"vhdbuilder": {"subformat": subformat}}})
        }
        Container::Tar(packing) => {
            let compression = match packing {
                Packing::None => "none",
                Packing::Gzip => "gzip",
                Packing::Zstd => "zstd",
            };
            json!({"image": {"type": "tar"}, "params": {"tarbuilder": {"compression": compression}}})
        }
    })
}

/// Each secret that the image asks for, where the folder has it.
fn secrets(folder: &Path, parsed: &meta::Parsed) -> Result<BTreeMap<String, String>> {
    let mut secrets = BTreeMap::new();
    if !folder.is_dir() {
        return Err(Error::new(Kind::Usage, format!("{} is not a folder", folder.display())));
    }
    for pointer in &parsed.redacted {
        let Some(relative) = crate::tree::TreePath::new(pointer) else { continue };
        let path = folder.join(relative.to_host());
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            read => read.with_context(|| format!("reading secret {}", path.display()))?,
        };
        // Contents of files are taken as they are; of all else an editor's line break at the end is no part.
        let exact = ["/files/", "/systemd/", "/cloudInit/", "/kubernetes/containerd/"];
        let value = if exact.iter().any(|area| pointer.starts_with(area)) && !pointer.ends_with("base64") {
            text.as_str()
        } else {
            text.strip_suffix('\n').unwrap_or(&text)
        };
        secrets.insert(pointer.clone(), value.to_owned());
    }
    Ok(secrets)
}
