//! The same seed as cloud-init's NoCloud data source has it: `meta-data`, and `network-config` in version 2
//! (<https://cloudinit.readthedocs.io/en/latest/reference/network-config-format-v2.html>).

use serde_json::{Map, Value, json};

use crate::error::{Context, Error, Result};

/// `meta-data` from `meta_data.json`.
pub fn meta_data(bytes: &[u8]) -> Result<Vec<u8>> {
    let data: Value =
        serde_json::from_slice(bytes).map_err(std::io::Error::from).context("reading `meta_data.json`")?;
    let uuid = data["uuid"].as_str().ok_or_else(|| Error::build("`meta_data.json` has no `uuid`"))?;
    text(&json!({"instance-id": uuid, "local-hostname": data["hostname"]}))
}

/// `network-config` from `network_data.json` that was checked.
pub fn network_config(bytes: &[u8]) -> Result<Vec<u8>> {
    let data: Value =
        serde_json::from_slice(bytes).map_err(std::io::Error::from).context("reading `network_data.json`")?;
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let links = list(&data, "links");
    let mut sections: [(&str, Map<String, Value>); 3] =
        [("ethernets", Map::new()), ("bonds", Map::new()), ("vlans", Map::new())];
    for link in &links {
        let (section, mut settings) = settings(link);
        let mut addresses = Addresses::default();
        list(&data, "networks").iter().filter(|network| network["link"] == link["id"]).for_each(|network| {
            addresses.network(network);
        });
        let has_networks = addresses.finish(&mut settings);
        // Name servers belong to no link; those that reach out ask them.
        let servers: Vec<Value> = list(&data, "services").iter().map(|service| service["address"].clone()).collect();
        if has_networks && !servers.is_empty() {
            settings.insert("nameservers".into(), json!({"addresses": servers}));
        }
        let id = link["id"].as_str().unwrap_or_default().to_owned();
        if let Some((_, entries)) = sections.iter_mut().find(|(name, _)| *name == section) {
            entries.insert(id, Value::Object(settings));
        }
    }
    let mut out = Map::new();
    out.insert("version".into(), json!(2));
    for (name, entries) in sections.into_iter().filter(|(_, entries)| !entries.is_empty()) {
        out.insert(name.into(), Value::Object(entries));
    }
    text(&Value::Object(out))
}

/// JSON is YAML.
fn text(value: &Value) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(std::io::Error::from).context("writing JSON")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A number, also where it was written as text.
fn number(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => text.parse::<u64>().ok().map(Value::from),
        Value::Number(_) => Some(value.clone()),
        _ => None,
    }
}

/// Which section a link belongs to, and its settings but for addresses.
fn settings(link: &Value) -> (&'static str, Map<String, Value>) {
    let mut out = Map::new();
    if let Some(mtu) = number(&link["mtu"]) {
        out.insert("mtu".into(), mtu);
    }
    match link["type"].as_str() {
        Some("bond") => {
            out.insert("interfaces".into(), link["bond_links"].clone());
            let mut parameters = Map::new();
            let names = [
                ("bond_mode", "mode"),
                ("bond_miimon", "mii-monitor-interval"),
                ("bond_xmit_hash_policy", "transmit-hash-policy"),
                ("bond_lacp_rate", "lacp-rate"),
            ];
            for (from, to) in names.iter().filter(|(from, _)| !link[*from].is_null()) {
                parameters.insert((*to).into(), link[*from].clone());
            }
            if !parameters.is_empty() {
                out.insert("parameters".into(), Value::Object(parameters));
            }
            ("bonds", out)
        }
        Some("vlan") => {
            out.insert("id".into(), number(&link["vlan_id"]).unwrap_or(Value::Null));
            out.insert("link".into(), link["vlan_link"].clone());
            if let Some(mac) = link["vlan_mac_address"].as_str() {
                out.insert("macaddress".into(), mac.into());
            }
            ("vlans", out)
        }
        _ => {
            if let Some(mac) = link["ethernet_mac_address"].as_str() {
                out.insert("match".into(), json!({"macaddress": mac.to_ascii_lowercase()}));
            } else if let Some(name) = link["name"].as_str() {
                out.insert("match".into(), json!({"name": name}));
            }
            if let Some(name) = link["name"].as_str() {
                out.insert("set-name".into(), name.into());
            }
            ("ethernets", out)
        }
    }
}

