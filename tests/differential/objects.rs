//! Random objects of many kinds, whose names are few so that they refer to each other.

use serde_json::{Map, Value, json};

use super::random::Random;

pub const NAMES: [&str; 6] = ["web", "db", "cfg", "a.b", "default", "one-two"];
pub const NAMESPACES: [&str; 3] = ["default", "blue", "green"];
const IMAGES: [&str; 8] = [
    "nginx",
    "nginx:1.7",
    "nginx@sha256:abcdef",
    "quay.io/a/b:v1",
    "host:5000/nginx:2",
    "nginx:1.2@sha256:012345",
    "my-nginx:1",
    "$(IMG)",
];
/// Texts that readers and writers of YAML trip over.
const TEXTS: [&str; 44] = [
    "plain",
    "yes",
    "no",
    "on",
    "true",
    "null",
    "~",
    "",
    "012",
    "0x1F",
    "1e3",
    "1.50",
    "12:30",
    "2001-02-03",
    " lead",
    "trail ",
    "a: b",
    "a #b",
    "#c",
    "- d",
    "[x",
    "{y",
    "it's",
    "say \"hi\"",
    "tab\there",
    "two\nlines",
    "two\nlines\n",
    "end\n\n",
    "\nfirst",
    "  in\nout",
    "a\\b",
    "ünïcode",
    "emoji 😀",
    "$(NAME)",
    "x$$(NAME)-$(OTHER)y",
    "@at",
    "`tick",
    "%percent",
    "&amp",
    "*star",
    "!bang",
    "a,b",
    ".",
    "word word word word word word word word word word word word word word word word word word word word",
];

pub fn text(random: &mut Random) -> String {
    match random.below(4) {
        0 => (*random.pick(&TEXTS)).to_owned(),
        1 => format!("v{}", random.below(5)),
        _ => NAMES[random.below(NAMES.len())].to_owned(),
    }
}

/// Anything a scalar may be.
pub fn scalar(random: &mut Random) -> Value {
    match random.below(9) {
        0 => json!(random.below(100)),
        1 => json!(true),
        2 => json!(1.5),
        3 => json!(-7),
        4 => json!(12345678901234_u64),
        _ => json!(text(random)),
    }
}

pub fn any(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth == 0 { 1 } else { 5 }) {
        0 | 1 => scalar(random),
        2 | 3 => {
            let mut map = Map::new();
            for _ in 0..random.below(4) {
                let key = random.one(&["a", "b", "name", "value", "B1", "b10", "b9", "x/y", "yes", "list", "spec"]);
                map.insert(key.to_owned(), any(random, depth - 1));
            }
            Value::Object(map)
        }
        _ => {
            let named = random.once_in(2);
            let items = (0..random.below(4)).map(|at| match named {
                true => json!({"name": NAMES[at], "value": any(random, depth - 1)}),
                false => any(random, depth - 1),
            });
            Value::Array(items.collect())
        }
    }
}

fn name(random: &mut Random) -> &'static str {
    NAMES[random.below(NAMES.len())]
}

fn labels(random: &mut Random) -> Value {
    let mut map = Map::new();
    for _ in 0..random.below(3) {
        let key = random.one(&["app", "tier", "x.io/team", "env"]);
        map.insert(key.to_owned(), json!(random.one(&["web", "db", "true", "1.0"])));
    }
    Value::Object(map)
}

fn metadata(random: &mut Random, name: &str) -> Value {
    let mut metadata = json!({ "name": name });
    if random.once_in(3) {
        metadata["namespace"] = json!(random.pick(&NAMESPACES));
    }
    if random.once_in(2) {
        metadata["labels"] = labels(random);
    }
    if random.once_in(3) {
        let mut annotations = Map::new();
        for _ in 0..random.below(3) {
            let key = random.one(&["note", "x.io/why", "when", "nginx.ingress.kubernetes.io/auth-secret"]);
            annotations.insert(key.to_owned(), json!(text(random)));
        }
        metadata["annotations"] = Value::Object(annotations);
    }
    if random.once_in(12) {
        metadata["creationTimestamp"] = Value::Null;
    }
    metadata
}

pub fn env(random: &mut Random) -> Value {
    let key = random.one(&["A", "B", "C", "NAME"]);
    match random.below(6) {
        0 => json!({"name": key, "valueFrom": {"configMapKeyRef": {"name": name(random), "key": "k"}}}),
        1 => json!({"name": key, "valueFrom": {"secretKeyRef": {"name": name(random), "key": "k"}}}),
        _ => json!({"name": key, "value": text(random)}),
    }
}

