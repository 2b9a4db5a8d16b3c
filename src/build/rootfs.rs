//! Packages to a root file system, layer by layer.
//!
//! Owns: [`build`]. Each layer is installed on top of the one below and kept in the store under the digest of what
//! went into it. Packages are decompressed side by side ([`Crew`]), those of the next layer while scripts of this one
//! run, and put in place in a fixed order, so the result does not depend
//! on the number of cores. Times of what scripts write are put right here; what else changes from run to run (logs, seeds,
//! caches) is the seal step's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

use rayon::prelude::*;

use super::clock;
use super::crew::{Crew, Work};
use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::package::binary::Binary;
use crate::package::database::Database;
use crate::package::deb822::stanzas;
use crate::package::dpkg::Scripts;
use crate::package::lock::{LockedLayer, LockedPackage, build_time};
use crate::package::root::Root;
use crate::package::stage::Stage;
use crate::package::unpack::{Conffiles, Unpacker};
use crate::package::waves;
use crate::report::{Reporter, Step, Unit};
use crate::sandbox::{Sandbox, workarea::is_in_memory};
use crate::tree::clusters::Clusters;
use crate::tree::host::Folder;
use crate::tree::store::{Store, Unsaved};
use crate::tree::{Digest, Mtime, Origin, Tree, TreePath};

/// Origin of what no package ships: maintainer scripts made it.
pub const SCRIPT_ORIGIN: &str = "script";

/// How many bytes of files wait in memory to be unpacked, where the target lies on a disk.
const STAGE_MEMORY: u64 = 160 << 20;

/// One layer: its packages, and their files in the same order.
pub struct Layer<'a> {
    /// The identity of the result (`plan::LockedPlan`).
    pub key: Digest,
    pub locked: &'a LockedLayer,
    pub debs: &'a [PathBuf],
}

/// Where and with what layers are made.
pub struct Workshop<'a> {
    pub store: &'a Store,
    pub sandbox: &'a dyn Sandbox,
    /// Where the root file system lies while scripts run in it. Afterwards it holds the Tree that was built, or what
    /// was there before if everything came from the store.
    pub folder: &'a mut Folder,
    /// A folder of the host for small files.
    pub scratch: &'a Path,
    /// Waits until the packages of a layer, by position, are there.
    pub arrived: &'a (dyn Fn(usize) -> Result<()> + Sync),
    /// The clock of the run.
    pub now: i64,
    /// Leave all the work to the distribution's scripts. The result is the same.
    pub plain: bool,
    /// What earlier builds have left, beside layers.
    pub clusters: Option<&'a Clusters>,
    pub reporter: &'a Reporter,
}

/// Builds all layers, bottom to top, and gives the topmost.
pub fn build(layers: &[Layer<'_>], workshop: &mut Workshop<'_>) -> Result<Tree> {
    layers.iter().try_for_each(check_order)?;
    let (tree, known) = highest(layers, workshop)?;
    if known == layers.len() {
        return Ok(tree);
    }
    // Files in memory first and then once more in a target that is in memory would be there twice.
    let memory = if is_in_memory(workshop.folder.path())? { 0 } else { STAGE_MEMORY };
    let stage = Stage::new(&workshop.folder.path().with_extension("stage"), memory)?;
    std::thread::scope(|scope| build_above(tree, known, layers, workshop, &stage, scope))
}

/// All layers but the lowest `known`, which `tree` holds.
fn build_above<'scope, 'a: 'scope, 'w: 'a>(
    mut tree: Tree,
    known: usize,
    layers: &'a [Layer<'a>],
    workshop: &mut Workshop<'w>,
    stage: &'a Stage,
    scope: &'scope Scope<'scope, 'a>,
) -> Result<Tree> {
    let mut epoch = 0;
    let mut ready: Option<ScopedJoinHandle<'scope, Result<Option<Crew<'scope, 'a>>>>> = None;
    let mut saving: Option<ScopedJoinHandle<'scope, Result<()>>> = None;
    let supplies = Supplies { store: workshop.store, stage, arrived: workshop.arrived, reporter: workshop.reporter };
    for (index, layer) in layers.iter().enumerate() {
        (workshop.arrived)(index)?;
        for deb in layer.debs {
            epoch = epoch.max(build_time(deb).with_context(|| format!("reading {}", deb.display()))?);
        }
        clock::check(workshop.now, [epoch])?;
        if index < known {
            continue;
        }
        let context = || format!("building layer {}", layer.locked.layer.name());
        let crew = match ready.take() {
            Some(ready) => joined(ready),
            None => crew_for(index, layer, supplies, scope, false),
        };
        let crew = crew.with_context(context)?;
        let Some(crew) = crew else {
            // Another process has made it while we waited.
            let made = workshop.store.load(layer.key)?;
            tree = made.ok_or_else(|| Error::build("it is gone from the cache")).with_context(context)?;
            continue;
        };
        // While scripts of this layer run, the next one's packages are decompressed.
        if let Some(next) = layers.get(index + 1) {
            ready = Some(scope.spawn(move || crew_for(index + 1, next, supplies, scope, true)));
        }
        let made = make(layer, crew, &tree, epoch, workshop).with_context(context)?;
        tree = made.tree().clone();
        // The next layer does not wait for the disk; what it stands on is saved before it.
        let below = saving.take();
        saving = Some(scope.spawn(move || {
            below.map_or(Ok(()), joined)?;
            made.save().map(drop)
        }));
    }
    saving.map_or(Ok(()), joined)?;
    Ok(tree)
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| Error::build("a thread that makes layers has failed"))?
}

