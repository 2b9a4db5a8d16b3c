//! `render`: the documents that a kustomization folder stands for.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Globals, output};
use crate::document::{Node, leaves, origins, steps_json, to_json, to_yaml, to_yaml_commented};
use crate::error::{Context, Error, Kind, Result};
use crate::kustomize::{self, Fetch, Order, object_name};
use crate::package::http::{Client, Patience, Proxies};

/// Print the documents that a kustomization folder stands for, as `kustomize build` does
///
/// Everything a kustomization can say is worked in, byte for byte as kustomize 5 does it; what is printed is what would
/// be built. An error names the file, line and column that it comes from. Functions in containers are run by Docker or
/// Podman, without a network. Refused, each with its reason: remote addresses, helm charts, plugins that are programs.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder render manifests/site/example/target/control-plane/image
  imagebuilder render manifests/site/example/phases
  imagebuilder render --origins manifests/site/example/target/data-plane/image
  imagebuilder render --origins-file origins.json manifests/site/example/target/data-plane/image > documents.yaml
  imagebuilder render manifests/site/example/target/data-plane/image > after.yaml; diff before.yaml after.yaml")]
pub struct Args {
    /// A folder with a `kustomization.yaml`
    #[arg(required_unless_present = "origins")]
    pub dir: Option<PathBuf>,

    /// Say of every value where it came from: in a comment behind it, or as JSON in place of the documents
    ///
    /// A comment names the place of the value, then, newest first, the overlay entries that changed it and the places of
    /// what they replaced. JSON has the same chains with the first line first, as `origin -o json` has them.
    #[arg(long, value_name = "comments|json", num_args = 0..=1, default_missing_value = "comments")]
    pub origins: Option<String>,

    /// Write the JSON of `--origins json` into this file, and print the documents as ever
    #[arg(long, value_name = "FILE")]
    pub origins_file: Option<PathBuf>,

    /// Where files may lie: in or below the folder of the kustomization that names them, or anywhere
    #[arg(long, value_name = "RULE", value_enum, default_value = "LoadRestrictionsRootOnly")]
    pub load_restrictor: LoadRestrictor,

    /// The order of the documents, where the kustomization has no `sortOptions`
    #[arg(long, value_name = "ORDER", value_enum)]
    pub reorder: Option<Reorder>,

    /// Fetch resources that a digest pins (`https://host/file.yaml?sha256=DIGEST`)
    #[arg(long)]
    pub allow_remote: bool,

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

/// What is said of origins on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origins {
    Nowhere,
    Comments,
    Json,
}

impl Args {
    /// The folder, and what to say of origins. In `--origins DIR` the word behind the option is the folder.
    fn asked(&self) -> Result<(&Path, Origins)> {
        let (form, other) = match self.origins.as_deref() {
            None => (Origins::Nowhere, None),
            Some("comments") => (Origins::Comments, None),
            Some("json") => (Origins::Json, None),
            Some(other) => (Origins::Comments, Some(other)),
        };
        match (self.dir.as_deref(), other) {
            (Some(dir), None) => Ok((dir, form)),
            (None, Some(dir)) => Ok((Path::new(dir), form)),
            (Some(_), Some(other)) => Err(Error::new(Kind::Usage, format!("origins are not written as `{other}`"))
                .hint("take `comments` or `json`")),
            (None, None) => {
                Err(Error::new(Kind::Usage, "no folder given").hint("name one with a `kustomization.yaml`"))
            }
        }
    }
}

/// Every value of every document with its chain.
fn table(documents: &[Node]) -> Value {
    let value = |(path, leaf): (String, &Node)| json!({"path": path, "value": to_json(leaf), "chain": steps_json(&leaf.origin)});
    let document = |node: &Node| {
        let values: Vec<Value> = leaves("", node).into_iter().map(value).collect();
        json!({"object": object_name(node), "values": values})
    };
    documents.iter().map(document).collect()
}

fn pretty(value: &Value) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::build(error.to_string()))?;
    Ok(format!("{text}\n"))
}

/// The chain of a value on one line.
fn comment(node: &Node) -> String {
    origins(node).first().map(|entry| entry.chain.join(" <- ")).unwrap_or_default()
}

/// The largest file that is fetched, in bytes: more than any set of documents takes.
const REMOTE_LIMIT: u64 = 64 << 20;

/// How remote resources are fetched: through the proxies of the environment, in bounded time and size.
fn fetch() -> Result<Fetch> {
    let variables =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    let client = Client::new(Proxies::from_variables(variables), Patience::default())?;
    Ok(Arc::new(move |url| {
        let mut response = client.get(url, 0)?;
        if response.status != 200 {
            return Err(Error::new(Kind::Network, format!("{url}: the server answers {}", response.status)));
        }
        let mut bytes = Vec::new();
        let read = response.body.by_ref().take(REMOTE_LIMIT + 1).read_to_end(&mut bytes);
        read.map_err(|error| client.unreachable(url, error))?;
        if bytes.len() as u64 > REMOTE_LIMIT {
            return Err(Error::documents(format!("{url} is larger than {} MiB", REMOTE_LIMIT >> 20)));
        }
        Ok(bytes)
    }))
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    let (dir, form) = args.asked()?;
    let order = match args.reorder {
        Some(Reorder::None) => Order::Fifo,
        Some(Reorder::Legacy) | None => Order::Legacy,
    };
    let unrestricted = args.load_restrictor == LoadRestrictor::None;
    let fetch = if args.allow_remote { Some(fetch()?) } else { None };
    let reporter = Some(globals.reporter());
    let options = kustomize::Options { unrestricted, order, reporter, fetch, ..kustomize::Options::default() };
    let documents = kustomize::build(dir, &options)?;
    if let Some(file) = &args.origins_file {
        let text = pretty(&table(&documents))?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    output::print(&match form {
        // With a file, the documents are wanted beside it.
        Origins::Json if args.origins_file.is_none() => pretty(&table(&documents))?,
        Origins::Comments => to_yaml_commented(&documents, &comment),
        Origins::Json | Origins::Nowhere => to_yaml(&documents),
    })
}
