//! Extended attributes: pairs of names and values, and a table of the sets that inodes refer to
//! (`struct squashfs_xattr_id`).

use std::collections::BTreeMap;

use super::format::{Bytes, NONE};
use crate::error::{Error, Result};
use crate::tree::Xattrs;

/// Names that start like this are stored as a number and the rest.
const PREFIXES: [(&[u8], u16); 3] = [(b"user.", 0), (b"trusted.", 1), (b"security.", 2)];
/// The kernel's limit for a value (`XATTR_SIZE_MAX`, linux/limits.h).
const LARGEST: usize = 65_536;

/// The pairs of one set among those of all.
pub struct Set {
    pub start: u64,
    pub pairs: u32,
    pub size: u32,
}

/// All sets that differ.
#[derive(Default)]
pub struct Sets<'a> {
    pub pairs: Vec<u8>,
    pub sets: Vec<Set>,
    known: BTreeMap<&'a Xattrs, u32>,
}

impl<'a> Sets<'a> {
    /// The number that an inode has for its attributes.
    pub fn number(&mut self, xattrs: &'a Xattrs) -> Result<u32> {
        if xattrs.is_empty() {
            return Ok(NONE);
        }
        if let Some(known) = self.known.get(xattrs) {
            return Ok(*known);
        }
        let start = self.pairs.len() as u64;
        let mut out = Bytes(std::mem::take(&mut self.pairs));
        let encoded = xattrs.iter().try_for_each(|(name, value)| encode(&mut out, name, value));
        self.pairs = out.0;
        encoded?;
        let size = (self.pairs.len() as u64 - start) as u32;
        let number = self.sets.len() as u32;
        self.sets.push(Set { start, pairs: xattrs.len() as u32, size });
        self.known.insert(xattrs, number);
        Ok(number)
    }
}

fn encode(out: &mut Bytes, name: &[u8], value: &[u8]) -> Result<()> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    let found = PREFIXES.iter().find_map(|(prefix, number)| Some((*number, name.strip_prefix(*prefix)?)));
    let Some((number, rest)) = found.filter(|(_, rest)| (1..=255).contains(&rest.len())) else {
        let error = Error::build(format!("squashfs cannot hold the extended attribute `{}`", shown()));
        return Err(error.hint("it holds those in `user`, `trusted` and `security`, but no access lists"));
    };
    if value.len() > LARGEST {
        return Err(Error::build(format!("the extended attribute `{}` has more than 64 KiB", shown())));
    }
    out.u16(number).u16(rest.len() as u16).put(rest).u32(value.len() as u32).put(value);
    Ok(())
}
