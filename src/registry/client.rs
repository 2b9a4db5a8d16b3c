//! Speaks to one registry about one repository.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

use super::{Credentials, Reference};
use crate::error::{Context, Error, Kind, Result};
use crate::format::oci::{Descriptor, Layout};
use crate::interrupt;
use crate::report::{Reporter, Unit};

const ATTEMPTS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(60);
/// What a registry may say about an error.
const ANSWER_BYTES: u64 = 64 << 10;

pub struct Registry {
    agent: Agent,
    reference: Reference,
    base: String,
    credentials: Option<Credentials>,
    /// The header that the registry was content with.
    authorization: Option<String>,
}

/// An answer that may be another one next time.
enum Failure {
    Passing(Error),
    Final(Error),
}

impl Registry {
    /// Proxies are those of the environment.
    pub fn new(reference: &Reference, credentials: Option<Credentials>) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("imagebuilder/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build()
            .new_agent();
        let scheme = if reference.is_local() { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/{}", reference.host(), reference.repository);
        Registry { agent, reference: reference.clone(), base, credentials, authorization: None }
    }

    /// Pushes the image of a layout. A tag appears when everything is there.
    pub fn push(&mut self, layout: &Layout, reporter: &Reporter) -> Result<()> {
        let (manifest, blobs) = layout.image()?;
        let step = reporter.step_of(format!("push {}", self.reference), blobs.len() as u64, Unit::Items);
        for blob in &blobs {
            interrupt::check()?;
            self.again(|registry| registry.blob(layout, blob))
                .with_context(|| format!("pushing blob {}", blob.digest))?;
            step.advance(1);
        }
        self.again(|registry| registry.manifest(layout, &manifest)).context("pushing the manifest")?;
        step.finish(format!("sha256:{}", manifest.digest));
        Ok(())
    }

    fn again(&mut self, mut work: impl FnMut(&mut Self) -> std::result::Result<(), Failure>) -> Result<()> {
        let mut attempt = 1;
        loop {
            interrupt::check()?;
            match work(self) {
                Ok(()) => return Ok(()),
                Err(Failure::Passing(_)) if attempt < ATTEMPTS => {
                    std::thread::sleep(Duration::from_millis(250 << attempt));
                    attempt += 1;
                }
                Err(Failure::Passing(error) | Failure::Final(error)) => {
                    return Err(error).with_context(|| format!("pushing to {}", self.reference.host()));
                }
            }
        }
    }

    /// "Pushing blobs": asks whether it is there, begins an upload, sends the bytes, closes it with the digest.
    fn blob(&mut self, layout: &Layout, blob: &Descriptor) -> std::result::Result<(), Failure> {
        let url = format!("{}/blobs/sha256:{}", self.base, blob.digest);
        let there = self.send("HEAD", &url, &[], &mut || Ok(None))?;
        if there.status() == StatusCode::OK {
            return Ok(());
        }
        if there.status() != StatusCode::NOT_FOUND {
            return Err(refused("asking for the blob", there));
        }
        let begun = self.send("POST", &format!("{}/blobs/uploads/", self.base), &[], &mut || Ok(None))?;
        if begun.status() != StatusCode::ACCEPTED {
            return Err(refused("beginning an upload", begun));
        }
        let place = self.location(begun.headers())?;
        let length = blob.size.to_string();
        let headers = [("Content-Type", "application/octet-stream"), ("Content-Length", length.as_str())];
        let path = layout.blob(blob.digest);
        let sent = self.send("PATCH", &place, &headers, &mut || {
            let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            Ok(Some(Box::new(file) as Box<dyn Read + Send>))
        })?;
        if sent.status() != StatusCode::ACCEPTED {
            return Err(refused("sending the bytes", sent));
        }
        let place = self.location(sent.headers())?;
        let separator = if place.contains('?') { '&' } else { '?' };
        let url = format!("{place}{separator}digest=sha256:{}", blob.digest);
        let done = self.send("PUT", &url, &[], &mut || Ok(None))?;
        match done.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(refused("closing the upload", done)),
        }
    }

