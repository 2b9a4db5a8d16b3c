//! From Intents to published images: resolve, fetch, root file system, initramfs, osconfig, seal, check, pack, publish.
//!
//! Owns: [`run`] and the order of the steps of one image. Everything that can fail on input comes first, for all images,
//! before the first byte is built; packages are fetched meanwhile. How several images share a run is
//! [`several`](super::several)'s. The caller has entered its user namespace (`sandbox::userns::enter`).

use std::path::{Path, PathBuf};

use super::evidence::{self, Checksums, ImageRecord};
use super::pack::{self, Format};
use super::prepare::{Locking, Prepared};
use super::publish::{FileSet, Staging};
use super::toolstree::{self, Tools};
use super::workplace::Workplace;
use super::{ahead, initramfs, readahead, rootfs, several, space, verify};
use crate::api::params::Params;
use crate::boot;
use crate::check::hygiene;
use crate::error::{Context, Error, Result};
use crate::format::disk::sums::Digests;
use crate::osconfig::{self, Facts};
use crate::package;
use crate::plan::{Intent, StepName};
use crate::report::Reporter;
use crate::sandbox::{Sandbox, WorkArea};
use crate::seal;
use crate::tree::clusters::Clusters;
use crate::tree::store::Store;
use crate::tree::{Mtime, Tree};

/// What the command line decides about a build.
#[derive(Clone)]
pub struct Options<'a> {
    /// Cache, clock, network and reporter.
    pub environment: package::Environment,
    /// `SOURCE_DATE_EPOCH` as the user set it, for the lock.
    pub epoch: Option<i64>,
    /// Where the lock comes from.
    pub locking: Locking,
    /// Wins over what the documents say; `out` when neither says anything.
    pub output_folder: Option<PathBuf>,
    pub sandbox: &'a dyn Sandbox,
    /// Where work areas are made.
    pub work_folder: PathBuf,
    /// Whether images are checked by independent programs before they are published.
    pub verify: bool,
    /// Run everything the distribution's way, nothing natively. Slower, with the same bytes as result.
    pub plain_scripts: bool,
    /// Which digests are written beside an image.
    pub digests: Digests,
}

impl Options<'_> {
    /// For one of `count` images: where there are several, reports say which one they are about.
    pub(super) fn about(&self, image: &str, count: usize) -> Self {
        let mut own = self.clone();
        if count > 1 {
            own.environment.reporter = own.environment.reporter.about(image);
        }
        own
    }
}

/// One image, built and published.
#[derive(Debug, Clone)]
pub struct Built {
    pub image: String,
    /// Image files first, then the files beside them.
    pub files: Vec<PathBuf>,
    pub records: Vec<ImageRecord>,
    /// Packages in the image.
    pub packages: usize,
    /// Files, folders and links in the image.
    pub entries: usize,
}

/// Builds all images, as many side by side as cores and memory allow; they share downloads, layers and the work area.
/// What cannot be prepared fails all before anything is built; after that an image that fails leaves the others alone.
pub fn run(intents: &[Intent], options: &Options<'_>) -> Result<Vec<Result<Built>>> {
    several::refuse_collisions(intents, options)?;
    let reporter = &options.environment.reporter;
    let cache = &options.environment.cache;
    let store = Store::open_with(cache, reporter)?;
    let clusters = Clusters::open(cache, options.environment.now, reporter)?;
    let caches = Caches { store, clusters };
    let prepared = several::prepare_all(intents, options, &caches.store)?;
    let crowd = several::Crowd::of(&prepared, options);
    let work = WorkArea::new(&options.work_folder, crowd.need, options.sandbox.mounts(), reporter)?;
    let places = space::places(&prepared, options, &work, crowd.need);
    let built = several::build_all(&prepared, options, &caches, crowd.workers, work.path());
    Ok(built.into_iter().map(|one| one.map_err(|error| space::explain(error, &places))).collect())
}

