//! The seed: what a machine is told on its first boot, as cloud-init's NoCloud data source reads it from a small FAT
//! disk named `CIDATA` (<https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html>).
//!
//! Owns: [`Seed`] and its two files. YAML is written as JSON, which is a part of it, so that no value needs care.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Context, Error, Kind, Result};

/// A name for the machine, and a user who may become root without a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    pub hostname: String,
    pub user: String,
    /// For the console; no remote login with it.
    pub password: Option<String>,
    /// Lines of `authorized_keys`.
    pub ssh_keys: Vec<String>,
}

impl Seed {
    /// Fails on names that the machine would refuse later, where nobody sees it.
    pub fn check(&self) -> Result<()> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !self.hostname.split('.').all(label) || self.hostname.len() > 253 {
            return Err(Error::new(Kind::Usage, format!("`{}` is not a host name", self.hostname.escape_debug()))
                .hint("letters, digits and hyphens, in parts of at most 63 separated by dots"));
        }
        let mut bytes = self.user.bytes();
        let first = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let rest = bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
        if !(first && rest && self.user.len() <= 32) {
            return Err(Error::new(Kind::Usage, format!("`{}` is not a user name", self.user.escape_debug()))
                .hint("lower-case letters, digits, `_` and `-`, a letter or `_` first, at most 32"));
        }
        Ok(())
    }

    pub fn user_data(&self) -> String {
        let mut user = json!({
            "name": self.user,
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": self.password.is_none(),
            "ssh_authorized_keys": self.ssh_keys,
        });
        if let Some(password) = &self.password {
            user["plain_text_passwd"] = Value::from(password.as_str());
        }
        format!("#cloud-config\n{}\n", json!({ "users": [user], "ssh_pwauth": false }))
    }

    pub fn meta_data(&self) -> String {
        let id = format!("imagebuilder-{}", self.hostname);
        format!("{}\n", json!({ "instance-id": id, "local-hostname": self.hostname }))
    }

    /// Writes the files of the seed into a folder that only the owner can read.
    pub fn write(&self, dir: &Path) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).create(dir).with_context(|| format!("creating {}", dir.display()))?;
        for (name, text) in [("user-data", self.user_data()), ("meta-data", self.meta_data())] {
            let file = dir.join(name);
            std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    }
}

/// Sixteen letters and digits that are hard to mix up, from the kernel's random numbers: 80 bits.
pub fn random_password() -> Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 16];
    let mut random = File::open("/dev/urandom").context("opening /dev/urandom")?;
    random.read_exact(&mut bytes).context("reading /dev/urandom")?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        Seed { hostname: "node-1".into(), user: "operator".into(), password: None, ssh_keys: vec!["ssh-x: #".into()] }
    }

    #[test]
    fn user_data_is_cloud_config_without_a_password_unless_given() {
        let text = seed().user_data();
        let yaml: Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        assert_eq!(yaml["users"][0]["lock_passwd"], true);
        assert_eq!(yaml["users"][0]["ssh_authorized_keys"][0], "ssh-x: #");
        assert!(yaml["users"][0].get("plain_text_passwd").is_none());
        let text = Seed { password: Some("a\"b".into()), ..seed() }.user_data();
        let yaml: Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        assert_eq!(yaml["users"][0]["plain_text_passwd"], "a\"b");
    }

    #[test]
    fn bad_names_are_refused() {
        assert!(seed().check().is_ok());
        for hostname in ["", "a b", "-a", "a..b", "x\ny", &"a".repeat(64)] {
            assert_eq!(Seed { hostname: hostname.into(), ..seed() }.check().unwrap_err().kind(), Kind::Usage);
        }
        for user in ["", "Root", "1a", "a:b"] {
            assert!(Seed { user: user.into(), ..seed() }.check().is_err(), "{user}");
        }
    }

    #[test]
    fn passwords_differ() {
        let (one, two) = (random_password().unwrap(), random_password().unwrap());
        assert_eq!(one.len(), 16);
        assert_ne!(one, two);
    }
}
