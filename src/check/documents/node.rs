//! Rules on accounts, files, units, limits and the kubelet.

use std::collections::BTreeMap;

use super::{Subject, token};
use crate::api::params::files::FileState;
use crate::api::params::software::State;
use crate::document::{Diagnostic, suggestion};

/// Names of the packages that are to be installed.
pub(super) fn present<'a>(subject: &Subject<'a>) -> impl Iterator<Item = &'a str> {
    let packages = subject.image.spec.params.software.packages.iter();
    packages.filter(|(_, package)| package.state == State::Present).map(|(name, _)| name.as_str())
}

/// Keys of cloud-config that are followed by a password.
const CLEAR_TEXT: [&str; 3] = ["plain_text_passwd:", "password:", "chpasswd:"];

pub(super) fn clear_text_password(subject: &Subject) -> Vec<Diagnostic> {
    let params = &subject.image.spec.params;
    let mut found = Vec::new();
    for (name, text) in &params.cloud_init.config {
        let line = text.lines().map(str::trim_start).find(|line| gives_password(line));
        if let Some(key) = line.and_then(|line| line.split_once(':')).map(|(key, _)| key.trim_start_matches("- ")) {
            let message = format!("`cloudInit.config.{name}` gives a password in clear text (`{key}`)");
            found.push(subject.on(&format!("/cloudInit/config/{}", token(name)), message).without_text());
        }
    }
    for name in params.kubernetes.kubelet.extra_systemd_args.keys() {
        if ["token", "password", "secret"].iter().any(|word| name.split('-').any(|part| part == *word)) {
            let message =
                format!("the kubelet argument `{name}` holds a secret that every process of the node can read");
            found.push(
                subject.on(&format!("/kubernetes/kubelet/extra_systemd_args/{}", token(name)), message).without_text(),
            );
        }
    }
    found
}

/// `password: x` does, `password: $6$...` and `chpasswd: {expire: false}` do not.
fn gives_password(line: &str) -> bool {
    let line = line.trim_start_matches("- ");
    let Some(key) = CLEAR_TEXT.iter().find(|key| line.starts_with(**key)) else { return false };
    let value = line[key.len()..].trim().trim_matches(['"', '\'']);
    match *key {
        "chpasswd:" => value.contains("list:") || value.contains("users:"),
        _ => !value.is_empty() && !value.starts_with(['$', '#', '*', '!']),
    }
}

pub(super) fn uid_once(subject: &Subject) -> Vec<Diagnostic> {
    let mut seen: BTreeMap<u32, &str> = BTreeMap::new();
    let mut found = Vec::new();
    for (name, user) in &subject.image.spec.params.users {
        let Some(uid) = user.uid else { continue };
        let on = |message: String| subject.on(&format!("/users/{}/uid", token(name)), message);
        if (uid == 0) != (name == "root") {
            found.push(on(format!("user `{name}` has number {uid}: 0 is root's, and root's only")));
        } else if let Some(other) = seen.insert(uid, name) {
            found.push(on(format!("users `{other}` and `{name}` both have number {uid}")));
        }
    }
    found
}

pub(super) fn system_uid(subject: &Subject) -> Vec<Diagnostic> {
    let users = subject.image.spec.params.users.iter();
    let wrong = users.filter_map(|(name, user)| Some((name, user.uid.filter(|uid| *uid > 0)?, user.system)));
    wrong
        .filter(|(_, uid, system)| (*uid < 1000) != *system)
        .map(|(name, uid, system)| {
            let kind = if system { "a system account" } else { "no system account" };
            subject.on(&format!("/users/{}/uid", token(name)), format!("user `{name}` is {kind} and has number {uid}"))
        })
        .collect()
}

pub(super) fn limit_type(subject: &Subject) -> Vec<Diagnostic> {
    let limits = subject.image.spec.params.limits.iter();
    limits
        .filter(|(_, limit)| !matches!(limit.kind.as_str(), "hard" | "soft" | "-"))
        .map(|(name, limit)| {
            let message = format!("limit `{name}` is of type `{}`", limit.kind);
            let diagnostic = subject.on(&format!("/limits/{}/type", token(name)), message);
            match suggestion(&limit.kind, "types", &["hard", "soft", "-"]) {
                Some(hint) => diagnostic.hint(hint),
                None => diagnostic,
            }
        })
        .collect()
}