/// The highest layer that is in the store, and how many layers it holds.
fn highest(layers: &[Layer<'_>], workshop: &Workshop<'_>) -> Result<(Tree, usize)> {
    for (index, layer) in layers.iter().enumerate().rev() {
        if let Some(tree) = workshop.store.load(layer.key)? {
            workshop.reporter.note(format!("layer {}: unchanged, taken from the cache", layer.locked.layer.name()));
            return Ok((tree, index + 1));
        }
    }
    Ok((Tree::new(), 0))
}

/// What preparing packages needs.
#[derive(Clone, Copy)]
struct Supplies<'a> {
    store: &'a Store,
    stage: &'a Stage,
    arrived: &'a (dyn Fn(usize) -> Result<()> + Sync),
    reporter: &'a Reporter,
}

/// Starts to prepare a layer's packages once they are there; nothing if another process has made the layer by now.
fn crew_for<'scope, 'a: 'scope>(
    index: usize,
    layer: &Layer<'_>,
    supplies: Supplies<'a>,
    scope: &'scope Scope<'scope, 'a>,
    ahead: bool,
) -> Result<Option<Crew<'scope, 'a>>> {
    (supplies.arrived)(index)?;
    let pack = Arc::new(supplies.store.writer(layer.key)?);
    if supplies.store.load(layer.key)?.is_some() {
        return Ok(None);
    }
    let packages = Arc::new(open_packages(layer, supplies.store)?);
    // Ahead of its layer there is time for what takes longest, a kernel with its modules above all.
    let order = if ahead { waves::largest(&packages) } else { waves::likely(&packages) };
    let title = format!("decompress {}", layer.locked.layer.name());
    let work = Work { packages, order, stage: supplies.stage, pack };
    Ok(Some(Crew::start(scope, work, ahead, title, supplies.reporter)))
}

fn check_order(layer: &Layer<'_>) -> Result<()> {
    if layer.debs.len() == layer.locked.packages.len() {
        return Ok(());
    }
    Err(Error::build(format!("{} package files for {} packages", layer.debs.len(), layer.locked.packages.len())))
}

fn make(
    layer: &Layer<'_>,
    crew: Crew<'_, '_>,
    below: &Tree,
    epoch: i64,
    workshop: &mut Workshop<'_>,
) -> Result<Unsaved> {
    let name = layer.locked.layer.name();
    if layer.locked.packages.is_empty() && adds_no_marks(below, layer.locked)? {
        return crew.finish()?.finish(below);
    }
    workshop.folder.show(below).context("preparing the layer below")?;
    let root = Root::open(workshop.folder.path())?;
    if below.len() == 1 {
        merged_usr(&root)?;
    }
    let mut database = Database::load(&root)?;
    let new = only_new(crew.packages(), &database)?;
    let scripts = Scripts::new(workshop.sandbox, epoch, workshop.scratch, workshop.plain, workshop.clusters)?;
    let waves = waves::plan(crew.packages(), &new, &database)?;
    crew.reorder(waves.iter().flatten().copied());
    for (number, wave) in waves.iter().enumerate() {
        let which = if waves.len() == 1 { String::new() } else { format!(", wave {}", number + 1) };
        let title = format!("unpack {name}{which}");
        let unpacking = workshop.reporter.step_of(title, wave.len() as u64, Unit::Items);
        let first = below.len() == 1 && number == 0;
        unpack(&crew, wave, first, &root, &mut database, &scripts, &unpacking, workshop.folder)?;
        unpacking.finish(format!("{} packages", wave.len()));
        let title = format!("configure {name}{which}");
        let configuring = workshop.reporter.step_of(title, wave.len() as u64, Unit::Items);
        scripts.configure(&root, &configuring)?;
        configuring.finish(format!("{} packages", wave.len()));
        database = Database::load(&root)?;
    }
    extended_states(&root, layer.locked)?;
    finished(&database, &scripts, &root)?;
    let step = workshop.reporter.step(format!("store {name}"));
    let pack = crew.finish()?;
    pack.known(below);
    let origins = Origins::new(&database);
    let tree = workshop.folder.scan(&pack, &|path| origins.of(path))?;
    let mut tree = attribute(tree, &origins)?;
    settle_times(&mut tree, epoch);
    let made = pack.finish(&tree)?;
    step.finish(format!("{} files", tree.len()));
    Ok(made)
}

