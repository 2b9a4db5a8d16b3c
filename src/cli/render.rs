//! `render`: the documents that a kustomization folder stands for.

use std::path::PathBuf;

use super::output;
use crate::error::Result;
use crate::kustomize;

/// Print the documents that a kustomization folder stands for, as `kustomize build` does
///
/// Resources, components, patches and replacements are worked in; what is printed is what would be built. An error
/// names the file, line and column that it comes from.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder render manifests/site/example/target/control-plane/image
  imagebuilder render manifests/site/example/phases
  imagebuilder render manifests/site/example/target/data-plane/image > after.yaml; diff before.yaml after.yaml")]
pub struct Args {
    /// A folder with a `kustomization.yaml`
    pub dir: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    output::print(&kustomize::render(&args.dir)?)
}
