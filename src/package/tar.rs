//! Members of a tar archive as a stream, as `dpkg-deb` writes them: v7, ustar and GNU headers.
//!
//! Owns: [`Archive`] and [`Entry`]. Follows tar(5) of libarchive and deb(5): long names of GNU type `L` and `K`; pax
//! headers are refused, as dpkg refuses them. The bytes of files are never in memory as a whole; all numbers are checked,
//! a member that claims more bytes than there are is an error.

use std::io::Read;

use crate::error::{Context, Error, Result};

const BLOCK: usize = 512;
/// Longer names do not fit into `PATH_MAX`.
const NAME_BYTES: usize = 4096;

/// What a member is. Link targets are as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// So many bytes, to be read from [`Archive::file`].
    File(u64),
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As written: `./usr/bin/`.
    pub name: Vec<u8>,
    pub kind: Kind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Empty if the archive holds numbers only.
    pub user: Vec<u8>,
    pub group: Vec<u8>,
    pub mtime: i64,
}

pub struct Archive<R> {
    reader: R,
    /// Of the file that was named last: bytes not read yet, and the padding after them.
    left: u64,
    padding: u64,
}

fn broken(what: &str) -> Error {
    Error::build(format!("the tar archive is broken: {what}"))
}

/// The bytes of one file.
pub struct Bytes<'a, R> {
    archive: &'a mut Archive<R>,
}

impl<R: Read> Read for Bytes<'_, R> {
    /// Where the archive ends too soon, that is an error of its own kind, so that it is not taken for the end of the file.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = self.archive.left.min(buffer.len() as u64) as usize;
        if most == 0 {
            return Ok(0);
        }
        let read = self.archive.reader.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.archive.left -= read as u64;
        Ok(read)
    }
}

impl<R: Read> Archive<R> {
    pub fn new(reader: R) -> Self {
        Archive { reader, left: 0, padding: 0 }
    }

