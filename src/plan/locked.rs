//! Intent and Lock together: ordered steps, each with the digest of its inputs.
//!
//! Owns: [`LockedPlan`], which inputs count for which step, and the metadata an image carries. Inputs only: no
//! origins, no clock, and secrets at most inside a digest. A step whose digest is in the store need not be run again;
//! two LockedPlans that are equal give the same bytes.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::json;

use super::drift;
use super::intent::{self, Intent};
use super::meta;
use crate::api::Params;
use crate::api::params::distribution::Empty;
use crate::api::params::software::Layer;
use crate::error::{Error, Result};
use crate::package::lock::{Lock, LockedLayer};
use crate::tree::Digest;

/// A step of a build, in the order of the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepName {
    /// Install one layer's packages on the tree below it.
    Rootfs(Layer),
    /// Make the initramfs of the finished root file system.
    Initramfs,
    /// Write the settings into the tree.
    Osconfig,
    /// Clean the tree and write the metadata.
    Seal,
    /// Turn the tree into image files.
    Pack,
}

impl StepName {
    pub const ALL: [StepName; 7] = [
        StepName::Rootfs(Layer::Base),
        StepName::Rootfs(Layer::Distribution),
        StepName::Rootfs(Layer::Role),
        StepName::Initramfs,
        StepName::Osconfig,
        StepName::Seal,
        StepName::Pack,
    ];

    pub fn name(self) -> &'static str {
        match self {
            StepName::Rootfs(Layer::Base) => "rootfs/base",
            StepName::Rootfs(Layer::Distribution) => "rootfs/distribution",
            StepName::Rootfs(Layer::Role) => "rootfs/role",
            StepName::Initramfs => "initramfs",
            StepName::Osconfig => "osconfig",
            StepName::Seal => "seal",
            StepName::Pack => "pack",
        }
    }

    /// The name of its recipe: what stands before the slash.
    fn recipe_name(self) -> &'static str {
        self.name().split('/').next().unwrap_or_default()
    }

    /// Raised when a step begins to give other bytes for the same inputs, so that results of before are left alone.
    pub fn recipe(self) -> u32 {
        match self {
            // 2: what scripts write is as old as the layer's packages.
            // 3: scripts that run Python leave no byte code behind by importing.
            StepName::Rootfs(_) => 3,
            // 2: zstd where it is asked for, though the image has no such program.
            StepName::Initramfs => 2,
            StepName::Osconfig => 1,
            // 2: the time of emptied folders does not tell that something was in them.
            StepName::Seal => 2,
            // 2: ext4 written by our own code. 3: its zones, and holes in sparse files. 4: clusters of a qcow2 that hold only files first. 5: nearly all of
            // them. 6: but the initramfs and what no package has.
            StepName::Pack => 6,
        }
    }
}

/// The version of this program, as evidence and metadata name it.
pub const BUILDER: &str = concat!("imagebuilder ", env!("CARGO_PKG_VERSION"));

/// Every step's recipe, as a lock holds them.
pub fn recipes() -> BTreeMap<String, u32> {
    StepName::ALL.iter().map(|step| (step.recipe_name().to_owned(), step.recipe())).collect()
}

/// Completes a freshly resolved lock with what belongs to the image and the program.
pub fn complete(lock: &mut Lock, intent: &Intent) {
    lock.image.clone_from(&intent.image);
    lock.recipes = recipes();
    lock.evidence.builder = BUILDER.into();
}

impl Serialize for StepName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One step with what goes into it: the name of each input and its digest or its short text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub step: StepName,
    pub inputs: BTreeMap<&'static str, String>,
    /// The identity of the step's result: SHA-256 over step, recipe and inputs.
    #[serde(serialize_with = "hex")]
    pub digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockedPlan {
    pub image: String,
    pub site: String,
    /// What is built, whatever it is packed into: the inputs of all steps up to `osconfig`, secrets left out.
    #[serde(serialize_with = "hex")]
    pub digest: Digest,
    pub steps: Vec<Step>,
    /// `SOURCE_DATE_EPOCH` of the build.
    pub epoch: i64,
    /// The bytes of `/etc/imagebuilder/meta`.
    #[serde(skip)]
    pub metadata: Vec<u8>,
}

impl LockedPlan {
    /// The lock must have been made for this Intent ([`Intent::package_request`]) and know its epoch.
    pub fn new(intent: &Intent, lock: &Lock) -> Result<LockedPlan> {
        drift::check(intent, lock)?;
        let epoch = lock.epoch.ok_or_else(|| Error::build("the lock does not say its epoch yet"))?;
        let mut steps = layer_steps(intent, lock);
        let below = steps.last().expect("there are layers").digest;
        let initramfs = push(&mut steps, StepName::Initramfs, initramfs_inputs(intent, epoch, below));
        let settings = |params: &Params| {
            BTreeMap::from([("image", intent.image.clone()), ("initramfs", initramfs.to_hex()), ("params", of(params))])
        };
        let public = intent::without_secrets(&intent.params);
        let digest = step(StepName::Osconfig, settings(&public)).digest;
        let osconfig = push(&mut steps, StepName::Osconfig, settings(&intent.params));
        let metadata = metadata(intent, lock, epoch)?;
        let inputs = BTreeMap::from([("metadata", Digest::of(&metadata).to_hex()), ("tree", osconfig.to_hex())]);
        let seal = push(&mut steps, StepName::Seal, inputs);
        let inputs = BTreeMap::from([
            ("image", intent.image.clone()),
            ("outputs", of(&intent.outputs)),
            ("site", intent.site.clone()),
            ("storage", of(&intent.params.storage)),
            ("tree", seal.to_hex()),
        ]);
        push(&mut steps, StepName::Pack, inputs);
        Ok(LockedPlan { image: intent.image.clone(), site: intent.site.clone(), digest, steps, epoch, metadata })
    }

