//! `inspect`: what is in an image file, without starting it.
//!
//! Owns: the summary and its three forms, listing a folder of the image, copying a file out of it.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::output::{self, Format};
use crate::document;
use crate::error::{Context, Error, Kind, Result};
use crate::inspect::compare;
use crate::inspect::gpt::Partition;
use crate::inspect::image::{Image, Mounted};
use crate::inspect::listing::{FileData, Found, Item, Listing};
use crate::plan::meta;
use crate::report::words;
use crate::tree::{ReadAt, TreePath};

/// Show what is in an image file, without starting it
///
/// Reads qcow2, raw, vmdk, vhd, iso and tar; GPT; ext4, FAT and squashfs. Nothing is mounted, nothing is written, no privilege is
/// needed. Without an option the summary is shown: format and sizes, partitions and what is mounted where, the release,
/// kernels, how many packages, and what the image says about itself (`/etc/imagebuilder/meta`).
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder inspect out/control-plane.qcow2
  imagebuilder inspect out/control-plane.qcow2 -o json | jq .partitions
  imagebuilder inspect out/control-plane.qcow2 --ls /etc/systemd
  imagebuilder inspect out/control-plane.qcow2 --cat /etc/os-release
  imagebuilder inspect out/control-plane.qcow2 --definition > image.yaml    what it was built from")]
