//! Reads tar archives as images: POSIX.1-2001 (pax) and ustar, with GNU's long names and large numbers.
//!
//! Owns: [`listing`]. Only the headers are read; contents stay in the file. Attributes are those of `SCHILY.xattr`
//! records, access lists included, as GNU tar and bsdtar write them.

use std::collections::BTreeMap;

use super::listing::{FileData, Found, Item, Listing, Run};
use super::source::{SharedSource, Source};
use crate::error::{Context, Error, Result};
use crate::tree::{Meta, Mtime, TreePath, Xattrs};

const BLOCK: u64 = 512;
/// Long names, pax records.
const MAX_RECORDS: u64 = 4 << 20;

fn broken(what: &str) -> Error {
    Error::build(format!("the tar archive is damaged: {what}"))
}

/// Whether there is the magic of a POSIX or GNU archive and its checksum fits.
pub fn probe(file: &dyn Source) -> bool {
    let Ok(header) = file.bytes(0, BLOCK as usize) else { return false };
    header[257..262] == *b"ustar" && checksum(&header)
}

fn checksum(header: &[u8]) -> bool {
    let own = &header[148..156];
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let own_sum: u32 = own.iter().map(|byte| u32::from(*byte)).sum();
    number(own).ok() == Some(u64::from(sum - own_sum + 8 * 32))
}

/// Octal digits between spaces and NULs, or GNU's big-endian binary form.
fn number(field: &[u8]) -> Result<u64> {
    let wrong = || broken("a number is none");
    if field[0] & 0x80 != 0 {
        let mut value = u64::from(field[0] & 0x7F);
        for byte in &field[1..] {
            value = value.checked_mul(256).ok_or_else(wrong)? | u64::from(*byte);
        }
        return Ok(value);
    }
    let text: Vec<u8> = field.iter().copied().filter(|byte| !matches!(byte, b' ' | 0)).collect();
    text.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).map(|value| value | u64::from(digit - b'0')).ok_or_else(wrong),
        _ => Err(wrong()),
    })
}

/// What extension headers said about the next member.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub fn listing(file: &SharedSource) -> Result<Listing> {
    let mut listing = Listing::default();
    let mut extended = Extended::default();
    let mut global = BTreeMap::new();
    let mut at = 0;
    let mut number_of = 0;
    while at < file.size() {
        crate::interrupt::check()?;
        let header = file.bytes(at, BLOCK as usize).map_err(|_| broken("it is cut off"))?;
        if header.iter().all(|byte| *byte == 0) {
            return finish(listing);
        }
        if !checksum(&header) {
            return Err(broken(&format!("the checksum of the header at {at} does not fit")));
        }
        let stored = number(&header[124..136])?;
        let size = match extended.records.get(&b"size"[..]) {
            Some(size) if !matches!(header[156], b'x' | b'g' | b'L' | b'K') => decimal(size)?,
            _ => stored,
        };
        // Links and folders may claim a size; they have no bytes.
        let bytes = if matches!(header[156], b'1'..=b'6') { 0 } else { size };
        let data = at + BLOCK;
        let next = bytes.checked_next_multiple_of(BLOCK).and_then(|length| data.checked_add(length));
        at = next.filter(|next| *next <= file.size()).ok_or_else(|| broken("a member is cut off"))?;
        let records = |limit: u64| {
            if size > limit { Err(broken("an extension header is too long")) } else { file.bytes(data, size as usize) }
        };
        match header[156] {
            b'x' => extended.records = pax(&records(MAX_RECORDS)?)?,
            b'g' => global = pax(&records(MAX_RECORDS)?)?,
            b'L' => extended.path = Some(until_zero(&records(MAX_RECORDS)?).to_vec()),
            b'K' => extended.link = Some(until_zero(&records(MAX_RECORDS)?).to_vec()),
            _ => {
                let mut extended = std::mem::take(&mut extended);
                for (key, value) in &global {
                    extended.records.entry(key.clone()).or_insert_with(|| value.clone());
                }
                number_of += 1;
                member(
                    file,
                    &header,
                    extended,
                    Run { logical: 0, physical: data, length: bytes },
                    number_of,
                    &mut listing,
                )?;
            }
        }
    }
    finish(listing)
}

