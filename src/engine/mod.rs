//! Where the builder runs: in this process, or in a container of a Docker daemon (or of Podman, through the same
//! interface).
//!
//! Owns: the choice ([`choose`]) and the engine `docker` ([`docker`]), driven through bollard, which with tokio under it is
//! used nowhere else. The builder in the container is this very program: it reads the same documents at the same paths,
//! works without privileges, and reports as it does here. [`builder`] makes the image it runs from.
//! May use plan (what documents ask for), package and format (for the builder's image), report, error.

pub mod builder;
pub mod docker;

use docker::{Daemon, Variables, image};

use crate::error::{Error, Result};
use crate::plan::{Container, Intent, Runtime};
use crate::report::Reporter;

/// What the command line wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// What the documents ask for, where it can be had; else in this process.
    #[default]
    Auto,
    Embedded,
    Docker,
}

/// Where the builder is going to run.
pub enum Engine {
    Embedded,
    Docker(Box<Docker>),
}

/// A daemon that answers, and the builder's image in it.
pub struct Docker {
    pub daemon: Daemon,
    pub image: String,
}

/// What decides about the engine, beside the documents.
pub struct Choice<'a> {
    pub wanted: Wanted,
    /// Wins over what the documents name.
    pub image: Option<String>,
    pub variables: &'a Variables,
    /// Makes the builder's image under the name given, where it can be neither found nor pulled.
    pub make: &'a dyn Fn(&Daemon, &str) -> Result<()>,
    pub reporter: &'a Reporter,
}

/// Finds the engine for these images. `Auto` never fails: what stands in the way of a container becomes a note.
pub fn choose(intents: &[Intent], choice: &Choice<'_>) -> Result<Engine> {
    let containers: Vec<&Container> = intents.iter().map(|intent| &intent.container).collect();
    let runtime = asked_runtime(&containers)?;
    let docker = match (choice.wanted, runtime) {
        (Wanted::Docker, _) => prepare(&containers, choice)?,
        (Wanted::Auto, Some(Runtime::Docker)) => match prepare(&containers, choice) {
            Ok(docker) => docker,
            Err(error) if error.kind() == crate::error::Kind::Interrupted => return Err(error),
            Err(error) => {
                choice.reporter.note(format!(
                    "the documents ask for `containerRuntime: docker`, which cannot be had here: {error}; building in this \
                     process, with the same result"
                ));
                return Ok(Engine::Embedded);
            }
        },
        _ => return Ok(Engine::Embedded),
    };
    if containers.iter().any(|container| container.privileged) {
        choice.reporter.note("`privileged: true` is not needed: the builder's container runs without privileges");
    }
    Ok(Engine::Docker(Box::new(docker)))
}

/// All images of one call are built by one builder.
fn asked_runtime(containers: &[&Container]) -> Result<Option<Runtime>> {
    let mut asked = containers.iter().filter_map(|container| container.runtime);
    let first = asked.next();
    if asked.any(|other| Some(other) != first) {
        return Err(Error::documents("the images ask for different container runtimes")
            .hint("build them one by one, or say which with `--engine`"));
    }
    Ok(first)
}

fn prepare(containers: &[&Container], choice: &Choice<'_>) -> Result<Docker> {
    let reference = match &choice.image {
        Some(reference) => reference.clone(),
        None => asked_image(containers)?.unwrap_or_else(|| image::DEFAULT.to_owned()),
    };
    let daemon = Daemon::connect(choice.variables)?;
    image::ensure(&daemon, &reference, choice.make, choice.reporter)?;
    Ok(Docker { daemon, image: reference })
}

fn asked_image(containers: &[&Container]) -> Result<Option<String>> {
    let mut asked = containers.iter().filter_map(|container| container.image.as_ref());
    let first = asked.next();
    if asked.any(|other| Some(other) != first) {
        return Err(Error::documents("the images ask for different builders")
            .hint("build them one by one, or say which with `--builder-image`"));
    }
    Ok(first.cloned())
}
