//! Root file systems of containers: what the builder's image has around the program, and the shell of an image bundle.
//!
//! Owns: [`builder`] and [`shell`]. The packages come through our resolver, from signed indexes; they are taken apart here
//! without dpkg and without their scripts, because what those would do for these few is a list of certificates.

use std::io::Read;
use std::path::Path;

use super::Base;
use crate::api::NodeProfile;
use crate::api::params::software::Layer;
use crate::document;
use crate::error::{Context, Error, Result};
use crate::package::deb::Deb;
use crate::package::fetch;
use crate::package::lock::{self, LayerRequest, PackageRequest, Request};
use crate::package::tar::{Archive, Entry as Member, Kind as MemberKind};
use crate::package::{Environment, lock::LockedPackage};
use crate::tree::{Content, Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

/// What the program is linked to (libc6, libgcc-s1), certificates for mirrors that speak https, /etc/os-release, and the
/// shell that airshipctl starts upstream's script with (bash and its library), with the usual small programs.
const BUILDER: [&str; 7] =
    ["base-files", "bash", "busybox-static", "ca-certificates", "libc6", "libgcc-s1", "libtinfo6"];
/// What `sh -c "cp ..."` of an init container needs: one program without libraries.
const SHELL: [&str; 1] = [BUSYBOX_PACKAGE];
const BUSYBOX_PACKAGE: &str = "busybox-static";
const BUSYBOX: &str = "usr/bin/busybox";
/// Names of the program in that package, as far as a script in a container may call them.
const APPLETS: &str = "[ ash awk basename cat chgrp chmod chown clear cmp cp cut date dd df diff dirname du echo \
    egrep env expr false fgrep find grep gunzip gzip head hostname id kill ln ls md5sum mkdir mktemp more mv nc od \
    pidof printf ps pwd readlink realpath rm rmdir sed seq sh sha1sum sha256sum sha512sum sleep sort stat stty sync tail tar \
    tee test timeout top touch tr true tty uname uniq unxz vi wc wget which whoami xargs xzcat yes zcat";
/// Nothing in the image reads these.
const LEFT_OUT: [&str; 8] = [
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/audit",
    "usr/share/base-files",
    "usr/share/bug",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
];
/// Of what no package brings.
const ORIGIN: &str = "imagebuilder";
/// Where the certificates lie, and the file that programs read them from.
const CERTIFICATES: &str = "usr/share/ca-certificates";
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
/// Files of these packages are smaller.
const FILE_LIMIT: u64 = 64 << 20;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// What the program runs in, and the newest time in it.
pub(super) fn builder(base: Base, environment: &Environment) -> Result<(Tree, Mtime)> {
    let (mut tree, time) = unpacked(base, &BUILDER, environment)?;
    let bundle = certificates(&tree)?;
    tree.write_file(&TreePath::literal(BUNDLE), bundle, Meta { mtime: time, ..Meta::root(0o644) }, &ORIGIN.into())?;
    finish(&mut tree, time)?;
    Ok((tree, time))
}

/// A shell and the usual small programs, and the newest time in it.
pub(super) fn shell(base: Base, environment: &Environment) -> Result<(Tree, Mtime)> {
    let (mut tree, time) = unpacked(base, &SHELL, environment)?;
    finish(&mut tree, time)?;
    Ok((tree, time))
}

fn unpacked(base: Base, names: &[&str], environment: &Environment) -> Result<(Tree, Mtime)> {
    let request = request(base, names)?;
    let lock = lock::resolve(&request, environment)?;
    let packages: Vec<LockedPackage> =
        lock.packages().filter(|package| names.contains(&package.name.as_str())).cloned().collect();
    if packages.len() != names.len() {
        return Err(Error::build(format!("the archive does not have all of {}", names.join(", "))));
    }
    let debs = fetch::fetch_all(&packages, &lock.repositories_at(&request)?, environment)?;
    let mut tree = skeleton()?;
    for (package, deb) in packages.iter().zip(&debs) {
        unpack(&mut tree, deb, &package.name).with_context(|| format!("unpacking package `{}`", package.name))?;
    }
    let seconds = lock::newest_build_time(&debs)?;
    Ok((tree, Mtime { seconds, nanoseconds: 0 }))
}

fn request(base: Base, names: &[&str]) -> Result<Request> {
    let documents = document::load_str("distribution.yaml", base.documents())?;
    let profile = documents.first().ok_or_else(|| Error::build("the shipped release is empty"))?;
    let profile: NodeProfile = document::decode(profile)?;
    let distribution = &profile.spec.distribution;
    let packages = names.iter().map(|name| PackageRequest { name: (*name).to_owned(), version: None });
    Ok(Request {
        architecture: distribution.architecture().to_owned(),
        repositories: distribution.repositories.clone(),
        layers: vec![LayerRequest { layer: Layer::Base, packages: packages.collect() }],
        unapproved: Default::default(),
        tools: Vec::new(),
    })
}

/// A merged /usr, whatever the packages believe.
fn skeleton() -> Result<Tree> {
    let mut tree = Tree::new();
    let origin: Origin = "skeleton".into();
    for folder in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64"] {
        tree.make_directories(&TreePath::literal(folder), Mtime::default(), &origin)?;
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        tree.write_symlink(&TreePath::literal(link), format!("usr/{link}"), Mtime::default(), &origin)?;
    }
    Ok(tree)
}

