//! Where the documents want the builder to run: `spec.container` of the ImageConfiguration and of the AirshipImage.
//!
//! Owns: [`Container`] and what its values mean. Whether there is such an engine here is the room `engine`'s question.

use std::path::PathBuf;

use super::outputs::Executor;
use crate::api::AirshipImage;
use crate::api::image_configuration;
use crate::document::{Diagnostic, Node, suggestion};
use crate::error::Result;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    pub runtime: Option<Runtime>,
    /// Reference of the builder's image.
    pub image: Option<String>,
    pub volume: Option<Volume>,
    /// The documents ask for privileges, which are neither needed nor given.
    pub privileged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// In this process.
    Embedded,
    /// In a container, through Docker's interface (which Podman has, too).
    Docker,
}

/// `host:container`, or one path that is both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub host: PathBuf,
    /// Where the container sees it.
    pub container: Option<PathBuf>,
}

const RUNTIMES: [(&str, Option<Runtime>); 5] = [
    ("", None),
    ("auto", None),
    ("docker", Some(Runtime::Docker)),
    ("podman", Some(Runtime::Docker)),
    ("embedded", Some(Runtime::Embedded)),
];

/// What the ImageConfiguration says wins over the AirshipImage, value by value.
pub(super) fn container(image: &AirshipImage, document: &Node, executor: Executor) -> Result<Container> {
    let of_executor = executor.map(|(configuration, document)| (&configuration.spec.container, document));
    let of_image = image.spec.container.as_ref().map(|container| (container, document));
    let mut asked = Container::default();
    for (container, document) in of_executor.into_iter().chain(of_image) {
        let place = |key: &str| document.at(&["spec", "container", key]).unwrap_or(document);
        if let Some(name) = &container.container_runtime {
            asked.runtime = asked.runtime.or(runtime(name, place("containerRuntime"))?);
        }
        if let Some(text) = &container.volume {
            let volume = volume(text, place("volume"))?;
            asked.volume.get_or_insert(volume);
        }
        if let Some(reference) = image_reference(container, place("image"))? {
            asked.image.get_or_insert(reference);
        }
        asked.privileged |= container.privileged == Some(true);
    }
    Ok(asked)
}

fn runtime(name: &str, place: &Node) -> Result<Option<Runtime>> {
    if let Some((_, runtime)) = RUNTIMES.iter().find(|(known, _)| *known == name) {
        return Ok(*runtime);
    }
    let names: Vec<&str> = RUNTIMES.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
    let diagnostic = Diagnostic::on(place, format!("container runtime `{name}` is unknown"));
    Err(match suggestion(name, "container runtimes", &names) {
        Some(hint) => diagnostic.hint(hint).into(),
        None => diagnostic.into(),
    })
}

/// Nothing where it is empty. What can never be a reference is told here, with its place, and not by a daemon.
fn image_reference(container: &image_configuration::Container, place: &Node) -> Result<Option<String>> {
    let Some(reference) = container.image.as_deref().filter(|reference| !reference.is_empty()) else { return Ok(None) };
    let letter = |letter: char| letter.is_ascii_alphanumeric() || "._-/:@[]".contains(letter);
    let starts = reference.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '[');
    if starts && reference.len() <= 512 && reference.chars().all(letter) {
        return Ok(Some(reference.to_owned()));
    }
    Err(Diagnostic::on(place, format!("`{reference}` is not the name of a container image"))
        .hint("write it as `registry/name:tag`")
        .into())
}

fn volume(text: &str, place: &Node) -> Result<Volume> {
    let wrong =
        |message: String| Diagnostic::on(place, message).hint("write it as `host-folder:container-folder`").into();
    let not_one = || wrong(format!("`{text}` is not a volume"));
    let mut parts = text.split(':');
    let host = parts.next().filter(|host| !host.is_empty() && !host.contains('\0')).ok_or_else(not_one)?;
    let container = parts.next();
    match parts.next() {
        None | Some("rw" | "z" | "Z") => {}
        Some("ro") => return Err(wrong(format!("volume `{text}` is read-only, but the image is written there"))),
        Some(_) => return Err(not_one()),
    }
    if parts.next().is_some() {
        return Err(not_one());
    }
    if let Some(container) = container {
        let folder = container
            .strip_prefix('/')
            .ok_or_else(|| wrong(format!("volume `{text}`: the container's half has to be an absolute path")))?;
        if folder.is_empty() || folder.split('/').any(|part| part == "..") || folder.contains('\0') {
            return Err(wrong(format!("volume `{text}`: `{container}` cannot be a volume's place in a container")));
        }
    }
    Ok(Volume { host: PathBuf::from(host), container: container.map(PathBuf::from) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Origin, from_json};

    fn parse(text: &str) -> Result<Volume> {
        volume(text, &from_json(&text.into(), &Origin::built("test")))
    }

    #[test]
    fn volumes_have_one_or_two_halves() {
        let both = parse("/srv/iso:/config").unwrap();
        assert_eq!((both.host.to_str(), both.container.unwrap().to_str()), (Some("/srv/iso"), Some("/config")));
        assert_eq!(parse("/srv/iso").unwrap().container, None);
        assert!(parse("out:/config:rw").is_ok());
        for wrong in [
            "",
            ":",
            ":/config",
            "/a:b",
            "/a:",
            "/a:/",
            "/a:/b:ro",
            "/a:/b:rw:x",
            "/a:/b:noexec",
            "/a:/b/../..",
            "a:b:c",
        ] {
            assert_eq!(parse(wrong).unwrap_err().kind().exit_code(), 3, "{wrong}");
        }
    }
}
