//! What the documents ask for, normalised: plain data that can be printed and compared.
//!
//! Owns: [`Intent`], [`Output`], what of it is secret, and the package request made of it.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::container::Container;
use super::meta;
use super::seed::SeedSource;
use crate::api::airship_image::AirshipImageSpec;
use crate::api::image_configuration::{ImageType, QcowCompression, SquashfsCompression, TarCompression, VhdSubformat};
use crate::api::params::software::Layer;
use crate::api::{API_VERSION, AirshipImage, ObjectMeta, Params};
use crate::check::Finding;
use crate::document::{self, Diagnostic, Node, Origin, OriginEntry};
use crate::error::{Error, Kind};
use crate::package::http::redact;
use crate::package::lock::{LayerRequest, PackageRequest, Request};
use crate::tree::Digest;

/// One image to build. Two Intents are equal when they ask for the same; where their values were written does not
/// count.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// `metadata.name` of the AirshipImage.
    pub image: String,
    /// Identifiers inside the image derive from site and image name (label `airshipit.org/site`, else `default`).
    pub site: String,
    /// Complete: no absent packages, no default left to guess. May hold password hashes, which are never printed.
    #[serde(serialize_with = "printable")]
    pub params: Params,
    /// At least one.
    pub outputs: Vec<Output>,
    /// Of an ISO: where the cloud-init data of its site come from.
    #[serde(skip)]
    pub seed: Option<SeedSource>,
    /// Name of the output metadata file beside the image, when the documents ask for one of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_metadata_file_name: Option<String>,
    /// The host half of `container.volume`: where files go unless the command line says otherwise.
    #[serde(skip)]
    pub output_folder: Option<PathBuf>,
    /// Where the documents want the builder to run; changes no byte of the image.
    #[serde(skip)]
    pub container: Container,
    /// Where the lock of these documents lies, whether or not it is there (`<name>.lock.yaml` beside the entry point).
    #[serde(skip)]
    pub lock_path: Option<PathBuf>,
    /// What the checks noticed and let pass.
    #[serde(skip)]
    pub warnings: Vec<Finding>,
    /// The AirshipImage as rendered, whose values know where they were written.
    #[serde(skip)]
    pub document: Node,
}

/// One file to produce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    #[serde(rename = "type")]
    pub kind: ImageType,
    /// With extension, without folder.
    pub file_name: String,
    pub compression: Compression,
    /// Of a squashfs, when it is not the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<u32>,
    /// Of a squashfs: threads, when not all cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Of a VHD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subformat: Option<VhdSubformat>,
}

/// How the clusters of a qcow2, the grains of a VMDK, the squashfs of an ISO or a whole archive are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Zstd,
    Zlib,
    Gzip,
    Lz4,
    Xz,
}

impl From<TarCompression> for Compression {
    fn from(compression: TarCompression) -> Self {
        match compression {
            TarCompression::None => Compression::None,
            TarCompression::Gzip => Compression::Gzip,
            TarCompression::Zstd => Compression::Zstd,
        }
    }
}

impl From<SquashfsCompression> for Compression {
    fn from(compression: SquashfsCompression) -> Self {
        match compression {
            SquashfsCompression::Zstd => Compression::Zstd,
            SquashfsCompression::Lz4 => Compression::Lz4,
            SquashfsCompression::Xz => Compression::Xz,
            SquashfsCompression::Gzip => Compression::Gzip,
        }
    }
}

impl From<QcowCompression> for Compression {
    fn from(compression: QcowCompression) -> Self {
        match compression {
            QcowCompression::Zstd => Compression::Zstd,
            QcowCompression::Zlib => Compression::Zlib,
        }
    }
}

impl PartialEq for Intent {
    fn eq(&self, other: &Self) -> bool {
        let asked = |intent: &Intent| (intent.image.clone(), intent.site.clone(), intent.outputs.clone());
        asked(self) == asked(other)
            && self.params == other.params
            && self.output_metadata_file_name == other.output_metadata_file_name
    }
}

impl Intent {
    /// The AirshipImage that says everything this Intent does and no secret: what an image tells about itself, and
    /// what the same image can be built from.
    pub fn effective(&self) -> AirshipImage {
        AirshipImage {
            api_version: API_VERSION.into(),
            kind: "AirshipImage".into(),
            metadata: ObjectMeta {
                name: self.image.clone(),
                labels: [(SITE_LABEL.to_owned(), self.site.clone())].into(),
                ..ObjectMeta::default()
            },
            spec: AirshipImageSpec { params: without_secrets(&self.params), ..AirshipImageSpec::default() },
        }
    }

    /// [`Intent::effective`] as YAML.
    pub fn effective_yaml(&self) -> String {
        yaml(&self.effective())
    }

    /// The identity of what is asked for, secrets included: equal Intents have equal ones.
    pub fn digest(&self) -> Digest {
        // Every field that is printed counts, and what is left out of print.
        let value = serde_json::json!([self, self.params]);
        Digest::of(value.to_string().as_bytes())
    }

