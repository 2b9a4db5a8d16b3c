//! Where the builder runs, as far as it can be typed: options of `build` and `phase run`, and how they are followed.
//!
//! Owns: [`EngineArgs`] and [`choose`]. The choice itself is the room `engine`'s.

use std::process::Command;

use super::{Globals, contained};
use crate::engine::docker::Daemon;
use crate::engine::{self, Choice, Engine, Wanted};
use crate::error::{Context, Error, Kind, Result};
use crate::plan::Intent;
use crate::report::Reporter;

const HEADING: &str = "Where the builder runs";

#[derive(Debug, Default, clap::Args)]
pub struct EngineArgs {
    /// In this process, or in a container without privileges; the image is the same
    #[arg(long, value_enum, default_value = "auto", env = "IMAGEBUILDER_ENGINE", help_heading = HEADING)]
    pub engine: EngineName,
    /// The builder's container image [default: the documents' `image`, else the one `make build` makes]
    #[arg(long, value_name = "REFERENCE", env = "IMAGEBUILDER_IMAGE", help_heading = HEADING)]
    pub builder_image: Option<String>,
    /// Network of the container [default: the engine's own; `host` where it has none or a mirror or proxy is on loopback]
    #[arg(long, value_name = "NAME", env = "IMAGEBUILDER_NETWORK", help_heading = HEADING)]
    pub container_network: Option<String>,
    /// Leave the container there when it has ended
    #[arg(long, help_heading = HEADING)]
    pub keep_container: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineName {
    /// `docker` where documents ask for it, a daemon answers and the builder's image is there or can be made; else
    /// `embedded`
    #[default]
    Auto,
    /// In this process
    Embedded,
    /// In a container of Docker or Podman (DOCKER_HOST, docker contexts, the usual sockets)
    Docker,
}

impl From<EngineName> for Wanted {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Auto => Wanted::Auto,
            EngineName::Embedded => Wanted::Embedded,
            EngineName::Docker => Wanted::Docker,
        }
    }
}

/// The engine for these images.
pub fn choose(intents: &[Intent], args: &EngineArgs, globals: &Globals, reporter: &Reporter) -> Result<Engine> {
    let variables = contained::variables();
    let make = |_: &Daemon, reference: &str| make_elsewhere(reference, globals);
    let image = args.builder_image.clone().filter(|reference| !reference.is_empty());
    let choice = Choice { wanted: args.engine.into(), image, variables: &variables, make: &make, reporter };
    engine::choose(intents, &choice)
}

/// In a process of its own: this one must have no second thread if it is going to build after all.
fn make_elsewhere(reference: &str, globals: &Globals) -> Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    let progress = clap::ValueEnum::to_possible_value(&globals.progress).map(|value| value.get_name().to_owned());
    let status = Command::new(program)
        .args(["--progress", progress.as_deref().unwrap_or("auto"), "--cache-dir"])
        .arg(globals.cache_dir()?)
        .args(["builder", "image", "--image", reference])
        .stdout(std::process::Stdio::null())
        .status()
        .context("starting this program again")?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().map_or(1, i64::from);
    Err(Error::new(Kind::of_exit_code(code), "it could not be made (see above)"))
}
