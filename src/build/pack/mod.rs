//! The last step: a final Tree becomes image files.
//!
//! Owns: cutting the Tree into file systems, the order of work, and what goes where on the disk. Formats are written
//! by `format`, boot images made by `boot`. Nothing is written before it is known to fit, and files go from where the
//! Tree has them straight into the image files.

pub mod file_system;
pub mod iso;
pub mod netboot;
mod order;
pub mod output;
pub mod sizing;
pub mod split;
pub mod tools;
mod workshop;

use std::fs::File;
use std::path::Path;

pub use iso::Live;
pub use output::{Format, Output, Source};

use self::split::Part;
use self::workshop::Workshop;
use crate::api::params::Params;
use crate::boot::Layout;
use crate::boot::grub::core::CoreImage;
use crate::boot::grub::{self, Boot, Platform, bios, efi};
use crate::error::{Context, Error, Result};
use crate::format::disk::DiskImage;
use crate::format::disk::sums::{Digests, Sums};
use crate::format::gpt;
use crate::report::Reporter;
use crate::sandbox::Sandbox;
use crate::tree::clusters::Clusters;
use crate::tree::{Content, Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

/// What a disk is made from, and with.
pub struct Request<'a> {
    /// After `boot::configure`, or `boot::live` where all outputs are live systems, and seal.
    pub tree: &'a Tree,
    /// After `boot::live` and seal, where `tree` is that of an installed system.
    pub live_tree: Option<&'a Tree>,
    pub params: &'a Params,
    /// Sizes that follow the content may be open yet.
    pub layout: &'a Layout,
    /// For messages about sizes: where a value of `params` was written.
    pub places: &'a sizing::Places<'a>,
    /// Every time that is not a file's own: `SOURCE_DATE_EPOCH`.
    pub epoch: i64,
    pub sandbox: &'a dyn Sandbox,
    /// An empty folder for the programs that make boot images, best in memory (`sandbox::WorkArea`).
    pub scratch: &'a Path,
    /// Of an ISO image: what it has beside its Tree.
    pub live: Option<&'a Live>,
    /// Clusters and boot images of earlier disks. Changes no byte.
    pub clusters: Option<&'a Clusters>,
    /// Wanted of each file.
    pub digests: Digests,
    pub reporter: &'a Reporter,
}

/// How many bytes the scratch folder needs at most: GRUB, its modules and the libraries.
pub const SCRATCH_NEED: u64 = 256 << 20;

/// What was packed.
#[derive(Debug)]
pub struct Packed {
    /// The size of the disk, where an output wants one.
    pub disk_size: Option<u64>,
    /// Of each output.
    pub sums: Vec<Sums>,
}

/// From Tree to files: [`disk`] where an output wants one, then every output from the same disk and Tree.
pub fn pack(request: &Request<'_>, outputs: &[Output]) -> Result<Packed> {
    let disk = if outputs.iter().any(|output| output.format.is_disk()) { Some(disk(request)?) } else { None };
    let size = disk.as_ref().map(DiskImage::size);
    for output in outputs {
        output.format.check_size(size.unwrap_or(0))?;
    }
    let identity = request.layout.disk_guid;
    let disk = disk.as_ref().map(|disk| (disk, identity));
    let source =
        Source { tree: request.tree, disk, epoch: request.epoch, clusters: request.clusters, digests: request.digests };
    let sums = write_all(request, &source, outputs)?;
    Ok(Packed { disk_size: size, sums })
}

/// Writes one file after the other. Those whose writers do not go from front to back are hashed when they are there,
/// beside the writing of the next ones.
fn write_all(request: &Request<'_>, source: &Source<'_>, outputs: &[Output]) -> Result<Vec<Sums>> {
    let digests = request.digests;
    std::thread::scope(|scope| {
        let mut hashing = Vec::with_capacity(outputs.len());
        for output in outputs {
            let sums = match output.format {
                Format::Iso => Some(write_iso(request, output)?),
                Format::Netboot => Some(write_netboot(request, output)?),
                _ => output.write(source, request.reporter)?,
            };
            hashing.push(scope.spawn(move || sums.map_or_else(|| output.sums(digests), Ok)));
        }
        let stopped = || Error::build("computing checksums stopped unexpectedly");
        hashing.into_iter().map(|sums| sums.join().map_err(|_| stopped())?).collect()
    })
}

/// The same for the Tree of the live system.
fn of_the_live<'a>(request: &Request<'a>) -> Request<'a> {
    Request { tree: request.live_tree.unwrap_or(request.tree), live_tree: None, ..*request }
}

