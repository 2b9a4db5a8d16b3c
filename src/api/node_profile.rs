//! `NodeProfile`: what operators edit per type of node, the same areas as `AirshipImage.spec.params`.

use serde::{Deserialize, Serialize};

use super::{ObjectMeta, Params};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeProfile {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: Params,
}
