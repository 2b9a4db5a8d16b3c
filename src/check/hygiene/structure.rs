//! Checks that the image hangs together: kernels, links, packages, accounts.

use std::collections::{BTreeMap, BTreeSet};

use super::{Image, Rule};
use crate::check::Severity;
use crate::error::Result;
use crate::tree::{Kind, TreePath};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "kernels-complete",
        severity: Severity::Error,
        description: "every kernel in `/boot` has its initramfs and its modules",
        check: kernels,
    },
    Rule {
        id: "essential-links",
        severity: Severity::Error,
        description: "`/sbin/init`, `/bin/sh`, `/etc/os-release` and the links to kernel and initramfs lead somewhere",
        check: essential_links,
    },
    Rule {
        id: "unit-links",
        severity: Severity::Error,
        description: "every link below `/etc/systemd/system` leads to a unit of the image or to `/dev/null`",
        check: unit_links,
    },
    Rule {
        id: "packages-configured",
        severity: Severity::Error,
        description: "dpkg has every package either installed or gone, none half-way",
        check: packages,
    },
    Rule {
        id: "accounts-consistent",
        severity: Severity::Error,
        description: "no login name or uid twice; every account has a group and a shadow line",
        check: accounts,
    },
    Rule {
        id: "shells-exist",
        severity: Severity::Warning,
        description: "the shell of every account is in the image",
        check: shells,
    },
];

fn kernels(image: &Image) -> Result<Vec<String>> {
    let boot = image.tree.resolve(&TreePath::literal("boot"))?;
    let mut found = Vec::new();
    for (path, entry) in image.tree.children(&boot).filter(|(path, _)| path.file_name().starts_with(b"vmlinuz-")) {
        if matches!(entry.kind, Kind::Symlink(_)) {
            continue;
        }
        let version = String::from_utf8_lossy(&path.file_name()[b"vmlinuz-".len()..]).into_owned();
        for needed in [format!("/boot/initrd.img-{version}"), format!("/usr/lib/modules/{version}")] {
            if !image.exists(&needed)? {
                found.push(format!("{needed} is missing, which {path} needs"));
            }
        }
    }
    Ok(found)
}

fn essential_links(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in ["bin/sh", "etc/os-release", "sbin/init"] {
        if !image.exists(path)? {
            found.push(format!("/{path} does not exist in the image"));
        }
    }
    for path in ["boot/initrd.img", "boot/vmlinuz", "initrd.img", "vmlinuz"] {
        if let (at, Some(entry)) = image.resolved(path)? {
            if matches!(entry.kind, Kind::Symlink(_)) && !image.exists(path)? {
                found.push(format!("{at} is a link that leads nowhere"));
            }
        }
    }
    Ok(found)
}

fn unit_links(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (path, entry) in image.files_below("etc/systemd/system")? {
        let Kind::Symlink(target) = &entry.kind else { continue };
        if target == b"/dev/null" || target.starts_with(b"/run/") || image.exists(&path.to_string())? {
            continue;
        }
        // A link to an instance leads to the template's file.
        found.push(format!("{path} is a link that leads nowhere ({})", String::from_utf8_lossy(target)));
    }
    Ok(found)
}

fn packages(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut name = String::new();
    for line in image.lines("var/lib/dpkg/status")? {
        if let Some(package) = line.strip_prefix("Package: ") {
            name = package.to_owned();
        } else if let Some(status) = line.strip_prefix("Status: ") {
            let state = status.rsplit(' ').next().unwrap_or_default();
            if !["installed", "config-files", "not-installed"].contains(&state) {
                found.push(format!("package `{name}` is {state}"));
            }
        }
    }
    Ok(found)
}

fn accounts(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let groups: BTreeSet<String> = image.rows("etc/group", 4)?.into_iter().map(|row| row[2].clone()).collect();
    let shadow: BTreeSet<String> = image.rows("etc/shadow", 2)?.into_iter().map(|row| row[0].clone()).collect();
    let (mut names, mut uids) = (BTreeSet::new(), BTreeMap::new());
    for row in image.rows("etc/passwd", 7)? {
        let (name, uid, gid) = (&row[0], &row[2], &row[3]);
        if !names.insert(name.clone()) {
            found.push(format!("account `{name}` is in /etc/passwd twice"));
        }
        if let Some(other) = uids.insert(uid.clone(), name.clone()) {
            found.push(format!("accounts `{other}` and `{name}` share uid {uid}"));
        }
        if !groups.contains(gid) {
            found.push(format!("group {gid} of account `{name}` does not exist"));
        }
        if !shadow.contains(name) {
            found.push(format!("account `{name}` is missing in /etc/shadow"));
        }
    }
    Ok(found)
}

fn shells(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for row in image.rows("etc/passwd", 7)? {
        if !row[6].is_empty() && !image.exists(&row[6])? {
            found.push(format!("shell `{}` of account `{}` does not exist", row[6], row[0]));
        }
    }
    Ok(found)
}
