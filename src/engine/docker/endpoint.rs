//! Where the daemon listens: `DOCKER_CONTEXT`, `DOCKER_HOST`, the current context of the docker program, the usual sockets.
//!
//! Owns: [`Endpoint`] and [`find`], in the order of precedence that the docker program has (docker(1), "docker context"),
//! and after it the sockets of rootless Docker and of Podman. Environment variables are handed in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::document::read_limited;
use crate::error::{Context, Error, Kind, Result};

/// Environment variables, as far as this room asks for them.
pub type Variables = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    /// Who named it, for messages: "DOCKER_HOST".
    pub source: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// `host:port`
    Tcp(String, Option<Tls>),
}

/// Files of a connection with certificates on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Tls {
    fn in_folder(folder: &Path) -> Tls {
        let file = |name: &str| folder.join(name);
        Tls { ca: file("ca.pem"), certificate: file("cert.pem"), key: file("key.pem") }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.address {
            Address::Unix(path) => write!(f, "unix://{}", path.display())?,
            Address::Tcp(address, _) => write!(f, "tcp://{address}")?,
        }
        write!(f, " ({})", self.source)
    }
}

/// Sockets that are tried when nothing names one; below `XDG_RUNTIME_DIR` those without a slash in front.
const SOCKETS: [(&str, &str); 4] = [
    ("/var/run/docker.sock", "the usual socket"),
    ("docker.sock", "rootless Docker"),
    ("podman/podman.sock", "Podman"),
    ("/run/podman/podman.sock", "Podman"),
];

/// The daemon to talk to. That it listens there is not looked at.
pub fn find(variables: &Variables) -> Result<Endpoint> {
    let get = |name: &str| variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if let Some(name) = get("DOCKER_CONTEXT").filter(|name| *name != "default") {
        return context(name, "DOCKER_CONTEXT", variables);
    }
    for name in ["DOCKER_HOST", "CONTAINER_HOST"] {
        if let Some(host) = get(name) {
            let address = address(host, default_tls(variables)).with_context(|| format!("reading {name}"))?;
            return Ok(Endpoint { address, source: name.to_owned() });
        }
        // The docker program's own choice comes before Podman's variable.
        if name == "DOCKER_HOST" && get("DOCKER_CONTEXT").is_none() {
            if let Some(name) = current_context(variables)? {
                return context(&name, "the current docker context", variables);
            }
        }
    }
    let runtime = get("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let candidates = SOCKETS.iter().filter_map(|(path, source)| match (path.starts_with('/'), &runtime) {
        (true, _) => Some((PathBuf::from(path), *source)),
        (false, Some(runtime)) => Some((runtime.join(path), *source)),
        (false, None) => None,
    });
    let mut candidates = candidates.collect::<Vec<_>>().into_iter();
    let first = candidates.next().unwrap_or_default();
    let found = std::iter::once(first.clone()).chain(candidates).find(|(path, _)| path.exists());
    let (path, source) = found.unwrap_or(first);
    Ok(Endpoint { address: Address::Unix(path), source: source.to_owned() })
}

fn config_folder(variables: &Variables) -> Option<PathBuf> {
    let get = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    get("DOCKER_CONFIG").map(PathBuf::from).or_else(|| get("HOME").map(|home| Path::new(home).join(".docker")))
}

/// Certificates where `DOCKER_TLS_VERIFY` or `DOCKER_TLS` asks for them.
fn default_tls(variables: &Variables) -> Option<Tls> {
    let get = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    get("DOCKER_TLS_VERIFY").or_else(|| get("DOCKER_TLS"))?;
    let folder = get("DOCKER_CERT_PATH").map(PathBuf::from).or_else(|| config_folder(variables))?;
    Some(Tls::in_folder(&folder))
}

fn address(host: &str, tls: Option<Tls>) -> Result<Address> {
    let Some((scheme, rest)) = host.split_once("://") else {
        return Err(Error::new(Kind::Usage, format!("`{host}` is not the address of a daemon"))
            .hint("write it as `unix:///var/run/docker.sock` or `tcp://host:port`"));
    };
    match scheme {
        "unix" if rest.starts_with('/') => Ok(Address::Unix(PathBuf::from(rest))),
        "tcp" | "http" | "https" if !rest.is_empty() => {
            let rest = rest.trim_end_matches('/');
            let port = if tls.is_some() { 2376 } else { 2375 };
            let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let address = if has_port { rest.to_owned() } else { format!("{rest}:{port}") };
            match (scheme, tls) {
                ("https", None) => Err(Error::new(Kind::Usage, format!("`{host}` needs certificates"))
                    .hint("set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH to the folder with ca.pem, cert.pem, key.pem")),
                (_, tls) => Ok(Address::Tcp(address, tls)),
            }
        }
        "ssh" => Err(Error::new(Kind::Usage, format!("`{host}`: daemons behind ssh are not supported"))
            .hint("forward its socket: `ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock HOST`, and name that one")),
        _ => Err(Error::new(Kind::Usage, format!("`{host}` is not the address of a daemon"))
            .hint("write it as `unix:///var/run/docker.sock` or `tcp://host:port`")),
    }
}

