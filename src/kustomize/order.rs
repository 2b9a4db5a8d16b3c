//! The order of documents in output: what kustomize calls legacy, the default of its command.
//!
//! Owns: [`legacy`]. Kinds others depend on first, webhooks last, in between by group, version, kind, namespace and
//! name as bytes.

use super::identity::Id;
use super::resource::Resource;

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

pub fn legacy(resources: &mut [Resource]) {
    resources.sort_by_cached_key(|resource| key(&resource.id()));
}

fn key(id: &Id) -> (usize, String, String, String) {
    let rank = match FIRST.iter().position(|kind| *kind == id.kind) {
        Some(at) => at,
        None => FIRST.len() + LAST.iter().position(|kind| *kind == id.kind).map_or(0, |at| at + 1),
    };
    let or = |text: &str, absent: &str| if text.is_empty() { absent.to_owned() } else { text.to_owned() };
    let mut kind = format!("{}_{}_{}", or(&id.group, "~G"), or(&id.version, "~V"), or(&id.kind, "~K"));
    if id.kind == "Namespace" {
        // Namespaces of the core group come before namesakes of other groups.
        kind.insert(0, if id.group.is_empty() { '0' } else { '1' });
    }
    (rank, kind, or(&id.namespace, "~X"), or(&id.name, "~N"))
}
