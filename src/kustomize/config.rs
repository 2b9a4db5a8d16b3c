//! What the built-in transformers work on: the defaults, and what `configurations` and `crds` add.
//!
//! Owns: [`Config`], [`NameReference`]. A folder hands what it knows on to the folders above it.

use serde::Deserialize;

use super::fieldspec::{FieldSpec, Specs, add, add_all};
use super::identity::Gvk;
use crate::document::{Decoder, Node, Position};
use crate::error::Result;

/// Where the names of objects of one kind are written in others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NameReference {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub field_specs: Specs,
}

impl NameReference {
    pub fn gvk(&self) -> Gvk {
        Gvk { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    pub name_prefix: Specs,
    pub name_suffix: Specs,
    pub namespace: Specs,
    pub common_labels: Specs,
    /// Of `labels` without selectors.
    pub labels: Specs,
    pub template_labels: Specs,
    pub common_annotations: Specs,
    pub name_reference: Vec<NameReference>,
    pub var_reference: Specs,
    pub images: Specs,
    pub replicas: Specs,
}

impl Config {
    pub fn decode(node: &Node) -> Result<Config> {
        Decoder { any_case: true, strict_text: true }.decode(node)
    }

    pub fn merge(&mut self, other: &Config, at: &Position) -> Result<()> {
        add_all(&mut self.name_prefix, &other.name_prefix, at)?;
        add_all(&mut self.name_suffix, &other.name_suffix, at)?;
        add_all(&mut self.namespace, &other.namespace, at)?;
        add_all(&mut self.common_labels, &other.common_labels, at)?;
        add_all(&mut self.labels, &other.labels, at)?;
        add_all(&mut self.template_labels, &other.template_labels, at)?;
        add_all(&mut self.common_annotations, &other.common_annotations, at)?;
        add_all(&mut self.var_reference, &other.var_reference, at)?;
        add_all(&mut self.images, &other.images, at)?;
        add_all(&mut self.replicas, &other.replicas, at)?;
        other.name_reference.iter().try_for_each(|reference| self.add_reference(reference, at))
    }

    pub fn add_reference(&mut self, reference: &NameReference, at: &Position) -> Result<()> {
        let gvk = reference.gvk();
        match self.name_reference.iter_mut().find(|known| known.gvk() == gvk) {
            Some(known) => add_all(&mut known.field_specs, &reference.field_specs, at),
            None => {
                let mut fresh = NameReference { field_specs: Vec::new(), ..reference.clone() };
                add_all(&mut fresh.field_specs, &reference.field_specs, at)?;
                self.name_reference.push(fresh);
                Ok(())
            }
        }
    }

    pub fn builtin() -> Config {
        let name = vec![spec("", "metadata/name", false)];
        let metadata = spec("", "metadata/labels", true);
        let mut templates = template_fields("labels");
        let volume_claims = spec("apps//StatefulSet", "spec/volumeClaimTemplates[]/metadata/labels", true);
        templates.push(volume_claims);
        let mut common_labels = selectors();
        common_labels.extend(templates.iter().cloned());
        common_labels.push(metadata.clone());
        let mut common_annotations = vec![spec("", "metadata/annotations", true)];
        common_annotations.extend(template_fields("annotations"));
        // Of annotations, those of stateful sets of every group.
        common_annotations.iter_mut().filter(|spec| spec.kind == "StatefulSet").for_each(|spec| spec.group.clear());
        Config {
            name_prefix: name.clone(),
            name_suffix: name,
            namespace: namespaces(),
            common_labels,
            labels: Vec::new(),
            template_labels: templates,
            common_annotations,
            name_reference: references(),
            var_reference: variables(),
            images: images(),
            replicas: ["Deployment", "ReplicationController", "ReplicaSet", "StatefulSet"]
                .map(|kind| spec(&format!("//{kind}"), "spec/replicas", true))
                .into(),
        }
    }
}

/// `group/version/kind`, all of which may be empty or missing from the front.
fn spec(of: &str, path: &str, create: bool) -> FieldSpec {
    let mut parts = of.rsplitn(3, '/');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let (kind, version, group) = (part(), part(), part());
    FieldSpec { group, version, kind, path: path.to_owned(), create }
}

fn at(of: &str, path: impl AsRef<str>) -> FieldSpec {
    spec(of, path.as_ref(), false)
}

/// Where workloads describe their pods.
const WORKLOADS: [&str; 5] = ["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "Job"];

fn template_fields(field: &str) -> Specs {
    let template = format!("spec/template/metadata/{field}");
    let mut specs: Specs = ["/v1/ReplicationController", "Deployment", "ReplicaSet", "DaemonSet"]
        .map(|of| spec(of, &template, true))
        .into();
    specs.push(spec("apps//StatefulSet", &template, true));
    specs.push(spec("batch//Job", &template, true));
    specs.push(spec("batch//CronJob", &format!("spec/jobTemplate/metadata/{field}"), true));
    specs.push(spec("batch//CronJob", &format!("spec/jobTemplate/spec/template/metadata/{field}"), true));
    specs
}

fn selectors() -> Specs {
    let mut specs = vec![
        spec("/v1/Service", "spec/selector", true),
        spec("/v1/ReplicationController", "spec/selector", true),
        spec("Deployment", "spec/selector/matchLabels", true),
        spec("ReplicaSet", "spec/selector/matchLabels", true),
        spec("DaemonSet", "spec/selector/matchLabels", true),
        spec("apps//StatefulSet", "spec/selector/matchLabels", true),
        at("batch//Job", "spec/selector/matchLabels"),
        at("batch//CronJob", "spec/jobTemplate/spec/selector/matchLabels"),
        at("policy//PodDisruptionBudget", "spec/selector/matchLabels"),
        at("networking.k8s.io//NetworkPolicy", "spec/podSelector/matchLabels"),
        at("networking.k8s.io//NetworkPolicy", "spec/ingress/from/podSelector/matchLabels"),
        at("networking.k8s.io//NetworkPolicy", "spec/egress/to/podSelector/matchLabels"),
    ];
    for of in ["apps//Deployment", "apps//StatefulSet"] {
        for affinity in ["podAffinity", "podAntiAffinity"] {
            for term in [
                "preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm",
                "requiredDuringSchedulingIgnoredDuringExecution",
            ] {
                specs.push(at(of, format!("spec/template/spec/affinity/{affinity}/{term}/labelSelector/matchLabels")));
            }
        }
        specs.push(at(of, "spec/template/spec/topologySpreadConstraints/labelSelector/matchLabels"));
    }
    specs
}

/// Beside `metadata/namespace`, which is set in any case.
fn namespaces() -> Specs {
    vec![
        spec("/v1/Namespace", "metadata/name", true),
        spec("apiregistration.k8s.io//APIService", "spec/service/namespace", true),
        at("apiextensions.k8s.io//CustomResourceDefinition", "spec/conversion/webhook/clientConfig/service/namespace"),
    ]
}

fn images() -> Specs {
    let mut specs = Vec::new();
    for pod in ["spec", "spec/template/spec"] {
        for field in ["containers[]/image", "initContainers[]/image", "volumes[]/image/reference"] {
            specs.push(spec("", &format!("{pod}/{field}"), true));
        }
    }
    specs
}

/// The kinds that hold pods, and where. `old` adds the kind that only some tables have.
fn pods(kinds: &[&str]) -> Vec<(String, &'static str)> {
    let place = |kind: &&str| match *kind {
        "Pod" | "/v1/Pod" => "spec",
        "PodTemplate" => "template/spec",
        "CronJob" => "spec/jobTemplate/spec/template/spec",
        _ => "spec/template/spec",
    };
    kinds.iter().map(|kind| ((*kind).to_owned(), place(kind))).collect()
}

fn in_pods(kinds: &[&str], fields: &[&str]) -> Specs {
    let mut specs = Vec::new();
    for (of, pod) in pods(kinds) {
        specs.extend(fields.iter().map(|field| at(&of, format!("{pod}/{field}"))));
    }
    specs
}

fn references() -> Vec<NameReference> {
    const HOLDERS: [&str; 8] =
        ["/v1/Pod", "PodTemplate", "Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "Job", "CronJob"];
    const USERS: [&str; 7] =
        ["Pod", "StatefulSet", "Deployment", "ReplicationController", "CronJob", "Job", "DaemonSet"];
    let reference = |of: &str, field_specs: Specs| {
        let FieldSpec { group, version, kind, .. } = at(of, "");
        NameReference { group, version, kind, field_specs }
    };
    let scaled = || vec![at("HorizontalPodAutoscaler", "spec/scaleTargetRef/name")];
    let mut maps = in_pods(
        &HOLDERS,
        &[
            "volumes/configMap/name",
            "containers/env/valueFrom/configMapKeyRef/name",
            "initContainers/env/valueFrom/configMapKeyRef/name",
            "containers/envFrom/configMapRef/name",
            "initContainers/envFrom/configMapRef/name",
            "volumes/projected/sources/configMap/name",
        ],
    );
    maps.extend([
        at("Node", "spec/configSource/configMap"),
        at("Role", "rules/resourceNames"),
        at("ClusterRole", "rules/resourceNames"),
        at("Ingress", r"metadata/annotations/nginx.ingress.kubernetes.io\/fastcgi-params-configmap"),
    ]);
    let mut secrets = in_pods(
        &HOLDERS,
        &[
            "volumes/secret/secretName",
            "containers/env/valueFrom/secretKeyRef/name",
            "initContainers/env/valueFrom/secretKeyRef/name",
            "containers/envFrom/secretRef/name",
            "initContainers/envFrom/secretRef/name",
            "imagePullSecrets/name",
            "volumes/projected/sources/secret/name",
        ],
    );
    secrets.extend([
        at("Ingress", "spec/tls/secretName"),
        at("Ingress", r"metadata/annotations/ingress.kubernetes.io\/auth-secret"),
        at("Ingress", r"metadata/annotations/nginx.ingress.kubernetes.io\/auth-secret"),
        at("Ingress", r"metadata/annotations/nginx.ingress.kubernetes.io\/auth-tls-secret"),
        at("ServiceAccount", "imagePullSecrets/name"),
        at("StorageClass", "parameters/secretName"),
        at("StorageClass", "parameters/adminSecretName"),
        at("StorageClass", "parameters/userSecretName"),
        at("StorageClass", "parameters/secretRef"),
        at("Role", "rules/resourceNames"),
        at("ClusterRole", "rules/resourceNames"),
        at("serving.knative.dev/v1/Service", "spec/template/spec/containers/env/valueFrom/secretKeyRef/name"),
        at("PersistentVolume", "spec/azureFile/secretName"),
    ]);
    let services = vec![
        at("apps//StatefulSet", "spec/serviceName"),
        at("Ingress", "spec/rules/http/paths/backend/serviceName"),
        at("Ingress", "spec/backend/serviceName"),
        at("Ingress", "spec/rules/http/paths/backend/service/name"),
        at("Ingress", "spec/defaultBackend/service/name"),
        at("apiregistration.k8s.io//APIService", "spec/service/name"),
        at("admissionregistration.k8s.io//ValidatingWebhookConfiguration", "webhooks/clientConfig/service"),
        at("admissionregistration.k8s.io//MutatingWebhookConfiguration", "webhooks/clientConfig/service"),
        at("HTTPRoute", "spec/rules/backendRefs/name"),
    ];
    let binding = "rbac.authorization.k8s.io//RoleBinding";
    let cluster_binding = "rbac.authorization.k8s.io//ClusterRoleBinding";
    let mut accounts = vec![at(binding, "subjects"), at(cluster_binding, "subjects")];
    accounts.extend(in_pods(&USERS, &["serviceAccountName"]));
    vec![
        reference("Deployment", scaled()),
        reference("ReplicationController", scaled()),
        reference("ReplicaSet", scaled()),
        reference("StatefulSet", scaled()),
        reference("/v1/ConfigMap", maps),
        reference("/v1/Secret", secrets),
        reference("/v1/Service", services),
        reference("rbac.authorization.k8s.io//Role", vec![at(binding, "roleRef/name")]),
        reference(
            "rbac.authorization.k8s.io//ClusterRole",
            vec![at(binding, "roleRef/name"), at(cluster_binding, "roleRef/name")],
        ),
        reference("/v1/ServiceAccount", accounts),
        reference("/v1/PersistentVolumeClaim", in_pods(&USERS, &["volumes/persistentVolumeClaim/claimName"])),
        reference(
            "/v1/PersistentVolume",
            vec![at("PersistentVolumeClaim", "spec/volumeName"), at("ClusterRole", "rules/resourceNames")],
        ),
        reference(
            "storage.k8s.io/v1/StorageClass",
            vec![
                at("PersistentVolume", "spec/storageClassName"),
                at("PersistentVolumeClaim", "spec/storageClassName"),
                at("StatefulSet", "spec/volumeClaimTemplates/spec/storageClassName"),
            ],
        ),
        reference("scheduling.k8s.io/v1/PriorityClass", in_pods(&USERS, &["priorityClassName"])),
        reference(
            "admissionregistration.k8s.io//ValidatingAdmissionPolicy",
            vec![at("admissionregistration.k8s.io//ValidatingAdmissionPolicyBinding", "spec/policyName")],
        ),
    ]
}

fn variables() -> Specs {
    let mut kinds = vec!["CronJob", "Pod"];
    kinds.extend(WORKLOADS);
    let mut specs = in_pods(
        &kinds,
        &[
            "containers/args",
            "containers/command",
            "containers/env/value",
            "containers/volumeMounts/mountPath",
            "initContainers/args",
            "initContainers/command",
            "initContainers/env/value",
            "initContainers/volumeMounts/mountPath",
        ],
    );
    let with_volumes: Vec<&str> =
        kinds.iter().copied().filter(|kind| !["StatefulSet", "CronJob"].contains(kind)).collect();
    specs.extend(in_pods(&with_volumes, &["volumes/nfs/server"]));
    specs.extend([
        // Kustomize looks for it here, where it cannot be.
        at("CronJob", "spec/jobTemplate/spec/template/volumes/nfs/server"),
        at("Deployment", "spec/template/metadata/annotations"),
        at("Ingress", "spec/rules/host"),
        at("Ingress", "spec/tls/hosts"),
        at("Ingress", "spec/tls/secretName"),
        at("Service", "spec/ports/port"),
        at("Service", "spec/ports/targetPort"),
        at("StatefulSet", "spec/volumeClaimTemplates/spec/nfs/server"),
        at("PersistentVolume", "spec/nfs/server"),
        at("", "metadata/labels"),
        at("", "metadata/annotations"),
    ]);
    specs
}

/// Adds one specification, made by a definition at `from`.
pub fn extend(specs: &mut Specs, path: &[&str], kind: &str, from: &Position) -> Result<()> {
    add(specs, FieldSpec { kind: kind.to_owned(), path: path.join("/"), ..FieldSpec::default() }, from)
}
