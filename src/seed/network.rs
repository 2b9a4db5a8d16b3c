//! Network data: the schema of OpenStack's `network_data.json`
//! (<https://specs.openstack.org/openstack/nova-specs/specs/liberty/implemented/metadata-service-network-info.html>),
//! and what cloud-init makes of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::enforce;
use super::input::Text;
use crate::document::{Diagnostic, Node, suggestion, to_json};
use crate::error::{Error, Result};

/// Links that are a card, in the words of nova and of cloud-init.
const PHYSICAL: [&str; 13] = [
    "phy",
    "ethernet",
    "bridge",
    "dvs",
    "hw_veb",
    "hyperv",
    "ovs",
    "tap",
    "vhostuser",
    "vif",
    "hostdev_physical",
    "macvtap",
    "cascading",
];
const OTHER_LINKS: [&str; 2] = ["bond", "vlan"];
const BOND_MODES: [&str; 7] =
    ["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"];

/// Networks with an address of their own, and those that somebody else gives one.
const STATIC: [&str; 2] = ["ipv4", "ipv6"];
const DYNAMIC: [&str; 5] = ["ipv4_dhcp", "ipv6_dhcp", "ipv6_slaac", "ipv6_dhcpv6-stateless", "ipv6_dhcpv6-stateful"];
const SERVICES: [&str; 1] = ["dns"];
const TOP: [&str; 3] = ["links", "networks", "services"];
/// What Linux allows for an interface.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;
/// 15 characters and a zero (`IFNAMSIZ`).
const LONGEST_NAME: usize = 15;