    /// The next member; what was not read of the one before is passed over. After an error there is nothing to be had.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let Some(header) = self.header()? else {
                return if long_name.is_some() || long_link.is_some() {
                    Err(broken("it ends early"))
                } else {
                    Ok(None)
                };
            };
            let size = number(&header[124..136])?;
            match header[156] {
                b'L' => long_name = Some(self.long(size)?),
                b'K' => long_link = Some(self.long(size)?),
                kind => return self.entry(&header, kind, size, long_name, long_link).map(Some),
            }
        }
    }

    /// The bytes of the file that [`Archive::next_entry`] has just named.
    pub fn file(&mut self) -> Bytes<'_, R> {
        Bytes { archive: self }
    }

    /// Reads what follows the last member, so that a decompressor compares its sums.
    pub fn finish(mut self) -> Result<()> {
        std::io::copy(&mut self.reader, &mut std::io::sink()).map(drop).context("reading the end of the archive")
    }

    fn skip(&mut self) -> Result<()> {
        let rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        let mut limited = (&mut self.reader).take(rest);
        let passed = std::io::copy(&mut limited, &mut std::io::sink()).context("reading the archive")?;
        if passed == rest { Ok(()) } else { Err(broken("it ends early")) }
    }

    /// The next header block with a right checksum; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut header = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(broken("it ends early")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading the archive"),
            }
        }
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let computed = sum(&header[..148]) + 8 * u64::from(b' ') + sum(&header[156..]);
        if number(&header[148..156])? != computed {
            return Err(broken("wrong checksum of a header"));
        }
        Ok(Some(header))
    }

    fn long(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > NAME_BYTES as u64 {
            return Err(broken("a name is too long"));
        }
        self.announce(size);
        let mut bytes = Vec::with_capacity(size as usize);
        self.file().read_to_end(&mut bytes).map_err(|_| broken("it ends early"))?;
        self.skip()?;
        Ok(until_nul(&bytes).to_vec())
    }

    /// This many bytes follow, and their padding.
    fn announce(&mut self, size: u64) {
        (self.left, self.padding) = (size, (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64);
    }

    fn entry(
        &mut self,
        header: &[u8; BLOCK],
        kind: u8,
        size: u64,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry> {
        let ustar = header[257..].starts_with(b"ustar");
        let name = match long_name {
            Some(name) => name,
            // Only POSIX ustar has a prefix; GNU keeps times there.
            None if &header[257..263] == b"ustar\0" && header[345] != 0 => {
                [until_nul(&header[345..500]), b"/", until_nul(&header[..100])].concat()
            }
            None => until_nul(&header[..100]).to_vec(),
        };
        let link = long_link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        let device = || -> Result<(u32, u32)> { Ok((small(&header[329..337])?, small(&header[337..345])?)) };
        let kind = match kind {
            b'0' | 0 | b'7' if name.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => {
                self.announce(size);
                Kind::File(size)
            }
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(broken(&format!("members of type `{}` are not known", other.escape_ascii()))),
        };
        let text = |range: std::ops::Range<usize>| if ustar { until_nul(&header[range]).to_vec() } else { Vec::new() };
        Ok(Entry {
            name,
            kind,
            mode: (number(&header[100..108])? & 0o7777) as u16,
            uid: small(&header[108..116])?,
            gid: small(&header[116..124])?,
            user: text(265..297),
            group: text(297..329),
            mtime: i64::try_from(number(&header[136..148])?).map_err(|_| broken("a time is out of range"))?,
        })
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

fn small(field: &[u8]) -> Result<u32> {
    u32::try_from(number(field)?).map_err(|_| broken("a number is out of range"))
}

/// Octal digits with blanks around them, or base 256 with the top bit set. Negative numbers are refused.
fn number(field: &[u8]) -> Result<u64> {
    let wrong = || broken("a number in a header is not one");
    if let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) {
        let start = u64::from(first & 0x7f);
        return rest.iter().try_fold(start, |value, byte| {
            value.checked_mul(256).and_then(|value| value.checked_add(u64::from(*byte))).ok_or_else(wrong)
        });
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).map(|value| value + u64::from(digit - b'0')).ok_or_else(wrong),
        _ => Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &[u8], kind: u8, size: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name);
        block[100..107].copy_from_slice(b"0004755");
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000007");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[136..147].copy_from_slice(b"00000000012");
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar  \0");
        block[265..269].copy_from_slice(b"root");
        sum(&mut block);
        block
    }

    fn sum(block: &mut [u8]) {
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        out.resize(bytes.len().next_multiple_of(BLOCK), 0);
        out
    }

    /// All members, and the bytes of all files.
    fn read(archive: &[u8], read_bytes: bool) -> Result<(Vec<Entry>, Vec<u8>)> {
        let (mut archive, mut all, mut bytes) = (Archive::new(archive), Vec::new(), Vec::new());
        while let Some(entry) = archive.next_entry()? {
            all.push(entry);
            if read_bytes {
                archive.file().read_to_end(&mut bytes).context("reading a file")?;
            }
        }
        archive.finish()?;
        Ok((all, bytes))
    }

    #[test]
    fn members_and_long_names() {
        let long = [&b"./"[..], &[b'x'; 300]].concat();
        let archive = [
            header(b"./", b'5', 0),
            header(b"././@LongLink", b'L', 303),
            padded(&[&long[..], b"\0"].concat()),
            header(b"./xxx", b'0', 3),
            padded(b"abc"),
            header(b"./link", b'2', 0),
            vec![0; 1024],
            vec![1; 100],
        ]
        .concat();
        for read_bytes in [true, false] {
            let (all, bytes) = read(&archive, read_bytes).unwrap();
            assert_eq!(all.len(), 3);
            assert_eq!((&all[0].name[..], &all[0].kind, all[0].mode), (&b"./"[..], &Kind::Directory, 0o4755));
            assert_eq!((&all[1].name[..], &all[1].kind), (&long[..], &Kind::File(3)));
            assert_eq!((all[1].gid, all[1].mtime, &all[1].user[..]), (7, 10, &b"root"[..]));
            assert_eq!(all[2].kind, Kind::Symlink(Vec::new()));
            assert_eq!(bytes, if read_bytes { &b"abc"[..] } else { b"" });
        }
    }

    #[test]
    fn broken_archives_are_errors() {
        let fails = |archive: &[u8]| read(archive, false).unwrap_err().to_string();
        assert!(fails(&header(b"x", b'0', 10)).contains("ends early"));
        assert!(fails(&header(b"x", b'0', 0)[..300]).contains("ends early"));
        assert!(fails(&header(b"x", b'L', 1 << 30)).contains("too long"));
        assert!(fails(&header(b"x", b'x', 0)).contains("type `x`"));
        let mut wrong = header(b"x", b'0', 0);
        wrong[0] = b'y';
        assert!(fails(&wrong).contains("checksum"));
        let mut huge = header(b"x", b'0', 0);
        huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        sum(&mut huge);
        assert!(read(&huge, false).is_err() && read(&huge, true).is_err());
        let mut negative = header(b"x", b'0', 0);
        negative[124..136].fill(0xff);
        sum(&mut negative);
        assert!(fails(&negative).contains("not one"));
    }
}
