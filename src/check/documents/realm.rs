//! Rules on what may be in an image that many nodes share: no addresses, host names and keys of one site or node.
//!
//! Which fields belong where is in `api/realm.rs`; here texts are searched for what fields cannot tell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Subject, token};
use crate::api::realm::{Realm, of_params};
use crate::document::{Diagnostic, Node, Value};

/// Areas whose texts are none of a node's: what is installed, from where, and the disk.
const NOT_SEARCHED: [&str; 3] = ["distribution", "software", "storage"];

/// Files that are of one node by what they are.
const FILES: [(&str, &str); 4] = [
    ("/etc/hostname", "the name of one node"),
    ("/etc/machine-id", "the identity of one node"),
    ("/var/lib/dbus/machine-id", "the identity of one node"),
    ("/etc/ssh/ssh_host_", "a key of one node"),
];

/// Keys of cloud-config that are of one node.
const CLOUD_CONFIG: [&str; 6] =
    ["hostname:", "fqdn:", "local-hostname:", "instance-id:", "ssh_authorized_keys:", "ssh_keys:"];

pub(super) fn site_data(subject: &Subject) -> Vec<Diagnostic> {
    // A live system is made for the machine that it boots.
    let live = subject.executor.is_some_and(|(configuration, _)| {
        configuration.spec.image.types.as_slice().iter().all(|kind| kind.is_live())
            && !configuration.spec.image.types.as_slice().is_empty()
    });
    let Some(params) = subject.document.at(&["spec", "params"]).filter(|_| !live) else { return Vec::new() };
    let mut found = Vec::new();
    walk(params, &mut Vec::new(), &mut |way, leaf| found.extend(complain(subject, way, leaf)));
    found
}

/// All scalars with the keys down to them.
fn walk(node: &Node, way: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Node)) {
    match &node.value {
        Value::Mapping(mapping) => {
            for entry in &mapping.entries {
                way.push(entry.key.text.clone());
                walk(&entry.value, way, visit);
                way.pop();
            }
        }
        Value::Sequence(items) => {
            for (at, item) in items.iter().enumerate() {
                way.push(at.to_string());
                walk(item, way, visit);
                way.pop();
            }
        }
        Value::Scalar(_) => visit(way, node),
    }
}

fn complain(subject: &Subject, way: &[String], leaf: &Node) -> Option<Diagnostic> {
    let text = leaf.text().filter(|text| !text.is_empty())?;
    let pointer: String = way.iter().map(|key| format!("/{}", token(key))).collect();
    let name = crate::document::path_text(way);
    let on = |message: String| subject.on(&pointer, message);
    let realm = of_params(way);
    if matches!(realm, Realm::CloudInit | Realm::Host) {
        let message = format!("`{name}` is of one node or site, and every node of this image would have it");
        return Some(on(message).hint(format!("it belongs {}", realm.place())));
    }
    if realm == Realm::Build || way.first().is_some_and(|area| NOT_SEARCHED.contains(&area.as_str())) {
        return None;
    }
    if let Some(key) = private_key(text) {
        let message = format!("`{name}` holds {key}, which every node of this image and whoever has it would have");
        return Some(
            on(message).without_text().hint("hand it over when the node is provisioned, or let the node make one"),
        );
    }
    let what = of_file(way).or_else(|| of_cloud_config(way, text)).or_else(|| address(text))?;
    let message = format!("`{name}` holds {what}, and every node of this image would have it");
    Some(on(message).hint(format!("it belongs {}", Realm::CloudInit.place())))
}

fn private_key(text: &str) -> Option<&'static str> {
    if text.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    let public = ["ssh-rsa AAAA", "ssh-ed25519 AAAA", "ecdsa-sha2-nistp256 AAAA", "sk-ssh-ed25519@openssh.com AAAA"];
    public.iter().any(|start| text.contains(start)).then_some("the key of somebody who may log in")
}

/// `files./etc/hostname.file_content`
fn of_file(way: &[String]) -> Option<String> {
    let [area, path, field] = way else { return None };
    if area != "files" || !field.starts_with("file_content") {
        return None;
    }
    let (_, what) =
        FILES.iter().find(|(start, _)| path == start || (start.ends_with('_') && path.starts_with(start)))?;
    Some((*what).to_owned())
}

