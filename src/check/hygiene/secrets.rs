//! Checks on identity and secrets: keys, seeds, passwords, proxies.

use super::{Image, Rule};
use crate::check::Severity;
use crate::error::Result;
use crate::tree::Kind;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "no-host-keys",
        severity: Severity::Error,
        description: "no ssh host keys: all nodes would share them",
        check: host_keys,
    },
    Rule {
        id: "no-private-keys",
        severity: Severity::Error,
        description: "no private keys below `/etc`, `/home`, `/root`, `/var/lib` unless declared in `files`",
        check: private_keys,
    },
    Rule { id: "no-seeds", severity: Severity::Error, description: "no saved random seeds", check: seeds },
    Rule {
        id: "machine-id-empty",
        severity: Severity::Error,
        description: "`/etc/machine-id` is there and empty",
        check: machine_id,
    },
    Rule {
        id: "passwords-declared",
        severity: Severity::Error,
        description: "every password hash is one that the documents give; no account has an empty password",
        check: passwords,
    },
    Rule {
        id: "root-locked",
        severity: Severity::Error,
        description: "root has no password unless the documents give one",
        check: root_locked,
    },
    Rule {
        id: "no-proxies",
        severity: Severity::Error,
        description: "no proxy of the build in the configuration of apt, the environment or wget",
        check: proxies,
    },
];

fn host_keys(image: &Image) -> Result<Vec<String>> {
    let keys = image.files_below("etc/ssh")?.into_iter();
    let keys = keys.filter(|(path, _)| path.file_name().starts_with(b"ssh_host_"));
    Ok(keys.map(|(path, _)| format!("{path} is an ssh host key")).collect())
}

fn private_keys(image: &Image) -> Result<Vec<String>> {
    const LARGEST: u64 = 64 << 10;
    let mut found = Vec::new();
    for folder in ["etc", "home", "root", "var/lib"] {
        for (path, entry) in image.files_below(folder)? {
            let Kind::File(content) = &entry.kind else { continue };
            if content.size() > LARGEST || path.file_name().starts_with(b"ssh_host_") {
                continue;
            }
            let bytes = content.bytes()?;
            // The marker is only one at the start of a line, else scripts that look for it would be found.
            let is_key = bytes
                .split(|byte| *byte == b'\n')
                .any(|line| line.starts_with(b"-----BEGIN ") && line.trim_ascii_end().ends_with(b"PRIVATE KEY-----"));
            if is_key {
                found.push(format!("{path} holds a private key that no document declares"));
            }
        }
    }
    Ok(found)
}

fn seeds(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in [
        "boot/efi/loader/random-seed",
        "boot/loader/random-seed",
        "var/lib/systemd/credential.secret",
        "var/lib/systemd/random-seed",
        "var/lib/urandom/random-seed",
    ] {
        if let (at, Some(_)) = image.resolved(path)? {
            found.push(format!("{at} is a saved random seed"));
        }
    }
    Ok(found)
}

fn machine_id(image: &Image) -> Result<Vec<String>> {
    Ok(match image.resolved("etc/machine-id")? {
        (_, Some(entry)) if matches!(&entry.kind, Kind::File(content) if content.size() == 0) => Vec::new(),
        (at, Some(_)) => vec![format!("{at} is not empty")],
        (at, None) => vec![format!("{at} is missing: the first boot would apply all presets again")],
    })
}

fn passwords(image: &Image) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for row in image.rows("etc/shadow", 2)? {
        let (name, field) = (row[0].as_str(), row[1].as_str());
        let hash = field.trim_start_matches('!');
        if field.is_empty() {
            found.push(format!("account `{name}` has an empty password"));
        } else if !hash.is_empty() && !hash.starts_with('*') {
            let declared = image.params.users.get(name).and_then(|user| user.password.as_deref());
            if declared != Some(hash) {
                found.push(format!("account `{name}` has a password that no document gives"));
            }
        }
    }
    for row in image.rows("etc/passwd", 7)?.iter().filter(|row| row[1] != "x") {
        found.push(format!("account `{}` keeps its password in /etc/passwd", row[0]));
    }
    Ok(found)
}

fn root_locked(image: &Image) -> Result<Vec<String>> {
    if image.params.users.get("root").is_some_and(|user| user.password.is_some()) {
        return Ok(Vec::new());
    }
    let rows = image.rows("etc/shadow", 2)?;
    Ok(match rows.iter().find(|row| row[0] == "root") {
        Some(row) if row[1].starts_with(['*', '!']) => Vec::new(),
        Some(_) => vec!["root can log in with a password".into()],
        None => vec!["root is missing in /etc/shadow".into()],
    })
}

fn proxies(image: &Image) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for folder in ["etc/apt/apt.conf.d", "etc/profile.d"] {
        files.extend(image.files_below(folder)?.into_iter().map(|(path, _)| path.clone()));
    }
    for single in ["etc/apt/apt.conf", "etc/environment", "etc/profile", "etc/wgetrc", "root/.wgetrc", "etc/pip.conf"] {
        files.push(image.resolved(single)?.0);
    }
    let mut found = Vec::new();
    for path in files.into_iter().filter(|path| !image.declares(path)) {
        for line in image.lines(&path.to_string())? {
            let line = line.trim().to_ascii_lowercase();
            let setting = line.contains("_proxy=")
                || line.contains("_proxy =")
                || line.starts_with("acquire::") && line.contains("proxy") && !line.contains("proxy-auto-detect \"\"");
            if setting && !line.starts_with(['#', '/']) {
                found.push(format!("{path} sets a proxy"));
                break;
            }
        }
    }
    Ok(found)
}
