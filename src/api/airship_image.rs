//! `AirshipImage`: what is in an image.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::image_configuration::{Builder, Container};
use super::{ObjectMeta, Params};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AirshipImage {
    /// `airshipit.org/v1alpha1`.
    pub api_version: String,
    /// `AirshipImage`.
    pub kind: String,
    /// What every object has: its name and labels.
    pub metadata: ObjectMeta,
    /// What is in the image.
    #[serde(default)]
    pub spec: AirshipImageSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AirshipImageSpec {
    /// The NodeProfile whose areas the shipped replacements copy into `params`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_profile: Option<String>,
    /// The areas of the image, as in a NodeProfile.
    pub params: Params,
    /// Where the builder runs, as the early samples have it; ImageConfiguration is the place for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Names of the files of the builder, as the early samples have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builder: Option<Builder>,
    /// `build-root`, `build-iso` or `build-qcow`: a synonym of `ImageConfiguration.spec.image.type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}
