//! Seeds from files and documents, what is refused and where, what is found secret.

use super::*;
use crate::document::load_str;
use crate::kustomize::Selector;

const NETWORK: &str = "\
links:
- {id: oam, name: oam, type: phy, mtu: \"1500\"}
- {id: pxe, type: phy, ethernet_mac_address: '52:54:00:6c:99:85'}
- {id: bond0, type: bond, bond_links: [oam, pxe], bond_mode: 802.3ad}
- {id: v7, type: vlan, vlan_id: 7, vlan_link: bond0, vlan_mac_address: '52:54:00:6c:99:86'}
networks:
- id: oam-ipv4
  type: ipv4
  link: bond0
  ip_address: 10.23.25.102
  netmask: 255.255.255.0
  routes:
  - {network: 0.0.0.0, netmask: 0.0.0.0, gateway: 10.23.25.1}
- {id: six, type: ipv6, link: v7, ip_address: 2001:db8::2/64}
- {id: pxe-ipv4, type: ipv4_dhcp, link: pxe}
services:
- {type: dns, address: 8.8.8.8}
";
const USER: &str = "#cloud-config\nhostname: site-a\n";

fn bytes(text: &str) -> Input<'static> {
    Input::Bytes("given".into(), text.as_bytes().to_vec())
}

fn load_texts(user: &str, network: &str) -> Result<Seed> {
    let identity = Identity { site: "a".into(), hostname: None };
    load(&Request { user_data: bytes(user), network_data: bytes(network), identity })
}

fn from_documents(text: &str, user: Selection, network: Selection) -> Result<Seed> {
    let documents = load_str("site.yaml", text).unwrap();
    let input = |selection| Input::Documents(&documents, selection);
    load(&Request { user_data: input(user), network_data: input(network), identity: Identity::default() })
}

#[test]
fn yaml_becomes_json_and_json_stays() {
    let seed = load_texts(USER, NETWORK).unwrap();
    assert_eq!(seed.user_data, USER.as_bytes());
    let json: serde_json::Value = serde_json::from_slice(&seed.network_data).unwrap();
    assert_eq!(json["links"][0]["mtu"], "1500");
    assert_eq!(json["networks"][0]["routes"][0]["gateway"], "10.23.25.1");
    // As upstream's sample is written: with tabs.
    let odd = "{\n  \"links\": [\n\t{\"id\": \"ens3\",\n\t \"type\": \"phy\", \"ethernet_mac_address\": \"52:54:00:6c:99:85\"}],\n\t\"networks\": []}\n";
    let seed = load_texts(USER, odd).unwrap();
    assert_eq!(seed.network_data, odd.as_bytes());
    assert!(seed.secrets.is_empty());
}

#[test]
fn instances_derive_from_what_they_are_told() {
    let uuid = |site: &str, user: &str| {
        let identity = Identity { site: site.into(), hostname: None };
        let seed = load(&Request { user_data: bytes(user), network_data: bytes(NETWORK), identity }).unwrap();
        let meta: serde_json::Value = serde_json::from_slice(&seed.meta_data).unwrap();
        assert_eq!(meta["hostname"], "ephemeral");
        let again = Identity::of_meta_data(&seed.meta_data).unwrap();
        assert_eq!((again.site.as_str(), again.hostname.as_deref()), (site, Some("ephemeral")));
        uuid::Uuid::parse_str(meta["uuid"].as_str().unwrap()).unwrap()
    };
    assert_eq!(uuid("a", USER), uuid("a", USER));
    assert_ne!(uuid("a", USER), uuid("b", USER));
    assert_ne!(uuid("a", USER), uuid("a", "#cloud-config\nhostname: other\n"));
    assert_eq!(uuid("a", USER).get_version_num(), 5);
    assert!(Identity::of_meta_data(b"{}").is_err());
    assert!(Identity::of_meta_data(b"no").is_err());
}

/// `given:line:column` of the first place where a text has a word, counted in characters.
fn place(text: &str, word: &str) -> String {
    let before = &text[..text.find(word).unwrap_or_else(|| panic!("{word}"))];
    let column = before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
    format!("given:{}:{column}", before.lines().count().max(1) + usize::from(before.ends_with('\n')))
}

