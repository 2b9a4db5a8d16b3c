//! Checks on modes: setuid, world-writable, files that programs refuse when their mode is wrong.

use std::collections::BTreeSet;

use super::{Image, Rule};
use crate::check::Severity;
use crate::error::Result;
use crate::tree::{Kind, TreePath};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "no-world-writable",
        severity: Severity::Error,
        description: "no file and no folder without sticky bit is writable for everybody",
        check: world_writable,
    },
    Rule {
        id: "setuid-known",
        severity: Severity::Error,
        description: "every setuid or setgid file belongs to a package or is declared in `files`",
        check: setuid_known,
    },
    Rule {
        id: "setuid-kept",
        severity: Severity::Error,
        description: "`su`, `sudo`, `mount`, `umount`, `passwd`, `chsh`, `gpasswd`, `newgrp` are setuid root where installed",
        check: setuid_kept,
    },
    Rule {
        id: "sensitive-modes",
        severity: Severity::Error,
        description: "shadow files are unreadable for others; sudo rules belong to root and nobody else may write them",
        check: sensitive_modes,
    },
];

fn world_writable(image: &Image) -> Result<Vec<String>> {
    let open = image.tree.iter().filter(|(path, entry)| {
        let applies = match entry.kind {
            Kind::Directory => entry.meta.mode & 0o1000 == 0,
            Kind::File(_) | Kind::HardLink(_) | Kind::Fifo | Kind::Socket => true,
            // Links have no mode; devices such as /dev/null are meant to be open.
            Kind::Symlink(_) | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => false,
        };
        applies && entry.meta.mode & 0o002 != 0 && !image.declares(path)
    });
    Ok(open.map(|(path, entry)| format!("{path} is writable for everybody (mode {:04o})", entry.meta.mode)).collect())
}

/// Paths of the packages' own lists, as they lie after merged-/usr links are followed.
fn packaged(image: &Image) -> Result<BTreeSet<TreePath>> {
    let mut paths = BTreeSet::new();
    for (list, _) in image.files_below("var/lib/dpkg/info")? {
        if !list.file_name().ends_with(b".list") {
            continue;
        }
        for line in image.lines(&list.to_string())? {
            if let Some(path) = TreePath::new(&line) {
                paths.insert(image.tree.resolve_parent(&path)?);
            }
        }
    }
    Ok(paths)
}

fn setuid_known(image: &Image) -> Result<Vec<String>> {
    let privileged: Vec<_> = image
        .tree
        .iter()
        .filter(|(_, entry)| !matches!(entry.kind, Kind::Directory | Kind::Symlink(_)) && entry.meta.mode & 0o6000 != 0)
        .collect();
    if privileged.is_empty() {
        return Ok(Vec::new());
    }
    let packaged = packaged(image)?;
    let unknown = privileged.into_iter().filter(|(path, _)| !packaged.contains(path) && !image.declares(path));
    Ok(unknown
        .map(|(path, entry)| format!("{path} has mode {:04o} but no package brings it", entry.meta.mode))
        .collect())
}

fn setuid_kept(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in ["chsh", "gpasswd", "mount", "newgrp", "passwd", "su", "sudo", "umount"] {
        let path = image.tree.resolve(&TreePath::literal("usr/bin").append(&TreePath::literal(name)))?;
        if let Some((_, entry)) = image.tree.inode(&path) {
            let is_file = matches!(entry.kind, Kind::File(_));
            if is_file && (entry.meta.mode & 0o4000 == 0 || entry.meta.uid != 0) && !image.declares(&path) {
                found.push(format!("{path} is not setuid root (mode {:04o})", entry.meta.mode));
            }
        }
    }
    Ok(found)
}

fn sensitive_modes(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in ["etc/shadow", "etc/gshadow"] {
        if let (at, Some(entry)) = image.resolved(path)? {
            if entry.meta.mode & 0o007 != 0 || entry.meta.uid != 0 {
                found.push(format!("{at} is open to others (mode {:04o})", entry.meta.mode));
            }
        }
    }
    let mut rules = image.files_below("etc/sudoers.d")?;
    if let (path, Some(entry)) = image.resolved("etc/sudoers")? {
        if entry.meta.mode & 0o022 != 0 || entry.meta.uid != 0 {
            found.push(format!("{path} is not root's alone (mode {:04o})", entry.meta.mode));
        }
    }
    rules.retain(|(_, entry)| entry.meta.mode & 0o022 != 0 || entry.meta.uid != 0);
    found.extend(
        rules.into_iter().map(|(path, entry)| format!("{path} is not root's alone (mode {:04o})", entry.meta.mode)),
    );
    Ok(found)
}