pub fn port(random: &mut Random) -> Value {
    let mut port = json!({"containerPort": 80 + random.below(3)});
    if random.once_in(2) {
        port["protocol"] = json!(random.one(&["TCP", "UDP"]));
    }
    if random.once_in(2) {
        port["name"] = json!(random.one(&["http", "dns", "x"]));
    }
    port
}

pub fn container(random: &mut Random, named: &str) -> Value {
    let mut container = json!({"name": named});
    if !random.once_in(5) {
        container["image"] = json!(random.pick(&IMAGES));
    }
    if random.once_in(2) {
        container["env"] = (0..random.below(4)).map(|_| env(random)).collect();
    }
    if random.once_in(2) {
        container["ports"] = (0..random.below(3)).map(|_| port(random)).collect();
    }
    if random.once_in(4) {
        container["envFrom"] = json!([{"configMapRef": {"name": name(random)}}, {"secretRef": {"name": name(random)}}]);
    }
    if random.once_in(4) {
        container["args"] = json!([text(random), "--x=$(NAME)", text(random)]);
    }
    if random.once_in(4) {
        container["volumeMounts"] =
            json!([{"name": "v0", "mountPath": "/m0"}, {"name": "v1", "mountPath": random.one(&["/m1", "/m$(NAME)"])}]);
    }
    if random.once_in(6) {
        container["resources"] = json!({"limits": {"cpu": "1", "memory": "64Mi"}});
    }
    container
}

pub fn volume(random: &mut Random, named: &str) -> Value {
    match random.below(5) {
        0 => json!({"name": named, "configMap": {"name": name(random)}}),
        1 => json!({"name": named, "secret": {"secretName": name(random)}}),
        2 => json!({"name": named, "emptyDir": {}}),
        3 => json!({"name": named, "persistentVolumeClaim": {"claimName": name(random)}}),
        _ => {
            let sources = json!([{"configMap": {"name": name(random)}}, {"secret": {"name": name(random)}}]);
            json!({"name": named, "projected": {"sources": sources}})
        }
    }
}

pub fn pod(random: &mut Random) -> Value {
    let mut pod = json!({});
    pod["containers"] = (0..1 + random.below(3)).map(|at| container(random, ["main", "side", "third"][at])).collect();
    if random.once_in(4) {
        pod["initContainers"] = json!([container(random, "init")]);
    }
    if random.once_in(3) {
        pod["volumes"] = (0..1 + random.below(2)).map(|at| volume(random, ["v0", "v1"][at])).collect();
    }
    if random.once_in(4) {
        pod["serviceAccountName"] = json!(name(random));
    }
    if random.once_in(5) {
        pod["imagePullSecrets"] = json!([{"name": name(random)}]);
    }
    if random.once_in(6) {
        pod["tolerations"] = json!([{"key": "a", "operator": "Exists"}, {"key": "b"}]);
    }
    if random.once_in(6) {
        pod["hostAliases"] = json!([{"ip": "1.2.3.4", "hostnames": ["a"]}]);
    }
    if random.once_in(6) {
        pod["priorityClassName"] = json!(name(random));
    }
    if random.once_in(8) {
        pod["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    }
    if random.once_in(8) {
        pod["affinity"] = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": {"topologyKey": "z", "labelSelector": {"matchLabels": {"app": "web"}}}}]}});
    }
    pod
}

fn template(random: &mut Random) -> Value {
    let mut template = json!({ "spec": pod(random) });
    if random.once_in(2) {
        template["metadata"] = json!({ "labels": labels(random) });
    }
    template
}

fn workload(random: &mut Random, selector: bool) -> Value {
    let mut spec = json!({ "template": template(random) });
    if random.once_in(2) {
        spec["replicas"] = json!(random.below(5));
    }
    if selector && random.once_in(2) {
        spec["selector"] = json!({"matchLabels": labels(random)});
    }
    spec
}

fn data(random: &mut Random) -> Value {
    let mut map = Map::new();
    for _ in 0..random.below(4) {
        let key = random.one(&["k", "k.txt", "other", "a_b", "on", "k1"]);
        map.insert(key.to_owned(), json!(text(random)));
    }
    Value::Object(map)
}

fn subjects(random: &mut Random) -> Value {
    let one = |random: &mut Random| {
        let mut subject =
            json!({"kind": random.one(&["ServiceAccount", "ServiceAccount", "User", "Group"]), "name": name(random)});
        if random.once_in(2) {
            subject["namespace"] = json!(random.pick(&NAMESPACES));
        }
        subject
    };
    (0..random.below(3)).map(|_| one(random)).collect()
}

fn rules(random: &mut Random) -> Value {
    json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name(random), name(random)], "verbs": ["get"]}])
}

