//! Is an image file what it should be: its own checksums, its structure, and what independent readers say.
//!
//! Owns: [`image`], the checks by name ([`CHECKS`]) and their [`Outcome`]s. Our own code looks at the files beside the
//! image ([`published`]) and, by the readers of `inspect`, at container, partition table and file systems
//! ([`structure`]); e2fsck, fsck.fat, sgdisk
//! and qemu-img, which know nothing of us, come from the tools tree and run in the sandbox ([`readers`]). The image is
//! never written to. A check that finds something is an outcome; `Err` means that a check could not be made.

mod published;
mod readers;
mod structure;

use std::path::Path;

use serde::Serialize;

use super::toolstree::Tools;
use crate::error::{Error, Kind, Result};
use crate::inspect::image::Container;
use crate::report::Reporter;

/// One check, for the documentation and for `-o json`.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    pub name: &'static str,
    pub about: &'static str,
}

const fn check(name: &'static str, about: &'static str) -> Check {
    Check { name, about }
}

pub const SHA256: Check = check("sha256", "`<image>.sha256` holds the digest of the file, and nothing else");
pub const MD5SUM: Check = check("md5sum", "`<image>.md5sum` holds the digest of the file, and nothing else");
pub const METADATA: Check =
    check("output-metadata", "the output metadata has the file's name, format, sizes and digests");
pub const LOCK: Check = check("lock", "the lock beside the image can be read");
pub const CONTAINER: Check =
    check("container", "the image format is known, its header is whole, and it needs no other file");
pub const PARTITIONS: Check =
    check("partition-table", "both GPT headers have their checksums; partitions lie on the disk and do not overlap");
pub const FILE_SYSTEM: Check = check(
    "file-system",
    "our own reader gets through all folders of a file system, which is not larger than its partition",
);
pub const QEMU_IMG: Check = check("qemu-img", "`qemu-img check` and `info`: format, clusters, reference counts, size");
pub const SGDISK: Check = check("sgdisk", "`sgdisk -v` finds no problem in the partition table");
pub const E2FSCK: Check = check("e2fsck", "`e2fsck -fn` finds nothing to repair");
pub const FSCK_FAT: Check = check("fsck.fat", "`fsck.fat -n` finds nothing to repair");

/// All of them, in the order they are made.
pub const CHECKS: [Check; 11] =
    [SHA256, MD5SUM, METADATA, LOCK, CONTAINER, QEMU_IMG, PARTITIONS, SGDISK, FILE_SYSTEM, E2FSCK, FSCK_FAT];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Nothing to look at.
    Skipped,
    Failed,
}

/// What one check says of one image, or of a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub check: &'static str,
    pub verdict: Verdict,
    /// "partition 1", or nothing when it is about the whole file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub part: String,
    pub detail: String,
}

/// Outcomes as they come.
#[derive(Default)]
struct Outcomes(Vec<Outcome>);

impl Outcomes {
    fn add(&mut self, check: Check, verdict: Verdict, part: &str, detail: impl Into<String>) {
        self.0.push(Outcome { check: check.name, verdict, part: part.to_owned(), detail: detail.into() });
    }

    /// `Ok` has the words for a good result, `Err` the problem.
    fn of(&mut self, check: Check, part: &str, result: Result<String, String>) {
        match result {
            Ok(detail) => self.add(check, Verdict::Ok, part, detail),
            Err(problem) => self.add(check, Verdict::Failed, part, problem),
        }
    }
}

/// What is looked at, and with what.
pub struct Request<'a> {
    pub image: &'a Path,
    /// The independent readers; without them only our own checks are made.
    pub tools: Option<&'a Tools<'a>>,
    /// An empty folder with room for the content of the image ([`space_needed`]).
    pub scratch: &'a Path,
    pub reporter: &'a Reporter,
}

/// Bytes that a work area for one image should hold.
pub fn space_needed(image: &Path) -> u64 {
    let length = std::fs::metadata(image).map(|metadata| metadata.len()).unwrap_or(0);
    // The tools themselves, and clusters that zstd made an eighth of what they were.
    length.saturating_mul(8).saturating_add(512 << 20)
}

/// Makes all checks that apply.
pub fn image(request: &Request<'_>) -> Result<Vec<Outcome>> {
    let step = request.reporter.step(format!("verify {}", request.image.display()));
    let mut outcomes = Outcomes::default();
    let image = structure::open(request.image, &mut outcomes)?;
    published::check(request.image, image.as_ref(), &mut outcomes)?;
    if let Some(image) = &image {
        let disk = readers::disk(request, image, &mut outcomes)?;
        if !matches!(image.container, Container::Tar(_)) {
            structure::partition_table(image, &mut outcomes);
        }
        if let Some(disk) = disk.as_ref().filter(|_| image.table.is_some()) {
            readers::partition_table(request, disk, &mut outcomes)?;
        }
        for volume in &image.volumes {
            structure::file_system(volume, &mut outcomes)?;
            if let Some(disk) = &disk {
                readers::file_system(request, disk, volume, &mut outcomes)?;
            }
        }
    }
    let failed = outcomes.0.iter().filter(|outcome| outcome.verdict == Verdict::Failed).count();
    step.finish(format!("{} checks, {failed} failed", outcomes.0.len()));
    Ok(outcomes.0)
}

/// An error that names what was found, if anything was.
pub fn enforce(image: &Path, outcomes: &[Outcome]) -> Result<()> {
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.verdict == Verdict::Failed)
        .map(|outcome| {
            let part = if outcome.part.is_empty() { String::new() } else { format!(", {}", outcome.part) };
            format!("{}{part}: {}", outcome.check, outcome.detail)
        })
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Checks, format!("{} is not sound: {}", image.display(), failed.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_every_check() {
        let guide = include_str!("../../../docs/guide/verify.md");
        for check in CHECKS {
            assert!(guide.contains(&format!("| `{}` | {} |", check.name, check.about)), "{}", check.name);
        }
    }

    #[test]
    fn what_is_found_is_named() {
        let mut outcomes = Outcomes::default();
        outcomes.of(SGDISK, "", Ok("fine".into()));
        assert!(enforce(Path::new("x.raw"), &outcomes.0).is_ok());
        outcomes.of(E2FSCK, "partition 4", Err("bad".into()));
        let error = enforce(Path::new("x.raw"), &outcomes.0).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (Kind::Checks, "x.raw is not sound: e2fsck, partition 4: bad")
        );
    }
}
