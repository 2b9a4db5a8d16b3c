//! One folder after the other: what a kustomization names, in the order in which kustomize works.
//!
//! Owns: [`Builder`]: recursion, cycles, components, and the pipeline: resources, configurations, generators,
//! components, transformers, validators, variables. Where files may lie is in `place.rs`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::build_metadata::BuildMetadata;
use super::config::Config;
use super::generator::{self, GeneratorEntry, Kind};
use super::identity::Id;
use super::kustomization::{File, Role};
use super::order::{self, SortOptions};
use super::place::Place;
use super::resource::{Provenance, Resource, Resources, from_documents, read_annotations};
use super::schema::Schema;
use super::transformer::{Step, Work};
use super::variables::{self, Variable};
use super::{Options, crds, hash, name_reference, plugin, remote, steps};
use crate::document::{Diagnostic, Loader, Node, Position, Value};
use crate::error::Result;
use crate::interrupt;

/// Folders inside folders; far more than any real tree has.
const DEPTH_LIMIT: usize = 64;

pub struct Builder<'a> {
    options: &'a Options,
    /// Real paths of the folders being built, outermost first, and the names they are shown under.
    open: Vec<(PathBuf, PathBuf)>,
    /// The schema that a kustomization brings; the first one counts.
    schema: Option<Arc<Schema>>,
    defaults: Config,
    metadata: BuildMetadata,
}

/// What a folder and everything below it comes to.
#[derive(Default)]
pub struct Accumulated {
    pub resources: Resources,
    /// What was added to the default configuration.
    pub config: Option<Config>,
    pub variables: Vec<Variable>,
}

/// The result of a build, before it is put in order.
pub struct Built {
    pub resources: Vec<Resource>,
    pub sort: Option<SortOptions>,
    pub metadata: BuildMetadata,
    /// Of `buildMetadata`, or of the whole file.
    pub metadata_at: Position,
}

impl<'a> Builder<'a> {
    pub fn new(options: &'a Options) -> Self {
        Builder {
            options,
            open: Vec::new(),
            schema: None,
            defaults: Config::builtin(),
            metadata: BuildMetadata::default(),
        }
    }

    pub fn root(&mut self, dir: &Path) -> Result<Built> {
        let place = Place::root(dir, self.options.unrestricted)?;
        let file = File::read(place.real(), place.shown())?;
        self.top(&place, file)
    }

    /// A kustomization given as text, whose paths are relative to `dir`.
    pub fn generated(&mut self, dir: &Path, text: &str) -> Result<Built> {
        let place = Place::root(dir, self.options.unrestricted)?;
        let name = place.shown().join("kustomization.yaml (generated)").display().to_string();
        let file = File::parse(text, &name)?;
        self.top(&place, file)
    }

    /// What is done once, at the very top: hashes, references, variables.
    fn top(&mut self, place: &Place, mut file: File) -> Result<Built> {
        self.metadata = BuildMetadata::of(&file.typed.build_metadata);
        let sort = file.typed.sort_options.take();
        order::check(sort.as_ref(), file.field("sortOptions").unwrap_or(&file.node))?;
        let metadata_at = file.field("buildMetadata").unwrap_or(&file.node).origin.at.clone();
        let mut built = self.file(place, file, Accumulated::default())?;
        hash::add_to_names(&mut built.resources)?;
        let config = self.config(built.config.as_ref(), &metadata_at)?;
        name_reference::fix(&mut built.resources, &config.name_reference)?;
        variables::resolve_all(&mut built.resources, &built.variables, &config.var_reference)?;
        Ok(Built { resources: built.resources.into_items(), sort, metadata: self.metadata, metadata_at })
    }

