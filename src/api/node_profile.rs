//! `NodeProfile`: what operators edit per type of node, the same areas as `AirshipImage.spec.params`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ObjectMeta, Params};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeProfile {
    /// `airshipit.org/v1alpha1`.
    pub api_version: String,
    /// `NodeProfile`.
    pub kind: String,
    /// What every object has: its name and labels.
    pub metadata: ObjectMeta,
    /// The areas of the node.
    #[serde(default)]
    pub spec: Params,
}