/// One mistake each: what takes the place of what, the word that is marked, and the message.
#[test]
fn mistakes_in_network_data_have_places() {
    let card = "pxe, type: phy, ethernet_mac_address: '52:54:00:6c:99:85'";
    for (from, to, marked, message) in [
        ("type: phy, mtu", "type: phi, mtu", "phi", "unknown type of link `phi`"),
        ("\"1500\"", "12}", "12}", "the MTU of link `oam` has to be a number from 68 to 65535, found integer `12`"),
        ("'52:54:00:6c:99:85'", "'52:54:00:6c:99'", "'52:54:00:6c:99'", "string `52:54:00:6c:99` is no MAC address"),
        (card, "pxe, type: phy", "{id: pxe", "link `pxe` has neither `ethernet_mac_address` nor `name`"),
        ("[oam, pxe]", "[oam, pxy]", "pxy", "link `bond0` names the link `pxy`, which is not there"),
        ("802.3ad", "fast", "fast", "unknown mode of a bond `fast`"),
        (
            "vlan_id: 7",
            "vlan_id: 4095",
            "4095",
            "the VLAN id of link `v7` has to be a number from 1 to 4094, found integer `4095`",
        ),
        ("link: bond0\n", "link: bond1\n", "bond1", "network `oam-ipv4` names the link `bond1`, which is not there"),
        ("type: ipv4\n", "type: ipv5\n", "ipv5", "unknown type of network `ipv5`"),
        ("10.23.25.102", "10.23.25.300", "10.23.25.300", "string `10.23.25.300` is no IPv4 address"),
        ("netmask: 255.255.255.0", "netmask: 255.0.255.0", "255.0.255.0", "string `255.0.255.0` is no netmask"),
        ("  netmask: 255.255.255.0\n", "", "id: oam-ipv4", "network `oam-ipv4` has no `netmask`"),
        ("gateway: 10.23.25.1}", "gateway: gw}", "gw}", "string `gw` is no IPv4 gateway"),
        ("2001:db8::2/64", "2001:db8::2/129", "2001:db8::2/129", "string `2001:db8::2/129` is no IPv6 address"),
        ("type: dns", "type: ntp", "ntp", "unknown type of service `ntp`"),
        ("8.8.8.8", "dns.example", "dns.example", "string `dns.example` is no address of a service"),
        ("id: pxe,", "id: bond0,", "bond0, type: bond", "more than one link is called `bond0`"),
        ("services:", "service:", "service:", "`service` is no part of OpenStack network data"),
        ("links:\n", "linx: 7\nlinks:\n", "linx", "`linx` is no part of OpenStack network data"),
    ] {
        let wrong = NETWORK.replacen(from, to, 1);
        assert_ne!(wrong, NETWORK, "{from}");
        let wrong = wrong.replace("12}}", "12}");
        let error = load_texts(USER, &wrong).unwrap_err();
        assert!(
            error.message().starts_with(&format!("{}: {message}", place(&wrong, marked))),
            "{from} -> {to}: {error}"
        );
        assert_eq!(error.kind(), crate::error::Kind::Documents);
        assert_eq!(error.place().unwrap().0, "given");
    }
    assert!(load_texts(USER, &NETWORK.replacen("networks:", "x: [", 1)).is_err());
    let error = load_texts(USER, "version: 2\nethernets: {}\n").unwrap_err();
    assert!(error.hints().iter().any(|hint| hint.contains("netplan")), "{error:?}");
    assert!(load_texts(USER, "[]").is_err());
    assert!(load_texts(USER, "").is_err());
    assert!(load_texts(USER, "# nothing\n").is_err());
}

