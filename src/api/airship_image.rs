//! `AirshipImage`: what is in an image.

use serde::{Deserialize, Serialize};

use super::image_configuration::{Builder, Container};
use super::{ObjectMeta, Params};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AirshipImage {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: AirshipImageSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AirshipImageSpec {
    /// The NodeProfile whose areas the shipped replacements copy into `params`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_profile: Option<String>,
    pub params: Params,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builder: Option<Builder>,
    /// `build-root`, `build-iso` or `build-qcow`: a synonym of `ImageConfiguration.spec.image.type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}
