//! The disk as numbers: which partition lies where, what it is called, how it is mounted.
//!
//! Owns: [`Layout`], made from `storage` without looking at any content. Offsets are multiples of 1 MiB. Every
//! identifier is a version 5 UUID of site, image name and the role of the thing, so that an edit of the content does
//! not move it. GPT: UEFI specification 2.10, chapter 5.

use md5::{Digest as _, Md5};
use uuid::Uuid;

use crate::api::params::storage::{Filesystem, FilesystemType, Partition as Wanted, Position, Storage};
use crate::error::{Error, Kind, Result};
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// In bytes.
    pub disk_size: u64,
    pub disk_guid: Uuid,
    /// In list order, which is the order of their numbers.
    pub partitions: Vec<Partition>,
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
    /// Places every partition. Fails on anything that cannot be a disk.
    pub fn new(storage: &Storage, identity: &Identity) -> Result<Layout> {
        let disk_size = storage.qcow_capacity.0 / 512 * 512;
        let wanted = storage.effective_partitions();
        if wanted.len() > 128 {
            return Err(invalid(format!("{} partitions asked for, a GPT holds 128", wanted.len())));
        }
        let mut partitions = Vec::with_capacity(wanted.len());
        for (number, wanted) in (1u32..).zip(&wanted) {
            partitions.push(place(number, wanted, disk_size, identity)?);
        }
        let layout = Layout { disk_size, disk_guid: identity.uuid("disk"), partitions };
        layout.check_overlaps()?;
        layout.check_mounts()?;
        Ok(layout)
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

fn place(number: u32, wanted: &Wanted, disk_size: u64, identity: &Identity) -> Result<Partition> {
    let context = |error: Error| error.add_context(format!("laying out partition {number} (`{}`)", wanted.mount));
    let (start, end) = extent(wanted, disk_size).map_err(context)?;
    let (type_guid, attributes) = flags(&wanted.flags).map_err(context)?;
    let mounted = mounted(number, wanted, identity).map_err(context)?;
    Ok(Partition {
        number,
        name: hex::encode(Md5::digest(wanted.mount.as_bytes())),
        type_guid,
        guid: identity.uuid(&format!("partition {}", role(number, wanted))),
        attributes,
        start,
        size: end - start,
        mounted,
    })
}

/// The mount point where there is one, so that renumbering keeps identifiers; else the flag, else the number.
fn role(number: u32, wanted: &Wanted) -> String {
    match (wanted.mount.as_str(), wanted.flags.first()) {
        ("none", Some(flag)) => format!("{flag} {number}"),
        ("none", None) => format!("number {number}"),
        (mount, _) => mount.to_owned(),
    }
}

/// Start (rounded up) and end (rounded down, exclusive) on whole MiB, clear of both partition tables.
fn extent(wanted: &Wanted, disk_size: u64) -> Result<(u64, u64)> {
    let position = |key: &str, text: &str| {
        Position::parse(text).and_then(|position| position.resolve(disk_size)).ok_or_else(|| {
            invalid(format!("`{key}: {text}` is not a place on the disk"))
                .hint("write it as parted does: `5MiB`, `100%`")
        })
    };
    let start = position("part_start", &wanted.part_start)?;
    let end = position("part_end", &wanted.part_end)?;
    if end > disk_size {
        return Err(invalid(format!("it ends at {end} bytes, the disk has {disk_size}"))
            .hint("raise `qcow_capacity`, or end the partition at `100%`"));
    }
    // The backup table needs 33 sectors; a whole MiB at the end keeps the alignment.
    let last = disk_size.saturating_sub(MIB) / MIB * MIB;
    let start = start.div_ceil(MIB).max(1) * MIB;
    let end = (end / MIB * MIB).min(last);
    if start >= end {
        return Err(invalid(format!(
            "nothing is left between `part_start: {}` and `part_end: {}` on a disk of {disk_size} bytes",
            wanted.part_start, wanted.part_end
        )));
    }
    Ok((start, end))
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
            part_start: start.into(),
            part_end: end.into(),
            flags: Vec::new(),
            mount_order: None,
            filesystem: (mount != "none").then_some(filesystem),
        }
    }

    fn layout(partitions: Vec<Wanted>) -> Result<Layout> {
        Layout::new(&Storage { qcow_capacity: Size(10 << 30), partitions, grow_root: true }, &identity())
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
        let bigger = Storage { qcow_capacity: Size(40 << 30), ..Storage::default() };
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
}
