//! What both sides say of a file system: one line a path. The guest reads it from the kernel, the host from the Tree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use imagebuilder::tree::{Digest, Kind, Meta, Mtime, Tree, TreePath, Xattrs};
use sha2::{Digest as _, Sha256};

fn escape(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    bytes.iter().map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") }).collect()
}

/// Long values by their digest.
fn short(bytes: &[u8]) -> String {
    if bytes.len() <= 24 { escape(bytes) } else { format!("{}:{}", bytes.len(), &Digest::of(bytes).to_hex()[..16]) }
}

fn line(path: &TreePath, meta: &Meta, what: &str) -> String {
    let Mtime { seconds, nanoseconds } = meta.mtime;
    let mut out = format!(
        "{} {:o} {} {} {seconds}.{nanoseconds:09} {what}",
        escape(path.as_bytes()),
        meta.mode,
        meta.uid,
        meta.gid
    );
    for (name, value) in &meta.xattrs {
        out += &format!(" {}={}", escape(name), short(value));
    }
    out
}

/// Long targets by their digest, as long paths of links.
fn link(target: &[u8]) -> String {
    format!("-> {}", short(target))
}

/// Of a Tree.
pub fn of_tree(tree: &Tree) -> Vec<String> {
    let what = |kind: &Kind| match kind {
        Kind::Directory => "folder".into(),
        Kind::File(content) => format!("{} {}", content.size(), &content.digest().to_hex()[..16]),
        Kind::Symlink(target) => link(target),
        Kind::HardLink(target) => format!("= {}", short(target.as_bytes())),
        Kind::CharDevice { major, minor } => format!("c {major}:{minor}"),
        Kind::BlockDevice { major, minor } => format!("b {major}:{minor}"),
        Kind::Fifo => "fifo".into(),
        Kind::Socket => "socket".into(),
    };
    tree.iter().map(|(path, entry)| line(path, &entry.meta, &what(&entry.kind))).collect()
}

/// Of a mounted file system, `lost+found` left out, ascending by path.
pub fn of_folder(root: &Path) -> std::io::Result<Vec<String>> {
    let mut found: BTreeMap<TreePath, (PathBuf, Metadata)> = BTreeMap::new();
    let mut todo = vec![(root.to_owned(), TreePath::root())];
    while let Some((place, path)) = todo.pop() {
        let about = place.symlink_metadata()?;
        if about.is_dir() {
            for entry in std::fs::read_dir(&place)? {
                let name = entry?.file_name();
                let inside = [path.as_bytes(), name.as_bytes()].join(&b'/');
                if inside != b"/lost+found" {
                    todo.push((place.join(&name), TreePath::new(inside).expect("the kernel gives plain names")));
                }
            }
        }
        found.insert(path, (place, about));
    }
    let mut first: BTreeMap<u64, TreePath> = BTreeMap::new();
    let mut lines = Vec::new();
    for (path, (place, about)) in &found {
        let meta = Meta {
            mode: (about.mode() & 0o7777) as u16,
            uid: about.uid(),
            gid: about.gid(),
            mtime: Mtime { seconds: about.mtime(), nanoseconds: about.mtime_nsec() as u32 },
            xattrs: xattrs(place)?,
        };
        let known = first.get(&about.ino()).filter(|_| !about.is_dir());
        let what = match known {
            Some(target) => format!("= {}", short(target.as_bytes())),
            None => what(place, about)?,
        };
        first.entry(about.ino()).or_insert_with(|| path.clone());
        lines.push(line(path, &meta, &what));
    }
    Ok(lines)
}

fn what(place: &Path, about: &Metadata) -> std::io::Result<String> {
    let kind = about.file_type();
    let device = format!("{}:{}", rustix::fs::major(about.rdev()), rustix::fs::minor(about.rdev()));
    Ok(if kind.is_dir() {
        "folder".into()
    } else if kind.is_symlink() {
        link(std::fs::read_link(place)?.as_os_str().as_bytes())
    } else if kind.is_char_device() {
        format!("c {device}")
    } else if kind.is_block_device() {
        format!("b {device}")
    } else if kind.is_fifo() {
        "fifo".into()
    } else if kind.is_socket() {
        "socket".into()
    } else {
        let (mut file, mut hash, mut buffer) = (File::open(place)?, Sha256::new(), vec![0; 1 << 20]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                length => hash.update(&buffer[..length]),
            }
        }
        format!("{} {}", about.len(), &hex::encode(hash.finalize())[..16])
    })
}

fn xattrs(place: &Path) -> std::io::Result<Xattrs> {
    let mut names = vec![0; 1024];
    let length = rustix::fs::llistxattr(place, &mut names)?;
    let mut out = Xattrs::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65_536];
        let length = rustix::fs::lgetxattr(place, OsStr::from_bytes(name), &mut value)?;
        value.truncate(length);
        out.insert(name.to_vec(), value);
    }
    Ok(out)
}
