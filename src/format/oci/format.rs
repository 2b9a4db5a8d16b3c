//! The documents of an image: configuration, manifest, index. Section names are those of OCI.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::tree::Digest;

/// "OCI Image Layout Specification", the `oci-layout` file.
pub const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// "Pre-Defined Annotation Keys".
pub(super) const REFERENCE: &str = "org.opencontainers.image.ref.name";
/// The whole name, as containerd and `docker load` write and read it.
pub(super) const NAME: &str = "io.containerd.image.name";

/// What a container of the image is like: "Image Configuration".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// As Go calls it (`amd64`); this processor's when empty.
    pub architecture: String,
    /// Seconds since 1970.
    pub created: i64,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    /// `NAME=value` each.
    pub environment: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub working_folder: String,
    pub user: String,
    pub volumes: Vec<String>,
}

/// What names a blob: "OCI Content Descriptors".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

impl Descriptor {
    pub(super) fn to_json(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": name_of(self.digest), "size": self.size})
    }

    pub(super) fn from_json(value: &Value) -> Option<Self> {
        Some(Descriptor {
            media_type: value["mediaType"].as_str()?.to_owned(),
            digest: Digest::from_hex(value["digest"].as_str()?.strip_prefix("sha256:")?)?,
            size: value["size"].as_u64()?,
        })
    }
}

/// A digest as documents have it.
pub(super) fn name_of(digest: Digest) -> String {
    format!("sha256:{digest}")
}

impl Config {
    fn architecture(&self) -> &str {
        match (self.architecture.as_str(), std::env::consts::ARCH) {
            ("", "x86_64") => "amd64",
            ("", "aarch64") => "arm64",
            ("", other) => other,
            (given, _) => given,
        }
    }

    /// `layers` are the digests of the uncompressed layers.
    pub(super) fn to_json(&self, layers: &[Digest]) -> Value {
        let created = timestamp(self.created);
        let mut config = Map::new();
        let mut list = |key: &str, values: &[String]| {
            if !values.is_empty() {
                config.insert(key.to_owned(), json!(values));
            }
        };
        list("Env", &self.environment);
        list("Entrypoint", &self.entrypoint);
        list("Cmd", &self.command);
        for (key, value) in [("User", &self.user), ("WorkingDir", &self.working_folder)] {
            if !value.is_empty() {
                config.insert(key.to_owned(), json!(value));
            }
        }
        if !self.volumes.is_empty() {
            let volumes: BTreeMap<&String, Value> = self.volumes.iter().map(|volume| (volume, json!({}))).collect();
            config.insert("Volumes".to_owned(), json!(volumes));
        }
        if !self.labels.is_empty() {
            config.insert("Labels".to_owned(), json!(self.labels));
        }
        let history: Vec<Value> =
            layers.iter().map(|_| json!({"created": created, "created_by": "imagebuilder"})).collect();
        json!({
            "created": created,
            "architecture": self.architecture(),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|digest| name_of(*digest)).collect::<Vec<_>>()},
            "history": history,
        })
    }
}

fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// "Image Manifest".
pub(super) fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.to_json(),
        "layers": layers.iter().map(Descriptor::to_json).collect::<Vec<_>>(),
    })
}

/// "Image Index", an entry for each tag, as layouts have it.
pub(super) fn index(manifest: &Descriptor, tags: &[String]) -> Value {
    let entry = |tag: Option<&String>| {
        let mut entry = manifest.to_json();
        if let Some(tag) = tag {
            entry["annotations"] = json!({REFERENCE: tag_part(tag), NAME: tag});
        }
        entry
    };
    let entries: Vec<Value> = match tags {
        [] => vec![entry(None)],
        tags => tags.iter().map(|tag| entry(Some(tag))).collect(),
    };
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
}

/// What follows the last colon that is not a port's.
fn tag_part(reference: &str) -> &str {
    match reference.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => "latest",
    }
}