pub(super) fn file_entry(subject: &Subject) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (path, file) in &subject.image.spec.params.files {
        let contents = usize::from(file.file_content.is_some()) + usize::from(file.file_content_base64.is_some());
        let problem = match file.state {
            _ if !path.starts_with('/') || path.split('/').any(|part| part == "..") => Some("is not an absolute path"),
            FileState::File if contents > 1 => Some("has `file_content` and `file_content_base64`"),
            FileState::Link if file.target.is_none() => Some("is a link without `target`"),
            FileState::Link | FileState::Directory | FileState::Absent if contents > 0 => {
                Some("is no file and has content")
            }
            FileState::File | FileState::Directory | FileState::Absent if file.target.is_some() => {
                Some("is no link and has a `target`")
            }
            _ => None,
        };
        found.extend(
            problem.map(|problem| subject.on(&format!("/files/{}", token(path)), format!("`{path}` {problem}"))),
        );
    }
    found
}

pub(super) fn file_mode(subject: &Subject) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (path, file) in &subject.image.spec.params.files {
        let Some(mode) = file.permissions.map(|mode| mode.0) else { continue };
        let problem = match file.state {
            FileState::File if mode & 0o002 != 0 => Some("is writable by everybody"),
            FileState::Directory if mode & 0o1002 == 0o002 => Some("is writable by everybody and has no sticky bit"),
            FileState::Directory if mode & 0o100 == 0 => Some("is a folder that its owner cannot enter"),
            _ => None,
        };
        let message = |problem| format!("`{path}` with mode `{mode:04o}` {problem}");
        let pointer = format!("/files/{}/permissions", token(path));
        found.extend(problem.map(|problem| subject.on(&pointer, message(problem))));
    }
    found
}

/// systemd.unit(5).
const SUFFIXES: [&str; 11] =
    ["service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"];

pub(super) fn unit_name(subject: &Subject) -> Vec<Diagnostic> {
    let units = subject.image.spec.params.systemd.keys();
    let wrong = units.filter(|name| {
        let stem = name.rsplit_once('.').filter(|(_, suffix)| SUFFIXES.contains(suffix)).map(|(stem, _)| stem);
        !stem.is_some_and(|stem| {
            !stem.is_empty() && stem.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c))
        })
    });
    wrong
        .map(|name| {
            let diagnostic =
                subject.on(&format!("/systemd/{}", token(name)), format!("`{name}` is not the name of a unit"));
            diagnostic.hint(format!("did you mean `{}.service`?", name.trim_end_matches('.')))
        })
        .collect()
}

pub(super) fn unit_install(subject: &Subject) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (name, unit) in subject.image.spec.params.systemd.iter().filter(|(_, unit)| unit.enabled == Some(true)) {
        let on = |message: String| subject.on(&format!("/systemd/{}/enabled", token(name)), message);
        if unit.masked {
            found.push(on(format!("unit `{name}` is enabled and masked")));
        }
        let installs = |text: &str| text.lines().any(|line| line.trim() == "[Install]");
        let texts = unit.file_content.iter().chain(unit.drop_ins.values());
        if unit.file_content.is_some() && !texts.into_iter().any(|text| installs(text)) {
            found.push(on(format!("unit `{name}` is enabled and its text has no section `[Install]`")));
        }
    }
    found
}

/// Units that one package brings, or one of a few, under names that Debian and Ubuntu share.
const UNIT_PACKAGES: &[(&str, &[&str])] = &[
    ("auditd.service", &["auditd"]),
    ("chrony.service", &["chrony"]),
    ("containerd.service", &["containerd", "containerd.io", "docker.io", "docker-ce"]),
    ("cron.service", &["cron"]),
    ("docker.service", &["docker.io", "docker-ce"]),
    ("fail2ban.service", &["fail2ban"]),
    ("haproxy.service", &["haproxy"]),
    ("iscsid.service", &["open-iscsi"]),
    ("keepalived.service", &["keepalived"]),
    ("kubelet.service", &["kubelet"]),
    ("lldpd.service", &["lldpd"]),
    ("multipathd.service", &["multipath-tools"]),
    ("nfs-server.service", &["nfs-kernel-server"]),
    ("nftables.service", &["nftables"]),
    ("rsyslog.service", &["rsyslog"]),
    ("ssh.service", &["openssh-server", "ssh"]),
    ("unattended-upgrades.service", &["unattended-upgrades"]),
];

