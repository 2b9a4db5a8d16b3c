//! `systemd`: units, by name with suffix.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Unit {
    /// The unit file, written to `/etc/systemd/system/<name>`; absent for units that packages bring.
    #[serde(rename = "file_content", skip_serializing_if = "Option::is_none")]
    pub file_content: Option<String>,
    /// Enable or disable as `systemctl --root` would, from the unit's `[Install]` section. Left alone when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Link the unit to /dev/null.
    pub masked: bool,
    /// Drop-in name without `.conf` -> text, `/etc/systemd/system/<name>.d/<drop-in>.conf`.
    pub drop_ins: BTreeMap<String, String>,
}
