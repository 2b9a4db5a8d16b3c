//! The transformers that the fields of a kustomization stand for, in the order in which kustomize runs them.
//!
//! Owns: [`of`].

use super::affix::{Affix, End};
use super::config::Config;
use super::fieldspec::{FieldSpec, Specs, add, add_all};
use super::images::Image;
use super::kustomization::{File, LabelEntry};
use super::labels::Pairs;
use super::namespace::{Namespace, Subjects};
use super::patch::{Patch, StrategicMerge};
use super::replacement::Replacements;
use super::replicas::Replicas;
use super::transformer::{Transform, find_field};
use crate::document::{ChangeKind, Node};
use crate::error::Result;

type Named = (&'static str, Box<dyn Transform>);

pub fn of(file: &File, config: &Config) -> Result<Vec<Named>> {
    let typed = &file.typed;
    let mut steps: Vec<Named> = Vec::new();
    let value = |field: &str| file.field(field).cloned().unwrap_or_else(|| file.node.clone());
    if !typed.patches_strategic_merge.is_empty() {
        let entries = file.entries("patchesStrategicMerge").to_vec();
        steps.push(("PatchStrategicMergeTransformer", Box::new(StrategicMerge { entries })));
    }
    for (typed, entry) in typed.patches.iter().zip(file.entries("patches")) {
        let patch = Patch { typed: typed.clone(), entry: entry.clone(), json_only: false };
        steps.push(("PatchTransformer", Box::new(patch)));
    }
    if !typed.namespace.is_empty() {
        let specs = config.namespace.clone();
        let namespace =
            Namespace { value: value("namespace"), specs, subjects: Subjects::DefaultOnly, unset_only: false };
        steps.push(("NamespaceTransformer", Box::new(namespace)));
    }
    if !typed.name_prefix.is_empty() {
        let affix = Affix { end: End::Prefix, value: value("namePrefix"), specs: config.name_prefix.clone() };
        steps.push(("PrefixTransformer", Box::new(affix)));
    }
    if !typed.name_suffix.is_empty() {
        let affix = Affix { end: End::Suffix, value: value("nameSuffix"), specs: config.name_suffix.clone() };
        steps.push(("SuffixTransformer", Box::new(affix)));
    }
    labels(file, config, &mut steps)?;
    if !typed.common_annotations.is_empty() {
        let pairs = Some(value("commonAnnotations"));
        let specs = config.common_annotations.clone();
        steps.push(("AnnotationsTransformer", Box::new(Pairs { kind: ChangeKind::Annotation, pairs, specs })));
    }
    for (typed, entry) in typed.patches_json6902.iter().zip(file.entries("patchesJson6902")) {
        let patch = Patch { typed: typed.clone(), entry: entry.clone(), json_only: true };
        steps.push(("PatchJson6902Transformer", Box::new(patch)));
    }
    for (typed, entry) in typed.replicas.iter().zip(file.entries("replicas")) {
        let replicas = Replicas { typed: typed.clone(), entry: entry.clone(), specs: config.replicas.clone() };
        steps.push(("ReplicaCountTransformer", Box::new(replicas)));
    }
    for (typed, entry) in typed.images.iter().zip(file.entries("images")) {
        let image = Image { typed: typed.clone(), entry: entry.clone(), specs: config.images.clone() };
        steps.push(("ImageTagTransformer", Box::new(image)));
    }
    if !typed.replacements.is_empty() {
        let entries = file.entries("replacements").to_vec();
        steps.push(("ReplacementTransformer", Box::new(Replacements { entries })));
    }
    Ok(steps)
}

/// `labels` first, one step an entry, then `commonLabels`, which therefore win.
fn labels(file: &File, config: &Config, steps: &mut Vec<Named>) -> Result<()> {
    let typed = &file.typed;
    if typed.labels.is_empty() && typed.common_labels.is_empty() {
        return Ok(());
    }
    for (label, entry) in typed.labels.iter().zip(file.entries("labels")) {
        let pairs = find_field(entry, "pairs").cloned();
        let specs = label_specs(label, entry, config)?;
        steps.push(("LabelTransformer", Box::new(Pairs { kind: ChangeKind::Label, pairs, specs })));
    }
    let pairs = file.field("commonLabels").cloned();
    let specs = config.common_labels.clone();
    steps.push(("LabelTransformer", Box::new(Pairs { kind: ChangeKind::Label, pairs, specs })));
    Ok(())
}

fn label_specs(label: &LabelEntry, entry: &Node, config: &Config) -> Result<Specs> {
    let at = &entry.origin.at;
    let mut specs = label.fields.clone();
    if label.include_selectors {
        add_all(&mut specs, &config.common_labels, at)?;
        return Ok(specs);
    }
    if label.include_templates {
        add_all(&mut specs, &config.template_labels, at)?;
    }
    add_all(&mut specs, &config.labels, at)?;
    add(&mut specs, FieldSpec { path: "metadata/labels".into(), create: true, ..FieldSpec::default() }, at)?;
    Ok(specs)
}
