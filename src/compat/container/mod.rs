//! The two contracts of the upstream image-builder's container: what a caller sets before `docker run`, and what it finds
//! afterwards on the volume.
//!
//! Owns: [`Order`], what one run was asked for, read from environment, standard input and volume ([`v1`], [`v2`]). Which
//! contract it is, the variable `VERSION` says. Pure but for reading files of the volume and of `/proc`. What upstream got
//! wrong is right here: an output name in `OUTPUT_FILE_NAME` counts, both seed files are looked for by their own names,
//! `img_name` of the variables counts in v2, too, and no privileges, devices or kernel modules are asked for.

#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Texts;
use crate::document::{Node, load_str};
use crate::error::{Context, Error, Kind, Result};

/// Upstream's own names, when nobody gives one.
const DEFAULT_QCOW: &str = "airship-ubuntu.qcow2";
const DEFAULT_ISO: &str = "ephemeral.iso";
/// Files on the volume are settings, not data.
const FILE_BYTES: u64 = 16 << 20;

/// Variables of the environment.
pub type Environment = BTreeMap<String, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contract {
    V1,
    V2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageType {
    Iso,
    Qcow,
}

/// What one run is asked for.
#[derive(Debug)]
pub struct Order {
    pub contract: Contract,
    pub image_type: ImageType,
    /// Where the caller's volume is in this container: everything goes there.
    pub volume: PathBuf,
    /// What the caller calls that folder, for `bootImagePath`.
    pub host_folder: PathBuf,
    /// File name of the image.
    pub output_file_name: String,
    /// Of v1.
    pub output_metadata_file_name: String,
    /// Variables for the roles osconfig and qcow.
    pub texts: Texts,
    /// cloud-config and network data, of an ISO both.
    pub user_data: Option<Vec<u8>>,
    pub network_config: Option<Vec<u8>>,
    /// Documents that say themselves what to build: a ResourceList on standard input with an AirshipImage in it.
    pub documents: Option<Vec<Node>>,
    /// Name of the builder's own image, for the profile.
    pub builder_image: Option<String>,
}

/// Where a run finds things; the tests have others.
pub struct Surroundings<'a> {
    pub environment: &'a Environment,
    /// All of standard input; asked for in v2 only.
    pub stdin: &'a mut dyn std::io::Read,
    /// Text of `/proc/self/mountinfo`.
    pub mountinfo: &'a str,
    /// The folder that counts as the caller's volume, whatever the contract says.
    pub volume: Option<&'a Path>,
    /// Folders that are mounted for the builder's own use, and not volumes of the caller.
    pub own_folders: &'a [PathBuf],
}

impl Order {
    pub fn read(surroundings: &mut Surroundings<'_>) -> Result<Order> {
        match surroundings.environment.get("VERSION").map(String::as_str) {
            None | Some("" | "v1") => v1::read(surroundings).context("reading the order (container contract v1)"),
            Some("v2") => v2::read(surroundings).context("reading the order (container contract v2)"),
            Some(other) => {
                Err(usage(format!("`VERSION={other}` is not a container contract")).hint("known are `v1` and `v2`"))
            }
        }
    }

    /// Name of the image in documents and messages.
    pub fn image_name(&self) -> &str {
        let name = self.output_file_name.as_str();
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }

    /// The two seed files, which an ISO must have; documents of the caller's own hold them.
    fn check(self) -> Result<Order> {
        if self.image_type == ImageType::Iso && self.documents.is_none() {
            for (what, data) in [("user data", &self.user_data), ("network config", &self.network_config)] {
                if data.as_ref().is_none_or(Vec::is_empty) {
                    return Err(usage(format!("no {what} given, which an ISO must have")));
                }
            }
        }
        let name = Path::new(&self.output_file_name);
        if name.file_name().is_none_or(|plain| plain != name.as_os_str()) || self.output_file_name.starts_with('.') {
            return Err(usage(format!("`{}` is not a file name", self.output_file_name)));
        }
        Ok(self)
    }
}

/// The folder of a contract, which must be there.
fn there(volume: PathBuf) -> Result<PathBuf> {
    if volume.is_dir() {
        return Ok(volume);
    }
    Err(usage(format!("volume {} is not there", volume.display()))
        .hint("mount the folder that `container.volume` names, as with `docker run --volume HOST:CONTAINER`"))
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(Kind::Usage, message)
}

/// The variable, then what a document says, then `iso`.
fn image_type(environment: &Environment, document: Option<&str>) -> Result<ImageType> {
    let given = environment.get("IMAGE_TYPE").map(String::as_str).filter(|value| !value.is_empty());
    match given.or(document).unwrap_or("iso") {
        "iso" => Ok(ImageType::Iso),
        "qcow" | "qcow2" => Ok(ImageType::Qcow),
        other => Err(usage(format!("unknown image type `{other}`")).hint("`IMAGE_TYPE` is `iso` or `qcow`")),
    }
}

/// What was given first, else `img_name` of the variables, else upstream's default.
fn output_file_name(given: &[Option<&str>], qcow: Option<&str>, image_type: ImageType) -> Result<String> {
    if let Some(name) = given.iter().flatten().find(|name| !name.is_empty()) {
        return Ok((*name).to_owned());
    }
    if image_type == ImageType::Iso {
        return Ok(DEFAULT_ISO.into());
    }
    let documents = qcow.map(|text| load_str("qcow variables", text)).transpose()?.unwrap_or_default();
    let named = documents.first().and_then(|document| document.get("img_name")).and_then(Node::text);
    Ok(named.unwrap_or(DEFAULT_QCOW).to_owned())
}

fn read_file(path: &Path, what: &str) -> Result<Vec<u8>> {
    let context = || format!("reading {what} {}", path.display());
    let size = path.metadata().with_context(context)?.len();
    if size > FILE_BYTES {
        return Err(usage(format!("it has {size} bytes, which is too much for settings")).add_context(context()));
    }
    std::fs::read(path).with_context(context)
}

fn read_text(path: &Path, what: &str) -> Result<String> {
    let bytes = read_file(path, what)?;
    String::from_utf8(bytes).map_err(|_| usage(format!("{what} {} is not UTF-8", path.display())))
}
