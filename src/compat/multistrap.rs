//! `multistrap-vars.yaml`: packages and repositories.
//!
//! Owns: the meaning of each variable of upstream's role `multistrap`.

use super::overlay::{Overlay, key as key_at, mapping_of};
use super::variables::{Table, ignored, known_keys, list, required, sets, text};
use crate::document::{Diagnostic, Key, Node, Origin};
use crate::error::Result;

pub(super) const TABLE: Table = &[
    sets("rootfs_arch", "`distribution.architecture`", rootfs_arch),
    sets("repos", "`distribution.repositories`, replaced; packages listed there replace `software.packages`", repos),
    sets("ubuntu_packages", "`software.packages`, replaced; known ones stay in their layer", packages),
    sets("repos_append", "entries of `distribution.repositories`, and their packages", repos_append),
    sets("ubuntu_packages_append", "entries of `software.packages`", packages_append),
    sets("unapproved_packages", "`software.unapproved_packages`, replaced", unapproved_packages),
    sets("kernel_base_pkg", "the kernel in `software.packages`, replaced", kernel_base_pkg),
    sets("kernel_headers_pkg", "an entry of `software.packages`", kernel_headers_pkg),
    sets("k8s_version", "`software.packages`: `kubeadm`, `kubectl` and `kubelet` of this version", k8s_version),
    sets("systemd_nic_names_policy", "`networking.systemd_nic_names_policy`", nic_names_policy),
    sets(
        "systemd_nic_alternative_names_policy",
        "`networking.systemd_nic_alternative_names_policy`",
        nic_alternative_names_policy,
    ),
    ignored("rootfs_root"),
    ignored("multistrap_retries"),
    ignored("multistrap_retries_delay"),
];

const PACKAGES: [&str; 2] = ["software", "packages"];

fn rootfs_arch(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    text(value, "an architecture")?;
    overlay.set(&["distribution", "architecture"], value.clone(), key);
    Ok(())
}

fn nic_names_policy(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    text(value, "a naming policy")?;
    overlay.set(&["networking", "systemd_nic_names_policy"], value.clone(), key);
    Ok(())
}

fn nic_alternative_names_policy(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    text(value, "a naming policy")?;
    overlay.set(&["networking", "systemd_nic_alternative_names_policy"], value.clone(), key);
    Ok(())
}

/// Replaces the list; a package that the release function has as well stays in its layer.
fn packages(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    let mut pairs = Vec::new();
    for item in list(value, "packages")? {
        pairs.push(package(overlay, item)?);
    }
    overlay.set(&PACKAGES, mapping_of(pairs, &value.origin.at), key);
    Ok(())
}

fn packages_append(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    for item in list(value, "packages")? {
        let (name, package) = package(overlay, item)?;
        overlay.set(&[PACKAGES[0], PACKAGES[1], &name.text], package, key);
    }
    Ok(())
}

/// `name` or `name=version` as an entry of `software.packages`.
fn package(overlay: &Overlay, item: &Node) -> Result<(Key, Node)> {
    let wanted = text(item, "a package name")?;
    let at = &item.origin.at;
    let (name, version) = match wanted.split_once('=') {
        Some((name, version)) => (name, Some(version)),
        None => (wanted, None),
    };
    let mut pairs = Vec::new();
    if let Some(layer) = overlay.get(&[PACKAGES[0], PACKAGES[1], name, "layer"]) {
        pairs.push((key_at("layer", at), layer.clone()));
    }
    if let Some(version) = version {
        pairs.push((key_at("version", at), Node::string(version, item.origin.clone())));
    }
    Ok((key_at(name, at), mapping_of(pairs, at)))
}

fn unapproved_packages(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    overlay.set(&["software", "unapproved_packages"], set(value, "packages")?, key);
    Ok(())
}

/// A list of names as a set.
fn set(value: &Node, what: &str) -> Result<Node> {
    let mut pairs = Vec::new();
    for item in list(value, what)? {
        let at = &item.origin.at;
        pairs.push((key_at(text(item, "a name")?, at), mapping_of([], at)));
    }
    Ok(mapping_of(pairs, &value.origin.at))
}

/// Takes the place of the release function's kernel.
fn kernel_base_pkg(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    let own = overlay.get(&PACKAGES).and_then(Node::as_mapping).map(|packages| {
        let names = packages.entries.iter().map(|entry| entry.key.text.clone());
        names.filter(|name| name.starts_with("linux-image-")).collect::<Vec<_>>()
    });
    for name in own.unwrap_or_default() {
        overlay.remove(&PACKAGES, &name);
    }
    distribution_package(overlay, key, value)
}

fn kernel_headers_pkg(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    distribution_package(overlay, key, value)
}

fn distribution_package(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    let name = text(value, "a package name")?;
    let layer = (key_at("layer", &value.origin.at), Node::string("distribution", value.origin.clone()));
    overlay.set(&[PACKAGES[0], PACKAGES[1], name], mapping_of([layer], &value.origin.at), key);
    Ok(())
}