    /// Everything that is printable, as YAML.
    pub fn to_yaml(&self) -> String {
        yaml(self)
    }

    /// Where a value stands (`file:line:column`), by its path below `params` (`["kernel", "sysctl",
    /// "vm.swappiness"]`); of the nearest value above when the documents do not have that one, and nothing when they
    /// say nothing about its area.
    pub fn origin(&self, path: &[&str]) -> Option<String> {
        let params = self.document.at(&["spec", "params"])?;
        (1..=path.len()).rev().find_map(|length| params.at(&path[..length])).map(|node| node.origin.at.to_string())
    }

    /// The same, but only for a value that the documents have.
    pub fn exact_origin(&self, path: &[&str]) -> Option<String> {
        Some(self.document.at(&["spec", "params"])?.at(path)?.origin.at.to_string())
    }

    /// Says in which folder the documents lie: the lock is beside them, and so are files that they name. Bundles that are built for several releases have one lock a
    /// release, which `variant` tells apart.
    #[must_use]
    pub fn locked_in(mut self, folder: &Path, variant: Option<&str>) -> Self {
        let variant = variant.map(|name| format!(".{name}")).unwrap_or_default();
        self.lock_path = Some(folder.join(format!("{}{variant}.lock.yaml", self.image)));
        if let Some(seed) = &mut self.seed {
            seed.add_folder(folder);
        }
        self
    }

    /// Where the value at a JSON pointer below `params` stands; nothing if the documents do not have it.
    pub fn place(&self, pointer: &str) -> Option<String> {
        self.document.pointer(&format!("/spec/params{pointer}")).map(|node| node.origin.at.to_string())
    }

    /// Adds to an error about a setting ([`Error::subject`]) where that setting was written. Other errors come back
    /// as they are.
    pub fn locate(&self, error: Error) -> Error {
        // A full disk or Ctrl-C met on the way is not the setting's fault.
        let by_input = matches!(error.kind(), Kind::Documents | Kind::Authenticity | Kind::Network);
        let Some(subject) = error.subject().filter(|_| by_input) else { return error };
        let mut node = self.document.at(&["spec", "params"]);
        let mut place = None;
        for part in subject {
            let mapping = node.and_then(Node::as_mapping);
            let Some(entry) = mapping.and_then(|mapping| mapping.entries.iter().find(|entry| entry.key.text == *part))
            else {
                break;
            };
            place = Some(entry);
            node = Some(&entry.value);
        }
        let Some(entry) = place else { return error };
        // A scalar is its own best place; of anything bigger, the key says more than its first line.
        let at = if entry.value.as_scalar().is_some() { &entry.value.origin.at } else { &entry.key.at };
        let mut diagnostic = Diagnostic::at(at, "").history(&entry.value.origin);
        if subject.iter().any(|part| part == "repositories") && self.repositories_hold_secrets() {
            diagnostic = diagnostic.without_text();
        }
        diagnostic.attach(error)
    }

    /// An address may carry the password of its mirror, and lines near it would show it.
    fn repositories_hold_secrets(&self) -> bool {
        self.params.distribution.repositories.values().any(|repository| redact(&repository.source) != repository.source)
    }

    /// Every value of the documents with the places that made it what it is, newest first.
    pub fn origins(&self) -> Vec<OriginEntry> {
        document::origins(&self.document)
    }

    /// What is to be resolved into a lock.
    pub fn package_request(&self) -> Request {
        let layer = |layer: Layer| LayerRequest {
            layer,
            packages: self
                .params
                .software
                .packages
                .iter()
                .filter(|(_, package)| package.layer == layer)
                .map(|(name, package)| PackageRequest { name: name.clone(), version: package.version.clone() })
                .collect(),
        };
        Request {
            architecture: self.params.distribution.architecture().to_owned(),
            repositories: self.params.distribution.repositories.clone(),
            layers: Layer::ALL.into_iter().map(layer).collect(),
            unapproved: self.params.software.unapproved_packages.keys().cloned().collect(),
            tools: Vec::new(),
        }
    }
}

/// Label of an AirshipImage that names its site.
pub const SITE_LABEL: &str = "airshipit.org/site";

/// What may be shown: see [`meta::redact`] for what goes.
pub fn without_secrets(params: &Params) -> Params {
    let mut params = params.clone();
    meta::redact(&mut params);
    params
}

fn printable<S: Serializer>(params: &Params, serializer: S) -> Result<S::Ok, S::Error> {
    without_secrets(params).serialize(serializer)
}

/// Any serialisable value as YAML, keys sorted.
pub fn yaml(value: &impl Serialize) -> String {
    // Maps with text keys and plain scalars only, which `serde_json` cannot refuse.
    let json = serde_json::to_value(value).expect("types of the api serialise to JSON");
    document::document(&document::from_json(&json, &Origin::built("plan")))
}
