//! Image files from a disk, and archives from a Tree.
//!
//! Owns: [`Output`], one file to write, and how the documents ask for it.

use std::fs::File;
use std::path::PathBuf;

use uuid::Uuid;

use crate::api::image_configuration::{ImageType, VhdSubformat};
use crate::error::{Context, Error, Result};
use crate::format::disk::DiskImage;
use crate::format::disk::sums::{self, Digests, Spare, State, Sums, Tee};
use crate::format::{qcow2, raw, tar, vhd, vmdk};
use crate::plan::{self, Compression};
use crate::report::{Reporter, Unit, words};
use crate::tree::clusters::Clusters;
use crate::tree::{Kind, Tree};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Raw,
    Qcow2(qcow2::Compression),
    Vmdk,
    Vhd(vhd::Subformat),
    Tar(tar::Compression),
    /// With everything that is not in the Tree: see [`super::Live`].
    Iso,
    /// The script, with the other files beside it: see [`super::netboot`].
    Netboot,
}

impl Format {
    /// As qemu-img, Metal3 and Glance call it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2(_) => "qcow2",
            Format::Vmdk => "vmdk",
            Format::Vhd(_) => "vhd",
            Format::Tar(_) => "tar",
            Format::Iso => "iso",
            Format::Netboot => "ipxe",
        }
    }

    /// Whether it holds a disk (and not files alone).
    pub fn is_disk(self) -> bool {
        !matches!(self, Format::Tar(_) | Format::Iso | Format::Netboot)
    }

    /// Whether its writer reads the bytes of all files again each time, and not what was made of them before.
    pub fn reads_all(self) -> bool {
        match self {
            Format::Raw | Format::Qcow2(qcow2::Compression::None) | Format::Vmdk | Format::Vhd(_) | Format::Tar(_) => {
                true
            }
            Format::Qcow2(_) | Format::Iso | Format::Netboot => false,
        }
    }

    /// What an Intent asks for.
    pub fn of(output: &plan::Output) -> Result<Format> {
        match (output.kind, output.compression) {
            (ImageType::Raw, _) => Ok(Format::Raw),
            (ImageType::Qcow, Compression::None) => Ok(Format::Qcow2(qcow2::Compression::None)),
            (ImageType::Qcow, Compression::Zlib) => Ok(Format::Qcow2(qcow2::Compression::Zlib)),
            (ImageType::Qcow, _) => Ok(Format::Qcow2(qcow2::Compression::Zstd)),
            (ImageType::Vmdk, _) => Ok(Format::Vmdk),
            (ImageType::Vhd, _) => Ok(Format::Vhd(match output.subformat.unwrap_or_default() {
                VhdSubformat::Dynamic => vhd::Subformat::Dynamic,
                VhdSubformat::Fixed => vhd::Subformat::Fixed,
            })),
            (ImageType::Tar | ImageType::Root, Compression::Gzip) => Ok(Format::Tar(tar::Compression::Gzip)),
            (ImageType::Tar | ImageType::Root, Compression::Zstd) => Ok(Format::Tar(tar::Compression::Zstd)),
            (ImageType::Tar | ImageType::Root, _) => Ok(Format::Tar(tar::Compression::None)),
            (ImageType::Iso, _) => Ok(Format::Iso),
            (ImageType::Netboot, _) => Ok(Format::Netboot),
        }
    }

    /// Bytes that its writer goes through, as its progress counts them.
    fn work(self, source: &Source<'_>) -> Result<u64> {
        let disk = || source.disk.map(|(disk, _)| disk).ok_or_else(|| Error::build("there is no disk to write"));
        Ok(match self {
            Format::Raw | Format::Vhd(vhd::Subformat::Fixed) => disk()?.data_size(),
            Format::Qcow2(_) => disk()?.touched_size(qcow2::CLUSTER),
            Format::Vmdk => disk()?.touched_size(vmdk::GRAIN),
            Format::Vhd(vhd::Subformat::Dynamic) => disk()?.touched_size(vhd::BLOCK),
            Format::Tar(_) | Format::Iso | Format::Netboot => file_bytes(source.tree),
        })
    }

    /// Refuses a disk that the format cannot hold. Formats of which no disk comes near the limit do that themselves.
    pub fn check_size(self, disk_size: u64) -> Result<()> {
        match self {
            Format::Vmdk => vmdk::check_size(disk_size),
            Format::Vhd(_) => vhd::check_size(disk_size),
            Format::Raw | Format::Qcow2(_) | Format::Tar(_) | Format::Iso | Format::Netboot => Ok(()),
        }
    }
}

