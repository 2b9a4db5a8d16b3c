//! `reseed`: the ISO of another site from a finished one.
//!
//! Owns: where the parts of the new seed come from. Putting it in is the room `build`'s, checking it the room `seed`'s.

use std::path::PathBuf;

use super::{Globals, output};
use crate::build::reseed::Base;
use crate::error::{Context, Error, Kind, Result};
use crate::format::disk::sums::Digests;
use crate::report::words;
use crate::seed::{self, Identity, Input, META_DATA, NETWORK_DATA, Request, USER_DATA};

/// Put other cloud-init data into a finished ISO
///
/// Copies BASE and replaces its seed: user data, network data and the identity that derives from them. The result has the
/// same bytes as building the ISO with that data, and takes as long as copying a file. Its checksums are written
/// beside it. What is not given stays as it is in BASE.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder reseed out/ephemeral.iso --user-data user_data --network-data network_data.json -o site1.iso
  imagebuilder reseed out/ephemeral.iso --network-data rack7.yaml -o out/rack7.iso")]
pub struct Args {
    /// An ISO that `imagebuilder` has built
    #[arg(value_name = "BASE")]
    pub base: PathBuf,
    /// New user data
    #[arg(long, value_name = "FILE")]
    pub user_data: Option<PathBuf>,
    /// New network data: OpenStack's `network_data.json`, as JSON or YAML
    #[arg(long, value_name = "FILE")]
    pub network_data: Option<PathBuf>,
    /// New meta data (JSON), in place of what derives from the other two
    #[arg(long, value_name = "FILE")]
    pub meta_data: Option<PathBuf>,
    /// The new ISO
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    if args.user_data.is_none() && args.network_data.is_none() && args.meta_data.is_none() {
        return Err(Error::new(Kind::Usage, "no new data is given")
            .hint("name it with `--user-data`, `--network-data` or `--meta-data`"));
    }
    let reporter = globals.reporter();
    let base = Base::open(&args.base)?;
    let old = base.files()?;
    let input = |given: &Option<PathBuf>, name: &str| match given {
        Some(path) => Input::File(path.clone()),
        None => {
            let shown = format!("{} of {}", name, args.base.display());
            Input::Bytes(shown, old.get(name).cloned().unwrap_or_default())
        }
    };
    let identity = old.get(META_DATA).map(|bytes| Identity::of_meta_data(bytes)).transpose()?;
    let request = Request {
        user_data: input(&args.user_data, USER_DATA),
        network_data: input(&args.network_data, NETWORK_DATA),
        identity: identity.unwrap_or_default(),
    };
    let mut new = seed::load(&request).context("loading the new seed")?;
    if let Some(path) = &args.meta_data {
        let context = || format!("reading {}", path.display());
        let bytes = crate::document::read_limited(path).with_context(context)?;
        let parsed: std::result::Result<serde_json::Value, _> = serde_json::from_slice(&bytes);
        if !parsed.as_ref().is_ok_and(|value| value["uuid"].is_string()) {
            return Err(Error::documents("not a JSON object with a `uuid`").add_context(context()));
        }
        new.meta_data = bytes;
    }
    for secret in &new.secrets {
        reporter.warning(format!("everybody who gets the ISO can read a secret: {secret}"));
    }
    let files = base.write(&new, &args.output, Digests::BOTH)?;
    let mut text = String::new();
    for file in files {
        let size = std::fs::metadata(&file).map(|metadata| words::bytes(metadata.len())).unwrap_or_default();
        text += &format!("{}  {size}\n", file.display());
    }
    output::print(&text)
}
