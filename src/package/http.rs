//! HTTP GET with proxies, redirects and retries.
//!
//! Owns: [`Client`], and [`Proxies`] as curl and apt read them from the environment. Built on ureq; a plain proxy
//! gets requests for `http:` addresses in the absolute form (RFC 9112, 3.2.2), because many proxies refuse CONNECT
//! to port 80. Nothing here looks at the environment itself.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, Transport};
use ureq::{Agent, Proxy};

use super::tcp::Tcp;
use crate::error::{Error, Kind, Result};

/// How patient the client is.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Attempts before giving up.
    pub attempts: u32,
    /// Between the first two attempts; doubles after each.
    pub pause: Duration,
    /// Until a connection stands, and for each read.
    pub timeout: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { attempts: 4, pause: Duration::from_millis(500), timeout: Duration::from_secs(30) }
    }
}

/// Which proxy to use for which address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    pub http: Option<String>,
    pub https: Option<String>,
    /// Hosts to reach directly: names (which cover their subdomains), addresses, `*`.
    pub direct: Vec<String>,
}

impl Proxies {
    /// From environment variables: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` in either case; the small
    /// one wins.
    pub fn from_variables<K: AsRef<str>, V: AsRef<str>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let variables: std::collections::BTreeMap<String, String> = variables
            .into_iter()
            .filter(|(_, value)| !value.as_ref().trim().is_empty())
            .map(|(key, value)| (key.as_ref().to_owned(), value.as_ref().trim().to_owned()))
            .collect();
        let find = |name: &str| variables.get(name).or_else(|| variables.get(&name.to_uppercase())).cloned();
        Proxies {
            http: find("http_proxy").or_else(|| find("all_proxy")),
            https: find("https_proxy").or_else(|| find("all_proxy")),
            direct: find("no_proxy")
                .unwrap_or_default()
                .split([',', ' '])
                .filter(|host| !host.is_empty())
                .map(|host| host.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase())
                .collect(),
        }
    }

    fn is_direct(&self, host: &str, port: Option<u16>) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        self.direct.iter().any(|rule| {
            let rule = match rule.rsplit_once(':') {
                Some((name, wanted)) if !name.contains(':') => {
                    if wanted.parse().ok() != port {
                        return false;
                    }
                    name
                }
                _ => rule,
            };
            rule == "*" || host == rule || host.strip_suffix(rule).is_some_and(|front| front.ends_with('.'))
        })
    }
}

/// A shareable HTTP client.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    proxies: Proxies,
    patience: Patience,
    direct: Agent,
    /// Sends requests for `http:` addresses to the proxy, with what it wants to see as authorization.
    forward: Option<(Agent, Option<String>)>,
    /// Tunnels to `https:` addresses.
    tunnel: Option<Agent>,
    /// Small files of this run, by address: its images see one and the same signed index, and it is fetched once.
    small: Mutex<BTreeMap<String, Arc<Vec<u8>>>>,
}

/// A response whose body is still to be read.
pub struct Response {
    pub status: u16,
    /// Where in the file the body starts (`Content-Range`), 0 for a whole file.
    pub offset: u64,
    pub body: Box<dyn Read + Send>,
}

impl Client {
    pub fn new(proxies: Proxies, patience: Patience) -> Result<Self> {
        let config = |proxy: Option<Proxy>| {
            Agent::config_builder()
                .http_status_as_error(false)
                // Redirects may change the proxy to use, so they are followed here.
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent(concat!("imagebuilder/", env!("CARGO_PKG_VERSION")))
                .accept_encoding("identity")
                .timeout_connect(Some(patience.timeout))
                .timeout_per_read(Some(patience.timeout))
                .timeout_recv_response(Some(patience.timeout))
                .max_idle_connections_per_host(8)
                .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
                .proxy(proxy)
                .build()
        };
        let forward = match &proxies.http {
            None => None,
            Some(address) => {
                let uri = proxy_address(address)?;
                let authorization = authorization(&uri);
                let connector = ().chain(Tcp).chain(AbsoluteForm);
                Some((Agent::with_parts(config(None), connector, AlwaysProxy(uri)), authorization))
            }
        };
        let tunnel = match &proxies.https {
            None => None,
            Some(address) => {
                let proxy = Proxy::new(&proxy_address(address)?.to_string()).map_err(|_| bad_proxy(address))?;
                Some(config(Some(proxy)).new_agent())
            }
        };
        let secure = ().chain(Tcp).chain(RustlsConnector::default());
        let direct = Agent::with_parts(config(None), secure, DefaultResolver::default());
        Ok(Client(Arc::new(Inner { proxies, patience, direct, forward, tunnel, small: Mutex::default() })))
    }

