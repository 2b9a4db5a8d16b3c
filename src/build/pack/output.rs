//! Image files from a disk.
//!
//! Owns: [`Output`], one file to write, and how the documents ask for it.

use std::fs::File;
use std::path::PathBuf;

use crate::api::image_configuration::{Builder, ImageType, QcowCompression};
use crate::error::{Context, Error, Kind, Result};
use crate::format::disk::DiskImage;
use crate::format::{qcow2, raw};
use crate::report::{Reporter, Unit};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Raw,
    /// `None`: clusters as they are.
    Qcow2(Option<QcowCompression>),
}

impl Format {
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
