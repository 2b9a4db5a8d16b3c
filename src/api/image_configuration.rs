//! `ImageConfiguration`: the executor, and the only place that says what to produce.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ObjectMeta;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageConfiguration {
    /// `airshipit.org/v1alpha1`.
    pub api_version: String,
    /// `ImageConfiguration`.
    pub kind: String,
    /// What every object has: its name and labels.
    pub metadata: ObjectMeta,
    /// What to produce, and where.
    #[serde(default)]
    pub spec: ImageConfigurationSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ImageConfigurationSpec {
    /// The file or files to produce.
    pub image: Image,
    pub container: Container,
    /// Settings of one type of image each.
    pub params: BuilderParams,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Image {
    /// One type or a list of types.
    #[serde(rename = "type")]
    pub types: OneOrMany<ImageType>,
    /// File name of the image; the extension follows the type when there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_file_name: Option<String>,
}

/// An output format. `root` is upstream's root file system, of which we make the archive that `tar` is too. `iso` is a
/// live system that starts from a CD or a USB stick, with the cloud-init data of its site; `netboot` is the
/// same system as files that are loaded over the network, with an iPXE script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("x-aliases" = ["qcow2"]))]
pub enum ImageType {
    #[serde(alias = "qcow2")]
    Qcow,
    Raw,
    Iso,
    Netboot,
    Vmdk,
    Vhd,
    Tar,
    Root,
}

impl ImageType {
    pub const ALL: [ImageType; 8] = [
        ImageType::Qcow,
        ImageType::Raw,
        ImageType::Iso,
        ImageType::Netboot,
        ImageType::Vmdk,
        ImageType::Vhd,
        ImageType::Tar,
        ImageType::Root,
    ];

    /// As documents spell it.
    pub fn name(self) -> &'static str {
        match self {
            ImageType::Qcow => "qcow",
            ImageType::Raw => "raw",
            ImageType::Iso => "iso",
            ImageType::Netboot => "netboot",
            ImageType::Vmdk => "vmdk",
            ImageType::Vhd => "vhd",
            ImageType::Tar => "tar",
            ImageType::Root => "root",
        }
    }

    /// The extensions files of this type go by; the first is the one we give.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            ImageType::Qcow => &["qcow2", "qcow"],
            ImageType::Raw => &["raw", "img"],
            ImageType::Iso => &["iso"],
            ImageType::Netboot => &["ipxe"],
            ImageType::Vmdk => &["vmdk"],
            ImageType::Vhd => &["vhd"],
            ImageType::Tar | ImageType::Root => &["tar", "tar.gz", "tgz", "tar.zst"],
        }
    }

    /// Whether it is a live system, which runs from what it was started from.
    pub fn is_live(self) -> bool {
        matches!(self, ImageType::Iso | ImageType::Netboot)
    }

    pub fn extension(self) -> &'static str {
        self.extensions().first().copied().unwrap_or_default()
    }

    /// The type that a file name speaks of, with the name before its extension and the extension.
    pub fn of_file_name(name: &str) -> Option<(ImageType, &str, &'static str)> {
        let of = |kind: &ImageType| {
            let found = kind.extensions().iter().find_map(|extension| {
                let stem = name.strip_suffix(extension)?.strip_suffix('.').filter(|stem| !stem.is_empty())?;
                Some((stem, *extension))
            });
            found.map(|(stem, extension)| (*kind, stem, extension))
        };
        ImageType::ALL.iter().find_map(of)
    }
}

/// `x` or `[x, y]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        OneOrMany::Many(Vec::new())
    }
}

impl<T> OneOrMany<T> {
    pub fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

/// Where the builder runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Container {
    /// `docker`, as in upstream documents (Podman's socket counts), or `embedded`; `--engine` overrides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_runtime: Option<String>,
    /// The container image of the builder; without it the one that `make build` makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `host:container`; the host half is where the output goes unless a flag says otherwise, and the container sees
    /// it under the other half, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Accepted as upstream has it, with a notice: no privileges are needed, and none are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BuilderParams {
    /// Of type `iso`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isobuilder: Option<IsoBuilder>,
    /// Of type `qcow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qcowbuilder: Option<Builder>,
    /// Of type `vhd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhdbuilder: Option<VhdBuilder>,
    /// Of type `tar`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tarbuilder: Option<TarBuilder>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VhdBuilder {
    /// `dynamic` (default) or `fixed`.
    pub subformat: VhdSubformat,
}

