//! What can be done of an image while its initramfs is made.
//!
//! Owns: [`beside`]. The initramfs takes long, keeps one core busy, and is one file of the disk. Meanwhile a stand-in of
//! about its size takes its place in a Tree that is otherwise complete, and the boot images, clusters and checksums of
//! that disk, or the blocks of that squashfs, are made and kept (`tree::clusters`). Nothing of it reaches the image unless
//! the image is made of the same.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::initramfs;
use super::pack::{self, Format};
use super::prepare::Prepared;
use super::run::Options;
use crate::boot;
use crate::error::{Error, Result};
use crate::format::{qcow2, squashfs};
use crate::osconfig::{self, Facts};
use crate::plan::LockedPlan;
use crate::report::Reporter;
use crate::seal;
use crate::tree::clusters::Clusters;
use crate::tree::{Content, Digest, Entry, Kind, Meta, Mtime, ReadAt, Tree, TreePath};

/// Bytes of an initramfs, about: with modules for most machines, compressed.
const USUAL: u64 = 36 << 20;
/// Of the threads here, so that those that are waited for come first. Little: in the end these are waited for as well.
const NICE: i32 = 4;

/// Runs `job`, which makes the initramfs, and does meanwhile what can be done of the image; with the end of the job that
/// ends, too. `tree` is complete but for the initramfs.
pub fn beside<T>(
    one: &Prepared<'_>,
    options: &Options<'_>,
    tree: &Tree,
    clusters: &Clusters,
    scratch: &Path,
    job: impl FnOnce() -> T,
) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let meanwhile = scope.spawn(|| prepare(one, options, tree, clusters, scratch, &stop));
        let done = job();
        stop.store(true, Ordering::Relaxed);
        match meanwhile.join() {
            Ok(Ok(())) => {}
            // Whatever is wrong is met again, by those who must not go on.
            Ok(Err(error)) => tracing::debug!("nothing could be made ahead: {error}"),
            Err(_) => tracing::debug!("what was made ahead stopped unexpectedly"),
        }
        done
    })
}

/// Only this thread and those it starts become nicer.
fn prepare(
    one: &Prepared<'_>,
    options: &Options<'_>,
    tree: &Tree,
    clusters: &Clusters,
    scratch: &Path,
    stop: &AtomicBool,
) -> Result<()> {
    let formats = one.intent.outputs.iter().map(Format::of).collect::<Result<Vec<_>>>()?;
    let qcow2: Vec<qcow2::Compression> =
        formats.iter().filter_map(|format| if let Format::Qcow2(how) = format { Some(*how) } else { None }).collect();
    // Where that does not work the others wait a little longer.
    _ = rustix::process::nice(NICE);
    let plan = &one.settle(&options.environment)?.plan;
    let over = || stop.load(Ordering::Relaxed);
    if !qcow2.is_empty() && !over() {
        let boot = |tree: &mut Tree, epoch| boot::configure(tree, &one.intent.params, &one.layout, epoch);
        let tree = complete(one, plan, tree, &boot)?;
        let request = pack::Request {
            tree: &tree,
            live_tree: None,
            params: &one.intent.params,
            layout: &one.layout,
            places: &|_| None,
            epoch: plan.epoch,
            sandbox: options.sandbox,
            scratch,
            live: None,
            clusters: Some(clusters),
            digests: options.digests,
            reporter: &Reporter::quiet(),
        };
        let disk = pack::disk(&request)?;
        for compression in qcow2.into_iter().take_while(|_| !over()) {
            let how = qcow2::Options { compression, threads: None };
            qcow2::prepare(&disk, &how, clusters, options.digests, stop)?;
        }
    }
    if let Some(live) = one.live.as_ref().filter(|_| !over()) {
        let tree = complete(one, plan, tree, &boot::live::configure)?;
        squashfs::prepare(&boot::live::root_file_system(&tree), &live.squashfs(plan.epoch), clusters, stop)?;
    }
    Ok(())
}

/// The Tree as it will be, with stand-ins.
fn complete(
    one: &Prepared<'_>,
    plan: &LockedPlan,
    tree: &Tree,
    boot: &dyn Fn(&mut Tree, Mtime) -> Result<()>,
) -> Result<Tree> {
    let (intent, epoch) = (one.intent, Mtime { seconds: plan.epoch, nanoseconds: 0 });
    let mut tree = tree.clone();
    let meta = Meta { mtime: epoch, ..Meta::root(0o644) };
    for version in initramfs::kernel_versions(&tree) {
        let Some(path) = TreePath::new(format!("boot/initrd.img-{version}")) else { continue };
        let content = Content::elsewhere(Digest::of(b"not there yet"), USUAL, Arc::new(Unknown));
        let origin = initramfs::origin(&version);
        tree.put(&path, Entry { meta: meta.clone(), kind: Kind::File(content), origin })?;
    }
    let origin = |path: &[&str]| intent.origin(path);
    let facts = Facts { image: &intent.image, epoch, origins: &origin, keyrings: &one.keyrings };
    osconfig::apply(&mut tree, &intent.params, &facts)?;
    boot(&mut tree, epoch)?;
    seal::seal(&mut tree, epoch, &osconfig::declared_paths(&intent.params), &plan.metadata)?;
    Ok(tree)
}

/// Bytes that are not there yet.
struct Unknown;

impl ReadAt for Unknown {
    fn read_at(&self, _: &mut [u8], _: u64) -> Result<()> {
        Err(Error::build("the initramfs is not there yet"))
    }
}
