//! `lock`: writes down exactly what images are made of, compares that with the documents, moves it.
//!
//! Owns: what each flag means, where the file goes, and how changes are shown. The lock itself is the room `package`'s,
//! whether it fits the documents the room `plan`'s.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::documents::Documents;
use super::output::{self, Format};
use super::{Globals, build, epoch};
use crate::build::toolstree::{self, Program};
use crate::build::{cache, prepare};
use crate::error::{Context, Error, Kind, Result};
use crate::package::fetch::fetch_all;
use crate::package::lock::diff::{self, Change, diff};
use crate::package::lock::keep::resolve_keeping;
use crate::package::lock::{Lock, resolve};
use crate::package::{Environment, relation};
use crate::plan::{self, Intent};

/// Write down exactly what an image is made of, so that it can be built again from the same packages
///
/// The lock is `<name>.lock.yaml` beside the documents (with `--config`: `<name>.<distro>.lock.yaml` in the bundle's
/// folder). Commit it: `build` uses it from then on, `build --locked` insists on it, and neither reads an index.
///
/// Without a flag: makes the lock if there is none; where the documents have changed since, brings it up to date and
/// moves no more than needed. All packages are fetched into the store, so a locked build works offline afterwards.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_long_help = "\
Examples:
  imagebuilder lock manifests/site/example/target/control-plane/image
  imagebuilder lock --config config --bundle data-plane        one bundle, Debian 12
  imagebuilder lock DIR --check                                for CI: code 7 if the lock does not fit the documents
  imagebuilder lock DIR --check --fresh                        code 7 if newer packages can be had, too
  imagebuilder lock DIR --update                               move everything to the newest
  imagebuilder lock DIR --update openssl libssl3               move these, and only what they need
  imagebuilder lock diff old.lock.yaml new.lock.yaml
  git show HEAD~1:DIR/node.lock.yaml | imagebuilder lock diff - DIR")]
pub struct Args {
    #[command(subcommand)]
    pub verb: Option<Verb>,
    #[command(flatten)]
    pub documents: Documents,
    /// Change nothing; fail with code 7 when the lock is missing or does not fit documents and program. No network
    #[arg(long, conflicts_with = "update")]
    pub check: bool,
    /// With `--check`: also fail when resolving now would give other packages
    #[arg(long, requires = "check")]
    pub fresh: bool,
    /// Take newer versions: of these packages and only what they need, or of everything. Names follow DIR
    #[arg(long, value_name = "PACKAGE", num_args = 0.., value_parser = package_name)]
    pub update: Option<Vec<String>>,
}

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    Diff(DiffArgs),
}

/// Show what is different between two locks: packages, files, recipes, epoch
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder lock diff old.lock.yaml new.lock.yaml
  imagebuilder lock diff out/node.lock.yaml DIR -o json
  git show HEAD~1:DIR/node.lock.yaml | imagebuilder lock diff - DIR")]
pub struct DiffArgs {
    /// A lock file, a folder that holds one, or `-` for standard input
    pub old: PathBuf,
    /// The same
    pub new: PathBuf,
    /// How the list is printed
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

fn package_name(text: &str) -> Result<String, String> {
    let is_one = relation::is_name(text) && !text.contains(':');
    is_one.then(|| text.to_owned()).ok_or_else(|| "not the name of a package (names follow the folder)".into())
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    if let Some(Verb::Diff(args)) = &args.verb {
        return show(args.output, &diff(&read(&args.old)?, &read(&args.new)?));
    }
    let intents = args.documents.load()?;
    let desk =
        Desk { environment: build::environment(globals, globals.cache_dir()?)?, epoch: epoch::source_date_epoch()? };
    // Nobody takes away meanwhile what is fetched.
    let _in_use = cache::InUse::shared(&desk.environment.cache, &desk.environment.reporter)?;
    for intent in &intents {
        let done = match (&args.check, &args.update) {
            (true, _) => desk.check(intent, args.fresh),
            (false, update) => desk.write(intent, update.as_deref()),
        };
        done.map_err(|error| intent.locate(error)).with_context(|| format!("locking image `{}`", intent.image))?;
    }
    Ok(())
}

struct Desk {
    environment: Environment,
    epoch: Option<i64>,
}

impl Desk {
    fn check(&self, intent: &Intent, fresh: bool) -> Result<()> {
        let (path, Some(lock)) = (place(intent)?, prepare::lock_beside(intent)?) else {
            return Err(prepare::missing(intent));
        };
        prepare::check(intent, &lock, self.epoch, &prepare::keyring_files(intent)?)
            .with_context(|| format!("checking {}", path.display()))?;
        if fresh {
            let mut now = resolve(&toolstree::image_request(intent), &self.environment)?;
            plan::locked::complete(&mut now, intent);
            // Both follow from the packages.
            (now.epoch, now.files) = (lock.epoch, lock.files.clone());
            let changes = diff(&lock, &now);
            if !changes.is_empty() {
                show(Format::Table, &changes)?;
                let message = format!("{} is not what would be resolved now: {}", path.display(), summary(&changes));
                return Err(
                    Error::new(Kind::Drift, message).hint("take the newer ones with `imagebuilder lock --update`")
                );
            }
        }
        output::print(&format!("{}: fits the documents, {} packages\n", path.display(), lock.packages().count()))
    }

