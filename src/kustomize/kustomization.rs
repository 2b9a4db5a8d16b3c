//! The kustomization file: its fields, and how they are read.
//!
//! Owns: [`File`] (what was read, with positions) and [`Kustomization`] (its typed form). Field names match in any
//! case, the last of equal keys counts, and text fields refuse what YAML 1.1 takes for a boolean or number.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::fieldspec::Specs;
use super::generator::{GeneratorEntry, GeneratorOptions};
use super::images::ImageEntry;
use super::order::SortOptions;
use super::replacement::ReplacementEntry;
use super::replicas::ReplicasEntry;
use super::selector::Selector;
use super::variables::VarEntry;
use crate::document::{Decoder, Diagnostic, Loaded, Loader, Node};
use crate::error::{Error, Result};

const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Fields that this program will not do.
const NEVER: [&str; 3] = ["helmCharts", "helmGlobals", "helmChartInflationGenerator"];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kustomization {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub metadata: Option<IgnoredAny>,
    pub resources: Vec<String>,
    pub bases: Vec<String>,
    pub components: Vec<String>,
    pub crds: Vec<String>,
    pub configurations: Vec<String>,
    pub openapi: BTreeMap<String, String>,
    pub config_map_generator: Vec<GeneratorEntry>,
    pub secret_generator: Vec<GeneratorEntry>,
    pub generator_options: Option<GeneratorOptions>,
    pub generators: Vec<String>,
    pub patches: Vec<PatchEntry>,
    pub patches_strategic_merge: Vec<String>,
    #[serde(rename = "patchesJson6902")]
    pub patches_json6902: Vec<PatchEntry>,
    pub namespace: String,
    pub name_prefix: String,
    pub name_suffix: String,
    pub labels: Vec<LabelEntry>,
    pub common_labels: BTreeMap<String, String>,
    pub common_annotations: BTreeMap<String, String>,
    pub replicas: Vec<ReplicasEntry>,
    pub images: Vec<ImageEntry>,
    pub replacements: Vec<ReplacementEntry>,
    pub transformers: Vec<String>,
    pub validators: Vec<String>,
    pub vars: Vec<VarEntry>,
    pub sort_options: Option<SortOptions>,
    pub build_metadata: Vec<String>,
    helm_charts: Option<IgnoredAny>,
    helm_globals: Option<IgnoredAny>,
    helm_chart_inflation_generator: Option<IgnoredAny>,
}

/// One entry of `labels`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabelEntry {
    pub pairs: BTreeMap<String, String>,
    pub include_selectors: bool,
    pub include_templates: bool,
    pub fields: Specs,
}

/// One entry of `patches` or `patchesJson6902`: a text or a file, and what it applies to.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PatchEntry {
    pub path: Option<String>,
    pub patch: Option<String>,
    pub target: Option<Selector>,
    /// Of these, `allowNameChange` and `allowKindChange` mean something.
    pub options: BTreeMap<String, bool>,
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
    /// The name of the file, without its folder.
    pub name: String,
}

impl File {
    /// Reads the kustomization of a folder, to be shown as `shown`.
    pub fn read(dir: &Path, shown: &Path) -> Result<Self> {
        let path = find(dir, shown)?;
        let name = shown.join(path.file_name().unwrap_or_default()).display().to_string();
        Self::from_loaded(
            Loader { last_key_wins: true }.file_of(Some(&shown.display().to_string()), &path, &name)?,
            &name,
        )
    }

    /// The kustomization of a folder as it is written, whatever it says; nothing if it says nothing.
    pub fn node(dir: &Path, shown: &Path) -> Result<Option<Node>> {
        let path = find(dir, shown)?;
        let name = shown.join(path.file_name().unwrap_or_default()).display().to_string();
        Ok(Loader { last_key_wins: true }.file(&path, &name)?.documents.into_iter().next())
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
        let short = name.rsplit('/').next().unwrap_or(name).to_owned();
        let file = File { typed, node, role, notices: loaded.notices, name: short };
        file.refuse()?;
        Ok(file)
    }

    /// The node of a field, whatever its case.
    pub fn field(&self, name: &str) -> Option<&Node> {
        let mapping = self.node.as_mapping()?;
        let entry = mapping.entries.iter().find(|entry| entry.key.text.eq_ignore_ascii_case(name))?;
        Some(&entry.value)
    }

    /// The nodes of a list field.
    pub fn entries(&self, name: &str) -> &[Node] {
        self.field(name).and_then(Node::as_sequence).unwrap_or_default()
    }

    fn refuse(&self) -> Result<()> {
        let Some(mapping) = self.node.as_mapping() else { return Ok(()) };
        for entry in &mapping.entries {
            let empty = entry.value.is_null() || entry.value.as_sequence().is_some_and(<[Node]>::is_empty);
            let never = NEVER.iter().find(|name| name.eq_ignore_ascii_case(&entry.key.text));
            if let Some(name) = never.filter(|_| !empty) {
                let diagnostic = Diagnostic::at(&entry.key.at, format!("`{name}` would run a program of the host"));
                return Err(diagnostic.hint("inflate the chart beforehand and list its output as a resource").into());
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
