//! What differs between two images, from the outside in: paths, packages, partition table, structures, the file.
//!
//! Owns: [`report`], everything that differs, and [`difference`], the first thing that does. When the Trees are equal
//! and the bytes are not, the structure at the first differing offset of every region is named.

mod bytes;
mod paths;

use std::fmt;
use std::path::Path;

use serde::Serialize;

pub use self::paths::{Aspect, Change, What, kind, packages};
use super::image::{Container, Image, again};
use super::listing::Listing;
use super::source::{FileSource, Source};
use crate::error::{Error, Result};
use crate::tree::TreePath;

/// How much a report holds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub paths: usize,
    pub structures: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { paths: 1000, structures: 20 }
    }
}

/// A place of the disk, or of the file, at which the bytes differ though all the paths are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spot {
    /// Of the disk, in bytes.
    pub offset: u64,
    pub structure: String,
}

/// Everything that differs. Nothing in it means that the files are the same bytes.
#[derive(Debug, Default)]
pub struct Report {
    /// Format, size of the disk, partitions, file systems.
    pub disk: Vec<Aspect>,
    pub packages: Vec<Aspect>,
    pub paths: Vec<Change>,
    /// There are more than the report holds.
    pub more_paths: bool,
    pub structures: Vec<Spot>,
    /// Offsets of the image file, when the disk in it is the same.
    pub file: Option<Spot>,
}

impl Report {
    pub fn is_equal(&self) -> bool {
        self.first().is_none()
    }

    /// The first difference: a path says more than a structure.
    pub fn first(&self) -> Option<Difference> {
        if let Some(change) = self.paths.first() {
            return Some(Difference::Path { path: change.path.clone(), what: change.what.clone() });
        }
        // What cannot be read has a place, which says more.
        if let Some(spot) = self.structures.first() {
            return Some(Difference::Structure(spot.clone()));
        }
        if let Some(aspect) = self.disk.first() {
            return Some(Difference::Disk(aspect.clone()));
        }
        self.file.clone().map(Difference::File)
    }
}

/// The first difference of two images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    Path {
        path: TreePath,
        what: What,
    },
    /// Format, size, partitions.
    Disk(Aspect),
    /// At an offset of the disk.
    Structure(Spot),
    /// At an offset of the image file; the disk in it is the same.
    File(Spot),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Path { path, what: What::Removed } => write!(f, "{path} is in the first only"),
            Difference::Path { path, what: What::Added } => write!(f, "{path} is in the second only"),
            Difference::Path { path, what: What::Changed(aspects) } => {
                let text: Vec<String> = aspects.iter().map(Aspect::to_string).collect();
                write!(f, "{path}: {}", text.join(", "))
            }
            Difference::Disk(aspect) => write!(f, "{aspect}"),
            Difference::Structure(spot) => write!(f, "{} (byte {} of the disk)", spot.structure, spot.offset),
            Difference::File(spot) => write!(f, "{} (byte {} of the file)", spot.structure, spot.offset),
        }
    }
}

/// Names the path or the structure of the first difference of two files; `None` when they are the same bytes. Files
/// that are no images are compared too: then it is a line, or an offset.
pub fn difference(left: &Path, right: &Path) -> Result<Option<Difference>> {
    let (one, two) = (FileSource::open(left)?, FileSource::open(right)?);
    let Some(offset) = file_difference(&one, &two)? else { return Ok(None) };
    match (Image::open(left), Image::open(right)) {
        (Ok(left), Ok(right)) => Ok(report(&left, &right, Limits { paths: 1, structures: 1 })?.first()),
        (Ok(readable), Err(_)) | (Err(_), Ok(readable)) => {
            let structure = bytes::name_in_file(&readable, offset.min(readable.file.size().saturating_sub(1)))?;
            Ok(Some(Difference::File(Spot { offset, structure })))
        }
        _ => Ok(Some(Difference::File(Spot { offset, structure: plain_place(&one, offset)? }))),
    }
}

/// The first differing byte; that behind the end of the shorter one when it is the start of the longer one.
fn file_difference(left: &dyn Source, right: &dyn Source) -> Result<Option<u64>> {
    let common = left.size().min(right.size());
    let found = bytes::first_difference(left, right, 0..common)?;
    Ok(found.or_else(|| (left.size() != right.size()).then_some(common)))
}