/// What earlier builds have left.
pub(super) struct Caches {
    pub store: Store,
    pub clusters: Clusters,
}

/// The tree of the programs that check the image.
fn tools(one: &Prepared<'_>, options: &Options<'_>, store: &Store, work: &Path) -> Result<Option<Tree>> {
    let Some((source, lock)) = &one.tools else { return Ok(None) };
    let scratch = scratch(work, "tools-")?;
    toolstree::tree(source, lock, &options.environment, store, options.sandbox, scratch.path()).map(Some)
}

fn scratch(work: &Path, prefix: &str) -> Result<tempfile::TempDir> {
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(work);
    made.with_context(|| format!("making a folder in {}", work.display()))
}

/// Builds one image and publishes it. `is_free`: no image that has not begun yet wants the folder.
pub(super) fn build(
    one: &Prepared<'_>,
    options: &Options<'_>,
    caches: &Caches,
    arrived: &(dyn Fn(usize) -> Result<()> + Sync),
    place: &mut Workplace,
    is_free: &dyn Fn() -> bool,
) -> Result<Built> {
    let (intent, reporter, store) = (one.intent, &options.environment.reporter, &caches.store);
    let tools = tools(one, options, store, place.path()?)?;
    let mut tree = root_file_system(one, options, caches, arrived, place)?;
    let plan = &one.settle(&options.environment)?.plan;
    let epoch = Mtime { seconds: plan.epoch, nanoseconds: 0 };
    let origin = |path: &[&str]| intent.origin(path);
    let facts = Facts { image: &intent.image, epoch, origins: &origin, keyrings: &one.keyrings };
    add_initramfs(one, options, caches, place, &mut tree, &facts)?;
    if place.has_folder() && is_free() {
        place.release();
    }

    let step = reporter.step(format!("osconfig {}", intent.image));
    osconfig::apply(&mut tree, &intent.params, &facts)?;
    let mut systems = Systems::configure(one, tree, epoch)?;
    drop(step);
    let step = reporter.step(format!("seal {}", intent.image));
    let declared = osconfig::declared_paths(&intent.params);
    for tree in systems.iter_mut() {
        seal::seal(tree, epoch, &declared, &plan.metadata)?;
    }
    step.finish(format!("{} entries", systems.main.len()));

    let scratch = scratch(place.path()?, "pack-")?;
    publish(one, options, &systems, scratch.path(), tools.as_ref(), &caches.clusters)
}

/// One definition, as the systems that its outputs hold.
struct Systems {
    /// The installed one; the live one where no output wants an installed one.
    main: Tree,
    /// Beside an installed one.
    live: Option<Tree>,
}

