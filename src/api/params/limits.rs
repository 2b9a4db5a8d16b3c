//! `limits`: limits.conf(5), by name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::scalar::Scalar;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// A user, `@group`, `*`, or what else limits.conf(5) knows.
    pub domain: String,
    /// `hard`, `soft` or `-`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is limited, `nofile`.
    pub item: String,
    /// A number, or `unlimited`.
    pub value: Scalar,
}
