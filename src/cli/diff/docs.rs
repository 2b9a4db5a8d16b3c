//! `diff docs`: which values differ between two states of documents, and which lines say so.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::api::release::RELEASES;
use crate::cli::output::{self, Format};
use crate::cli::revision::{Revision, Shown};
use crate::compat;
use crate::document::{self, Node, steps, steps_json, to_json};
use crate::error::{Context, Error, Kind, Result};
use crate::phase::changes::{Change, changes};
use crate::phase::entries::{Search, entries};

/// Compare what two folders of documents stand for, or a folder with an earlier revision of itself
///
/// Folders are entry points (with a `kustomization.yaml`), sites with all their phases, folders with upstream's
/// variable files (`config`), or what holds such. Everything is
/// rendered, then compared value by value: a line that moved is no difference. Each difference shows the old and the new
/// value and where each comes from. `--since` reads the revision from the git repository that DIR lies in, without
/// touching the work tree. The exit code is 0 when nothing differs, 8 when something does.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder diff docs manifests/site/a/target/data-plane/image manifests/site/b/target/data-plane/image
  imagebuilder diff docs --since HEAD manifests/site/example
  imagebuilder diff docs --since origin/main manifests -o json | jq '.changes[].path'")]
pub struct Args {
    /// With `--since`: the only folder
    #[arg(value_name = "DIR1")]
    pub left: PathBuf,
    #[arg(value_name = "DIR2", required_unless_present = "since", conflicts_with = "since")]
    pub right: Option<PathBuf>,
    /// Compare this revision of DIR1 with what is there now
    #[arg(long, value_name = "REV")]
    pub since: Option<String>,
    /// The release that upstream's variable files (`rootfs/`, `qcow-bundle/<name>/`) are for
    #[arg(long, value_name = "NAME", default_value = RELEASES[0].distro)]
    pub distro: String,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

pub fn run(args: &Args) -> Result<()> {
    compat::release(&args.distro)?;
    let (found, shown, sides) = match (&args.right, &args.since) {
        (Some(right), _) => {
            let both = changes(
                entries(&args.left, &Search { base: &args.left, strict: false, distro: &args.distro })?,
                entries(right, &Search { base: right, strict: false, distro: &args.distro })?,
            )?;
            (both, Shown::default(), [args.left.display().to_string(), right.display().to_string()])
        }
        (None, Some(since)) => {
            let revision = Revision::read(&args.left, since)?;
            let old = match &revision.folder {
                Some(folder) => entries(folder, &Search { base: &revision.base, strict: false, distro: &args.distro })?,
                None => Vec::new(),
            };
            let new = entries(&args.left, &Search { base: &revision.top, strict: false, distro: &args.distro })?;
            let both = changes(old, new).with_context(|| format!("comparing with {since}"));
            (both?, revision.shown(), [since.clone(), args.left.display().to_string()])
        }
        // clap asks for one of the two.
        (None, None) => return Err(Error::new(Kind::Usage, "nothing to compare with")),
    };
    match args.output {
        Format::Table => output::print(&text(&found, &shown))?,
        Format::Yaml => {
            let value = value(&found, &shown, &sides).to_string();
            output::print(&document::to_yaml(&document::load_str("output", &value)?))?;
        }
        Format::Json => {
            let text = serde_json::to_string_pretty(&value(&found, &shown, &sides));
            output::print(&format!("{}\n", text.map_err(|error| Error::build(error.to_string()))?))?;
        }
    }
    match found.first() {
        None => Ok(()),
        Some(first) => {
            let path = if first.path.is_empty() { String::new() } else { format!(":{}", first.path) };
            Err(Error::new(Kind::Checks, format!("the documents differ, first in {}{path}", first.object)))
        }
    }
}

fn text(changes: &[Change], shown: &Shown) -> String {
    if changes.is_empty() {
        return "identical\n".to_owned();
    }
    let mut out = String::new();
    let mut head = String::new();
    for change in changes {
        let own = format!("{} {}\n", change.entry, change.object);
        if own != head {
            out.push_str(&own);
            head = own;
        }
        let path = if change.path.is_empty() { "the whole object" } else { &change.path };
        match (&change.old, &change.new) {
            (Some(old), Some(new)) => out.push_str(&format!("  ~ {path}: {} -> {}\n", brief(old), brief(new))),
            (Some(old), None) => out.push_str(&format!("  - {path}: {}\n", brief(old))),
            (None, Some(new)) => out.push_str(&format!("  + {path}: {}\n", brief(new))),
            (None, None) => {}
        }
        for (side, node) in [("old", &change.old), ("new", &change.new)] {
            if let Some(node) = node {
                out.push_str(&format!("      {side}: {}\n", places(node, shown)));
            }
        }
    }
    out
}

/// A value on one line.
fn brief(node: &Node) -> String {
    const LONGEST: usize = 120;
    let text = to_json(node).to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

/// The place of the value, then what put it there, newest first.
fn places(node: &Node, shown: &Shown) -> String {
    let mut places = vec![shown.text(&node.origin.at.to_string())];
    let steps = steps(&node.origin);
    let changes = steps.iter().skip(1).rev();
    places.extend(changes.map(|step| format!("{} {}", step.action, shown.text(&step.at.to_string()))));
    places.join(" <- ")
}

fn value(changes: &[Change], shown: &Shown, sides: &[String; 2]) -> Value {
    let side = |node: &Option<Node>| match node {
        None => Value::Null,
        Some(node) => {
            let mut place = document::place(&node.origin.at);
            place["value"] = to_json(node);
            place["chain"] = steps_json(&node.origin);
            if let Some(fields) = place.as_object_mut() {
                fields.remove("text");
            }
            shown.json(place)
        }
    };
    let one = |change: &Change| {
        let what = match (&change.old, &change.new) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        json!({
            "entry": change.entry,
            "object": change.object,
            "path": change.path,
            "change": what,
            "old": side(&change.old),
            "new": side(&change.new),
        })
    };
    let changes: Vec<Value> = changes.iter().map(one).collect();
    json!({"identical": changes.is_empty(), "old": sides[0], "new": sides[1], "changes": changes})
}
