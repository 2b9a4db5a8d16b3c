//! `networking`: names and the renderer.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Networking {
    pub renderer: Renderer,
    /// Host name until cloud-init sets one; the image's name when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// More lines of `/etc/hosts`: address -> names, separated by blanks.
    pub hosts: BTreeMap<String, String>,
    /// `NamePolicy=` of systemd.link(5), `99-default.link` (upstream `systemd_nic_names_policy`).
    #[serde(rename = "systemd_nic_names_policy", skip_serializing_if = "Option::is_none")]
    pub systemd_nic_names_policy: Option<String>,
    /// `AlternativeNamesPolicy=` (upstream `systemd_nic_alternative_names_policy`).
    #[serde(rename = "systemd_nic_alternative_names_policy", skip_serializing_if = "Option::is_none")]
    pub systemd_nic_alternative_names_policy: Option<String>,
}

/// What cloud-init writes the network configuration for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Renderer {
    #[default]
    Netplan,
    SystemdNetworkd,
}
