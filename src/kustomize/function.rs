//! Functions in containers (KRM functions): transformers, validators and generators whose configuration carries the
//! annotation `config.kubernetes.io/function`.
//!
//! Owns: [`Function`] (what the annotation asks for), [`Call`], [`Answer`], [`Run`], [`run_with`]. A function gets a
//! ResourceList on its standard input and prints one. Who runs it is handed in from above: nothing here knows containers.
//! As in kustomize, objects are told by their present identity, those that a function leaves out are gone, new ones come
//! last. Stricter than kustomize: there never is a network, and what is mounted is read-only and lies in the folder.
//! Spec: github.com/kubernetes-sigs/kustomize, `functions-spec.md`.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use super::Options;
use super::generator;
use super::place::Place;
use super::resource::{Resource, Resources, from_documents};
use super::transformer::{Transform, Work, elements};
use crate::document::{Cause, ChangeKind, Decoder, Diagnostic, Entry, Key, Loader, Node, Origin, Value, to_yaml};
use crate::error::{Error, Kind, Result};
use crate::report::Reporter;

const ANNOTATIONS: [&str; 2] = ["config.kubernetes.io/function", "config.k8s.io/function"];
/// What tools that run functions write into objects for themselves.
const BOOKKEEPING: [&str; 9] = [
    "config.k8s.io/id",
    "config.kubernetes.io/index",
    "config.kubernetes.io/path",
    "internal.config.kubernetes.io/annotations-migration-resource-id",
    "internal.config.kubernetes.io/id",
    "internal.config.kubernetes.io/index",
    "internal.config.kubernetes.io/path",
    "internal.config.kubernetes.io/seqindent",
    "kustomize.config.k8s.io/id",
];
const NEEDS_HASH: &str = "kustomize.config.k8s.io/needs-hash";
const BEHAVIOR: &str = "kustomize.config.k8s.io/behavior";
/// Lines of what a function says in its error, and results that are shown.
const SHOWN: usize = 20;

/// One run of a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    pub image: String,
    /// Without a value: what this process has under the name, if anything.
    pub environment: Vec<(String, Option<String>)>,
    pub mounts: Vec<Mount>,
    /// For its standard input.
    pub input: Vec<u8>,
}

/// A file or folder that the function sees, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub source: PathBuf,
    pub target: PathBuf,
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub code: i64,
    pub output: Vec<u8>,
    /// Of its standard error, the end.
    pub said: String,
}

/// Runs functions, without a network, in bounded space.
pub type Run = Arc<dyn Fn(&Call) -> Result<Answer> + Send + Sync>;

static RUN: OnceLock<Run> = OnceLock::new();

/// Sets how functions are run by all builds of this process whose options say nothing else. The first call counts.
pub fn run_with(run: Run) {
    RUN.get_or_init(|| run);
}

