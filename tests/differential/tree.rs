//! Random trees of kustomizations over random objects: bases, components, overlays, with every field.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::{Map, Value, json};

use super::objects::{self, NAMES, NAMESPACES};
use super::patches::pointers;
use super::random::Random;
use super::yaml;

/// Plain scalars whose type readers of YAML disagree about.
pub(super) const RAW: [&str; 26] = [
    "012",
    "08",
    "1_000",
    ".5",
    "0x1F",
    "0o7",
    "1e3",
    "1E21",
    "+1",
    "-0",
    "0.1e-7",
    "2001-1-2",
    "yes",
    "on",
    "y",
    "~",
    "Null",
    "True",
    "1.0",
    "1.10",
    "12345678901234567890",
    "0b11",
    "123456.789e3",
    "1.",
    "12:30",
    "=",
];

pub struct Tree<'a> {
    pub(super) random: &'a mut Random,
    root: PathBuf,
    pub(super) count: usize,
    /// Mistakes are welcome; most trees are meant to be rendered.
    pub(super) wild: bool,
}

/// What a folder holds, as far as patches need to know it.
pub type Objects = Vec<Value>;

pub(super) fn id(object: &Value) -> (String, String, String, String) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let namespace = text("/metadata/namespace");
    let namespace = if namespace.is_empty() { "default".into() } else { namespace };
    (text("/apiVersion"), text("/kind"), text("/metadata/name"), namespace)
}

pub(super) fn cluster(kind: &str) -> bool {
    [
        "Namespace",
        "ClusterRole",
        "ClusterRoleBinding",
        "PersistentVolume",
        "StorageClass",
        "PriorityClass",
        "APIService",
    ]
    .contains(&kind)
        || kind.ends_with("WebhookConfiguration")
        || kind == "CustomResourceDefinition"
}

impl<'a> Tree<'a> {
    /// Writes a tree below a folder and returns the folder to build.
    pub fn write(random: &'a mut Random, root: &Path) -> io::Result<PathBuf> {
        let wild = random.once_in(5);
        let mut tree = Tree { random, root: root.to_owned(), count: 0, wild };
        let layers = 1 + tree.random.below(3);
        let (mut dir, mut objects) = tree.layer(&[])?;
        for _ in 1..layers {
            let mut below = vec![(dir, objects)];
            if tree.random.once_in(4) {
                below.push(tree.layer(&[])?);
            }
            (dir, objects) = tree.layer(&below)?;
        }
        Ok(root.join(dir))
    }

    pub(super) fn one_in(&mut self, of: usize) -> bool {
        self.random.once_in(of)
    }

    pub(super) fn file(&mut self, path: &str, text: &str) -> io::Result<()> {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        fs::write(path, text)
    }

    /// A folder over others.
    fn layer(&mut self, below: &[(String, Objects)]) -> io::Result<(String, Objects)> {
        self.count += 1;
        let dir = format!("l{}", self.count);
        let mut kustomization = Map::new();
        if self.one_in(2) {
            kustomization.insert("apiVersion".into(), json!("kustomize.config.k8s.io/v1beta1"));
            kustomization.insert("kind".into(), json!("Kustomization"));
        }
        let mut resources = Vec::new();
        let mut all: Objects = Vec::new();
        for (folder, objects) in below {
            resources.push(json!(format!("../{folder}")));
            all.extend(objects.iter().cloned());
        }
        let own = if below.is_empty() { 2 + self.random.below(7) } else { self.random.below(3) };
        let mut file = String::new();
        for number in 0..own {
            let mut object = objects::object(self.random);
            let mut known = id(&object);
            if cluster(&known.1) {
                known.3.clear();
            }
            let same = |other: &Value| {
                let mut other = id(other);
                if cluster(&other.1) {
                    other.3.clear();
                }
                other == known
            };
            if all.iter().any(same) {
                continue;
            }
            if self.one_in(6) && object["spec"].is_object() {
                let raw = format!("{}{}", yaml::RAW, self.random.one(&RAW));
                object["spec"]["odd"] = json!(raw);
            }
            let text = yaml::document(self.random, &object);
            if self.one_in(2) {
                file.push_str("---\n");
                file.push_str(&text);
            } else {
                let name = format!("r{number}.yaml");
                self.file(&format!("{dir}/{name}"), &text)?;
                resources.push(json!(name));
            }
            all.push(object);
        }
        if !file.is_empty() {
            self.file(&format!("{dir}/many.yaml"), &file)?;
            resources.push(json!("many.yaml"));
        }
        kustomization.insert("resources".into(), Value::Array(resources));
        self.fields(&dir, &mut kustomization, &mut all)?;
        if self.one_in(5) {
            self.component(&dir, &mut kustomization, &mut all)?;
        }
        let text = yaml::document(self.random, &Value::Object(kustomization));
        self.file(&format!("{dir}/kustomization.yaml"), &text)?;
        Ok((dir, all))
    }

