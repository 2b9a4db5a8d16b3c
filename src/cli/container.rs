//! `container`: one run as the upstream image-builder's container, for callers that know only that.
//!
//! Owns: from an order (`compat::container`) to an Intent, and the files that the contracts want on the volume beyond those
//! of every build: `output-metadata.yaml` with the caller's name of the folder (v1), and the profiles. Nothing is printed on
//! standard output: airshipctl reads documents there. Every failure is exit code 1, as upstream's.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::Globals;
use super::build::{self, Choices};
use crate::api::release::RELEASES;
use crate::compat::container::{Contract, Environment, ImageType, Order, Surroundings};
use crate::error::{Context, Result};
use crate::plan::{self, Intent};

/// Where the builder's image has functions, and perhaps variables that all images share.
const SHARED: [&str; 2] = ["/usr/share/imagebuilder/config", "/usr/share/imagebuilder"];
/// What upstream leaves beside the image.
const PROFILES: [&str; 2] = ["profile_multistrap.json", "profile_entrypoint.json"];

/// Build one image as the upstream image-builder's container would: settings from environment, volume and standard input
///
/// This is what the builder's container image runs when it gets no command. Contract v1 (airshipctl): `BUILDER_CONFIG`
/// names a YAML file on the volume; `IMAGE_TYPE`, `USER_DATA_FILE`, `NET_CONFIG_FILE`, `OSCONFIG_FILE`, `QCOW_CONFIG_FILE`
/// and `OUTPUT_METADATA_FILE_NAME` override it; the image and `output-metadata.yaml` are left on the volume. Contract v2
/// (`VERSION=v2`): the settings come on standard input, the image and `<image>.md5sum` go to the last volume mounted at the
/// top of the file tree. No privileges, devices or kernel modules are needed. Every failure is exit code 1.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  docker run --rm -i -e VERSION=v2 -e IMAGE_TYPE=qcow --volume $PWD:/config imagebuilder < order.yaml
  docker run --rm -e IMAGE_TYPE=qcow -e BUILDER_CONFIG=/config/qcow.yaml --volume $PWD:/config imagebuilder
  VERSION=v2 IMAGE_TYPE=qcow imagebuilder container --volume out < order.yaml      the same without a container")]
pub struct Args {
    /// Folder with `rootfs/*-vars.yaml` for all images [default: those of the builder's container image]
    #[arg(long, value_name = "WORKDIR", env = "IMAGEBUILDER_CONFIG")]
    pub config: Option<PathBuf>,
    /// The release to build
    #[arg(long, value_name = "NAME", env = "IMAGEBUILDER_DISTRO", default_value = RELEASES[0].distro)]
    pub distro: String,
    /// The folder that counts as the caller's volume [default: as the contract says]
    #[arg(long, value_name = "DIR")]
    pub volume: Option<PathBuf>,
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    let environment: Environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let cache = globals.cache_dir()?;
    let own = [globals.work_dir(&cache), cache];
    let order = Order::read(&mut Surroundings {
        environment: &environment,
        stdin: &mut std::io::stdin().lock(),
        mountinfo: &mountinfo,
        volume: args.volume.as_deref(),
        own_folders: &own,
    })?;
    let mut intent = intent(args, &order)?;
    intent.output_folder = Some(order.volume.clone());
    if order.contract == Contract::V1 {
        intent.output_metadata_file_name = Some(order.output_metadata_file_name.clone());
    }
    let outcome = build::images(std::slice::from_ref(&intent), &Choices::default(), globals)?;
    build::failures(outcome.failed, &outcome.built, globals)?;
    let mut files: Vec<PathBuf> = outcome.built.iter().flat_map(|built| built.files.clone()).collect();
    files.extend(leave_contract_files(&order, &intent)?);
    give_to_owner(&order.volume, &files)
}

fn intent(args: &Args, order: &Order) -> Result<Intent> {
    if let Some(documents) = &order.documents {
        return plan::from_documents(documents, None).context("reading the ResourceList");
    }
    let shared = SHARED.iter().map(PathBuf::from).find(|folder| folder.is_dir());
    let config = args.config.clone().or(shared).unwrap_or_else(|| PathBuf::from("."));
    match order.image_type {
        ImageType::Iso => {
            let seed = [&order.user_data, &order.network_config].map(|part| part.clone().unwrap_or_default());
            plan::load_iso_texts(&config, &args.distro, &order.texts, &order.output_file_name, seed)
        }
        ImageType::Qcow => {
            plan::load_texts(&config, order.image_name(), &args.distro, &order.texts, &order.output_file_name)
        }
    }
}

/// Each is written beside its place and renamed.
fn leave_contract_files(order: &Order, intent: &Intent) -> Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    let mut leave = |name: &str, text: &str| -> Result<()> {
        let (place, new) = (order.volume.join(name), order.volume.join(format!(".{name}.new")));
        let context = || format!("writing {}", place.display());
        std::fs::write(&new, text).with_context(context)?;
        std::fs::rename(&new, &place).with_context(context)?;
        left.push(place.clone());
        Ok(())
    };
    if order.contract == Contract::V1 && order.host_folder != order.volume {
        let name = &order.output_metadata_file_name;
        let written = order.volume.join(name);
        let text = std::fs::read_to_string(&written).with_context(|| format!("reading {}", written.display()))?;
        let path = order.host_folder.join(&order.output_file_name);
        let line = format!("bootImagePath: {}", serde_json::Value::from(path.to_string_lossy()));
        let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        leave(name, &format!("{line}\n{rest}"))?;
    }
    for name in PROFILES {
        let own = order.image_type == ImageType::Qcow && name == PROFILES[1];
        let context = if own { "qcow" } else { "common" };
        let profile = json!({
            "image_builder_image": order.builder_image,
            "img_name": order.output_file_name,
            "img_output_dir": order.volume,
            "run_context": context,
            "airship_image": intent.effective(),
        });
        leave(name, &format!("{profile:#}\n"))?;
    }
    Ok(left)
}

/// What root has made in somebody's folder belongs to that somebody.
fn give_to_owner(volume: &Path, files: &[PathBuf]) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let meta = volume.metadata().with_context(|| format!("looking at {}", volume.display()))?;
    if !rustix::process::geteuid().is_root() || meta.uid() == 0 {
        return Ok(());
    }
    for file in files {
        std::os::unix::fs::lchown(file, Some(meta.uid()), Some(meta.gid()))
            .with_context(|| format!("giving {} to the owner of the volume", file.display()))?;
    }
    Ok(())
}