/// The annotation, as functions-spec.md has it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Spec {
    container: Option<Container>,
    exec: Option<serde::de::IgnoredAny>,
    starlark: Option<serde::de::IgnoredAny>,
    defer_failure: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Container {
    image: String,
    network: bool,
    mounts: Vec<Bind>,
    envs: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Bind {
    #[serde(rename = "type")]
    kind: String,
    src: String,
    dst: String,
    rw: bool,
}

/// A function in a container, configured by a document.
pub struct Function {
    config: Node,
    /// Where it is asked for: the annotation.
    at: Node,
    container: Container,
    defer_failure: bool,
}

impl Function {
    /// The function that a plugin's configuration asks for, if it does.
    pub fn of(config: &Resource) -> Result<Option<Function>> {
        let annotation = |name: &&str| config.node.at(&["metadata", "annotations", name]);
        let Some(at) = ANNOTATIONS.iter().find_map(annotation) else { return Ok(None) };
        let documents = Loader::default().inline(at)?.documents;
        let [spec] = &documents[..] else {
            return Err(Diagnostic::on(at, "expected what function to run, as `container: {image: ...}`").into());
        };
        let typed: Spec = Decoder { any_case: false, strict_text: false }.decode(spec)?;
        if typed.exec.is_some() || typed.starlark.is_some() {
            return Err(Diagnostic::on(at, format!("{} is a program of this host", config.id()))
                .hint("functions are run in containers only: `container: {image: ...}`")
                .into());
        }
        let image_at = spec.get("container").unwrap_or(spec);
        let Some(container) = typed.container.filter(|container| !container.image.is_empty()) else {
            return Err(Diagnostic::on(image_at, "a function without `container.image`").into());
        };
        if container.network {
            let at = image_at.get("network").unwrap_or(image_at);
            return Err(Diagnostic::on(at, "this function asks for a network, and there is none for functions")
                .hint("what is rendered must not depend on what a server gives today")
                .into());
        }
        Ok(Some(Function {
            config: config.node.clone(),
            at: at.clone(),
            container,
            defer_failure: typed.defer_failure,
        }))
    }

    /// What it makes of nothing.
    pub fn generate(&self, place: &Place, options: &Options) -> Result<Vec<Resource>> {
        let items = self.run(&[], place, options)?;
        let cause = Cause::new(ChangeKind::Function, &self.at.origin.at);
        let mut resources = from_documents(items)?;
        for resource in &mut resources {
            let annotation = |name: &str| {
                resource.node.at(&["metadata", "annotations", name]).and_then(Node::text).unwrap_or_default().to_owned()
            };
            resource.needs_hash = annotation(NEEDS_HASH) == "true";
            resource.behavior = generator::behavior(&annotation(BEHAVIOR));
            resource.generated = true;
            without_annotations(&mut resource.node, &[NEEDS_HASH, BEHAVIOR]);
            cause.stamp(&mut resource.node, None);
        }
        Ok(resources)
    }

    /// Runs it on objects and returns those that it prints.
    fn run(&self, objects: &[&Node], place: &Place, options: &Options) -> Result<Vec<Node>> {
        let image = &self.container.image;
        let Some(run) = options.functions.as_ref().or_else(|| RUN.get()) else {
            return Err(Diagnostic::on(
                &self.at,
                format!("a function in the container `{image}`, which nothing runs here"),
            )
            .hint("functions are run by a container engine")
            .into());
        };
        let input = to_yaml(&[self.resource_list(objects)]).into_bytes();
        let call = Call { image: image.clone(), environment: self.environment(), mounts: self.mounts(place)?, input };
        let answer = run(&call).map_err(|error| self.not_run(error))?;
        let name = format!("output of the function `{image}`");
        let list = Loader::default().text(&name, &answer.output).map(|loaded| loaded.documents);
        let results = list.as_ref().ok().and_then(|documents| documents.first());
        let results = results.map(|list| elements(list, "results").to_vec()).unwrap_or_default();
        if answer.code != 0 && !self.defer_failure {
            return Err(self.failed(&answer, &results));
        }
        if let Some(reporter) = &options.reporter {
            self.tell(&answer, &results, reporter);
        }
        items(list?, &self.at)
    }

    fn resource_list(&self, objects: &[&Node]) -> Node {
        let at = &self.config.origin.at;
        let text = |text: &str| Node::string(text, Origin::new(at.clone()));
        let items = objects.iter().map(|object| (*object).clone()).collect();
        let entries = [
            ("apiVersion", text("config.kubernetes.io/v1")),
            ("kind", text("ResourceList")),
            ("items", Node::sequence(items, Origin::new(at.clone()))),
            ("functionConfig", self.config.clone()),
        ];
        let mut list = Node::mapping(Origin::new(at.clone()));
        if let Value::Mapping(mapping) = &mut list.value {
            mapping.entries = entries.into_iter().map(|(key, value)| Entry { key: Key::new(key, at), value }).collect();
        }
        list
    }

    fn environment(&self) -> Vec<(String, Option<String>)> {
        // What kustomize tells every function.
        let own = ["LOG_TO_STDERR", "STRUCTURED_RESULTS"].map(|name| (name.to_owned(), Some("true".to_owned())));
        let asked = self.container.envs.iter().map(|text| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text.clone(), None),
        });
        own.into_iter().chain(asked).collect()
    }

    /// What it may see of this machine: nothing but what lies in the folder of the kustomization.
    fn mounts(&self, place: &Place) -> Result<Vec<Mount>> {
        let refuse = |message: String, hint: &str| -> Result<Mount> {
            Err(Diagnostic::on(&self.at, format!("mount for the function `{}`: {message}", self.container.image))
                .hint(hint)
                .into())
        };
        let mount = |bind: &Bind| {
            if !["", "bind"].contains(&bind.kind.as_str()) {
                return refuse(format!("type `{}`", bind.kind), "only `bind` is known");
            }
            if bind.rw {
                return refuse(
                    format!("`{}` is to be written to", bind.src),
                    "functions read files, and print objects",
                );
            }
            let target = Path::new(&bind.dst);
            let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
            if !target.is_absolute() || !target.components().all(plain) || target.parent().is_none() {
                return refuse(format!("`dst: {}`", bind.dst), "give an absolute path in the container");
            }
            let source = place.real().join(&bind.src).canonicalize();
            match source {
                Ok(source) if !bind.src.is_empty() && source.starts_with(place.real()) => {
                    Ok(Mount { source, target: target.to_owned() })
                }
                Ok(_) => refuse(
                    format!("`{}` lies outside of the folder", bind.src),
                    "mount what is in or below the folder of the kustomization that names the function",
                ),
                Err(error) => refuse(format!("`{}`: {error}", bind.src), "it must be there"),
            }
        };
        self.container.mounts.iter().map(mount).collect()
    }

    /// It could not be run at all.
    fn not_run(&self, error: Error) -> Error {
        if error.kind() == Kind::Interrupted {
            return error;
        }
        let error = error.add_context(format!("running the function `{}`", self.container.image));
        Diagnostic::on(&self.at, "").attach(error)
    }

    /// It ran, and says that something is wrong.
    fn failed(&self, answer: &Answer, results: &[Node]) -> Error {
        let image = &self.container.image;
        let message = format!("the function `{image}` fails: it ends with {}", answer.code);
        let results = results.iter().take(SHOWN).map(|result| format!("it reports: {}", described(result)));
        let said: Vec<&str> = answer.said.lines().filter(|line| !line.trim().is_empty()).collect();
        let said = said[said.len().saturating_sub(SHOWN)..].iter().map(|line| format!("it says: {}", printable(line)));
        results.chain(said).fold(Diagnostic::on(&self.at, message), Diagnostic::hint).into()
    }

    /// It ran well, and has something to say.
    fn tell(&self, answer: &Answer, results: &[Node], reporter: &Reporter) {
        let (at, image) = (&self.at.origin.at, &self.container.image);
        for result in results.iter().take(SHOWN) {
            reporter.warning(format!("{at}: function `{image}`: {}", described(result)));
        }
        if answer.code != 0 {
            reporter.warning(format!("{at}: function `{image}` ends with {}, which it is allowed to", answer.code));
        }
    }
}