/// The line of a text, for small files.
fn plain_place(file: &dyn Source, offset: u64) -> Result<String> {
    const LIMIT: u64 = 16 << 20;
    if offset > LIMIT {
        return Ok("the bytes".to_owned());
    }
    let head = file.bytes(0, offset.min(file.size()) as usize)?;
    match std::str::from_utf8(&head) {
        Ok(text) => Ok(format!("line {}", text.matches('\n').count() + 1)),
        Err(_) => Ok("the bytes".to_owned()),
    }
}

/// Compares everything, as far as the limits go. An image that cannot be read is a difference too, and its bytes are
/// named with the help of the other one.
pub fn report(left: &Image, right: &Image, limits: Limits) -> Result<Report> {
    let mut report = Report { disk: disks(left, right), ..Report::default() };
    let listing = |image: &Image| image.mounted().map(|mounted| mounted.listing);
    let (one, two) = (listing(left), listing(right));
    // Who knows the names.
    let guide = if one.is_ok() { left } else { right };
    match (&one, &two) {
        (Ok(one), Ok(two)) => {
            (report.paths, report.more_paths) = paths::paths(one, two, limits.paths)?;
            if !report.paths.is_empty() {
                report.packages = paths::package_changes(one, two)?;
            }
        }
        (Err(error), Err(_)) => return Err(again(error)),
        _ => {
            let said = |listing: &Result<Listing>| listing.as_ref().err().map_or("yes".to_owned(), Error::to_string);
            report.disk.push(Aspect::new("readable", said(&one), said(&two)));
        }
    }
    drop((one, two));
    if report.paths.is_empty() {
        report.structures = structures(left, right, guide, limits.structures)?;
    }
    if report.paths.is_empty() && report.structures.is_empty() && left.container.name() == right.container.name() {
        report.file = file_difference(&*left.file, &*right.file)?
            .map(|offset| Ok::<_, Error>(Spot { offset, structure: bytes::name_in_file(guide, offset)? }))
            .transpose()?;
    }
    Ok(report)
}

/// Format, size, partitions and file systems.
fn disks(left: &Image, right: &Image) -> Vec<Aspect> {
    let mut out = Vec::new();
    let mut note = |what: &str, left: String, right: String| {
        if left != right {
            out.push(Aspect::new(what, left, right));
        }
    };
    note("format", left.container.name().to_owned(), right.container.name().to_owned());
    let archive = |image: &Image| matches!(image.container, Container::Tar(_));
    if archive(left) || archive(right) {
        return out;
    }
    note("size of the disk", left.disk.size().to_string(), right.disk.size().to_string());
    let guid = |image: &Image| image.table.as_ref().map(|table| table.disk_guid.to_string()).unwrap_or_default();
    note("disk identifier", guid(left), guid(right));
    let count = left.volumes.len().max(right.volumes.len());
    for index in 0..count {
        let describe = |image: &Image| image.volumes.get(index).map(volume).unwrap_or_default();
        note(&format!("partition {}", index + 1), describe(left), describe(right));
    }
    out
}

fn volume(volume: &super::image::Volume) -> String {
    let partition = volume.partition.as_ref().map(|partition| {
        let (start, size) = (partition.start, partition.size);
        let (guid, kind, attributes) = (partition.guid, partition.type_guid, partition.attributes);
        format!("at {start} size {size} type {kind} id {guid} attributes {attributes} name `{}` ", partition.name)
    });
    let file_system = match &volume.file_system {
        Ok(Some(found)) => format!("{} {} label `{}`", found.name(), found.uuid(), found.label()),
        Ok(None) => "no file system".to_owned(),
        Err(error) => format!("unreadable: {error}"),
    };
    partition.unwrap_or_default() + &file_system
}

/// The first differing place of every region of the disk.
fn structures(left: &Image, right: &Image, guide: &Image, limit: usize) -> Result<Vec<Spot>> {
    let archive = |image: &Image| matches!(image.container, Container::Tar(_));
    let mut spots = Vec::new();
    if archive(left) || archive(right) {
        return Ok(spots);
    }
    let end = left.disk.size().min(right.disk.size());
    let mut at = 0;
    while at < end && spots.len() < limit {
        // A disk that cannot be read to its end is told by the bytes of the file.
        let Ok(Some(offset)) = bytes::first_difference(&*left.disk, &*right.disk, at..end) else { break };
        let (structure, next) = bytes::name_on_disk(guide, offset)?;
        spots.push(Spot { offset, structure });
        at = next.max(offset + 1);
    }
    crate::interrupt::check()?;
    Ok(spots)
}
