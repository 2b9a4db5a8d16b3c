//! The disk as numbers: which partition lies where, what it is called, how it is mounted.
//!
//! Owns: [`Layout`], made from `storage` without looking at any content; sizes that follow the content are put in later
//! ([`Layout::settle`]). Offsets are multiples of 1 MiB. Every
//! identifier is a version 5 UUID of site, image name and the role of the thing, so that an edit of the content does
//! not move it. GPT: UEFI specification 2.10, chapter 5.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::api::params::storage::{Filesystem, FilesystemType, Partition as Wanted, Position, Storage};
use crate::api::scalar::{AutoSize, Headroom};
use crate::error::{Error, Kind, Result};
use crate::format::disk::sums::md5_hex;
use crate::tree::TreePath;

pub const MIB: u64 = 1 << 20;

/// Partition type GUIDs: UEFI 2.10 table 5.7; the BIOS boot partition as GRUB defines it; Linux file-system data.
pub const TYPE_ESP: Uuid = Uuid::from_u128(0xC12A7328_F81F_11D2_BA4B_00A0C93EC93B);
pub const TYPE_BIOS_BOOT: Uuid = Uuid::from_u128(0x21686148_6449_6E6F_744E_656564454649);
pub const TYPE_LINUX: Uuid = Uuid::from_u128(0x0FC63DAF_8483_4772_8E79_3D69D8477DE4);

/// GPT attribute "legacy BIOS bootable" (UEFI 2.10 table 5.8).
const LEGACY_BOOT: u64 = 1 << 2;

/// What identifiers are derived from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub site: String,
    pub image: String,
}

impl Identity {
    /// The UUID of one thing of this image.
    pub fn uuid(&self, role: &str) -> Uuid {
        // A name space of our own: a version 5 UUID of a fixed name, so that it can be recomputed anywhere.
        let space = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"https://airshipit.org/imagebuilder");
        // NUL cannot occur in a name, so no two triples meet.
        let name = format!("{}\0{}\0{role}", self.site, self.image);
        Uuid::new_v5(&space, name.as_bytes())
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// In bytes.
    pub disk_size: u64,
    pub disk_guid: Uuid,
    /// In list order, which is the order of their numbers.
    pub partitions: Vec<Partition>,
    /// What all this was made from.
    storage: Storage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Counts from 1.
    pub number: u32,
    /// Upstream's name: the MD5 of the mount path in hexadecimal digits.
    pub name: String,
    pub type_guid: Uuid,
    pub guid: Uuid,
    pub attributes: u64,
    /// In bytes from the start of the disk.
    pub start: u64,
    /// In bytes.
    pub size: u64,
    /// `None` for a partition without file system.
    pub mounted: Option<Mounted>,
}

/// A file system of the layout and its line in fstab(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub at: TreePath,
    pub kind: FilesystemType,
    /// ext4 uses it whole; FAT has room for its first 32 bits ([`Mounted::volume_id`]).
    pub uuid: Uuid,
    /// Seed of the directory hash (ext4).
    pub hash_seed: Uuid,
    pub options: String,
    pub dump: u8,
    pub fsck: u8,
    order: u32,
}

impl Mounted {
    /// The FAT volume id: the first 32 bits of the UUID.
    pub fn volume_id(&self) -> u32 {
        self.uuid.as_fields().0
    }

    /// As blkid(8), `/dev/disk/by-uuid`, fstab and GRUB spell it.
    pub fn uuid_text(&self) -> String {
        match self.kind {
            FilesystemType::Ext4 => self.uuid.to_string(),
            FilesystemType::Vfat => {
                let id = self.volume_id();
                format!("{:04X}-{:04X}", id >> 16, id & 0xffff)
            }
        }
    }
}

impl Partition {
    pub fn end(&self) -> u64 {
        self.start + self.size
    }

    /// How people know it: number and mount point.
    pub fn describe(&self) -> String {
        match &self.mounted {
            Some(mounted) => format!("partition {} ({})", self.number, mounted.at),
            None => format!("partition {} (no file system)", self.number),
        }
    }
}

