//! Parameters as documents have them -> complete parameters: nothing absent, nothing implied.
//!
//! Owns: what `drivers` means in packages, and which defaults are written out.

use crate::api::Params;
use crate::api::params::distribution::Empty;
use crate::api::params::software::{Layer, Package, State};
use crate::api::params::{Distribution, Drivers};

/// Non-free firmware for network and storage adapters, by release.
const FIRMWARE: &[(&str, &[&str])] = &[
    (
        "bookworm",
        &[
            "firmware-bnx2",
            "firmware-bnx2x",
            "firmware-cavium",
            "firmware-misc-nonfree",
            "firmware-myricom",
            "firmware-netronome",
            "firmware-netxen",
            "firmware-qlogic",
            "firmware-realtek",
        ],
    ),
    (
        "trixie",
        &[
            "firmware-bnx2",
            "firmware-bnx2x",
            "firmware-cavium",
            "firmware-intel-misc",
            "firmware-misc-nonfree",
            "firmware-myricom",
            "firmware-netronome",
            "firmware-netxen",
            "firmware-qlogic",
            "firmware-realtek",
        ],
    ),
    ("focal", &["linux-firmware"]),
    ("jammy", &["linux-firmware"]),
    ("noble", &["linux-firmware"]),
];

const MICROCODE: &[&str] = &["amd64-microcode", "intel-microcode"];

/// Debian keeps both in a component of its own; Ubuntu has them in `main`.
const DEBIAN_COMPONENT: &str = "non-free-firmware";
const DEBIAN_KEYRING: &str = "debian-archive";

pub(super) fn normalise(params: &mut Params) {
    drivers(params);
    snapshots(&mut params.distribution);
    let software = &mut params.software;
    software.packages.retain(|_, package| package.state == State::Present);
    let architecture = params.distribution.architecture().to_owned();
    params.distribution.architecture = Some(architecture);
    params.storage.partitions = params.storage.effective_partitions();
}

/// Every repository says for itself which snapshot it is taken from.
fn snapshots(distribution: &mut Distribution) {
    let common = distribution.snapshot.take();
    for repository in distribution.repositories.values_mut() {
        repository.snapshot = match repository.snapshot.take() {
            None => common.clone(),
            Some(word) if word == "none" => None,
            own => own,
        };
        if repository.snapshot.is_none() {
            // It would only say where a snapshot could be.
            repository.snapshot_source = None;
        }
    }
}

fn drivers(params: &mut Params) {
    let mut wanted: Vec<&str> = Vec::new();
    if params.drivers.non_free_firmware {
        let release = params.distribution.release.as_str();
        wanted.extend(FIRMWARE.iter().filter(|(name, _)| *name == release).flat_map(|(_, packages)| *packages));
    }
    if params.drivers.microcode {
        wanted.extend(MICROCODE);
    }
    if wanted.is_empty() {
        return;
    }
    // From here on the packages say it; a second round must not bring back one that the documents took out.
    params.drivers = Drivers::default();
    for name in wanted {
        // An entry of the documents wins: it may take a package out or pin its version.
        let package = Package { layer: Layer::Distribution, ..Package::default() };
        params.software.packages.entry(name.to_owned()).or_insert(package);
    }
    if params.distribution.name == "debian" {
        for repository in params.distribution.repositories.values_mut() {
            if repository.keyring == DEBIAN_KEYRING && !repository.components.is_empty() {
                repository.components.entry(DEBIAN_COMPONENT.to_owned()).or_insert(Empty {});
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::params::distribution::Repository;
    use crate::api::release::RELEASES;

    fn params() -> Params {
        let mut params = Params::default();
        params.distribution.name = "debian".into();
        params.distribution.release = "bookworm".into();
        let own = Repository {
            keyring: DEBIAN_KEYRING.into(),
            components: [("main".to_owned(), Empty {})].into(),
            ..Repository::default()
        };
        params.distribution.repositories.insert("vendor".into(), Repository { keyring: "/x".into(), ..own.clone() });
        params.distribution.repositories.insert("debian".into(), own);
        params
    }

    #[test]
    fn firmware_brings_packages_and_their_component() {
        let mut params = params();
        params.drivers.non_free_firmware = true;
        params
            .software
            .packages
            .insert("firmware-realtek".into(), Package { state: State::Absent, ..Package::default() });
        normalise(&mut params);
        assert_eq!(params.software.packages["firmware-bnx2"].layer, Layer::Distribution);
        assert!(!params.software.packages.contains_key("firmware-realtek"), "the documents took it out");
        assert!(params.distribution.repositories["debian"].components.contains_key(DEBIAN_COMPONENT));
        assert!(!params.distribution.repositories["vendor"].components.contains_key(DEBIAN_COMPONENT));
    }

    #[test]
    fn without_drivers_nothing_is_added() {
        let mut params = params();
        normalise(&mut params);
        assert!(params.software.packages.is_empty());
        assert_eq!(params.storage.partitions.len(), 4);
        assert_eq!(params.distribution.repositories["debian"].components.len(), 1);
    }

    #[test]
    fn a_snapshot_of_the_distribution_goes_to_its_repositories() {
        let mut params = params();
        params.distribution.snapshot = Some("20261101T000000Z".into());
        params.distribution.repositories.get_mut("vendor").unwrap().snapshot = Some("none".into());
        normalise(&mut params);
        let of = |params: &Params, name: &str| params.distribution.repositories[name].snapshot.clone();
        assert_eq!(of(&params, "debian").as_deref(), Some("20261101T000000Z"));
        assert_eq!((of(&params, "vendor"), &params.distribution.snapshot), (None, &None));
        let once = params.clone();
        normalise(&mut params);
        assert_eq!(params, once, "a second round changes nothing");
    }

    #[test]
    fn every_release_knows_its_firmware() {
        for release in &RELEASES {
            assert!(FIRMWARE.iter().any(|(name, packages)| *name == release.name && !packages.is_empty()));
        }
    }
}
