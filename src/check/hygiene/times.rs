//! Checks that nothing in the image says that it was made later than its epoch: what does would be different next time.

use std::io::Read;

use super::{Image, Rule};
use crate::check::Severity;
use crate::error::{Context, Error, Result};
use crate::tree::clusters::Clusters;
use crate::tree::{Content, Digest, Kind, TreePath};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "no-late-times",
        severity: Severity::Error,
        description: "no modification time, no day of a password change and no time in a gzip header that a script wrote is later than the epoch",
        check: late_times,
    },
    Rule {
        id: "no-late-initramfs",
        severity: Severity::Error,
        description: "no file in an initramfs is later than the epoch",
        check: late_initramfs,
    },
];

const SECONDS_A_DAY: i64 = 86_400;
/// RFC 1952: magic, method, flags, time.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// RFC 8878.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// cpio(5), "New ASCII Format", with and without checksums.
const CPIO: [&[u8; 6]; 2] = [b"070701", b"070702"];
const CPIO_HEADER: usize = 110;
/// No initramfs is larger, unpacked.
const LIMIT: u64 = 2 << 30;

/// Name and time of the newest file.
type Newest = Option<(String, i64)>;

fn late_times(image: &Image) -> Result<Vec<String>> {
    let epoch = image.epoch;
    let mut found = Vec::new();
    for (path, entry) in image.tree.iter() {
        if entry.meta.mtime > epoch {
            found.push(format!("{path} was changed at {}, after the epoch", entry.meta.mtime.seconds));
        }
        // What a package brings is what it is.
        if let (Kind::File(content), false) = (&entry.kind, entry.origin.starts_with("package ")) {
            if path.file_name().ends_with(b".gz") && gzip_time(content)?.is_some_and(|time| time > epoch.seconds) {
                found.push(format!("{path} says in its gzip header that it was made after the epoch"));
            }
        }
    }
    let day = epoch.seconds.div_euclid(SECONDS_A_DAY);
    for row in image.rows("/etc/shadow", 3)? {
        if row[2].parse::<i64>().is_ok_and(|changed| changed > day) {
            found.push(format!("the password of `{}` was changed after the epoch", row[0]));
        }
    }
    Ok(found)
}

fn gzip_time(content: &Content) -> Result<Option<i64>> {
    let mut head = [0; 8];
    if content.size() < head.len() as u64 {
        return Ok(None);
    }
    content.read_at(&mut head, 0)?;
    let time = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    Ok(head.starts_with(&GZIP).then_some(i64::from(time)))
}

fn late_initramfs(image: &Image) -> Result<Vec<String>> {
    let boot = image.tree.resolve(&TreePath::literal("boot"))?;
    let mut found = Vec::new();
    for (path, entry) in image.tree.children(&boot).filter(|(path, _)| path.file_name().starts_with(b"initrd.img-")) {
        let Kind::File(content) = &entry.kind else { continue };
        match newest_of(content, image.known).with_context(|| format!("reading {path}"))? {
            Ok(Some((name, time))) if time > image.epoch.seconds => {
                found.push(format!("{name} in {path} was changed at {time}, after the epoch"));
            }
            Ok(_) => {}
            Err(error) => found.push(format!("{path} cannot be read: {error}")),
        }
    }
    Ok(found)
}

/// What [`newest`] finds, or found in the same bytes before: to unpack them takes longer than all other checks.
fn newest_of(content: &Content, known: Option<&Clusters>) -> Result<Result<Newest>> {
    let key = Digest::of(format!("newest file of an initramfs 1 {}", content.digest()).as_bytes());
    if let Some(found) = known.and_then(|known| decode(&known.piece(&key)?)) {
        return Ok(Ok(found));
    }
    let found = newest(&content.bytes()?);
    if let (Ok(found), Some(known)) = (&found, known) {
        known.keep_piece(key, &encode(found))?;
    }
    Ok(found)
}

/// A byte that says whether there is one, the time, the name.
fn encode(newest: &Newest) -> Vec<u8> {
    match newest {
        None => vec![0],
        Some((name, time)) => [&[1], &time.to_le_bytes()[..], name.as_bytes()].concat(),
    }
}

fn decode(bytes: &[u8]) -> Option<Newest> {
    match bytes.split_first()? {
        (0, []) => Some(None),
        (1, rest) => {
            let (time, name) = rest.split_first_chunk()?;
            Some(Some((String::from_utf8(name.to_vec()).ok()?, i64::from_le_bytes(*time))))
        }
        _ => None,
    }
}