impl Layout {
    /// Places every partition. Fails on anything that cannot be a disk. Partitions that follow their content count one
    /// MiB for now.
    pub fn new(storage: &Storage, identity: &Identity) -> Result<Layout> {
        let storage = Storage { partitions: storage.effective_partitions(), ..storage.clone() };
        let wanted = &storage.partitions;
        if wanted.len() > 128 {
            return Err(invalid(format!("{} partitions asked for, a GPT holds 128", wanted.len())));
        }
        let mut partitions = Vec::with_capacity(wanted.len());
        for (number, wanted) in (1u32..).zip(wanted) {
            partitions.push(describe(number, wanted, identity)?);
        }
        let layout = Layout { disk_size: 0, disk_guid: identity.uuid("disk"), partitions, storage };
        let layout = layout.settle(&BTreeMap::new())?;
        layout.check_mounts()?;
        Ok(layout)
    }

    /// The same disk with these sizes (in bytes, by number) for the partitions that follow their content.
    pub fn settle(&self, sizes: &BTreeMap<u32, u64>) -> Result<Layout> {
        let mut layout = self.clone();
        let (disk_size, extents) = place(&self.storage, sizes)?;
        layout.disk_size = disk_size;
        for (partition, (start, end)) in layout.partitions.iter_mut().zip(extents) {
            (partition.start, partition.size) = (start, end - start);
        }
        layout.check_overlaps()?;
        Ok(layout)
    }

    /// The headroom of a partition that follows its content; `None` for one with a size of its own.
    pub fn headroom(&self, partition: &Partition) -> Option<Headroom> {
        let wanted = self.storage.partitions.get(partition.number as usize - 1)?;
        self.storage.follows_content(wanted).then(|| self.storage.headroom_of(wanted))
    }

    /// The file systems in the order in which they are mounted.
    pub fn mounts(&self) -> Vec<(&Partition, &Mounted)> {
        let mut mounts: Vec<_> =
            self.partitions.iter().filter_map(|one| one.mounted.as_ref().map(|mounted| (one, mounted))).collect();
        mounts.sort_by_key(|(_, mounted)| (mounted.order, depth(&mounted.at), mounted.at.clone()));
        mounts
    }

    /// The file system that holds a path, and the path inside it.
    pub fn locate(&self, path: &TreePath) -> Option<(&Mounted, TreePath)> {
        self.mounts()
            .into_iter()
            .filter_map(|(_, mounted)| path.strip_prefix(&mounted.at).map(|rest| (mounted, rest)))
            .max_by_key(|(mounted, _)| depth(&mounted.at))
    }

    pub fn root(&self) -> Result<&Mounted> {
        self.mounts()
            .into_iter()
            .map(|(_, mounted)| mounted)
            .find(|mounted| mounted.at.is_root())
            .ok_or_else(|| invalid("no partition is mounted at `/`"))
    }

    pub fn bios_boot(&self) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.type_guid == TYPE_BIOS_BOOT)
    }

    pub fn esp(&self) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.type_guid == TYPE_ESP)
    }

    fn check_overlaps(&self) -> Result<()> {
        let mut sorted: Vec<&Partition> = self.partitions.iter().collect();
        sorted.sort_by_key(|partition| partition.start);
        for pair in sorted.windows(2) {
            if pair[0].end() > pair[1].start {
                return Err(invalid(format!(
                    "{} ({} to {} bytes) overlaps {} ({} to {} bytes)",
                    pair[0].describe(),
                    pair[0].start,
                    pair[0].end(),
                    pair[1].describe(),
                    pair[1].start,
                    pair[1].end()
                ))
                .hint("change `part_start` or `part_end` of one of them"));
            }
        }
        Ok(())
    }

    fn check_mounts(&self) -> Result<()> {
        let mounts = self.mounts();
        for (index, (partition, mounted)) in mounts.iter().enumerate() {
            if let Some((other, _)) = mounts[..index].iter().find(|(_, other)| other.at == mounted.at) {
                return Err(invalid(format!(
                    "partitions {} and {} have the same mount point {}",
                    other.number, partition.number, mounted.at
                )));
            }
            if let Some((late, _)) = mounts[index + 1..].iter().find(|(_, late)| mounted.at.is_below(&late.at)) {
                return Err(invalid(format!("{} comes before {} which it lies in", mounted.at, late.describe()))
                    .hint("correct `mount_order`, or leave it out"));
            }
        }
        if self.root()?.kind != FilesystemType::Ext4 {
            return Err(invalid("the root file system must be ext4"));
        }
        match self.esp().map(|esp| esp.mounted.as_ref().map(|mounted| mounted.kind)) {
            Some(kind) if kind != Some(FilesystemType::Vfat) => {
                Err(invalid("the partition with flag `esp` must be vfat"))
            }
            _ => Ok(()),
        }
    }
}