/// The root, which an archive need not have; links to links made direct; first names first.
fn finish(mut listing: Listing) -> Result<Listing> {
    if listing.get(&TreePath::root()).is_none() {
        let item = Item { meta: Meta::root(0o755), found: Found::Directory, number: 0 };
        listing.insert(TreePath::root(), item)?;
    }
    listing.settle_links()?;
    Ok(listing)
}

fn member(
    file: &SharedSource,
    header: &[u8],
    mut extended: Extended,
    run: Run,
    number_of: u64,
    listing: &mut Listing,
) -> Result<()> {
    let records = std::mem::take(&mut extended.records);
    let name = records.get(&b"path"[..]).cloned().or(extended.path).unwrap_or_else(|| ustar_name(header));
    let path = TreePath::new(&name)
        .ok_or_else(|| broken(&format!("the name `{}` leads outside", String::from_utf8_lossy(&name))))?;
    let link = records.get(&b"linkpath"[..]).cloned().or(extended.link);
    let link = link.unwrap_or_else(|| until_zero(&header[157..257]).to_vec());
    let context = || format!("reading {path}");
    let device = || -> Result<(u32, u32)> {
        let part =
            |at: usize| u32::try_from(number(&header[at..at + 8])?).map_err(|_| broken("a device number is too large"));
        Ok((part(329)?, part(337)?))
    };
    let found = match header[156] {
        b'0' | 0 | b'7' if !name.ends_with(b"/") || header[156] == b'7' => {
            let runs = if run.length == 0 { Vec::new() } else { vec![run] };
            Found::File(FileData { size: run.length, runs: runs.into(), source: file.clone() })
        }
        b'0' | 0 | b'5' => Found::Directory,
        b'1' => Found::HardLink(TreePath::new(&link).ok_or_else(|| broken("a hard link leads outside"))?),
        b'2' => Found::Symlink(link),
        b'3' => device().map(|(major, minor)| Found::CharDevice { major, minor })?,
        b'4' => device().map(|(major, minor)| Found::BlockDevice { major, minor })?,
        b'6' => Found::Fifo,
        other => {
            return Err(Error::build(format!("members of the type `{}` are not read here", char::from(other))))
                .with_context(context);
        }
    };
    let id = |key: &[u8], at: usize| -> Result<u32> {
        let value = records.get(key).map_or_else(|| number(&header[at..at + 8]), |text| decimal(text))?;
        u32::try_from(value).map_err(|_| broken("an owner is too large"))
    };
    let mtime = match records.get(&b"mtime"[..]) {
        Some(text) => time(text)?,
        None => Mtime { seconds: signed(&header[136..148])?, nanoseconds: 0 },
    };
    let xattrs: Xattrs = records
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone())))
        .collect();
    let mode = (number(&header[100..108])? & 0o7777) as u16;
    let meta = Meta { mode, uid: id(b"uid", 108)?, gid: id(b"gid", 116)?, mtime, xattrs };
    listing.insert(path.clone(), Item { meta, found, number: number_of }).with_context(context)
}

/// Prefix and name of a ustar header; GNU's own headers have something else in the place of the prefix.
fn ustar_name(header: &[u8]) -> Vec<u8> {
    let name = until_zero(&header[..100]);
    let prefix = until_zero(&header[345..500]);
    if header[257..263] == *b"ustar\0" && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Before 1970 is two's complement in GNU's binary form.
fn signed(field: &[u8]) -> Result<i64> {
    if field[0] == 0xFF {
        let tail: [u8; 8] = field[4..12].try_into().map_err(|_| broken("a time is none"))?;
        return Ok(i64::from_be_bytes(tail));
    }
    i64::try_from(number(field)?).map_err(|_| broken("a time is none"))
}

fn decimal(text: &[u8]) -> Result<u64> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| broken("a number is none"))
}

