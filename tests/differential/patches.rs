//! Patches for the objects of a random tree: what is merged, JSON operations, and what they apply to.

use std::io;

use serde_json::{Map, Value, json};

use super::objects;
use super::tree::{Objects, Tree, id};
use super::yaml;

impl Tree<'_> {
    /// A part of an object with something changed.
    pub(super) fn strategic(&mut self, all: &Objects) -> Value {
        let object = self.random.pick(all).clone();
        let mut patch = json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": {"name": object["metadata"]["name"]}});
        if let Some(namespace) = object.pointer("/metadata/namespace") {
            patch["metadata"]["namespace"] = namespace.clone();
        }
        if self.one_in(14) {
            patch["$patch"] = json!(self.random.one(&["delete", "replace", "merge"]));
            return patch;
        }
        if self.one_in(3) {
            patch["metadata"]["labels"] = json!({"app": self.random.one(&["patched", "web"]), "tier": Value::Null});
        }
        if self.one_in(4) {
            patch["metadata"]["annotations"] = json!({"note": objects::text(self.random), "when": Value::Null});
        }
        let fields = object.as_object().expect("an object");
        for (key, value) in fields {
            if ["apiVersion", "kind", "metadata"].contains(&key.as_str()) {
                continue;
            }
            patch[key] = self.change(value);
        }
        patch
    }

    pub(super) fn change(&mut self, value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut out = Map::new();
                for (key, value) in map {
                    if !self.wild && key == "name" {
                        out.insert(key.clone(), value.clone());
                    } else if self.one_in(2)
                        || ((key == "template" || key == "spec" || key == "jobTemplate") && !self.one_in(5))
                    {
                        out.insert(key.clone(), self.change(value));
                    } else if map.contains_key("name") && key == "name" && !self.one_in(6) {
                        out.insert(key.clone(), value.clone());
                    }
                }
                if self.one_in(6) {
                    let key = self.random.one(&["added", "a", "volumes", "$patch"]);
                    let value = match key {
                        "$patch" => json!(self.random.one(&["delete", "replace", "merge"])),
                        "volumes" => json!([objects::volume(self.random, "v9")]),
                        _ => objects::any(self.random, 2),
                    };
                    if self.wild || !map.contains_key(key) {
                        out.insert(key.into(), value);
                    }
                }
                Value::Object(out)
            }
            Value::Array(items) => {
                let mut out = Vec::new();
                for item in items {
                    if self.one_in(2) {
                        out.push(self.change(item));
                    }
                }
                if self.one_in(3) {
                    let fresh = match items.first() {
                        Some(first) if first.get("containerPort").is_some() => objects::port(self.random),
                        Some(first) if first.get("value").is_some() => objects::env(self.random),
                        Some(first) if first.get("name").is_some() => objects::container(self.random, "fresh"),
                        _ => objects::scalar(self.random),
                    };
                    out.push(fresh);
                }
                if self.one_in(12) {
                    out.push(json!({"$patch": self.random.one(&["replace", "delete", "merge"])}));
                }
                if self.one_in(8) {
                    if let Some(name) = items.first().and_then(|item| item.get("name")) {
                        out.push(json!({"name": name, "$patch": "delete"}));
                    }
                }
                Value::Array(out)
            }
            _ if self.one_in(8) => Value::Null,
            _ if self.one_in(2) => value.clone(),
            Value::Number(_) => json!(self.random.below(10)),
            _ => json!(objects::text(self.random)),
        }
    }

    pub(super) fn target(&mut self, all: &Objects) -> Value {
        let object = self.random.pick(all).clone();
        let (api_version, kind, name, namespace) = id(&object);
        let mut target = json!({});
        if self.one_in(2) {
            target["kind"] = json!(kind);
        }
        if !self.one_in(3) {
            target["name"] = match self.random.below(4) {
                0 => json!(".*"),
                1 => json!(format!("{}|db", name.replace('.', "\\."))),
                _ => json!(name),
            };
        }
        if self.one_in(5) {
            let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
            target["group"] = json!(group);
            target["version"] = json!(version);
        }
        if !self.wild {
            target["kind"] = json!(kind);
        }
        if self.one_in(6) {
            target["namespace"] = json!(namespace);
        }
        if self.one_in(6) {
            target["labelSelector"] =
                json!(self.random.one(&["app=web", "app", "!tier", "app in (web,db)", "app!=db"]));
        }
        if self.one_in(10) {
            target["annotationSelector"] = json!(self.random.one(&["note", "!note", "note=true"]));
        }
        target
    }

    pub(super) fn patch(&mut self, dir: &str, at: usize, all: &Objects, any: bool) -> io::Result<Value> {
        let mut entry = json!({});
        let text = if !any || self.one_in(2) {
            let object = self.random.pick(all).clone();
            let (_, kind, name, _) = id(&object);
            entry["target"] = match self.random.below(4) {
                0 => self.target(all),
                _ => {
                    json!({"kind": kind, "name": name, "version": object["apiVersion"].as_str().unwrap_or_default().rsplit('/').next()})
                }
            };
            let count = if self.wild { 1 + self.random.below(3) } else { 1 };
            let operations = (0..count).map(|_| self.operation(&object)).collect::<Vec<_>>();
            if self.one_in(3) {
                serde_json::to_string(&operations).expect("JSON")
            } else {
                yaml::document(self.random, &Value::Array(operations))
            }
        } else {
            let patch = self.strategic(all);
            if self.one_in(2) {
                entry["target"] = self.target(all);
            }
            if self.one_in(5) {
                entry["options"] =
                    json!({"allowNameChange": self.random.once_in(2), "allowKindChange": self.random.once_in(2)});
            }
            yaml::document(self.random, &patch)
        };
        if self.one_in(3) {
            let name = format!("p{at}.yaml");
            self.file(&format!("{dir}/{name}"), &text)?;
            entry["path"] = json!(name);
        } else {
            entry["patch"] = json!(text);
        }
        Ok(entry)
    }

    pub(super) fn operation(&mut self, object: &Value) -> Value {
        let mut paths = Vec::new();
        pointers(object, String::new(), &mut paths);
        paths.retain(|path| !path.starts_with("/apiVersion"));
        if !self.wild {
            paths.retain(|path| {
                path.matches('/').count() > 1 && path != "/metadata/name" && path != "/metadata/namespace"
            });
            return self.careful_operation(object, &paths);
        }
        let path = self.random.pick(&paths).clone();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
        match self.random.below(12) {
            0..=2 => json!({"op": "replace", "path": path, "value": objects::any(self.random, 2)}),
            3 | 4 => {
                let list = object.pointer(&parent).is_some_and(Value::is_array);
                let last = match list {
                    true => self.random.one(&["-", "0", "1", "-1", "00", "9"]),
                    false => self.random.one(&["new", "a~1b", "labels", "-", "0"]),
                };
                json!({"op": "add", "path": format!("{parent}/{last}"), "value": objects::any(self.random, 2)})
            }
            5 => json!({"op": "add", "path": path, "value": objects::any(self.random, 2)}),
            6 => json!({"op": "remove", "path": path}),
            7 => json!({"op": "test", "path": path, "value": object.pointer(&path)}),
            8 => {
                json!({"op": "copy", "from": path, "path": format!("{}/copied", self.random.one(&["/metadata/annotations", "/spec", "/data", "/metadata/labels"]))})
            }
            9 => {
                json!({"op": "move", "from": path, "path": format!("{}/moved", self.random.one(&["/spec", "/data", "/metadata/labels"]))})
            }
            10 => json!({"op": "replace", "path": format!("{path}/missing"), "value": 1}),
            _ => {
                json!({"op": "add", "path": format!("{}/x", self.random.one(&["/metadata/annotations", "/metadata/labels"])), "value": "v"})
            }
        }
    }

    /// One that fits the object as it was written.
    pub(super) fn careful_operation(&mut self, object: &Value, paths: &[String]) -> Value {
        if paths.is_empty() {
            return json!({"op": "add", "path": "/extra", "value": objects::any(self.random, 2)});
        }
        let path = self.random.pick(paths).clone();
        let value = object.pointer(&path).cloned().unwrap_or_default();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let list = object.pointer(parent).is_some_and(Value::is_array);
        let fresh = match &value {
            Value::Object(_) | Value::Array(_) => value.clone(),
            _ => objects::scalar(self.random),
        };
        let other = self.random.pick(paths).clone();
        let inside = |outer: &str, inner: &str| inner.starts_with(outer);
        match self.random.below(10) {
            0..=2 => json!({"op": "replace", "path": path, "value": fresh}),
            3 | 4 if list => {
                json!({"op": "add", "path": format!("{parent}/{}", self.random.one(&["-", "0", "-1"])), "value": fresh})
            }
            3 | 4 => {
                json!({"op": "add", "path": format!("{parent}/{}", self.random.one(&["new", "a~1b", "x~0y"])), "value": fresh})
            }
            5 if path.ends_with("/name") => json!({"op": "test", "path": path, "value": value}),
            5 => json!({"op": "remove", "path": path}),
            6 if !list && !inside(&path, &other) => {
                json!({"op": "copy", "from": other, "path": format!("{parent}/copied")})
            }
            7 if !list && !inside(&path, &other) && !other.ends_with("/name") => {
                json!({"op": "move", "from": other, "path": format!("{parent}/moved")})
            }
            8 => {
                json!({"op": "replace", "path": format!("{parent}/{}", if list { "0" } else { "unknown" }), "value": fresh})
            }
            _ => json!({"op": "test", "path": path, "value": value}),
        }
    }
}

/// The pointers of everything in a value.
pub(super) fn pointers(value: &Value, prefix: String, out: &mut Vec<String>) {
    let step = |key: &str| format!("{prefix}/{}", key.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push(step(key));
                pointers(value, step(key), out);
            }
        }
        Value::Array(items) => {
            for (at, value) in items.iter().enumerate() {
                out.push(format!("{prefix}/{at}"));
                pointers(value, format!("{prefix}/{at}"), out);
            }
        }
        _ => {}
    }
}