/// Opens all package files side by side and compares them with the lock.
fn open_packages(layer: &Layer<'_>, store: &Store) -> Result<Vec<Binary>> {
    let pairs: Vec<(&LockedPackage, &PathBuf)> = layer.locked.packages.iter().zip(layer.debs).collect();
    pairs
        .par_iter()
        .map(|(locked, deb)| {
            interrupt::check()?;
            let binary = Binary::open_known(deb, locked.sha256, store)?;
            let as_locked = binary.name == locked.name
                && binary.version == locked.version
                && binary.architecture == locked.architecture;
            if as_locked {
                return Ok(binary);
            }
            Err(Error::new(
                crate::error::Kind::Authenticity,
                format!(
                    "{} holds {} {} ({}), the lock says {} {} ({})",
                    deb.display(),
                    binary.name,
                    binary.version,
                    binary.architecture,
                    locked.name,
                    locked.version,
                    locked.architecture
                ),
            ))
        })
        .collect()
}

/// What a lower layer has stays; another version of it is an error. The positions of what is left.
fn only_new(packages: &[Binary], database: &Database) -> Result<Vec<usize>> {
    let mut new = Vec::new();
    for (at, binary) in packages.iter().enumerate() {
        match database.find(&binary.name) {
            None => new.push(at),
            Some(known) if known.version == binary.version && known.architecture == binary.architecture => {}
            Some(known) => {
                return Err(Error::build(format!(
                    "package `{}` is in a lower layer in version {}, and here in version {}",
                    binary.name, known.version, binary.version
                )));
            }
        }
    }
    Ok(new)
}

/// The links of a merged `/usr`, which every supported release has, made before anything is unpacked. Releases whose
/// base-files ships them find them there. No link is made for 32-bit libraries, whose packages are not supported.
fn merged_usr(root: &Root) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let real = TreePath::new(format!("usr/{name}")).ok_or_else(|| Error::build("not a path"))?;
        root.make_folders(&real)?;
        let link = TreePath::literal(name);
        rustix::fs::symlinkat(real.as_bytes(), root.parent(&link)?, name).with_context(|| format!("making {link}"))?;
    }
    Ok(())
}

/// Unpacks one wave. In the very first one, scripts can run only when everything is there.
#[allow(clippy::too_many_arguments)]
fn unpack(
    crew: &Crew<'_, '_>,
    wave: &[usize],
    first: bool,
    root: &Root,
    database: &mut Database,
    scripts: &Scripts<'_>,
    step: &Step,
    folder: &mut Folder,
) -> Result<()> {
    let binaries: Vec<&Binary> = wave.iter().map(|at| &crew.packages()[*at]).collect();
    // The dpkg that is there, or the one that comes with this wave.
    let known = database.find("dpkg").map(|known| known.version.clone());
    let coming = || binaries.iter().find(|binary| binary.name == "dpkg").map(|binary| binary.version.clone());
    let dpkg = known.or_else(coming).unwrap_or_default();
    if !first {
        for binary in &binaries {
            scripts.preinst(root, binary, &dpkg)?;
        }
        // Scripts may have made diversions, overrides and users.
        *database = Database::load(root)?;
        root.forget();
    }
    let conffiles = if first { Conffiles::InPlace } else { Conffiles::Beside };
    let mut unpacker = Unpacker::new(root, database, conffiles)?;
    for (at, binary) in wave.iter().zip(&binaries) {
        let staged = crew.take(*at)?;
        step.bytes(staged.size);
        unpacker.unpack(binary, staged)?;
        step.advance(1);
    }
    for (stat, content) in std::mem::take(&mut unpacker.files) {
        folder.record_file(&stat, content);
    }
    for (path, entry) in std::mem::take(&mut unpacker.devices) {
        folder.record_device(path, entry);
    }
    database.save(root)?;
    if first {
        for binary in &binaries {
            scripts.preinst(root, binary, &dpkg)?;
        }
    }
    Ok(())
}

/// apt's list of packages that came in as dependencies only.
const MARKS: &str = "var/lib/apt/extended_states";

/// Whether a layer without packages is what is below it.
fn adds_no_marks(below: &Tree, layer: &LockedLayer) -> Result<bool> {
    let text = String::from_utf8(below.read_file(&TreePath::literal(MARKS))?.unwrap_or_default()).unwrap_or_default();
    Ok(with_marks(&text, layer) == text)
}

