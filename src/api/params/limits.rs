//! `limits`: limits.conf(5), by name.

use serde::{Deserialize, Serialize};

use crate::api::scalar::Scalar;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    pub domain: String,
    /// `hard`, `soft` or `-`.
    #[serde(rename = "type")]
    pub kind: String,
    pub item: String,
    pub value: Scalar,
}
