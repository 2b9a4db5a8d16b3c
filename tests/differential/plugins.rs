//! Plugins and configurations of a random tree.

use std::io;

use serde_json::{Map, Value, json};

use super::tree::{Objects, Tree, id};
use super::yaml;

impl Tree<'_> {
    pub(super) fn plugins(&mut self, dir: &str, out: &mut Map<String, Value>, all: &mut Objects) -> io::Result<()> {
        if self.one_in(5) {
            let mut configs = Vec::new();
            for _ in 0..1 + self.random.below(2) {
                configs.push(self.transformer(all));
            }
            let entries = self.placed(dir, "t", &configs)?;
            out.insert("transformers".into(), Value::Array(entries));
        }
        if self.one_in(10) {
            let kind = self.random.one(&["ConfigMap", "Secret"]);
            let mut config = self.generator(dir, kind, all)?;
            config["apiVersion"] = json!("builtin");
            config["kind"] = json!(format!("{kind}Generator"));
            let mut metadata = json!({"name": config["name"]});
            if !config["namespace"].is_null() {
                metadata["namespace"] = config["namespace"].clone();
            }
            config["metadata"] = metadata;
            if let Some(map) = config.as_object_mut() {
                map.remove("name");
                map.remove("namespace");
            }
            let entries = self.placed(dir, "g", &[config])?;
            out.insert("generators".into(), Value::Array(entries));
        }
        Ok(())
    }

    pub(super) fn placed(&mut self, dir: &str, stem: &str, configs: &[Value]) -> io::Result<Vec<Value>> {
        let mut entries = Vec::new();
        for (at, config) in configs.iter().enumerate() {
            let text = yaml::document(self.random, config);
            if self.one_in(2) {
                let name = format!("{stem}{at}.yaml");
                self.file(&format!("{dir}/{name}"), &text)?;
                entries.push(json!(name));
            } else {
                entries.push(json!(text));
            }
        }
        Ok(entries)
    }

    pub(super) fn transformer(&mut self, all: &Objects) -> Value {
        let named = |kind: &str, number: usize| json!({"apiVersion": "builtin", "kind": kind, "metadata": {"name": format!("t{number}")}});
        let number = self.random.below(1000);
        let specs = json!([{"path": "metadata/name"}]);
        match self.random.below(12) {
            0 => {
                let mut config = named("PrefixTransformer", number);
                config["prefix"] = json!("tp-");
                config["fieldSpecs"] = specs;
                config
            }
            1 => {
                let mut config = named("SuffixTransformer", number);
                config["suffix"] = json!("-ts");
                config["fieldSpecs"] = specs;
                config
            }
            2 => {
                let mut config = named("PrefixSuffixTransformer", number);
                config["prefix"] = json!("q-");
                config["suffix"] = json!("-z");
                config["fieldSpecs"] = specs;
                config
            }
            3 => {
                let mut config = named("LabelTransformer", number);
                config["labels"] = json!({"plug": "in"});
                let paths = [
                    json!({"path": "metadata/labels", "create": true}),
                    json!({"path": "spec/selector", "kind": "Service"}),
                ];
                config["fieldSpecs"] = json!(paths[..1 + self.random.below(2)]);
                config
            }
            4 => {
                let mut config = named("AnnotationsTransformer", number);
                config["annotations"] = json!({"plug": "1"});
                config["fieldSpecs"] = json!([{"path": "metadata/annotations", "create": true}]);
                config
            }
            5 => {
                let mut config = named("NamespaceTransformer", number);
                config["metadata"]["namespace"] = json!("plugged");
                if self.one_in(2) {
                    config["setRoleBindingSubjects"] =
                        json!(self.random.one(&["none", "defaultOnly", "allServiceAccounts"]));
                }
                if self.one_in(2) {
                    config["unsetOnly"] = json!(true);
                }
                config["fieldSpecs"] = json!([{"path": "metadata/namespace", "create": true}, {"path": "subjects", "kind": "RoleBinding"}]);
                config
            }
            6 => {
                let mut config = named("ImageTagTransformer", number);
                config["imageTag"] = json!({"name": "nginx", "newTag": "plug"});
                config
            }
            7 => {
                let mut config = named("ReplicaCountTransformer", number);
                let scaled = all.iter().find(|object| object["kind"] == "Deployment");
                let name = scaled.map_or_else(|| "web".to_owned(), |object| id(object).2);
                config["replica"] = json!({"name": name, "count": 4});
                config["fieldSpecs"] = json!([{"path": "spec/replicas", "kind": "Deployment", "create": true}]);
                config
            }
            8 => {
                let mut config = named("PatchTransformer", number);
                let patch = self.strategic(all);
                config["patch"] = json!(yaml::document(self.random, &patch));
                if self.one_in(2) {
                    config["target"] = self.target(all);
                }
                config
            }
            9 => {
                let mut config = named("PatchStrategicMergeTransformer", number);
                let patch = self.strategic(all);
                config["patches"] = json!(yaml::document(self.random, &patch));
                config
            }
            10 => {
                let object = self.random.pick(all).clone();
                let (_, kind, name, _) = id(&object);
                let mut config = named("PatchJson6902Transformer", number);
                config["target"] = json!({"kind": kind, "name": name});
                let operation = self.operation(&object);
                config["jsonOp"] = json!(serde_json::to_string(&json!([operation])).expect("JSON"));
                config
            }
            _ => {
                let mut config = named("ReplacementTransformer", number);
                config["replacements"] = json!([self.replacement(all)]);
                config
            }
        }
    }

    pub(super) fn configurations(&mut self, dir: &str, out: &mut Map<String, Value>) -> io::Result<()> {
        let config = match self.random.below(6) {
            0 => {
                json!({"nameReference": [{"kind": "ConfigMap", "version": "v1", "fieldSpecs": [{"kind": "NodeProfile", "path": "spec/configMapRef/name"}, {"kind": "Widget", "path": "spec/configMapRef/name"}]}]})
            }
            1 => json!({"commonLabels": [{"path": "spec/extra/labels", "kind": "Widget", "create": true}]}),
            2 => {
                json!({"varReference": [{"path": "spec/template/spec/containers/image"}, {"path": "data", "kind": "ConfigMap"}]})
            }
            3 => json!({"images": [{"path": "spec/configMapRef/name", "kind": "Widget"}]}),
            4 => json!({"commonAnnotations": [{"path": "spec/notes", "kind": "NodeProfile", "create": true}]}),
            _ => {
                json!({"namePrefix": [{"path": "spec/configMapRef/name"}], "namespace": [{"path": "spec/space", "kind": "Widget", "create": true}]})
            }
        };
        let text = yaml::document(self.random, &config);
        self.file(&format!("{dir}/config.yaml"), &text)?;
        out.insert("configurations".into(), json!(["config.yaml"]));
        Ok(())
    }
}
