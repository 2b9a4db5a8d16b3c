//! `drivers`: firmware and microcode.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Both need the repository components that hold them (`non-free-firmware` on Debian 12 and later, `restricted` and
/// `multiverse` on Ubuntu); the plan adds these by itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Drivers {
    /// Install the distribution's non-free firmware for network and storage adapters.
    pub non_free_firmware: bool,
    /// Install CPU microcode updates (`intel-microcode`, `amd64-microcode`).
    pub microcode: bool,
}
