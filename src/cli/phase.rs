//! `phase`: the workflow operators know from airshipctl.
//!
//! Owns: `phase list`, which rows it shows and how. Sites and phases are the room `phase`'s.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::output::{self, Format};
use crate::error::Result;
use crate::phase::{self, Row, Site};

/// List and run the phases of a site
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder phase list
  imagebuilder phase list --site manifests/site/example -o json")]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    List(ListArgs),
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

pub fn run(args: &Args) -> Result<()> {
    match &args.verb {
        Verb::List(args) => list(args),
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
