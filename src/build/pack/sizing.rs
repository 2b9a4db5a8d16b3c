//! Sizes of partitions against what is to go into them, before anything is written.
//!
//! Owns: [`settle`], which gives partitions that follow their content a size, and [`shortage`], which says what the
//! others lack. Pure; both rest on what the writers of the file systems require, which is exact.

use std::collections::BTreeMap;

use super::file_system;
use super::split::Part;
use crate::boot::layout::{Layout, MIB};
use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;
use crate::report::Reporter;

/// Where a value of `params` was written, by its JSON pointer.
pub type Places<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The layout with a size for every partition that follows its content: what the file system requires, headroom on top
/// of it, and up to whole MiB.
pub fn settle(layout: &Layout, parts: &[Part<'_>], epoch: i64, reporter: &Reporter) -> Result<Layout> {
    let mut sizes = BTreeMap::new();
    for part in parts {
        let Some(headroom) = layout.headroom(part.partition) else { continue };
        interrupt::check()?;
        let context = || format!("sizing {}", part.partition.describe());
        let least = file_system::required(part, epoch, 0).with_context(context)?;
        let mut size = headroom.on_top_of(least);
        // More room can mean more metadata; the size itself must be one that works.
        loop {
            size = size.checked_next_multiple_of(MIB).ok_or_else(|| {
                Error::new(Kind::Documents, format!("{}: the headroom is too large", part.partition.describe()))
            })?;
            let works = file_system::required(part, epoch, size).with_context(context)?;
            if works <= size {
                break;
            }
            size = works;
        }
        reporter.note(format!(
            "{}: {} MiB, {} of them for the content",
            part.partition.describe(),
            size / MIB,
            least.div_ceil(MIB)
        ));
        sizes.insert(part.partition.number, size);
    }
    if sizes.is_empty() { Ok(layout.clone()) } else { layout.settle(&sizes) }
}

/// Required and available bytes of a partition that is too small, and where its size was written.
pub fn shortage(part: &Part<'_>, epoch: i64, places: &Places<'_>) -> Result<String> {
    let partition = part.partition;
    let required = file_system::required(part, epoch, partition.size)?;
    let mut written: Vec<String> = Vec::new();
    let pointer = format!("/storage/partitions/{}", partition.number - 1);
    for pointer in [format!("{pointer}/size"), format!("{pointer}/part_end"), "/storage/qcow_capacity".to_owned()] {
        written.extend(places(&pointer));
    }
    let place = if written.is_empty() { String::new() } else { format!(" ({})", written.join(", ")) };
    Ok(format!(
        "{}: the content needs {required} bytes for {} files and folders, the partition has {}{place}",
        partition.describe(),
        part.tree.len(),
        partition.size,
    ))
}