impl Transform for Function {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        let objects: Vec<&Node> = work.resources.iter().map(|resource| &resource.node).collect();
        let items = self.run(&objects, work.place, work.options)?;
        let printed = from_documents(items)?;
        let mut kept = vec![false; work.resources.len()];
        let mut seen = Resources::default();
        let mut fresh = Vec::new();
        for resource in printed {
            let id = resource.id().clone();
            seen.push(Resource::new(resource.node.clone()))
                .map_err(|error| error.hint(format!("the function `{}` prints it twice", self.container.image)))?;
            match work.resources.find_current(&id).first() {
                Some(at) => {
                    kept[*at] = true;
                    work.resources.edit(*at, |old| {
                        old.unshare();
                        old.node = self.merged(&old.node, resource.node);
                    });
                }
                None => fresh.push(resource),
            }
        }
        for (at, _) in kept.iter().enumerate().filter(|(_, kept)| !**kept) {
            work.resources.edit(at, Resource::delete);
        }
        work.resources.sweep();
        for mut resource in fresh {
            resource.node = self.made(resource.node);
            work.resources.push(resource)?;
        }
        Ok(())
    }
}

impl Function {
    /// What a function printed, with the origins of all that it left as it was.
    fn merged(&self, old: &Node, new: Node) -> Node {
        let cause = Cause::new(ChangeKind::Function, &self.at.origin.at);
        let origin = old.origin.clone();
        match (&old.value, new.value) {
            (Value::Mapping(was), Value::Mapping(mut now)) => {
                let known: HashMap<&str, &Entry> = was.entries.iter().map(|one| (one.key.text.as_str(), one)).collect();
                let entries = now.entries.into_iter().map(|entry| match known.get(entry.key.text.as_str()) {
                    Some(known) => Entry { key: known.key.clone(), value: self.merged(&known.value, entry.value) },
                    None => Entry { key: entry.key, value: self.made(entry.value) },
                });
                now.entries = entries.collect();
                Node::new(Value::Mapping(now), origin)
            }
            (Value::Sequence(was), Value::Sequence(now)) => {
                // The same item before and after is told by its place from the front, else from the back.
                let (length, longer) = (now.len(), was.len());
                let items = now.into_iter().enumerate().map(|(at, item)| {
                    let from_back = (longer + at).checked_sub(length).and_then(|at| was.get(at));
                    let known = [was.get(at), from_back].into_iter().flatten().find(|known| **known == item);
                    match known.or(was.get(at).filter(|_| longer == length)) {
                        Some(known) => self.merged(known, item),
                        None => self.made(item),
                    }
                });
                Node::new(Value::Sequence(items.collect()), origin)
            }
            (Value::Scalar(_), value @ Value::Scalar(_)) if *old == Node::new(value.clone(), new.origin.clone()) => {
                old.clone()
            }
            (_, value) => {
                let mut node = Node::new(value, new.origin);
                cause.stamp(&mut node, Some(old));
                node
            }
        }
    }

