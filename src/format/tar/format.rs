//! Headers and records; section names are those of TAR.

pub const BLOCK: usize = 512;
/// "pax Interchange Format": the usual size of a write, to which an archive is filled up.
pub const RECORD: usize = 20 * BLOCK;

/// "ustar Interchange Format", typeflag.
pub const TYPE_FILE: u8 = b'0';
pub const TYPE_HARD_LINK: u8 = b'1';
pub const TYPE_SYMLINK: u8 = b'2';
pub const TYPE_CHAR: u8 = b'3';
pub const TYPE_BLOCK: u8 = b'4';
pub const TYPE_DIRECTORY: u8 = b'5';
pub const TYPE_FIFO: u8 = b'6';
/// "pax Header Block": records for the next member.
pub const TYPE_PAX: u8 = b'x';

/// Bytes of the fields.
const NAME: usize = 100;
const PREFIX: usize = 155;
/// Largest numbers in fields of 8 and 12 bytes: octal digits and a zero byte.
const MAX_SHORT: u64 = 0o777_7777;
const MAX_LONG: u64 = 0o777_7777_7777;

/// Before the name of an attribute: what star began and GNU tar, libarchive and bsdtar read.
const XATTR: &str = "SCHILY.xattr.";

/// A member, before it is known what fits into its header.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// With a slash at the end for a folder.
    pub name: &'a [u8],
    pub kind: u8,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub seconds: i64,
    pub nanoseconds: u32,
    /// Target of a link; empty for others.
    pub link: &'a [u8],
    pub device: (u32, u32),
    pub xattrs: Vec<(&'a [u8], &'a [u8])>,
}

impl Member<'_> {
    /// The header, with a pax header before it if something does not fit; `None` for a device number too large for the
    /// format.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut records = Records::default();
        let mut header = Header::new(self.kind);
        if !header.name(self.name) {
            records.text("path", self.name);
        }
        if header.link(self.link) {
            records.text("linkpath", self.link);
        }
        header.octal(100, 8, u64::from(self.mode));
        for (at, key, value) in [(108, "uid", u64::from(self.uid)), (116, "gid", u64::from(self.gid))] {
            if value > MAX_SHORT {
                records.number(key, value);
            }
            header.octal(at, 8, if value > MAX_SHORT { 0 } else { value });
        }
        if self.size > MAX_LONG {
            records.number("size", self.size);
        }
        header.octal(124, 12, if self.size > MAX_LONG { 0 } else { self.size });
        let time = self.header_time();
        if self.nanoseconds != 0 || i128::from(time) != i128::from(self.seconds) {
            records.add(b"mtime", decimal(self.seconds, self.nanoseconds).as_bytes());
        }
        header.octal(136, 12, time);
        if matches!(self.kind, TYPE_CHAR | TYPE_BLOCK) {
            for (at, number) in [(329, self.device.0), (337, self.device.1)] {
                let number = Some(u64::from(number)).filter(|number| *number <= MAX_SHORT)?;
                header.octal(at, 8, number);
            }
        }
        for (name, value) in &self.xattrs {
            records.add(&xattr_keyword(name), value);
        }
        let mut out = records.encode(self);
        out.extend(header.finish());
        Some(out)
    }

    /// As far as the field can say it.
    fn header_time(&self) -> u64 {
        u64::try_from(self.seconds).unwrap_or(0).min(MAX_LONG)
    }
}

/// "ustar Header Block".
struct Header([u8; BLOCK]);

impl Header {
    fn new(kind: u8) -> Header {
        let mut header = Header([0; BLOCK]);
        header.0[156] = kind;
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        header
    }

    /// Whole, or parted at a slash into prefix and name. `false` (and as much as fits) when it is too long.
    fn name(&mut self, name: &[u8]) -> bool {
        if name.len() <= NAME {
            self.0[..name.len()].copy_from_slice(name);
            return true;
        }
        // A slash at the very end belongs to the name.
        let parts = name[..name.len() - 1].iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        match parts.filter(|at| *at > 0 && *at <= PREFIX).find(|at| name.len() - at - 1 <= NAME) {
            Some(at) => {
                self.0[345..345 + at].copy_from_slice(&name[..at]);
                self.0[..name.len() - at - 1].copy_from_slice(&name[at + 1..]);
                true
            }
            None => {
                self.0[..NAME].copy_from_slice(&name[..NAME]);
                false
            }
        }
    }

    /// `true` when it is too long.
    fn link(&mut self, target: &[u8]) -> bool {
        let length = target.len().min(NAME);
        self.0[157..157 + length].copy_from_slice(&target[..length]);
        target.len() > NAME
    }

    /// Digits with leading zeros and a zero byte.
    fn octal(&mut self, at: usize, field: usize, value: u64) {
        let digits = format!("{value:0width$o}", width = field - 1);
        self.0[at..at + field - 1].copy_from_slice(digits.as_bytes());
    }