    fn write(&self, intent: &Intent, update: Option<&[String]>) -> Result<()> {
        let path = place(intent)?;
        let everything = update.is_some_and(<[String]>::is_empty);
        let old = match prepare::lock_beside(intent) {
            // Not even readable, and not wanted any more either.
            Err(_) if everything => None,
            read => read?,
        };
        let request = toolstree::image_request(intent);
        let resolved = match &old {
            Some(old) if old.architecture == request.architecture && !everything => {
                let moved: BTreeSet<String> = update.unwrap_or_default().iter().cloned().collect();
                let fits = prepare::check(intent, old, self.epoch, &prepare::keyring_files(intent)?).is_ok();
                let complete = toolstree::of_image(old, &Program::ALL).is_some();
                if update.is_none() && fits && complete {
                    old.clone()
                } else {
                    resolve_keeping(&request, old, &moved, &self.environment)?
                }
            }
            None if update.is_some_and(|names| !names.is_empty()) => return Err(prepare::missing(intent)),
            _ => resolve(&request, &self.environment)?,
        };
        let (lock, _) = prepare::make_lock(intent, resolved, self.epoch, &self.environment)?;
        fetch_all(&lock.tools, &lock.repositories_at(&request)?, &self.environment).context("fetching the tools")?;
        let count = lock.packages().count();
        match old {
            Some(old) if old.digest() == lock.digest() => {
                output::print(&format!("{}: nothing has moved, {count} packages\n", path.display()))
            }
            Some(old) => {
                write_file(path, &lock.to_yaml())?;
                let changes = diff(&old, &lock);
                show(Format::Table, &changes)?;
                output::print(&format!("{}: {count} packages; {}\n", path.display(), summary(&changes)))
            }
            None => {
                write_file(path, &lock.to_yaml())?;
                output::print(&format!("{}: {count} packages locked\n", path.display()))
            }
        }
    }
}

fn place(intent: &Intent) -> Result<&Path> {
    intent.lock_path.as_deref().ok_or_else(|| prepare::missing(intent))
}

/// Complete or not at all.
fn write_file(path: &Path, text: &str) -> Result<()> {
    let context = || format!("writing {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".lock-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .with_context(context)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).with_context(context)?;
    file.persist(path).map_err(|error| error.error).with_context(context)?;
    Ok(())
}

/// `2 added, 1 upgraded`.
fn summary(changes: &[Change]) -> String {
    use diff::Kind::{Added, Changed, Downgraded, Removed, Upgraded};
    let counted = [Added, Removed, Upgraded, Downgraded, Changed].into_iter().filter_map(|kind| {
        let count = changes.iter().filter(|change| change.kind == kind).count();
        (count > 0).then(|| format!("{count} {}", kind.name()))
    });
    counted.collect::<Vec<_>>().join(", ")
}

fn show(format: Format, changes: &[Change]) -> Result<()> {
    let cells = |change: &Change| {
        let or_dash = |text: &String| if text.is_empty() { "-".to_owned() } else { text.clone() };
        let (old, new) = (or_dash(&change.old), or_dash(&change.new));
        vec![change.kind.name().to_owned(), change.part.clone(), change.name.clone(), old, new]
    };
    let object = |change: &Change| -> Value {
        let or_null = |text: &String| if text.is_empty() { Value::Null } else { json!(text) };
        json!({
            "change": change.kind.name(),
            "part": change.part,
            "name": change.name,
            "old": or_null(&change.old),
            "new": or_null(&change.new),
        })
    };
    output::rows(format, &["CHANGE", "PART", "NAME", "OLD", "NEW"], changes, cells, object)
}

/// A lock by file, by the folder it lies in, or from standard input.
fn read(path: &Path) -> Result<Lock> {
    /// No lock of any image comes near it.
    const LIMIT: u64 = 64 << 20;
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(LIMIT).read_to_end(&mut bytes).context("reading standard input")?;
        return Lock::parse("standard input", &bytes);
    }
    if !path.is_dir() {
        return Lock::read(path);
    }
    let context = || format!("listing {}", path.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(context)? {
        let name = entry.with_context(context)?.file_name();
        if name.to_string_lossy().ends_with(".lock.yaml") {
            found.push(name);
        }
    }
    found.sort();
    match found.as_slice() {
        [one] => Lock::read(&path.join(one)),
        [] => Err(Error::new(Kind::Usage, format!("there is no lock in {}", path.display()))
            .hint("`imagebuilder lock` makes one")),
        several => {
            let names: Vec<_> = several.iter().map(|name| format!("`{}`", name.to_string_lossy())).collect();
            Err(Error::new(Kind::Usage, format!("there is more than one lock in {}", path.display()))
                .hint(format!("name one of {}", names.join(", "))))
        }
    }
}
