//! A package in the form in which it is cheap to unpack again: what its members are, their bytes in the store.
//!
//! Owns: the bytes of a package's [`Record`], which the store keeps under the package's digest. Control files and the
//! files of the data member are contents of pack files, so a file that is in a layer's Tree as well lies there once.
//! Numbers are little-endian, texts have their length before them. Whatever is wrong in a record is an error; then the
//! package is decompressed again.

use std::collections::BTreeMap;

use super::binary::Binary;
use super::deb::ControlFile;
use super::stage::Body;
use super::tar::{Entry, Kind};
use crate::error::{Error, Result};
use crate::tree::Content;
use crate::tree::records::Record;
use crate::tree::store::PackWriter;

/// One member of the data archive; files with their contents and, where dpkg wants to know it, their MD5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub entry: Entry,
    pub file: Option<(Content, Option<String>)>,
}

/// A package as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// By name: mode and bytes.
    pub control: BTreeMap<String, (u16, Content)>,
    pub members: Vec<Member>,
}

/// What the store keeps of a package that was just decompressed; nothing if some of it is not in the store.
pub fn record(binary: &Binary, members: &[(Entry, Option<Body<'_>>)], pack: &PackWriter) -> Result<Option<Record>> {
    let mut out = Writer::default();
    out.number(binary.files.len() as u64);
    for (name, file) in &binary.files {
        out.text(name.as_bytes());
        out.number(file.mode.into());
        out.content(&pack.add(&file.bytes)?);
    }
    out.number(members.len() as u64);
    for (entry, body) in members {
        out.entry(entry);
        if let Some(body) = body {
            let Some(content) = &body.content else { return Ok(None) };
            out.content(content);
            out.text(body.md5.as_deref().unwrap_or_default().as_bytes());
        }
    }
    Ok(Some(out.record))
}

/// Takes a record apart.
pub fn read(record: &Record) -> Result<Kept> {
    let mut reader = Reader { bytes: &record.bytes, contents: &record.contents };
    let mut control = BTreeMap::new();
    for _ in 0..reader.number()? {
        let name = reader.string()?;
        let mode = reader.small(0o7777)? as u16;
        control.insert(name, (mode, reader.content()?));
    }
    let mut members = Vec::new();
    for _ in 0..reader.number()? {
        let mut entry = reader.entry()?;
        let mut file = None;
        if let Kind::File(size) = &mut entry.kind {
            let content = reader.content()?;
            *size = content.size();
            let md5 = reader.string()?;
            file = Some((content, (!md5.is_empty()).then_some(md5)));
        }
        members.push(Member { entry, file });
    }
    if reader.bytes.is_empty() { Ok(Kept { control, members }) } else { Err(broken()) }
}

/// Control files with their bytes, which are compared with their digests.
pub fn control_files(kept: &BTreeMap<String, (u16, Content)>) -> Result<BTreeMap<String, ControlFile>> {
    let file = |(name, (mode, content)): (&String, &(u16, Content))| {
        Ok((name.clone(), ControlFile { bytes: content.bytes()?, mode: *mode }))
    };
    kept.iter().map(file).collect()
}

fn broken() -> Error {
    Error::build("what is kept of a package is not whole")
}

#[derive(Default)]
struct Writer {
    record: Record,
}

impl Writer {
    fn number(&mut self, number: u64) {
        self.record.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.record.bytes.extend_from_slice(text);
    }

    fn content(&mut self, content: &Content) {
        self.number(self.record.contents.len() as u64);
        self.record.contents.push(content.clone());
    }

    fn entry(&mut self, entry: &Entry) {
        self.text(&entry.name);
        let device = |out: &mut Self, kind: u64, major: u32, minor: u32| {
            out.number(kind);
            out.number(major.into());
            out.number(minor.into());
        };
        match &entry.kind {
            // Its size is that of the content.
            Kind::File(_) => self.number(0),
            Kind::Directory => self.number(1),
            Kind::Symlink(target) => {
                self.number(2);
                self.text(target);
            }
            Kind::HardLink(target) => {
                self.number(3);
                self.text(target);
            }
            Kind::CharDevice { major, minor } => device(self, 4, *major, *minor),
            Kind::BlockDevice { major, minor } => device(self, 5, *major, *minor),
            Kind::Fifo => self.number(6),
        }
        self.number(entry.mode.into());
        self.number(entry.uid.into());
        self.number(entry.gid.into());
        self.text(&entry.user);
        self.text(&entry.group);
        self.record.bytes.extend_from_slice(&entry.mtime.to_le_bytes());
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    contents: &'a [Content],
}

impl<'a> Reader<'a> {
    fn array(&mut self) -> Result<[u8; 8]> {
        let (array, rest) = self.bytes.split_first_chunk().ok_or_else(broken)?;
        self.bytes = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn small(&mut self, most: u32) -> Result<u32> {
        u32::try_from(self.number()?).ok().filter(|number| *number <= most).ok_or_else(broken)
    }

    fn text(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.number()?).map_err(|_| broken())?;
        let (text, rest) = self.bytes.split_at_checked(length).ok_or_else(broken)?;
        self.bytes = rest;
        Ok(text)
    }

    fn string(&mut self) -> Result<String> {
        String::from_utf8(self.text()?.to_vec()).map_err(|_| broken())
    }

    fn content(&mut self) -> Result<Content> {
        let at = usize::try_from(self.number()?).map_err(|_| broken())?;
        self.contents.get(at).cloned().ok_or_else(broken)
    }

    fn entry(&mut self) -> Result<Entry> {
        let name = self.text()?.to_vec();
        let kind = match self.number()? {
            0 => Kind::File(0),
            1 => Kind::Directory,
            2 => Kind::Symlink(self.text()?.to_vec()),
            3 => Kind::HardLink(self.text()?.to_vec()),
            4 => Kind::CharDevice { major: self.small(u32::MAX)?, minor: self.small(u32::MAX)? },
            5 => Kind::BlockDevice { major: self.small(u32::MAX)?, minor: self.small(u32::MAX)? },
            6 => Kind::Fifo,
            _ => return Err(broken()),
        };
        let mode = self.small(0o7777)? as u16;
        let (uid, gid) = (self.small(u32::MAX)?, self.small(u32::MAX)?);
        let (user, group) = (self.text()?.to_vec(), self.text()?.to_vec());
        let mtime = i64::from_le_bytes(self.array()?);
        Ok(Entry { name, kind, mode, uid, gid, user, group, mtime })
    }
}

#[cfg(test)]
mod tests {
    use super::super::binary::Source;
    use super::super::stage::{Place, Stage};
    use super::*;
    use crate::tree::store::Store;
    use crate::tree::{Digest, Tree};

    /// A package with one member of each kind; one file is larger than what is held in memory, one has zeros.
    fn deb(folder: &std::path::Path) -> std::path::PathBuf {
        let archive = |members: &[(&str, u8, Vec<u8>, &str)]| {
            let mut out = Vec::new();
            for (name, kind, bytes, link) in members {
                let mut header = tar::Header::new_gnu();
                header.set_path(name).unwrap();
                header.set_entry_type(tar::EntryType::new(*kind));
                header.set_mode(0o4750);
                header.set_mtime(1_600_000_000);
                header.set_gid(42);
                header.set_username("root").unwrap();
                header.set_size(bytes.len() as u64);
                header.set_device_major(5).unwrap();
                header.set_device_minor(1).unwrap();
                if !link.is_empty() {
                    header.set_link_name(link).unwrap();
                }
                header.set_cksum();
                out.extend_from_slice(header.as_bytes());
                out.extend_from_slice(bytes);
                out.resize(out.len().next_multiple_of(512), 0);
            }
            out
        };
        let control = "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b>\nDescription: x\n";
        let control = [
            ("./control", b'0', control.into(), ""),
            ("./conffiles", b'0', b"/etc/a\n".to_vec(), ""),
            ("./preinst", b'0', b"#!/bin/sh\n".to_vec(), ""),
        ];
        let data = [
            ("./etc/", b'5', Vec::new(), ""),
            ("./etc/a", b'0', b"configured".to_vec(), ""),
            ("./etc/b", b'1', Vec::new(), "./etc/a"),
            ("./large", b'0', (0..17u32 << 20).map(|at| (at / 77) as u8).collect(), ""),
            ("./zeros", b'0', vec![0; 3 << 20], ""),
            ("./link", b'2', Vec::new(), "etc/a"),
            ("./c", b'3', Vec::new(), ""),
            ("./b", b'4', Vec::new(), ""),
            ("./p", b'6', Vec::new(), ""),
        ];
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, member) in
            [("debian-binary", b"2.0\n".to_vec()), ("control.tar", archive(&control)), ("data.tar", archive(&data))]
        {
            bytes.extend_from_slice(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, member.len()).as_bytes(),
            );
            bytes.extend_from_slice(&member);
        }
        let path = folder.join("a.deb");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    type Seen = (Entry, Option<(Vec<u8>, Option<String>, Content)>);

    /// Members with their bytes.
    fn picture(stage: &Stage, binary: &Binary, pack: &PackWriter) -> Vec<Seen> {
        let staged = stage.prepare(binary, Some(pack)).unwrap();
        let body = |body: Body<'_>| {
            let bytes = match body.place {
                Place::Memory(held) => held.bytes.clone(),
                Place::File(kept) => {
                    let path = kept.give();
                    let bytes = std::fs::read(&path).unwrap();
                    std::fs::remove_file(path).unwrap();
                    bytes
                }
            };
            (bytes, body.md5, body.content.unwrap())
        };
        staged.members.into_iter().map(|(entry, found)| (entry, found.map(body))).collect()
    }

    #[test]
    fn what_is_kept_is_what_was_decompressed() {
        let folder = tempfile::tempdir().unwrap();
        let path = deb(folder.path());
        let sha256 = Digest::of(&std::fs::read(&path).unwrap());
        let store = Store::open(folder.path()).unwrap();
        let stage = Stage::new(&folder.path().join("stage"), 1 << 20).unwrap();
        let pack = store.writer(Digest::of(b"one")).unwrap();
        let binary = Binary::open_known(&path, sha256, &store).unwrap();
        assert!(matches!(binary.source, Source::Deb(_)));
        let first = picture(&stage, &binary, &pack);
        pack.save(&Tree::new()).unwrap();
        let record = store.record(sha256).unwrap();
        let kept = Binary::open_known(&path, sha256, &store).unwrap();
        assert!(matches!(kept.source, Source::Kept(_)));
        assert_eq!(
            (&kept.files, &kept.conffiles, kept.stanza("x", &[])),
            (&binary.files, &binary.conffiles, binary.stanza("x", &[]))
        );
        let pack = store.writer(Digest::of(b"two")).unwrap();
        let second = picture(&stage, &kept, &pack);
        assert_eq!(first, second);
        let holes = |picture: &[Seen]| -> Vec<_> {
            picture.iter().filter_map(|(_, body)| Some(body.as_ref()?.2.holes().to_vec())).collect()
        };
        assert_eq!(holes(&first), holes(&second), "they are no part of a content's digest");
        assert!(holes(&first).iter().any(|holes| !holes.is_empty()));
        let md5 = crate::format::disk::sums::md5_hex(b"configured");
        assert_eq!(second[1].1.as_ref().unwrap().1, Some(md5));
        // What it refers to is not stored again.
        let saved = pack.save(&Tree::new()).unwrap();
        assert_eq!(saved, Tree::new());
        assert!(read(&record).is_ok());
        for length in 0..record.bytes.len() {
            let cut = Record { bytes: record.bytes[..length].to_vec(), contents: record.contents.clone() };
            assert!(read(&cut).is_err(), "cut at {length}");
        }
        assert!(read(&Record { contents: Vec::new(), ..record.clone() }).is_err());
        assert!(read(&Record { bytes: [&record.bytes[..], b"x"].concat(), ..record }).is_err());
    }
}
