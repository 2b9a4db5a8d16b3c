//! Plugins: the built-in transformers and generators, configured by documents of their own.
//!
//! Owns: [`transformer`], [`generator`]. What is a program of this host is refused; functions in
//! containers are in `function.rs`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Options;
use super::affix::{Affix, End};
use super::fieldspec::Specs;
use super::function::Function;
use super::generator::{GeneratorEntry, Kind, generate};
use super::hash;
use super::images::{Image, ImageEntry};
use super::kustomization::PatchEntry;
use super::labels::Pairs;
use super::namespace::{Namespace, Subjects};
use super::patch::{Patch, StrategicMerge};
use super::place::Place;
use super::replacement::Replacements;
use super::replicas::{Replicas, ReplicasEntry};
use super::resource::Resource;
use super::selector::Selector;
use super::transformer::{Transform, Work, elements, field, find_field};
use super::value_add::{ValueAdd, ValueAddConfig};
use crate::document::{ChangeKind, Decoder, Diagnostic, Entry, Key, Loader, Node, Origin, Value, suggestion};
use crate::error::Result;

const TRANSFORMERS: [&str; 14] = [
    "AnnotationsTransformer",
    "HashTransformer",
    "ImageTagTransformer",
    "LabelTransformer",
    "NamespaceTransformer",
    "PatchJson6902Transformer",
    "PatchStrategicMergeTransformer",
    "PatchTransformer",
    "PrefixSuffixTransformer",
    "PrefixTransformer",
    "ReplacementTransformer",
    "ReplicaCountTransformer",
    "SuffixTransformer",
    "ValueAddTransformer",
];
const GENERATORS: [&str; 4] =
    ["ConfigMapGenerator", "HelmChartInflationGenerator", "IAMPolicyGenerator", "SecretGenerator"];

/// What is read of the configuration of a generator; more may be there.
const FIELDS: [&str; 9] = ["name", "namespace", "behavior", "literals", "files", "envs", "env", "type", "options"];

/// Everything the simple transformers may be given.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    annotations: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    prefix: String,
    suffix: String,
    unset_only: bool,
    set_role_binding_subjects: Subjects,
    image_tag: ImageEntry,
    replica: ReplicasEntry,
    path: Option<String>,
    patch: Option<String>,
    json_op: Option<String>,
    target: Option<Selector>,
    options: BTreeMap<String, bool>,
    paths: Vec<String>,
    field_specs: Option<Specs>,
}

type Boxed = Box<dyn Transform>;

pub fn transformer(config: &Resource) -> Result<Boxed> {
    if let Some(function) = Function::of(config)? {
        return Ok(Box::new(function));
    }
    check_builtin(config)?;
    let node = &config.node;
    let kind = config.id().kind.as_str();
    if !TRANSFORMERS.contains(&kind) {
        return Err(unknown(config, "transformer", &TRANSFORMERS));
    }
    if kind == "ValueAddTransformer" {
        let typed: ValueAddConfig = decode(node)?;
        return Ok(Box::new(ValueAdd { typed, entry: node.clone() }));
    }
    let settings: Settings = decode(node)?;
    let named_specs = settings.field_specs.clone();
    let specs = named_specs.clone().unwrap_or_default();
    let pairs = |kind, name: &str| Pairs { kind, pairs: find_field(node, name).cloned(), specs: specs.clone() };
    let affix = |end, name: &str| match named_specs {
        Some(_) => Ok(Affix { end, value: field(node, name).clone(), specs: specs.clone() }),
        None => Err(crate::error::Error::from(Diagnostic::on(node, format!("{kind} without `fieldSpecs`")))),
    };
    let one: Boxed = match kind {
        "AnnotationsTransformer" => Box::new(pairs(ChangeKind::Annotation, "annotations")),
        "LabelTransformer" => Box::new(pairs(ChangeKind::Label, "labels")),
        "HashTransformer" => Box::new(Hash),
        "ImageTagTransformer" => {
            let entry = field(node, "imageTag").clone();
            Box::new(Image { typed: settings.image_tag, entry, specs })
        }
        "NamespaceTransformer" => {
            let value = node.at(&["metadata", "namespace"]).cloned();
            let value = value.unwrap_or_else(|| Node::plain("", node.origin.clone()));
            let (subjects, unset_only) = (settings.set_role_binding_subjects, settings.unset_only);
            Box::new(Namespace { value, specs, subjects, unset_only })
        }
        "PrefixTransformer" => Box::new(affix(End::Prefix, "prefix")?),
        "SuffixTransformer" => Box::new(affix(End::Suffix, "suffix")?),
        "PrefixSuffixTransformer" => {
            let mut both: Vec<Boxed> = Vec::new();
            if !settings.prefix.is_empty() {
                both.push(Box::new(affix(End::Prefix, "prefix")?));
            }
            if !settings.suffix.is_empty() {
                both.push(Box::new(affix(End::Suffix, "suffix")?));
            }
            Box::new(Sequence(both))
        }
        "ReplicaCountTransformer" => {
            let entry = field(node, "replica").clone();
            Box::new(Replicas { typed: settings.replica, entry, specs })
        }
        "ReplacementTransformer" => Box::new(Replacements { entries: elements(node, "replacements").to_vec() }),
        "PatchStrategicMergeTransformer" => Box::new(strategic_merge(node, &settings)?),
        _ => {
            let json_only = kind == "PatchJson6902Transformer";
            let patch = if json_only { settings.json_op } else { settings.patch };
            let typed = PatchEntry { path: settings.path, patch, target: settings.target, options: settings.options };
            Box::new(Patch { typed, entry: node.clone(), json_only })
        }
    };
    Ok(one)
}

