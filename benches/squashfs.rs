//! The squashfs writer beside `mksquashfs` on the same content at the same settings: wall time in alternation, size, peak
//! memory.
//!
//! ```text
//! cargo bench --bench squashfs -- --cache ~/.cache/imagebuilder [--work /dev/shm] [--runs 3] [--compression zstd]
//! ```
//!
//! Takes the largest Tree of the cache (the root file system of an image built before). Needs mksquashfs, and root for
//! the owners of the folder that it reads. Each run is a process of its own, start and loading of the Tree counted.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{largest, load, median, timed};
use imagebuilder::error::{Context, Error, Result};
use imagebuilder::format::squashfs;
use imagebuilder::tree::{Digest, Mtime, host::Folder};

struct Arguments {
    cache: PathBuf,
    work: PathBuf,
    runs: usize,
    compression: String,
    /// Given to the program itself: which Tree to write.
    write: Option<Digest>,
}

fn arguments() -> Result<Arguments> {
    let usage = || {
        Error::build(
            "usage: cargo bench --bench squashfs -- --cache FOLDER [--work FOLDER] [--runs N] [--compression NAME]",
        )
    };
    let (cache, work) = (PathBuf::new(), "/dev/shm".into());
    let mut out = Arguments { cache, work, runs: 3, compression: "zstd".into(), write: None };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(usage)?;
        match word.as_str() {
            "--cache" => out.cache = value.into(),
            "--work" => out.work = value.into(),
            "--runs" => out.runs = value.parse().map_err(|_| usage())?,
            "--compression" => out.compression = value,
            "--write" => out.write = Some(Digest::from_hex(&value).ok_or_else(usage)?),
            _ => return Err(usage()),
        }
    }
    if out.cache.as_os_str().is_empty() { Err(usage()) } else { Ok(out) }
}

fn main() -> Result<()> {
    // `cargo test --benches` must not need a cache.
    if std::env::args().len() < 2 || std::env::args().any(|word| word == "--test") {
        println!("skipped: cargo bench --bench squashfs -- --cache FOLDER");
        return Ok(());
    }
    let arguments = arguments()?;
    match arguments.write {
        Some(key) => write(&arguments, key),
        None => compare(&arguments),
    }
}

/// One run of ours; says what its peak memory was.
fn write(arguments: &Arguments, key: Digest) -> Result<()> {
    let tree = load(&arguments.cache, key)?;
    let file = std::fs::File::create(arguments.work.join("ours.squashfs")).context("making the image")?;
    let options = squashfs::Options {
        compression: squashfs::Compression::named(&arguments.compression, None)?,
        time: Mtime { seconds: 1_700_000_000, nanoseconds: 0 },
        ..squashfs::Options::default()
    };
    squashfs::write(&tree, &file, 0, &options, &|_| ())?;
    let status = std::fs::read_to_string("/proc/self/status").context("reading the peak memory")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("?");
    println!("{}", peak.trim());
    Ok(())
}

fn compare(arguments: &Arguments) -> Result<()> {
    let (key, tree) = largest(&arguments.cache)?;
    println!("tree {key}: {} entries", tree.len());
    let work =
        tempfile::Builder::new().prefix("bench-squashfs-").tempdir_in(&arguments.work).context("making a folder")?;
    let mut folder = Folder::create(&work.path().join("folder"))?;
    folder.show(&tree)?;
    drop(tree);
    let (ours, theirs) = (work.path().join("ours.squashfs"), work.path().join("theirs.squashfs"));
    let mut walls = [Vec::new(), Vec::new()];
    // The first round warms up.
    for round in 0..=arguments.runs {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.arg("--cache").arg(&arguments.cache).arg("--work").arg(work.path());
        command.args(["--compression", &arguments.compression, "--write", &key.to_hex()]);
        let mine = timed(&mut command)?;
        let _ = std::fs::remove_file(&theirs);
        let mut mksquashfs = Command::new("mksquashfs");
        mksquashfs.arg(folder.path()).arg(&theirs).args(["-no-progress", "-quiet", "-comp", &arguments.compression]);
        let other = timed(mksquashfs.env("SOURCE_DATE_EPOCH", "1700000000"))?;
        println!("run {round}: ours {:.2} s ({} peak), mksquashfs {:.2} s", mine.0, mine.1.trim(), other.0);
        if round > 0 {
            walls[0].push(mine.0);
            walls[1].push(other.0);
        }
    }
    let size = |path: &Path| path.metadata().map(|about| about.len()).context("looking at an image");
    let (own_size, their_size) = (size(&ours)?, size(&theirs)?);
    let [own, their] = walls.map(median);
    println!("{}: ours {own:.2} s, mksquashfs {their:.2} s, ratio {:.2}", arguments.compression, own / their);
    println!("size: ours {own_size}, mksquashfs {their_size}, ratio {:.3}", own_size as f64 / their_size as f64);
    drop(folder);
    Ok(())
}
