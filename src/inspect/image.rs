//! An image file as a whole: its format, its partitions, its file systems, and the Tree that a booted machine sees.
//!
//! Owns: [`Image`]. Opening reads headers only. Which file system is mounted where follows from the image's own
//! `/etc/fstab`; without one there is the root alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{qcow2::Qcow2, vhd::Vhd, vmdk::Vmdk};
use super::ext4::Ext4;
use super::fat::Fat;
use super::gpt::{Gpt, Partition};
use super::iso9660::{Iso9660, OnMedium};
use super::listing::{Found, Item, Listing};
use super::source::{FileSource, SharedSource, Source};
use super::squashfs::Squashfs;
use super::tar;
use super::unpack::{Packing, unpack};
use crate::error::{Context, Error, Result};
use crate::tree::{Meta, Tree, TreePath};

/// Where live-boot(7) looks for the root file system on a medium, and where it mounts that.
const SQUASHFS: &str = "live/filesystem.squashfs";
pub const MEDIUM: &str = "run/live/medium";

/// What the file is.
#[derive(Clone)]
pub enum Container {
    Raw,
    Qcow2(Arc<Qcow2>),
    Vmdk(Arc<Vmdk>),
    Vhd(Arc<Vhd>),
    /// A medium, which may be a disk as well.
    Iso,
    /// A Tree without a disk.
    Tar(Packing),
}

impl Container {
    /// As qemu-img and the documents call it.
    pub fn name(&self) -> &'static str {
        match self {
            Container::Raw => "raw",
            Container::Qcow2(_) => "qcow2",
            Container::Vmdk(_) => "vmdk",
            Container::Vhd(_) => "vhd",
            Container::Iso => "iso",
            Container::Tar(_) => "tar",
        }
    }

    /// Whether it is a disk that machines start from, or is attached to them, and nothing else.
    pub fn is_disk(&self) -> bool {
        !matches!(self, Container::Tar(_) | Container::Iso)
    }
}

pub enum FileSystem {
    Ext4(Ext4),
    Fat(Fat),
    Iso9660(Iso9660),
    Squashfs(Squashfs),
}

impl FileSystem {
    fn open(source: &SharedSource) -> Result<Option<FileSystem>> {
        if Ext4::probe(&**source) {
            return Ok(Some(FileSystem::Ext4(Ext4::open(source.clone())?)));
        }
        if Squashfs::probe(&**source) {
            return Ok(Some(FileSystem::Squashfs(Squashfs::open(source.clone())?)));
        }
        if Fat::probe(&**source) {
            return Ok(Some(FileSystem::Fat(Fat::open(source.clone())?)));
        }
        if Iso9660::probe(&**source) {
            return Ok(Some(FileSystem::Iso9660(Iso9660::open(source.clone())?)));
        }
        Ok(None)
    }

    pub fn name(&self) -> &'static str {
        match self {
            FileSystem::Ext4(_) => "ext4",
            FileSystem::Fat(fat) => fat.width.name(),
            FileSystem::Iso9660(_) => "iso9660",
            FileSystem::Squashfs(_) => "squashfs",
        }
    }

    /// As blkid(8) and fstab(5) spell it.
    pub fn uuid(&self) -> String {
        match self {
            FileSystem::Ext4(ext4) => ext4.superblock.uuid.to_string(),
            FileSystem::Fat(fat) => format!("{:04X}-{:04X}", fat.volume_id >> 16, fat.volume_id & 0xFFFF),
            FileSystem::Iso9660(_) | FileSystem::Squashfs(_) => String::new(),
        }
    }

    pub fn label(&self) -> String {
        match self {
            FileSystem::Ext4(ext4) => String::from_utf8_lossy(&ext4.superblock.label).into_owned(),
            FileSystem::Fat(fat) => fat.label.clone(),
            FileSystem::Iso9660(iso) => iso.volume_id.clone(),
            FileSystem::Squashfs(_) => String::new(),
        }
    }

    /// Bytes that the file system spans, and those that are not in use (FAT does not tell).
    pub fn size(&self) -> (u64, Option<u64>) {
        match self {
            FileSystem::Ext4(ext4) => {
                let superblock = &ext4.superblock;
                (superblock.blocks * superblock.block_size, Some(superblock.free_blocks * superblock.block_size))
            }
            FileSystem::Fat(fat) => (fat.size, None),
            FileSystem::Iso9660(iso) => (iso.size, Some(0)),
            FileSystem::Squashfs(squashfs) => (squashfs.size, Some(0)),
        }
    }

    /// Every path with its metadata; a `lost+found` with nothing in it is left out.
    pub fn listing(&self) -> Result<Listing> {
        match self {
            FileSystem::Ext4(ext4) => Ok(ext4.listing()?.without_lost_found()),
            FileSystem::Fat(fat) => fat.listing(),
            FileSystem::Iso9660(iso) => iso.listing(),
            FileSystem::Squashfs(squashfs) => squashfs.listing(),
        }
    }
}

