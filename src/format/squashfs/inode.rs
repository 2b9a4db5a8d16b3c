//! Inodes in their short and long forms (`struct squashfs_base_inode` and those after it).

use super::directory::{Mark, Name};
use super::format::{BLOCK_DEVICE, Bytes, CHAR_DEVICE, DIRECTORY, FIFO, FILE, LONG, NONE, Place, SOCKET, SYMLINK};
use super::layout::{Inode, Room};
use crate::format::nodes::Node;
use crate::tree::Kind;

/// Directories that fit in this have no long form for their size alone.
const SHORT_LISTING: u32 = u16::MAX as u32;

/// Where the bytes of a file are.
pub struct Data<'a> {
    pub size: u64,
    /// Where its blocks begin.
    pub start: u64,
    pub room: Room,
    /// Of each block on the disk; 0 for zeros.
    pub sizes: &'a [u32],
    /// Bytes in blocks of zeros.
    pub sparse: u64,
}

/// Where the listing of a directory is.
pub struct Listing<'a> {
    pub place: Place,
    pub size: u32,
    pub parent: u32,
    pub marks: &'a [Mark],
    pub names: &'a [Name<'a>],
    /// The metadata block that each mark lies in.
    pub mark_blocks: &'a [u64],
}

/// As entries of directories say it.
pub fn short_type(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory => DIRECTORY,
        Kind::File(_) | Kind::HardLink(_) => FILE,
        Kind::Symlink(_) => SYMLINK,
        Kind::BlockDevice { .. } => BLOCK_DEVICE,
        Kind::CharDevice { .. } => CHAR_DEVICE,
        Kind::Fifo => FIFO,
        Kind::Socket => SOCKET,
    }
}

fn begin(out: &mut Bytes, node: &Node<'_>, inode: &Inode, long: bool) {
    let kind = short_type(node.kind) + if long { LONG } else { 0 };
    out.u16(kind).u16(node.meta.mode & 0o7777).u16(inode.uid).u16(inode.gid);
    out.u32(seconds(node.meta.mtime.seconds)).u32(inode.number);
}

/// Times before 1970 and after 2106 become the nearest that there is.
pub fn seconds(time: i64) -> u32 {
    time.clamp(0, i64::from(u32::MAX)) as u32
}

/// Anything but a directory or a file with its bytes.
pub fn other(out: &mut Bytes, node: &Node<'_>, inode: &Inode) {
    let long = inode.xattrs != NONE;
    begin(out, node, inode, long);
    out.u32(node.links as u32);
    match node.kind {
        Kind::Symlink(target) => {
            out.u32(target.len() as u32).put(target);
        }
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            // As the kernel packs them (`new_encode_dev`).
            out.u32(major << 8 | minor & 0xFF | (minor & !0xFF) << 12);
        }
        _ => {}
    }
    if long {
        out.u32(inode.xattrs);
    }
}

pub fn file(out: &mut Bytes, node: &Node<'_>, inode: &Inode, data: &Data<'_>) {
    let large = u32::try_from(data.size).is_err() || u32::try_from(data.start).is_err();
    let long = large || node.links > 1 || data.sparse > 0 || inode.xattrs != NONE;
    begin(out, node, inode, long);
    let (fragment, offset) = match data.room {
        Room::Fragment { index, offset } => (index, offset),
        Room::Empty | Room::Blocks => (NONE, 0),
    };
    if long {
        out.u64(data.start).u64(data.size).u64(data.sparse).u32(node.links as u32);
        out.u32(fragment).u32(offset).u32(inode.xattrs);
    } else {
        out.u32(data.start as u32).u32(fragment).u32(offset).u32(data.size as u32);
    }
    for size in data.sizes {
        out.u32(*size);
    }
}

pub fn directory(out: &mut Bytes, node: &Node<'_>, inode: &Inode, listing: &Listing<'_>) {
    // The two names that every directory has without being listed count.
    let size = listing.size + 3;
    let long = size > SHORT_LISTING || !listing.marks.is_empty() || inode.xattrs != NONE;
    begin(out, node, inode, long);
    let Place { block, offset } = listing.place;
    if !long {
        out.u32(block as u32).u32(node.links as u32).u16(size as u16).u16(offset).u32(listing.parent);
        return;
    }
    // What has no mark is found from the last one on.
    let marks = &listing.marks[..listing.marks.len().min(usize::from(u16::MAX))];
    out.u32(node.links as u32).u32(size).u32(block as u32).u32(listing.parent);
    out.u16(marks.len() as u16).u16(offset).u32(inode.xattrs);
    for (mark, block) in marks.iter().zip(listing.mark_blocks) {
        let name = listing.names[mark.first].name;
        out.u32(mark.position).u32(*block as u32).u32(name.len() as u32 - 1).put(name);
    }
}