    /// A small file that this run has fetched already.
    pub fn remembered(&self, url: &str) -> Option<Arc<Vec<u8>>> {
        self.0.small.lock().unwrap_or_else(PoisonError::into_inner).get(url).cloned()
    }

    pub fn remember(&self, url: &str, bytes: &[u8]) {
        let mut small = self.0.small.lock().unwrap_or_else(PoisonError::into_inner);
        small.insert(url.to_owned(), Arc::new(bytes.to_vec()));
    }

    pub fn patience(&self) -> &Patience {
        &self.0.patience
    }

    /// One GET, from byte `start` on where the server can do that. Statuses are for the caller to judge; an error
    /// means that there was no answer.
    pub fn get(&self, url: &str, start: u64) -> Result<Response> {
        let mut url = url.to_owned();
        for _ in 0..10 {
            let response = self.get_once(&url, start)?;
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            match (response.status().as_u16(), location) {
                (301 | 302 | 303 | 307 | 308, Some(location)) => url = resolve(&url, location)?,
                (status, _) => {
                    let offset = match status {
                        206 => content_offset(&response).unwrap_or(0),
                        _ => 0,
                    };
                    return Ok(Response { status, offset, body: Box::new(response.into_body().into_reader()) });
                }
            }
        }
        Err(self.unreachable(&url, "too many redirects"))
    }

    fn get_once(&self, url: &str, start: u64) -> Result<ureq::http::Response<ureq::Body>> {
        let uri: Uri = url.parse().map_err(|_| bad_address(url))?;
        let (Some(host), Some(scheme)) = (uri.host(), uri.scheme_str()) else { return Err(bad_address(url)) };
        let direct = self.0.proxies.is_direct(host, uri.port_u16());
        let (agent, authorization) = match (scheme, &self.0.forward, &self.0.tunnel) {
            ("http", Some((agent, authorization)), _) if !direct => (agent, authorization.as_ref()),
            ("https", _, Some(agent)) if !direct => (agent, None),
            ("http" | "https", _, _) => (&self.0.direct, None),
            _ => return Err(bad_address(url)),
        };
        let mut request = agent.get(&uri);
        if start > 0 {
            request = request.header("Range", format!("bytes={start}-"));
        }
        if let Some(authorization) = authorization {
            request = request.header("Proxy-Authorization", authorization);
        }
        request.call().map_err(|error| self.unreachable(url, error))
    }

    /// The error for an address that does not answer.
    pub fn unreachable(&self, url: &str, cause: impl fmt::Display) -> Error {
        let error = Error::new(Kind::Network, format!("{} cannot be reached: {cause}", redact(url)));
        let proxies = &self.0.proxies;
        match proxies.http.as_ref().or(proxies.https.as_ref()) {
            Some(proxy) => error.hint(format!(
                "requests go through proxy {} (`http_proxy`, `https_proxy`); hosts in `no_proxy` are reached directly",
                redact(proxy)
            )),
            None => error.hint("no proxy is set; if this network needs one, set `http_proxy` and `https_proxy`"),
        }
    }
}

/// An address without the password it may hold.
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{path}"),
        None => url.to_owned(),
    }
}

/// `proxy:3128` means `http://proxy:3128`.
fn proxy_address(address: &str) -> Result<Uri> {
    let full = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let uri: Uri = full.parse().map_err(|_| bad_proxy(address))?;
    if uri.host().is_none() || uri.scheme_str() != Some("http") {
        return Err(bad_proxy(address));
    }
    Ok(uri)
}

fn bad_proxy(address: &str) -> Error {
    Error::new(Kind::Usage, format!("`{}` is not the address of a proxy", redact(address)))
        .hint("`http_proxy` and `https_proxy` look like `http://proxy.example:3128`")
}

fn bad_address(url: &str) -> Error {
    Error::documents(format!("`{}` is not an http or https address", redact(url)))
}