fn of_cloud_config(way: &[String], text: &str) -> Option<String> {
    if way.first().is_none_or(|area| area != "cloudInit") {
        return None;
    }
    let keys = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    let key = keys.filter_map(|line| CLOUD_CONFIG.iter().find(|key| line.starts_with(**key))).next()?;
    Some(format!("`{}`", key.trim_end_matches(':')))
}

/// The first address in a text that could be somebody's.
fn address(text: &str) -> Option<String> {
    let apart = |letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '.' | ':' | '-' | '_' | '%'));
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
    lines.flat_map(|line| line.split(apart)).find_map(of_word)
}

fn of_word(word: &str) -> Option<String> {
    let word = word.trim_end_matches(['.', ',']);
    if let Ok(address) = word.parse::<IpAddr>() {
        return is_sites(address).then(|| format!("the address {address}"));
    }
    if is_hardware(word) {
        return Some(format!("the hardware address {word}"));
    }
    // `10.0.0.1:6443`, or `ip=` of the kernel's command line.
    let mut parts = word.split(':').filter_map(|part| part.parse::<Ipv4Addr>().ok());
    parts.find(|part| is_sites(IpAddr::V4(*part))).map(|part| format!("the address {part}"))
}

/// `52:54:00:12:34:56`, of one adapter only.
fn is_hardware(word: &str) -> bool {
    let parts: Vec<&str> = word.split(':').collect();
    let octets: Option<Vec<u8>> = parts
        .iter()
        .map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2 && !part.starts_with('+')))
        .collect();
    octets.is_some_and(|octets| octets.len() == 6 && octets.iter().any(|octet| *octet != 0 && *octet != 0xff))
}

/// Whether an address is one that somebody has: neither a mask nor one that means the same everywhere.
fn is_sites(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let octets = address.octets();
            let everywhere = address.is_loopback() || address.is_link_local() || address.is_multicast();
            !everywhere && octets[0] != 0 && octets[0] < 240
        }
        IpAddr::V6(address) => {
            let link_local = address.segments()[0] & 0xffc0 == 0xfe80;
            let short = address == Ipv6Addr::UNSPECIFIED || address.is_loopback();
            // A prefix alone, as in `fd00::`, is a network; so is everybody's `2000::`.
            !short && !link_local && !address.is_multicast() && address.segments()[1..].iter().any(|part| *part != 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_what_looks_like_them() {
        for (text, wanted) in [
            ("server 10.1.2.3 iburst", "the address 10.1.2.3"),
            ("http://10.1.2.3:8080/x", "the address 10.1.2.3"),
            ("10.5::10.1.2.3:255.255.255.0:host", "the address 10.1.2.3"),
            ("192.168.7.0/24", "the address 192.168.7.0"),
            ("[2001:db8::7]:443", "the address 2001:db8::7"),
            ("match: {macaddress: 52:54:00:12:34:56}", "the hardware address 52:54:00:12:34:56"),
        ] {
            assert_eq!(address(text).as_deref(), Some(wanted), "{text}");
        }
        for text in [
            "0.0.0.0",
            "127.0.0.1:53",
            "255.255.255.0",
            "169.254.169.254",
            "::1",
            "[::]:80",
            "12:30:45",
            "v1.2.3.4",
            "1.2.3",
            "# of 10.1.2.3",
            "fe80::1",
            "ff02::1",
            "a::b::c",
            "00:00:00:00:00:00",
            "std::net::x",
        ] {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn files_of_one_node_are_known_by_their_path() {
        let way = |path: &str, field: &str| of_file(&["files".into(), path.into(), field.into()]);
        assert_eq!(way("/etc/hostname", "file_content").as_deref(), Some("the name of one node"));
        assert_eq!(way("/etc/ssh/ssh_host_rsa_key", "file_content_base64").as_deref(), Some("a key of one node"));
        assert_eq!(way("/etc/hostname", "permissions"), None);
        assert_eq!(way("/etc/hostname.d/x", "file_content"), None);
    }
}
