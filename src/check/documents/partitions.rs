//! Rules on `storage.partitions`.

use super::Subject;
use crate::api::params::storage::{Partition, Position};
use crate::document::Diagnostic;

/// The list as written; empty means the default layout, which satisfies every rule.
fn partitions<'a>(subject: &Subject<'a>) -> &'a [Partition] {
    &subject.image.spec.params.storage.partitions
}

fn on(subject: &Subject, index: usize, field: &str, message: String) -> Diagnostic {
    subject.on(&format!("/storage/partitions/{index}/{field}"), message)
}

pub(super) fn mount_once(subject: &Subject) -> Vec<Diagnostic> {
    let partitions = partitions(subject);
    let mut found = Vec::new();
    for (index, partition) in partitions.iter().enumerate().filter(|(_, partition)| partition.mount != "none") {
        let Some(first) = partitions[..index].iter().position(|other| same_mount(&other.mount, &partition.mount))
        else {
            continue;
        };
        let message = format!("partitions {} and {} are both mounted at `{}`", first + 1, index + 1, partition.mount);
        let mut diagnostic = on(subject, index, "mount", message);
        if let Some(node) = subject.document.pointer(&format!("/spec/params/storage/partitions/{first}/mount")) {
            diagnostic = diagnostic.note(&node.origin.at, "the first one");
        }
        found.push(diagnostic);
    }
    found
}

fn same_mount(one: &str, other: &str) -> bool {
    let parts = |path: &str| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    one.starts_with('/') && other.starts_with('/') && parts(one) == parts(other)
}

pub(super) fn root_present(subject: &Subject) -> Vec<Diagnostic> {
    let partitions = partitions(subject);
    if partitions.is_empty() || partitions.iter().any(|partition| same_mount(&partition.mount, "/")) {
        return Vec::new();
    }
    vec![subject.on("/storage/partitions", "no partition is mounted at `/`").hint("give one `mount: /`")]
}

/// Of the disk; `None` when the partitions decide.
fn disk_size(subject: &Subject) -> Option<u64> {
    subject.image.spec.params.storage.qcow_capacity.bytes()
}

/// In bytes; `None` for what is no place, or one that cannot be known yet.
fn place(subject: &Subject, text: Option<&str>) -> Option<u64> {
    match (Position::parse(text?)?, disk_size(subject)) {
        (Position::Bytes(bytes), _) => Some(bytes),
        (position, disk) => position.resolve(disk?),
    }
}

/// Start and end in bytes, when both are known from the documents alone.
fn placed(subject: &Subject, partition: &Partition) -> Option<(u64, u64)> {
    let start = place(subject, partition.part_start.as_deref())?;
    let end = match partition.size {
        Some(size) => start.checked_add(size.bytes()?)?,
        None => place(subject, partition.part_end.as_deref())?,
    };
    Some((start, end))
}

/// Either an end or a size, and a size by content only where there is content.
pub(super) fn size(subject: &Subject) -> Vec<Diagnostic> {
    let storage = &subject.image.spec.params.storage;
    let mut found = Vec::new();
    for (index, partition) in partitions(subject).iter().enumerate() {
        let number = index + 1;
        let mut complain = |field: &str, message: String, hint: &str| {
            found.push(on(subject, index, field, message).hint(hint));
        };
        match (&partition.part_end, partition.size) {
            (Some(_), Some(_)) => {
                let message = format!("partition {number} has both `part_end` and `size`");
                complain("size", message, "leave one of them out");
            }
            (None, None) => {
                let message = format!("partition {number} has neither `part_end` nor `size`");
                complain("mount", message, "`size: auto` makes it as large as its content wants");
            }
            _ => {}
        }
        let follows = storage.follows_content(partition);
        if follows && partition.filesystem.is_none() {
            let field = if partition.size.is_some() { "size" } else { "part_end" };
            let message = format!("partition {number} has no file system whose content its size could follow");
            complain(field, message, "give it a size such as `size: 1MiB`");
        }
        if !follows && partition.headroom.is_some() {
            let message = format!("partition {number} has a size of its own, `headroom` means nothing there");
            complain("headroom", message, "leave it out, or write `size: auto`");
        }
        let relative = |text: &Option<String>| {
            let position = text.as_deref().and_then(Position::parse);
            position.is_some_and(|position| !matches!(position, Position::Bytes(_)))
        };
        for (field, text) in [("part_start", &partition.part_start), ("part_end", &partition.part_end)] {
            if disk_size(subject).is_none() && relative(text) && !(follows && field == "part_end") {
                let message = format!("`{field}` of partition {number} counts by the size of a disk that has none yet");
                complain(
                    field,
                    message,
                    "with `qcow_capacity: auto`, give places in bytes; `part_end: 100%` is the only exception",
                );
            }
        }
    }
    found
}

