//! Short names of the files of one folder: "Basis-Name Generation Algorithm" and "Numeric-Tail Generation".
//!
//! Owns: [`assign`], pure and dependent on nothing but the names, so that two builds agree.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};

/// How one file is called in its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub short: [u8; 11],
    /// UTF-16; empty when the short name says it all.
    pub long: Vec<u16>,
}

/// "Long Name Limits".
const MAX_LONG_UNITS: usize = 255;

/// Names for the files of one folder, in the given order. Exact 8.3 names come before those that need a tail, so that
/// no tail takes a name that a file has by right.
pub fn assign(names: &[&[u8]]) -> Result<Vec<Name>> {
    let texts = names.iter().map(|name| check(name)).collect::<Result<Vec<&str>>>()?;
    let mut seen = BTreeSet::new();
    if let Some(text) = texts.iter().find(|text| !seen.insert(text.to_uppercase())) {
        return Err(Error::build(format!("two names differ from `{text}` by case alone, which FAT cannot hold")));
    }
    let mut tails = Tails { taken: texts.iter().filter_map(|text| exact(text)).collect(), next: BTreeMap::new() };
    texts
        .iter()
        .map(|text| {
            let long = || text.encode_utf16().collect();
            match exact(text) {
                // Only upper case can do without a long name: readers disagree about the flags for lower case.
                Some(short) if !text.contains(|c: char| c.is_ascii_lowercase()) => Ok(Name { short, long: Vec::new() }),
                Some(short) => Ok(Name { short, long: long() }),
                None => Ok(Name { short: tails.name(text)?, long: long() }),
            }
        })
        .collect()
}

/// What a long name may not hold.
fn check(name: &[u8]) -> Result<&str> {
    let shown = String::from_utf8_lossy(name);
    let text = std::str::from_utf8(name).map_err(|_| Error::build(format!("the name `{shown}` is not UTF-8")))?;
    let bad = |c: char| c < ' ' || c == '\x7f' || "\"*/:<>?\\|".contains(c);
    if let Some(bad) = text.chars().find(|c| bad(*c)) {
        return Err(Error::build(format!("FAT does not allow {bad:?} in the name `{shown}`")));
    }
    if text.is_empty() || text.ends_with(['.', ' ']) || text.encode_utf16().count() > MAX_LONG_UNITS {
        return Err(Error::build(format!("the name `{shown}` is too long for FAT, or ends with a dot or a space")));
    }
    Ok(text)
}

/// The 8.3 form when the name is one but for the case of its letters.
fn exact(text: &str) -> Option<[u8; 11]> {
    let (base, extension) = text.split_once('.').unwrap_or((text, ""));
    let fits = |part: &str, most: usize| part.len() <= most && part.bytes().all(is_short);
    let dotted = text.contains('.') && extension.is_empty();
    if base.is_empty() || dotted || !fits(base, 8) || !fits(extension, 3) {
        return None;
    }
    Some(pack(base.as_bytes(), extension.as_bytes()))
}

/// Letters, digits and the special characters of a short name.
fn is_short(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"$%'-_@~`!(){}^#&".contains(&byte)
}

fn pack(base: &[u8], extension: &[u8]) -> [u8; 11] {
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base);
    short[8..8 + extension.len()].copy_from_slice(extension);
    short.make_ascii_uppercase();
    short
}

/// Letters that a short name can hold, `_` for others; spaces and dots vanish.
fn basis(part: &str, most: usize) -> Vec<u8> {
    let kept = part.chars().filter(|c| !matches!(c, ' ' | '.'));
    kept.map(|c| u8::try_from(c).ok().filter(|byte| is_short(*byte)).unwrap_or(b'_')).take(most).collect()
}

/// The short names given so far, and where to go on counting for each pair of base and extension.
struct Tails {
    taken: BTreeSet<[u8; 11]>,
    next: BTreeMap<(Vec<u8>, Vec<u8>), u32>,
}

impl Tails {
    fn name(&mut self, text: &str) -> Result<[u8; 11]> {
        let text = text.trim_start_matches(['.', ' ']);
        let (base, extension) = text.rsplit_once('.').unwrap_or((text, ""));
        let (base, extension) = (basis(base, 8), basis(extension, 3));
        let next = self.next.entry((base.clone(), extension.clone())).or_insert(1);
        for number in *next..1_000_000 {
            let tail = format!("~{number}");
            let mut base = base[..base.len().min(8 - tail.len())].to_vec();
            base.extend(tail.bytes());
            let short = pack(&base, &extension);
            if self.taken.insert(short) {
                *next = number + 1;
                return Ok(short);
            }
        }
        Err(Error::build("a folder has too many similar names for FAT"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(names: &[&str]) -> Vec<String> {
        let bytes: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        assign(&bytes).unwrap().iter().map(|name| String::from_utf8_lossy(&name.short).into_owned()).collect()
    }

    #[test]
    fn short_names() {
        let names = ["EFI", "grub.cfg", "grubx64.efi", "grubx64.efi.signed", "grubx64.efi.sign2", ".hidden", "a b.c.d"];
        let wanted =
            ["EFI        ", "GRUB    CFG", "GRUBX64 EFI", "GRUBX6~1SIG", "GRUBX6~2SIG", "HIDDEN~1   ", "ABC~1   D  "];
        assert_eq!(short(&names), wanted);
        assert_eq!(short(&["été.txt", "日本"]), ["_T_~1   TXT", "__~1       "]);
    }

    #[test]
    fn a_tail_never_takes_a_name_that_is_there() {
        assert_eq!(short(&["longfilename", "LONGFI~1"]), ["LONGFI~2   ", "LONGFI~1   "]);
    }

    #[test]
    fn long_names_only_where_needed() {
        let names = assign(&[b"BOOTX64.EFI", b"boot", b"long name"]).unwrap();
        assert!(names[0].long.is_empty());
        assert_eq!((names[1].long.len(), names[2].long.len()), (4, 9));
    }

    #[test]
    fn refuses_what_fat_cannot_hold() {
        for names in [&["a", "A"][..], &["a:b"], &["end."], &["end "], &["\u{1}"], &["x".repeat(256).as_str()]] {
            let bytes: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
            assert!(assign(&bytes).is_err(), "{names:?}");
        }
        assert!(assign(&[b"\xff"]).is_err());
    }

    #[test]
    fn ten_thousand_similar_names() {
        let names: Vec<String> = (0..10_000).map(|number| format!("similar name {number}")).collect();
        let bytes: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let set: BTreeSet<_> = assign(&bytes).unwrap().into_iter().map(|name| name.short).collect();
        assert_eq!(set.len(), names.len());
    }
}
