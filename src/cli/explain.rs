//! `explain`: what a kind or a field of it is for.

use super::output::{self, Format};
use crate::api::schema::{KINDS, explain};
use crate::document;
use crate::error::{Error, Result};

/// Show what a kind of document, or one of its fields, is for
///
/// Names the type, the default, the values it takes and the fields below, as `kubectl explain` does, from the same
/// types the program reads documents with. A list is stepped through by itself, a map by a key, by `*`, or by the name
/// of a field of its values. Without a name: the kinds.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder explain
  imagebuilder explain NodeProfile.spec.storage.partitions
  imagebuilder explain 'NodeProfile.spec.kernel.sysctl[\"vm.swappiness\"]'
  imagebuilder explain AirshipImage.spec.params.users --recursive
  imagebuilder explain ImageConfiguration.spec.image.type -o json")]
pub struct Args {
    /// A kind, or a field of one: `KIND.path.to.field`
    #[arg(value_name = "KIND[.PATH]")]
    pub path: Option<String>,

    /// All fields below, without their descriptions
    #[arg(long)]
    pub recursive: bool,

    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    pub output: Format,
}

pub fn run(args: &Args) -> Result<()> {
    let Some(path) = &args.path else {
        return output::rows(
            args.output,
            &["KIND", "PLURAL"],
            KINDS,
            |kind| vec![kind.name.to_owned(), kind.plural.to_owned()],
            |kind| serde_json::json!({"kind": kind.name, "plural": kind.plural}),
        );
    };
    let found = explain::find(path)?;
    match args.output {
        Format::Table => output::print(&found.text(args.recursive)),
        Format::Yaml => {
            let text = found.json(args.recursive).to_string();
            output::print(&document::to_yaml(&document::load_str("output", &text)?))
        }
        Format::Json => {
            let text = serde_json::to_string_pretty(&found.json(args.recursive));
            output::print(&format!("{}\n", text.map_err(|error| Error::build(error.to_string()))?))
        }
    }
}