/// All but its place.
fn describe(number: u32, wanted: &Wanted, identity: &Identity) -> Result<Partition> {
    let context = |error: Error| error.add_context(format!("laying out partition {number} (`{}`)", wanted.mount));
    let (type_guid, attributes) = flags(&wanted.flags).map_err(context)?;
    let mounted = mounted(number, wanted, identity).map_err(context)?;
    Ok(Partition {
        number,
        name: md5_hex(wanted.mount.as_bytes()),
        type_guid,
        guid: identity.uuid(&format!("partition {}", role(number, wanted))),
        attributes,
        start: 0,
        size: 0,
        mounted,
    })
}

/// The size of the disk, and start and end of every partition: first those with a start of their own, then the others
/// behind them in the order of the list, the root last.
fn place(storage: &Storage, sizes: &BTreeMap<u32, u64>) -> Result<(u64, Vec<(u64, u64)>)> {
    let wanted = &storage.partitions;
    let disk = storage.qcow_capacity.bytes().map(|bytes| bytes / 512 * 512);
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    let floating = |index: &usize| wanted[*index].part_start.is_none();
    order.sort_by_key(|index| (floating(index), floating(index) && wanted[*index].mount == "/"));
    let mut extents = vec![(0, 0); wanted.len()];
    let mut behind = MIB;
    for index in order {
        let (one, number) = (&wanted[index], index as u32 + 1);
        let follows = storage.follows_content(one).then(|| sizes.get(&number).copied().unwrap_or(MIB));
        let found = extent(one, disk, behind, follows).map_err(|error| {
            let error = error.about(&["storage", "partitions"]);
            error.add_context(format!("laying out partition {number} (`{}`)", one.mount))
        })?;
        behind = behind.max(found.1);
        extents[index] = found;
    }
    // The backup table needs 33 sectors; a whole MiB at the end keeps the alignment.
    Ok((disk.unwrap_or(behind + MIB), extents))
}

/// The mount point where there is one, so that renumbering keeps identifiers; else the flag, else the number.
fn role(number: u32, wanted: &Wanted) -> String {
    match (wanted.mount.as_str(), wanted.flags.first()) {
        ("none", Some(flag)) => format!("{flag} {number}"),
        ("none", None) => format!("number {number}"),
        (mount, _) => mount.to_owned(),
    }
}

/// Start (rounded up) and end (rounded down, exclusive) on whole MiB, clear of both partition tables. `behind` is the
/// start of a partition without one, `follows` the size of one that follows its content.
fn extent(wanted: &Wanted, disk: Option<u64>, behind: u64, follows: Option<u64>) -> Result<(u64, u64)> {
    let position = |key: &str, text: &str| {
        let position = Position::parse(text).ok_or_else(|| {
            invalid(format!("`{key}: {text}` is not a place on the disk"))
                .hint("write it as parted does: `5MiB`, `100%`")
        })?;
        match (position, disk) {
            (Position::Bytes(bytes), _) => Ok(bytes),
            (_, Some(disk)) => position.resolve(disk).ok_or_else(|| {
                invalid(format!("`{key}: {text}` is not a place on the disk")).hint("it lies before the start")
            }),
            (_, None) => Err(invalid(format!("`{key}: {text}` counts by the size of a disk that has none yet")).hint(
                "give `qcow_capacity` a size, or give the place in bytes; `part_end: 100%` is the only exception",
            )),
        }
    };
    let start = match &wanted.part_start {
        Some(text) => position("part_start", text)?.div_ceil(MIB).max(1).saturating_mul(MIB),
        None => behind,
    };
    let size = match (follows, wanted.size.and_then(AutoSize::bytes)) {
        (Some(size), _) | (None, Some(size)) => Some(size),
        (None, None) => None,
    };
    let end = match (size, &wanted.part_end) {
        (Some(_), Some(_)) if wanted.size.is_some() => {
            return Err(invalid("`part_end` and `size` say the same thing twice").hint("leave one of them out"));
        }
        (Some(size), _) => {
            let end = size.div_ceil(MIB).checked_mul(MIB).and_then(|size| start.checked_add(size));
            end.ok_or_else(|| invalid(format!("a partition cannot have {size} bytes")))?
        }
        (None, Some(text)) => position("part_end", text)?,
        (None, None) => {
            return Err(invalid("it has neither `part_end` nor `size`").hint("`size: auto` follows the content"));
        }
    };
    if follows.is_some() && wanted.filesystem.is_none() {
        return Err(invalid("a partition without file system has no content that its size could follow"));
    }
    let end = within_disk(end, disk, size.is_some())?;
    if start >= end {
        let place = wanted.part_start.as_deref().unwrap_or("behind the others");
        let size = disk.map(|disk| format!(" on a disk of {disk} bytes")).unwrap_or_default();
        let end = wanted.part_end.as_deref().unwrap_or("its size");
        return Err(invalid(format!("nothing is left between `part_start: {place}` and `part_end: {end}`{size}")));
    }
    Ok((start, end))
}