pub(super) fn unit_package(subject: &Subject) -> Vec<Diagnostic> {
    let names: Vec<&str> = present(subject).collect();
    let mut found = Vec::new();
    for (name, unit) in &subject.image.spec.params.systemd {
        let known = UNIT_PACKAGES.iter().find(|(known, _)| known == name);
        let Some((_, packages)) = known.filter(|_| unit.file_content.is_none() && unit.enabled == Some(true)) else {
            continue;
        };
        if !packages.iter().any(|package| names.contains(package)) {
            let message = format!("no package here brings unit `{name}`");
            let hint = format!("`{}` does", packages.join("`, or `"));
            found.push(subject.on(&format!("/systemd/{}", token(name)), message).hint(hint));
        }
    }
    found
}

/// Arguments with a closed list of values.
const KUBELET_WORDS: &[(&str, &[&str])] = &[
    ("cpu-manager-policy", &["none", "static"]),
    ("memory-manager-policy", &["None", "Static"]),
    ("topology-manager-policy", &["none", "best-effort", "restricted", "single-numa-node"]),
    ("topology-manager-scope", &["container", "pod"]),
    ("cgroup-driver", &["cgroupfs", "systemd"]),
    ("hairpin-mode", &["promiscuous-bridge", "hairpin-veth", "none"]),
];
const KUBELET_NUMBERS: &[&str] =
    &["max-pods", "pods-per-core", "v", "image-gc-high-threshold", "image-gc-low-threshold"];
const KUBELET_SWITCHES: &[&str] = &[
    "anonymous-auth",
    "rotate-certificates",
    "protect-kernel-defaults",
    "serialize-image-pulls",
    "fail-swap-on",
    "register-node",
];

pub(super) fn kubelet_arguments(subject: &Subject) -> Vec<Diagnostic> {
    let arguments = &subject.image.spec.params.kubernetes.kubelet.extra_systemd_args;
    let mut found = Vec::new();
    for (name, value) in arguments {
        let on =
            |message: String| subject.on(&format!("/kubernetes/kubelet/extra_systemd_args/{}", token(name)), message);
        let value = value.as_str();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) {
            let hint = format!("write `{}`", name.trim_start_matches('-').replace('_', "-").to_lowercase());
            found.push(on(format!("`{name}` is not the name of a kubelet argument")).hint(hint));
        } else if let Some((_, words)) = KUBELET_WORDS.iter().find(|(known, _)| known == name) {
            if !words.contains(&value) {
                let diagnostic = on(format!("`{name}` does not take `{value}`"));
                found.push(match suggestion(value, "values", words) {
                    Some(hint) => diagnostic.hint(hint),
                    None => diagnostic,
                });
            }
        } else if KUBELET_NUMBERS.contains(&name.as_str()) && value.parse::<u32>().is_err() {
            found.push(on(format!("`{name}` takes a number, not `{value}`")));
        } else if KUBELET_SWITCHES.contains(&name.as_str()) && !matches!(value, "true" | "false") {
            found.push(on(format!("`{name}` takes `true` or `false`, not `{value}`")));
        }
    }
    let word = |name: &str| arguments.get(name).map_or("", |value| value.as_str());
    let cpus = |name: &str| word(name).split(',').any(|part| part.starts_with("cpu="));
    if word("cpu-manager-policy") == "static"
        && word("reserved-cpus").is_empty()
        && !cpus("system-reserved")
        && !cpus("kube-reserved")
    {
        let message = "`cpu-manager-policy: static` needs CPUs reserved for the system";
        let diagnostic = subject.on("/kubernetes/kubelet/extra_systemd_args/cpu-manager-policy", message);
        found.push(diagnostic.hint("add `reserved-cpus`, or `cpu=` to `system-reserved` or `kube-reserved`"));
    }
    found
}
