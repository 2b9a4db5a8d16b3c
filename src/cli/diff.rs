//! `diff`: what differs between two of a kind.
//!
//! Owns: `diff image` and how its report is printed; `diff docs` is in [`docs`].

mod docs;

use std::path::PathBuf;

use serde_json::{Value, json};

use super::output::{self, Format};
use crate::document;
use crate::error::{Error, Kind, Result};
use crate::inspect::compare::{self, Aspect, Change, Limits, Report, What};
use crate::inspect::image::Image;

/// Show what differs between two images, or between two states of documents
///
/// The exit code is 0 when nothing differs and 8 when something does, so that a script can ask.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder diff image old/control-plane.qcow2 out/control-plane.qcow2
  imagebuilder diff image a.qcow2 b.raw -o json | jq '.packages'
  imagebuilder diff docs --since HEAD manifests/site/example
  imagebuilder diff image a.qcow2 b.qcow2 --paths 20")]
pub struct Args {
    #[command(subcommand)]
    pub what: Verb,
}

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    Image(ImageArgs),
    Docs(docs::Args),
}

/// Compare two image files of any format: paths, packages, partitions; and the bytes, when all of these are equal
///
/// Paths are compared as the booted machine sees them, with mode, owner, modification time, size, content, extended
/// attributes. Lines start with `+` (only in the second), `-` (only in the first) or `~` (differs). When all paths are
/// equal and the bytes are not, the structures of the disk that differ are named, each with its first offset. The exit
/// code is 0 when the files are the same bytes, 8 when anything differs.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder diff image old/control-plane.qcow2 out/control-plane.qcow2
  imagebuilder diff image out/control-plane.qcow2 out/control-plane.raw     same system in two formats?
  imagebuilder diff image a.qcow2 b.qcow2 -o json | jq '.paths[].path'")]
pub struct ImageArgs {
    #[arg(value_name = "A")]
    pub left: PathBuf,
    #[arg(value_name = "B")]
    pub right: PathBuf,
    /// Show at most so many paths
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub paths: usize,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        Verb::Image(args) => image(args),
        Verb::Docs(args) => docs::run(args),
    }
}

fn image(args: &ImageArgs) -> Result<()> {
    let (left, right) = (Image::open(&args.left)?, Image::open(&args.right)?);
    let limits = Limits { paths: args.paths, ..Limits::default() };
    let report = compare::report(&left, &right, limits)?;
    match args.output {
        Format::Table => output::print(&text(&report))?,
        Format::Yaml => output::print(&document::to_yaml(&document::load_str("output", &value(&report).to_string())?))?,
        Format::Json => {
            let text =
                serde_json::to_string_pretty(&value(&report)).map_err(|error| Error::build(error.to_string()))?;
            output::print(&format!("{text}\n"))?;
        }
    }
    match report.first() {
        None => Ok(()),
        Some(first) => Err(Error::new(Kind::Checks, format!("the images differ, first in {first}"))),
    }
}

fn mark(aspect: &Aspect) -> char {
    match (aspect.left.is_empty(), aspect.right.is_empty()) {
        (true, false) => '+',
        (false, true) => '-',
        _ => '~',
    }
}

fn text(report: &Report) -> String {
    if report.is_equal() {
        return "identical\n".to_owned();
    }
    let mut out = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            out.push_str(&format!("{title}:\n"));
            lines.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
        }
    };
    let aspects = |list: &[Aspect]| list.iter().map(|one| format!("{} {one}", mark(one))).collect::<Vec<_>>();
    section("disk", aspects(&report.disk));
    section("packages", aspects(&report.packages));
    let mut paths: Vec<String> = report.paths.iter().map(path).collect();
    if report.more_paths {
        paths.push("and more (`--paths` shows them)".to_owned());
    }
    section("paths", paths);
    let spot = |spot: &compare::Spot| format!("~ byte {}: {}", spot.offset, spot.structure);
    section("the paths are equal, the disk's bytes are not", report.structures.iter().map(spot).collect());
    section("the disks are equal, the files' bytes are not", report.file.iter().map(spot).collect());
    out
}

fn path(change: &Change) -> String {
    let path = &change.path;
    match &change.what {
        What::Removed => format!("- {path}"),
        What::Added => format!("+ {path}"),
        What::Changed(aspects) => {
            let text: Vec<String> = aspects.iter().map(Aspect::to_string).collect();
            format!("~ {path}: {}", text.join(", "))
        }
    }
}

fn value(report: &Report) -> Value {
    let paths = report.paths.iter().map(|change| {
        let (what, aspects) = match &change.what {
            What::Removed => ("removed", &[][..]),
            What::Added => ("added", &[][..]),
            What::Changed(aspects) => ("changed", aspects.as_slice()),
        };
        json!({"path": change.path.to_string(), "change": what, "differs": aspects})
    });
    json!({
        "identical": report.is_equal(),
        "first": report.first().map(|first| first.to_string()),
        "disk": report.disk,
        "packages": report.packages,
        "paths": paths.collect::<Vec<_>>(),
        "morePaths": report.more_paths,
        "structures": report.structures,
        "file": report.file,
    })
}
