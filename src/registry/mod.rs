//! Pushing container images to a registry: OCI Distribution Specification 1.1.
//!
//! Owns: [`Reference`], the name of an image, and [`Registry`], the client: blobs that are there are not sent again, one
//! that is sent goes in one stream, and what fails for a reason that may pass is tried again. Credentials are those that
//! `docker login` and `podman login` leave ([`credentials`]); registries ask for them by Basic or Bearer (RFC 7617, the
//! distribution project's token authentication). Registries on this machine are spoken to in the clear, as Docker does.

mod client;
mod credentials;
#[cfg(test)]
mod tests;

pub use client::Registry;
pub use credentials::Credentials;

use crate::error::{Error, Kind, Result};

/// Where Docker looks for names without a registry.
const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_HOST: &str = "registry-1.docker.io";

/// `registry/repository:tag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub registry: String,
    pub repository: String,
    pub tag: String,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = || {
            Error::new(Kind::Usage, format!("`{text}` is not the name of a container image"))
                .hint("it looks like `registry.example:5000/team/name:tag`")
        };
        let (rest, tag) = match text.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains('/') => (rest, tag),
            _ => (text, "latest"),
        };
        let (registry, repository) = match rest.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path.to_owned()),
            Some(_) => (DEFAULT_REGISTRY, rest.to_owned()),
            None => (DEFAULT_REGISTRY, format!("library/{rest}")),
        };
        let tag_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let path_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-/".contains(&byte);
        let host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte);
        let good = !tag.is_empty()
            && tag.len() <= 128
            && tag.bytes().all(tag_byte)
            && !tag.starts_with(['.', '-'])
            && repository.len() <= 255
            && repository.bytes().all(path_byte)
            && repository.split('/').all(|part| part.starts_with(|letter: char| letter.is_ascii_alphanumeric()))
            && registry.bytes().all(host_byte);
        if !good {
            return Err(refuse());
        }
        Ok(Reference { registry: registry.to_owned(), repository, tag: tag.to_owned() })
    }

    /// The host to speak to.
    fn host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY { DEFAULT_HOST } else { &self.registry }
    }

    /// This machine itself.
    fn is_local(&self) -> bool {
        let host = self.registry.rsplit_once(':').map_or(self.registry.as_str(), |(host, _)| host);
        host == "localhost"
            || host == "[::1]"
            || host.parse::<std::net::Ipv4Addr>().is_ok_and(|host| host.is_loopback())
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}", self.registry, self.repository, self.tag)
    }
}
