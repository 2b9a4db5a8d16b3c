//! The last step: a final Tree becomes image files.
//!
//! Owns: cutting the Tree into file systems, the order of work, and what goes where on the disk. Formats are written
//! by `format`, boot images made by `boot`. Nothing is written before it is known to fit.

mod inode_times;
pub mod mke2fs;
pub mod output;
pub mod space;
pub mod split;
pub mod tools;

use std::path::{Path, PathBuf};

pub use output::{Format, Output};

use self::split::Part;
use crate::api::params::Params;
use crate::api::params::storage::FilesystemType;
use crate::boot::Layout;
use crate::boot::grub::{self, Boot, Platform, bios, efi};
use crate::error::{Context, Error, Result};
use crate::format::disk::{DiskImage, HostFile};
use crate::format::{fat, gpt};
use crate::interrupt;
use crate::report::Reporter;
use crate::sandbox::Sandbox;
use crate::tree::{Content, Entry, Kind, Meta, Mtime, Origin, Tree, TreePath, host};

/// What a disk is made from, and with.
pub struct Request<'a> {
    /// After `boot::configure` and seal.
    pub tree: &'a Tree,
    pub params: &'a Params,
    pub layout: &'a Layout,
    /// Every time that is not a file's own: `SOURCE_DATE_EPOCH`.
    pub epoch: i64,
    pub sandbox: &'a dyn Sandbox,
    /// An empty folder for trees and file systems, best in memory (`sandbox::WorkArea`). Must stay until the disk is
    /// written.
    pub scratch: &'a Path,
    pub reporter: &'a Reporter,
}

/// How many bytes the scratch folder needs at most: every file once unpacked and once in a file system, and the tools.
pub fn scratch_need(tree: &Tree) -> u64 {
    const TOOLS: u64 = 256 << 20;
    let size = |entry: &Entry| match &entry.kind {
        Kind::File(content) => content.size(),
        _ => 0,
    };
    let files = tree.iter().fold(0u64, |sum, (_, entry)| sum.saturating_add(size(entry)));
    files.saturating_mul(2).saturating_add(TOOLS)
}

/// From Tree to files: [`disk`], then every output from the same disk.
pub fn pack(request: &Request<'_>, outputs: &[Output]) -> Result<()> {
    let disk = disk(request)?;
    outputs.iter().try_for_each(|output| output.write(&disk, request.reporter))
}

/// The whole disk as data.
pub fn disk(request: &Request<'_>) -> Result<DiskImage> {
    let Request { tree, layout, .. } = request;
    let mut parts = split::split(tree, layout)?;
    space::check(&parts)?;
    let workshop = Workshop::open(request)?;
    let boot = Boot::of(layout)?;
    let mut disk = DiskImage::empty(layout.disk_size);
    let boot_code = match layout.bios_boot() {
        Some(partition) => {
            let core = workshop.core_image(Platform::Bios, &boot)?;
            let embedded = bios::embed(&grub::core::boot_image(tree)?, &core, partition.start, partition.size)?;
            disk.write(partition.start, embedded.core)?;
            embedded.boot_code.to_vec()
        }
        None => Vec::new(),
    };
    if layout.esp().is_some() && efi::SignedChain::find(tree)?.is_none() {
        let core = workshop.core_image(Platform::Efi, &boot)?;
        place_unsigned(&mut parts, layout, request.params, core, request.epoch)?;
    }
    for part in &parts {
        interrupt::check()?;
        let image = workshop.file_system(part)?;
        disk.place(part.partition.start, image)?;
    }
    let tables = table(layout, boot_code).layout()?;
    disk.write(0, tables.primary)?;
    disk.write(tables.backup_offset, tables.backup)?;
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
    let esp = efi::mount_point(layout).and_then(|at| parts.iter_mut().find(|part| part.mounted.at == *at));
    let esp = esp.ok_or_else(|| Error::build("the EFI system partition has no file system"))?;
    let origin: Origin = "boot loader".into();
    let meta = Meta { mtime: Mtime { seconds: epoch, nanoseconds: 0 }, ..Meta::root(0o644) };
    let content = Content::inline(core);
    for path in [efi::REMOVABLE.to_owned(), format!("EFI/{}/grubx64.efi", efi::vendor(params)?)] {
        let path = TreePath::new(&path).ok_or_else(|| Error::build(format!("{path} is not a path")))?;
        let entry = Entry { meta: meta.clone(), kind: Kind::File(content.clone()), origin: origin.clone() };
        esp.tree.put(&path, entry)?;
    }
    Ok(())
}

/// The folders in which the target's own programs work.
struct Workshop<'a> {
    request: &'a Request<'a>,
    /// Root of the jobs.
    tools: PathBuf,
    /// Where their results go.
    output: PathBuf,
}

impl<'a> Workshop<'a> {
    fn open(request: &'a Request<'a>) -> Result<Self> {
        let tools = request.scratch.join("tools");
        let output = request.scratch.join("output");
        unpack(&tools::tools(request.tree), &tools).context("unpacking the programs that make file systems")?;
        std::fs::create_dir(&output).with_context(|| format!("making {}", output.display()))?;
        Ok(Workshop { request, tools, output })
    }

    fn core_image(&self, platform: Platform, boot: &Boot) -> Result<Vec<u8>> {
        grub::core::make(platform, boot, self.request.tree, self.request.sandbox, &self.tools, &self.output)
    }

    fn file_system(&self, part: &Part<'_>) -> Result<DiskImage> {
        let context = || format!("making {}", part.partition.describe());
        let step = self.request.reporter.step(format!("file system {}", part.mounted.at));
        let image = match part.mounted.kind {
            FilesystemType::Ext4 => self.ext4(part),
            FilesystemType::Vfat => self.vfat(part),
        };
        let image = image.with_context(context)?;
        step.finish(format!("{} entries, {} MiB", part.tree.len(), image.data_size() >> 20));
        Ok(image)
    }

    fn ext4(&self, part: &Part<'_>) -> Result<DiskImage> {
        let name = format!("partition-{}.ext4", part.partition.number);
        let content = self.request.scratch.join(format!("partition-{}", part.partition.number));
        unpack(&part.tree, &content)?;
        let options = mke2fs::Options {
            size: part.partition.size,
            uuid: part.mounted.uuid,
            hash_seed: part.mounted.hash_seed,
            epoch: self.request.epoch,
        };
        mke2fs::make(self.request.sandbox, &self.tools, &content, &self.output, &name, &options)?;
        std::fs::remove_dir_all(&content).with_context(|| format!("removing {}", content.display()))?;
        DiskImage::from_host_file(HostFile::open(&self.output.join(&name))?)
    }

    fn vfat(&self, part: &Part<'_>) -> Result<DiskImage> {
        let hidden_sectors = u32::try_from(part.partition.start / gpt::SECTOR)
            .map_err(|_| Error::build("a FAT file system cannot lie beyond 2 TiB"))?;
        let options = fat::Options {
            size: part.partition.size,
            fat_type: fat::FatType::Auto,
            volume_id: part.mounted.volume_id(),
            label: String::new(),
            hidden_sectors,
            latest: Mtime { seconds: self.request.epoch, nanoseconds: 0 },
        };
        fat::make(&part.tree, &options)
    }
}

fn unpack(tree: &Tree, folder: &Path) -> Result<()> {
    host::Folder::create(folder)?.show(tree)
}