fn unpack(tree: &mut Tree, deb: &Path, package: &str) -> Result<()> {
    let deb = Deb::open(deb)?;
    let mut archive = Archive::new(deb.data()?);
    let origin: Origin = package.into();
    let left_out = LEFT_OUT.map(TreePath::literal);
    while let Some(member) = archive.next_entry()? {
        let Some(path) = path(&member.name)? else { continue };
        let at = tree.resolve_parent(&path)?;
        if left_out.iter().any(|folder| at == *folder || at.is_below(folder)) || is_changelog(&at) {
            continue;
        }
        let kind = match kind(&member, &mut archive)? {
            Some(kind) => kind,
            None => continue,
        };
        put(tree, at, &member, kind, &origin)?;
    }
    archive.finish()
}

/// Licences stay, histories go.
fn is_changelog(path: &TreePath) -> bool {
    path.is_below(&TreePath::literal("usr/share/doc"))
        && path.file_name() != b"copyright"
        && path.components().count() > 4
}

/// Nothing for the root itself.
fn path(name: &[u8]) -> Result<Option<TreePath>> {
    let name = name.strip_prefix(b".").unwrap_or(name);
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let name = name.strip_suffix(b"/").unwrap_or(name);
    if name.is_empty() {
        return Ok(None);
    }
    TreePath::new(name).map(Some).ok_or_else(|| Error::build("it holds a file whose name is no path"))
}

/// Nothing for what such a package has no business to hold.
fn kind<R: Read>(member: &Member, archive: &mut Archive<R>) -> Result<Option<Kind>> {
    Ok(match &member.kind {
        MemberKind::Directory => Some(Kind::Directory),
        MemberKind::Symlink(target) => Some(Kind::Symlink(target.clone())),
        MemberKind::HardLink(target) => path(target)?.map(Kind::HardLink),
        MemberKind::File(size) if *size <= FILE_LIMIT => {
            let mut bytes = Vec::new();
            archive.file().read_to_end(&mut bytes).context("reading a file")?;
            Some(Kind::File(Content::inline(bytes)))
        }
        MemberKind::File(_) => return Err(Error::build("it holds a file that is too large")),
        MemberKind::CharDevice { .. } | MemberKind::BlockDevice { .. } | MemberKind::Fifo => None,
    })
}

fn put(tree: &mut Tree, at: TreePath, member: &Member, kind: Kind, origin: &Origin) -> Result<()> {
    let mtime = Mtime { seconds: member.mtime, nanoseconds: 0 };
    let meta = Meta { mtime, ..Meta::root(member.mode & 0o7777) };
    let here = tree.get(&at).map(|entry| entry.kind.clone());
    match (kind, here) {
        (Kind::Directory, None) => {
            tree.make_directories(&at, mtime, origin)?;
            tree.insert_raw(at, Entry { meta, kind: Kind::Directory, origin: origin.clone() });
        }
        // A folder, or a link to one, that is there stays as it is; so do the links of the skeleton.
        (Kind::Directory, Some(_)) => {}
        (Kind::Symlink(_), Some(Kind::Symlink(_) | Kind::Directory)) => {}
        (Kind::HardLink(target), _) => {
            let target = tree.resolve_parent(&target)?;
            let Some(entry) = tree.get(&target).cloned() else {
                return Err(Error::build("it links to a file that it does not hold"));
            };
            // A copy: these packages have next to none.
            tree.put(&at, entry)?;
        }
        (kind, _) => _ = tree.put(&at, Entry { meta, kind, origin: origin.clone() })?,
    }
    Ok(())
}

