//! The saved form of a Tree: a header line, one line an entry, a line with the SHA-256 of all before.
//!
//! Owns: the encoding. Each line is JSON; paths, link targets and attributes are bytes and therefore percent-encoded
//! (RFC 3986 section 2.1, everything but printable ASCII without `%`, `"` and `\`). Contents are references to pack
//! files, which the header lists with their lengths.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::PackFile;
use super::holes::BLOCK;
use super::{Content, Digest, Entry, Kind, Meta, Mtime, Origin, Tree, TreePath, Xattrs};
use crate::error::{Context, Error, Result};

// Unknown fields are refused: who adds one without raising `store::FORMAT` has Trees made again, never misread.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// Name and length of each pack file.
    packs: Vec<(String, u64)>,
    origins: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(rename = "p", borrow)]
    path: Cow<'a, str>,
    #[serde(rename = "k", borrow)]
    kind: LineKind<'a>,
    #[serde(rename = "m")]
    mode: u16,
    #[serde(rename = "u")]
    uid: u32,
    #[serde(rename = "g")]
    gid: u32,
    #[serde(rename = "t")]
    mtime: (i64, u32),
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(String, String)>,
    /// Index into the header's list.
    #[serde(rename = "o")]
    origin: usize,
    /// Holes of a sparse file: starts and ends.
    #[serde(rename = "z", default, skip_serializing_if = "Vec::is_empty")]
    holes: Vec<(u64, u64)>,
}

#[derive(Serialize, Deserialize)]
enum LineKind<'a> {
    #[serde(rename = "d")]
    Directory,
    /// Digest, size, index of the pack, offset in it.
    #[serde(rename = "f")]
    File(#[serde(borrow)] Cow<'a, str>, u64, usize, u64),
    #[serde(rename = "l")]
    Symlink(String),
    #[serde(rename = "h")]
    HardLink(String),
    #[serde(rename = "c")]
    CharDevice(u32, u32),
    #[serde(rename = "b")]
    BlockDevice(u32, u32),
    #[serde(rename = "i")]
    Fifo,
    #[serde(rename = "s")]
    Socket,
}

/// The pack files a Tree refers to, in the order met.
#[derive(Default)]
pub struct Packs {
    list: Vec<(String, u64)>,
    index: HashMap<std::path::PathBuf, usize>,
}

impl Packs {
    pub fn index_of(&mut self, pack: &PackFile) -> Result<usize> {
        if let Some(index) = self.index.get(&pack.path) {
            return Ok(*index);
        }
        let context = || format!("reading {}", pack.path.display());
        let length = pack.file.metadata().with_context(context)?.len();
        let name = pack.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.list.push((name, length));
        self.index.insert(pack.path.clone(), self.list.len() - 1);
        Ok(self.list.len() - 1)
    }

    /// Names and lengths, in the order of their numbers.
    pub fn take(&mut self) -> Vec<(String, u64)> {
        std::mem::take(&mut self.list)
    }
}

/// Every content of the Tree must lie in a pack.
pub fn encode(tree: &Tree, packs: &mut Packs) -> Result<Vec<u8>> {
    let mut origins: Vec<String> = Vec::new();
    let mut origin_index: HashMap<Origin, usize> = HashMap::new();
    let mut lines = Vec::new();
    for (path, entry) in tree.iter() {
        let origin = *origin_index.entry(entry.origin.clone()).or_insert_with(|| {
            origins.push(entry.origin.to_string());
            origins.len() - 1
        });
        let meta = &entry.meta;
        let line = Line {
            path: escape(path.as_bytes()).into(),
            kind: encode_kind(&entry.kind, packs)?,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            mtime: (meta.mtime.seconds, meta.mtime.nanoseconds),
            xattrs: meta.xattrs.iter().map(|(name, value)| (escape(name), escape(value))).collect(),
            origin,
            holes: match &entry.kind {
                Kind::File(content) => content.holes().iter().map(|hole| (hole.start, hole.end)).collect(),
                _ => Vec::new(),
            },
        };
        push_line(&mut lines, &line);
    }
    let mut out = Vec::new();
    push_line(&mut out, &Header { packs: packs.take(), origins });
    out.append(&mut lines);
    let digest = Digest::of(&out);
    out.extend_from_slice(digest.to_hex().as_bytes());
    out.push(b'\n');
    Ok(out)
}

fn push_line(out: &mut Vec<u8>, value: &impl Serialize) {
    // Plain structs with text keys, which `serde_json` cannot refuse; a Vec takes every write.
    serde_json::to_writer(&mut *out, value).expect("plain data serialises to memory");
    out.push(b'\n');
}

fn encode_kind(kind: &Kind, packs: &mut Packs) -> Result<LineKind<'static>> {
    Ok(match kind {
        Kind::Directory => LineKind::Directory,
        Kind::File(content) => {
            let (pack, offset) = content.segment().ok_or_else(|| Error::build("content is not in a pack file"))?;
            LineKind::File(content.digest().to_hex().into(), content.size(), packs.index_of(pack)?, offset)
        }
        Kind::Symlink(target) => LineKind::Symlink(escape(target)),
        Kind::HardLink(target) => LineKind::HardLink(escape(target.as_bytes())),
        Kind::CharDevice { major, minor } => LineKind::CharDevice(*major, *minor),
        Kind::BlockDevice { major, minor } => LineKind::BlockDevice(*major, *minor),
        Kind::Fifo => LineKind::Fifo,
        Kind::Socket => LineKind::Socket,
    })
}

