//! `verify`: is an image file sound.
//!
//! Owns: the arguments, getting the tools ready, and how the outcomes are printed. The checks are `build::verify`'s.

use std::path::PathBuf;

use serde_json::json;

use super::output::{self, Format};
use super::{Globals, build};
use crate::build::toolstree::{self, Program, Tools};
use crate::build::verify::{self, Outcome, Request, Verdict};
use crate::error::{Context, Error, Kind, Result};
use crate::plan;
use crate::sandbox::WorkArea;
use crate::tree::store::Store;

/// Check image files: checksums and metadata beside them, partition table, file systems
///
/// Our own code and independent programs (qemu-img, sgdisk, e2fsck, fsck.fat) look at the image, which is not changed.
/// The programs come from Debian packages in the cache, not from this machine, and run without privileges. The exit
/// code is 8 if something is found.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder verify out/control-plane.qcow2
  imagebuilder verify out/*.qcow2 -o json | jq '.[] | select(.verdict != \"ok\")'
  imagebuilder verify out/node.qcow2 --tools manifests/site/example/target/data-plane/image
  imagebuilder verify out/node.raw --no-tools                               only our own checks; no network, no sandbox")]
pub struct Args {
    /// Image files; what lies beside them (`.sha256`, `.md5sum`, output metadata, lock) is compared with them
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Take the programs from the repositories of this entry point [default: Debian 12]
    #[arg(long, value_name = "DIR", conflicts_with = "no_tools")]
    pub tools: Option<PathBuf>,
    /// Leave the independent programs out
    #[arg(long)]
    pub no_tools: bool,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    for image in &args.images {
        std::fs::File::open(image).with_context(|| format!("opening {}", image.display()))?;
    }
    let found = if args.no_tools { own(args, globals)? } else { with_tools(args, globals)? };
    show(args, &found)?;
    let failed: usize = found.iter().filter(|(_, outcome)| outcome.verdict == Verdict::Failed).count();
    if failed == 0 {
        return Ok(());
    }
    Err(Error::new(Kind::Checks, format!("{failed} checks failed")))
}

type Found = Vec<(PathBuf, Outcome)>;

fn own(args: &Args, globals: &Globals) -> Result<Found> {
    let scratch = tempfile::tempdir().context("making a temporary folder")?;
    let reporter = globals.reporter();
    each(args, |image| Request { image, tools: None, scratch: scratch.path(), reporter: &reporter })
}

fn with_tools(args: &Args, globals: &Globals) -> Result<Found> {
    let source = match &args.tools {
        Some(folder) => toolstree::Source::of(&plan::load_entry_point(folder)?),
        None => toolstree::Source::shipped()?,
    };
    let cache = globals.cache_dir()?;
    let entered =
        globals.enter_sandbox().map_err(|error| error.hint("`--no-tools` needs no sandbox, and checks less"))?;
    let environment = build::environment(globals, cache)?;
    entered.tell(&environment.reporter);
    let sandbox = entered.sandbox;
    let lock = toolstree::lock(&source, &Program::ALL, &environment)?;
    let need = args.images.iter().map(|image| verify::space_needed(image)).max().unwrap_or(0);
    let reporter = &environment.reporter;
    let work = WorkArea::new(&globals.work_dir(&environment.cache), need, sandbox.mounts(), reporter)?;
    let store = Store::open_with(&environment.cache, reporter)?;
    let tree = toolstree::tree(&source, &lock, &environment, &store, sandbox.as_ref(), work.path())?;
    let tools = Tools::unpack(&tree, &work.path().join("tools"), sandbox.as_ref())?;
    each(args, |image| Request { image, tools: Some(&tools), scratch: work.path(), reporter })
}

fn each<'a>(args: &'a Args, request: impl Fn(&'a PathBuf) -> Request<'a>) -> Result<Found> {
    let mut found = Vec::new();
    for image in &args.images {
        let outcomes = verify::image(&request(image)).with_context(|| format!("verifying {}", image.display()))?;
        found.extend(outcomes.into_iter().map(|outcome| (image.clone(), outcome)));
    }
    Ok(found)
}

fn show(args: &Args, found: &[(PathBuf, Outcome)]) -> Result<()> {
    let cells = |(image, outcome): &(PathBuf, Outcome)| {
        let word = match outcome.verdict {
            Verdict::Ok => "ok",
            Verdict::Skipped => "skipped",
            Verdict::Failed => "FAILED",
        };
        let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        vec![name, outcome.check.to_owned(), word.to_owned(), outcome.part.clone(), outcome.detail.clone()]
    };
    let object = |(image, outcome): &(PathBuf, Outcome)| {
        let mut value = json!(outcome);
        value["image"] = json!(image);
        value
    };
    output::rows(args.output, &["IMAGE", "CHECK", "VERDICT", "PART", "DETAIL"], found, cells, object)
}
