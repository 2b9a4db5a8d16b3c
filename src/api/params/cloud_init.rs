//! `cloudInit`: data sources and configuration baked into the image.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CloudInit {
    /// `datasource_list`, in order.
    pub datasources: Vec<String>,
    /// File name without `.cfg` -> text, `/etc/cloud/cloud.cfg.d/<name>.cfg`.
    pub config: BTreeMap<String, String>,
}

impl Default for CloudInit {
    fn default() -> Self {
        CloudInit { datasources: vec!["NoCloud".into(), "ConfigDrive".into()], config: BTreeMap::new() }
    }
}
