//! `Phase`: an executor and the documents it works on, as airshipctl has it.

use serde::{Deserialize, Serialize};

use super::ObjectMeta;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Phase {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub config: PhaseConfig,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PhaseConfig {
    pub executor_ref: ObjectReference,
    /// Relative to `spec.phase.docEntryPointPrefix` of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_entry_point: Option<String>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ObjectReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
