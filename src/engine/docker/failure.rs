//! What bollard and daemons call an error, in our words: which kind it is, and what helps.
//!
//! Owns: [`explain`]. Daemons tell causes in their messages only, so some are recognised by words that Docker and Podman
//! have used for years; an unknown one is shown as it is.

use std::error::Error as _;

use bollard::errors::Error as Bollard;

use super::endpoint::{Address, Endpoint};
use crate::error::{Error, Kind};

/// Words of a daemon's message, the kind of error that is, and what helps.
const KNOWN: [(&str, Kind, &str); 13] = [
    ("no space left on device", Kind::Space, "free some space where the engine keeps images and containers"),
    (
        "bind source path does not exist",
        Kind::Build,
        "the engine does not see this machine's folders: use one that runs here, or build with `--engine embedded`",
    ),
    (
        "no such file or directory: unknown",
        Kind::Build,
        "the image has no `imagebuilder` in it: make one with `make build`",
    ),
    ("executable file not found", Kind::Build, "the image has no `imagebuilder` in it: make one with `make build`"),
    (
        "exec format error",
        Kind::Build,
        "the image is made for another kind of processor: make one here with `make build`",
    ),
    (
        "read-only file system",
        Kind::Build,
        "name a folder that can be written to, with `--output-dir` or in the documents' `volume`",
    ),
    ("is too new", Kind::Build, "update the container engine, or build with `--engine embedded`"),
    (
        "unauthorized",
        Kind::Network,
        "log in to the registry with `docker login`, or make the image here with `make build`",
    ),
    ("pull access denied", Kind::Network, "make the image here with `make build`, or name another one"),
    ("connection refused", Kind::Network, "make the image here with `make build`, or name one that is there"),
    ("no such host", Kind::Network, "make the image here with `make build`, or name one that is there"),
    ("i/o timeout", Kind::Network, "make the image here with `make build`, or name one that is there"),
    ("manifest unknown", Kind::Network, "make the image here with `make build`, or name another one"),
];

pub(super) fn explain(error: Bollard, endpoint: &Endpoint) -> Error {
    match error {
        Bollard::DockerResponseServerError { status_code, message } => server(status_code, &message),
        Bollard::DockerStreamError { error } => message(&error),
        Bollard::DockerContainerWaitError { error, .. } => message(&error),
        Bollard::SocketNotFoundError(_) => Error::build("nothing listens there")
            .hint("start the engine, name another one with DOCKER_HOST, or build with `--engine embedded`"),
        Bollard::RequestTimeoutError => {
            Error::build("the engine does not answer").hint(format!("look after it at {endpoint}"))
        }
        other => connection(&other, endpoint),
    }
}

/// The newest version that a daemon knows, from its refusal of a newer one.
pub(super) fn offered_version(text: &str) -> Option<&str> {
    let words = ["supported API version is ", "server API version: "];
    let after = words.iter().find_map(|words| text.split_once(words)).map(|(_, after)| after)?;
    let end = after.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(after.len());
    Some(after[..end].trim_end_matches('.'))
}

fn server(status: u16, text: &str) -> Error {
    let error = message(text);
    if status >= 500 && error.hints().is_empty() {
        return error.hint("the container engine could not do it; its own log says more");
    }
    error
}

/// A message of a daemon: its first line, shortened, and what is known about it.
pub(super) fn message(text: &str) -> Error {
    let line = text.trim().lines().next().unwrap_or("it did not say why").trim_end_matches('.');
    let line: String = line.chars().filter(|letter| !letter.is_control()).take(500).collect();
    let lower = text.to_lowercase();
    let known = KNOWN.iter().find(|(words, ..)| lower.contains(words));
    let said = format!("the container engine says: {line}");
    match known {
        Some((_, kind, hint)) => Error::new(*kind, said).hint(*hint),
        None => Error::build(said),
    }
}

/// Nothing listens, or what does hangs up.
fn connection(error: &Bollard, endpoint: &Endpoint) -> Error {
    let mut io = None;
    let mut source: Option<&(dyn std::error::Error + 'static)> = error.source().or(Some(error));
    let mut words = error.to_string();
    while let Some(cause) = source {
        words = cause.to_string();
        io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind).or(io);
        source = cause.source();
    }
    let socket = match &endpoint.address {
        Address::Unix(path) => path.display().to_string(),
        Address::Tcp(address, _) => address.clone(),
    };
    match io {
        Some(std::io::ErrorKind::PermissionDenied) => Error::build(format!("no permission to use {socket}")).hint(
            "become a member of its group (`sudo usermod -aG docker $USER`, then log in again), use a rootless engine, or build \
             with `--engine embedded`",
        ),
        Some(std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound) => Error::build("nothing listens there")
            .hint("start the engine, name another one with DOCKER_HOST, or build with `--engine embedded`"),
        _ => Error::build(format!("the connection failed: {words}"))
            .hint("see whether the engine is running, or build with `--engine embedded`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_of_all_ages_name_their_version() {
        let new = "client version 1.53 is too new. Maximum supported API version is 1.41";
        let old = "client is newer than server (client API version: 1.53, server API version: 1.18)";
        assert_eq!((offered_version(new), offered_version(old)), (Some("1.41"), Some("1.18")));
        assert_eq!(offered_version("no"), None);
    }

    #[test]
    fn known_words_have_their_kind() {
        let full = message("write /x: no space left on device");
        assert_eq!((full.kind(), full.hints().len()), (Kind::Space, 1));
        let denied = message("pull access denied for x, repository does not exist or may require 'docker login'\nmore");
        assert_eq!(denied.kind(), Kind::Network);
        assert!(!denied.message().contains('\n'));
        assert_eq!(message("").message(), "the container engine says: it did not say why");
    }
}