    /// With its checksum: the sum of all bytes, the field itself as blanks.
    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.octal(148, 7, sum);
        self.0
    }
}

/// "pax Extended Header": lines of length, key and value.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    /// A name or a target that is not UTF-8.
    binary: bool,
}

impl Records {
    fn text(&mut self, key: &str, value: &[u8]) {
        self.binary |= std::str::from_utf8(value).is_err();
        self.add(key.as_bytes(), value);
    }

    fn number(&mut self, key: &str, value: u64) {
        self.add(key.as_bytes(), value.to_string().as_bytes());
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend(record(key, value));
    }

    /// A pax header for the member and its records; nothing without records.
    fn encode(self, member: &Member<'_>) -> Vec<u8> {
        if self.bytes.is_empty() {
            return Vec::new();
        }
        let mut records = self.bytes;
        if self.binary {
            // Names are UTF-8 unless this comes before.
            records.splice(0..0, record(b"hdrcharset", b"BINARY"));
        }
        let mut header = Header::new(TYPE_PAX);
        // Only readers that know no pax see this name, as a file.
        let name = [b"./PaxHeaders/", member.name.strip_prefix(b"./").unwrap_or(member.name)].concat();
        let name = name.strip_suffix(b"/").unwrap_or(&name);
        header.name(&name[..name.len().min(NAME)]);
        header.octal(100, 8, 0o644);
        header.octal(108, 8, 0);
        header.octal(116, 8, 0);
        header.octal(124, 12, records.len() as u64);
        header.octal(136, 12, member.header_time());
        let mut out = header.finish().to_vec();
        records.resize(records.len().next_multiple_of(BLOCK), 0);
        out.extend(records);
        out
    }
}

/// "%d %s=%s\n": the number counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut out = format!("{length} ").into_bytes();
    out.extend(key);
    out.push(b'=');
    out.extend(value);
    out.push(b'\n');
    out
}

/// A key ends at the first `=`, so that one inside an attribute's name is written as GNU tar writes it.
fn xattr_keyword(name: &[u8]) -> Vec<u8> {
    let mut out = XATTR.as_bytes().to_vec();
    for byte in name {
        match byte {
            b'%' => out.extend(b"%25"),
            b'=' => out.extend(b"%3D"),
            other => out.push(*other),
        }
    }
    out
}

/// Seconds with a fraction, as POSIX wants times in records.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    let fraction = |nanoseconds: u32| match nanoseconds {
        0 => String::new(),
        _ => format!(".{nanoseconds:09}").trim_end_matches('0').to_owned(),
    };
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}{}", fraction(nanoseconds));
    }
    // Before 1970 the fraction counts the other way.
    format!("-{}{}", (seconds + 1).unsigned_abs(), fraction(1_000_000_000 - nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(record(b"a", b"b"), b"6 a=b\n");
        assert_eq!(record(b"key", &[b'x'; 3]), b"11 key=xxx\n");
        for length in 0..2000 {
            let record = record(b"path", &vec![b'x'; length]);
            let digits = record.iter().position(|byte| *byte == b' ').unwrap();
            let claimed: usize = std::str::from_utf8(&record[..digits]).unwrap().parse().unwrap();
            assert_eq!(claimed, record.len());
        }
    }

    #[test]
    fn times_before_1970_count_down() {
        assert_eq!(decimal(0, 0), "0");
        assert_eq!(decimal(5, 90), "5.00000009");
        assert_eq!(decimal(-5, 0), "-5");
        assert_eq!(decimal(-5, 9), "-4.999999991");
        assert_eq!(decimal(-1, 500_000_000), "-0.5");
        assert_eq!(decimal(i64::MIN, 1), "-9223372036854775807.999999999");
    }

    #[test]
    fn long_names_are_parted_at_a_slash() {
        let name = [&[b'a'; 100][..], b"/", &[b'b'; 99], b"/"].concat();
        let mut header = Header::new(TYPE_DIRECTORY);
        assert!(header.name(&name));
        assert_eq!(header.0[345..345 + 100], [b'a'; 100]);
        assert_eq!(header.0[..100], [&[b'b'; 99][..], b"/"].concat());
        assert!(!Header::new(TYPE_FILE).name(&[b'x'; 101]));
        assert!(!Header::new(TYPE_DIRECTORY).name(&[&[b'x'; 101][..], b"/"].concat()));
        assert!(!Header::new(TYPE_FILE).name(&[&[b'x'; 156][..], b"/y"].concat()));
    }

    #[test]
    fn keys_of_attributes_hold_no_equals_sign() {
        assert_eq!(xattr_keyword(b"user.a=b%"), b"SCHILY.xattr.user.a%3Db%25");
    }
}