    fn component(&mut self, dir: &str, parent: &mut Map<String, Value>, all: &mut Objects) -> io::Result<()> {
        self.count += 1;
        let inner = format!("c{}", self.count);
        let mut kustomization = Map::new();
        kustomization.insert("apiVersion".into(), json!("kustomize.config.k8s.io/v1alpha1"));
        kustomization.insert("kind".into(), json!("Component"));
        self.fields(&inner, &mut kustomization, all)?;
        if kustomization.len() == 2 {
            kustomization.insert("namePrefix".into(), json!("c-"));
        }
        let text = yaml::document(self.random, &Value::Object(kustomization));
        self.file(&format!("{inner}/kustomization.yaml"), &text)?;
        let _ = dir;
        parent.insert("components".into(), json!([format!("../{inner}")]));
        Ok(())
    }

    /// Everything but resources.
    fn fields(&mut self, dir: &str, out: &mut Map<String, Value>, all: &mut Objects) -> io::Result<()> {
        self.names(out, all);
        self.labels(out);
        self.generators(dir, out, all)?;
        if self.one_in(4) && !all.is_empty() {
            let patches = (0..1 + self.random.below(2)).map(|_| self.strategic(all)).collect::<Vec<_>>();
            let mut entries = Vec::new();
            for (at, patch) in patches.iter().enumerate() {
                let text = yaml::document(self.random, patch);
                if self.one_in(2) {
                    let name = format!("sm{at}.yaml");
                    self.file(&format!("{dir}/{name}"), &text)?;
                    entries.push(json!(name));
                } else {
                    entries.push(json!(text));
                }
            }
            out.insert("patchesStrategicMerge".into(), Value::Array(entries));
        }
        if self.one_in(2) && !all.is_empty() {
            let count = 1 + self.random.below(3);
            let mut entries = Vec::new();
            for at in 0..count {
                entries.push(self.patch(dir, at, all, true)?);
            }
            out.insert("patches".into(), Value::Array(entries));
        }
        if self.one_in(6) && !all.is_empty() {
            let entry = self.patch(dir, 9, all, false)?;
            out.insert("patchesJson6902".into(), json!([entry]));
        }
        if self.one_in(3) && all.len() > 1 {
            let entries: Vec<Value> = (0..1 + self.random.below(2)).map(|_| self.replacement(all)).collect();
            out.insert("replacements".into(), Value::Array(entries));
        }
        if self.one_in(8) && !all.is_empty() {
            let object = self.random.pick(all).clone();
            let (api_version, kind, name, _) = id(&object);
            let mut objref = json!({"kind": kind, "name": name, "apiVersion": api_version});
            if let Some(namespace) = object.pointer("/metadata/namespace") {
                objref["namespace"] = namespace.clone();
            }
            let name = match (self.wild, self.count) {
                (true, _) => self.random.one(&["NAME", "OTHER"]),
                (_, 1) => "NAME",
                (_, 2) => "OTHER",
                _ => "IMG",
            };
            let mut var = json!({"name": name, "objref": objref});
            if self.one_in(2) {
                let known = [
                    "metadata.name",
                    "kind",
                    "metadata.namespace",
                    "spec.replicas",
                    "spec.template.spec.containers[0].image",
                ];
                let path = self.random.one(if self.wild { &known } else { &known[..2] });
                var["fieldref"] = json!({"fieldpath": path});
            }
            out.insert("vars".into(), json!([var]));
        }
        self.plugins(dir, out, all)?;
        if self.one_in(10) {
            let order = self.random.one(&["fifo", "legacy"]);
            let mut options = json!({"order": order});
            if order == "legacy" && self.one_in(2) {
                options["legacySortOptions"] = json!({"orderFirst": ["Secret", "Widget"], "orderLast": ["Namespace"]});
            }
            out.insert("sortOptions".into(), options);
        }
        if self.one_in(10) {
            let all = ["originAnnotations", "transformerAnnotations", "managedByLabel"];
            let some: Vec<&str> = all.into_iter().filter(|_| self.random.once_in(2)).collect();
            out.insert("buildMetadata".into(), json!(some));
        }
        if self.one_in(10) {
            self.configurations(dir, out)?;
        }
        Ok(())
    }