    fn manifest(&mut self, layout: &Layout, manifest: &Descriptor) -> std::result::Result<(), Failure> {
        let path = layout.blob(manifest.digest);
        let text =
            std::fs::read(&path).with_context(|| format!("reading {}", path.display())).map_err(Failure::Final)?;
        let length = text.len().to_string();
        let headers = [("Content-Type", manifest.media_type.as_str()), ("Content-Length", length.as_str())];
        let url = format!("{}/manifests/{}", self.base, self.reference.tag);
        let sent = self.send("PUT", &url, &headers, &mut || {
            Ok(Some(Box::new(std::io::Cursor::new(text.clone())) as Box<dyn Read + Send>))
        })?;
        match sent.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(refused("naming the image", sent)),
        }
    }

    /// `Location` may be an address or a path.
    fn location(&self, headers: &HeaderMap) -> std::result::Result<String, Failure> {
        let location = headers.get("location").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let origin_end = self.base.find("/v2/").unwrap_or(self.base.len());
        match location {
            "" => Err(Failure::Final(network("the registry does not say where to send the bytes"))),
            path if path.starts_with('/') => Ok(format!("{}{path}", &self.base[..origin_end])),
            url if url.starts_with("http://") || url.starts_with("https://") => Ok(url.to_owned()),
            other => Err(Failure::Final(network(format!("the registry sends to `{other}`, which is not an address")))),
        }
    }

    /// One request, and once more with credentials if the registry asks for them.
    fn send(
        &mut self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &mut dyn FnMut() -> Result<Option<Box<dyn Read + Send>>>,
    ) -> std::result::Result<Response<Body>, Failure> {
        let answer = self.send_once(method, url, headers, body)?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let asked = answer.headers().get("www-authenticate").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let before = self.authorization.take();
        self.authorization = self.authorize(asked)?;
        if self.authorization.is_none() || self.authorization == before {
            return Err(self.unauthorized());
        }
        let answer = self.send_once(method, url, headers, body)?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => Err(self.unauthorized()),
            _ => Ok(answer),
        }
    }

    fn send_once(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &mut dyn FnMut() -> Result<Option<Box<dyn Read + Send>>>,
    ) -> std::result::Result<Response<Body>, Failure> {
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // Credentials are for the registry, not for a store that it sends to.
        if let Some(authorization) = self.authorization.as_ref().filter(|_| self.is_registry(url)) {
            request = request.header("Authorization", authorization);
        }
        let broken = |error: ureq::http::Error| Failure::Final(network(format!("{url} is not an address: {error}")));
        let unreachable = |error: ureq::Error| Failure::Passing(network(format!("{method} {url}: {error}")));
        match body().map_err(Failure::Final)? {
            Some(mut reader) => {
                let request = request.body(SendBody::from_reader(&mut *reader)).map_err(broken)?;
                self.agent.run(request).map_err(unreachable)
            }
            None if matches!(method, "POST" | "PUT") => {
                let request = request.header("Content-Length", "0").body(SendBody::none()).map_err(broken)?;
                self.agent.run(request).map_err(unreachable)
            }
            None => self.agent.run(request.body(()).map_err(broken)?).map_err(unreachable),
        }
    }

    fn is_registry(&self, url: &str) -> bool {
        let end = self.base.find("/v2/").map_or(self.base.len(), |at| at + 1);
        url.starts_with(&self.base[..end])
    }

    /// What the registry wants to see, from its challenge.
    fn authorize(&self, challenge: &str) -> std::result::Result<Option<String>, Failure> {
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(self.credentials.as_ref().map(Credentials::basic));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Failure::Final(network(format!("the registry asks for `{scheme}`, which is not known"))));
        }
        let value = |name: &str| parameter(parameters, name);
        let realm =
            value("realm").ok_or_else(|| Failure::Final(network("the registry does not say who gives tokens")))?;
        let scope = value("scope").unwrap_or_else(|| format!("repository:{}:pull,push", self.reference.repository));
        let mut request = self.agent.get(&realm).query("scope", scope);
        if let Some(service) = value("service") {
            request = request.query("service", service);
        }
        if let Some(credentials) = &self.credentials {
            request = request.header("Authorization", credentials.basic());
        }
        let answer = request.call().map_err(|error| Failure::Passing(network(format!("{realm}: {error}"))))?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            return Err(self.unauthorized());
        }
        if answer.status() != StatusCode::OK {
            return Err(refused("asking for a token", answer));
        }
        let text = text_of(answer);
        let token: Value = serde_json::from_str(&text).unwrap_or_default();
        let token = token["token"].as_str().or_else(|| token["access_token"].as_str());
        match token {
            Some(token) => Ok(Some(format!("Bearer {token}"))),
            None => Err(Failure::Final(network("the answer with the token is not understood"))),
        }
    }

    fn unauthorized(&self) -> Failure {
        let registry = &self.reference.registry;
        let error = match &self.credentials {
            None => network(format!("{registry} wants a user name and a password")),
            Some(credentials) => network(format!("{registry} does not accept user `{}`", credentials.user)),
        };
        Failure::Final(
            error.hint(format!("log in with `docker login {registry}`; `DOCKER_CONFIG` says where that is kept")),
        )
    }
}

/// `name="value"` of a challenge (RFC 9110, 11.2).
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (key, after) = rest.trim_start_matches([',', ' ']).split_once('=')?;
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = next;
    }
}

fn network(message: impl Into<String>) -> Error {
    Error::new(Kind::Network, message)
}

fn text_of(answer: Response<Body>) -> String {
    let mut bytes = Vec::new();
    let _ = answer.into_body().into_reader().take(ANSWER_BYTES).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What the registry said, with its own words ("Error Codes") where it has any.
fn refused(doing: &str, answer: Response<Body>) -> Failure {
    let status = answer.status();
    let text = text_of(answer);
    let words: Value = serde_json::from_str(&text).unwrap_or_default();
    let words = words["errors"][0]["message"].as_str().map(|words| format!(": {words}")).unwrap_or_default();
    let error = network(format!("the registry answers {status}{words}")).add_context(doing.to_owned());
    match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        true => Failure::Passing(error),
        false => Failure::Final(error),
    }
}

#[cfg(test)]
mod parts {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = r#"realm="https://auth.example/token",service="registry, one",scope="repository:a/b:pull,push""#;
        assert_eq!(parameter(text, "realm").as_deref(), Some("https://auth.example/token"));
        assert_eq!(parameter(text, "Service").as_deref(), Some("registry, one"));
        assert_eq!(parameter(text, "scope").as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(parameter(text, "other"), None);
        assert_eq!(parameter("realm=x, service=y", "service").as_deref(), Some("y"));
    }
}
