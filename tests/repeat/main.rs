//! The same image, built again under other conditions: every published file must have the same bytes, and every layer
//! may differ only in what a named rule of `seal` puts right. A difference is reported by its first path or structure.
//!
//! `IMAGEBUILDER_REPEAT=few cargo test --test repeat` builds twice (the second time everything is different at once),
//! `all` builds once per condition; without the variable every test here is shown as ignored. Other variables:
//! `IMAGEBUILDER_REPEAT_PROGRAM` (the program; default: that of this profile), `IMAGEBUILDER_REPEAT_CACHE` (a cache
//! for the reference; the other builds take the downloads only), `IMAGEBUILDER_REPEAT_RELEASES` (default `debian-bookworm`), `IMAGEBUILDER_REPEAT_FOLDER`
//! (where to work; the reference and cells that differ are kept, and a run of the same program takes the reference
//! from there, so that cells can be run one by one), `IMAGEBUILDER_REPEAT_ROOTS` (folders with other user lands, `:` between them). Needs root, for the
//! conditions only. The table that a run prints is what `docs/reproducibility.md` holds.

mod compare;
mod conditions;
#[path = "../support/times.rs"]
mod times;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use conditions::{Bench, Cell};
use libtest_mimic::{Arguments, Failed, Trial};

const VARIABLE: &str = "IMAGEBUILDER_REPEAT";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share the machine and the reference.
    arguments.test_threads = Some(1);
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    if !["few", "all"].contains(&wanted.as_str()) {
        println!("skipped: {VARIABLE} is neither `few` nor `all`");
        let trial = |cell: Cell| Trial::test(cell.name, || Ok(())).with_ignored_flag(true);
        return libtest_mimic::run(&arguments, conditions::cells(&[]).into_iter().map(trial).collect()).exit_code();
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the conditions can be changed by root only");
        return ExitCode::SUCCESS;
    }
    let kept = std::env::var_os("IMAGEBUILDER_REPEAT_FOLDER").map(PathBuf::from);
    let temporary = tempfile::Builder::new().prefix("imagebuilder-repeat-").tempdir().unwrap();
    let folder = kept.unwrap_or_else(|| temporary.path().to_owned());
    let roots: Vec<PathBuf> = std::env::var_os("IMAGEBUILDER_REPEAT_ROOTS")
        .map(|roots| std::env::split_paths(&roots).collect())
        .unwrap_or_default();
    let releases = std::env::var("IMAGEBUILDER_REPEAT_RELEASES").unwrap_or_else(|_| "debian-bookworm".into());
    let mut trials = Vec::new();
    for release in releases.split_whitespace() {
        let bench = Arc::new(Mutex::new(Bench::new(&folder.join(release), release)));
        for cell in conditions::cells(&roots).into_iter().filter(|cell| cell.few == (wanted == "few")) {
            let bench = bench.clone();
            let name = format!("{release}: {}", cell.name);
            trials.push(Trial::test(name, move || {
                same(&mut bench.lock().unwrap_or_else(|lock| lock.into_inner()), &cell)
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Builds under the conditions of a cell and compares with the reference.
fn same(bench: &mut Bench, cell: &Cell) -> Result<(), Failed> {
    let reference = bench.reference()?;
    let place = bench.build(cell)?;
    if cell.conditions.epoch.is_some_and(|before| before > 0) {
        nothing_later(&reference, &place)?;
        return Ok(std::fs::remove_dir_all(&place)?);
    }
    let mut report = compare::published(&reference.join("out"), &place.join("out"))?;
    if !cell.conditions.warm {
        let layers = compare::layers(&reference.join("cache"), &place.join("cache"))?;
        println!("  {}: {}", cell.name, layers.summary());
        report.extend(layers.unexplained);
    }
    if let Some(year) = cell.conditions.year()? {
        compare::clock_was(&place.join("cache"), year)?;
    }
    if report.is_empty() || std::env::var_os("IMAGEBUILDER_REPEAT_FOLDER").is_none() {
        std::fs::remove_dir_all(&place)?;
    }
    if report.is_empty() { Ok(()) } else { Err(format!("not the same:\n  {}", report.join("\n  ")).into()) }
}

/// An earlier epoch gives another image; its lock says so, and no structure of the disk is later.
fn nothing_later(reference: &Path, place: &Path) -> Result<(), Failed> {
    let epoch = conditions::epoch_of(place)?;
    if epoch >= conditions::epoch_of(reference)? {
        return Err(format!("the lock says epoch {epoch}").into());
    }
    let found = times::of_disk(&std::fs::File::open(place.join("out/control-plane.raw"))?);
    let late: Vec<_> = found.iter().filter(|(_, time)| *time > epoch).take(10).collect();
    println!(
        "  {} times in the structures of the disk, {} of them the epoch",
        found.len(),
        found.iter().filter(|(_, time)| *time == epoch).count()
    );
    if late.is_empty() { Ok(()) } else { Err(format!("later than {epoch}: {late:?}").into()) }
}

/// A path as text, for command lines.
fn text(path: &Path) -> String {
    path.to_str().expect("the folders of this test have plain names").to_owned()
}
