//! `kubernetes`: what makes the node ready to join: the container runtime and the kubelet's host settings.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::scalar::Scalar;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kubernetes {
    /// The container runtime.
    pub containerd: Containerd,
    /// The kubelet's host settings.
    pub kubelet: Kubelet,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Containerd {
    /// Configure and enable containerd, with the kernel modules and sysctls that Kubernetes asks of a node
    /// (`overlay`, `br_netfilter`; bridge-nf-call and ip_forward). The package itself is in `software`.
    pub enabled: bool,
    /// The sandbox (pause) image; containerd's own default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_image: Option<String>,
    /// Replaces `/etc/containerd/config.toml` altogether.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kubelet {
    /// `--name=value` pairs for the kubelet's systemd drop-in (upstream `kubelet.extra_systemd_args`).
    #[serde(rename = "extra_systemd_args")]
    pub extra_systemd_args: BTreeMap<String, Scalar>,
}
