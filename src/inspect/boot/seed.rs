//! The seed: what a machine is told on its first boot, as cloud-init's NoCloud data source reads it from a small FAT
//! disk named `CIDATA` (<https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html>).
//!
//! Owns: [`Seed`] and its two files. YAML is written as JSON, which is a part of it, so that no value needs care.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::{Context, Error, Kind, Result};
use crate::format::disk::DiskImage;
use crate::format::fat::{self, FatType};
use crate::format::raw;
use crate::tree::{Meta, Mtime, Origin, Tree, TreePath};

/// FAT16 has 4085 clusters at least; this is the smallest round size with room for them. The file is sparse.
const DISK_BYTES: u64 = 16 << 20;

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
        });
        // cloud-init's schema does not take an empty list, and newer releases call the boot degraded then.
        if !self.ssh_keys.is_empty() {
            user["ssh_authorized_keys"] = json!(self.ssh_keys);
        }
        if let Some(password) = &self.password {
            user["plain_text_passwd"] = Value::from(password.as_str());
        }
        format!("#cloud-config\n{}\n", json!({ "users": [user], "ssh_pwauth": false }))
    }

    pub fn meta_data(&self) -> String {
        let id = format!("imagebuilder-{}", self.hostname);
        format!("{}\n", json!({ "instance-id": id, "local-hostname": self.hostname }))
    }

    /// The seed disk: one FAT file system, without partitions.
    pub fn disk(&self) -> Result<DiskImage> {
        let mut tree = Tree::new();
        let origin: Origin = Arc::from("seed");
        for (name, text) in [("user-data", self.user_data()), ("meta-data", self.meta_data())] {
            tree.write_file(&path(name)?, text, Meta::root(0o600), &origin)?;
        }
        fat::make(
            &tree,
            &fat::Options {
                size: DISK_BYTES,
                fat_type: FatType::Fat16,
                volume_id: 0x1B5E_ED00,
                label: "CIDATA".into(),
                hidden_sectors: 0,
                latest: Mtime::default(),
            },
        )
    }

    /// Writes the disk to a file that only the owner can read.
    pub fn write(&self, path: &Path) -> Result<()> {
        let context = || format!("writing {}", path.display());
        let file = File::options().write(true).create_new(true).mode(0o600).open(path).with_context(context)?;
        raw::write(&self.disk()?, &file, &|_| {}).with_context(context)
    }
}

fn path(name: &str) -> Result<TreePath> {
    TreePath::new(name).ok_or_else(|| Error::build(format!("`{name}` is not a path")))
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
        let text = Seed { password: Some("a\"b".into()), ssh_keys: Vec::new(), ..seed() }.user_data();
        let yaml: Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        assert_eq!(yaml["users"][0]["plain_text_passwd"], "a\"b");
        assert!(yaml["users"][0].get("ssh_authorized_keys").is_none());
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

    #[test]
    fn the_disk_is_read_by_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("seed.img");
        seed().write(&file).unwrap();
        let read = std::process::Command::new("mtype").arg("-i").arg(&file).arg("::user-data").output();
        let Ok(read) = read else {
            println!("skipped: mtools is not installed");
            return;
        };
        assert_eq!(String::from_utf8(read.stdout).unwrap(), seed().user_data());
        let label = std::process::Command::new("mlabel").arg("-s").arg("-i").arg(&file).arg("::").output().unwrap();
        assert!(String::from_utf8(label.stdout).unwrap().contains("CIDATA"));
    }
}