/// `user:password@` of an address as a header value.
fn authorization(uri: &Uri) -> Option<String> {
    use base64::Engine;
    let (user, _) = uri.authority()?.as_str().rsplit_once('@')?;
    Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user)))
}

/// The first number of `Content-Range: bytes 100-199/200`.
fn content_offset(response: &ureq::http::Response<ureq::Body>) -> Option<u64> {
    let value = response.headers().get("content-range")?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// The address a `Location` header means.
fn resolve(base: &str, location: &str) -> Result<String> {
    if location.contains("://") {
        return Ok(location.to_owned());
    }
    let (scheme, rest) = base.split_once("://").ok_or_else(|| bad_address(base))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Ok(match (location.strip_prefix("//"), location.starts_with('/')) {
        (Some(other), _) => format!("{scheme}://{other}"),
        (None, true) => format!("{scheme}://{authority}{location}"),
        (None, false) => {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{authority}{folder}/{location}")
        }
    })
}

/// Every host lives at the proxy's address.
#[derive(Debug)]
struct AlwaysProxy(Uri);

impl Resolver for AlwaysProxy {
    fn resolve(
        &self,
        _uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        DefaultResolver::default().resolve(&self.0, config, timeout)
    }
}

/// Turns `GET /path` into `GET http://host/path` on its way out.
#[derive(Debug)]
struct AbsoluteForm;

impl<In: Transport> Connector<In> for AbsoluteForm {
    type Out = Forwarded<In>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let authority = details.uri.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Ok(chained.map(|inner| Forwarded { inner, prefix: format!("http://{host}") }))
    }
}

#[derive(Debug)]
struct Forwarded<In> {
    inner: In,
    prefix: String,
}

impl<In: Transport> Transport for Forwarded<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        const METHOD: &[u8] = b"GET ";
        let output = self.inner.buffers().output();
        let longer = amount + self.prefix.len();
        if !output[..amount].starts_with(b"GET /") {
            return self.inner.transmit_output(amount, timeout);
        }
        if longer > output.len() {
            return Err(ureq::Error::Other("the address is too long".into()));
        }
        output.copy_within(METHOD.len()..amount, METHOD.len() + self.prefix.len());
        output[METHOD.len()..METHOD.len() + self.prefix.len()].copy_from_slice(self.prefix.as_bytes());
        self.inner.transmit_output(longer, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_in_both_cases_the_small_one_wins() {
        let proxies = Proxies::from_variables([
            ("HTTP_PROXY", "http://big:1"),
            ("http_proxy", "http://small:1"),
            ("ALL_PROXY", "http://all:1"),
            ("no_proxy", "localhost, .example.org,*.internal 10.0.0.1:8080"),
            ("PATH", "/bin"),
        ]);
        assert_eq!(proxies.http.as_deref(), Some("http://small:1"));
        assert_eq!(proxies.https.as_deref(), Some("http://all:1"));
        assert!(proxies.is_direct("a.example.org", None) && proxies.is_direct("EXAMPLE.org", Some(80)));
        assert!(proxies.is_direct("x.internal", None) && !proxies.is_direct("notexample.org", None));
        assert!(proxies.is_direct("10.0.0.1", Some(8080)) && !proxies.is_direct("10.0.0.1", Some(80)));
        assert_eq!(Proxies::from_variables([("http_proxy", " ")]), Proxies::default());
        assert!(Proxies { direct: vec!["*".into()], ..Proxies::default() }.is_direct("any", None));
    }

    #[test]
    fn locations_of_redirects() {
        let of = |location| resolve("http://h:1/a/b?c", location).unwrap();
        assert_eq!(of("https://o/x"), "https://o/x");
        assert_eq!(of("//o/x"), "http://o/x");
        assert_eq!(of("/x"), "http://h:1/x");
        assert_eq!(of("x"), "http://h:1/a/x");
    }

    #[test]
    fn passwords_stay_out_of_messages() {
        assert_eq!(redact("http://me:secret@h/x@y"), "http://***@h/x@y");
        assert_eq!(redact("http://h/x"), "http://h/x");
        let error =
            Client::new(Proxies { http: Some("ftp://me:secret@h".into()), ..Proxies::default() }, Patience::default());
        assert!(!error.err().unwrap().to_string().contains("secret"));
    }
}
