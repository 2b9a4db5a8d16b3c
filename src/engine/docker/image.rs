//! The builder's image in a daemon: is it there, is it one of ours, can it be had?
//!
//! Owns: [`ensure`], [`load`], the labels an image of ours carries, and the handshake: an image is used when its label says
//! that it holds a builder of this program's version; without that label its `imagebuilder --version` is asked.

use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, ImportImageOptionsBuilder};
use futures_util::StreamExt;

use super::container::{self, Request};
use super::{Daemon, failure, go_architecture};
use crate::error::{Context, Error, Kind, Result};
use crate::report::Reporter;

/// What `make build` makes when no variable says otherwise. `localhost` is no registry: nobody else can answer for it.
pub const DEFAULT: &str = "localhost/airshipit/image-builder:latest-ubuntu_noble";
/// The builder inside: its version, and the digest of the program itself.
pub const VERSION_LABEL: &str = "org.airshipit.imagebuilder.version";
pub const PROGRAM_LABEL: &str = "org.airshipit.imagebuilder.program";
/// Where the builder lies in the image.
pub const PROGRAM: &str = "/usr/bin/imagebuilder";
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a daemon has under a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub id: String,
    pub size: u64,
    /// As images name it: `amd64`.
    pub architecture: String,
    pub version: Option<String>,
    pub program: Option<String>,
}

/// The image under this name; nothing if there is none.
pub fn find(daemon: &Daemon, reference: &str) -> Result<Option<Found>> {
    let looking = || format!("looking for the image `{reference}`");
    let asked = daemon.runtime.block_on(super::patient(daemon.client.inspect_image(reference)))?;
    match asked {
        Ok(image) => Ok(Some(found(image))),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(failure::explain(error, &daemon.endpoint)).with_context(looking),
    }
}

fn found(image: ImageInspect) -> Found {
    let labels = image.config.and_then(|config| config.labels).unwrap_or_default();
    let label = |name: &str| labels.get(name).filter(|value| !value.is_empty()).cloned();
    Found {
        id: image.id.unwrap_or_default(),
        size: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        architecture: image.architecture.unwrap_or_default(),
        version: label(VERSION_LABEL),
        program: label(PROGRAM_LABEL),
    }
}

/// Sees to it that the image is there and holds a builder like this one: found, pulled or made.
pub fn ensure(
    daemon: &Daemon,
    reference: &str,
    make: &dyn Fn(&Daemon, &str) -> Result<()>,
    reporter: &Reporter,
) -> Result<()> {
    let image = match find(daemon, reference)? {
        Some(image) => image,
        None => {
            if is_local(reference) {
                make(daemon, reference).with_context(|| format!("making the builder's image `{reference}`"))?;
            } else {
                pull(daemon, reference, reporter)?;
            }
            find(daemon, reference)?.ok_or_else(|| Error::build(format!("the image `{reference}` did not arrive")))?
        }
    };
    check(daemon, reference, &image)
}

/// Whether no registry can have it.
fn is_local(reference: &str) -> bool {
    reference.starts_with("localhost/")
}

/// The architecture and the version handshake.
pub fn check(daemon: &Daemon, reference: &str, image: &Found) -> Result<()> {
    let using = || format!("using the builder's image `{reference}`");
    let host = &daemon.facts.architecture;
    let own = go_architecture(&image.architecture);
    if !own.is_empty() && !host.is_empty() && own != host {
        return Err(Error::build(format!("it is made for {own}, and the engine runs on {host}"))
            .hint("make one here with `make build`"))
        .with_context(using);
    }
    let version = match &image.version {
        Some(version) => version.clone(),
        None => asked_version(daemon, reference).with_context(using)?,
    };
    if version == OWN_VERSION {
        return Ok(());
    }
    Err(Error::build(format!("its builder has version {version}, this program has {OWN_VERSION}"))
        .hint("make a new one with `make build`, or build with `--engine embedded`"))
    .with_context(using)
}