    /// The default configuration with what was added to it.
    fn config(&self, added: Option<&Config>, at: &Position) -> Result<Cow<'_, Config>> {
        let Some(added) = added else { return Ok(Cow::Borrowed(&self.defaults)) };
        let mut config = self.defaults.clone();
        config.merge(added, at)?;
        Ok(Cow::Owned(config))
    }

    /// Builds a folder that an entry names for a role. Components get what their parent has so far, all others start
    /// with nothing.
    fn folder(&mut self, place: &Place, (entry, role): (&Node, Role), start: Accumulated) -> Result<Accumulated> {
        let file = File::read(place.real(), place.shown())?;
        check_role(entry, role, file.role)?;
        self.file(place, file, start)
    }

    fn file(&mut self, place: &Place, file: File, start: Accumulated) -> Result<Accumulated> {
        interrupt::check()?;
        if let Some(reporter) = &self.options.reporter {
            file.notices.iter().for_each(|notice| reporter.warning(notice));
        }
        self.open.push((place.real().to_owned(), place.shown().to_owned()));
        let mut built = start;
        self.open_api(place, &file)?;
        for field in ["resources", "bases"] {
            for entry in file.entries(field) {
                self.resource(place, entry, &mut built)?;
            }
        }
        self.configure(place, &file, &mut built)?;
        self.generate(place, &file, &mut built.resources)?;
        for entry in file.entries("components") {
            let inner = place.folder(entry)?;
            self.check_cycle(&inner, entry)?;
            built = self.folder(&inner, (entry, Role::Component), built)?;
        }
        self.transform(place, &file, &mut built)?;
        self.validate(place, &file, &mut built.resources)?;
        variables::collect(&mut built.variables, &file.typed.vars, file.entries("vars"), &mut built.resources)?;
        self.open.pop();
        Ok(built)
    }

    /// An entry of `resources`: a folder or a file.
    fn resource(&mut self, place: &Place, entry: &Node, into: &mut Accumulated) -> Result<()> {
        if place.is_elsewhere(entry) {
            let documents = remote::load(entry, self.options.fetch.as_ref())?.documents;
            return self.loaded(documents, entry.text().unwrap_or_default().to_owned(), into);
        }
        if place.is_folder(entry)? {
            let inner = place.folder(entry)?;
            self.check_cycle(&inner, entry)?;
            let below = self.folder(&inner, (entry, Role::Kustomization), Accumulated::default())?;
            into.resources.append(below.resources.into_items())?;
            if let Some(config) = below.config {
                into.config.get_or_insert_with(Config::default).merge(&config, &entry.origin.at)?;
            }
            return below.variables.into_iter().try_for_each(|one| variables::add(&mut into.variables, one));
        }
        let path = place.trail(entry.text().unwrap_or_default());
        self.loaded(place.load(entry)?.documents, path, into)
    }

    /// Takes in the documents of a file; `path` is how `buildMetadata` names it.
    fn loaded(&self, documents: Vec<Node>, path: String, into: &mut Accumulated) -> Result<()> {
        let mut resources = from_documents(documents)?;
        for resource in &mut resources {
            read_annotations(&mut resource.node)?;
            if self.metadata.any {
                resource.origin = Some(Provenance { path: Some(path.clone()), configured: None });
            }
        }
        into.resources.append(resources)
    }

    fn open_api(&mut self, place: &Place, file: &File) -> Result<()> {
        let Some(node) = file.field("openapi").filter(|_| !file.typed.openapi.is_empty()) else { return Ok(()) };
        match (node.get("path"), node.get("version")) {
            (Some(_), Some(version)) => {
                Err(Diagnostic::on(version, "both a version and a file of definitions given").into())
            }
            (Some(path), None) => {
                let documents = place.load(path)?.documents;
                if self.schema.is_none() {
                    self.schema = documents.first().map(|document| Arc::new(Schema::from_openapi(document)));
                }
                Ok(())
            }
            (None, Some(version)) if version.text() != Some("v1.21.2") => {
                let message = format!("there are no built-in definitions of version {}", version.describe());
                Err(Diagnostic::on(version, message).hint("known: `v1.21.2`; others are given with `path`").into())
            }
            _ => Ok(()),
        }
    }

    fn configure(&self, place: &Place, file: &File, built: &mut Accumulated) -> Result<()> {
        for entry in file.entries("configurations") {
            for document in place.load(entry)?.documents {
                let added = Config::decode(&document)?;
                built.config.get_or_insert_with(Config::default).merge(&added, &entry.origin.at)?;
            }
        }
        for entry in file.entries("crds") {
            for document in place.load(entry)?.documents {
                crds::extend(built.config.get_or_insert_with(Config::default), &document)?;
            }
        }
        Ok(())
    }

    fn generate(&mut self, place: &Place, file: &File, resources: &mut Resources) -> Result<()> {
        let typed = &file.typed;
        let options = typed.generator_options.as_ref();
        let globals = options.map(|options| (options, file.field("generatorOptions").unwrap_or(&file.node)));
        let lists: [(&str, &[GeneratorEntry], Kind); 2] = [
            ("configMapGenerator", &typed.config_map_generator, Kind::ConfigMap),
            ("secretGenerator", &typed.secret_generator, Kind::Secret),
        ];
        for (field, list, kind) in lists {
            for (typed, entry) in list.iter().zip(file.entries(field)) {
                let mut resource = generator::generate(kind, typed, entry, globals, place)?;
                let name = if kind == Kind::Secret { "SecretGenerator" } else { "ConfigMapGenerator" };
                resource.origin = self.provenance(place, file, name);
                generator::absorb(resources, resource, &entry.origin.at)?;
            }
        }
        for config in self.plugins(place, file, "generators")? {
            let by = config.node.origin.at.clone();
            for mut resource in plugin::generator(&config, place, self.options)? {
                resource.origin = configured_by(&config, self.metadata);
                generator::absorb(resources, resource, &by)?;
            }
        }
        Ok(())
    }

    fn transform(&mut self, place: &Place, file: &File, built: &mut Accumulated) -> Result<()> {
        let config = self.config(built.config.as_ref(), &file.node.origin.at)?;
        let named = steps::of(file, &config)?;
        let provenance = |name: &str| self.provenance(place, file, name);
        let mut all: Vec<Step> =
            named.into_iter().map(|(name, transformer)| Step { transformer, provenance: provenance(name) }).collect();
        for plugin in self.plugins(place, file, "transformers")? {
            let provenance = configured_by(&plugin, self.metadata);
            all.push(Step { transformer: plugin::transformer(&plugin)?, provenance });
        }
        all.iter().try_for_each(|step| self.step(place, step, &mut built.resources))
    }

    fn step(&self, place: &Place, step: &Step, resources: &mut Resources) -> Result<()> {
        interrupt::check()?;
        let schema = self.schema.clone().unwrap_or_else(Schema::builtin);
        step.transformer.apply(&mut Work { resources, place, schema: &schema, options: self.options })?;
        let Some(provenance) = &step.provenance else { return Ok(()) };
        resources.edit_all(|resource| {
            match resource.origin {
                Some(_) => resource.transformations.push(provenance.clone()),
                None => resource.origin = Some(provenance.clone()),
            }
            Ok(())
        })
    }

    /// Validators are transformers that must not change anything.
    fn validate(&mut self, place: &Place, file: &File, resources: &mut Resources) -> Result<()> {
        for config in self.plugins(place, file, "validators")? {
            let before: Vec<Node> = resources.iter().map(|resource| resource.node.clone()).collect();
            let transformer = plugin::transformer(&config)?;
            self.step(place, &Step { transformer, provenance: None }, resources)?;
            let unmarked = |node: &Node| {
                let mut node = node.clone();
                let Some(metadata) = node.get_mut("metadata").and_then(Node::as_mapping_mut) else { return node };
                if let Some(labels) = metadata.get_mut("labels").and_then(Node::as_mapping_mut) {
                    labels.remove("validated-by");
                    if labels.is_empty() {
                        metadata.remove("labels");
                    }
                }
                node
            };
            let same = resources.len() == before.len()
                && resources.iter().zip(&before).all(|(now, before)| unmarked(&now.node) == unmarked(before));
            if !same {
                return Err(Diagnostic::on(&config.node, "a validator must not change anything").into());
            }
        }
        Ok(())
    }

    /// The plugin configurations that a field names: written in place, in files, or in folders to be built.
    fn plugins(&mut self, place: &Place, file: &File, field: &str) -> Result<Vec<Resource>> {
        let mut found = Accumulated::default();
        let mut named = Vec::new();
        for entry in file.entries(field) {
            match in_place(entry)? {
                Some(mut resources) => {
                    for resource in &mut resources {
                        resource.origin = Some(Provenance { path: Some(place.trail(&file.name)), configured: None });
                    }
                    found.resources.append(resources)?;
                }
                None => named.push(entry),
            }
        }
        for entry in named {
            self.resource(place, entry, &mut found)?;
        }
        Ok(found.resources.into_items())
    }

    fn provenance(&self, place: &Place, file: &File, kind: &str) -> Option<Provenance> {
        self.metadata.any.then(|| Provenance {
            path: None,
            configured: Some((place.trail(&file.name), Id::new("builtin", kind, "", ""))),
        })
    }

    fn check_cycle(&self, inner: &Place, entry: &Node) -> Result<()> {
        if let Some(first) = self.open.iter().position(|(open, _)| open.starts_with(inner.real())) {
            let around = self.open[first..].iter().map(|(_, shown)| shown.as_path()).chain([inner.shown()]);
            let around: Vec<String> = around.map(|folder| folder.display().to_string()).collect();
            let message = format!("cycle: {}", around.join(" -> "));
            return Err(Diagnostic::on(entry, message)
                .hint("a folder cannot use itself, a folder around it, or one that uses it")
                .into());
        }
        if self.open.len() >= DEPTH_LIMIT {
            return Err(Diagnostic::on(entry, format!("folders use each other more than {DEPTH_LIMIT} deep")).into());
        }
        Ok(())
    }
}

/// A plugin's configuration written in the kustomization itself.
fn in_place(entry: &Node) -> Result<Option<Vec<Resource>>> {
    if !entry.text().is_some_and(|text| text.contains('\n') || text.trim_start().starts_with('{')) {
        return Ok(None);
    }
    let documents = Loader::default().inline(entry)?.documents;
    if documents.iter().all(|document| matches!(document.value, Value::Mapping(_))) {
        return from_documents(documents).map(Some);
    }
    Ok(None)
}

fn configured_by(config: &Resource, metadata: BuildMetadata) -> Option<Provenance> {
    let file = config.origin.as_ref().and_then(|origin| origin.path.clone()).unwrap_or_default();
    metadata.any.then(|| Provenance { path: None, configured: Some((file, config.id().clone())) })
}

fn check_role(entry: &Node, wanted: Role, found: Role) -> Result<()> {
    match (wanted, found) {
        (Role::Kustomization, Role::Component) => {
            Err(Diagnostic::on(entry, "this folder is a component").hint("list it under `components`").into())
        }
        (Role::Component, Role::Kustomization) => {
            Err(Diagnostic::on(entry, "this folder is not a component").hint("list it under `resources`").into())
        }
        _ => Ok(()),
    }
}