/// `open` finds a pack file by name and checks its length.
pub fn decode(bytes: &[u8], mut open: impl FnMut(&str, u64) -> Result<Arc<PackFile>> + Send) -> Result<Tree> {
    // 64 hexadecimal digits and a newline.
    let cut = bytes.len().checked_sub(65).ok_or_else(|| damaged("too short"))?;
    let (body, trailer) = bytes.split_at(cut);
    let mut lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let header = lines.next().ok_or_else(|| damaged("no header"))?;
    let lines: Vec<&[u8]> = lines.collect();
    let checked = || trailer == format!("{}\n", Digest::of(body)).as_bytes();
    let (whole, entries) = rayon::join(checked, || decode_lines(header, &lines, &mut open));
    if whole { entries.map(|entries| entries.into_iter().collect()) } else { Err(damaged("wrong checksum")) }
}

fn decode_lines(
    header: &[u8],
    lines: &[&[u8]],
    open: &mut (impl FnMut(&str, u64) -> Result<Arc<PackFile>> + Send),
) -> Result<Vec<(TreePath, Entry)>> {
    let header: Header = parse(header)?;
    let packs =
        header.packs.iter().map(|(name, length)| Ok((open(name, *length)?, *length))).collect::<Result<Vec<_>>>()?;
    let origins: Vec<Origin> = header.origins.iter().map(|origin| Origin::from(origin.as_str())).collect();
    lines.par_iter().with_min_len(512).map(|line| decode_line(line, &packs, &origins)).collect()
}

fn decode_line(line: &[u8], packs: &[(Arc<PackFile>, u64)], origins: &[Origin]) -> Result<(TreePath, Entry)> {
    let line: Line = parse(line)?;
    let meta = Meta {
        mode: line.mode,
        uid: line.uid,
        gid: line.gid,
        mtime: Mtime { seconds: line.mtime.0, nanoseconds: line.mtime.1 },
        xattrs: xattrs(&line.xattrs)?,
    };
    let mut kind = decode_kind(line.kind, packs)?;
    if let Kind::File(content) = &mut kind {
        let found = holes(&line.holes, content.size())?;
        *content = content.clone().with_holes(found);
    }
    let origin = origins.get(line.origin).ok_or_else(|| damaged("unknown origin"))?.clone();
    Ok((tree_path(&line.path)?, Entry { meta, kind, origin }))
}

/// The names of the packs in a header line.
pub fn packs_of(line: &[u8]) -> Option<Vec<String>> {
    let header: Header = serde_json::from_slice(line).ok()?;
    Some(header.packs.into_iter().map(|(name, _)| name).collect())
}

fn decode_kind(kind: LineKind<'_>, packs: &[(Arc<PackFile>, u64)]) -> Result<Kind> {
    Ok(match kind {
        LineKind::Directory => Kind::Directory,
        LineKind::File(digest, size, pack, offset) => {
            let digest = Digest::from_hex(&digest).ok_or_else(|| damaged("bad digest"))?;
            let (pack, length) = packs.get(pack).ok_or_else(|| damaged("unknown pack"))?;
            if offset.checked_add(size).is_none_or(|end| end > *length) {
                return Err(damaged("content outside of its pack"));
            }
            Kind::File(Content::packed(digest, size, pack.clone(), offset))
        }
        LineKind::Symlink(target) => Kind::Symlink(unescape(&target)?),
        LineKind::HardLink(target) => Kind::HardLink(tree_path(&target)?),
        LineKind::CharDevice(major, minor) => Kind::CharDevice { major, minor },
        LineKind::BlockDevice(major, minor) => Kind::BlockDevice { major, minor },
        LineKind::Fifo => Kind::Fifo,
        LineKind::Socket => Kind::Socket,
    })
}

fn xattrs(list: &[(String, String)]) -> Result<Xattrs> {
    list.iter().map(|(name, value)| Ok((unescape(name)?, unescape(value)?))).collect()
}

fn holes(list: &[(u64, u64)], size: u64) -> Result<Vec<Range<u64>>> {
    let mut after = 0;
    let check = |(start, end): &(u64, u64)| {
        let good = *start >= after && start < end && *end <= size && (end % BLOCK == 0 || *end == size);
        after = *end;
        if good && start % BLOCK == 0 { Ok(*start..*end) } else { Err(damaged("bad hole")) }
    };
    list.iter().map(check).collect()
}

fn tree_path(text: &str) -> Result<TreePath> {
    TreePath::new(unescape(text)?).ok_or_else(|| damaged("bad path"))
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T> {
    serde_json::from_slice(line).map_err(|error| damaged(&error.to_string()))
}

fn damaged(what: &str) -> Error {
    Error::build(format!("not a whole saved tree: {what}"))
}

fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'%' | b'"' | b'\\' | 0..=31 | 127..=255 => out.push_str(&format!("%{byte:02x}")),
            _ => out.push(char::from(*byte)),
        }
    }
    out
}

fn unescape(text: &str) -> Result<Vec<u8>> {
    if !text.contains('%') {
        return Ok(text.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => return Err(damaged("bad escape")),
        }
    }
    Ok(out)
}
