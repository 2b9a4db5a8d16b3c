//! `storage`: the disk and its partitions, in upstream's words.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::scalar::{AutoSize, Headroom, Size};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Storage {
    /// Virtual size of the disk (upstream's word, for every type of image), or `auto`: the partitions decide, and the
    /// one that would end at `100%` is sized by its content.
    #[serde(rename = "qcow_capacity", alias = "diskSize")]
    #[schemars(extend("x-alias" = "diskSize"))]
    pub qcow_capacity: AutoSize,
    /// Numbered in list order. Empty means upstream's default layout.
    pub partitions: Vec<Partition>,
    /// Grow the root partition and its file system into the disk on first boot.
    pub grow_root: bool,
    /// What partitions that are sized by their content get on top of it, unless they say otherwise: `10%`, `256MiB` or
    /// both as `10%+256MiB`, which is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom: Option<Headroom>,
}

/// Packages grow a little from one security update to the next, and `/boot` takes a second kernel with its initramfs
/// before the first one goes.
const HEADROOM: Headroom = Headroom { percent: 10, bytes: 256 << 20 };

impl Default for Storage {
    fn default() -> Self {
        let qcow_capacity = AutoSize::Size(Size(19 << 30));
        Storage { qcow_capacity, partitions: Vec::new(), grow_root: true, headroom: None }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Mount point, or `none` for a partition without file system.
    pub mount: String,
    /// parted notation: `5MiB`, `100%`. Without it, the partition lies behind those before it in the list, and behind
    /// all that have a start; the root is the last of them, so that it can grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_start: Option<String>,
    /// Either this or `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_end: Option<String>,
    /// `512MiB`, or `auto`: what the content needs, and headroom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<AutoSize>,
    /// For a partition that is sized by its content, in place of `storage.headroom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headroom: Option<Headroom>,
    /// parted flags: `bios_grub`, `esp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Upstream's explicit mount order; by path depth when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_order: Option<u32>,
    /// What it is formatted with; absent for a partition without file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    /// `ext4` or `vfat`.
    #[serde(rename = "type")]
    pub kind: FilesystemType,
    /// Its line in `/etc/fstab`.
    #[serde(default)]
    pub fstab: Fstab,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FilesystemType {
    Ext4,
    Vfat,
}

/// Fields four to six of fstab(5).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fstab {
    /// Mount options, field four.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    /// Field five.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dump: Option<u8>,
    /// Order of checks at boot, field six.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fsck: Option<u8>,
}

impl Storage {
    /// The partitions asked for, or upstream's default layout when the list is empty.
    pub fn effective_partitions(&self) -> Vec<Partition> {
        if self.partitions.is_empty() { default_partitions() } else { self.partitions.clone() }
    }

    /// Whether a partition is as large as its content wants.
    pub fn follows_content(&self, partition: &Partition) -> bool {
        let whole_rest = partition.part_end.as_deref().map(str::trim) == Some("100%");
        partition.size == Some(AutoSize::Auto) || self.qcow_capacity == AutoSize::Auto && whole_rest
    }

    pub fn headroom_of(&self, partition: &Partition) -> Headroom {
        partition.headroom.or(self.headroom).unwrap_or(HEADROOM)
    }
}

/// Upstream's layout. The root comes first because Ironic looks for the config drive relative to a root in
/// partition 1.
fn default_partitions() -> Vec<Partition> {
    let partition = |mount: &str, start: &str, end: &str, flags: &[&str], kind: Option<FilesystemType>| Partition {
        mount: mount.to_owned(),
        part_start: Some(start.to_owned()),
        part_end: Some(end.to_owned()),
        size: None,
        headroom: None,
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        mount_order: None,
        filesystem: kind.map(|kind| Filesystem { kind, fstab: Fstab::default() }),
    };
    vec![
        partition("/", "1284MiB", "100%", &[], Some(FilesystemType::Ext4)),
        partition("none", "1MiB", "5MiB", &["bios_grub"], None),
        partition("/boot/efi", "5MiB", "516MiB", &["esp"], Some(FilesystemType::Vfat)),
        partition("/boot", "516MiB", "1284MiB", &[], Some(FilesystemType::Ext4)),
    ]
}

/// A place on the disk as parted writes it: `5MiB`, `1GB`, `2048s`, `100%`, `-1GiB` (from the end). A bare number
/// counts megabytes, parted's default unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    Bytes(u64),
    FromEnd(u64),
    /// Of the disk, in millionths.
    Fraction(u32),
}

impl Position {
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(percent) = text.strip_suffix('%') {
            let millionths = decimal(percent.trim(), 10_000)?;
            return u32::try_from(millionths).ok().filter(|value| *value <= 1_000_000).map(Position::Fraction);
        }
        match text.strip_prefix('-') {
            Some(rest) => length(rest).map(Position::FromEnd),
            None => length(text).map(Position::Bytes),
        }
    }

    /// In bytes from the start of a disk of this size; `None` when it lies before the start.
    pub fn resolve(self, disk: u64) -> Option<u64> {
        match self {
            Position::Bytes(bytes) => Some(bytes),
            Position::FromEnd(bytes) => disk.checked_sub(bytes),
            Position::Fraction(millionths) => u64::try_from(u128::from(disk) * u128::from(millionths) / 1_000_000).ok(),
        }
    }
}

fn length(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let factor = match text[split..].trim().to_ascii_lowercase().as_str() {
        "b" => 1,
        "s" => 512,
        "kb" | "k" => 1_000,
        "" | "mb" | "m" => 1_000_000,
        "gb" | "g" => 1_000_000_000,
        "tb" | "t" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    decimal(&text[..split], factor)
}

/// `1.5` times a factor, without floating point; digits beyond what the factor can hold are cut off.
fn decimal(text: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let scale = 10u128.pow(fraction.len() as u32);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = u64::try_from(fraction * u128::from(factor) / scale).ok()?;
    whole.checked_mul(factor)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_as_parted_reads_them() {
        assert_eq!(Position::parse("5MiB"), Some(Position::Bytes(5 << 20)));
        assert_eq!(Position::parse("1.5GB"), Some(Position::Bytes(1_500_000_000)));
        assert_eq!(Position::parse("2048s"), Some(Position::Bytes(1 << 20)));
        assert_eq!(Position::parse("10"), Some(Position::Bytes(10_000_000)));
        assert_eq!(Position::parse("-1GiB").unwrap().resolve(3 << 30), Some(2 << 30));
        assert_eq!(Position::parse("-4GiB").unwrap().resolve(3 << 30), None);
        assert_eq!(Position::parse("12.5%").unwrap().resolve(800), Some(100));
        for bad in ["", "x", "101%", "MiB", "1.MiB.2", "99999999999TiB", "--1MiB", "1e3MiB"] {
            assert_eq!(Position::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_empty_list_means_upstreams_layout() {
        let partitions = Storage::default().effective_partitions();
        let mounts: Vec<&str> = partitions.iter().map(|partition| partition.mount.as_str()).collect();
        assert_eq!(mounts, ["/", "none", "/boot/efi", "/boot"]);
    }
}