fn strategic_merge(node: &Node, settings: &Settings) -> Result<StrategicMerge> {
    let mut entries = elements(node, "paths").to_vec();
    if let Some(patches) = find_field(node, "patches").filter(|node| node.text().is_some_and(|text| !text.is_empty())) {
        // One text of several documents; it is told from a path by its line break.
        let mut text = patches.clone();
        if let Value::Scalar(scalar) = &mut text.value {
            if !scalar.text.contains('\n') {
                scalar.text.push('\n');
            }
        }
        Loader::default().inline(&text)?;
        entries.push(text);
    }
    if entries.is_empty() && settings.paths.is_empty() {
        return Err(Diagnostic::on(node, "neither `paths` nor `patches` given").into());
    }
    Ok(StrategicMerge { entries })
}

/// One after the other, as one transformer.
struct Sequence(Vec<Boxed>);

impl Transform for Sequence {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        self.0.iter().try_for_each(|one| one.apply(work))
    }
}

struct Hash;

impl Transform for Hash {
    fn apply(&self, work: &mut Work<'_>) -> Result<()> {
        hash::add_to_names(work.resources)
    }
}

pub fn generator(config: &Resource, place: &Place, options: &Options) -> Result<Vec<Resource>> {
    if let Some(function) = Function::of(config)? {
        return function.generate(place, options);
    }
    check_builtin(config)?;
    let node = &config.node;
    let kind = match config.id().kind.as_str() {
        "ConfigMapGenerator" => Kind::ConfigMap,
        "SecretGenerator" => Kind::Secret,
        "IAMPolicyGenerator" => return iam_policy(node).map(|resource| vec![resource]),
        "HelmChartInflationGenerator" => {
            return Err(Diagnostic::on(node, "inflating a chart would run a program of the host")
                .hint("inflate the chart beforehand and list its output as a resource")
                .into());
        }
        _ => return Err(unknown(config, "generator", &GENERATORS)),
    };
    let mut entry = node.clone();
    if let Some(mapping) = entry.as_mapping_mut() {
        mapping.entries.retain(|entry| FIELDS.contains(&entry.key.text.as_str()));
        for name in ["name", "namespace"] {
            let given = node.at(&["metadata", name]).filter(|_| mapping.get(name).is_none());
            if let Some(value) = given {
                mapping.set(Key::new(name, &value.origin.at), value.clone());
            }
        }
    }
    let typed: GeneratorEntry = decode(&entry)?;
    generate(kind, &typed, &entry, None, place).map(|resource| vec![resource])
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct IamPolicy {
    cloud: String,
    kubernetes_service: Named,
    service_account: Account,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Account {
    name: String,
    project_id: String,
}

/// A service account bound to one of a cloud.
fn iam_policy(node: &Node) -> Result<Resource> {
    let typed: IamPolicy = decode(node)?;
    if typed.cloud != "gke" {
        return Err(Diagnostic::on(field(node, "cloud"), format!("unknown cloud `{}`", typed.cloud))
            .hint("known: `gke`")
            .into());
    }
    let made = |text: &str| Node::string(text, Origin::new(node.origin.at.clone()));
    let mapping = |entries: Vec<(&str, Node)>| {
        let mut map = Node::mapping(Origin::new(node.origin.at.clone()));
        if let Value::Mapping(mapping) = &mut map.value {
            mapping.entries =
                entries.into_iter().map(|(key, value)| Entry { key: Key::new(key, &node.origin.at), value }).collect();
        }
        map
    };
    let account =
        format!("{}@{}.iam.gserviceaccount.com", typed.service_account.name, typed.service_account.project_id);
    let mut metadata = vec![
        ("annotations", mapping(vec![("iam.gke.io/gcp-service-account", made(&account))])),
        ("name", made(&typed.kubernetes_service.name)),
    ];
    if !typed.kubernetes_service.namespace.is_empty() {
        metadata.push(("namespace", made(&typed.kubernetes_service.namespace)));
    }
    let metadata = mapping(metadata);
    Ok(Resource::new(mapping(vec![
        ("apiVersion", made("v1")),
        ("kind", made("ServiceAccount")),
        ("metadata", metadata),
    ])))
}

fn decode<T: DeserializeOwned>(node: &Node) -> Result<T> {
    Decoder { any_case: true, strict_text: false }.decode(node)
}

/// Refuses what would run code, each with its reason.
fn check_builtin(config: &Resource) -> Result<()> {
    let node = &config.node;
    if config.id().api_version() == "builtin" {
        return Ok(());
    }
    Err(Diagnostic::on(node, format!("{} is a plugin, a program of this host", config.id()))
        .hint("only plugins of `apiVersion: builtin` are known; others are never run")
        .into())
}

fn unknown(config: &Resource, what: &str, known: &[&str]) -> crate::error::Error {
    let kind = &config.id().kind;
    let at = config.node.get("kind").unwrap_or(&config.node);
    let diagnostic = Diagnostic::on(at, format!("there is no built-in {what} `{kind}`"));
    match suggestion(kind, "known", known) {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
    .into()
}
