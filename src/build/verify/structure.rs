//! What our own readers say of an image's structure.
//!
//! Owns: opening it ([`open`]) and what is checked of its partition table and of each file system. The reading is
//! `inspect`'s, which takes nothing for granted.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{CONTAINER, FILE_SYSTEM, Outcomes, PARTITIONS, Verdict};
use crate::error::{Context, Error, Kind, Result};
use crate::inspect::image::{Container, FileSystem, Image, Volume};
use crate::report::words;

/// Shorter files are no images.
const SHORTEST: u64 = 1024;

/// Opens an image; nothing if that is an outcome.
pub(super) fn open(path: &Path, outcomes: &mut Outcomes) -> Result<Option<Image>> {
    let context = || format!("reading {}", path.display());
    let metadata = File::open(path).and_then(|file| file.metadata()).with_context(context)?;
    if !metadata.is_file() || metadata.len() < SHORTEST {
        return Err(Error::new(Kind::Usage, format!("{} is not an image", path.display())));
    }
    match Image::open(path) {
        Ok(image) => {
            let size = match image.container {
                Container::Tar(_) => format!(", {} entries", image.mounted()?.listing.len()),
                _ => format!(", disk of {}", words::bytes(image.disk.size())),
            };
            outcomes.add(CONTAINER, Verdict::Ok, "", format!("{}{size}", image.container.name()));
            Ok(Some(image))
        }
        Err(error) if error.kind() == Kind::Interrupted => Err(error),
        Err(error) => {
            outcomes.add(CONTAINER, Verdict::Failed, "", error.to_string());
            Ok(None)
        }
    }
}

/// What qemu-img calls a format; nothing for those that are no disks.
pub(super) fn qemu_format(container: &Container) -> Option<&'static str> {
    match container {
        Container::Raw => Some("raw"),
        Container::Qcow2(_) => Some("qcow2"),
        Container::Vmdk(_) => Some("vmdk"),
        Container::Vhd(_) => Some("vpc"),
        Container::Iso | Container::Tar(_) => None,
    }
}

pub(super) fn partition_table(image: &Image, outcomes: &mut Outcomes) {
    match &image.table {
        None => outcomes.add(PARTITIONS, Verdict::Skipped, "", "there is none"),
        Some(table) if table.complaints.is_empty() => {
            outcomes.add(PARTITIONS, Verdict::Ok, "", format!("{} partitions", table.partitions.len()));
        }
        Some(table) => outcomes.add(PARTITIONS, Verdict::Failed, "", table.complaints.join("; ")),
    }
}

/// Reads all metadata of a file system, and compares its size with that of its partition.
pub(super) fn file_system(volume: &Volume, outcomes: &mut Outcomes) -> Result<()> {
    let result = match &volume.file_system {
        Ok(None) => {
            outcomes.add(FILE_SYSTEM, Verdict::Skipped, &volume.describe(), "none that is known here");
            return Ok(());
        }
        Ok(Some(file_system)) => look_through(file_system, volume.source.size()),
        Err(error) => Err(Error::new(error.kind(), error.to_string())),
    };
    match result {
        Err(error) if error.kind() == Kind::Interrupted => Err(error),
        result => {
            outcomes.of(FILE_SYSTEM, &volume.describe(), result.map_err(|error| error.to_string()));
            Ok(())
        }
    }
}

fn look_through(file_system: &FileSystem, room: u64) -> Result<String> {
    let (size, _) = file_system.size();
    if size > room {
        return Err(Error::build(format!("the file system has {size} bytes, its partition {room}")));
    }
    let entries = file_system.listing()?.len();
    Ok(format!("{}, {} of {}, {entries} entries", file_system.name(), words::bytes(size), words::bytes(room)))
}

/// The disk of an image as a raw file, holes and all.
pub(super) struct Disk {
    pub path: PathBuf,
    file: File,
    pub size: u64,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let context = || format!("opening {}", path.display());
        let file = File::open(path).with_context(context)?;
        let size = file.metadata().with_context(context)?.len();
        Ok(Disk { path: path.to_owned(), file, size })
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).with_context(|| format!("reading {}", self.path.display()))
    }
}
