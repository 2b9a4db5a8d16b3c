//! Checks on what a build leaves behind: caches, logs, runtime files, half-done configuration.

use super::{Image, Rule};
use crate::check::Severity;
use crate::error::Result;
use crate::tree::{Kind, TreePath};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "no-caches",
        severity: Severity::Error,
        description: "no package lists, archives and caches",
        check: caches,
    },
    Rule { id: "no-logs", severity: Severity::Error, description: "no logs of the build", check: logs },
    Rule {
        id: "no-runtime-files",
        severity: Severity::Error,
        description: "nothing in `/tmp`, `/var/tmp`, `/run`, `/proc`, `/sys`, no plain files in `/dev`, no sockets",
        check: runtime_files,
    },
    Rule {
        id: "no-resolv-conf",
        severity: Severity::Error,
        description: "`/etc/resolv.conf` is missing, declared, or a link to the node's own resolver",
        check: resolv_conf,
    },
    Rule {
        id: "no-backups",
        severity: Severity::Error,
        description: "no backup and lock files of dpkg and of the account tools, no `.dpkg-new`",
        check: backups,
    },
    Rule {
        id: "no-instance-data",
        severity: Severity::Error,
        description: "cloud-init has not run in the image",
        check: instance_data,
    },
];

fn caches(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in ["var/lib/apt/lists", "var/cache/apt", "var/cache/man"] {
        found.extend(image.files_below(folder)?.into_iter().map(|(path, _)| format!("{path} is a cache")));
    }
    if let (at, Some(_)) = image.resolved("var/cache/ldconfig/aux-cache")? {
        found.push(format!("{at} is a cache"));
    }
    Ok(found)
}

fn logs(image: &Image) -> Result<Vec<String>> {
    let filled = image.files_below("var/log")?.into_iter();
    let filled = filled.filter(|(_, entry)| matches!(&entry.kind, Kind::File(content) if content.size() > 0));
    Ok(filled.map(|(path, _)| format!("{path} is a log of the build")).collect())
}

fn runtime_files(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in ["tmp", "var/tmp", "run", "proc", "sys"] {
        found.extend(image.files_below(folder)?.into_iter().map(|(path, _)| format!("{path} is a runtime file")));
    }
    let plain = image.files_below("dev")?.into_iter().filter(|(_, entry)| matches!(entry.kind, Kind::File(_)));
    found.extend(plain.map(|(path, _)| format!("{path} is no device")));
    let sockets = image.tree.iter().filter(|(_, entry)| matches!(entry.kind, Kind::Socket));
    found.extend(sockets.map(|(path, _)| format!("{path} is a socket")));
    Ok(found)
}

fn resolv_conf(image: &Image) -> Result<Vec<String>> {
    let (at, entry) = image.resolved("etc/resolv.conf")?;
    Ok(match entry.map(|entry| &entry.kind) {
        None | Some(Kind::Symlink(_)) => Vec::new(),
        Some(_) if image.declares(&at) => Vec::new(),
        Some(_) => vec![format!("{at} comes from the build machine")],
    })
}

fn backups(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in [
        "etc/.pwd.lock",
        "etc/group-",
        "etc/gshadow-",
        "etc/passwd-",
        "etc/shadow-",
        "etc/subgid-",
        "etc/subuid-",
        "var/lib/dpkg/status-old",
        "var/lib/dpkg/lock",
        "var/lib/dpkg/lock-frontend",
    ] {
        if let (at, Some(_)) = image.resolved(path)? {
            found.push(format!("{at} is a backup or lock file"));
        }
    }
    let cut_short =
        |path: &TreePath| [&b".dpkg-new"[..], b".dpkg-tmp"].iter().any(|end| path.as_bytes().ends_with(end));
    let half = image.tree.iter().filter(|(path, _)| cut_short(path));
    found.extend(half.map(|(path, _)| format!("{path} was left by an unfinished package step")));
    Ok(found)
}

fn instance_data(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in ["var/lib/cloud/instances", "var/lib/cloud/data", "var/lib/cloud/sem"] {
        let files = image.files_below(folder)?.into_iter();
        found.extend(files.map(|(path, _)| format!("{path} is instance data of cloud-init")));
    }
    Ok(found)
}
