//! The shipped documents as Intents: golden files for every release and role, and one plan for both ways in.
//!
//! `UPDATE_EXPECTED=1 cargo test --test intents` writes the golden files anew.

use std::path::Path;

use imagebuilder::api::release::RELEASES;
use imagebuilder::package::lock::asked::Asked;
use imagebuilder::package::lock::{Lock, LockedLayer, LockedPackage};
use imagebuilder::plan::{self, Intent, LockedPlan, StepName};
use imagebuilder::tree::Digest;
use imagebuilder::{compat, phase};

const ROLES: [&str; 2] = ["control-plane", "data-plane"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bundle(role: &str, distro: &str) -> Intent {
    plan::load_bundle(&root().join("config"), role, distro).unwrap()
}

/// A lock that answers exactly what an Intent asks for.
fn lock(intent: &Intent) -> Lock {
    let request = intent.package_request();
    let layer = |layer: &imagebuilder::package::lock::LayerRequest| LockedLayer {
        layer: layer.layer,
        packages: layer
            .packages
            .iter()
            .map(|package| LockedPackage {
                name: package.name.clone(),
                version: package.version.clone().unwrap_or_else(|| "1".into()),
                architecture: request.architecture.clone(),
                size: 1,
                sha256: Digest::of(package.name.as_bytes()),
                automatic: false,
                repository: "debian".into(),
                path: format!("pool/{}.deb", package.name),
            })
            .collect(),
        manual: Vec::new(),
    };
    let mut lock = Lock {
        architecture: request.architecture.clone(),
        asked: Asked::of(&request),
        layers: request.layers.iter().map(layer).collect(),
        epoch: Some(1_700_000_000),
        ..Lock::default()
    };
    plan::locked::complete(&mut lock, intent);
    lock
}

fn compare_with_golden(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(path)
        .unwrap_or_else(|_| panic!("{} is not there: see the head of this test", path.display()));
    for (number, (expected, actual)) in (1..).zip(expected.lines().zip(actual.lines())) {
        assert_eq!(expected, actual, "line {number} of {}", path.display());
    }
    assert_eq!(expected, actual, "{}", path.display());
}

#[test]
fn golden_intents_of_every_release_and_role() {
    for release in &RELEASES {
        for role in ROLES {
            let intent = bundle(role, release.distro);
            assert!(intent.warnings.is_empty(), "{} {role}: {:?}", release.distro, intent.warnings);
            let path = root().join(format!("tests/golden/intents/{}-{role}.yaml", release.function));
            compare_with_golden(&path, &intent.to_yaml());
        }
    }
}

#[test]
fn config_and_site_documents_give_one_plan() {
    let site = phase::Site::discover(None, root()).unwrap();
    for role in ROLES {
        let of_site = phase::load(&site, &format!("build-qcow-{role}")).unwrap();
        let of_config = bundle(role, RELEASES[0].distro);
        assert_eq!(of_site.to_yaml(), of_config.to_yaml());
        assert_eq!(of_site, of_config);
        let plan = LockedPlan::new(&of_site, &lock(&of_site)).unwrap();
        assert_eq!(plan, LockedPlan::new(&of_config, &lock(&of_config)).unwrap());
        // Without an executor the entry point alone gives the same plan.
        let entry = root().join(format!("manifests/site/example/target/{role}/image"));
        let alone = plan::load_entry_point(&entry).unwrap();
        assert_eq!(plan, LockedPlan::new(&alone, &lock(&alone)).unwrap());
    }
}

#[test]
fn roles_share_the_layers_below_them() {
    for release in &RELEASES {
        let plans = ROLES.map(|role| {
            let intent = bundle(role, release.distro);
            LockedPlan::new(&intent, &lock(&intent)).unwrap()
        });
        for (one, other) in plans[0].steps.iter().zip(&plans[1].steps) {
            let shared = matches!(one.step.name(), "rootfs/base" | "rootfs/distribution");
            assert_eq!(one.digest == other.digest, shared, "{} {}", release.distro, one.step.name());
        }
    }
}

#[test]
fn a_sysctl_changes_osconfig_and_what_follows_only() {
    let intent = bundle("control-plane", "debian_bookworm");
    let mut edited = intent.clone();
    edited.params.kernel.sysctl.insert("vm.swappiness".into(), "1".into());
    let locked = lock(&intent);
    let (before, after) = (LockedPlan::new(&intent, &locked).unwrap(), LockedPlan::new(&edited, &locked).unwrap());
    assert_ne!(before.digest, after.digest);
    for name in StepName::ALL {
        let redone = matches!(name, StepName::Osconfig | StepName::Seal | StepName::Pack);
        assert_eq!(before.digest_of(name) != after.digest_of(name), redone, "{}", name.name());
    }
}

#[test]
fn a_package_of_the_role_leaves_the_layers_below_alone() {
    let intent = bundle("control-plane", "debian_bookworm");
    let mut edited = intent.clone();
    edited.params.software.packages.insert("tcpdump".into(), Default::default());
    let before = LockedPlan::new(&intent, &lock(&intent)).unwrap();
    let after = LockedPlan::new(&edited, &lock(&edited)).unwrap();
    let same: Vec<&str> = StepName::ALL
        .into_iter()
        .filter(|name| before.digest_of(*name) == after.digest_of(*name))
        .map(StepName::name)
        .collect();
    assert_eq!(same, ["rootfs/base", "rootfs/distribution"]);
}

#[test]
fn the_plan_says_nothing_about_places_and_secrets() {
    let mut intent = bundle("data-plane", "debian_bookworm");
    let hash = format!("$6$salt${}", "x".repeat(86));
    intent.params.users.get_mut("root").unwrap().password = Some(hash.replace('x', "y"));
    let before = LockedPlan::new(&intent, &lock(&intent)).unwrap();
    intent.params.users.get_mut("root").unwrap().password = Some(hash.clone());
    let secret = LockedPlan::new(&intent, &lock(&intent)).unwrap();
    assert_eq!((&before.digest, &before.metadata), (&secret.digest, &secret.metadata));
    assert_ne!(before.digest_of(StepName::Osconfig), secret.digest_of(StepName::Osconfig), "the result differs");
    let metadata = String::from_utf8(secret.metadata.clone()).unwrap();
    for text in [secret.to_yaml(), metadata.clone(), intent.to_yaml(), intent.effective_yaml()] {
        assert!(!text.contains(&hash) && !text.contains(".yaml") && !text.contains("pool/"), "{text}");
    }
    assert!(metadata.contains("kind: AirshipImage") && metadata.contains("lockVersion: 2"));
}

#[test]
fn values_know_their_line() {
    // Tests run in the folder of the package: a relative workdir gives relative names everywhere.
    let intent = plan::load_bundle(Path::new("config"), "data-plane", "debian_bookworm").unwrap();
    let at = |path: &[&str]| intent.origin(path).unwrap();
    assert!(at(&["kernel", "sysctl", "kernel.pid_max"]).starts_with("functions/node-profile/base/kernel.yaml:"));
    assert!(at(&["storage", "qcow_capacity"]).starts_with("config/qcow-bundle/data-plane/qcow-vars.yaml:3:"));
    assert!(intent.origins().iter().all(|entry| !entry.chain[0].starts_with('/')));
    let origins = intent.origins();
    let hugepages = origins.iter().find(|entry| entry.path == "/spec/params/kernel/commandLine/6/value").unwrap();
    assert!(hugepages.chain[0].starts_with("config/qcow-bundle/data-plane/osconfig-vars.yaml:9:"), "{hugepages:?}");
    let site = phase::Site::discover(None, Path::new(".")).unwrap();
    let intent = phase::load(&site, "build-qcow-data-plane").unwrap();
    let place = intent.origin(&["storage", "qcow_capacity"]).unwrap();
    assert!(place.starts_with("manifests/site/example/target/data-plane/node-profile/storage.yaml:"), "{place}");
    assert!(intent.origins().iter().all(|entry| !entry.chain[0].starts_with('/')));
    assert_eq!(intent.origin(&["kernel", "sysctl", "not.there"]), intent.origin(&["kernel", "sysctl"]));
}

#[test]
fn every_bundle_is_listed() {
    assert_eq!(compat::bundles(&root().join("config")).unwrap(), ROLES);
}
