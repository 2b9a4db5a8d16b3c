//! Image files from a disk.
//!
//! Owns: [`Output`], one file to write, and how the documents ask for it.

use std::fs::File;
use std::path::PathBuf;

use crate::api::image_configuration::{Builder, ImageType, QcowCompression};
use crate::error::{Context, Error, Kind, Result};
use crate::format::disk::DiskImage;
use crate::format::{qcow2, raw};
use crate::report::{Reporter, Unit, words};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Raw,
    /// `None`: clusters as they are.
    Qcow2(Option<QcowCompression>),
}

impl Format {
    /// As qemu-img and Metal3 call it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2(_) => "qcow2",
        }
    }

    /// What `spec.image.type` and the builder's parameters ask for.
    pub fn new(image: ImageType, builder: Option<&Builder>) -> Result<Format> {
        let compressed = builder.and_then(|builder| builder.qcow_compress).unwrap_or(true);
        let compression = builder.and_then(|builder| builder.compression).unwrap_or_default();
        match image {
            ImageType::Raw => Ok(Format::Raw),
            ImageType::Qcow => Ok(Format::Qcow2(compressed.then_some(compression))),
            other => Err(Error::new(Kind::Documents, format!("image type {other:?} cannot be written yet"))
                .hint("`qcow` and `raw` can")),
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

impl Output {
    /// Writes and syncs the file.
    pub fn write(&self, disk: &DiskImage, reporter: &Reporter) -> Result<()> {
        let context = || format!("writing {}", self.path.display());
        let name = match self.format {
            Format::Raw => "raw image",
            Format::Qcow2(_) => "qcow2 image",
        };
        let step = reporter.step_of(name, disk.data_size(), Unit::Bytes);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&self.path);
        let file = file.with_context(context)?;
        let progress = |bytes| step.advance(bytes);
        match self.format {
            Format::Raw => raw::write(disk, &file, &progress),
            Format::Qcow2(compression) => {
                let compression = match compression {
                    None => qcow2::Compression::None,
                    Some(QcowCompression::Zstd) => qcow2::Compression::Zstd,
                    Some(QcowCompression::Zlib) => qcow2::Compression::Zlib,
                };
                qcow2::write(disk, &file, &qcow2::Options { compression, threads: None }, &progress)
            }
        }
        .with_context(context)?;
        file.sync_all().with_context(context)?;
        let size = file.metadata().with_context(context)?;
        step.finish(format!("{} on disk", words::bytes(std::os::unix::fs::MetadataExt::blocks(&size) * 512)));
        Ok(())
    }
}
