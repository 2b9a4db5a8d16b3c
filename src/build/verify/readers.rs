//! What programs that know nothing of us say of an image: e2fsck, fsck.fat, sgdisk, qemu-img.
//!
//! Owns: how each is called and how its answer is read. They come from the tools tree, run in the sandbox and get the
//! image read-only. The format is always named, so that no program guesses from bytes that a node can write.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde_json::Value;

use super::structure::{self, Disk};
use super::{Check, E2FSCK, FSCK_FAT, Outcomes, QEMU_IMG, Request, SGDISK, Verdict};
use crate::build::toolstree::{Input, OUTPUT, Program, Tools};
use crate::error::{Context, Result};
use crate::inspect::ext4::Ext4;
use crate::inspect::fat::Fat;
use crate::inspect::image::{Container, Image, Volume};
use crate::interrupt;
use crate::sandbox::Finished;

/// Without independent readers.
const NO_READERS: &str = "no independent readers";
/// What is copied at a time; a power of two.
const BLOCK: u64 = 1 << 20;

/// Lets qemu-img look at the container and gives the disk in it as a raw file; nothing if that cannot be had.
pub(super) fn disk(request: &Request<'_>, image: &Image, outcomes: &mut Outcomes) -> Result<Option<Disk>> {
    if matches!(image.container, Container::Iso) {
        // With its bytes a disk, too.
        return Disk::open(request.image).map(Some);
    }
    let Some(format) = structure::qemu_format(&image.container) else { return Ok(None) };
    let Some(tools) = request.tools else {
        outcomes.add(QEMU_IMG, Verdict::Skipped, "", NO_READERS);
        return Ok(None);
    };
    let input = Input { source: request.image, name: "image" };
    let result = examine(tools, format, image.disk.size(), input)?;
    let whole = result.is_ok();
    outcomes.of(QEMU_IMG, "", result);
    if format == "raw" {
        return Disk::open(request.image).map(Some);
    }
    if !whole {
        return Ok(None);
    }
    let output = request.scratch.join("disk");
    std::fs::create_dir_all(&output).with_context(|| format!("making {}", output.display()))?;
    let target = format!("{OUTPUT}/disk.raw");
    let arguments = ["convert", "-f", format, "-O", "raw", &input.path(), &target];
    let finished = tools.run(Program::QemuImg, &arguments, &[input], Some(&output))?;
    if !finished.success {
        outcomes.add(QEMU_IMG, Verdict::Failed, "", format!("reading the disk: {}", said(&finished)));
        return Ok(None);
    }
    Disk::open(&output.join("disk.raw")).map(Some)
}

/// `qemu-img info` and, for formats that have something to check, `qemu-img check`.
fn examine(tools: &Tools<'_>, format: &str, size: u64, input: Input<'_>) -> Result<Result<String, String>> {
    let info = tools.run(Program::QemuImg, &["info", "-f", format, "--output=json", &input.path()], &[input], None)?;
    if !info.success {
        return Ok(Err(said(&info)));
    }
    let Ok(answer) = serde_json::from_str::<Value>(&info.tail) else {
        return Ok(Err(format!("`qemu-img info` said: {}", said(&info))));
    };
    if answer["virtual-size"].as_u64() != Some(size) {
        return Ok(Err(format!("the disk has {} bytes, we read {size}", answer["virtual-size"])));
    }
    if answer["backing-filename"].is_string() {
        return Ok(Err("it needs another file below it (a backing file)".into()));
    }
    if !matches!(format, "qcow2" | "vmdk") {
        return Ok(Ok(format!("{format}, {size} bytes")));
    }
    let check = tools.run(Program::QemuImg, &["check", "-f", format, &input.path()], &[input], None)?;
    if check.success { Ok(Ok(first_line(&check.tail))) } else { Ok(Err(said(&check))) }
}

pub(super) fn partition_table(request: &Request<'_>, disk: &Disk, outcomes: &mut Outcomes) -> Result<()> {
    let Some(tools) = request.tools else {
        outcomes.add(SGDISK, Verdict::Skipped, "", NO_READERS);
        return Ok(());
    };
    let input = Input { source: &disk.path, name: "disk" };
    let finished = tools.run(Program::Sgdisk, &["-v", &input.path()], &[input], None)?;
    // The exit code is 0 whatever it finds.
    let good = finished.tail.lines().find(|line| line.starts_with("No problems found"));
    outcomes.of(
        SGDISK,
        "",
        match good {
            Some(line) if finished.success => Ok(line.to_owned()),
            _ => Err(said(&finished)),
        },
    );
    Ok(())
}

pub(super) fn file_system(request: &Request<'_>, disk: &Disk, volume: &Volume, outcomes: &mut Outcomes) -> Result<()> {
    let (start, size) = volume.partition.as_ref().map_or((0, disk.size), |found| (found.start, found.size));
    // By its magic number, for one that cannot be read is just what e2fsck is for.
    let check = if Ext4::probe(&*volume.source) {
        E2FSCK
    } else if Fat::probe(&*volume.source) {
        FSCK_FAT
    } else {
        return Ok(());
    };
    judge(request, disk, check, start..start + size, &volume.describe(), outcomes)
}

