//! The kustomization file: its fields, and how they are read.
//!
//! Owns: [`File`] (what was read, with positions) and [`Kustomization`] (its typed form). Field names match in any
//! case, the last of equal keys counts, and text fields refuse what YAML 1.1 takes for a boolean or number.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::replacement::ReplacementEntry;
use super::selector::Selector;
use crate::document::{Decoder, Diagnostic, Loaded, Loader, Node};
use crate::error::{Error, Result};

const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Known fields that this program does not do yet; they are refused.
const REFUSED: [&str; 20] = [
    "namePrefix",
    "nameSuffix",
    "namespace",
    "commonLabels",
    "labels",
    "commonAnnotations",
    "configMapGenerator",
    "secretGenerator",
    "generatorOptions",
    "images",
    "replicas",
    "vars",
    "generators",
    "transformers",
    "validators",
    "crds",
    "openapi",
    "configurations",
    "sortOptions",
    "buildMetadata",
];
/// Fields that this program will not do.
const NEVER: [&str; 3] = ["helmCharts", "helmGlobals", "helmChartInflationGenerator"];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(dead_code)] // fields that are refused are only named, so that they are known
pub struct Kustomization {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub metadata: Option<IgnoredAny>,
    pub resources: Vec<String>,
    pub bases: Vec<String>,
    pub components: Vec<String>,
    pub patches: Vec<PatchEntry>,
    pub patches_strategic_merge: Vec<String>,
    #[serde(rename = "patchesJson6902")]
    pub patches_json6902: Vec<PatchEntry>,
    pub replacements: Vec<ReplacementEntry>,
    name_prefix: Option<IgnoredAny>,
    name_suffix: Option<IgnoredAny>,
    namespace: Option<IgnoredAny>,
    common_labels: Option<IgnoredAny>,
    labels: Option<IgnoredAny>,
    common_annotations: Option<IgnoredAny>,
    config_map_generator: Option<IgnoredAny>,
    secret_generator: Option<IgnoredAny>,
    generator_options: Option<IgnoredAny>,
    images: Option<IgnoredAny>,
    replicas: Option<IgnoredAny>,
    vars: Option<IgnoredAny>,
    generators: Option<IgnoredAny>,
    transformers: Option<IgnoredAny>,
    validators: Option<IgnoredAny>,
    crds: Option<IgnoredAny>,
    openapi: Option<IgnoredAny>,
    configurations: Option<IgnoredAny>,
    sort_options: Option<IgnoredAny>,
    build_metadata: Option<IgnoredAny>,
    helm_charts: Option<IgnoredAny>,
    helm_globals: Option<IgnoredAny>,
    helm_chart_inflation_generator: Option<IgnoredAny>,
}

/// One entry of `patches` or `patchesJson6902`: a text or a file, and what it applies to.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PatchEntry {
    pub path: Option<String>,
    pub patch: Option<String>,
    pub target: Option<Selector>,
    pub options: PatchOptions,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PatchOptions {
    pub allow_name_change: bool,
    pub allow_kind_change: bool,
}

/// Whether a folder is a layer of its own or adds to the one that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Kustomization,
    Component,
}

/// A kustomization file that was read.
pub struct File {
    pub typed: Kustomization,
    pub node: Node,
    pub role: Role,
    pub notices: Vec<String>,
}

impl File {
    /// Reads the kustomization of a folder, to be shown as `shown`.
    pub fn read(dir: &Path, shown: &Path) -> Result<Self> {
        let path = find(dir, shown)?;
        let name = shown.join(path.file_name().unwrap_or_default()).display().to_string();
        Self::from_loaded(Loader { last_key_wins: true }.file(&path, &name)?, &name)
    }

