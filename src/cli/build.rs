//! `build`: from documents to image files. `phase run` ends here, too.
//!
//! Owns: which Intents are built, what the world outside is (clock, proxies, cache), and the closing summary. The work
//! is the room `build`'s.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::contained::{self, Job, PROGRAM_VARIABLE};
use super::documents::{Documents, LockArgs, SeedArgs};
use super::engine::{self, EngineArgs};
use super::{Globals, Progress, epoch, failure, output, owner};
use crate::build::{self, Built};
use crate::engine::Engine;
use crate::error::{Context, Error, Kind, Result};
use crate::format::disk::sums::Digests;
use crate::package::Environment;
use crate::package::http::{Client, Patience, Proxies};
use crate::plan::Intent;
use crate::report::timeline::{self, Total};
use crate::report::{Timing, json, usage, words};

/// Build images: from a folder of documents, or from upstream's variable files
///
/// The image and the files beside it (checksums, output metadata, lock, origins) appear in the output folder complete
/// or not at all. Packages are those of `<name>.lock.yaml` beside the documents where `imagebuilder lock` has made one,
/// else the newest. What was done before is taken from the cache. No privileges are needed where user namespaces are
/// usable (`imagebuilder doctor` tells). Several images are built side by side and share all they have in common; one
/// that fails leaves the others alone.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder build manifests/site/example/target/control-plane/image
  imagebuilder build --locked manifests/site/example/target/control-plane/image
  imagebuilder build manifests/site/example/target/*/image               all of them, side by side
  imagebuilder build --config config                                     all bundles, Debian 12
  imagebuilder build --config config --bundle data-plane --distro debian_trixie --output-dir /srv/images")]
pub struct Args {
    #[command(flatten)]
    pub documents: Documents,
    #[command(flatten)]
    pub choices: Choices,
}

/// How to build, whatever the documents say; also of `phase run`.
#[derive(Debug, Default, clap::Args)]
pub struct Choices {
    #[command(flatten)]
    pub lock: LockArgs,
    #[command(flatten)]
    pub seed: SeedArgs,
    /// Check the finished image with independent programs (see `verify`) before it is published
    #[arg(long)]
    pub verify: bool,
    /// Let the distribution's own scripts do all their work, without our native helpers: slower, the same bytes
    #[arg(long)]
    pub plain_scripts: bool,
    /// Digests to write beside each image and into its metadata. MD5 is what upstream's tools ask for, and takes longest
    /// in a first build
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_values = ["sha256", "md5"])]
    pub checksums: Vec<Checksum>,
    /// Show when each step ran and what it used; with FILE, write it there as JSON too
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub timings: Option<Option<PathBuf>>,
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Checksum {
    Sha256,
    Md5,
    None,
}

/// Nothing said is both.
fn digests(wanted: &[Checksum]) -> Digests {
    if wanted.is_empty() {
        return Digests::BOTH;
    }
    Digests { sha256: wanted.contains(&Checksum::Sha256), md5: wanted.contains(&Checksum::Md5) }
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    let roots: Vec<PathBuf> = args.documents.dirs.iter().chain(&args.documents.config).cloned().collect();
    let mut intents = args.documents.load()?;
    args.choices.seed.give(&mut intents)?;
    build(&intents, &roots, &args.choices, globals)
}

/// Builds here or in a container. `roots` are the folders that the documents came from.
pub fn build(intents: &[Intent], roots: &[PathBuf], choices: &Choices, globals: &Globals) -> Result<()> {
    let reporter = globals.reporter();
    match engine::choose(intents, &choices.engine, globals, &reporter)? {
        Engine::Embedded => owner::hand_back(globals, intents, || here(intents, choices, globals)),
        Engine::Docker(docker) => {
            let timings = choices.timings.as_ref().and_then(Option::as_ref);
            let timings = timings.map(|file| file.parent().filter(|parent| !parent.as_os_str().is_empty()));
            let written = timings.map(|parent| parent.unwrap_or(Path::new(".")).to_owned());
            let job = Job {
                intents,
                roots,
                read: choices.seed.files(),
                written: written.into_iter().collect(),
                network: choices.engine.container_network.clone(),
                keep: choices.engine.keep_container,
            };
            contained::run(&docker, &job, globals, &reporter)
        }
    }
}

/// Builds and prints the summary. No thread may run yet: the process enters its sandbox here.
fn here(intents: &[Intent], choices: &Choices, globals: &Globals) -> Result<()> {
    let outcome = images(intents, choices, globals)?;
    if !outcome.built.is_empty() {
        output::print(&outcome.summary)?;
    }
    failures(outcome.failed, &outcome.built, globals)
}

/// What came of the images of one run.
pub(super) struct Outcome {
    pub built: Vec<Built>,
    pub summary: String,
    pub failed: Vec<Error>,
}

/// Builds and says nothing of it. No thread may run yet.
pub(super) fn images(intents: &[Intent], choices: &Choices, globals: &Globals) -> Result<Outcome> {
    let began = Instant::now();
    let cache = globals.cache_dir()?;
    let epoch = epoch::source_date_epoch()?;
    let entered =
        globals.enter_sandbox().map_err(|error| error.hint("`imagebuilder doctor` says what this machine lacks"))?;
    let work_folder = globals.work_dir(&cache);
    let environment = environment(globals, cache)?;
    let reporter = environment.reporter.clone();
    entered.tell(&reporter);
    let options = build::Options {
        environment,
        epoch,
        locking: choices.lock.locking(),
        output_folder: globals.output_dir.clone(),
        sandbox: entered.sandbox.as_ref(),
        work_folder,
        verify: choices.verify,
        plain_scripts: choices.plain_scripts,
        digests: digests(&choices.checksums),
    };
    let built = build::run(intents, &options);
    let total = total(began);
    // Of a build that failed, too: that one may be the one to look at.
    if let Some(file) = choices.timings.as_ref().and_then(Option::as_ref) {
        write_timings(file, &reporter.timings(), &total)?;
    }
    let (built, failed): (Vec<_>, Vec<_>) = built?.into_iter().partition(|one| one.is_ok());
    let built: Vec<Built> = built.into_iter().flatten().collect();
    if let Some(size) = globals.cache_size() {
        build::cache::prune::keep_below(&options.environment.cache, size, &reporter)?;
    }
    // As it was typed, so that the line about booting can be typed as well.
    let typed = std::env::var(PROGRAM_VARIABLE).ok().or_else(|| std::env::args().next());
    let program = typed.unwrap_or_else(|| "imagebuilder".into());
    let steps = match choices.timings {
        Some(_) => timeline::table(&reporter.timings(), &total),
        None => steps(&reporter.timings()),
    };
    let summary = summary(&built, &steps, &total, &program);
    Ok(Outcome { summary, failed: failed.into_iter().filter_map(Result::err).collect(), built })
}

/// All are told; the exit code is that of the first. What was built is there all the same.
pub(super) fn failures(failed: Vec<Error>, built: &[Built], globals: &Globals) -> Result<()> {
    let total = failed.len() + built.len();
    let mut failed = failed.into_iter();
    let Some(first) = failed.next() else { return Ok(()) };
    // Whoever stops a build has stopped all of it.
    for other in failed.filter(|error| error.kind() != Kind::Interrupted) {
        // Who called a builder in a container hears of each.
        if globals.progress == Progress::Json {
            json::failed(&other);
        }
        failure::print(&other);
    }
    if total == 1 || first.kind() == Kind::Interrupted {
        return Err(first);
    }
    let names: Vec<&str> = built.iter().map(|one| one.image.as_str()).collect();
    let hint = format!("{} of {total} images were built", names.len());
    Err(first.hint(if names.is_empty() { hint } else { format!("{hint}: {}", names.join(", ")) }))
}

fn total(began: Instant) -> Total {
    let (peak_memory, peak_helper_memory) = usage::peak_memory();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Total { wall: began.elapsed(), cpu: usage::cpu_time(), peak_memory, peak_helper_memory, cores }
}

fn write_timings(file: &Path, timings: &[Timing], total: &Total) -> Result<()> {
    let text = format!("{:#}\n", timeline::json(timings, total));
    std::fs::write(file, text).with_context(|| format!("writing timings to {}", file.display()))
}

/// The world outside, for everything that works on packages.
pub(super) fn environment(globals: &Globals, cache: PathBuf) -> Result<Environment> {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let http = Client::new(Proxies::from_variables(variables), Patience::default())?;
    Ok(Environment { cache, now: now()?, reporter: globals.reporter(), http })
}

/// Seconds since the epoch: for the expiry of indexes, never for bytes of an image.
fn now() -> Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.ok().and_then(|since| i64::try_from(since.as_secs()).ok());
    seconds.ok_or_else(|| Error::build("the clock of this machine is before 1970")).context("reading the clock")
}

/// What was built, how long each step took, where the files are, how to boot them.
fn summary(built: &[Built], steps: &str, total: &Total, program: &str) -> String {
    let mut text = format!("\n{steps}");
    text.push_str(&format!(
        "\n{} in all, {} of processor time; peak memory {} (largest helper {})\n",
        words::duration(total.wall),
        words::duration(total.cpu),
        words::bytes(total.peak_memory),
        words::bytes(total.peak_helper_memory),
    ));
    for one in built {
        text.push_str(&format!("\n{}: {} packages, {} files and folders\n", one.image, one.packages, one.entries));
        for file in &one.files {
            let size = std::fs::metadata(file).map(|metadata| words::bytes(metadata.len())).unwrap_or_default();
            let of = one.records.iter().find(|record| file.ends_with(&record.file_name));
            let disk = of.and_then(|record| record.virtual_size);
            let disk = disk.map(|size| format!(" (disk of {})", words::bytes(size))).unwrap_or_default();
            text.push_str(&format!("  {}  {size}{disk}\n", file.display()));
        }
        let boots = |file: &&std::path::PathBuf| {
            let of = one.records.iter().find(|record| file.ends_with(&record.file_name));
            of.is_some_and(|record| record.virtual_size.is_some() || record.format == "iso")
        };
        if let Some(image) = one.files.iter().find(boots) {
            let (program, image) = (words::shell(program), words::shell(&image.to_string_lossy()));
            text.push_str(&format!("  boot it: {program} boot {image}\n"));
        }
    }
    text
}

fn steps(timings: &[Timing]) -> String {
    let head = ["STEP", "TIME", "CPU", "RESULT"].map(str::to_owned).to_vec();
    let row = |timing: &Timing| {
        vec![timing.name.clone(), words::duration(timing.wall), words::duration(timing.cpu), timing.detail.clone()]
    };
    words::table(&std::iter::once(head).chain(timings.iter().map(row)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::build::evidence::{Checksums, ImageRecord};
    use crate::report::Reporter;

    #[test]
    fn the_summary_says_how_long_and_where() {
        let reporter = Reporter::quiet();
        reporter.step("fetch").finish("3 packages");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.qcow2");
        std::fs::write(&file, [0; 1500]).unwrap();
        let checksums = Checksums { sha256: None, md5: None, size: 1500 };
        let record = ImageRecord {
            file_name: "node.qcow2".into(),
            format: "qcow2".into(),
            virtual_size: Some(10 << 20),
            checksums,
        };
        let one =
            Built { image: "node".into(), files: vec![file.clone()], records: vec![record], packages: 3, entries: 9 };
        let total = Total { wall: Duration::from_secs(61), ..Total::default() };
        let text = summary(&[one], &steps(&reporter.timings()), &total, "target/release/imagebuilder");
        let timings = dir.path().join("timings.json");
        write_timings(&timings, &reporter.timings(), &total).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&timings).unwrap()).unwrap();
        assert_eq!((&read["steps"][0]["name"], &read["wallSeconds"]), (&"fetch".into(), &61.0.into()));
        assert!(text.contains("fetch  0.0 s"), "{text}");
        assert!(text.contains("3 packages") && text.contains("1 min 01 s in all"), "{text}");
        assert!(text.contains(&format!("{}  1.50 kB (disk of ", file.display())), "{text}");
        assert!(text.contains(&format!("boot it: target/release/imagebuilder boot {}", file.display())), "{text}");
    }
}
