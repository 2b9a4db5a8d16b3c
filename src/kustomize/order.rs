//! The order of documents in output: as found, or what kustomize calls legacy, the default of its command.
//!
//! Owns: [`sort`], [`SortOptions`]. Legacy: kinds others depend on first, webhooks last, in between by group, version,
//! kind, namespace and name as bytes.

use serde::Deserialize;

use super::identity::Id;
use super::resource::Resource;
use super::transformer::field;
use crate::document::{Diagnostic, Node};
use crate::error::Result;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SortOptions {
    /// As written; only what is at the very top of a build must mean something.
    pub order: String,
    pub legacy_sort_options: Option<LegacySortOptions>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Legacy,
    Fifo,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LegacySortOptions {
    pub order_first: Vec<String>,
    pub order_last: Vec<String>,
}

const FIRST: [&str; 22] = [
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];
const LAST: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

impl SortOptions {
    /// The order asked for by the options written at `at`.
    fn order(&self, at: &Node) -> Result<Order> {
        match self.order.as_str() {
            "legacy" => Ok(Order::Legacy),
            "fifo" if self.legacy_sort_options.is_none() => Ok(Order::Fifo),
            "fifo" => Err(Diagnostic::on(field(at, "legacySortOptions"), "the order is `fifo`, not `legacy`").into()),
            "" => Err(Diagnostic::on(at, "`sortOptions` without `order`").hint("expected `legacy` or `fifo`").into()),
            other => Err(Diagnostic::on(field(at, "order"), format!("unknown order `{other}`"))
                .hint("expected `legacy` or `fifo`")
                .into()),
        }
    }
}

/// Checks the options of the folder that is built, which are written at `at`.
pub fn check(options: Option<&SortOptions>, at: &Node) -> Result<()> {
    options.map_or(Ok(()), |options| options.order(at).map(drop))
}

pub fn sort(resources: &mut [Resource], options: Option<&SortOptions>, default: Order) {
    let fifo = options.map_or(default == Order::Fifo, |options| options.order == "fifo");
    if fifo {
        return;
    }
    match options.and_then(|options| options.legacy_sort_options.as_ref()) {
        None => resources.sort_by_cached_key(|resource| key(resource.id(), &FIRST, &LAST)),
        Some(own) => {
            let first: Vec<&str> = own.order_first.iter().map(String::as_str).collect();
            let last: Vec<&str> = own.order_last.iter().map(String::as_str).collect();
            resources.sort_by_cached_key(|resource| key(resource.id(), &first, &last));
        }
    }
}

fn key(id: &Id, first: &[&str], last: &[&str]) -> (usize, String, String, String) {
    // Of a kind that is in both lists, the later place counts.
    let rank = match last.iter().position(|kind| *kind == id.kind) {
        Some(at) => first.len() + 1 + at,
        None => first.iter().position(|kind| *kind == id.kind).unwrap_or(first.len()),
    };
    let or = |text: &str, absent: &str| if text.is_empty() { absent.to_owned() } else { text.to_owned() };
    let mut kind = format!("{}_{}_{}", or(&id.group, "~G"), or(&id.version, "~V"), or(&id.kind, "~K"));
    if id.kind == "Namespace" && rank != first.len() {
        // Where they have a place of their own, namespaces of the core group come before those of other groups.
        kind.insert(0, if id.group.is_empty() { '0' } else { '1' });
    }
    (rank, kind, or(&id.namespace, "~X"), or(&id.name, "~N"))
}