pub struct Args {
    /// The image file
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// List a folder of the image (or show one file), as `ls -l` does
    #[arg(long, value_name = "PATH", group = "what")]
    pub ls: Option<String>,
    /// With `--ls`: everything below the folder
    #[arg(short = 'R', long, requires = "ls")]
    pub recursive: bool,
    /// Write a file of the image to standard output; symbolic links are followed inside the image
    #[arg(long, value_name = "PATH", group = "what")]
    pub cat: Option<String>,
    /// Write the documents that the image carries to standard output: the effective AirshipImage and the lock
    #[arg(long, group = "what")]
    pub definition: bool,
    /// How the summary, or the list, is printed
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

pub fn run(args: &Args) -> Result<()> {
    let image = Image::open(&args.image)?;
    let within = || format!("reading image {}", args.image.display());
    if let Some(path) = &args.ls {
        let mounted = image.mounted().with_context(within)?;
        return list(&mounted.listing, &parse(path)?, args);
    }
    if let Some(path) = &args.cat {
        let mounted = image.mounted().with_context(within)?;
        return copy(&mounted.listing, &parse(path)?);
    }
    if args.definition {
        let mounted = image.mounted().with_context(within)?;
        let parsed = read_meta(&mounted.listing)?.ok_or_else(|| no_meta(&args.image))?;
        return output::print(&format!("{}---\n{}", parsed.image, parsed.lock));
    }
    let summary = summary(&image)?;
    match args.output {
        Format::Table => output::print(&table(&summary)),
        Format::Yaml => output::print(&document::to_yaml(&document::load_str("output", &summary.to_string())?)),
        Format::Json => {
            let text = serde_json::to_string_pretty(&summary).map_err(|error| Error::build(error.to_string()))?;
            output::print(&format!("{text}\n"))
        }
    }
}

fn parse(path: &str) -> Result<TreePath> {
    TreePath::new(path).ok_or_else(|| Error::new(Kind::Usage, format!("`{path}` is not a path: leave out `..`")))
}

pub(super) fn no_meta(image: &Path) -> Error {
    Error::build(format!("{} does not say what it was built from", image.display()))
        .hint("only images that imagebuilder made have /etc/imagebuilder/meta")
}

/// What the image says about itself.
pub(super) fn read_meta(listing: &Listing) -> Result<Option<meta::Parsed>> {
    /// A lock of ten thousand packages has two megabytes.
    const LIMIT: u64 = 64 << 20;
    match listing.inode(&TreePath::literal("etc/imagebuilder/meta")).map(|item| &item.found) {
        Some(Found::File(data)) => {
            let bytes = data.bytes(LIMIT).context("reading /etc/imagebuilder/meta")?;
            meta::parse(&bytes).map(Some)
        }
        _ => Ok(None),
    }
}

fn summary(image: &Image) -> Result<Value> {
    // What can be told of a disk whose root cannot be read is told all the same.
    let mounted = image.mounted();
    let problem = mounted.as_ref().err().map(ToString::to_string);
    let mounted = mounted.ok();
    let partitions: Vec<Value> =
        (0..image.volumes.len()).map(|index| partition(image, index, mounted.as_ref())).collect();
    let mut out = json!({
        "file": image.path.display().to_string(),
        "format": image.container.name(),
        "fileSize": image.file.size(),
        "diskSize": image.disk.size(),
        "partitionTable": image.table.as_ref().map(|table| json!({
            "type": "gpt", "id": table.disk_guid.to_string(), "complaints": table.complaints,
        })),
        "partitions": partitions,
        "problem": problem,
    });
    if let Some(mounted) = &mounted {
        let listing = &mounted.listing;
        let packages = compare::packages(listing)?;
        out["system"] = json!({
            "release": release(listing)?,
            "kernels": kernels(listing),
            "packages": packages.len(),
            "entries": listing.len(),
            "fileBytes": file_bytes(listing),
        });
        out["definition"] = match read_meta(listing) {
            Ok(None) => Value::Null,
            Ok(Some(parsed)) => json!({
                "name": parsed.header.get("name"),
                "site": parsed.header.get("site"),
                "builder": parsed.header.get("builder"),
                "epoch": parsed.header.get("epoch").and_then(|text| text.parse::<i64>().ok()),
                "imageDigest": parsed.header.get("imageDigest"),
                "lockDigest": parsed.header.get("lockDigest"),
                "redacted": parsed.redacted,
            }),
            Err(error) => json!({"problem": error.to_string()}),
        };
    }
    if let Value::Object(map) = &mut out {
        map.retain(|_, value| !value.is_null());
    }
    Ok(out)
}

fn partition(image: &Image, index: usize, mounted: Option<&Mounted>) -> Value {
    let volume = &image.volumes[index];
    let mount = mounted.and_then(|mounted| mounted.mounts.iter().find(|(other, _)| *other == index));
    let (name, uuid, label, problem) = match &volume.file_system {
        Ok(Some(found)) => (Some(found.name()), Some(found.uuid()), Some(found.label()), None),
        Ok(None) => (None, None, None, None),
        Err(error) => (None, None, None, Some(error.to_string())),
    };
    let free = volume.file_system().and_then(|found| found.size().1);
    let of = |get: fn(&Partition) -> Value| volume.partition.as_ref().map(get);
    let mut value = json!({
        "number": of(|one| one.number.into()),
        "start": of(|one| one.start.into()),
        "size": volume.source.size(),
        "type": of(|one| partition_type(one).into()),
        "id": of(|one| one.guid.to_string().into()),
        "name": of(|one| one.name.clone().into()),
        "fileSystem": name,
        "uuid": uuid,
        "label": label.filter(|label| !label.is_empty()),
        "free": free,
        "mountedAt": mount.map(|(_, at)| at.to_string()),
        "problem": problem,
    });
    if let Value::Object(map) = &mut value {
        map.retain(|_, value| !value.is_null());
    }
    value
}

fn partition_type(partition: &Partition) -> String {
    use crate::boot::layout::{TYPE_BIOS_BOOT, TYPE_ESP, TYPE_LINUX};
    match partition.type_guid {
        TYPE_ESP => "EFI system".to_owned(),
        TYPE_BIOS_BOOT => "BIOS boot".to_owned(),
        TYPE_LINUX => "Linux".to_owned(),
        other => other.to_string(),
    }
}

/// `PRETTY_NAME` of os-release(5).
fn release(listing: &Listing) -> Result<Option<String>> {
    for path in ["usr/lib/os-release", "etc/os-release"].map(TreePath::literal) {
        if let Some(Found::File(data)) = listing.inode(&path).map(|item| &item.found) {
            let bytes = data.bytes(1 << 16).with_context(|| format!("reading {path}"))?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
            return Ok(name.map(|name| name.trim_matches('"').to_owned()));
        }
    }
    Ok(None)
}

/// Versions of the kernels below `/boot`; of a live system, whose kernel lies on the medium, those it has modules for.
fn kernels(listing: &Listing) -> Vec<String> {
    let below = |folder: &'static str, prefix: &'static [u8]| -> Vec<String> {
        let folder = TreePath::literal(folder);
        let names = listing.iter().filter(|(path, _)| path.parent().as_ref() == Some(&folder)).map(|(path, _)| path);
        names
            .filter_map(|path| path.file_name().strip_prefix(prefix))
            .map(|version| String::from_utf8_lossy(version).into_owned())
            .collect()
    };
    let found = below("boot", b"vmlinuz-");
    if found.is_empty() { below("usr/lib/modules", b"") } else { found }
}

fn file_bytes(listing: &Listing) -> u64 {
    let sizes = listing.iter().filter_map(|(_, item)| match &item.found {
        Found::File(data) => Some(data.size),
        _ => None,
    });
    sizes.fold(0, u64::saturating_add)
}

fn table(summary: &Value) -> String {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let size = |value: &Value| value.as_u64().map(words::bytes).unwrap_or_default();
    let list = |value: &Value| {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().map(&text).collect::<Vec<_>>().join(", ")
    };
    let (system, definition) = (&summary["system"], &summary["definition"]);
    let mut rows = vec![
        vec!["file".to_owned(), text(&summary["file"])],
        vec!["format".to_owned(), format!("{}, {} on disk", text(&summary["format"]), size(&summary["fileSize"]))],
        vec!["disk".to_owned(), size(&summary["diskSize"])],
        vec!["release".to_owned(), text(&system["release"])],
        vec!["kernel".to_owned(), list(&system["kernels"])],
        vec!["packages".to_owned(), text(&system["packages"])],
        vec!["content".to_owned(), format!("{} entries, {}", text(&system["entries"]), size(&system["fileBytes"]))],
    ];
    if !definition.is_null() {
        rows.push(vec!["built as".to_owned(), text(&definition["name"])]);
        rows.push(vec!["built by".to_owned(), text(&definition["builder"])]);
        rows.push(vec!["epoch".to_owned(), text(&definition["epoch"])]);
        rows.push(vec!["lock".to_owned(), text(&definition["lockDigest"])]);
        rows.push(vec!["left out".to_owned(), list(&definition["redacted"])]);
        rows.push(vec!["problem".to_owned(), text(&definition["problem"])]);
    }
    rows.push(vec!["problem".to_owned(), text(&summary["problem"])]);
    rows.push(vec!["problem".to_owned(), list(&summary["partitionTable"]["complaints"])]);
    rows.retain(|row| !row[1].is_empty());
    let mut out = words::table(&rows);
    let head = ["PARTITION", "TYPE", "SIZE", "FILE SYSTEM", "FREE", "MOUNTED AT", "UUID"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for one in summary["partitions"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let file_system = if one["problem"].is_null() { text(&one["fileSystem"]) } else { text(&one["problem"]) };
        let (number, kind, at, uuid) = (&one["number"], &one["type"], &one["mountedAt"], &one["uuid"]);
        rows.push(vec![
            text(number),
            text(kind),
            size(&one["size"]),
            file_system,
            size(&one["free"]),
            text(at),
            text(uuid),
        ]);
    }
    if rows.len() > 1 {
        out.push('\n');
        out.push_str(&words::table(&rows));
    }
    out
}

/// The item at a path, symbolic links on the way followed inside the image.
fn find(listing: &Listing, path: &TreePath) -> Result<TreePath> {
    let resolved = listing.resolve(path)?;
    match listing.get(&resolved) {
        Some(_) => Ok(resolved),
        None => Err(Error::build(format!("there is no {path} in the image"))),
    }
}

fn list(listing: &Listing, path: &TreePath, args: &Args) -> Result<()> {
    let at = find(listing, path)?;
    let folder = matches!(listing.get(&at).map(|item| &item.found), Some(Found::Directory));
    let wanted = |other: &TreePath| match (folder, args.recursive) {
        (false, _) => *other == at,
        (true, true) => other.is_below(&at),
        (true, false) => other.parent().as_ref() == Some(&at),
    };
    let rows: Vec<(&TreePath, &Item)> = listing.iter().filter(|(path, _)| wanted(path)).collect();
    let size = |item: &Item| match &item.found {
        Found::File(data) => data.size.to_string(),
        Found::CharDevice { major, minor } | Found::BlockDevice { major, minor } => format!("{major}, {minor}"),
        _ => String::new(),
    };
    let target = |item: &Item| match &item.found {
        Found::Symlink(target) => format!(" -> {}", String::from_utf8_lossy(target)),
        Found::HardLink(target) => format!(" = {target}"),
        _ => String::new(),
    };
    output::rows(
        args.output,
        &["MODE", "OWNER", "SIZE", "MODIFIED", "PATH"],
        &rows,
        |(path, item)| {
            let owner = format!("{}:{}", item.meta.uid, item.meta.gid);
            vec![mode(item), owner, size(item), time(item), format!("{path}{}", target(item))]
        },
        |(path, item)| {
            let xattrs = item.meta.xattrs.iter();
            let xattrs: serde_json::Map<String, Value> =
                xattrs.map(|(name, value)| (String::from_utf8_lossy(name).into(), hex::encode(value).into())).collect();
            json!({
                "path": path.to_string(),
                "type": compare::kind(&item.found),
                "mode": format!("{:04o}", item.meta.mode),
                "uid": item.meta.uid,
                "gid": item.meta.gid,
                "mtime": item.meta.mtime.seconds,
                "size": match &item.found { Found::File(data) => Some(data.size), _ => None },
                "target": target(item).split_once(' ').and_then(|(_, rest)| rest.split_once(' ')).map(|(_, target)| target),
                "xattrs": xattrs,
            })
        },
    )
}

/// As `ls -l` shows it.
fn mode(item: &Item) -> String {
    let kind = match &item.found {
        Found::Directory => 'd',
        Found::File(_) | Found::HardLink(_) => '-',
        Found::Symlink(_) => 'l',
        Found::CharDevice { .. } => 'c',
        Found::BlockDevice { .. } => 'b',
        Found::Fifo => 'p',
        Found::Socket => 's',
    };
    let bits = item.meta.mode;
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let three = bits >> shift;
        text.push(if three & 4 != 0 { 'r' } else { '-' });
        text.push(if three & 2 != 0 { 'w' } else { '-' });
        text.push(match (three & 1 != 0, bits & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    if !item.meta.xattrs.is_empty() {
        text.push('+');
    }
    text
}

fn time(item: &Item) -> String {
    let seconds = item.meta.mtime.seconds;
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

fn copy(listing: &Listing, path: &TreePath) -> Result<()> {
    let at = find(listing, path)?;
    match listing.inode(&at).map(|item| &item.found) {
        Some(Found::File(data)) => write(data),
        Some(other) => Err(Error::build(format!("{path} is a {}, not a file", compare::kind(other)))
            .hint("`--ls` shows what is in a folder")),
        None => Err(Error::build(format!("{path} is a link to nothing"))),
    }
}

/// Bytes, not text: past everything that looks at colours.
fn write(data: &FileData) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut buffer = vec![0; data.size.min(1 << 20) as usize];
    let mut at = 0;
    while at < data.size {
        crate::interrupt::check()?;
        let length = (data.size - at).min(buffer.len() as u64) as usize;
        data.read_at(&mut buffer[..length], at)?;
        match out.write_all(&buffer[..length]) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                std::process::exit(128 + libc::SIGPIPE);
            }
            result => result.context("writing to standard output")?,
        }
        at += length as u64;
    }
    out.flush().context("writing to standard output")
}
