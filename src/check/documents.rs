//! Rules on one image's documents: AirshipImage, the NodeProfiles beside it, the ImageConfiguration that builds it.
//!
//! Owns: the table [`RULES`] and [`run`]. Sizes against content are checked when the disk is packed.

mod image;
mod partitions;
#[cfg(test)]
mod tests;

use super::{Finding, Severity};
use crate::api::{AirshipImage, ImageConfiguration};
use crate::document::{Diagnostic, Node};

/// One image and what belongs to it.
pub struct Subject<'a> {
    pub image: &'a AirshipImage,
    /// The document `image` was decoded from.
    pub document: &'a Node,
    /// The NodeProfile documents rendered with it.
    pub profiles: Vec<&'a Node>,
    /// What is to be produced, with its document, when that is known.
    pub executor: Option<(&'a ImageConfiguration, &'a Node)>,
}

/// One rule.
pub struct Rule {
    pub id: &'static str,
    pub severity: Severity,
    pub description: &'static str,
    check: fn(&Subject) -> Vec<Diagnostic>,
}

const fn error(id: &'static str, description: &'static str, check: fn(&Subject) -> Vec<Diagnostic>) -> Rule {
    Rule { id, severity: Severity::Error, description, check }
}

const fn warning(id: &'static str, description: &'static str, check: fn(&Subject) -> Vec<Diagnostic>) -> Rule {
    Rule { id, severity: Severity::Warning, description, check }
}

pub const RULES: &[Rule] = &[
    error("node-profile", "`spec.nodeProfile` names a NodeProfile that is there", image::node_profile),
    error(
        "patch-after-copy",
        "the areas of the AirshipImage equal those of its NodeProfile: a patch after the copy would be lost on one side",
        image::patch_after_copy,
    ),
    error("release-known", "distribution and release are ones that images can be built of", image::release_known),
    error("architecture-known", "the architecture is one that images can be built for", image::architecture_known),
    error("repositories", "there is a repository to install from, and each is complete", image::repositories),
    error("password-hash", "passwords are crypt(5) hashes, never clear text", image::password_hash),
    error("output-file-name", "the image's file name fits its type", image::output_file_name),
    error("mount-once", "no two partitions share a mount point", partitions::mount_once),
    error("root-present", "a partition is mounted at `/`", partitions::root_present),
    error("partition-size", "each partition has an end or a size, and what follows content has some", partitions::size),
    error("partition-extent", "each partition lies on the disk and has a size", partitions::extent),
    error("partition-overlap", "no two partitions share a place on the disk", partitions::overlap),
    error("boot-partition", "there is an EFI system partition or a BIOS boot partition", partitions::bootable),
    warning("boot-both-ways", "the image boots by BIOS as well as by UEFI", partitions::bootable_both_ways),
    warning(
        "root-first",
        "root is the first partition: Ironic places config drives relative to it",
        partitions::root_first,
    ),
];

/// Runs every rule, in the order of the table.
pub fn run(subject: &Subject) -> Vec<Finding> {
    let found = |rule: &Rule| {
        let wrap = |diagnostic| Finding { rule: rule.id, severity: rule.severity, diagnostic };
        (rule.check)(subject).into_iter().map(wrap).collect::<Vec<_>>()
    };
    RULES.iter().flat_map(found).collect()
}

impl Subject<'_> {
    /// A diagnostic on the value at a JSON pointer below `spec.params`, or on what comes nearest above it.
    fn on(&self, pointer: &str, message: impl Into<String>) -> Diagnostic {
        on(self.document, &format!("/spec/params{pointer}"), message)
    }
}

fn on(document: &Node, pointer: &str, message: impl Into<String>) -> Diagnostic {
    let mut pointer = pointer;
    loop {
        if let Some(node) = document.pointer(pointer) {
            return Diagnostic::on(node, message);
        }
        pointer = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
}

/// A key as a token of a JSON pointer.
fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
