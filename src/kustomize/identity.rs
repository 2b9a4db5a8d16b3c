//! What makes an object itself: group, version, kind, name, namespace.
//!
//! Owns: [`Id`] and the list of built-in kinds that have no namespace.

use std::fmt;

use crate::document::Node;

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

impl Id {
    /// Missing parts are empty; whether that is allowed is for the caller to say.
    pub fn of(node: &Node) -> Self {
        let text = |path: &[&str]| node.at(path).and_then(Node::text).unwrap_or_default().to_owned();
        let api_version = text(&["apiVersion"]);
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
        Id {
            group: group.into(),
            version: version.into(),
            kind: text(&["kind"]),
            name: text(&["metadata", "name"]),
            namespace: text(&["metadata", "namespace"]),
        }
    }

    /// The namespace that counts: the empty one is `default`, kinds without namespace have none.
    pub fn effective_namespace(&self) -> &str {
        if self.is_cluster_scoped() {
            ""
        } else if self.namespace.is_empty() {
            "default"
        } else {
            &self.namespace
        }
    }

    /// Equal as kustomize sees it.
    pub fn same(&self, other: &Id) -> bool {
        self.key() == other.key()
    }

    pub fn key(&self) -> (&str, &str, &str, &str, &str) {
        (&self.group, &self.version, &self.kind, &self.name, self.effective_namespace())
    }

    pub fn is_cluster_scoped(&self) -> bool {
        let kinds: &[&str] = match self.group.as_str() {
            "" => &["Namespace", "Node", "PersistentVolume", "ComponentStatus"],
            "admissionregistration.k8s.io" => {
                &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "ValidatingAdmissionPolicy"]
            }
            "apiextensions.k8s.io" => &["CustomResourceDefinition"],
            "apiregistration.k8s.io" => &["APIService"],
            "authentication.k8s.io" => &["TokenReview"],
            "authorization.k8s.io" => &["SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview"],
            "certificates.k8s.io" => &["CertificateSigningRequest"],
            "flowcontrol.apiserver.k8s.io" => &["FlowSchema", "PriorityLevelConfiguration"],
            "networking.k8s.io" => &["IngressClass"],
            "node.k8s.io" => &["RuntimeClass"],
            "policy" => &["PodSecurityPolicy"],
            "rbac.authorization.k8s.io" => &["ClusterRole", "ClusterRoleBinding"],
            "scheduling.k8s.io" => &["PriorityClass"],
            "storage.k8s.io" => &["StorageClass", "VolumeAttachment", "CSIDriver", "CSINode"],
            _ => &[],
        };
        kinds.contains(&self.kind.as_str())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind.is_empty() { "object" } else { &self.kind };
        f.write_str(kind)?;
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        if !self.namespace.is_empty() {
            write!(f, " in namespace {}", self.namespace)?;
        }
        Ok(())
    }
}
