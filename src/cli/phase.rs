//! `phase`: the workflow operators know from airshipctl.
//!
//! Owns: `phase list`, which rows it shows and how, and `phase run`. Sites and phases are the room `phase`'s; the rest
//! of a run is the same as `build`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::output::{self, Format};
use super::{Globals, build};
use crate::error::Result;
use crate::phase::{self, Row, Site};

/// List and run the phases of a site
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder phase list
  imagebuilder phase list --site manifests/site/example -o json
  imagebuilder phase run build-qcow-control-plane")]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    List(ListArgs),
    Run(RunArgs),
}

/// List the phases of a site: what can be run, by whom, on which documents
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder phase list
  imagebuilder phase list --site manifests/site/example -o yaml")]
pub struct ListArgs {
    #[command(flatten)]
    pub site: SiteArgs,
    /// How the list is printed
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// Run a phase: build the image its documents describe
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder phase run build-qcow-control-plane
  imagebuilder phase run build-qcow-control-plane --locked
  imagebuilder phase run build-qcow-data-plane --site manifests/site/example --output-dir /srv/images")]
pub struct RunArgs {
    /// Name of the phase, as `phase list` shows it
    pub name: String,
    #[command(flatten)]
    pub site: SiteArgs,
    #[command(flatten)]
    pub choices: build::Choices,
}

#[derive(Debug, clap::Args)]
pub struct SiteArgs {
    /// Folder with the site's `metadata.yaml` [default: manifests/site/example of this repository]
    #[arg(long, value_name = "DIR")]
    pub site: Option<PathBuf>,
}

impl SiteArgs {
    pub fn open(&self) -> Result<Site> {
        Site::discover(self.site.as_deref(), Path::new("."))
    }
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    match &args.verb {
        Verb::List(args) => list(args),
        Verb::Run(args) => {
            let site = args.site.open()?;
            let roots: Vec<PathBuf> = std::iter::once(site.root().to_owned()).chain(args.site.site.clone()).collect();
            let mut intents = vec![phase::load(&site, &args.name)?];
            args.choices.seed.give(&mut intents)?;
            build::build(&intents, &roots, &args.choices, globals)
        }
    }
}

fn list(args: &ListArgs) -> Result<()> {
    let rows = phase::list(&args.site.open()?)?;
    let columns = ["NAMESPACE", "NAME", "CLUSTER", "EXECUTOR", "DOC ENTRY POINT"];
    output::rows(args.output, &columns, &rows, cells, object)
}

fn cells(row: &Row) -> Vec<String> {
    [&row.namespace, &row.name, &row.cluster, &row.executor, &row.entry_point].map(|cell| cell.to_owned()).to_vec()
}

fn object(row: &Row) -> Value {
    json!({
        "namespace": row.namespace,
        "name": row.name,
        "clusterName": row.cluster,
        "executor": row.executor,
        "documentEntryPoint": row.entry_point,
    })
}