#[derive(Default)]
struct Addresses {
    any: bool,
    dhcp4: bool,
    dhcp6: bool,
    own: Vec<Value>,
    routes: Vec<Value>,
}

impl Addresses {
    fn network(&mut self, network: &Value) {
        self.any = true;
        match network["type"].as_str().unwrap_or_default() {
            "ipv4_dhcp" => self.dhcp4 = true,
            kind if kind.starts_with("ipv6_") => self.dhcp6 = true,
            _ => {
                let address = network["ip_address"].as_str().unwrap_or_default();
                self.own.push(with_prefix(address, &network["netmask"]).into());
            }
        }
        for route in network["routes"].as_array().into_iter().flatten() {
            let to = with_prefix(route["network"].as_str().unwrap_or_default(), &route["netmask"]);
            self.routes.push(json!({"to": to, "via": route["gateway"]}));
        }
        if let Some(gateway) = network["gateway"].as_str() {
            let all = if gateway.contains(':') { "::/0" } else { "0.0.0.0/0" };
            self.routes.push(json!({"to": all, "via": gateway}));
        }
    }

    /// Whether there was any network.
    fn finish(self, settings: &mut Map<String, Value>) -> bool {
        settings.insert("dhcp4".into(), self.dhcp4.into());
        settings.insert("dhcp6".into(), self.dhcp6.into());
        if !self.own.is_empty() {
            settings.insert("addresses".into(), self.own.into());
        }
        if !self.routes.is_empty() {
            settings.insert("routes".into(), self.routes.into());
        }
        self.any
    }
}

/// `10.0.0.0` with `255.0.0.0` is `10.0.0.0/8`.
fn with_prefix(address: &str, netmask: &Value) -> String {
    if address.contains('/') {
        return address.to_owned();
    }
    let ones = |mask: &str| match mask.parse() {
        Ok(std::net::IpAddr::V4(mask)) => u32::from(mask).count_ones(),
        Ok(std::net::IpAddr::V6(mask)) => u128::from(mask).count_ones(),
        Err(_) => mask.parse().unwrap_or(if address.contains(':') { 128 } else { 32 }),
    };
    let text = netmask.as_u64().map(|prefix| prefix.to_string());
    format!("{address}/{}", ones(text.as_deref().or(netmask.as_str()).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_become_sections() {
        let data = json!({
            "links": [
                {"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:AA:00:01", "mtu": "1500"},
                {"id": "b", "type": "phy", "name": "pxe"},
                {"id": "bond0", "type": "bond", "bond_links": ["a", "b"], "bond_mode": "802.3ad"},
                {"id": "v7", "type": "vlan", "vlan_id": 7, "vlan_link": "bond0"},
            ],
            "networks": [
                {"id": "1", "link": "bond0", "type": "ipv4", "ip_address": "10.0.0.2", "netmask": "255.255.255.0",
                 "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"}]},
                {"id": "2", "link": "v7", "type": "ipv6", "ip_address": "2001:db8::2", "netmask": "ffff:ffff::"},
                {"id": "3", "link": "b", "type": "ipv4_dhcp"},
            ],
            "services": [{"type": "dns", "address": "10.0.0.53"}],
        });
        let made: Value =
            serde_json::from_slice(&network_config(&serde_json::to_vec(&data).unwrap()).unwrap()).unwrap();
        assert_eq!(made["version"], 2);
        assert_eq!(
            made["ethernets"]["a"],
            json!({"mtu": 1500, "match": {"macaddress": "52:54:00:aa:00:01"}, "dhcp4": false, "dhcp6": false})
        );
        assert_eq!(made["ethernets"]["b"]["dhcp4"], true);
        let bond = &made["bonds"]["bond0"];
        assert_eq!(bond["addresses"], json!(["10.0.0.2/24"]));
        assert_eq!(bond["routes"], json!([{"to": "0.0.0.0/0", "via": "10.0.0.1"}]));
        assert_eq!(bond["nameservers"]["addresses"], json!(["10.0.0.53"]));
        assert_eq!(bond["parameters"]["mode"], "802.3ad");
        assert_eq!(made["vlans"]["v7"]["addresses"], json!(["2001:db8::2/32"]));
        assert!(network_config(b"no").is_err());
        assert!(meta_data(b"{}").is_err());
        let meta = meta_data(br#"{"uuid": "x", "hostname": "h"}"#).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&meta).unwrap(), json!({"instance-id": "x", "local-hostname": "h"}));
    }
}