/// A partition, or a disk without partition table.
pub struct Volume {
    pub partition: Option<Partition>,
    pub source: SharedSource,
    /// `None` when there is none that is known here; an error when there is one that cannot be read.
    pub file_system: Result<Option<FileSystem>>,
}

impl Volume {
    fn new(partition: Option<Partition>, source: SharedSource) -> Volume {
        let file_system = FileSystem::open(&source);
        Volume { partition, source, file_system }
    }

    /// How people know it.
    pub fn describe(&self) -> String {
        match (&self.partition, &self.file_system) {
            (Some(partition), _) => format!("partition {}", partition.number),
            (None, Ok(Some(FileSystem::Iso9660(_)))) => "the medium".to_owned(),
            (None, Ok(Some(FileSystem::Squashfs(_)))) => "the squashfs".to_owned(),
            (None, _) => "the disk".to_owned(),
        }
    }

    pub fn file_system(&self) -> Option<&FileSystem> {
        self.file_system.as_ref().ok()?.as_ref()
    }
}

pub struct Image {
    pub path: PathBuf,
    pub container: Container,
    /// The file itself.
    pub file: SharedSource,
    /// The disk in it, as a machine sees it; of an archive its bytes, unpacked.
    pub disk: SharedSource,
    pub table: Option<Gpt>,
    pub volumes: Vec<Volume>,
    /// Of an image that is a Tree without a disk.
    archive: Option<Listing>,
}

/// The file systems put together.
pub struct Mounted {
    pub listing: Listing,
    /// Index of the volume, mount point; the root first.
    pub mounts: Vec<(usize, TreePath)>,
}

impl Image {
    pub fn open(path: &Path) -> Result<Image> {
        let file: SharedSource = Arc::new(FileSource::open(path)?);
        Image::of(path, file).with_context(|| format!("reading image {}", path.display()))
    }

    /// From a source that is a file's bytes; `path` is for messages only.
    pub fn of(path: &Path, file: SharedSource) -> Result<Image> {
        let (container, disk) = contain(&file)?;
        let mut image =
            Image { path: path.to_owned(), container, file, disk, table: None, volumes: Vec::new(), archive: None };
        if matches!(image.container, Container::Tar(_)) {
            image.archive = Some(tar::listing(&image.disk)?);
            return Ok(image);
        }
        if matches!(image.container, Container::Iso) {
            image.open_medium()?;
        }
        if Gpt::probe(&*image.disk) || has_backup_table(&*image.disk) {
            let table = Gpt::read(&*image.disk)?;
            for partition in &table.partitions {
                let source: SharedSource = Arc::new(partition.open(&image.disk)?);
                image.volumes.push(Volume::new(Some(partition.clone()), source));
            }
            image.table = Some(table);
        } else if image.volumes.is_empty() {
            let volume = Volume::new(None, image.disk.clone());
            if matches!(volume.file_system, Ok(None)) {
                return Err(Error::build("there is neither a partition table nor a file system that is known here")
                    .hint(
                        "raw, qcow2, vmdk, vhd, iso and tar can be read, with a GPT, ext4, FAT and squashfs in them",
                    ));
            }
            image.volumes.push(volume);
        }
        Ok(image)
    }