/// Kinds and where they belong.
pub const KINDS: [(&str, &str); 31] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ReplicaSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "ServiceAccount"),
    ("v1", "Namespace"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "PersistentVolume"),
    ("storage.k8s.io/v1", "StorageClass"),
    ("scheduling.k8s.io/v1", "PriorityClass"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("apiregistration.k8s.io/v1", "APIService"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("airshipit.org/v1alpha1", "NodeProfile"),
    ("example.com/v1", "Widget"),
];

pub fn object(random: &mut Random) -> Value {
    let (api_version, kind) = *random.pick(&KINDS);
    let named = name(random);
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata(random, named)});
    let put = |object: &mut Value, field: &str, value: Value| object[field] = value;
    match kind {
        "Deployment" | "DaemonSet" | "ReplicaSet" => put(&mut object, "spec", workload(random, true)),
        "StatefulSet" => {
            let mut spec = workload(random, true);
            spec["serviceName"] = json!(name(random));
            if random.once_in(2) {
                spec["volumeClaimTemplates"] =
                    json!([{"metadata": {"name": "v"}, "spec": {"storageClassName": name(random)}}]);
            }
            put(&mut object, "spec", spec);
        }
        "Job" => put(&mut object, "spec", workload(random, false)),
        "CronJob" => {
            let job = json!({ "spec": workload(random, false) });
            put(&mut object, "spec", json!({"schedule": "* * * * *", "jobTemplate": job}));
        }
        "Pod" => put(&mut object, "spec", pod(random)),
        "Service" => {
            let mut spec =
                json!({"ports": [{"port": 80, "name": "http"}, {"port": 443, "targetPort": "x", "name": "s"}]});
            if random.once_in(2) {
                spec["selector"] = labels(random);
            }
            put(&mut object, "spec", spec);
        }
        "ConfigMap" => put(&mut object, "data", data(random)),
        "Secret" => {
            put(&mut object, "type", json!("Opaque"));
            put(&mut object, random.one(&["data", "stringData"]), data(random));
        }
        "ServiceAccount" if random.once_in(2) => {
            put(&mut object, "imagePullSecrets", json!([{"name": name(random)}]));
            put(&mut object, "secrets", json!([{"name": name(random)}]));
        }
        "PersistentVolumeClaim" => {
            let spec = json!({"storageClassName": name(random), "volumeName": name(random)});
            put(&mut object, "spec", spec);
        }
        "PersistentVolume" => {
            let nfs = json!({"server": "$(NAME)", "path": "/"});
            put(&mut object, "spec", json!({"storageClassName": name(random), "nfs": nfs}));
        }
        "Role" | "ClusterRole" => put(&mut object, "rules", rules(random)),
        "RoleBinding" | "ClusterRoleBinding" => {
            let of = if kind == "RoleBinding" { random.one(&["Role", "ClusterRole"]) } else { "ClusterRole" };
            let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": of, "name": name(random)});
            put(&mut object, "roleRef", role);
            put(&mut object, "subjects", subjects(random));
        }
        "Ingress" => {
            let backend = json!({"service": {"name": name(random), "port": {"number": 80}}});
            let rule = json!({"host": "$(NAME).x", "http": {"paths": [{"path": "/", "backend": backend}]}});
            put(&mut object, "spec", json!({"rules": [rule], "tls": [{"hosts": ["a"], "secretName": name(random)}]}));
        }
        "NetworkPolicy" => {
            let peer = json!({"podSelector": {"matchLabels": {"app": "web"}}});
            put(&mut object, "spec", json!({"podSelector": {"matchLabels": {}}, "ingress": [{"from": [peer]}]}));
        }
        "HorizontalPodAutoscaler" => {
            let of = random.one(&["Deployment", "StatefulSet", "Widget"]);
            let target = json!({"apiVersion": "apps/v1", "kind": of, "name": name(random)});
            put(&mut object, "spec", json!({"scaleTargetRef": target, "maxReplicas": 3}));
        }
        "PodDisruptionBudget" => put(&mut object, "spec", json!({"selector": {"matchLabels": labels(random)}})),
        "ValidatingWebhookConfiguration" => {
            let service = json!({"name": name(random), "namespace": random.pick(&NAMESPACES)});
            put(&mut object, "webhooks", json!([{"name": "w.x", "clientConfig": {"service": service}}]));
        }
        "APIService" => put(&mut object, "spec", json!({"service": {"name": name(random), "namespace": "blue"}})),
        "NodeProfile" | "Widget" | "CustomResourceDefinition" => {
            put(&mut object, "spec", any(random, 4));
            if random.once_in(3) {
                object["spec"] = json!({"template": template(random), "configMapRef": {"name": name(random)}});
            }
        }
        _ => {}
    }
    object
}