/// Links to the small programs, and files and folders that every program may expect.
fn finish(tree: &mut Tree, time: Mtime) -> Result<()> {
    let origin: Origin = ORIGIN.into();
    let meta = |mode| Meta { mtime: time, ..Meta::root(mode) };
    if tree.contains(&TreePath::literal(BUSYBOX)) {
        for name in APPLETS.split_whitespace() {
            let path = TreePath::literal("usr/bin").join(name.as_bytes());
            if !tree.contains(&path) {
                tree.write_symlink(&path, "busybox", time, &origin)?;
            }
        }
    }
    for (path, text) in [("etc/passwd", PASSWD), ("etc/group", GROUP)] {
        tree.write_file(&TreePath::literal(path), text, meta(0o644), &origin)?;
    }
    for (path, mode) in [("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777)] {
        let path = TreePath::literal(path);
        tree.make_directories(&path, time, &origin)?;
        tree.insert_raw(path, Entry { meta: meta(mode), kind: Kind::Directory, origin: origin.clone() });
    }
    // No time is newer than that of the packages, and folders made on the way have none of their own.
    for (_, entry) in tree.iter_mut() {
        if entry.meta.mtime > time || entry.meta.mtime == Mtime::default() {
            entry.meta.mtime = time;
        }
    }
    Ok(())
}

/// All certificates in one file, in the order of their names, as update-ca-certificates writes them.
fn certificates(tree: &Tree) -> Result<Vec<u8>> {
    let folder = TreePath::literal(CERTIFICATES);
    let mut bundle = Vec::new();
    for (path, entry) in tree.below(&folder).filter(|(path, _)| path.file_name().ends_with(b".crt")) {
        let Kind::File(content) = &entry.kind else { continue };
        bundle.extend(content.bytes().with_context(|| format!("reading {path}"))?);
        if bundle.last() != Some(&b'\n') {
            bundle.push(b'\n');
        }
    }
    if bundle.is_empty() {
        return Err(Error::build("package `ca-certificates` holds no certificates"));
    }
    Ok(bundle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, kind: MemberKind) -> Member {
        let (user, group) = (Vec::new(), Vec::new());
        Member { name: name.into(), kind, mode: 0o755, uid: 0, gid: 0, user, group, mtime: 5 }
    }

    #[test]
    fn names_are_paths_inside() {
        assert_eq!(path(b"./").unwrap(), None);
        assert_eq!(path(b"./usr/lib/").unwrap(), Some(TreePath::literal("usr/lib")));
        for wild in [&b"./../etc"[..], b"a/../../b", b"./x\0y"] {
            assert!(path(wild).is_err(), "{wild:?}");
        }
    }

    #[test]
    fn old_places_lead_into_usr() {
        let mut tree = skeleton().unwrap();
        let origin: Origin = "x".into();
        for (name, kind) in [
            ("./lib64/", Kind::Directory),
            ("./lib/x86_64-linux-gnu/", Kind::Directory),
            ("./lib/x86_64-linux-gnu/libc.so.6", Kind::File(Content::inline(*b"c"))),
            ("./bin", Kind::Symlink(b"elsewhere".to_vec())),
        ] {
            let at = tree.resolve_parent(&path(name.as_bytes()).unwrap().unwrap()).unwrap();
            put(&mut tree, at, &member(name, MemberKind::Directory), kind, &origin).unwrap();
        }
        assert!(tree.contains(&TreePath::literal("usr/lib/x86_64-linux-gnu/libc.so.6")));
        let target = |path: &str| match &tree.get(&TreePath::new(path).unwrap()).unwrap().kind {
            Kind::Symlink(target) => String::from_utf8(target.clone()).unwrap(),
            other => format!("{other:?}"),
        };
        assert_eq!((target("lib64"), target("bin")), ("usr/lib64".into(), "usr/bin".into()));
    }

    #[test]
    fn certificates_are_joined_in_order() {
        let mut tree = skeleton().unwrap();
        assert!(certificates(&tree).is_err());
        for (name, text) in [("b.crt", "B\n"), ("a.crt", "A"), ("c.txt", "no")] {
            let path = TreePath::new(format!("{CERTIFICATES}/mozilla/{name}").as_bytes()).unwrap();
            tree.write_file(&path, text, Meta::root(0o644), &"x".into()).unwrap();
        }
        assert_eq!(certificates(&tree).unwrap(), b"A\nB\n");
        let at = TreePath::literal("usr/bin/sh");
        finish(&mut tree, Mtime { seconds: 9, nanoseconds: 0 }).unwrap();
        assert!(tree.iter().all(|(_, entry)| entry.meta.mtime.seconds == 9));
        // Names of a program that is not there are not made.
        assert!(!tree.contains(&at));
        tree.write_file(&TreePath::literal(BUSYBOX), "b", Meta::root(0o755), &"x".into()).unwrap();
        tree.write_file(&TreePath::literal("usr/bin/ls"), "own", Meta::root(0o755), &"x".into()).unwrap();
        finish(&mut tree, Mtime { seconds: 9, nanoseconds: 0 }).unwrap();
        assert!(matches!(&tree.get(&at).unwrap().kind, Kind::Symlink(target) if target == b"busybox"));
        assert_eq!(tree.read_file(&TreePath::literal("usr/bin/ls")).unwrap().unwrap(), b"own");
    }
}
