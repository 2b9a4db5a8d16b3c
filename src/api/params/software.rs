//! `software`: packages, by name.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::distribution::Empty;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Software {
    /// By package name.
    pub packages: BTreeMap<String, Package>,
    /// Packages that must not enter the image, whatever depends on them (upstream `unapproved_packages`; pinned to
    /// priority -1 in the image as well).
    #[serde(rename = "unapproved_packages")]
    pub unapproved_packages: BTreeMap<String, Empty>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Package {
    /// `absent` takes a package out that a lower layer of the documents put in.
    pub state: State,
    /// The layer of the image this package is installed in; lower layers are shared between images.
    pub layer: Layer,
    /// An exact version (`apt-get install name=version`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Present,
    Absent,
}

/// Bottom to top. `base` also holds all Essential and `Priority: required` packages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    Base,
    Distribution,
    #[default]
    Role,
}

impl Layer {
    pub const ALL: [Layer; 3] = [Layer::Base, Layer::Distribution, Layer::Role];

    pub fn name(self) -> &'static str {
        match self {
            Layer::Base => "base",
            Layer::Distribution => "distribution",
            Layer::Role => "role",
        }
    }
}
