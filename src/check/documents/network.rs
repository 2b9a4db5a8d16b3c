//! Rules on addresses, ports and host names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Subject, token};
use crate::document::Diagnostic;

pub(super) fn repository_source(subject: &Subject) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (name, repository) in &subject.image.spec.params.distribution.repositories {
        let sources =
            [("source", Some(&repository.source)), ("registeredSource", repository.registered_source.as_ref())];
        for (field, source) in sources {
            // That there is none is another rule's.
            let Some(source) = source.filter(|source| !source.is_empty()) else { continue };
            let Some(problem) = address_problem(source) else { continue };
            let pointer = format!("/distribution/repositories/{}/{field}", token(name));
            let message = format!("`{field}` of repository `{name}` {problem}");
            // An address may hold a password.
            let diagnostic = subject.on(&pointer, message);
            found.push(if source.contains('@') { diagnostic.without_text() } else { diagnostic });
        }
    }
    found
}

fn address_problem(source: &str) -> Option<String> {
    let rest = source.strip_prefix("http://").or_else(|| source.strip_prefix("https://"));
    let Some(rest) = rest else { return Some("begins with neither `http://` nor `https://`".into()) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // An IPv6 address has its colons in brackets.
    let (host, port) = match host.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        Some((address, after)) => (address, after.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
    };
    match port {
        _ if host.is_empty() || source.contains(char::is_whitespace) => Some("names no host".into()),
        Some(port) if !is_port(port) => Some(format!("has `{port}` for a port")),
        _ => None,
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The kubelet's, with those it opens by itself; 0 turns one off.
const KUBELET_PORTS: [(&str, Option<&str>); 4] =
    [("port", Some("10250")), ("healthz-port", Some("10248")), ("read-only-port", None), ("cadvisor-port", None)];

pub(super) fn ports(subject: &Subject) -> Vec<Diagnostic> {
    let arguments = &subject.image.spec.params.kubernetes.kubelet.extra_systemd_args;
    let mut found = Vec::new();
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, default) in KUBELET_PORTS {
        let given = arguments.get(name).map(|port| port.as_str());
        let on = |message: String| subject.on(&format!("/kubernetes/kubelet/extra_systemd_args/{name}"), message);
        let Some(port) = given.or(default).filter(|port| *port != "0") else { continue };
        if !is_port(port) {
            found.push(on(format!("`{port}` is not a port")).hint("ports are numbers from 1 to 65535"));
        } else if let Some(other) = taken.insert(port, name) {
            found.push(on(format!("`{name}` and `{other}` of the kubelet are both {port}")));
        }
    }
    let key = "net.ipv4.ip_local_port_range";
    if let Some(range) = subject.image.spec.params.kernel.sysctl.get(key) {
        let ports: Vec<&str> = range.as_str().split_whitespace().collect();
        let numbers: Option<Vec<u16>> = ports.iter().map(|port| port.parse().ok()).collect();
        if !numbers.is_some_and(|ends| matches!(ends.as_slice(), [first, last] if 0 < *first && first < last)) {
            let message = format!("`{range}` is not a range of ports");
            found.push(subject.on(&format!("/kernel/sysctl/{key}"), message).hint("write `32768 60999`"));
        }
    }
    found
}

pub(super) fn hosts(subject: &Subject) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut addresses: BTreeMap<IpAddr, &str> = BTreeMap::new();
    let mut names: BTreeMap<(bool, &str), &str> = BTreeMap::new();
    for (address, line) in &subject.image.spec.params.networking.hosts {
        let on = |message: String| subject.on(&format!("/networking/hosts/{}", token(address)), message);
        let Ok(parsed) = address.parse::<IpAddr>() else {
            found
                .push(on(format!("`{address}` is not an address")).hint("the key is the address, the value its names"));
            continue;
        };
        if let Some(other) = addresses.insert(parsed, address) {
            found.push(on(format!("`{address}` and `{other}` are the same address")));
        }
        if line.split_whitespace().next().is_none() || line.contains(['#', '\n']) {
            found.push(on(format!("address `{address}` has no names, or more than a line of them")));
        }
        for name in line.split_whitespace() {
            match names.insert((parsed.is_ipv4(), name), address) {
                Some(other) if other != address => {
                    found.push(on(format!("host `{name}` has two addresses, `{other}` and `{address}`")));
                }
                _ => {}
            }
        }
    }
    found
}