/// In the words of `qemu-img create -f vpc -o subformat=`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VhdSubformat {
    /// Holds only blocks with data: small to carry about, and what Hyper-V, XenServer and VirtualBox take.
    #[default]
    Dynamic,
    /// The whole disk with a footer: the only kind Azure takes. Sparse in the output folder.
    Fixed,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TarBuilder {
    /// `none`, `gzip` or `zstd`; without it the file name says (`.tar`, `.tar.gz`, `.tar.zst`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<TarCompression>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TarCompression {
    None,
    Gzip,
    Zstd,
}

impl TarCompression {
    /// Of an archive with one of [`ImageType::Tar`]'s extensions.
    pub fn of_extension(extension: &str) -> TarCompression {
        match extension {
            "tar.gz" | "tgz" => TarCompression::Gzip,
            "tar.zst" => TarCompression::Zstd,
            _ => TarCompression::None,
        }
    }

    pub fn extension(self) -> &'static str {
        match self {
            TarCompression::None => "tar",
            TarCompression::Gzip => "tar.gz",
            TarCompression::Zstd => "tar.zst",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Builder {
    /// File name of the cloud-init user data beside the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data_file_name: Option<String>,
    /// File name of the cloud-init network configuration beside the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_config_file_name: Option<String>,
    /// File name of the output metadata beside the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_metadata_file_name: Option<String>,
    /// `build-root`, `build-iso` or `build-qcow`: a synonym of `spec.image.type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// qcow only: compress the clusters (default true, upstream's `qcow_compress`).
    #[serde(rename = "qcow_compress", skip_serializing_if = "Option::is_none")]
    pub qcow_compress: Option<bool>,
    /// qcow only: `zstd` (default) or `zlib` (readable by QEMU before 5.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<QcowCompression>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IsoBuilder {
    /// File of the cloud-init user data, in the folder of the volume or of the documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data_file_name: Option<String>,
    /// File of the network data (OpenStack's `network_data.json`, as JSON or YAML).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_config_file_name: Option<String>,
    /// Which document holds the user data, where no file is named. Without kind, name, label and annotation: the Secret with
    /// the label `airshipit.org/ephemeral-user-data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data_selector: Option<DocumentSelector>,
    /// Key in that Secret (default `userData`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data_key: Option<String>,
    /// Which document holds the network data, where no file is named: a Secret, or the BareMetalHost that names one. Without
    /// kind, name, label and annotation: the host with the label `airshipit.org/ephemeral-node`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_config_selector: Option<DocumentSelector>,
    /// Key in that Secret (default `networkData`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_config_key: Option<String>,
    /// File name of the output metadata beside the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_metadata_file_name: Option<String>,
    /// `build-iso`: a synonym of `spec.image.type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Of the squashfs: `zstd` (default), `lz4` (upstream's), `xz` or `gzip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<SquashfsCompression>,
    /// Level of `zstd` (1 to 22, default 15) or `gzip` (1 to 9, default 9).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<u32>,
    /// Threads that compress, all cores without it. Changes no byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
}

/// Documents by what they are, as kustomize's patches select theirs: regular expressions, and Kubernetes selectors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DocumentSelector {
    /// Of its apiVersion, as a regular expression like all but the last two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Of its apiVersion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Such as `Secret`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `metadata.name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `metadata.namespace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `tier=web,env!=test,team in (a, b)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<String>,
    /// The same on annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotation_selector: Option<String>,
}

/// In the words of `mksquashfs -comp`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SquashfsCompression {
    #[default]
    Zstd,
    Lz4,
    Xz,
    Gzip,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum QcowCompression {
    #[default]
    Zstd,
    Zlib,
}