    fn names(&mut self, out: &mut Map<String, Value>, all: &Objects) {
        if self.one_in(4) {
            out.insert("namePrefix".into(), json!(self.random.one(&["p-", "x-", "$"])));
        }
        if self.one_in(6) {
            out.insert("nameSuffix".into(), json!(self.random.one(&["-s", "-t"])));
        }
        if self.one_in(4) {
            out.insert("namespace".into(), json!(self.random.one(&["blue", "green", "default", "other"])));
        }
        if self.one_in(5) {
            let name = self.random.one(&["nginx", "quay.io/a/b", "host:5000/nginx", "my.*", "busybox"]);
            let mut image = json!({ "name": name });
            if self.one_in(2) {
                image["newTag"] = json!(self.random.one(&["1.0", "v2", "latest"]));
            }
            if self.one_in(3) {
                image["newName"] = json!(self.random.one(&["other/nginx", "r:5000/x"]));
            }
            if self.one_in(4) {
                image["digest"] = json!("sha256:ffff");
            }
            if self.one_in(6) {
                image["tagSuffix"] = json!("-dbg");
            }
            out.insert("images".into(), json!([image]));
        }
        if self.one_in(8) {
            let scaled = |object: &&Value| object["kind"] == "Deployment" || object["kind"] == "StatefulSet";
            let known: Vec<String> = all.iter().filter(scaled).map(|object| id(object).2).collect();
            if known.is_empty() && !self.wild {
                return;
            }
            let name = if self.wild {
                NAMES[self.random.below(NAMES.len())].to_owned()
            } else {
                self.random.pick(&known).clone()
            };
            out.insert("replicas".into(), json!([{"name": name, "count": self.random.below(9)}]));
        }
    }

    fn labels(&mut self, out: &mut Map<String, Value>) {
        let pairs = |random: &mut Random| {
            let mut map = Map::new();
            for _ in 0..1 + random.below(2) {
                let key = random.one(&["app", "tier", "x.io/team", "new"]);
                map.insert(key.to_owned(), json!(random.one(&["web", "db", "true", "", "1.0", "x y"])));
            }
            Value::Object(map)
        };
        if self.one_in(6) {
            out.insert("commonLabels".into(), pairs(self.random));
        }
        if self.one_in(5) {
            out.insert("commonAnnotations".into(), pairs(self.random));
        }
        if self.one_in(4) {
            let mut entries = Vec::new();
            for _ in 0..1 + self.random.below(2) {
                let mut entry = json!({"pairs": pairs(self.random)});
                if self.one_in(3) {
                    entry["includeSelectors"] = json!(true);
                }
                if self.one_in(3) {
                    entry["includeTemplates"] = json!(true);
                }
                if self.one_in(3) {
                    let kind = self.random.one(&["Deployment", "Widget", "Service"]);
                    let path = self.random.one(&["spec/template/metadata/labels", "spec/more/labels", "spec/selector"]);
                    entry["fields"] = json!([{"path": path, "kind": kind, "create": self.random.once_in(2)}]);
                }
                entries.push(entry);
            }
            out.insert("labels".into(), Value::Array(entries));
        }
    }

