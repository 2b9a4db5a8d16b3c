//! A small live system, and the ISO of it. The boot images are stand-ins: what makes them is replaced, nothing else.

use std::path::Path;
use std::sync::{Arc, Mutex};

use imagebuilder::boot::Identity;
use imagebuilder::build::pack::{self, Format, Output, Packed, Request, iso::Live};
use imagebuilder::error::{Error, Result};
use imagebuilder::format::disk::sums::Digests;
use imagebuilder::format::squashfs::Compression;
use imagebuilder::report::{Reporter, Sink, Timing, Unit};
use imagebuilder::sandbox::{Finished, Job, Sandbox};
use imagebuilder::seed::{self, Seed};
use imagebuilder::tree::clusters::Clusters;
use imagebuilder::tree::{Content, Digest, Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

use super::disk::params;

pub const EPOCH: i64 = 1_700_000_000;

pub fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// Bytes that no compressor makes fewer.
pub fn noise(start: u64, length: usize) -> Vec<u8> {
    let blocks = start..start + length.div_ceil(32) as u64;
    blocks.flat_map(|at| *Digest::of(&at.to_le_bytes()).as_bytes()).take(length).collect()
}

pub fn put(tree: &mut Tree, at: &str, content: Vec<u8>) {
    let origin: Origin = "test".into();
    let meta = Meta { mtime: Mtime { seconds: EPOCH, nanoseconds: 0 }, ..Meta::root(0o644) };
    tree.put(&path(at), Entry { meta, kind: Kind::File(Content::inline(content)), origin }).unwrap();
}

/// Everything that an ISO wants to find in a Tree.
pub fn live_system() -> Tree {
    let mut tree = Tree::new();
    for file in [
        "boot/vmlinuz-1",
        "boot/initrd.img-1",
        "etc/fstab",
        "etc/os-release",
        "usr/bin/grub-mkimage",
        "usr/lib/shim/shimx64.efi.signed",
        "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
        "usr/lib/grub/i386-pc/kernel.img",
        "usr/lib/grub/i386-pc/normal.mod",
    ] {
        put(&mut tree, file, format!("# {file}\n").into_bytes());
    }
    let mut hybrid = vec![0x90; 512];
    hybrid[510..].copy_from_slice(&[0x55, 0xAA]);
    put(&mut tree, "usr/lib/grub/i386-pc/boot_hybrid.img", hybrid);
    put(&mut tree, "usr/lib/noise", noise(0, 1 << 20));
    put(&mut tree, "usr/lib/text", "a line of text\n".repeat(100_000).into_bytes());
    put(&mut tree, "usr/lib/zeros", vec![0; 1 << 20]);
    for number in 0..400 {
        put(&mut tree, &format!("usr/share/doc/{number}"), format!("document {number}\n").repeat(50).into_bytes());
    }
    tree
}

/// Stands in for grub-mkimage.
pub struct Mkimage;

impl Sandbox for Mkimage {
    fn run(&self, _: &Path, job: &Job, _: &mut dyn FnMut(&str)) -> Result<Finished> {
        let output = job.argv.iter().find_map(|word| word.strip_prefix("--output=/mnt/"));
        let output = output.ok_or_else(|| Error::build(format!("{:?} is not expected", job.argv)))?;
        let mut core = vec![0x33; 40_000];
        core[2048 + 510..2048 + 512].copy_from_slice(&0x820u16.to_le_bytes());
        std::fs::write(job.binds[0].source.join(output), core).unwrap();
        Ok(Finished { success: true, status: "exit code 0".into(), tail: String::new() })
    }
}

pub fn seed_of(user_data: &[u8]) -> Seed {
    let given = |name: &str, bytes: &[u8]| seed::Input::Bytes(name.into(), bytes.to_vec());
    let network =
        b"{\"links\": [{\"id\": \"a\", \"name\": \"a\", \"type\": \"phy\"}], \"networks\": [], \"services\": []}";
    let request = seed::Request {
        user_data: given("user_data", user_data),
        network_data: given("network_data.json", network),
        identity: seed::Identity { site: "test".into(), hostname: None },
    };
    seed::load(&request).unwrap()
}

pub fn live(user_data: &[u8]) -> Live {
    Live {
        identity: Identity { site: "test".into(), image: "iso".into() },
        seed: seed_of(user_data),
        compression: Compression::named("zstd", Some(3)).unwrap(),
        threads: None,
        earlier: None,
    }
}

/// Keeps warnings.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Sink for Warnings {
    fn step_started(&self, _: u64, _: &str, _: Option<u64>, _: Unit) {}
    fn step_progress(&self, _: u64, _: u64) {}
    fn step_finished(&self, _: u64, _: &Timing) {}
    fn note(&self, _: &str) {}
    fn warning(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// Packs an ISO and gives the warnings.
pub fn said(tree: &Tree, live: &Live, to: &Path) -> Vec<String> {
    let warnings = Warnings::default();
    pack_with(tree, live, None, Format::Iso, to, &Reporter::new(warnings.clone())).unwrap();
    warnings.0.lock().unwrap().clone()
}

/// Packs one file; what was done for it, too.
pub fn build(
    tree: &Tree,
    live: &Live,
    clusters: Option<&Clusters>,
    format: Format,
    to: &Path,
) -> Result<(Packed, Vec<Timing>)> {
    let reporter = Reporter::quiet();
    let packed = pack_with(tree, live, clusters, format, to, &reporter)?;
    Ok((packed, reporter.timings()))
}

fn pack_with(
    tree: &Tree,
    live: &Live,
    clusters: Option<&Clusters>,
    format: Format,
    to: &Path,
    reporter: &Reporter,
) -> Result<Packed> {
    let scratch = tempfile::tempdir().unwrap();
    let params = params();
    let layout = imagebuilder::boot::Layout::new(&params.storage, &live.identity).unwrap();
    let request = Request {
        tree,
        live_tree: None,
        params: &params,
        layout: &layout,
        places: &|_| None,
        epoch: EPOCH,
        sandbox: &Mkimage,
        scratch: scratch.path(),
        live: Some(live),
        clusters,
        digests: Digests::BOTH,
        reporter,
    };
    pack::pack(&request, &[Output { format, path: to.to_owned() }])
}