/// Lets e2fsck or fsck.fat look at a stretch of the disk.
fn judge(
    request: &Request<'_>,
    disk: &Disk,
    check: Check,
    place: Range<u64>,
    name: &str,
    outcomes: &mut Outcomes,
) -> Result<()> {
    let Some(tools) = request.tools else {
        outcomes.add(check, Verdict::Skipped, name, NO_READERS);
        return Ok(());
    };
    let finished = if check.name == E2FSCK.name {
        // ext4 can be checked where it lies.
        let input = Input { source: &disk.path, name: "disk" };
        let place = format!("{}?offset={}", input.path(), place.start);
        tools.run(Program::E2fsck, &["-fn", &place], &[input], None)?
    } else {
        let copy = extract(request, disk, place)?;
        let input = Input { source: &copy, name: "fat" };
        let finished = tools.run(Program::FsckFat, &["-n", &input.path()], &[input], None)?;
        std::fs::remove_file(&copy).with_context(|| format!("removing {}", copy.display()))?;
        finished
    };
    let summary = finished.tail.trim_end().lines().last().unwrap_or_default();
    let summary = summary.split_once(": ").map_or(summary, |(_, rest)| rest).to_owned();
    outcomes.of(check, name, if finished.success { Ok(summary) } else { Err(said(&finished)) });
    Ok(())
}

/// A partition as a file of its own, with holes where it is zero.
fn extract(request: &Request<'_>, disk: &Disk, place: Range<u64>) -> Result<PathBuf> {
    let path = request.scratch.join("partition.raw");
    let context = || format!("writing {}", path.display());
    let file = std::fs::File::create(&path).with_context(context)?;
    file.set_len(place.end - place.start).with_context(context)?;
    let mut buffer = vec![0; BLOCK as usize];
    let mut at = place.start;
    while at < place.end {
        interrupt::check()?;
        let block = &mut buffer[..(place.end - at).min(BLOCK) as usize];
        disk.read(block, at)?;
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, at - place.start).with_context(context)?;
        }
        at += block.len() as u64;
    }
    Ok(path)
}

/// The last lines of what a program said, on one line.
fn said(finished: &Finished) -> String {
    let lines: Vec<&str> = finished.tail.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(6)..].join("; ");
    if last.is_empty() { finished.status.clone() } else { format!("{last} ({})", finished.status) }
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::report::Reporter;
    use crate::sandbox::{Job, Sandbox};
    use crate::tree::Tree;

    /// Answers what it was told to, whatever runs.
    struct Answers {
        success: bool,
        text: &'static str,
    }

    impl Sandbox for Answers {
        fn run(&self, _: &Path, job: &Job, _: &mut dyn FnMut(&str)) -> Result<Finished> {
            assert!(job.binds.iter().all(|bind| bind.read_only), "the image can be written to: {:?}", job.argv);
            let status = if self.success { "exit code 0" } else { "exit code 4" };
            Ok(Finished { success: self.success, status: status.into(), tail: self.text.into() })
        }
    }

    /// What becomes of an answer of sgdisk and of e2fsck.
    fn verdicts(success: bool, text: &'static str) -> Vec<(Verdict, String)> {
        let scratch = tempfile::tempdir().unwrap();
        let image = scratch.path().join("x.raw");
        std::fs::write(&image, [0; 8192]).unwrap();
        let sandbox = Answers { success, text };
        let tools = Tools::unpack(&Tree::new(), &scratch.path().join("tools"), &sandbox).unwrap();
        let reporter = Reporter::quiet();
        let request = Request { image: &image, tools: Some(&tools), scratch: scratch.path(), reporter: &reporter };
        let (disk, mut outcomes) = (Disk::open(&image).unwrap(), Outcomes::default());
        partition_table(&request, &disk, &mut outcomes).unwrap();
        for check in [E2FSCK, FSCK_FAT] {
            judge(&request, &disk, check, 4096..8192, "partition 1", &mut outcomes).unwrap();
        }
        outcomes.0.into_iter().map(|outcome| (outcome.verdict, outcome.detail)).collect()
    }

    #[test]
    fn answers_of_the_readers() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: setting owners needs root");
        }
        let fine = verdicts(true, "Warning\nNo problems found. 5 free sectors\n/mnt/in/disk: 11/16 files\n");
        assert_eq!(fine[0], (Verdict::Ok, "No problems found. 5 free sectors".into()));
        assert_eq!(fine[1], (Verdict::Ok, "11/16 files".into()));
        assert_eq!(fine[2].0, Verdict::Ok);
        // sgdisk ends with 0 all the same.
        let problems = verdicts(true, "Problem: the CRC is bad\nIdentified 1 problems!\n");
        assert_eq!(problems[0].0, Verdict::Failed);
        assert!(problems[0].1.contains("the CRC is bad; Identified 1 problems! (exit code 0)"), "{}", problems[0].1);
        let broken = verdicts(false, "No problems found.\nInode 7 has a wrong count\n");
        assert!(broken.iter().all(|(verdict, _)| *verdict == Verdict::Failed), "{broken:?}");
        assert!(broken[1].1.contains("Inode 7") && broken[1].1.contains("exit code 4"), "{}", broken[1].1);
    }
}
