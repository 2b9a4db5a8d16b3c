//! User names and passwords for registries: `config.json` of `docker login` (also what `podman login` writes).

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::error::{Context, Error, Kind, Result};

const FILE_BYTES: u64 = 1 << 20;

#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.user)
    }
}

impl Credentials {
    /// The files that may hold them, the first that is there counts: `$DOCKER_CONFIG/config.json` or
    /// `~/.docker/config.json`, then `$XDG_RUNTIME_DIR/containers/auth.json`.
    pub fn files(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let docker = variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")));
        let podman = variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json"));
        docker.map(|folder| folder.join("config.json")).into_iter().chain(podman).collect()
    }

    /// Those for a registry, if a file has any.
    pub fn find(files: &[PathBuf], registry: &str) -> Result<Option<Self>> {
        for file in files.iter().filter(|file| file.is_file()) {
            let found = Self::in_file(file, registry).with_context(|| format!("reading {}", file.display()))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn in_file(file: &Path, registry: &str) -> Result<Option<Self>> {
        let refuse = |what: &str| Error::new(Kind::Usage, what.to_owned());
        if file.metadata().context("looking at it")?.len() > FILE_BYTES {
            return Err(refuse("it is too large for a list of credentials"));
        }
        let text = std::fs::read(file).context("reading it")?;
        let config: Value = serde_json::from_slice(&text).map_err(|error| refuse(&error.to_string()))?;
        let names = match registry {
            "docker.io" => vec!["https://index.docker.io/v1/".to_owned(), registry.to_owned()],
            _ => vec![registry.to_owned(), format!("https://{registry}"), format!("http://{registry}")],
        };
        for name in &names {
            let Some(auth) = config["auths"][name]["auth"].as_str().filter(|auth| !auth.is_empty()) else { continue };
            let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let decoded = decoded.unwrap_or_default();
            let (user, password) = decoded
                .split_once(':')
                .ok_or_else(|| refuse(&format!("the credentials for {name} are not `user:password` in base64")))?;
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Credentials { user: user.to_owned(), password }));
        }
        let kept = |key: &str| names.iter().any(|name| config[key][name].is_string());
        if kept("credHelpers")
            || (config["credsStore"].is_string() && names.iter().any(|name| config["auths"].get(name).is_some()))
        {
            return Err(refuse(&format!(
                "the credentials for {registry} are in a credential helper, which is not asked"
            ))
            .hint("write them into a `config.json` of its own and name its folder with `DOCKER_CONFIG`"));
        }
        Ok(None)
    }

    /// As the header `Authorization` wants them (RFC 7617).
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}
