//! Engine `docker`: a daemon that speaks Docker's Engine API (docs.docker.com/reference/api/engine), through bollard.
//!
//! Owns: [`Daemon`], a connection whose version was agreed on, with the small runtime that its requests run in. Calls
//! block, and end within moments when the user asks to stop. Only calls that Docker and Podman share are used.
//! Supported: unix sockets, TCP with and without certificates, contexts of the docker program. Left out: ssh.

pub mod container;
mod endpoint;
mod failure;
pub mod function;
pub mod image;

use std::future::Future;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use futures_util::future::{Either, select};

pub use endpoint::Variables;

use crate::error::{Context, Error, Kind, Result};
use crate::interrupt;
use endpoint::{Address, Endpoint};

/// Docker 19.03 (2019); Podman says 1.40 or 1.41.
const OLDEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 40 };
/// Seconds that a daemon may take to answer one request. Imports and pulls take long and answer early.
const PATIENCE: u64 = 120;
/// How often a waiting call looks whether the user asked to stop.
const TICK: Duration = Duration::from_millis(50);

pub struct Daemon {
    client: Docker,
    runtime: tokio::runtime::Runtime,
    endpoint: Endpoint,
    pub facts: Facts,
}

/// What a daemon says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// "Docker 20.10.24", "Podman 4.3.1".
    pub name: String,
    pub api: String,
    /// As Go names it: `amd64`.
    pub architecture: String,
    /// Its containers' root is an ordinary user here.
    pub rootless: bool,
    /// It maps the ids of containers (`userns-remap`) unless a container asks it not to.
    pub remapped: bool,
    /// Containers have a network of their own to be on.
    pub bridge: bool,
    pub logging: String,
}

impl Daemon {
    /// Connects to the daemon that environment and docker configuration name, and agrees on a version.
    pub fn connect(variables: &Variables) -> Result<Daemon> {
        let endpoint = endpoint::find(variables)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("starting the engine's runtime")?;
        let connecting = || format!("connecting to the container engine at {endpoint}");
        let client = client(&endpoint).with_context(connecting)?;
        let mut daemon = Daemon { client, runtime, endpoint: endpoint.clone(), facts: Facts::default() };
        daemon.agree().with_context(connecting)?;
        tracing::debug!("{endpoint}: {:?}", daemon.facts);
        Ok(daemon)
    }

    /// Where it listens, for messages.
    pub fn place(&self) -> String {
        self.endpoint.to_string()
    }

    fn agree(&mut self) -> Result<()> {
        let version = self.version()?;
        let offered = version.api_version.clone().unwrap_or_default();
        let api = parse(&offered).ok_or_else(|| Error::build("what answers there is no container engine"))?;
        let components = version.components.unwrap_or_default();
        let podman = components.iter().any(|component| component.name.contains("Podman"));
        let kind = if podman { "Podman" } else { "Docker" };
        self.facts.name = format!("{kind} {}", version.version.unwrap_or_default()).trim_end().to_owned();
        if api < OLDEST {
            return Err(too_old(&self.facts.name, &offered));
        }
        self.facts.api = offered;
        if api < self.client.client_version() {
            self.client = client_of_version(&self.endpoint, &api)?;
        }
        let info = self.ask(self.client.info())?;
        let options = info.security_options.unwrap_or_default();
        let has = |wanted: &str| options.iter().any(|option| option.split(',').any(|part| part == wanted));
        self.facts.rootless = has("name=rootless");
        self.facts.remapped = has("name=userns");
        let machine = info.architecture.unwrap_or_default();
        self.facts.architecture = go_architecture(version.arch.as_deref().unwrap_or(&machine)).to_owned();
        self.facts.logging = info.logging_driver.unwrap_or_default();
        let networks = self.ask(self.client.list_networks(None::<bollard::query_parameters::ListNetworksOptions>))?;
        let bridges = |driver: &Option<String>| driver.as_deref() == Some("bridge");
        self.facts.bridge = networks.iter().any(|network| bridges(&network.driver));
        Ok(())
    }

    /// Asks in the newest version we know. A daemon that does not know that one says which it does.
    fn version(&mut self) -> Result<bollard::models::SystemVersion> {
        let refused = match self.runtime.block_on(patient(self.client.version()))? {
            Ok(version) => return Ok(version),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 400, message }) => message,
            Err(error) => return Err(failure::explain(error, &self.endpoint)),
        };
        let offered = failure::offered_version(&refused);
        match offered.and_then(|offered| Some((parse(offered)?, offered))) {
            Some((api, offered)) if api < OLDEST => Err(too_old("it", offered)),
            Some((api, _)) => {
                self.client = client_of_version(&self.endpoint, &api)?;
                self.ask(self.client.version())
            }
            None => Err(failure::message(&refused)),
        }
    }

    /// Waits for an answer; ends at once when the user asks to stop.
    fn ask<T>(&self, request: impl Future<Output = Result<T, bollard::errors::Error>>) -> Result<T> {
        self.runtime
            .block_on(async { patient(request).await?.map_err(|error| failure::explain(error, &self.endpoint)) })
    }
}

fn parse(version: &str) -> Option<ClientVersion> {
    let (major, minor) = version.split_once('.')?;
    Some(ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? })
}

fn too_old(name: &str, offered: &str) -> Error {
    Error::build(format!("{name} is too old: its API is {offered}, {OLDEST} is needed"))
        .hint("update it (Docker 19.03 of 2019 will do), or build with `--engine embedded`")
}

/// The result of a future, or `interrupted`.
async fn patient<T>(future: impl Future<Output = T>) -> Result<T> {
    let mut future = std::pin::pin!(future);
    loop {
        let tick = std::pin::pin!(tokio::time::sleep(TICK));
        match select(future.as_mut(), tick).await {
            Either::Left((value, _)) => return Ok(value),
            Either::Right(_) => interrupt::check()?,
        }
    }
}

fn client(endpoint: &Endpoint) -> Result<Docker> {
    client_of_version(endpoint, API_DEFAULT_VERSION)
}

fn client_of_version(endpoint: &Endpoint, version: &ClientVersion) -> Result<Docker> {
    let made = match &endpoint.address {
        Address::Unix(path) => {
            let path = path.to_str().ok_or_else(|| Error::new(Kind::Usage, "the name of the socket is not UTF-8"))?;
            Docker::connect_with_unix(path, PATIENCE, version)
        }
        Address::Tcp(address, None) => Docker::connect_with_http(address, PATIENCE, version),
        Address::Tcp(address, Some(tls)) => {
            for file in [&tls.ca, &tls.certificate, &tls.key] {
                std::fs::File::open(file).with_context(|| format!("opening {}", file.display()))?;
            }
            Docker::connect_with_ssl(address, &tls.key, &tls.certificate, &tls.ca, PATIENCE, version)
        }
    };
    made.map_err(|error| failure::explain(error, endpoint))
}

/// As images name it, of what kernels or Go call it.
pub(super) fn go_architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