fn write_iso(request: &Request<'_>, output: &Output) -> Result<Sums> {
    let context = || format!("writing {}", output.path.display());
    let live = request.live.ok_or_else(|| Error::build("there is no live system to write"))?;
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&output.path);
    let file = file.with_context(context)?;
    if iso::protect(&live.seed, &file).with_context(context)? {
        request.reporter.note("iso image: readable by its owner only (mode 0600), since its seed holds secrets");
    }
    iso::write(&of_the_live(request), live, &file).with_context(context)
}

fn write_netboot(request: &Request<'_>, output: &Output) -> Result<Sums> {
    let live = request.live.ok_or_else(|| Error::build("there is no live system to write"))?;
    netboot::write(&of_the_live(request), live, &output.path)
        .with_context(|| format!("writing {}", output.path.display()))
}

/// The whole disk as data.
pub fn disk(request: &Request<'_>) -> Result<DiskImage> {
    let Request { tree, epoch, places, reporter, .. } = *request;
    let mut parts = split::split(tree, request.layout)?;
    let mut layout = sizing::settle(request.layout, &parts, epoch, reporter)?;
    let mut workshop = Workshop::new(tree, request.sandbox, request.scratch, request.clusters);
    let boot = Boot::of(&layout)?;
    if layout.esp().is_some() && efi::SignedChain::find(tree)?.is_none() {
        let image = CoreImage::disk(Platform::Efi, &boot);
        let core = match workshop.known(&image) {
            Some(core) => core,
            None => {
                // What can fail without it fails first.
                file_system::make_all(&split::on(&layout, parts.clone()), epoch, places, &Reporter::quiet())?;
                workshop.core_image(&image)?
            }
        };
        place_unsigned(&mut parts, &layout, request.params, core, epoch)?;
        layout = sizing::settle(request.layout, &parts, epoch, reporter)?;
    }
    let parts = split::on(&layout, parts);
    let images = file_system::make_all(&parts, epoch, places, reporter)?;
    let mut disk = DiskImage::empty(layout.disk_size);
    let boot_code = match layout.bios_boot() {
        Some(partition) => {
            let core = workshop.core_image(&CoreImage::disk(Platform::Bios, &boot))?;
            let embedded = bios::embed(&grub::core::boot_image(tree)?, &core, partition.start, partition.size)?;
            disk.write(partition.start, embedded.core)?;
            embedded.boot_code.to_vec()
        }
        None => Vec::new(),
    };
    for (part, image) in parts.iter().zip(images) {
        disk.place(part.partition.start, image)?;
    }
    let tables = table(&layout, boot_code).layout()?;
    disk.write(0, tables.primary)?;
    disk.write(tables.backup_offset, tables.backup)?;
    order::arrange(&mut disk, parts.iter().map(|part| &part.tree));
    Ok(disk)
}

fn table(layout: &Layout, boot_code: Vec<u8>) -> gpt::Table {
    let partitions = layout.partitions.iter().map(|partition| gpt::Partition {
        type_guid: partition.type_guid,
        guid: partition.guid,
        first_lba: partition.start / gpt::SECTOR,
        last_lba: partition.end() / gpt::SECTOR - 1,
        attributes: partition.attributes,
        name: partition.name.clone(),
    });
    gpt::Table { disk_size: layout.disk_size, disk_guid: layout.disk_guid, partitions: partitions.collect(), boot_code }
}

/// Puts a core image of our own where the firmware and the node's boot entries look.
fn place_unsigned(parts: &mut [Part<'_>], layout: &Layout, params: &Params, core: Vec<u8>, epoch: i64) -> Result<()> {
    let esp = efi::mount_point(layout).and_then(|at| parts.iter().position(|part| part.mounted.at == *at));
    let esp = esp.ok_or_else(|| Error::build("the EFI system partition has no file system"))?;
    let origin: Origin = "boot loader".into();
    let meta = Meta { mtime: Mtime { seconds: epoch, nanoseconds: 0 }, ..Meta::root(0o644) };
    let content = Content::inline(core);
    for path in [efi::REMOVABLE.to_owned(), format!("EFI/{}/grubx64.efi", efi::vendor(params)?)] {
        let path = TreePath::new(&path).ok_or_else(|| Error::build(format!("{path} is not a path")))?;
        let entry = Entry { meta: meta.clone(), kind: Kind::File(content.clone()), origin: origin.clone() };
        parts[esp].tree.put(&path, entry)?;
    }
    Ok(())
}