impl Systems {
    fn configure(one: &Prepared<'_>, mut tree: Tree, epoch: Mtime) -> Result<Systems> {
        let installed = one.intent.outputs.iter().map(Format::of).any(|format| format.is_ok_and(Format::is_disk));
        let mut live = None;
        if one.live.is_some() {
            let mut system = if installed { tree.clone() } else { std::mem::take(&mut tree) };
            boot::live::configure(&mut system, epoch)?;
            live = Some(system);
        }
        if one.live.is_none() || installed {
            boot::configure(&mut tree, &one.intent.params, &one.layout, epoch)?;
            return Ok(Systems { main: tree, live });
        }
        live.map(|main| Systems { main, live: None }).ok_or_else(|| Error::build("there is no system to pack"))
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Tree> {
        std::iter::once(&mut self.main).chain(&mut self.live)
    }
}

/// The tree of all packages: the highest layer that is in the store, and those above it built on top.
fn root_file_system(
    one: &Prepared<'_>,
    options: &Options<'_>,
    Caches { store, clusters }: &Caches,
    arrived: &(dyn Fn(usize) -> Result<()> + Sync),
    place: &mut Workplace,
) -> Result<Tree> {
    let mut debs = one.debs.as_slice();
    let mut layers = Vec::new();
    for (locked, key) in one.lock.layers.iter().zip(one.layer_keys()) {
        let (own, rest) = debs.split_at(locked.packages.len());
        debs = rest;
        layers.push(rootfs::Layer { key, locked, debs: own });
    }
    let reporter = &options.environment.reporter;
    if let Some(top) = layers.last() {
        if let Some(tree) = store.load(top.key)? {
            reporter.note(format!("layer {}: unchanged, taken from the cache", top.locked.layer.name()));
            readahead::begin(&tree, &one.intent.outputs);
            return Ok(tree);
        }
    }
    if !one.wanted {
        // It was there a moment ago.
        one.fetch(&options.environment)?;
    }
    let scratch = place.path()?.to_owned();
    let mut workshop = rootfs::Workshop {
        store,
        sandbox: options.sandbox,
        folder: place.folder()?,
        scratch: &scratch,
        arrived,
        now: options.environment.now,
        plain: options.plain_scripts,
        clusters: Some(clusters),
        reporter,
    };
    rootfs::build(&layers, &mut workshop)
}

fn add_initramfs(
    one: &Prepared<'_>,
    options: &Options<'_>,
    caches: &Caches,
    place: &mut Workplace,
    tree: &mut Tree,
    facts: &Facts<'_>,
) -> Result<()> {
    let store = &caches.store;
    let key = one.settle(&options.environment)?.plan.digest_of(StepName::Initramfs);
    if let Some(overlay) = store.load(key)? {
        options.environment.reporter.note(format!("initramfs of {} is in the store", one.intent.image));
        return initramfs::install(tree, &overlay);
    }
    let writer = store.writer(key)?;
    let overlay = match store.load(key)? {
        Some(overlay) => overlay,
        None => {
            let mut inputs = tree.clone();
            osconfig::initramfs_inputs(&mut inputs, &one.intent.params, facts)?;
            let scratch = scratch(place.path()?, "ahead-")?;
            let folder = place.folder()?;
            folder.show(&inputs)?;
            let workshop = initramfs::Workshop {
                root: folder.path(),
                sandbox: options.sandbox,
                epoch: facts.epoch,
                plain: options.plain_scripts,
                reporter: &options.environment.reporter,
            };
            let overlay = ahead::beside(one, options, tree, &caches.clusters, scratch.path(), || {
                initramfs::build(&inputs, &workshop, &writer)
            })?;
            writer.save(&overlay)?
        }
    };
    initramfs::install(tree, &overlay)
}

/// Packs every output and publishes the set.
fn publish(
    one: &Prepared<'_>,
    options: &Options<'_>,
    systems: &Systems,
    scratch: &Path,
    tools: Option<&Tree>,
    clusters: &Clusters,
) -> Result<Built> {
    let tree = &systems.main;
    let (intent, reporter) = (one.intent, &options.environment.reporter);
    let settled = one.settle(&options.environment)?;
    let output = output_folder(intent, options);
    let staging = Staging::open(&output, &intent.image)?;
    let outputs: Vec<pack::Output> = intent
        .outputs
        .iter()
        .map(|output| Ok(pack::Output { format: Format::of(output)?, path: staging.path(&output.file_name) }))
        .collect::<Result<_>>()?;
    let request = pack::Request {
        tree,
        live_tree: systems.live.as_ref(),
        params: &intent.params,
        layout: &one.layout,
        places: &|pointer| intent.place(pointer),
        epoch: settled.plan.epoch,
        sandbox: options.sandbox,
        scratch,
        live: one.live.as_ref(),
        clusters: Some(clusters),
        digests: options.digests,
        reporter,
    };
    let packed = std::thread::scope(|scope| {
        let check = |tree: &Tree| check(&intent.params, tree, settled.plan.epoch, clusters, reporter);
        let checking = scope.spawn(move || check(tree).and_then(|()| systems.live.as_ref().map_or(Ok(()), check)));
        let packed = pack::pack(&request, &outputs);
        // What is wrong with the tree comes first: it may be why it could not be packed.
        checking.join().map_err(|_| Error::build("the checks stopped unexpectedly"))??;
        packed
    })?;

    let step = reporter.step(format!("evidence {}", intent.image));
    let mut set = FileSet::default();
    let mut records = Vec::new();
    for ((output, file), sums) in intent.outputs.iter().zip(&outputs).zip(packed.sums) {
        let checksums = Checksums::from(sums);
        add_checksums(&staging, &mut set, &output.file_name, &checksums)?;
        for name in file.beside() {
            // Nobody has to compare a seed, which is secret.
            if pack::netboot::is_public(&name) {
                let checksums = Checksums::of(&staging.path(&name), options.digests)?;
                add_checksums(&staging, &mut set, &name, &checksums)?;
            }
            set.images.push(name);
        }
        set.images.push(output.file_name.clone());
        let virtual_size = packed.disk_size.filter(|_| file.format.is_disk());
        let (file_name, format) = (output.file_name.clone(), file.format.name().to_owned());
        records.push(ImageRecord { file_name, format, virtual_size, checksums });
    }
    let name = &intent.image;
    let metadata_name =
        intent.output_metadata_file_name.clone().unwrap_or_else(|| format!("{name}.output-metadata.yaml"));
    let side_files = [
        (metadata_name, evidence::output_metadata(&output, &records)),
        (format!("{name}.lock.yaml"), settled.lock.to_yaml()),
        (format!("{name}.origins.yaml"), evidence::origins(&intent.origins())),
    ];
    for (name, text) in side_files {
        staging.write(&name, text.as_bytes())?;
        set.side_files.push(name);
    }
    if let Some(tools) = tools {
        verify_all(&outputs, options, tools, scratch)?;
    }
    let files = staging.publish(&set)?;
    step.finish(output.display().to_string());
    let (packages, entries) = (one.lock.packages().count(), tree.len());
    Ok(Built { image: intent.image.clone(), files, records, packages, entries })
}

/// The checksums of a file beside it.
fn add_checksums(staging: &Staging, set: &mut FileSet, file: &str, checksums: &Checksums) -> Result<()> {
    for (extension, digest) in [("sha256", &checksums.sha256), ("md5sum", &checksums.md5)] {
        let Some(digest) = digest else { continue };
        let name = format!("{file}.{extension}");
        staging.write(&name, format!("{digest}\n").as_bytes())?;
        set.side_files.push(name);
    }
    Ok(())
}

/// Nothing is published that a check finds fault with. Runs beside the packing.
fn check(params: &Params, tree: &Tree, epoch: i64, known: &Clusters, reporter: &Reporter) -> Result<()> {
    let step = reporter.step("checks");
    let epoch = Mtime { seconds: epoch, nanoseconds: 0 };
    let findings = hygiene::run(tree, &hygiene::Declared { params, epoch, known: Some(known) })?;
    for finding in hygiene::enforce(findings)? {
        reporter.warning(format!("{} (check `{}`)", finding.message, finding.rule));
    }
    drop(step);
    Ok(())
}

/// Nothing is published that independent programs find fault with.
fn verify_all(outputs: &[pack::Output], options: &Options<'_>, tools: &Tree, scratch: &Path) -> Result<()> {
    let tools = Tools::unpack(tools, &scratch.join("readers"), options.sandbox)?;
    for output in outputs.iter().filter(|output| output.format != Format::Netboot) {
        let scratch = self::scratch(scratch, "verify-")?;
        let reporter = &options.environment.reporter;
        let request = verify::Request { image: &output.path, tools: Some(&tools), scratch: scratch.path(), reporter };
        verify::enforce(&output.path, &verify::image(&request)?)?;
    }
    Ok(())
}

pub(super) fn output_folder(intent: &Intent, options: &Options<'_>) -> PathBuf {
    let of_documents = || intent.output_folder.clone();
    options.output_folder.clone().or_else(of_documents).unwrap_or_else(|| PathBuf::from("out"))
}