/// `currentContext` of the docker program's configuration, unless it is the default one.
fn current_context(variables: &Variables) -> Result<Option<String>> {
    let Some(path) = config_folder(variables).map(|folder| folder.join("config.json")) else { return Ok(None) };
    if !path.is_file() {
        return Ok(None);
    }
    let config = json(&path)?;
    let name = config.get("currentContext").and_then(Value::as_str);
    Ok(name.filter(|name| !name.is_empty() && *name != "default").map(str::to_owned))
}

fn json(path: &Path) -> Result<Value> {
    let reading = || format!("reading {}", path.display());
    let bytes = read_limited(path).with_context(reading)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::new(Kind::Usage, error.to_string())).with_context(reading)
}

/// A context of the docker program: its folders are named after the SHA-256 digest of the context's name.
fn context(name: &str, source: &str, variables: &Variables) -> Result<Endpoint> {
    let named = || format!("using docker context `{name}`");
    let missing = || {
        Error::new(Kind::Usage, "there is no such context")
            .hint("`docker context ls` lists them; `DOCKER_CONTEXT=default` takes the usual socket")
    };
    let contexts = config_folder(variables).ok_or_else(missing).with_context(named)?.join("contexts");
    let digest = hex::encode(Sha256::digest(name.as_bytes()));
    let path = contexts.join("meta").join(&digest).join("meta.json");
    if !path.is_file() {
        return Err(missing()).with_context(named);
    }
    let meta = json(&path).with_context(named)?;
    let host = meta.pointer("/Endpoints/docker/Host").and_then(Value::as_str);
    let host = host.ok_or_else(|| Error::new(Kind::Usage, "it names no docker endpoint")).with_context(named)?;
    let folder = contexts.join("tls").join(&digest).join("docker");
    let tls = folder.join("ca.pem").is_file().then(|| Tls::in_folder(&folder));
    let address = address(host, tls).with_context(named)?;
    Ok(Endpoint { address, source: format!("context `{name}`, {source}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn shown(pairs: &[(&str, &str)]) -> String {
        find(&variables(pairs)).unwrap().to_string()
    }

    #[test]
    fn variables_name_the_daemon() {
        assert_eq!(shown(&[("DOCKER_HOST", "unix:///x.sock")]), "unix:///x.sock (DOCKER_HOST)");
        assert_eq!(shown(&[("CONTAINER_HOST", "unix:///p.sock")]), "unix:///p.sock (CONTAINER_HOST)");
        assert_eq!(shown(&[("DOCKER_HOST", "tcp://h")]), "tcp://h:2375 (DOCKER_HOST)");
        let tls = [("DOCKER_HOST", "tcp://h"), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/c")];
        let endpoint = find(&variables(&tls)).unwrap();
        assert_eq!(endpoint.address, Address::Tcp("h:2376".into(), Some(Tls::in_folder(Path::new("/c")))));
        for wrong in ["h:1", "unix://x", "ssh://h", "npipe:////./pipe/x", "https://h:1", "tcp://", "fd://"] {
            let error = find(&variables(&[("DOCKER_HOST", wrong)])).unwrap_err();
            assert_eq!((error.kind(), error.hints().len()), (Kind::Usage, 1), "{wrong}");
        }
    }

    #[test]
    fn contexts_are_read_from_the_docker_programs_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        let digest = hex::encode(Sha256::digest(b"work"));
        let meta = dir.path().join("contexts/meta").join(&digest);
        std::fs::create_dir_all(&meta).unwrap();
        let text = r#"{"Name":"work","Endpoints":{"docker":{"Host":"tcp://h:7","SkipTLSVerify":false}}}"#;
        std::fs::write(meta.join("meta.json"), text).unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"currentContext":"work"}"#).unwrap();
        let wanted = "tcp://h:7 (context `work`, the current docker context)";
        assert_eq!(shown(&[("DOCKER_CONFIG", folder)]), wanted);
        let host = ("DOCKER_HOST", "unix:///x");
        assert_eq!(shown(&[("DOCKER_CONFIG", folder), host]), "unix:///x (DOCKER_HOST)");
        let pairs = [("DOCKER_CONFIG", folder), host, ("DOCKER_CONTEXT", "work")];
        assert_eq!(shown(&pairs), "tcp://h:7 (context `work`, DOCKER_CONTEXT)");
        let tls = dir.path().join("contexts/tls").join(&digest).join("docker");
        std::fs::create_dir_all(&tls).unwrap();
        std::fs::write(tls.join("ca.pem"), "").unwrap();
        let endpoint = find(&variables(&pairs)).unwrap();
        assert!(matches!(endpoint.address, Address::Tcp(_, Some(_))));
        let error = find(&variables(&[("DOCKER_CONFIG", folder), ("DOCKER_CONTEXT", "other")])).unwrap_err();
        assert!(error.to_string().contains("context `other`: there is no such context"), "{error}");
        std::fs::write(dir.path().join("config.json"), "{").unwrap();
        assert_eq!(find(&variables(&[("DOCKER_CONFIG", folder)])).unwrap_err().kind(), Kind::Usage);
    }
}
