//! `builder`: the container image that engine `docker` runs the builder from.
//!
//! Owns: `builder image`, which makes it, and `builder status`, which tells whether there is one that can be used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::output::{self, Format};
use super::{Globals, build, contained};
use crate::engine::builder::{self, Base, Recipe};
use crate::engine::docker::{Daemon, image};
use crate::error::{Context, Error, Kind, Result};
use crate::report::words;

/// Make the container image of the builder, and see whether it can be used
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder builder image
  imagebuilder builder image --base debian --image registry.example/airshipit/image-builder:v1
  imagebuilder builder status")]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    Image(ImageArgs),
    Status(StatusArgs),
}

/// Make the image from this program and a few packages of an archive, without a registry
///
/// It holds this program, what it is linked to, the archive's certificates, and a shell, which airshipctl starts it with.
/// Where a base image can be pulled, `Dockerfile.ubuntu` makes one, too.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder builder image                      make it and load it into the container engine
  imagebuilder builder image --base debian
  imagebuilder builder image --output image.tar   for `docker load` or `podman load` elsewhere")]
pub struct ImageArgs {
    /// The name it gets
    #[arg(long, value_name = "REFERENCE", env = "IMAGEBUILDER_IMAGE", default_value = image::DEFAULT)]
    pub image: String,
    /// Whose packages it is made of
    #[arg(long, value_enum, default_value = "ubuntu")]
    pub base: BaseName,
    /// Add a label; can be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Write it to a file instead, for `docker load`
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BaseName {
    /// Ubuntu 24.04
    Ubuntu,
    /// Debian 13
    Debian,
}

impl From<BaseName> for Base {
    fn from(name: BaseName) -> Self {
        match name {
            BaseName::Ubuntu => Base::Ubuntu,
            BaseName::Debian => Base::Debian,
        }
    }
}

/// Tell which container engine there is, and whether its builder's image can be used
///
/// The exit code is 0 if `--engine docker` would work.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder builder status
  imagebuilder builder status -o json")]
pub struct StatusArgs {
    /// The image to look at
    #[arg(long, value_name = "REFERENCE", env = "IMAGEBUILDER_IMAGE", default_value = image::DEFAULT)]
    pub image: String,
    /// Only whether a container engine answers
    #[arg(long)]
    pub engine_only: bool,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

fn label(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    match &args.verb {
        Verb::Image(args) => make(args, globals),
        Verb::Status(args) => status(args),
    }
}

fn make(args: &ImageArgs, globals: &Globals) -> Result<()> {
    // Before the work: nobody wants to hear this after it.
    let daemon = match args.output {
        Some(_) => None,
        None => Some(Daemon::connect(&contained::variables())?),
    };
    let environment = build::environment(globals, globals.cache_dir()?)?;
    let recipe = Recipe {
        base: args.base.into(),
        reference: &args.image,
        labels: args.label.iter().cloned().collect::<BTreeMap<_, _>>(),
        functions: functions()?,
    };
    let archive = builder::archive(&recipe, &environment)?;
    let size = words::bytes(archive.len() as u64);
    match (&args.output, daemon) {
        (Some(file), _) => {
            write(file, &archive).with_context(|| format!("writing {}", file.display()))?;
            output::print(&format!("{}  {size}\n", file.display()))
        }
        (None, Some(daemon)) => {
            image::load(&daemon, archive)?;
            let found = image::find(&daemon, &args.image)?;
            let found = found.ok_or_else(|| Error::build(format!("the image `{}` did not arrive", args.image)))?;
            image::check(&daemon, &args.image, &found)?;
            // Labels say what was meant; this says that it runs.
            image::asked_version(&daemon, &args.image).with_context(|| format!("trying the image `{}`", args.image))?;
            output::print(&format!("{}  {size}\n", args.image))
        }
        (None, None) => Err(Error::new(Kind::Usage, "neither a file nor a container engine to put the image in")),
    }
}

/// Complete or not at all.
fn write(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut made = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut made, bytes)?;
    made.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// `functions/` of the repository we are in.
fn functions() -> Result<Option<PathBuf>> {
    let here = std::env::current_dir().context("finding the current folder")?;
    Ok(here.ancestors().map(|folder| folder.join("functions")).find(|folder| folder.join("images").is_dir()))
}

/// Whether the image holds this very program.
fn program(labelled: Option<&str>) -> Result<String> {
    let Some(labelled) = labelled else { return Ok(String::new()) };
    let own = std::env::current_exe().context("finding this program")?;
    let bytes = std::fs::read(&own).with_context(|| format!("reading {}", own.display()))?;
    Ok(if builder::digest(&bytes) == labelled { "this one" } else { "another one" }.to_owned())
}

fn status(args: &StatusArgs) -> Result<()> {
    let daemon = Daemon::connect(&contained::variables())?;
    if args.engine_only {
        return output::print(&format!("{}\n", contained::described(&daemon.facts)));
    }
    let found = image::find(&daemon, &args.image)?;
    let verdict = match &found {
        Some(found) => image::check(&daemon, &args.image, found),
        None => Err(Error::build(format!("there is no image `{}`", args.image)).hint("make it with `make build`")),
    };
    let found = found.unwrap_or_default();
    let row = [
        ("engine", contained::described(&daemon.facts)),
        ("address", daemon.place()),
        ("image", args.image.clone()),
        ("size", if found.size > 0 { words::bytes(found.size) } else { String::new() }),
        ("builder", found.version.unwrap_or_default()),
        ("program", program(found.program.as_deref())?),
    ];
    match args.output {
        Format::Table => {
            let rows = row.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]);
            output::print(&words::table(&rows.collect::<Vec<_>>()))?;
        }
        format => {
            let object: Value = row.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            output::rows(format, &[], &[object], |_| Vec::new(), Value::clone)?;
        }
    }
    verdict
}
