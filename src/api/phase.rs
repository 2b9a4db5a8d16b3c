//! `Phase`: an executor and the documents it works on, as airshipctl has it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ObjectMeta;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Phase {
    /// `airshipit.org/v1alpha1`.
    pub api_version: String,
    /// `Phase`.
    pub kind: String,
    /// What every object has: its name and labels.
    pub metadata: ObjectMeta,
    /// What the phase runs, and on which documents.
    pub config: PhaseConfig,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PhaseConfig {
    /// The document that says what is done.
    pub executor_ref: ObjectReference,
    /// Relative to `spec.phase.docEntryPointPrefix` of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_entry_point: Option<String>,
    /// Whether all clusters share one kubeconfig; not used here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site_wide_kubeconfig: Option<bool>,
    /// What airshipctl's own validation of the documents is told; not used here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<serde_json::Value>,
    /// Older sites name the cluster here, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// A reference to another document (Kubernetes `core/v1` ObjectReference).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ObjectReference {
    /// Group and version of the document; any when empty.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its `metadata.name`.
    pub name: String,
    /// Its `metadata.namespace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
