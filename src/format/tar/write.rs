//! Streams a [`Tree`] into an archive.

use std::io::{Read, Write};

use super::compress::{Compression, Sink};
use super::format::{
    BLOCK, Member, RECORD, TYPE_BLOCK, TYPE_CHAR, TYPE_DIRECTORY, TYPE_FIFO, TYPE_FILE, TYPE_HARD_LINK, TYPE_SYMLINK,
};
use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::tree::{Content, Entry, Kind, Tree, TreePath};

#[derive(Debug, Clone, Default)]
pub struct Options {
    pub compression: Compression,
    /// All cores when `None`. Does not change the result.
    pub threads: Option<usize>,
}

/// Read at a time.
const CHUNK: usize = 1 << 20;

/// Writes `tree` to where an archive begins. `progress` gets the number of bytes of files done since the last call.
pub fn write(tree: &Tree, to: impl Write, options: &Options, progress: &dyn Fn(u64)) -> Result<()> {
    let context = "writing the tar archive";
    let sink = Sink::new(options.compression, options.threads, to).context(context)?;
    let mut archive = Archive { sink, written: 0, buffer: Vec::new() };
    for (path, entry) in tree.iter() {
        interrupt::check()?;
        archive.member(path, entry, progress).with_context(|| format!("{context}: {path}"))?;
    }
    archive.finish().context(context)
}

struct Archive<W: Write> {
    sink: Sink<W>,
    written: u64,
    buffer: Vec<u8>,
}

impl<W: Write> Archive<W> {
    fn member(&mut self, path: &TreePath, entry: &Entry, progress: &dyn Fn(u64)) -> Result<()> {
        let folder = matches!(entry.kind, Kind::Directory);
        let name = name(path, folder);
        let meta = &entry.meta;
        let mut member = Member {
            name: &name,
            kind: TYPE_FILE,
            mode: meta.mode & 0o7777,
            uid: meta.uid,
            gid: meta.gid,
            size: 0,
            seconds: meta.mtime.seconds,
            nanoseconds: meta.mtime.nanoseconds,
            link: &[],
            device: (0, 0),
            xattrs: meta.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect(),
        };
        let target;
        match &entry.kind {
            Kind::Directory => member.kind = TYPE_DIRECTORY,
            Kind::File(content) => member.size = content.size(),
            Kind::Symlink(target) => (member.kind, member.link) = (TYPE_SYMLINK, target),
            Kind::HardLink(to) => {
                target = self::name(to, false);
                (member.kind, member.link) = (TYPE_HARD_LINK, &target);
                // They came with the file.
                member.xattrs.clear();
            }
            Kind::CharDevice { major, minor } => (member.kind, member.device) = (TYPE_CHAR, (*major, *minor)),
            Kind::BlockDevice { major, minor } => (member.kind, member.device) = (TYPE_BLOCK, (*major, *minor)),
            Kind::Fifo => member.kind = TYPE_FIFO,
            Kind::Socket => {
                return Err(Error::build("a tar archive cannot hold a socket")
                    .hint("remove it: programs make theirs when they start"));
            }
        }
        let header = member.encode();
        let header = header.ok_or_else(|| {
            let (major, minor) = member.device;
            Error::build(format!("a tar archive cannot hold the device number {major}:{minor}"))
        })?;
        self.put(&header)?;
        match &entry.kind {
            Kind::File(content) => self.content(content, progress),
            _ => Ok(()),
        }
    }

    fn content(&mut self, content: &Content, progress: &dyn Fn(u64)) -> Result<()> {
        let mut left = content.size();
        let mut reader = content.reader();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(CHUNK, 0);
        while left > 0 {
            interrupt::check()?;
            let length = left.min(CHUNK as u64) as usize;
            reader.read_exact(&mut buffer[..length]).context("reading its content")?;
            self.put(&buffer[..length])?;
            progress(length as u64);
            left -= length as u64;
        }
        self.buffer = buffer;
        self.fill(BLOCK)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_all(bytes).context("writing")?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Zeros up to a whole block of that size.
    fn fill(&mut self, block: usize) -> Result<()> {
        let length = self.written.next_multiple_of(block as u64) - self.written;
        self.put(&vec![0; length as usize])
    }

    /// Two blocks of zeros end an archive.
    fn finish(mut self) -> Result<()> {
        self.put(&[0; 2 * BLOCK])?;
        self.fill(RECORD)?;
        self.sink.finish().context("writing")
    }
}

/// As `tar -C root .` names it.
fn name(path: &TreePath, folder: bool) -> Vec<u8> {
    let mut name = b"./".to_vec();
    name.extend(path.as_bytes());
    if folder && !path.is_root() {
        name.push(b'/');
    }
    name
}