/// What the program in the image says when it is asked.
pub fn asked_version(daemon: &Daemon, reference: &str) -> Result<String> {
    let request = Request {
        image: reference.to_owned(),
        command: vec![PROGRAM.to_owned(), "--version".to_owned()],
        network: Some("none".to_owned()),
        ..Request::default()
    };
    let mut text = Vec::new();
    let no_builder = |why: &str| {
        let why: String = why.chars().filter(|letter| !letter.is_control()).take(300).collect();
        Error::build(format!("it does not hold an `imagebuilder` that works here: {why}"))
            .hint("make one with `make build`, or name another one in the documents' `image` or with `--builder-image`")
    };
    let mut errors = Vec::new();
    let mut listen = |piece: container::Piece<'_>| match piece {
        container::Piece::Out(bytes) => text.extend_from_slice(&bytes[..bytes.len().min(4096)]),
        container::Piece::Error(bytes) => errors.extend_from_slice(&bytes[..bytes.len().min(4096)]),
    };
    let ended = match container::run(daemon, &request, &mut listen) {
        Err(error) if [Kind::Interrupted, Kind::Space].contains(&error.kind()) => return Err(error),
        Err(error) => return Err(no_builder(error.message())),
        Ok(ended) => ended,
    };
    let said = String::from_utf8_lossy(&text);
    match said.trim().strip_prefix("imagebuilder ").filter(|_| ended.code == 0) {
        Some(version) => Ok(version.to_owned()),
        None => Err(no_builder(&format!("{} {}", said.trim(), String::from_utf8_lossy(&errors).trim()))),
    }
}

fn pull(daemon: &Daemon, reference: &str, reporter: &Reporter) -> Result<()> {
    let step = reporter.step(format!("pull {reference}"));
    // Without a tag the daemon would bring all there are.
    let name = reference.rsplit('/').next().unwrap_or(reference);
    let tagged = if name.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") };
    let options = CreateImageOptionsBuilder::default().from_image(&tagged).build();
    let work = async {
        let mut stream = daemon.client.create_image(Some(options), None, None);
        while let Some(news) = super::patient(stream.next()).await? {
            let news = news.map_err(|error| failure::explain(error, &daemon.endpoint))?;
            if let Some(detail) = news.error_detail.and_then(|detail| detail.message) {
                return Err(failure::message(&detail));
            }
        }
        Ok(())
    };
    daemon.runtime.block_on(work).map_err(|error| no_registry(error, reference))?;
    step.finish("");
    Ok(())
}

/// An image that is not here and cannot be brought.
fn no_registry(error: Error, reference: &str) -> Error {
    if error.kind() == Kind::Interrupted {
        return error;
    }
    let kind = if error.kind() == Kind::Build { Kind::Network } else { error.kind() };
    let mut unavailable = Error::new(kind, error.to_string());
    for hint in error.hints() {
        unavailable = unavailable.hint(hint);
    }
    if error.hints().is_empty() {
        unavailable = unavailable.hint("make it here with `make build`, or name another one with `--builder-image`");
    }
    unavailable.add_context(format!("pulling the builder's image `{reference}`, which is not here"))
}

/// Hands an archive of images (`docker save`) to the daemon.
pub fn load(daemon: &Daemon, archive: Vec<u8>) -> Result<()> {
    let options = ImportImageOptionsBuilder::default().quiet(true).build();
    let work = async {
        let mut stream = daemon.client.import_image(options, bollard::body_full(archive.into()), None);
        while let Some(news) = super::patient(stream.next()).await? {
            let news = news.map_err(|error| failure::explain(error, &daemon.endpoint))?;
            if let Some(detail) = news.error_detail.and_then(|detail| detail.message) {
                return Err(failure::message(&detail));
            }
        }
        Ok(())
    };
    daemon.runtime.block_on(work).context("loading the image into the container engine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_localhost_is_no_registry() {
        assert!(is_local(DEFAULT) && !is_local("localhost:5000/a"));
    }
}
