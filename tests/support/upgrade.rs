//! A kernel upgrade inside a running node: an image with the oldest kernel the archive has, the newest one installed
//! by the node's own apt, a reboot into it.
//!
//! Owns: [`Upgrade`], which builds the image with the program itself and serves the newest kernel on loopback, where
//! QEMU's user networking finds it (10.0.2.2). Used by `boot.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use imagebuilder::package::Environment;
use imagebuilder::package::deb822::stanzas;
use imagebuilder::package::fetch::fetch_all;
use imagebuilder::package::fetch::index::update;
use imagebuilder::package::http::{Client, Patience, Proxies};
use imagebuilder::package::index::{Index, Universe};
use imagebuilder::package::lock;
use imagebuilder::plan::{self, Intent};
use imagebuilder::report::Reporter;
use libtest_mimic::Failed;

use super::mirror::Mirror;

/// Always the newest kernel: it depends on the package of that kernel.
const KERNEL: &str = "linux-image-amd64";

pub struct Upgrade {
    pub image: PathBuf,
    pub intent: Intent,
    pub old: String,
    pub new: String,
    mirror: Mirror,
}

impl Upgrade {
    /// `folder` takes the documents and the image; `cache` the downloads and layers.
    pub fn prepare(folder: &Path, cache: &Path) -> Result<Self, Failed> {
        _ = std::fs::remove_dir_all(folder);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for part in ["functions", "manifests"] {
            copy(&root.join(part), &folder.join(part))?;
        }
        let entry_point = folder.join("manifests/site/example/target/control-plane/image");
        let newest = plan::load_entry_point(&entry_point)?;
        let environment = environment(cache)?;
        let old_version = oldest(&newest, &environment)?;
        pin(&entry_point.join("../node-profile"), &old_version)?;
        let intent = plan::load_entry_point(&entry_point)?;
        let (mirror, new) = serve(&newest, &environment)?;
        let old = kernel(&lock::resolve(&intent.package_request(), &environment)?)?.0;
        if old == new {
            return Err(format!("the archive has one kernel only, {new}").into());
        }
        let output = folder.join("out");
        let program = std::env::var_os("IMAGEBUILDER_PROGRAM").unwrap_or(env!("CARGO_BIN_EXE_imagebuilder").into());
        let status = Command::new(program)
            .args(["--progress", "plain", "build"])
            .arg(&entry_point)
            .arg("--cache-dir")
            .arg(cache)
            .arg("--output-dir")
            .arg(&output)
            .status()?;
        if !status.success() {
            return Err("the image was not built".into());
        }
        Ok(Upgrade { image: output.join("control-plane.qcow2"), intent, old, new, mirror })
    }

    /// What makes the node's apt know the new kernel, and nothing else.
    pub fn commands(&self) -> [String; 3] {
        let only = "-o Dir::Etc::sourcelist=/etc/apt/sources.list.d/upgrade.list -o Dir::Etc::sourceparts=-";
        [
            format!(
                "echo 'deb [trusted=yes] http://10.0.2.2:{}/archive ./' > /etc/apt/sources.list.d/upgrade.list",
                self.mirror.port
            ),
            format!("apt-get {only} update"),
            format!("DEBIAN_FRONTEND=noninteractive apt-get {only} install -y {KERNEL}"),
        ]
    }
}

fn environment(cache: &Path) -> Result<Environment, Failed> {
    let http = Client::new(Proxies::from_variables(std::env::vars()), Patience::default())?;
    let now = jiff::Timestamp::now().as_second();
    Ok(Environment { cache: cache.into(), now, reporter: Reporter::plain(), http })
}

/// The oldest version of the kernel package in all repositories of the image.
fn oldest(intent: &Intent, environment: &Environment) -> Result<String, Failed> {
    let request = intent.package_request();
    let mut updated = Vec::new();
    for (name, repository) in &request.repositories {
        updated.push(update(name, repository, &request.architecture, environment)?);
    }
    let indexes: Vec<Index<'_>> = updated
        .iter()
        .flat_map(|one| one.texts.iter().map(|text| Index { repository: "archive", pin: one.pin, text }))
        .collect();
    let universe = Universe::read(&request.architecture, &indexes)?;
    let versions = universe.find(KERNEL).map(|id| &universe.name(id).versions);
    let oldest = versions.and_then(|versions| versions.last()).ok_or_else(|| format!("there is no {KERNEL}"))?;
    Ok(universe.version(*oldest).version.to_owned())
}

/// A patch that asks for one version, as an operator would write it.
fn pin(node_profile: &Path, version: &str) -> Result<(), Failed> {
    let patch = format!(
        "apiVersion: airshipit.org/v1alpha1\nkind: NodeProfile\nmetadata: {{name: control-plane}}\nspec:\n  \
         software: {{packages: {{{KERNEL}: {{version: '{version}'}}}}}}\n"
    );
    std::fs::write(node_profile.join("older-kernel.yaml"), patch)?;
    let path = node_profile.join("kustomization.yaml");
    let text = std::fs::read_to_string(&path)?;
    let with = text.replacen("patches:\n", "patches:\n  - path: older-kernel.yaml\n", 1);
    if with == text {
        return Err("the site's kustomization has no patches to add one to".into());
    }
    Ok(std::fs::write(&path, with)?)
}

/// The version of the kernel (`uname -r`) and its package in a lock.
fn kernel(lock: &lock::Lock) -> Result<(String, &lock::LockedPackage), Failed> {
    let of = |package: &lock::LockedPackage| {
        let version = package.name.strip_prefix("linux-image-")?;
        version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
    };
    let found = lock.packages().find_map(|package| Some((of(package)?, package)));
    found.ok_or_else(|| "no kernel is in the lock".into())
}

/// The newest kernel's packages as a repository of their own.
fn serve(newest: &Intent, environment: &Environment) -> Result<(Mirror, String), Failed> {
    let lock = lock::resolve(&newest.package_request(), environment)?;
    let (version, package) = kernel(&lock)?;
    let meta = lock.packages().find(|package| package.name == KERNEL).ok_or("the lock has no kernel")?;
    let packages = [package.clone(), meta.clone()];
    let debs = fetch_all(&packages, &lock.evidence.repositories, environment)?;
    let mut files = BTreeMap::new();
    let mut index = String::new();
    for (package, deb) in packages.iter().zip(&debs) {
        let name = format!("{}.deb", package.name);
        index.push_str(&control(deb)?);
        index.push_str(&format!("Filename: ./{name}\nSize: {}\nSHA256: {}\n\n", package.size, package.sha256));
        files.insert(name, std::fs::read(deb)?);
    }
    files.insert("Packages".into(), index.into_bytes());
    // apt asks for the folder as it stands in the source line.
    let dotted: Vec<_> = files.iter().map(|(name, bytes)| (format!("./{name}"), bytes.clone())).collect();
    files.extend(dotted);
    Ok((Mirror::start(files), version))
}

/// The control stanza of a package file.
fn control(deb: &Path) -> Result<String, Failed> {
    let binary = imagebuilder::package::binary::Binary::open(deb)?;
    let text = String::from_utf8(binary.files["control"].bytes.clone())?;
    let stanza = stanzas(&text).next().ok_or("an empty control file")?;
    Ok(format!("{}\n", stanza.text().trim_end()))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
