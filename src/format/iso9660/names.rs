//! Names as ISO 9660 itself has them (ECMA-119 7.5, 7.6): for readers without Rock Ridge, and for the order of records.
//!
//! Owns: [`identifiers`]. At most 30 characters, of `A` to `Z`, digits and `_`; distinct in a folder.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

const STEM: usize = 20;
const EXTENSION: usize = 9;

/// An identifier for each name of a folder (`true` for a folder), in the same order.
pub fn identifiers(names: &[(&[u8], bool)]) -> Result<Vec<Vec<u8>>> {
    let mut taken = BTreeSet::new();
    names
        .iter()
        .map(|(name, folder)| {
            let found = (0..10_000).map(|number| identifier(name, *folder, number)).find(|id| !taken.contains(id));
            let id = found.ok_or_else(|| Error::build("too many files of one folder have alike names"))?;
            taken.insert(id.clone());
            Ok(id)
        })
        .collect()
}

/// `number` tells apart what would be alike; the first goes without.
fn identifier(name: &[u8], folder: bool, number: u32) -> Vec<u8> {
    let dot = if folder { None } else { name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0) };
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let tail = if number == 0 { String::new() } else { format!("_{number}") };
    let mut out = plain(stem, STEM - tail.len());
    out.extend(tail.bytes());
    if !folder {
        out.push(b'.');
        out.extend(plain(extension.get(1..).unwrap_or_default(), EXTENSION));
        out.extend(b";1");
    }
    out
}

fn plain(text: &[u8], most: usize) -> Vec<u8> {
    let upper = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() } else { b'_' };
    text.iter().take(most).map(upper).collect()
}

/// 9.3: by name, then by extension, the shorter filled with blanks, which come before all that a name can have.
pub fn key(identifier: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let name = identifier.strip_suffix(b";1").unwrap_or(identifier);
    let dot = name.iter().position(|byte| *byte == b'.').unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    (stem.to_vec(), extension.get(1..).unwrap_or_default().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_distinct() {
        let names: [(&[u8], bool); 6] = [
            (b"filesystem.squashfs", false),
            (b"i386-pc", true),
            (b"network_data.json", false),
            (b"a-very-long-name-of-a-file.module", false),
            (b"a-very-long-name-of-another.module", false),
            (b".disk", true),
        ];
        let found: Vec<String> =
            identifiers(&names).unwrap().into_iter().map(|id| String::from_utf8(id).unwrap()).collect();
        assert_eq!(
            found,
            [
                "FILESYSTEM.SQUASHFS;1",
                "I386_PC",
                "NETWORK_DATA.JSON;1",
                "A_VERY_LONG_NAME_OF_.MODULE;1",
                "A_VERY_LONG_NAME_O_1.MODULE;1",
                "_DISK"
            ]
        );
    }

    #[test]
    fn the_extension_counts_after_the_name() {
        let mut ids: Vec<&[u8]> = vec![b"AB.A;1", b"A.Z;1", b"A_.A;1", b"A.;1"];
        ids.sort_by_key(|id| key(id));
        assert_eq!(ids, [&b"A.;1"[..], b"A.Z;1", b"AB.A;1", b"A_.A;1"]);
    }
}