/// One image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub format: Format,
    /// Written anew; the caller chooses a temporary name and publishes.
    pub path: PathBuf,
}

/// What all outputs of a build are made from.
pub struct Source<'a> {
    pub tree: &'a Tree,
    /// When an output wants one ([`Format::is_disk`]), with its identity.
    pub disk: Option<(&'a DiskImage, Uuid)>,
    pub epoch: i64,
    /// Clusters that were compressed before.
    pub clusters: Option<&'a Clusters>,
    /// Wanted of each file.
    pub digests: Digests,
}

impl Output {
    /// What lies beside it and is part of it, by file name.
    pub fn beside(&self) -> Vec<String> {
        let name = self.path.file_name().and_then(|name| name.to_str()).filter(|_| self.format == Format::Netboot);
        name.map(super::netboot::names).unwrap_or_default()
    }

    /// Writes and syncs the file. Its checksums, where they fell out on the way.
    pub fn write(&self, source: &Source<'_>, reporter: &Reporter) -> Result<Option<Sums>> {
        let context = || format!("writing {}", self.path.display());
        let disk = || source.disk.ok_or_else(|| Error::build("there is no disk to write"));
        let size = self.format.work(source)?;
        let step = reporter.step_of(format!("{} image", self.format.name()), size, Unit::Bytes);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&self.path);
        let file = file.with_context(context)?;
        let progress = |bytes| step.advance(bytes);
        let mut found = None;
        let written = match self.format {
            Format::Raw => raw::write(disk()?.0, &file, &progress),
            Format::Qcow2(compression) => {
                let (disk, options) = (disk()?.0, qcow2::Options { compression, threads: None });
                match source.clusters {
                    Some(clusters) => {
                        let sums = qcow2::write_kept(disk, &file, &options, clusters, source.digests, &progress);
                        sums.map(|sums| found = Some(sums))
                    }
                    None => qcow2::write(disk, &file, &options, &progress),
                }
            }
            Format::Vmdk => {
                let (disk, uuid) = disk()?;
                vmdk::write(disk, &file, &vmdk::Options { uuid, threads: None }, &progress)
            }
            Format::Vhd(subformat) => {
                let (disk, uuid) = disk()?;
                vhd::write(disk, &file, &vhd::Options { subformat, uuid, seconds: source.epoch }, &progress)
            }
            Format::Iso | Format::Netboot => Err(Error::build("a live system is not written from a disk")),
            Format::Tar(compression) => {
                let (spare, options) = (Spare::default(), tar::Options { compression, threads: None });
                let hashed = sums::while_writing(State::start(source.digests), &[], &spare, |pieces| {
                    let tee = Tee { to: &file, pieces, spare: &spare };
                    tar::write(source.tree, tee, &options, &progress)
                });
                hashed.map(|hashed| found = Some(hashed.sums))
            }
        };
        written.with_context(context)?;
        file.sync_all().with_context(context)?;
        let size = file.metadata().with_context(context)?;
        step.finish(format!("{} on disk", words::bytes(std::os::unix::fs::MetadataExt::blocks(&size) * 512)));
        Ok(found)
    }
}

impl Output {
    /// Of the finished file.
    pub fn sums(&self, digests: Digests) -> Result<Sums> {
        let context = || format!("reading {}", self.path.display());
        Sums::of(File::open(&self.path).with_context(context)?, digests).with_context(context)
    }
}

fn file_bytes(tree: &Tree) -> u64 {
    let size = |kind: &Kind| if let Kind::File(content) = kind { content.size() } else { 0 };
    tree.iter().map(|(_, entry)| size(&entry.kind)).sum()
}