    /// Reads a kustomization that is not in a file.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        Self::from_loaded(Loader { last_key_wins: true }.text(name, text.as_bytes())?, name)
    }

    fn from_loaded(loaded: Loaded, name: &str) -> Result<Self> {
        let mut documents = loaded.documents.into_iter();
        let Some(node) = documents.next() else { return Err(empty(name)) };
        let typed: Kustomization = Decoder { any_case: true, strict_text: true }.decode(&node)?;
        let content = |key: &str| !["apiversion", "kind", "metadata"].contains(&key.to_lowercase().as_str());
        if !node.as_mapping().is_some_and(|mapping| mapping.entries.iter().any(|entry| content(&entry.key.text))) {
            return Err(empty(name));
        }
        let role = role(&typed, &node)?;
        let file = File { typed, node, role, notices: loaded.notices };
        file.refuse()?;
        Ok(file)
    }

    /// The node of a field, whatever its case.
    pub fn field(&self, name: &str) -> Option<&Node> {
        let mapping = self.node.as_mapping()?;
        let entry = mapping.entries.iter().find(|entry| entry.key.text.eq_ignore_ascii_case(name))?;
        Some(&entry.value)
    }

    /// The node of an entry of a list field.
    pub fn entry(&self, name: &str, index: usize) -> &Node {
        let items = self.field(name).and_then(Node::as_sequence);
        items.and_then(|items| items.get(index)).unwrap_or(&self.node)
    }

    fn refuse(&self) -> Result<()> {
        let Some(mapping) = self.node.as_mapping() else { return Ok(()) };
        for entry in &mapping.entries {
            let is = |name: &&str| name.eq_ignore_ascii_case(&entry.key.text);
            if let Some(name) = NEVER.iter().find(|name| is(name)) {
                let diagnostic = Diagnostic::at(&entry.key.at, format!("`{name}` would run a program of the host"));
                return Err(diagnostic.hint("inflate the chart beforehand and list its output as a resource").into());
            }
            if let Some(name) = REFUSED.iter().find(|name| is(name)) {
                let empty = match (entry.value.as_sequence(), entry.value.as_mapping()) {
                    (Some(items), _) => items.is_empty(),
                    (_, Some(mapping)) => mapping.is_empty(),
                    _ => entry.value.is_null(),
                };
                if !empty {
                    return Err(Diagnostic::at(&entry.key.at, format!("`{name}` is not supported yet")).into());
                }
            }
        }
        Ok(())
    }
}

fn find(dir: &Path, shown: &Path) -> Result<PathBuf> {
    let present: Vec<&str> = NAMES.into_iter().filter(|name| dir.join(name).is_file()).collect();
    match present[..] {
        [one] => Ok(dir.join(one)),
        [] => Err(Error::documents(format!("no kustomization file in {}", shown.display()))
            .hint(format!("a folder of documents needs a `{}` that lists them", NAMES[0]))),
        _ => Err(Error::documents(format!("{} has both {}", shown.display(), present.join(" and ")))
            .hint("keep one of them")),
    }
}

fn empty(name: &str) -> Error {
    Error::documents(format!("{name}: kustomization is empty")).hint("list at least one of `resources`")
}

fn role(typed: &Kustomization, node: &Node) -> Result<Role> {
    let kind = typed.kind.as_deref().filter(|kind| !kind.is_empty());
    let (role, version) = match kind {
        None | Some("Kustomization") => (Role::Kustomization, "kustomize.config.k8s.io/v1beta1"),
        Some("Component") => (Role::Component, "kustomize.config.k8s.io/v1alpha1"),
        Some(other) => {
            let at = node.get("kind").unwrap_or(node);
            let message = format!("kind `{other}` is not that of a kustomization");
            return Err(Diagnostic::on(at, message).hint("expected `Kustomization` or `Component`").into());
        }
    };
    match typed.api_version.as_deref().filter(|version| !version.is_empty()) {
        Some(given) if given != version => {
            let at = node.get("apiVersion").unwrap_or(node);
            let kind = kind.unwrap_or("Kustomization");
            Err(Diagnostic::on(at, format!("apiVersion of a {kind} is `{version}`, not `{given}`")).into())
        }
        _ => Ok(role),
    }
}