#[test]
fn user_data_is_something_that_cloud_init_knows() {
    for good in [
        USER,
        "#!/bin/sh\necho hello\n",
        "## template: jinja\n#cloud-config\n{{ x }}: [\n",
        "Content-Type: multipart/mixed; boundary=\"x\"\nMIME-Version: 1.0\n\n",
        "#cloud-config\n",
        "#include\nhttp://example.org/\n",
    ] {
        load_texts(good, NETWORK).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for (bad, message) in [
        ("", "given: the user data is empty"),
        ("hostname: x\n", "given: the user data does not begin with a line that cloud-init knows"),
        ("# cloud-config\nhostname: x\n", "given: the user data does not begin with a line that cloud-init knows"),
        ("#cloud-config\n- a\n", "given:2:1: expected a mapping, found a list"),
        ("#cloud-config\na: 1\n---\nb: 2\n", "given:4:1: the user data has more than one YAML document"),
        ("#cloud-config\nruncmd: ls\n", "given:2:9: `runcmd` is a scalar; it has to be a list"),
        (
            "#cloud-config\nwrite_files:\n- {path: etc/x}\n",
            "given:3:10: an entry of `write_files` has no absolute `path`",
        ),
        ("#cloud-config\nwrite_files:\n- {path: /x, permissions: rw}\n", "given:3:27: `rw` are no permissions"),
        ("#cloud-config\na: [\n", "given:2:4: "),
    ] {
        let error = load_texts(bad, NETWORK).unwrap_err();
        assert!(error.message().starts_with(message), "{bad:?}: {error}");
    }
    // The line that does not parse holds a password.
    let error = load_texts("#cloud-config\npassword: \"hunter2\n", NETWORK).unwrap_err();
    assert!(!format!("{error} {:?}", error.rendered_snippet()).contains("hunter2"), "{error}");
    let binary = Input::Bytes("given".into(), vec![0xFF, 0xFE, 0]);
    let request = Request { user_data: binary, network_data: bytes(NETWORK), identity: Identity::default() };
    assert!(load(&request).unwrap_err().to_string().contains("neither text nor compressed"));
}

#[test]
fn secrets_are_listed_without_their_values() {
    let key = "-----BEGIN RSA PRIVATE KEY-----\nAAAAhunter2\n-----END RSA PRIVATE KEY-----\n";
    let packed = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key);
    let indented = key.replace('\n', "\n    ");
    let user = format!(
        "#cloud-config
password: hunter2
users:
- default
- {{name: root, plain_text_passwd: hunter2}}
- {{name: deployer, passwd: $6$hunter2}}
- {{name: locked, passwd: '!'}}
chpasswd:
  list: |
    admin:hunter2
    random:RANDOM
write_files:
- path: /etc/ca.key
  content: |
    {indented}
- {{path: /etc/packed.key, encoding: b64, content: {packed}}}
- {{path: /etc/admin.conf, content: \"users:\\n- user:\\n    client-key-data: hunter2\\n\"}}
- {{path: /etc/ca.crt, content: \"-----BEGIN CERTIFICATE-----\"}}
"
    );
    let seed = load_texts(&user, NETWORK).unwrap();
    let found: Vec<String> = seed.secrets.iter().map(ToString::to_string).collect();
    let at = |word: &str, text: &str| format!("{}: {text}", place(&user, word));
    assert_eq!(
        found,
        [
            at("\"users:\\n", "key or token in clear text of `/etc/admin.conf`"),
            at("-----BEGIN RSA", "private key of `/etc/ca.key`"),
            at(&packed, "private key of `/etc/packed.key`"),
            at("admin:hunter2", "password of `admin`"),
            at("$6$", "password hash of `deployer`"),
            at("hunter2", "password of `password`"),
            at("hunter2}", "password of `root`"),
        ]
    );
    assert!(!format!("{seed:?}").contains("hunter2"));
    let script = load_texts(&format!("#!/bin/sh\ncat > /x <<E\n{key}E\n"), NETWORK).unwrap();
    assert_eq!(script.secrets[0].to_string(), "given:3: private key of `user data`");
}

fn site(user: &str, network: &str) -> String {
    let block = |text: &str| text.replace('\n', "\n    ");
    format!(
        "apiVersion: v1
kind: Secret
metadata:
  name: iso-user-data
  namespace: target-infra
  labels: {{airshipit.org/ephemeral-user-data: \"true\"}}
stringData:
  userData: |
    {}
---
apiVersion: metal3.io/v1alpha1
kind: BareMetalHost
metadata:
  name: node01
  labels: {{airshipit.org/ephemeral-node: \"true\"}}
spec:
  networkData: {{name: node01-network-data, namespace: target-infra}}
---
apiVersion: v1
kind: Secret
metadata: {{name: node01-network-data, namespace: target-infra}}
stringData:
  networkData: |
    {}
",
        block(user),
        block(network)
    )
}

#[test]
fn documents_are_found_as_airshipctl_finds_them() {
    let text = site(USER, NETWORK);
    let seed = from_documents(&text, Selection::default(), Selection::default()).unwrap();
    assert_eq!(seed.user_data, USER.as_bytes());
    let meta: serde_json::Value = serde_json::from_slice(&seed.meta_data).unwrap();
    assert_eq!(meta["hostname"], "node01");
    // By name, with a key of its own, and in base64.
    let packed = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "#!/bin/sh\n");
    let more = format!(
        "{text}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: other}}\ndata: {{mine: {packed}}}\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: wrong}}\ndata: {{mine: '?'}}\n"
    );
    let named = |name: &str, key: &str| Selection {
        selector: Some(Selector { kind: Some("Secret".into()), name: Some(name.into()), ..Selector::default() }),
        key: Some(key.into()),
    };
    let seed = from_documents(&more, named("other", "mine"), Selection::default()).unwrap();
    assert_eq!(seed.user_data, b"#!/bin/sh\n");
    for (selection, message) in [
        (named("none", "mine"), "no document holds the user data: there is no Secret called `none`"),
        (named("other", "x"), "site.yaml:"),
        (named("wrong", "mine"), "`data.mine` is not base64"),
        (named("other|wrong", "mine"), "more than one document holds the user data"),
    ] {
        let error = from_documents(&more, selection, Selection::default()).unwrap_err();
        assert!(error.to_string().contains(message), "{message}: {error}");
    }
}

#[test]
fn places_inside_a_block_are_those_of_the_file() {
    let text = site(USER, &NETWORK.replace("10.23.25.102", "10.23.25.300"));
    let line = text.lines().position(|line| line.contains("10.23.25.300")).unwrap() + 1;
    let error = from_documents(&text, Selection::default(), Selection::default()).unwrap_err();
    let (file, at, column) = error.place().unwrap();
    assert_eq!((file, at as usize, column), ("site.yaml", line, 19), "{error}");
    let text = site("#cloud-config\nruncmd: ls\n", NETWORK);
    let error = from_documents(&text, Selection::default(), Selection::default()).unwrap_err();
    assert_eq!(error.place().unwrap(), ("site.yaml", 10, 13), "{error}");
}

#[test]
fn hosts_without_network_data_are_refused() {
    let reference = "networkData: {name: node01-network-data, namespace: target-infra}";
    for (from, to, message) in [
        (
            reference,
            "networkData: {namespace: x}",
            "site.yaml:19:16: this BareMetalHost has no `spec.networkData.name`",
        ),
        (
            reference,
            "networkData: {name: x}",
            "site.yaml:19:16: this BareMetalHost has no `spec.networkData.namespace`",
        ),
        (reference, "networkData: {name: x, namespace: y}", "site.yaml:19:23: there is no Secret `x` in namespace `y`"),
        (reference, "online: true", "site.yaml:19:3: this BareMetalHost has no `spec.networkData.name`"),
        ("airshipit.org/ephemeral-node: \"true\"", "a: b", "there is no BareMetalHost with label"),
    ] {
        let text = site(USER, NETWORK);
        let wrong = text.replacen(from, to, 1);
        assert_ne!(text, wrong);
        let error = from_documents(&wrong, Selection::default(), Selection::default()).unwrap_err();
        assert!(error.to_string().contains(message), "{message}: {error}");
    }
}

#[test]
fn files_are_read_and_written_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("user"), USER).unwrap();
    std::fs::write(path("net.yaml"), NETWORK).unwrap();
    let request = |user: &str| Request {
        user_data: Input::File(path(user)),
        network_data: Input::File(path("net.yaml")),
        identity: Identity::default(),
    };
    let error = load(&request("none")).unwrap_err();
    assert!(error.to_string().contains("/none"), "{error}");
    let seed = load(&request("user")).unwrap();
    seed.write(&path("out")).unwrap();
    for (name, bytes) in seed.files() {
        let file = path("out").join(name);
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn nothing_hostile_ends_in_a_panic() {
    for text in [
        "links: [1, {id: 1}, {id: [], type: {}}]\nnetworks: [x, {id: a, type: ipv4, link: {}, routes: [1]}]\nservices: {}\n",
        "links: [{id: a, type: bond}]\nnetworks: null\nservices: [{}]\n",
        "{links: {}, networks: [[]]}",
        "? [a]\n: b\n",
        "&a [*a]\n",
    ] {
        assert!(load_texts(USER, text).is_err(), "{text}");
    }
}
