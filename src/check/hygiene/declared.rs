//! Checks that declared values are in force: read back as the programs of the node will read them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Image, Rule};
use crate::api::params::files::FileState;
use crate::check::{Severity, sysctl_path};
use crate::error::Result;
use crate::tree::{Kind, TreePath};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "sysctl-in-force",
        severity: Severity::Error,
        description: "after all sysctl.d(5) files, every declared sysctl has its declared value",
        check: sysctl,
    },
    Rule {
        id: "modules-in-force",
        severity: Severity::Error,
        description: "every declared module is in modules-load.d(5) or, as declared, blacklisted in modprobe.d(5)",
        check: modules,
    },
    Rule {
        id: "modules-exist",
        severity: Severity::Warning,
        description: "every module to load comes with the kernels of the image",
        check: modules_exist,
    },
    Rule {
        id: "users-in-force",
        severity: Severity::Error,
        description: "every declared user exists with its groups, home, keys and sudo rule",
        check: users,
    },
    Rule {
        id: "files-in-force",
        severity: Severity::Error,
        description: "every declared file is there, and every file declared absent is not",
        check: files,
    },
    Rule {
        id: "units-in-force",
        severity: Severity::Error,
        description: "units declared enabled have a link, units declared masked are",
        check: units,
    },
];