    fn options(&mut self) -> Value {
        let mut options = json!({});
        if self.one_in(2) {
            options["disableNameSuffixHash"] = json!(true);
        }
        if self.one_in(3) {
            options["immutable"] = json!(true);
        }
        if self.one_in(2) {
            options["labels"] = json!({"gen": "yes", "app": "made"});
        }
        if self.one_in(2) {
            options["annotations"] = json!({"note": "true"});
        }
        options
    }

    pub(super) fn generator(&mut self, dir: &str, kind: &str, all: &mut Objects) -> io::Result<Value> {
        let known: Vec<Value> = all.iter().filter(|object| object["kind"] == kind).cloned().collect();
        let mut entry = json!({});
        if !known.is_empty() && self.random.once_in(2) {
            let (_, _, name, namespace) = id(self.random.pick(&known));
            entry["name"] = json!(name);
            entry["behavior"] = json!(self.random.one(&["merge", "replace", "merge"]));
            if namespace != "default" {
                entry["namespace"] = json!(namespace);
            }
        } else {
            let name = self.random.one(&["cfg", "gen", "gen2", "made", "gen3", "gen4"]);
            let taken = |object: &Value| object["kind"] == kind && object["metadata"]["name"] == name;
            if !self.wild && all.iter().any(taken) {
                entry["behavior"] = json!("merge");
            }
            entry["name"] = json!(name);
            if self.wild && self.one_in(4) {
                entry["namespace"] = json!(self.random.pick(&NAMESPACES));
            }
            all.push(
                json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": entry["namespace"]}}),
            );
        }
        if self.one_in(2) {
            let mut literals = vec![json!("a=b"), json!(format!("t={}", objects::text(self.random)))];
            if self.one_in(3) {
                literals.push(json!("q=\"quoted\""));
            }
            entry["literals"] = Value::Array(literals);
        }
        if self.one_in(3) {
            let content = match self.random.below(4) {
                0 => "k=v\nother=x y\n# note\n\nlast=\n".to_owned(),
                1 => "long ".repeat(40),
                _ => format!("{}\n", objects::text(self.random)),
            };
            self.file(&format!("{dir}/data.txt"), &content)?;
            entry["files"] = match self.random.below(2) {
                0 => json!(["data.txt"]),
                _ => json!(["renamed=data.txt"]),
            };
        }
        if self.one_in(5) {
            self.file(&format!("{dir}/some.env"), "E1=1\n  E2 = two\nE3\n#no\nE4=\"q\"\n")?;
            entry["envs"] = json!(["some.env"]);
        }
        if kind == "Secret" && self.one_in(4) {
            entry["type"] = json!("kubernetes.io/tls");
        }
        if self.one_in(3) {
            entry["options"] = self.options();
        }
        Ok(entry)
    }

    fn generators(&mut self, dir: &str, out: &mut Map<String, Value>, all: &mut Objects) -> io::Result<()> {
        for (field, kind) in [("configMapGenerator", "ConfigMap"), ("secretGenerator", "Secret")] {
            if self.one_in(4) {
                let entry = self.generator(dir, kind, all)?;
                out.insert(field.into(), json!([entry]));
            }
        }
        if self.one_in(8) {
            out.insert("generatorOptions".into(), self.options());
        }
        Ok(())
    }

