//! Listings of directories, and the index of long ones (`struct squashfs_dir_header`, `squashfs_dir_entry`,
//! `squashfs_dir_index`).

use super::format::{Bytes, METADATA, Place};

/// Entries behind one header (`SQUASHFS_DIR_COUNT`).
const RUN: usize = 256;

/// One name.
pub struct Name<'a> {
    pub name: &'a [u8],
    pub number: u32,
    pub kind: u16,
    pub inode: Place,
}

/// A place in a listing from which on a reader may begin: it starts with a header and then this name.
#[derive(Debug, PartialEq, Eq)]
pub struct Mark {
    pub position: u32,
    /// Which of the names.
    pub first: usize,
}

/// The bytes of a listing, and marks about every 8 KiB.
pub fn listing(names: &[Name<'_>]) -> (Vec<u8>, Vec<Mark>) {
    let (mut out, mut marks) = (Bytes::default(), Vec::new());
    let (mut at, mut marked) = (0, 0);
    while at < names.len() {
        let first = &names[at];
        if at > 0 && out.0.len() + 12 + size(first) - marked > METADATA {
            marked = out.0.len();
            marks.push(Mark { position: marked as u32, first: at });
        }
        let mut end = out.0.len() + 12;
        let run = names[at..]
            .iter()
            .take(RUN)
            .take_while(|name| {
                end += size(name);
                end - marked <= METADATA
                    && name.inode.block == first.inode.block
                    && i16::try_from(i64::from(name.number) - i64::from(first.number)).is_ok()
            })
            .count()
            .max(1);
        out.u32(run as u32 - 1).u32(first.inode.block as u32).u32(first.number);
        for name in &names[at..at + run] {
            let delta = (i64::from(name.number) - i64::from(first.number)) as i16;
            out.u16(name.inode.offset).u16(delta as u16).u16(name.kind);
            out.u16(name.name.len() as u16 - 1).put(name.name);
        }
        at += run;
    }
    (out.0, marks)
}

fn size(name: &Name<'_>) -> usize {
    8 + name.name.len()
}
