//! Which documents a verb works on, and from which lock: the arguments that `build`, `lock` and `phase run` share.
//!
//! Owns: [`Documents`] and [`LockArgs`].

use std::path::PathBuf;

use crate::api::release::RELEASES;
use crate::build::Locking;
use crate::compat;
use crate::error::{Error, Kind, Result};
use crate::plan::{self, Intent};

#[derive(Debug, clap::Args)]
pub struct Documents {
    /// An entry point: a kustomization folder that renders an AirshipImage; can be repeated
    #[arg(required_unless_present = "config", value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// A folder with upstream's variable files (`rootfs/`, `qcow-bundle/<name>/`), instead of DIR
    #[arg(long, value_name = "WORKDIR", conflicts_with = "dirs")]
    pub config: Option<PathBuf>,
    /// With `--config`: build the bundles (`qcow`) or the ISO of the ephemeral node, WORKDIR/iso (`iso`)
    #[arg(long, value_name = "TYPE", requires = "config", default_value = "qcow")]
    pub image_type: BundleType,
    /// With `--config`: only this bundle; can be repeated [default: all]
    #[arg(long, value_name = "NAME", requires = "config")]
    pub bundle: Vec<String>,
    /// With `--config`: the release to build
    #[arg(long, value_name = "NAME", requires = "config", default_value = RELEASES[0].distro)]
    pub distro: String,
}

/// What of a workdir is built, in the words of upstream's `IMAGE_TYPE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BundleType {
    Qcow,
    Iso,
}

/// The cloud-init data of an ISO.
#[derive(Debug, Default, clap::Args)]
pub struct SeedArgs {
    /// User data for the ISO, whatever the documents say
    #[arg(long, value_name = "FILE")]
    pub user_data: Option<PathBuf>,
    /// Network data for the ISO (OpenStack's `network_data.json`, as JSON or YAML), whatever the documents say
    #[arg(long, value_name = "FILE")]
    pub network_data: Option<PathBuf>,
}

impl SeedArgs {
    /// The files that were named.
    pub fn files(&self) -> Vec<PathBuf> {
        self.user_data.iter().chain(&self.network_data).cloned().collect()
    }

    /// Hands them to the image that has a seed.
    pub fn give(&self, intents: &mut [Intent]) -> Result<()> {
        if self.user_data.is_none() && self.network_data.is_none() {
            return Ok(());
        }
        let mut seeds = intents.iter_mut().filter_map(|intent| intent.seed.as_mut()).peekable();
        if seeds.peek().is_none() {
            return Err(Error::new(
                Kind::Usage,
                "`--user-data` and `--network-data` are for ISO images; none is built",
            )
            .hint("ask for one: `spec.image.type: iso`, or `--image-type iso` with `--config`"));
        }
        seeds.for_each(|seed| seed.give(self.user_data.as_deref(), self.network_data.as_deref()));
        Ok(())
    }
}

impl Documents {
    /// What they ask for, one Intent an image. One after another: a build has not entered its namespaces yet, and cannot
    /// with threads.
    pub fn load(&self) -> Result<Vec<Intent>> {
        match &self.config {
            Some(workdir) if self.image_type == BundleType::Iso => {
                if let Some(bundle) = self.bundle.first() {
                    let message = format!("`--bundle {bundle}` and `--image-type iso` exclude each other");
                    return Err(Error::new(Kind::Usage, message).hint("a bundle is a folder of `qcow-bundle`"));
                }
                Ok(vec![plan::load_iso(workdir, &self.distro)?])
            }
            Some(workdir) => {
                let bundles = if self.bundle.is_empty() { compat::bundles(workdir)? } else { self.bundle.clone() };
                bundles.iter().map(|bundle| plan::load_bundle(workdir, bundle, &self.distro)).collect()
            }
            // clap asks for one of the two.
            None if self.dirs.is_empty() => Err(Error::new(Kind::Usage, "no documents given")),
            None => self.dirs.iter().map(|dir| plan::load_entry_point(dir)).collect(),
        }
    }
}

/// Which packages a build takes. Without either flag: the lock beside the documents if it is there, else the newest.
#[derive(Debug, Default, clap::Args)]
pub struct LockArgs {
    /// Insist on the lock beside the documents: nothing else is built, and no index is read
    #[arg(long)]
    pub locked: bool,
    /// Resolve packages afresh, even where there is a lock
    #[arg(long, conflicts_with = "locked")]
    pub fresh: bool,
}

impl LockArgs {
    pub fn locking(&self) -> Locking {
        match (self.locked, self.fresh) {
            (true, _) => Locking::Required,
            (false, true) => Locking::Afresh,
            (false, false) => Locking::IfThere,
        }
    }
}