    pub(super) fn replacement(&mut self, all: &Objects) -> Value {
        let source = self.random.pick(all).clone();
        let (api_version, kind, name, namespace) = id(&source);
        let mut entry = json!({});
        if self.wild && self.one_in(12) {
            entry["sourceValue"] = json!(objects::text(self.random));
        } else {
            let mut from = json!({"kind": kind, "name": name});
            if self.one_in(5) {
                from["version"] = json!(api_version.rsplit('/').next());
            }
            if self.one_in(5) {
                from["namespace"] = json!(namespace);
            }
            if !self.one_in(4) {
                from["fieldPath"] = json!(self.field_path(&source, false));
            }
            if self.one_in(8) {
                from["options"] = json!({"delimiter": self.random.one(&[":", "-", "/"]), "index": if self.wild { self.random.below(2) } else { 0 }});
            }
            entry["source"] = from;
        }
        let mut targets = Vec::new();
        for _ in 0..1 + self.random.below(2) {
            let object = self.random.pick(all).clone();
            let (_, kind, name, _) = id(&object);
            let select = match self.random.below(if self.wild { 3 } else { 8 }) {
                0 => {
                    // Only newer programs take these for regular expressions.
                    let mut select = self.target(all);
                    if select["name"].as_str().is_some_and(|name| name.contains(['*', '|', '\\'])) {
                        select["name"] = json!(name);
                    }
                    select
                }
                1 => json!({ "kind": kind }),
                _ => json!({"kind": kind, "name": name}),
            };
            let paths: Vec<String> = (0..1 + self.random.below(2)).map(|_| self.field_path(&object, true)).collect();
            let mut target = json!({"select": select, "fieldPaths": paths});
            let mut options = json!({});
            let needed = paths.iter().any(|path| path.ends_with("fresh"));
            if needed || self.one_in(3) {
                options["create"] = json!(true);
            }
            if self.one_in(6) {
                options["delimiter"] = json!(self.random.one(&[":", "-", "/"]));
                options["index"] = json!(self.random.below(4) as i64 - 1);
            }
            if options.as_object().is_some_and(|map| !map.is_empty()) {
                target["options"] = options;
            }
            if self.one_in(6) {
                target["reject"] = json!([{"name": NAMES[self.random.below(NAMES.len())]}]);
            }
            targets.push(target);
        }
        entry["targets"] = Value::Array(targets);
        entry
    }

    pub(super) fn field_path(&mut self, object: &Value, target: bool) -> String {
        let mut paths = Vec::new();
        pointers(object, String::new(), &mut paths);
        if !target {
            paths.retain(|path| !object.pointer(path).is_some_and(Value::is_null));
        }
        if !self.wild {
            let plain = |value: &Value| value.is_string() || (self.count % 3 == 0 && !value.is_null());
            let identity =
                |path: &str| ["/kind", "/apiVersion", "/metadata/name", "/metadata/namespace"].contains(&path);
            paths.retain(|path| object.pointer(path).is_some_and(plain) && (!target || !identity(path)));
            if paths.is_empty() {
                return if target { "metadata.annotations.fresh".into() } else { "metadata.name".into() };
            }
        }
        let pointer = self.random.pick(&paths).clone();
        let mut node = object;
        let mut parts: Vec<String> = Vec::new();
        for token in pointer.split('/').skip(1) {
            let key = token.replace("~1", "/").replace("~0", "~");
            let next = node.get(&key).or_else(|| node.get(key.parse::<usize>().ok()?));
            let part = match (node, next.and_then(|item| item.get("name")).and_then(Value::as_str)) {
                (Value::Array(_), Some(name)) if self.random.once_in(2) => format!("[name={name}]"),
                (Value::Array(_), _) if target && self.random.once_in(3) => "*".into(),
                _ if key.contains('.') && self.random.once_in(2) => format!("[{key}]"),
                _ => key.replace('.', "\\."),
            };
            parts.push(part);
            let Some(next) = next else { break };
            node = next;
        }
        if target && self.wild && self.one_in(5) {
            parts.push(self.random.one(&["fresh", "name", "[name=zz]", "0"]).into());
        }
        parts.join(".")
    }
}
