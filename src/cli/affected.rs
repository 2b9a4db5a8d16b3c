//! `affected`: which images of a tree of sites have to be built again.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::output::{self, Format};
use super::revision::{Revision, Shown};
use crate::api::release::RELEASES;
use crate::compat;
use crate::document;
use crate::error::{Error, Result};
use crate::phase::affected::{Fate, Image, affected};
use crate::phase::entries::{Search, entries};
use crate::report::words;

/// Show which images of a tree of sites differ from an earlier revision, and which provably do not
///
/// Looks at every phase of every site below DIR, at entry points that no site names, and at the bundles and the ISO of
/// folders with upstream's variable files (`config`). Compared is what an image is
/// made of: what its documents ask for, the cloud-init data of an ISO, and its lock where it has one. Comments, moved lines and files that nothing reads
/// affect no image. In JSON, `matrix` is what a CI matrix takes (GitHub: `matrix: ${{ fromJSON(...) }}`, GitLab:
/// `parallel: matrix:` of `matrix.include`), and `any` says whether it has an entry. Exit code 3 when documents of the new
/// state have mistakes; the others are told nevertheless.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder affected --since HEAD~1 manifests
  imagebuilder affected --since HEAD~1 config
  imagebuilder affected --since origin/main -o json manifests | jq -c .matrix
  imagebuilder affected --since v1.2 -o json manifests/site/example | jq -r '.affected[].phase'")]
pub struct Args {
    /// The earlier state: a branch, a tag or a commit
    #[arg(long, value_name = "REV")]
    pub since: String,
    /// A site, an entry point, or a folder that holds such
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// The release that upstream's variable files (`rootfs/`, `qcow-bundle/<name>/`) are for
    #[arg(long, value_name = "NAME", default_value = RELEASES[0].distro)]
    pub distro: String,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

pub fn run(args: &Args) -> Result<()> {
    compat::release(&args.distro)?;
    let revision = Revision::read(&args.dir, &args.since)?;
    let old = match &revision.folder {
        Some(folder) => entries(folder, &Search { base: &revision.base, strict: true, distro: &args.distro })?,
        None => Vec::new(),
    };
    let images =
        affected(old, entries(&args.dir, &Search { base: &revision.top, strict: true, distro: &args.distro })?)?;
    match args.output {
        Format::Table => output::print(&text(&images))?,
        Format::Yaml => {
            let value = value(&images, &args.since, &revision).to_string();
            output::print(&document::to_yaml(&document::load_str("output", &value)?))?;
        }
        Format::Json => {
            let text = serde_json::to_string_pretty(&value(&images, &args.since, &revision));
            output::print(&format!("{}\n", text.map_err(|error| Error::build(error.to_string()))?))?;
        }
    }
    let invalid = images.iter().filter(|image| image.fate == Fate::Invalid).count();
    match invalid {
        0 => Ok(()),
        1 => Err(mistakes("one image has", &images)),
        count => Err(mistakes(&format!("{count} images have"), &images)),
    }
}

fn mistakes(who: &str, images: &[Image]) -> Error {
    let error = Error::documents(format!("{who} documents with mistakes"));
    let reasons = images.iter().filter(|image| image.fate == Fate::Invalid).map(|image| image.reason.clone());
    reasons.fold(error, Error::hint).hint("`imagebuilder validate` shows all of them")
}

fn text(images: &[Image]) -> String {
    let head = ["", "SITE", "PHASE", "ENTRY POINT", "IMAGE", "WHY"].map(str::to_owned).to_vec();
    let row = |image: &Image| {
        let or_dash = |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
        vec![
            image.fate.name().to_owned(),
            or_dash(image.site.as_deref()),
            or_dash(image.phase.as_deref()),
            image.entry_point.clone(),
            or_dash(Some(&image.image)),
            image.reason.lines().next().unwrap_or_default().to_owned(),
        ]
    };
    words::table(&std::iter::once(head).chain(images.iter().map(row)).collect::<Vec<_>>())
}

/// Texts only: GitHub and GitLab take a matrix of them.
fn cell(image: &Image) -> Value {
    json!({
        "site": image.site.as_deref().unwrap_or_default(),
        "phase": image.phase.as_deref().unwrap_or_default(),
        "entryPoint": image.entry_point,
        "image": image.image,
    })
}

fn value(images: &[Image], since: &str, revision: &Revision) -> Value {
    let of = |fates: &[Fate]| -> Vec<&Image> { images.iter().filter(|image| fates.contains(&image.fate)).collect() };
    let shown = revision.shown();
    let list = |fates: &[Fate]| -> Vec<Value> { of(fates).into_iter().map(|image| object(image, &shown)).collect() };
    let to_build = of(&[Fate::Changed, Fate::Added]);
    let matrix: Vec<Value> = to_build.iter().map(|image| cell(image)).collect();
    json!({
        "since": {"revision": since, "commit": revision.commit},
        "any": !matrix.is_empty(),
        "affected": list(&[Fate::Changed, Fate::Added]),
        "unchanged": list(&[Fate::Unchanged]),
        "removed": list(&[Fate::Removed]),
        "invalid": list(&[Fate::Invalid]),
        "matrix": {"include": matrix},
    })
}

fn object(image: &Image, shown: &Shown) -> Value {
    let mut object = cell(image);
    object["change"] = image.fate.name().into();
    object["reason"] = shown.text(&image.reason).into();
    object["locked"] = image.locked.into();
    object["steps"] = image.steps.as_slice().into();
    let value = |(path, place): &(String, Value)| json!({"path": path, "new": place});
    object["values"] = image.values.iter().map(value).collect();
    object
}