/// Seconds with a fraction, possibly negative: the fraction counts downwards then.
fn time(text: &[u8]) -> Result<Mtime> {
    let wrong = || broken("a time is none");
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| wrong())?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: u32 = digits.parse().map_err(|_| wrong())?;
    if whole.starts_with('-') && nanoseconds > 0 {
        let seconds = seconds.checked_sub(1).ok_or_else(wrong)?;
        return Ok(Mtime { seconds, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Ok(Mtime { seconds, nanoseconds })
}

/// "pax Extended Header": length, space, keyword, `=`, value, line break.
fn pax(bytes: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let wrong = || broken("an extension record is malformed");
    let mut records = BTreeMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = rest.iter().take(20).position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length = usize::try_from(decimal(&rest[..space])?).map_err(|_| wrong())?;
        let record = rest.get(space + 1..length).ok_or_else(wrong)?;
        let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        rest = &rest[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use super::*;
    use crate::inspect::source::{FileSource, MemorySource};
    use crate::tree::Kind;

    /// A folder of this machine through GNU tar.
    fn archive(format: &str) -> Option<Vec<u8>> {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("in");
        std::fs::create_dir_all(folder.join("a").join("n".repeat(180))).unwrap();
        std::fs::write(folder.join("a/hello"), "hello\n").unwrap();
        std::fs::write(folder.join("a").join("n".repeat(180)).join("m".repeat(200)), vec![5; 70_000]).unwrap();
        std::fs::hard_link(folder.join("a/hello"), folder.join("z")).unwrap();
        std::os::unix::fs::symlink("x".repeat(300), folder.join("link")).unwrap();
        let out = scratch.path().join("out.tar");
        let run = Command::new("tar")
            .args([
                "--format",
                format,
                "--sort=name",
                "--owner=x:70000",
                "--group=y:12",
                "--mtime=@1600000000.5",
                "-cf",
            ])
            .arg(&out)
            .arg("-C")
            .arg(&folder)
            .arg(".")
            .output();
        match run {
            Ok(run) if run.status.success() => Some(std::fs::read(&out).unwrap()),
            _ => {
                println!("skipped: GNU tar is not installed");
                None
            }
        }
    }

    #[test]
    fn what_gnu_tar_wrote_is_read() {
        for format in ["gnu", "pax"] {
            let Some(bytes) = archive(format) else { return };
            let source: SharedSource = Arc::new(MemorySource(bytes));
            assert!(probe(&*source));
            let tree = listing(&source).unwrap().tree(&"t".into()).unwrap();
            let get = |path: &str| tree.get(&TreePath::new(path).unwrap()).unwrap();
            assert_eq!(tree.read_file(&TreePath::literal("a/hello")).unwrap().unwrap(), b"hello\n");
            assert_eq!(get("z").kind, Kind::HardLink(TreePath::literal("a/hello")));
            assert_eq!(get("link").kind, Kind::Symlink(vec![b'x'; 300]));
            let long = format!("a/{}/{}", "n".repeat(180), "m".repeat(200));
            assert_eq!(tree.read_file(&TreePath::new(&long).unwrap()).unwrap().unwrap(), vec![5; 70_000]);
            let meta = &get("a/hello").meta;
            assert_eq!((meta.uid, meta.gid, meta.mtime.seconds), (70_000, 12, 1_600_000_000));
            assert_eq!(meta.mtime.nanoseconds, if format == "pax" { 500_000_000 } else { 0 });
            assert_eq!(tree.len(), 7);
        }
    }

    #[test]
    fn hostile_archives_do_no_harm() {
        let Some(good) = archive("pax") else { return };
        let mut failed = 0;
        for at in (0..good.len().min(9000)).step_by(3) {
            for value in [0, b'7', 0xFF] {
                let mut bytes = good.clone();
                bytes[at] = value;
                // With checksums that fit again.
                for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
                    block[148..156].fill(b' ');
                    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                }
                failed += usize::from(listing(&(Arc::new(MemorySource(bytes)) as SharedSource)).is_err());
            }
        }
        assert!(failed > 20, "{failed}");
        let cut: SharedSource = Arc::new(MemorySource(good[..1000].to_vec()));
        assert!(listing(&cut).is_err());
    }

    #[test]
    fn times_before_1970() {
        assert_eq!(time(b"-1.25").unwrap(), Mtime { seconds: -2, nanoseconds: 750_000_000 });
        assert_eq!(time(b"5.1").unwrap(), Mtime { seconds: 5, nanoseconds: 100_000_000 });
        assert!(time(b"x").is_err() && time(b"1.2x").is_err());
        assert!(FileSource::open(std::path::Path::new("/nonexistent")).is_err());
    }
}