/// The end on a whole MiB, before the backup table. A size that was asked for is not cut short.
fn within_disk(end: u64, disk: Option<u64>, sized: bool) -> Result<u64> {
    let Some(disk) = disk else { return Ok(end / MIB * MIB) };
    let last = disk.saturating_sub(MIB) / MIB * MIB;
    if end > disk || sized && end > last {
        return Err(invalid(format!(
            "it ends at {end} bytes, the disk has {disk} (the last MiB is for the backup table)"
        ))
        .hint("raise `qcow_capacity`, or end the partition at `100%`"));
    }
    Ok((end / MIB * MIB).min(last))
}

/// parted's flags as type GUID and attributes.
fn flags(flags: &[String]) -> Result<(Uuid, u64)> {
    let mut type_guid = TYPE_LINUX;
    let mut attributes = 0;
    for flag in flags {
        match flag.as_str() {
            "bios_grub" => type_guid = TYPE_BIOS_BOOT,
            "esp" | "boot" => type_guid = TYPE_ESP,
            "legacy_boot" => attributes |= LEGACY_BOOT,
            other => {
                return Err(invalid(format!("unknown flag `{other}`"))
                    .hint("known flags: `bios_grub`, `esp`, `boot`, `legacy_boot`"));
            }
        }
    }
    Ok((type_guid, attributes))
}

fn mounted(number: u32, wanted: &Wanted, identity: &Identity) -> Result<Option<Mounted>> {
    let filesystem = match (wanted.mount.as_str(), &wanted.filesystem) {
        ("none", None) => return Ok(None),
        ("none", Some(_)) => return Err(invalid("a file system needs a mount point, `none` is not one")),
        (_, None) => return Err(invalid("`filesystem.type` is missing")),
        (_, Some(filesystem)) => filesystem,
    };
    if !wanted.mount.starts_with('/') || wanted.mount.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(invalid(format!("mount point `{}` is not an absolute path without blanks", wanted.mount)));
    }
    let at = TreePath::new(&wanted.mount)
        .ok_or_else(|| invalid(format!("mount point `{}` has `..` in it", wanted.mount)))?;
    let role = role(number, wanted);
    let (options, dump, fsck) = fstab_fields(filesystem, at.is_root())?;
    Ok(Some(Mounted {
        order: wanted.mount_order.unwrap_or(depth(&at)),
        kind: filesystem.kind,
        uuid: identity.uuid(&format!("file system {role}")),
        hash_seed: identity.uuid(&format!("hash seed {role}")),
        options,
        dump,
        fsck,
        at,
    }))
}

