//! `ManifestMetadata`: where a site keeps its phases and entry points (`metadata.yaml`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ObjectMeta;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestMetadata {
    /// `airshipit.org/v1alpha1`.
    pub api_version: String,
    /// `ManifestMetadata`.
    pub kind: String,
    /// What every object has: its name and labels.
    pub metadata: ObjectMeta,
    pub spec: ManifestMetadataSpec,
}

/// All paths are relative to the repository.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestMetadataSpec {
    /// Where the phases are.
    pub phase: PhaseLocation,
    /// Where the hosts are.
    #[serde(default)]
    pub inventory: InventoryLocation,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PhaseLocation {
    /// The kustomization with Phase and executor documents.
    pub path: String,
    /// What a phase's `documentEntryPoint` is appended to.
    pub doc_entry_point_prefix: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InventoryLocation {
    /// The kustomization with the hosts of the site; not used here.
    pub path: String,
}
