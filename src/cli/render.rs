//! `render`: the documents that a kustomization folder stands for.

use std::path::PathBuf;

use super::{Globals, output};
use crate::document::to_yaml;
use crate::error::Result;
use crate::kustomize::{self, Order};

/// Print the documents that a kustomization folder stands for, as `kustomize build` does
///
/// Everything a kustomization can say is worked in, byte for byte as kustomize 5 does it; what is printed is what would
/// be built. An error names the file, line and column that it comes from. Refused, each with its reason: remote
/// addresses, helm charts, plugins that are programs, functions in containers.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder render manifests/site/example/target/control-plane/image
  imagebuilder render manifests/site/example/phases
  imagebuilder render manifests/site/example/target/data-plane/image > after.yaml; diff before.yaml after.yaml")]
pub struct Args {
    /// A folder with a `kustomization.yaml`
    pub dir: PathBuf,

    /// Where files may lie: in or below the folder of the kustomization that names them, or anywhere
    #[arg(long, value_name = "RULE", value_enum, default_value = "LoadRestrictionsRootOnly")]
    pub load_restrictor: LoadRestrictor,

    /// The order of the documents, where the kustomization has no `sortOptions`
    #[arg(long, value_name = "ORDER", value_enum)]
    pub reorder: Option<Reorder>,

    /// Accepted as kustomize accepts it; programs are never run
    #[arg(long, hide = true)]
    pub enable_alpha_plugins: bool,
    #[arg(long, hide = true)]
    pub enable_exec: bool,
    #[arg(long, hide = true)]
    pub enable_helm: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LoadRestrictor {
    #[value(name = "LoadRestrictionsRootOnly")]
    RootOnly,
    #[value(name = "LoadRestrictionsNone")]
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Reorder {
    /// What others depend on first
    Legacy,
    /// As listed
    None,
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    let order = match args.reorder {
        Some(Reorder::None) => Order::Fifo,
        Some(Reorder::Legacy) | None => Order::Legacy,
    };
    let unrestricted = args.load_restrictor == LoadRestrictor::None;
    let options = kustomize::Options { unrestricted, order, reporter: Some(globals.reporter()) };
    output::print(&to_yaml(&kustomize::build(&args.dir, &options)?))
}