fn fstab_fields(filesystem: &Filesystem, root: bool) -> Result<(String, u8, u8)> {
    let default = match filesystem.kind {
        FilesystemType::Ext4 => "defaults,errors=remount-ro,noatime",
        // FAT knows no owners: the boot files are root's alone.
        FilesystemType::Vfat => "defaults,umask=0077,noatime",
    };
    let options = filesystem.fstab.options.as_deref().unwrap_or(default);
    if options.is_empty() || options.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(invalid(format!("`fstab.options: {options}` must be words joined by commas, without blanks")));
    }
    let fsck = match filesystem.kind {
        FilesystemType::Ext4 if root => 1,
        FilesystemType::Ext4 => 2,
        FilesystemType::Vfat => 0,
    };
    Ok((options.to_owned(), filesystem.fstab.dump.unwrap_or(0), filesystem.fstab.fsck.unwrap_or(fsck)))
}

fn depth(path: &TreePath) -> u32 {
    u32::try_from(path.components().count()).unwrap_or(u32::MAX)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Documents, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::params::storage::Fstab;
    use crate::api::scalar::Size;

    fn identity() -> Identity {
        Identity { site: "example".into(), image: "data-plane".into() }
    }

    fn wanted(mount: &str, start: &str, end: &str) -> Wanted {
        let filesystem = Filesystem { kind: FilesystemType::Ext4, fstab: Fstab::default() };
        Wanted {
            mount: mount.into(),
            part_start: Some(start.into()),
            part_end: Some(end.into()),
            size: None,
            headroom: None,
            flags: Vec::new(),
            mount_order: None,
            filesystem: (mount != "none").then_some(filesystem),
        }
    }

    fn layout(partitions: Vec<Wanted>) -> Result<Layout> {
        Layout::new(&Storage { qcow_capacity: Size(10 << 30).into(), partitions, ..Storage::default() }, &identity())
    }

    #[test]
    fn upstreams_default_layout() {
        let layout = Layout::new(&Storage::default(), &identity()).unwrap();
        let placed: Vec<_> = layout.partitions.iter().map(|p| (p.number, p.start / MIB, p.end() / MIB)).collect();
        assert_eq!(placed, [(1, 1284, 19 * 1024 - 1), (2, 1, 5), (3, 5, 516), (4, 516, 1284)]);
        // md5 of "/", as upstream names it
        assert_eq!(layout.partitions[0].name, "6666cd76f96956469e7be39d750cc7d9");
        assert_eq!(layout.bios_boot().map(|p| p.number), Some(2));
        assert_eq!(layout.esp().map(|p| p.number), Some(3));
        let order: Vec<String> = layout.mounts().iter().map(|(_, mounted)| mounted.at.to_string()).collect();
        assert_eq!(order, ["/", "/boot", "/boot/efi"]);
    }

    #[test]
    fn identifiers_follow_the_role_and_nothing_else() {
        let one = Layout::new(&Storage::default(), &identity()).unwrap();
        let bigger = Storage { qcow_capacity: Size(40 << 30).into(), ..Storage::default() };
        let two = Layout::new(&bigger, &identity()).unwrap();
        assert_eq!(one.disk_guid, two.disk_guid);
        assert_eq!(one.partitions[0].mounted, two.partitions[0].mounted);
        let mut all: Vec<Uuid> = vec![one.disk_guid];
        for partition in &one.partitions {
            all.push(partition.guid);
            all.extend(partition.mounted.iter().flat_map(|mounted| [mounted.uuid, mounted.hash_seed]));
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        let other = Identity { image: "control-plane".into(), ..identity() };
        assert_ne!(Layout::new(&Storage::default(), &other).unwrap().disk_guid, one.disk_guid);
    }

    #[test]
    fn finds_the_file_system_of_a_path() {
        let layout = Layout::new(&Storage::default(), &identity()).unwrap();
        let (mounted, inside) = layout.locate(&TreePath::literal("boot/grub/grub.cfg")).unwrap();
        assert_eq!((mounted.at.to_string(), inside.to_string()), ("/boot".into(), "/grub/grub.cfg".into()));
    }

    #[test]
    fn refuses_what_cannot_be_a_disk() {
        let message = |partitions| layout(partitions).unwrap_err().to_string();
        assert!(message(vec![wanted("/", "1MiB", "2GiB"), wanted("/var", "1GiB", "3GiB")]).contains("overlaps"));
        assert!(message(vec![wanted("/", "1MiB", "11GiB")]).contains("the disk has 10737418240"));
        assert!(message(vec![wanted("/var", "1MiB", "2GiB")]).contains("no partition is mounted at `/`"));
        assert!(message(vec![wanted("/", "1MiB", "2GiB"), wanted("//", "2GiB", "3GiB")]).contains("same mount point"));
        assert!(message(vec![wanted("/", "2GiB", "1GiB")]).contains("nothing is left"));
        assert!(message(vec![wanted("/", "here", "1GiB")]).contains("not a place on the disk"));
        assert!(message(vec![wanted("/a/../b", "1MiB", "1GiB")]).contains(".."));
        let mut late_root = wanted("/", "1MiB", "2GiB");
        late_root.mount_order = Some(9);
        assert!(message(vec![late_root, wanted("/var", "2GiB", "3GiB")]).contains("comes before"));
        let mut flagged = wanted("/", "1MiB", "2GiB");
        flagged.flags = vec!["nonsense".into()];
        assert!(message(vec![flagged]).contains("unknown flag"));
    }

    #[test]
    fn neighbours_may_touch_and_lie_in_any_order() {
        let layout = layout(vec![wanted("/", "2GiB", "100%"), wanted("/var", "1MiB", "2GiB")]).unwrap();
        assert_eq!(layout.partitions[1].end(), layout.partitions[0].start);
    }

    fn auto(mount: &str, start: Option<&str>) -> Wanted {
        let part_start = start.map(str::to_owned);
        Wanted { part_start, part_end: None, size: Some(AutoSize::Auto), ..wanted(mount, "", "") }
    }

    #[test]
    fn a_partition_follows_its_content() {
        let bios = Wanted { flags: vec!["bios_grub".into()], ..wanted("none", "1MiB", "2MiB") };
        let rest = Wanted { part_start: None, ..wanted("/", "", "100%") };
        let partitions = vec![rest, bios, auto("/boot", None), auto("/var", None)];
        let draft = layout(partitions.clone()).unwrap();
        let follows: Vec<u32> =
            draft.partitions.iter().filter(|one| draft.headroom(one).is_some()).map(|one| one.number).collect();
        assert_eq!(follows, [3, 4]);
        let sizes = BTreeMap::from([(3, 300 * MIB), (4, 10 * MIB)]);
        let settled = draft.settle(&sizes).unwrap();
        let placed: Vec<_> = settled.partitions.iter().map(|p| (p.start / MIB, p.end() / MIB)).collect();
        assert_eq!(placed, [(312, 10 * 1024 - 1), (1, 2), (2, 302), (302, 312)]);
        // Identifiers do not depend on sizes.
        assert_eq!(settled.partitions[2].mounted, draft.partitions[2].mounted);
        let error = draft.settle(&BTreeMap::from([(3, 11 << 30)])).unwrap_err().to_string();
        assert!(error.contains("partition 3 (`/boot`)") && error.contains("the disk has 10737418240"), "{error}");
    }

    #[test]
    fn a_disk_follows_its_partitions() {
        let storage = Storage { qcow_capacity: AutoSize::Auto, ..Storage::default() };
        let draft = Layout::new(&storage, &identity()).unwrap();
        assert!(draft.headroom(&draft.partitions[0]).is_some() && draft.headroom(&draft.partitions[3]).is_none());
        let settled = draft.settle(&BTreeMap::from([(1, 1000 * MIB)])).unwrap();
        assert_eq!(settled.disk_size, (1284 + 1000 + 1) * MIB);
        assert_eq!(settled.partitions[0].end(), settled.disk_size - MIB);
        let fails = |partition: Wanted| {
            let partitions = vec![wanted("/", "1MiB", "5GiB"), partition];
            let storage = Storage { qcow_capacity: AutoSize::Auto, partitions, ..Storage::default() };
            Layout::new(&storage, &identity()).unwrap_err().to_string()
        };
        assert!(fails(wanted("/var", "50%", "60%")).contains("a disk that has none yet"));
        assert!(fails(wanted("/var", "5GiB", "-1GiB")).contains("a disk that has none yet"));
        assert!(
            fails(Wanted { part_end: None, ..wanted("/var", "5GiB", "") }).contains("neither `part_end` nor `size`")
        );
        assert!(fails(Wanted { size: Some(AutoSize::Auto), ..wanted("/var", "5GiB", "6GiB") }).contains("twice"));
        assert!(fails(auto("none", None)).contains("has no content"));
    }
}