/// Pins the three packages of Kubernetes; their repository is one of `repos_append`.
fn k8s_version(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    let version = text(value, "a version")?;
    for name in ["kubeadm", "kubectl", "kubelet"] {
        let pin = (key_at("version", &value.origin.at), Node::string(version, value.origin.clone()));
        overlay.set(&[PACKAGES[0], PACKAGES[1], name], mapping_of([pin], &value.origin.at), key);
    }
    Ok(())
}

/// Replaces all repositories; when they list packages of their own, these replace the package list as well.
fn repos(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    let entries = list(value, "repositories")?;
    let mut repositories = Vec::new();
    let mut named: Vec<Node> = Vec::new();
    for entry in entries {
        let (name, repository) = repository(entry, entries)?;
        repositories.push((name, repository));
        named.extend(own_packages(entry)?.iter().cloned());
    }
    overlay.set(&["distribution", "repositories"], mapping_of(repositories, &value.origin.at), key);
    match named.is_empty() {
        true => Ok(()),
        false => packages(overlay, key, &Node::sequence(named, value.origin.clone())),
    }
}

fn repos_append(overlay: &mut Overlay, key: &Key, value: &Node) -> Result<()> {
    let entries = list(value, "repositories")?;
    for entry in entries {
        let (name, repository) = repository(entry, entries)?;
        overlay.set(&["distribution", "repositories", &name.text], repository, key);
        let own = own_packages(entry)?.to_vec();
        packages_append(overlay, key, &Node::sequence(own, entry.origin.clone()))?;
    }
    Ok(())
}

/// The packages a repository entry lists itself; upstream's reference to the general list adds none.
fn own_packages(entry: &Node) -> Result<&[Node]> {
    match entry.get("packages") {
        None => Ok(&[]),
        Some(packages) if packages.text().is_some_and(|text| text.trim() == "{{ ubuntu_packages }}") => Ok(&[]),
        Some(packages) => list(packages, "packages"),
    }
}

const REPOSITORY: &[&str] = &[
    "name",
    "packages",
    "source",
    "suite",
    "components",
    "register_repo_with_rootfs",
    "keyring",
    "keyring_pkg",
    "keyring_url",
    "omitdebsrc",
    "priority",
];

fn repository(entry: &Node, all: &[Node]) -> Result<(Key, Node)> {
    known_keys(entry, "a repository", REPOSITORY)?;
    let name = required(entry, "name", "a repository")?;
    let mut pairs = Vec::new();
    for field in ["source", "suite"] {
        let value = required(entry, field, "a repository")?;
        text(value, "text")?;
        pairs.push((key_at(field, &value.origin.at), value.clone()));
    }
    let components = required(entry, "components", "a repository")?;
    let words = text(components, "components separated by blanks")?.split_whitespace();
    let at = &components.origin.at;
    let members = words.map(|word| (key_at(word, at), mapping_of([], at)));
    pairs.push((key_at("components", at), mapping_of(members, at)));
    let keyring = keyring(entry, all)?;
    pairs.push((key_at("keyring", &keyring.origin.at), keyring));
    for field in ["register_repo_with_rootfs", "priority"] {
        if let Some(value) = entry.get(field) {
            pairs.push((key_at(field, &value.origin.at), value.clone()));
        }
    }
    Ok((key_at(text(name, "a name")?, &name.origin.at), mapping_of(pairs, &entry.origin.at)))
}

/// Upstream names the keyring once per source and leaves it out for the other suites of it.
fn keyring(entry: &Node, all: &[Node]) -> Result<Node> {
    let own = own_keyring(entry)?;
    let source = entry.get("source").and_then(Node::text).map(|source| source.trim_end_matches('/'));
    let same =
        |other: &&Node| other.get("source").and_then(Node::text).map(|text| text.trim_end_matches('/')) == source;
    let shared = || all.iter().filter(same).find_map(|other| own_keyring(other).ok().flatten());
    own.or_else(shared).ok_or_else(|| {
        Diagnostic::on(entry, "a repository without `keyring_pkg` or `keyring`")
            .hint("name a keyring: `keyring_pkg: debian-archive-keyring`, `keyring: /path/to/key.gpg`")
            .into()
    })
}

fn own_keyring(entry: &Node) -> Result<Option<Node>> {
    let shipped = |name: &str, origin: &Origin| Some(Node::string(name, origin.clone()));
    if let Some(keyring) = entry.get("keyring") {
        return Ok(Some(keyring.clone()));
    }
    if let Some(package) = entry.get("keyring_pkg") {
        return match package.text() {
            Some("debian-archive-keyring") => Ok(shipped("debian-archive", &package.origin)),
            Some("ubuntu-keyring" | "ubuntu-archive-keyring") => Ok(shipped("ubuntu-archive", &package.origin)),
            _ => Err(Diagnostic::on(package, "unknown keyring package")
                .hint("known ones: `debian-archive-keyring`, `ubuntu-keyring`; else name a file with `keyring`")
                .into()),
        };
    }
    match entry.get("keyring_url") {
        None => Ok(None),
        Some(address) => Err(Diagnostic::on(address, "`keyring_url` is not available yet")
            .hint("download the key, compare its fingerprint, and name the file with `keyring: /path/to/key.gpg`")
            .into()),
    }
}