/// Files of the `x.d` folders in the order programs read them: by name, `/etc` hiding the same name elsewhere.
fn drop_ins(image: &Image, name: &str) -> Result<Vec<String>> {
    let mut files = BTreeMap::new();
    for root in ["usr/lib", "usr/local/lib", "run", "etc"] {
        let Some(folder) = TreePath::new(format!("{root}/{name}")) else { continue };
        let folder = image.tree.resolve(&folder)?;
        for (path, _) in image.tree.children(&folder).filter(|(path, _)| path.file_name().ends_with(b".conf")) {
            files.insert(path.file_name().to_vec(), path.to_string());
        }
    }
    let mut lines = Vec::new();
    for path in files.values() {
        lines.extend(image.lines(path)?.into_iter().map(|line| line.trim().to_owned()));
    }
    lines.retain(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    Ok(lines)
}

fn sysctl(image: &Image) -> Result<Vec<String>> {
    // A leading dash means that a failure does not count.
    let normal = |key: &str| sysctl_path(key.trim().trim_start_matches('-'));
    let mut values = BTreeMap::new();
    for line in drop_ins(image, "sysctl.d")? {
        if let Some((key, value)) = line.split_once('=') {
            values.insert(normal(key), value.trim().to_owned());
        }
    }
    let wrong = image.params.kernel.sysctl.iter().filter_map(|(key, wanted)| match values.get(&normal(key)) {
        Some(value) if value == wanted.as_str().trim() => None,
        Some(value) => Some(format!("sysctl `{key}` is `{value}`, declared is `{wanted}`")),
        None => Some(format!("sysctl `{key}` is set nowhere")),
    });
    Ok(wrong.collect())
}

fn modules(image: &Image) -> Result<Vec<String>> {
    let load: BTreeSet<String> = drop_ins(image, "modules-load.d")?.into_iter().collect();
    let modprobe: BTreeSet<String> = drop_ins(image, "modprobe.d")?.into_iter().collect();
    let mut found = Vec::new();
    for (name, module) in &image.params.kernel.modules {
        let wanted = module.load.unwrap_or(!module.blacklist);
        if wanted && !load.contains(name) {
            found.push(format!("module `{name}` is not loaded at boot"));
        }
        if module.blacklist && !modprobe.contains(&format!("blacklist {name}")) {
            found.push(format!("module `{name}` is not blacklisted"));
        }
        if !module.options.is_empty() && !modprobe.iter().any(|line| line.starts_with(&format!("options {name} "))) {
            found.push(format!("module `{name}` has no options"));
        }
    }
    Ok(found)
}

fn modules_exist(image: &Image) -> Result<Vec<String>> {
    let root = image.tree.resolve(&TreePath::literal("usr/lib/modules"))?;
    let plain = |name: &str| name.replace('-', "_");
    let mut known = BTreeSet::new();
    for (kernel, _) in image.tree.children(&root) {
        let mut names = image.lines(&format!("{kernel}/modules.builtin"))?;
        names.extend(image.lines(&format!("{kernel}/modules.order"))?);
        for name in names {
            let file = name.rsplit('/').next().unwrap_or_default();
            known.insert(plain(file.split(".ko").next().unwrap_or_default()));
        }
    }
    if known.is_empty() {
        return Ok(Vec::new());
    }
    let load = drop_ins(image, "modules-load.d")?;
    let missing = load.iter().filter(|name| !known.contains(&plain(name)));
    Ok(missing.map(|name| format!("module `{name}` is to be loaded but no kernel of the image has it")).collect())
}

fn users(image: &Image) -> Result<Vec<String>> {
    let passwd = image.rows("etc/passwd", 7)?;
    let groups = image.rows("etc/group", 4)?;
    let mut found = Vec::new();
    for (name, user) in &image.params.users {
        let Some(row) = passwd.iter().find(|row| row[0] == *name) else {
            found.push(format!("user `{name}` does not exist"));
            continue;
        };
        if user.uid.is_some_and(|uid| row[2] != uid.to_string()) {
            found.push(format!("user `{name}` has uid {}", row[2]));
        }
        for group in user.groups.keys() {
            let members = groups.iter().find(|row| row[0] == *group).map_or("", |row| row[3].as_str());
            if !members.split(',').any(|member| member == name) {
                found.push(format!("user `{name}` is not in group `{group}`"));
            }
        }
        if !user.authorized_keys.is_empty() {
            found.extend(keys(image, name, &row[2], &row[5])?);
        }
        let has_rule = |line: &String| line.split_whitespace().next() == Some(name);
        if user.sudo.is_some() {
            let mut lines = Vec::new();
            for (path, _) in image.files_below("etc/sudoers.d")? {
                lines.extend(image.lines(&path.to_string())?);
            }
            if !lines.iter().any(has_rule) {
                found.push(format!("user `{name}` has no sudo rule"));
            }
        }
    }
    Ok(found)
}

/// sshd refuses keys that others may write (StrictModes).
fn keys(image: &Image, name: &str, uid: &str, home: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for part in ["", "/.ssh", "/.ssh/authorized_keys"] {
        let Some(path) = TreePath::new(format!("{home}{part}")) else { continue };
        let path = image.tree.resolve(&path)?;
        match image.tree.get(&path) {
            Some(entry) if entry.meta.uid.to_string() == uid && entry.meta.mode & 0o022 == 0 => {}
            Some(_) => found.push(format!("{path} of user `{name}` has an owner or mode that sshd refuses")),
            None => found.push(format!("{path} of user `{name}` does not exist")),
        }
    }
    Ok(found)
}

fn files(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (path, file) in &image.params.files {
        let Some(at) = TreePath::new(path) else { continue };
        let entry = image.tree.get(&image.tree.resolve_parent(&at)?);
        match (file.state, entry.map(|entry| &entry.kind)) {
            (FileState::Absent, Some(_)) => found.push(format!("{path} is there, although declared absent")),
            (FileState::Absent, None) | (_, Some(_)) => {}
            (_, None) => found.push(format!("{path} is missing")),
        }
        if let (Some(text), Some(Kind::File(content))) = (&file.file_content, entry.map(|entry| &entry.kind)) {
            if content.bytes()? != text.as_bytes() {
                found.push(format!("{path} has another content than declared"));
            }
        }
    }
    Ok(found)
}

fn units(image: &Image) -> Result<Vec<String>> {
    let links: Vec<(String, String)> = image
        .files_below("etc/systemd/system")?
        .into_iter()
        .filter_map(|(path, entry)| match &entry.kind {
            Kind::Symlink(target) => {
                let last = target.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                Some((text(path.file_name()), text(last)))
            }
            _ => None,
        })
        .collect();
    let mut found = Vec::new();
    for (name, unit) in &image.params.systemd {
        let linked = links.iter().any(|(link, target)| target != "null" && (link == name || target == name));
        let masked = links.iter().any(|(link, target)| link == name && target == "null");
        if unit.enabled == Some(true) && !linked && !enables_others(image, name)? {
            found.push(format!("unit `{name}` is not enabled"));
        }
        if unit.enabled == Some(false) && linked {
            found.push(format!("unit `{name}` is enabled"));
        }
        if unit.masked != masked && (unit.masked || unit.enabled == Some(true)) {
            found.push(format!("unit `{name}` is {}masked", if masked { "" } else { "not " }));
        }
    }
    Ok(found)
}

/// A unit whose `[Install]` only says `Also=` gets links of other names.
fn enables_others(image: &Image, name: &str) -> Result<bool> {
    for folder in ["etc/systemd/system", "usr/lib/systemd/system"] {
        if image.lines(&format!("{folder}/{name}"))?.iter().any(|line| line.trim_start().starts_with("Also=")) {
            return Ok(true);
        }
    }
    Ok(false)
}