    /// The identity of one step's result.
    pub fn digest_of(&self, name: StepName) -> Digest {
        let found = self.steps.iter().find(|step| step.step == name);
        found.expect("a plan has every step").digest
    }

    pub fn to_yaml(&self) -> String {
        intent::yaml(self)
    }
}

fn layer_steps(intent: &Intent, lock: &Lock) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for layer in Layer::ALL {
        let unapproved = &intent.params.software.unapproved_packages;
        let below = steps.last().map(|below| below.digest);
        let inputs = rootfs_inputs(&lock.architecture, unapproved, lock.layer(layer), below);
        push(&mut steps, StepName::Rootfs(layer), inputs);
    }
    steps
}

/// The identities of the lock's layers. They are known before any package is there.
pub fn layer_digests(intent: &Intent, lock: &Lock) -> Vec<(Layer, Digest)> {
    let steps = layer_steps(intent, lock);
    let of = |layer| steps.iter().find(|step| step.step == StepName::Rootfs(layer));
    lock.layers.iter().filter_map(|locked| Some((locked.layer, of(locked.layer)?.digest))).collect()
}

/// What decides a layer: its packages, and the layer below. No epoch: what scripts of a layer see is that of its own
/// packages and those below.
fn rootfs_inputs(
    architecture: &str,
    unapproved: &BTreeMap<String, Empty>,
    locked: Option<&LockedLayer>,
    below: Option<Digest>,
) -> BTreeMap<&'static str, String> {
    let packages = locked.map_or_else(|| Digest::of(b""), |locked| locked.digest());
    let mut inputs = BTreeMap::from([
        ("architecture", architecture.to_owned()),
        ("packages", packages.to_hex()),
        ("unapproved", of(unapproved)),
    ]);
    inputs.extend(below.map(|below| ("below", below.to_hex())));
    inputs
}

/// The identities of layers that stand on each other, bottom to top: what images and tools of one release have in
/// common they share in the store.
pub fn rootfs_digests(architecture: &str, unapproved: &BTreeMap<String, Empty>, layers: &[LockedLayer]) -> Vec<Digest> {
    let mut digests: Vec<Digest> = Vec::new();
    for locked in layers {
        let inputs = rootfs_inputs(architecture, unapproved, Some(locked), digests.last().copied());
        digests.push(step(StepName::Rootfs(locked.layer), inputs).digest);
    }
    digests
}

/// What decides the initramfs beside the files of the root file system: its own settings, and those that hooks copy.
fn initramfs_inputs(intent: &Intent, epoch: i64, below: Digest) -> BTreeMap<&'static str, String> {
    let (kernel, networking) = (&intent.params.kernel, &intent.params.networking);
    let names = [&networking.systemd_nic_names_policy, &networking.systemd_nic_alternative_names_policy];
    BTreeMap::from([
        ("below", below.to_hex()),
        ("epoch", epoch.to_string()),
        ("initramfs", of(&kernel.initramfs)),
        ("modules", of(&kernel.modules)),
        ("names", of(&names)),
    ])
}

/// The image's account of itself. Nothing in it says where a value or a package came from, so that moving a line or
/// choosing another mirror changes no byte.
fn metadata(intent: &Intent, lock: &Lock, epoch: i64) -> Result<Vec<u8>> {
    let redacted = meta::redact(&mut intent.params.clone());
    meta::bytes(&meta::Contents {
        name: &intent.image,
        builder: BUILDER,
        epoch,
        image: &intent.effective_yaml(),
        lock: &lock.hashed_text(),
        redacted: &redacted,
    })
}

fn push(steps: &mut Vec<Step>, name: StepName, inputs: BTreeMap<&'static str, String>) -> Digest {
    let step = step(name, inputs);
    let digest = step.digest;
    steps.push(step);
    digest
}

fn step(name: StepName, mut inputs: BTreeMap<&'static str, String>) -> Step {
    inputs.insert("recipe", name.recipe().to_string());
    // JSON delimits every text, so that no two sets of inputs share one.
    let digest = of(&json!([name.name(), inputs]));
    Step { step: name, inputs, digest: Digest::from_hex(&digest).expect("`of` gives the hexadecimal form") }
}

/// The digest of a value's canonical JSON, in hexadecimal.
fn of(value: &impl Serialize) -> String {
    // Structs serialise in the order of their fields, maps are ordered: the text depends on the value only.
    let text = serde_json::to_string(value).expect("types of the api serialise to JSON");
    Digest::of(text.as_bytes()).to_hex()
}

fn hex<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&digest.to_hex())
}