    /// The medium as a whole, and the squashfs on it that a live system runs from.
    fn open_medium(&mut self) -> Result<()> {
        let medium = Volume::new(None, self.disk.clone());
        let Ok(Some(FileSystem::Iso9660(iso))) = &medium.file_system else {
            let error = medium.file_system.err();
            return Err(error.unwrap_or_else(|| Error::build("the medium holds another file system, too")));
        };
        let squashfs = match iso.listing()?.get(&TreePath::literal(SQUASHFS)).map(|item| &item.found) {
            Some(Found::File(data)) => Some(Volume::new(None, OnMedium::open(data.clone()))),
            _ => None,
        };
        self.volumes.push(medium);
        self.volumes.extend(squashfs);
        Ok(())
    }

    /// How the root of a live system is compressed: name, and level where there is one.
    pub fn squashfs(&self) -> Option<(&'static str, Option<u32>)> {
        self.volumes.iter().find_map(|volume| match volume.file_system() {
            Some(FileSystem::Squashfs(squashfs)) => Some((squashfs.compression, squashfs.level)),
            _ => None,
        })
    }

    /// As live-boot(7) has it: the squashfs, with the medium in a folder of it. The squashfs on the medium is left out:
    /// what it holds is there already. A medium of another kind is seen as it is.
    fn live(&self) -> Result<Mounted> {
        let listing = |index: usize| {
            let volume = self.volumes.get(index).ok_or_else(|| Error::build("there is no such volume"))?;
            let file_system = volume.file_system.as_ref().map_err(again)?;
            let file_system = file_system.as_ref().ok_or_else(|| Error::build("there is no file system"))?;
            file_system.listing().with_context(|| format!("reading {}", volume.describe()))
        };
        let mut medium = listing(0)?;
        if self.volumes.get(1).is_none_or(|volume| volume.partition.is_some()) {
            return Ok(Mounted { listing: medium, mounts: vec![(0, TreePath::root())] });
        }
        medium.remove(&TreePath::literal(SQUASHFS));
        let (mut root, at) = (listing(1)?, TreePath::literal(MEDIUM));
        let mut parent = at.parent();
        while let Some(folder) = parent.filter(|folder| root.get(folder).is_none()) {
            parent = folder.parent();
            root.insert(folder, Item { meta: Meta::root(0o755), found: Found::Directory, number: 0 })?;
        }
        root.mount(&at, medium)?;
        Ok(Mounted { listing: root, mounts: vec![(1, TreePath::root()), (0, at)] })
    }

    /// What the booted machine would see, contents not read.
    pub fn mounted(&self) -> Result<Mounted> {
        if matches!(self.container, Container::Iso) {
            return self.live();
        }
        if let Some(archive) = &self.archive {
            return Ok(Mounted { listing: archive.clone(), mounts: Vec::new() });
        }
        let (root, mut listing) = self.root()?;
        let mut mounts = vec![(root, TreePath::root())];
        let lines = fstab(&listing)?;
        for (device, at) in lines.into_iter().filter(|(_, at)| !at.is_root()) {
            let Some(index) = self.volumes.iter().position(|volume| names(&device, volume)) else { continue };
            if mounts.iter().any(|(_, other)| *other == at) {
                continue;
            }
            let volume = &self.volumes[index];
            let file_system = volume.file_system.as_ref().map_err(again)?;
            let Some(file_system) = file_system else { continue };
            let inner = file_system.listing().with_context(|| format!("reading {}", volume.describe()))?;
            listing.mount(&at, inner)?;
            mounts.push((index, at));
        }
        Ok(Mounted { listing, mounts })
    }

    /// As [`Image::mounted`], with every content read once for its digest.
    pub fn tree(&self) -> Result<Tree> {
        let origin = self.path.display().to_string().into();
        self.mounted()?.listing.tree(&origin).with_context(|| format!("reading image {}", self.path.display()))
    }