fn extended_states(root: &Root, layer: &LockedLayer) -> Result<()> {
    if root.folder(&TreePath::literal("var/lib/apt"))?.is_none() {
        return Ok(());
    }
    let path = TreePath::literal(MARKS);
    let below = root.read_text(&path)?;
    let text = with_marks(&below, layer);
    if text == below { Ok(()) } else { root.write(&path, text.as_bytes(), 0o644) }
}

/// Which packages came in as dependencies only (apt's `extended_states`); apt writes the architecture of the image
/// for packages of architecture `all` too.
fn with_marks(below: &str, layer: &LockedLayer) -> String {
    let native = layer.packages.iter().map(|package| package.architecture.as_str()).find(|name| *name != "all");
    let native = native.unwrap_or("all");
    let mut text = String::new();
    for stanza in stanzas(below) {
        if stanza.get("Package").is_none_or(|name| !layer.manual.iter().any(|manual| manual == name)) {
            text.push_str(&format!("{}\n\n", stanza.text().trim_end()));
        }
    }
    for package in layer.packages.iter().filter(|package| package.automatic) {
        text.push_str(&format!("Package: {}\nArchitecture: {native}\nAuto-Installed: 1\n\n", package.name));
    }
    text
}

fn finished(database: &Database, scripts: &Scripts<'_>, root: &Root) -> Result<()> {
    let left: Vec<&str> =
        database.packages().filter(|known| !known.installed).map(|known| known.name.as_str()).collect();
    if !left.is_empty() {
        return Err(Error::build(format!("dpkg left packages unconfigured: {}", left.join(", "))));
    }
    scripts.audit(root)
}

/// What scripts write is as old as the packages of the layer: no file of a package is newer than `epoch`, and the clock
/// was not before it ([`super::clock::check`]). So the times of a layer are those of any other run, and stay when a
/// layer above gets newer packages.
fn settle_times(tree: &mut Tree, epoch: i64) {
    let epoch = Mtime { seconds: epoch, nanoseconds: 0 };
    for (_, entry) in tree.iter_mut().filter(|(_, entry)| entry.meta.mtime > epoch) {
        entry.meta.mtime = epoch;
    }
}

/// Tells for every path where it comes from.
struct Origins {
    packages: HashMap<TreePath, Origin>,
    script: Origin,
}

impl Origins {
    fn new(database: &Database) -> Self {
        let mut names: HashMap<String, Origin> = HashMap::new();
        let packages = database.origins().into_iter().map(|(path, name)| {
            let origin = names.entry(name).or_insert_with_key(|name| Arc::from(format!("package {name}"))).clone();
            (path, origin)
        });
        Origins { packages: packages.collect(), script: Arc::from(SCRIPT_ORIGIN) }
    }

    fn of(&self, path: &TreePath) -> Origin {
        self.packages.get(path).unwrap_or(&self.script).clone()
    }
}

/// Paths that packages list through a link (`/lib/x` on a merged `/usr`) lie elsewhere in the Tree.
fn attribute(mut tree: Tree, origins: &Origins) -> Result<Tree> {
    let mut moved: Vec<(TreePath, Origin)> = Vec::new();
    for (path, origin) in &origins.packages {
        if !tree.contains(path) {
            moved.push((tree.resolve_parent(path)?, origin.clone()));
        }
    }
    // Two packages with one path: the same one wins on every run.
    moved.sort();
    for (path, origin) in moved {
        if let Some(entry) = tree.get_mut(&path).filter(|entry| *entry.origin == *SCRIPT_ORIGIN) {
            entry.origin = origin;
        }
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::params::software::Layer as Level;

    #[test]
    fn what_an_upper_layer_asks_for_is_no_longer_automatic() {
        let package = |name: &str| LockedPackage {
            name: name.into(),
            version: "1".into(),
            architecture: "amd64".into(),
            size: 1,
            sha256: Digest::of(b""),
            automatic: true,
            repository: "r".into(),
            path: "p".into(),
        };
        let base = LockedLayer { layer: Level::Base, packages: vec![package("a"), package("b")], manual: Vec::new() };
        let below = with_marks("", &base);
        assert_eq!(below.matches("Auto-Installed: 1").count(), 2);
        assert_eq!(with_marks(&below, &LockedLayer { packages: Vec::new(), ..base.clone() }), below);
        let role = LockedLayer { layer: Level::Role, packages: vec![package("c")], manual: vec!["a".into()] };
        let stanza = |name| format!("Package: {name}\nArchitecture: amd64\nAuto-Installed: 1\n\n");
        assert_eq!(with_marks(&below, &role), stanza("b") + &stanza("c"));
    }
}