/// Checks network data and gives it as JSON: as it is when it is that already.
pub(super) fn json(text: &Text) -> Result<Vec<u8>> {
    let documents = text.parse()?;
    let [document] = documents.as_slice() else {
        return Err(super::fault(text, format!("expected one document, found {}", documents.len())));
    };
    enforce(check(document))?;
    if serde_json::from_slice::<serde::de::IgnoredAny>(&text.bytes).is_ok() {
        return Ok(text.bytes.clone());
    }
    let mut bytes = serde_json::to_vec_pretty(&to_json(document))
        .map_err(|error| Error::documents(format!("network data that JSON cannot say: {error}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Everything that is wrong, in the order of the text.
pub(super) fn check(document: &Node) -> Vec<Diagnostic> {
    let mut check = Check::default();
    let Some(mapping) = document.as_mapping() else {
        let message = format!("expected a mapping with `links` and `networks`, found {}", document.describe());
        return vec![Diagnostic::on(document, message)];
    };
    for entry in mapping.entries.iter().filter(|entry| !TOP.contains(&entry.key.text.as_str())) {
        let key = entry.key.text.as_str();
        let diagnostic = Diagnostic::at(&entry.key.at, format!("`{key}` is no part of OpenStack network data"));
        check.found.push(match key {
            "version" | "ethernets" | "network" | "config" => diagnostic
                .hint("this looks like netplan or cloud-init's own form; a config drive has `links`, `networks` and `services`"),
            _ => with_hint(diagnostic, key, "its parts", &TOP),
        });
    }
    let links = list(document, "links", true, &mut check.found);
    check.links(links);
    let networks = list(document, "networks", true, &mut check.found);
    check.networks(networks);
    let services = list(document, "services", false, &mut check.found);
    check.services(services);
    check.found
}

/// The entries under a key.
fn list<'a>(node: &'a Node, key: &str, required: bool, found: &mut Vec<Diagnostic>) -> &'a [Node] {
    let value = node.get(key).filter(|value| !value.is_null());
    match value.map(|value| (value, value.as_sequence())) {
        Some((_, Some(items))) => items,
        Some((value, None)) => {
            found.push(Diagnostic::on(value, format!("`{key}` has to be a list, found {}", value.describe())));
            &[]
        }
        None => {
            if required {
                found.push(Diagnostic::on(node, format!("there is no list `{key}`")));
            }
            &[]
        }
    }
}

fn with_hint(diagnostic: Diagnostic, word: &str, what: &str, known: &[&str]) -> Diagnostic {
    match suggestion(word, what, known) {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

#[derive(Default)]
struct Check<'a> {
    found: Vec<Diagnostic>,
    links: BTreeMap<&'a str, &'a Node>,
    addresses: BTreeMap<IpAddr, &'a Node>,
    cards: BTreeMap<String, &'a Node>,
}

impl<'a> Check<'a> {
    fn put(&mut self, node: &Node, message: String) {
        self.found.push(Diagnostic::on(node, message));
    }

    /// Text under a key; without it `what` is incomplete.
    fn text(&mut self, node: &'a Node, key: &str, what: &str) -> Option<(&'a Node, &'a str)> {
        match node.get(key) {
            Some(value) if value.text().is_some_and(|text| !text.is_empty()) => {
                Some((value, value.text().unwrap_or_default()))
            }
            Some(value) => {
                self.put(value, format!("`{key}` of {what} has to be text, found {}", value.describe()));
                None
            }
            None => {
                self.put(node, format!("{what} has no `{key}`"));
                None
            }
        }
    }

    fn one_of(&mut self, node: &Node, word: &str, what: &str, known: &[&str]) -> bool {
        let good = known.contains(&word);
        if !good {
            let diagnostic = Diagnostic::on(node, format!("unknown {what} `{word}`"));
            self.found.push(with_hint(diagnostic, word, &format!("known are for {what}"), known));
        }
        good
    }

    fn links(&mut self, links: &'a [Node]) {
        for link in links {
            if link.as_mapping().is_none() {
                self.put(link, format!("a link has to be a mapping, found {}", link.describe()));
                continue;
            }
            let Some((node, id)) = self.text(link, "id", "a link") else { continue };
            if let Some(other) = self.links.insert(id, node) {
                let diagnostic = Diagnostic::on(node, format!("more than one link is called `{id}`"));
                self.found.push(diagnostic.note(&other.origin.at, "the first one"));
            }
        }
        links.iter().filter(|link| link.as_mapping().is_some()).for_each(|link| self.link(link));
    }

    fn link(&mut self, link: &'a Node) {
        let id = link.get("id").and_then(Node::text).unwrap_or("?");
        let what = format!("link `{id}`");
        let types: Vec<&str> = PHYSICAL.into_iter().chain(OTHER_LINKS).collect();
        let Some((node, kind)) = self.text(link, "type", &what) else { return };
        if !self.one_of(node, kind, "type of link", &types) {
            return;
        }
        if let Some(mtu) = link.get("mtu").filter(|mtu| !mtu.is_null()) {
            let number = mtu.text().and_then(|text| text.parse::<u32>().ok());
            if !number.is_some_and(|number| MTU.contains(&number)) {
                self.put(
                    mtu,
                    format!("the MTU of {what} has to be a number from 68 to 65535, found {}", mtu.describe()),
                );
            }
        }
        match kind {
            "bond" => self.bond(link, &what),
            "vlan" => self.vlan(link, &what),
            _ => self.card(link, &what),
        }
    }

    fn card(&mut self, link: &'a Node, what: &str) {
        let mac = link.get("ethernet_mac_address").filter(|mac| !mac.is_null());
        let name = link.get("name").filter(|name| !name.is_null());
        if let Some(name) = name {
            let text = name.text().unwrap_or_default();
            if text.is_empty()
                || text.len() > LONGEST_NAME
                || text.contains(|letter: char| letter == '/' || letter.is_whitespace())
            {
                self.put(name, format!("{} is no name for an interface", name.describe()));
            }
        }
        match mac {
            Some(mac) => self.mac(mac, true),
            None if name.is_none() => {
                let diagnostic = Diagnostic::on(link, format!("{what} has neither `ethernet_mac_address` nor `name`"));
                self.found.push(diagnostic.hint("cloud-init finds a card by one of them"));
            }
            None => {}
        }
    }

    fn mac(&mut self, node: &'a Node, own: bool) {
        let text = node.text().unwrap_or_default();
        let mut parts = 0;
        let good = text
            .split(':')
            .inspect(|_| parts += 1)
            .all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if !good || parts != 6 {
            let diagnostic = Diagnostic::on(node, format!("{} is no MAC address", node.describe()));
            self.found.push(diagnostic.hint("six pairs of hexadecimal digits: `52:54:00:12:34:56`"));
        } else if own {
            if let Some(other) = self.cards.insert(text.to_ascii_lowercase(), node) {
                let diagnostic = Diagnostic::on(node, format!("more than one link has the MAC address `{text}`"));
                self.found.push(diagnostic.note(&other.origin.at, "the first one"));
            }
        }
    }

    fn reference(&mut self, node: &'a Node, what: &str) {
        let Some(text) = node.text() else {
            return self.put(node, format!("{what} has to name a link, found {}", node.describe()));
        };
        if !self.links.contains_key(text) {
            let known: Vec<&str> = self.links.keys().copied().collect();
            let diagnostic = Diagnostic::on(node, format!("{what} names the link `{text}`, which is not there"));
            self.found.push(with_hint(diagnostic, text, "links", &known));
        }
    }

    fn bond(&mut self, link: &'a Node, what: &str) {
        let members = list(link, "bond_links", true, &mut self.found);
        if members.is_empty() && link.get("bond_links").is_some_and(|list| list.as_sequence().is_some()) {
            self.put(link, format!("{what} has no `bond_links`"));
        }
        members.iter().for_each(|member| self.reference(member, what));
        if let Some(mode) = link.get("bond_mode") {
            let text = mode.text().unwrap_or_default();
            let number = text.parse::<usize>().is_ok_and(|number| number < BOND_MODES.len());
            if !number {
                self.one_of(mode, text, "mode of a bond", &BOND_MODES);
            }
        }
        if let Some(mac) = link.get("ethernet_mac_address").filter(|mac| !mac.is_null()) {
            self.mac(mac, false);
        }
    }

    fn vlan(&mut self, link: &'a Node, what: &str) {
        if let Some((node, _)) = self.text(link, "vlan_link", what) {
            self.reference(node, what);
        }
        if let Some((node, id)) = self.text(link, "vlan_id", what) {
            if !id.parse::<u16>().is_ok_and(|id| (1..=4094).contains(&id)) {
                self.put(
                    node,
                    format!("the VLAN id of {what} has to be a number from 1 to 4094, found {}", node.describe()),
                );
            }
        }
        if let Some(mac) = link.get("vlan_mac_address").filter(|mac| !mac.is_null()) {
            self.mac(mac, false);
        }
    }

    fn networks(&mut self, networks: &'a [Node]) {
        let mut ids: BTreeMap<&str, &Node> = BTreeMap::new();
        for network in networks {
            if network.as_mapping().is_none() {
                self.put(network, format!("a network has to be a mapping, found {}", network.describe()));
                continue;
            }
            let Some((node, id)) = self.text(network, "id", "a network") else { continue };
            if let Some(other) = ids.insert(id, node) {
                let diagnostic = Diagnostic::on(node, format!("more than one network is called `{id}`"));
                self.found.push(diagnostic.note(&other.origin.at, "the first one"));
            }
            self.network(network, &format!("network `{id}`"));
        }
    }

    fn network(&mut self, network: &'a Node, what: &str) {
        if let Some((node, _)) = self.text(network, "link", what) {
            self.reference(node, what);
        }
        let types: Vec<&str> = STATIC.into_iter().chain(DYNAMIC).collect();
        let Some((node, kind)) = self.text(network, "type", what) else { return };
        if !self.one_of(node, kind, "type of network", &types) {
            return;
        }
        let v6 = kind.starts_with("ipv6");
        if STATIC.contains(&kind) {
            self.own_address(network, what, v6);
        }
        for route in list(network, "routes", false, &mut self.found) {
            self.route(route, what, v6);
        }
        if let Some(gateway) = network.get("gateway").filter(|gateway| !gateway.is_null()) {
            self.address(gateway, "gateway", v6);
        }
        let services = list(network, "services", false, &mut self.found);
        self.services(services);
        for server in list(network, "dns_nameservers", false, &mut self.found) {
            self.any_address(server, "name server");
        }
    }

    fn own_address(&mut self, network: &'a Node, what: &str, v6: bool) {
        let Some((node, text)) = self.text(network, "ip_address", what) else { return };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let parsed = parse(address, v6);
        let longest = if v6 { 128 } else { 32 };
        let bad_prefix = prefix.is_some_and(|prefix| !prefix.parse::<u8>().is_ok_and(|prefix| prefix <= longest));
        let Some(parsed) = parsed.filter(|_| !bad_prefix) else {
            return self.bad_address(node, "address", v6);
        };
        if let Some(other) = self.addresses.insert(parsed, node) {
            let diagnostic = Diagnostic::on(node, format!("more than one network has the address `{address}`"));
            self.found.push(diagnostic.note(&other.origin.at, "the first one"));
        }
        match network.get("netmask").filter(|mask| !mask.is_null()) {
            Some(mask) => self.netmask(mask, v6),
            None if prefix.is_none() => {
                let diagnostic = Diagnostic::on(network, format!("{what} has no `netmask`"));
                self.found.push(diagnostic.hint("or write the address with its prefix: `10.0.0.2/24`"));
            }
            None => {}
        }
    }

    fn route(&mut self, route: &'a Node, what: &str, v6: bool) {
        if route.as_mapping().is_none() {
            return self.put(route, format!("a route has to be a mapping, found {}", route.describe()));
        }
        let what = format!("a route of {what}");
        let mut prefix = false;
        if let Some((node, text)) = self.text(route, "network", &what) {
            let address = text.split_once('/').map_or(text, |(address, _)| address);
            prefix = address.len() < text.len();
            if parse(address, v6).is_none() {
                self.bad_address(node, "network", v6);
            }
        }
        match route.get("netmask").filter(|mask| !mask.is_null()) {
            Some(mask) => self.netmask(mask, v6),
            None if !prefix => self.put(route, format!("{what} has no `netmask`")),
            None => {}
        }
        if let Some((node, _)) = self.text(route, "gateway", &what) {
            self.address(node, "gateway", v6);
        }
    }

    fn address(&mut self, node: &Node, what: &str, v6: bool) {
        if node.text().and_then(|text| parse(text, v6)).is_none() {
            self.bad_address(node, what, v6);
        }
    }

    fn any_address(&mut self, node: &Node, what: &str) {
        if node.text().and_then(|text| text.parse::<IpAddr>().ok()).is_none() {
            self.put(node, format!("{} is no address of a {what}", node.describe()));
        }
    }

    fn bad_address(&mut self, node: &Node, what: &str, v6: bool) {
        let (family, example) = if v6 { ("IPv6", "2001:db8::2") } else { ("IPv4", "10.0.0.2") };
        let diagnostic = Diagnostic::on(node, format!("{} is no {family} {what}", node.describe()));
        self.found.push(diagnostic.hint(format!("for example `{example}`")));
    }

    fn netmask(&mut self, node: &Node, v6: bool) {
        let text = node.text().unwrap_or_default();
        let (bits, width) = match parse(text, v6) {
            Some(IpAddr::V4(mask)) => (u128::from(u32::from(mask)) << 96, 32),
            Some(IpAddr::V6(mask)) => (u128::from(mask), 128),
            None => (0, 0),
        };
        let whole = bits.leading_ones() + bits.trailing_zeros() == 128 || bits == 0;
        let prefix = text.parse::<u8>().is_ok_and(|prefix| prefix <= if v6 { 128 } else { 32 });
        if !prefix && (width == 0 || !whole) {
            let example = if v6 { "ffff:ffff:ffff:ffff::" } else { "255.255.255.0" };
            let diagnostic = Diagnostic::on(node, format!("{} is no netmask", node.describe()));
            self.found.push(diagnostic.hint(format!("for example `{example}`")));
        }
    }

    fn services(&mut self, services: &'a [Node]) {
        for service in services {
            if service.as_mapping().is_none() {
                self.put(service, format!("a service has to be a mapping, found {}", service.describe()));
                continue;
            }
            if let Some((node, kind)) = self.text(service, "type", "a service") {
                self.one_of(node, kind, "type of service", &SERVICES);
            }
            if let Some((node, _)) = self.text(service, "address", "a service") {
                self.any_address(node, "service");
            }
        }
    }
}

fn parse(text: &str, v6: bool) -> Option<IpAddr> {
    if v6 { text.parse::<Ipv6Addr>().ok().map(IpAddr::V6) } else { text.parse::<Ipv4Addr>().ok().map(IpAddr::V4) }
}
