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
    /// With `--config`: only this bundle; can be repeated [default: all]
    #[arg(long, value_name = "NAME", requires = "config")]
    pub bundle: Vec<String>,
    /// With `--config`: the release to build
    #[arg(long, value_name = "NAME", requires = "config", default_value = RELEASES[0].distro)]
    pub distro: String,
}

impl Documents {
    /// What they ask for, one Intent an image. One after another: a build has not entered its namespaces yet, and cannot
    /// with threads.
    pub fn load(&self) -> Result<Vec<Intent>> {
        match &self.config {
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