    /// The first file system that looks like the root of a system; the only one, whatever it looks like.
    fn root(&self) -> Result<(usize, Listing)> {
        let signs = ["etc/fstab", "etc/os-release", "usr/lib/os-release"].map(TreePath::literal);
        let known: Vec<usize> =
            (0..self.volumes.len()).filter(|index| !matches!(self.volumes[*index].file_system, Ok(None))).collect();
        for index in &known {
            let volume = &self.volumes[*index];
            let file_system = volume.file_system.as_ref().map_err(again)?;
            let Some(file_system) = file_system else { continue };
            if known.len() > 1 && !matches!(file_system, FileSystem::Ext4(_)) {
                continue;
            }
            let listing = file_system.listing().with_context(|| format!("reading {}", volume.describe()))?;
            if known.len() == 1 || signs.iter().any(|sign| listing.get(sign).is_some()) {
                return Ok((*index, listing));
            }
        }
        Err(Error::build("no partition holds the root of a system"))
    }
}

/// Errors cannot be copied; this one says the same.
pub(super) fn again(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.to_string());
    error.hints().iter().fold(copy, |copy, hint| copy.hint(hint.clone()))
}

fn contain(file: &SharedSource) -> Result<(Container, SharedSource)> {
    if Qcow2::probe(&**file) {
        let image = Arc::new(Qcow2::open(file.clone())?);
        return Ok((Container::Qcow2(image.clone()), image));
    }
    if Vmdk::probe(&**file) {
        let image = Arc::new(Vmdk::open(file.clone())?);
        return Ok((Container::Vmdk(image.clone()), image));
    }
    if Vhd::probe(&**file) {
        let image = Arc::new(Vhd::open(file.clone())?);
        return Ok((Container::Vhd(image.clone()), image));
    }
    if Iso9660::probe(&**file) {
        return Ok((Container::Iso, file.clone()));
    }
    // A disk has something else in its first sector, but for boot code that nobody wrote with that in mind.
    let packing = Packing::of(&**file);
    if packing != Packing::None {
        let archive = unpack(file, packing)?;
        if tar::probe(&*archive) {
            return Ok((Container::Tar(packing), archive));
        }
        return Err(Error::build("the compressed file is no tar archive").hint("unpack it first"));
    }
    if tar::probe(&**file) && !Gpt::probe(&**file) {
        return Ok((Container::Tar(packing), file.clone()));
    }
    Ok((Container::Raw, file.clone()))
}

/// The primary table may be the damaged one.
fn has_backup_table(disk: &dyn Source) -> bool {
    let last = disk.size().saturating_sub(disk.size() % 512).saturating_sub(512);
    disk.bytes(last, 8).is_ok_and(|magic| magic == b"EFI PART")
}

/// Devices and mount points of fstab(5), in its order; none when there is no such file.
fn fstab(root: &Listing) -> Result<Vec<(String, TreePath)>> {
    const LIMIT: u64 = 1 << 20;
    let Some(Found::File(data)) = root.inode(&TreePath::literal("etc/fstab")).map(|item| &item.found) else {
        return Ok(Vec::new());
    };
    let bytes = data.bytes(LIMIT).context("reading /etc/fstab")?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    Ok(lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (device, at) = (words.next()?, words.next()?);
            Some((device.to_owned(), TreePath::new(at).filter(|_| at.starts_with('/'))?))
        })
        .collect())
}

/// Whether the first word of a line of fstab means this volume.
fn names(device: &str, volume: &Volume) -> bool {
    let Some((kind, value)) = device.split_once('=') else { return false };
    let value = value.trim_matches('"');
    let file_system = volume.file_system();
    let partition = volume.partition.as_ref();
    match kind {
        "UUID" => file_system.is_some_and(|found| found.uuid().eq_ignore_ascii_case(value)),
        "LABEL" => file_system.is_some_and(|found| !value.is_empty() && found.label() == value),
        "PARTUUID" => partition.is_some_and(|found| found.guid.to_string().eq_ignore_ascii_case(value)),
        "PARTLABEL" => partition.is_some_and(|found| !value.is_empty() && found.name == value),
        _ => false,
    }
}