/// The newest file of an initramfs: archives end to end, with zeros between them, the last one compressed
/// (Documentation/driver-api/early-userspace/buffer-format.rst of Linux). Other compressions than gzip and zstd, and
/// what is no archive at all, are not looked into.
fn newest(mut bytes: &[u8]) -> Result<Newest> {
    let mut newest: Newest = None;
    let unpacked;
    loop {
        bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        if let Some(rest) = archive(bytes, &mut newest)? {
            bytes = rest;
        } else if bytes.starts_with(&GZIP) {
            unpacked = unpack(flate2::read::MultiGzDecoder::new(bytes))?;
            archive(&unpacked, &mut newest)?;
            return Ok(newest);
        } else if bytes.starts_with(&ZSTD) {
            unpacked = unpack(zstd::stream::read::Decoder::with_buffer(bytes).context("unpacking it")?)?;
            archive(&unpacked, &mut newest)?;
            return Ok(newest);
        } else {
            return Ok(newest);
        }
    }
}

fn unpack(decoder: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    decoder.take(LIMIT).read_to_end(&mut bytes).context("unpacking it")?;
    Ok(bytes)
}

/// Goes through one archive; what follows it, or `None` if there is none here.
fn archive<'a>(bytes: &'a [u8], newest: &mut Newest) -> Result<Option<&'a [u8]>> {
    let broken = || Error::build("its archive is damaged");
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + CPIO_HEADER) {
        if !CPIO.iter().any(|magic| header.starts_with(*magic)) {
            break;
        }
        let field = |index: usize| {
            let digits = std::str::from_utf8(&header[6 + index * 8..14 + index * 8]).ok();
            digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()).ok_or_else(broken)
        };
        let (time, size, name_size) = (field(5)?, field(6)?, field(11)?);
        let name = bytes.get(at + CPIO_HEADER..at + CPIO_HEADER + name_size).ok_or_else(broken)?;
        let name = name.strip_suffix(&[0]).unwrap_or(name);
        at = (at + CPIO_HEADER + name_size).next_multiple_of(4) + size.next_multiple_of(4);
        if name == b"TRAILER!!!" {
            return Ok(Some(bytes.get(at..).unwrap_or_default()));
        }
        if newest.as_ref().is_none_or(|(_, known)| time as i64 > *known) {
            *newest = Some((String::from_utf8_lossy(name).into_owned(), time as i64));
        }
    }
    if at == 0 { Ok(None) } else { Err(broken()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn cpio(files: &[(&str, u32, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, time, content) in files.iter().chain(&[("TRAILER!!!", 0, "")]) {
            let fields = [1, 0o100644, 0, 0, 1, *time, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
            out.extend_from_slice(b"070701");
            fields.iter().for_each(|field| out.extend(format!("{field:08x}").bytes()));
            for bytes in [[name.as_bytes(), b"\0"].concat(), content.as_bytes().to_vec()] {
                out.extend(bytes);
                out.resize(out.len().next_multiple_of(4), 0);
            }
        }
        out
    }

    #[test]
    fn what_was_found_is_known_later() {
        let cache = tempfile::tempdir().unwrap();
        let clusters = Clusters::open(cache.path(), 7, &crate::report::Reporter::quiet()).unwrap();
        for (bytes, wanted) in [(cpio(&[("init", 7, "x")]), Some(("init".to_owned(), 7))), (b"none".to_vec(), None)] {
            let content = Content::inline(bytes);
            for known in [None, Some(&clusters), Some(&clusters)] {
                assert_eq!(newest_of(&content, known).unwrap().unwrap(), wanted);
            }
        }
        let broken = Content::inline(cpio(&[("init", 7, "x")])[..130].to_vec());
        assert!(newest_of(&broken, Some(&clusters)).unwrap().is_err());
        assert!(newest_of(&broken, Some(&clusters)).unwrap().is_err(), "it is no answer to be kept");
        for bad in [&b""[..], b"\x02", b"\x01short", b"\0more"] {
            assert_eq!(decode(bad), None);
        }
    }

    #[test]
    fn archives_end_to_end_and_compressed() {
        let early = cpio(&[("kernel", 5, "microcode"), ("x", 9, "")]);
        let main = cpio(&[("init", 7, "#!/bin/sh\n"), ("late", 12, "")]);
        assert_eq!(newest(&early).unwrap(), Some(("x".into(), 9)));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&main).unwrap();
        for packed in [gzip.finish().unwrap(), zstd::encode_all(&main[..], 1).unwrap()] {
            assert_eq!(newest(&[&early[..], &[0; 8], &packed].concat()).unwrap(), Some(("late".into(), 12)));
        }
        assert_eq!(newest(b"not an archive").unwrap(), None);
        assert!(newest(&early[..130]).is_err());
    }
}