pub(super) fn extent(subject: &Subject) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (index, partition) in partitions(subject).iter().enumerate() {
        let number = index + 1;
        for (field, text) in [("part_start", &partition.part_start), ("part_end", &partition.part_end)] {
            if let Some(text) = text.as_deref().filter(|text| Position::parse(text).is_none()) {
                let message = format!("`{text}` is not a place on the disk");
                found.push(on(subject, index, field, message).hint("write it as parted does: `5MiB`, `100%`"));
            }
        }
        let field = if partition.size.is_some() { "size" } else { "part_end" };
        match (placed(subject, partition), disk_size(subject)) {
            (Some((_, end)), Some(disk)) if end > disk => found.push(
                on(subject, index, field, format!("partition {number} ends at {end} bytes, the disk has {disk}"))
                    .hint("raise `qcow_capacity`, or end the partition at `100%`"),
            ),
            (Some((start, end)), _) if start >= end => {
                let message = format!("partition {number} ends at {end} bytes, before or where it starts ({start})");
                found.push(on(subject, index, field, message));
            }
            _ => {}
        }
    }
    found
}

pub(super) fn overlap(subject: &Subject) -> Vec<Diagnostic> {
    let placed = |(index, partition)| placed(subject, partition).map(|(start, end)| (start, end, index));
    let mut extents: Vec<(u64, u64, usize)> = partitions(subject).iter().enumerate().filter_map(placed).collect();
    extents.retain(|(start, end, _)| start < end);
    extents.sort_unstable();
    let mut found = Vec::new();
    for pair in extents.windows(2) {
        let ((start, end, one), (next_start, next_end, other)) = (pair[0], pair[1]);
        if next_start < end {
            let message = format!(
                "partition {} ({next_start} to {next_end} bytes) overlaps partition {} ({start} to {end} bytes)",
                other + 1,
                one + 1
            );
            let mut diagnostic = on(subject, other, "part_start", message);
            let end = if partitions(subject)[one].size.is_some() { "size" } else { "part_end" };
            if let Some(node) = subject.document.pointer(&format!("/spec/params/storage/partitions/{one}/{end}")) {
                diagnostic = diagnostic.note(&node.origin.at, format!("partition {} ends here", one + 1));
            }
            found.push(diagnostic);
        }
    }
    found
}

fn has_flag(subject: &Subject, flags: &[&str]) -> bool {
    let partitions = partitions(subject);
    partitions.is_empty()
        || partitions.iter().any(|partition| partition.flags.iter().any(|flag| flags.contains(&flag.as_str())))
}

const ESP: &[&str] = &["esp", "boot"];
const BIOS: &[&str] = &["bios_grub"];

pub(super) fn bootable(subject: &Subject) -> Vec<Diagnostic> {
    if has_flag(subject, ESP) || has_flag(subject, BIOS) {
        return Vec::new();
    }
    let message = "no partition to boot from: neither flag `esp` (UEFI) nor flag `bios_grub` (BIOS)";
    vec![subject.on("/storage/partitions", message).hint("add `flags: [esp]` to the partition of `/boot/efi`, and a small one with `mount: none` and `flags: [bios_grub]`")]
}

pub(super) fn bootable_both_ways(subject: &Subject) -> Vec<Diagnostic> {
    let message = match (has_flag(subject, ESP), has_flag(subject, BIOS)) {
        (true, false) => "no partition with flag `bios_grub`: the image boots by UEFI only",
        (false, true) => "no partition with flag `esp`: the image boots by BIOS only",
        _ => return Vec::new(),
    };
    vec![subject.on("/storage/partitions", message)]
}

pub(super) fn root_first(subject: &Subject) -> Vec<Diagnostic> {
    match partitions(subject).iter().position(|partition| same_mount(&partition.mount, "/")) {
        Some(index) if index > 0 => {
            let message = format!(
                "root is partition {}; Ironic places a config drive relative to a root in partition 1",
                index + 1
            );
            vec![
                on(subject, index, "mount", message)
                    .hint("list the partition of `/` first; its place on the disk can stay"),
            ]
        }
        _ => Vec::new(),
    }
}