    fn made(&self, mut new: Node) -> Node {
        Cause::new(ChangeKind::Function, &self.at.origin.at).stamp(&mut new, None);
        new
    }
}

/// The objects of a ResourceList; of a plain list or of documents, these.
fn items(documents: Vec<Node>, at: &Node) -> Result<Vec<Node>> {
    let is_list = |document: &Node| {
        matches!(document.get("kind").and_then(Node::text), Some("ResourceList" | "List"))
            && document.as_mapping().is_some()
    };
    let mut items = match &documents[..] {
        [] => return Err(Diagnostic::on(at, "this function prints nothing; a ResourceList is expected").into()),
        [list] if is_list(list) => elements(list, "items").to_vec(),
        _ => documents,
    };
    for item in &mut items {
        without_annotations(item, &BOOKKEEPING);
    }
    Ok(items)
}

fn without_annotations(object: &mut Node, names: &[&str]) {
    let Some(metadata) = object.get_mut("metadata").and_then(Node::as_mapping_mut) else { return };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Node::as_mapping_mut) else { return };
    if names.iter().filter(|name| annotations.remove(name).is_some()).count() > 0 && annotations.is_empty() {
        metadata.remove("annotations");
    }
}

/// A result on one line: `error: what is wrong (Deployment web, spec.replicas)`.
fn described(result: &Node) -> String {
    let text = |path: &[&str]| result.at(path).and_then(Node::text).filter(|text| !text.is_empty()).map(printable);
    let severity = text(&["severity"]).unwrap_or_else(|| "info".to_owned());
    let object = [text(&["resourceRef", "kind"]), text(&["resourceRef", "name"])];
    let object = object.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let places = [Some(object).filter(|object| !object.is_empty()), text(&["field", "path"]), text(&["file", "path"])];
    let places = places.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let message = text(&["message"]).unwrap_or_else(|| "(no message)".to_owned());
    if places.is_empty() { format!("{severity}: {message}") } else { format!("{severity}: {message} ({places})") }
}

/// What a terminal may be shown.
fn printable(text: &str) -> String {
    let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    plain.take(500).collect::<String>().trim().to_owned()
}
