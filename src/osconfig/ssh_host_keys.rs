//! SSH host keys made on first boot: the image holds none (seal), cloud-init makes them where it finds a data source,
//! and this unit makes them everywhere else.

use super::unit::Systemd;
use super::{Editor, Setting};
use crate::error::Result;

/// cloud-init orders itself before a unit of this name, so that its keys come first and ours only when none are there.
/// Debian 13's own unit of this name is overruled: it waits for `ConditionFirstBoot`, which an empty machine-id (seal) is
/// not, and would leave a node without cloud-init without keys.
const UNIT: &str = "sshd-keygen.service";
pub const FILE: &str = "/etc/systemd/system/sshd-keygen.service";
const TEXT: &str = "\
# Written by imagebuilder: an image holds no host keys, every node makes its own.
[Unit]
Description=Make missing SSH host keys
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key
Before=ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=ssh.service
";

pub const SETTING: Setting = Setting { name: "ssh host keys", writes: &[FILE], initramfs: false, apply };

fn apply(editor: &mut Editor) -> Result<()> {
    if !editor.exists("/usr/sbin/sshd") {
        return Ok(());
    }
    let origin = editor.origin(&[]);
    editor.write(FILE, TEXT, 0o644, &origin)?;
    let mut systemd = Systemd::new(editor.tree, editor.facts.epoch, &origin)?;
    systemd.enable(UNIT)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn the_unit_hangs_on_sshd() {
        let mut tree = fixture::rootfs();
        fixture::apply(&mut tree, &fixture::params()).unwrap();
        let link = "/etc/systemd/system/ssh.service.wants/sshd-keygen.service";
        assert_eq!(fixture::target(&tree, link).unwrap(), FILE);
        assert!(fixture::text(&tree, FILE).unwrap().contains("ssh-keygen -A"));
    }

    #[test]
    fn a_unit_that_waits_for_the_first_boot_is_overruled() {
        let mut tree = fixture::rootfs();
        let theirs = "/usr/lib/systemd/system/sshd-keygen.service";
        fixture::file(&mut tree, theirs, "[Unit]\nConditionFirstBoot=yes\n[Install]\nWantedBy=ssh.service\n");
        fixture::link(&mut tree, "/etc/systemd/system/ssh.service.wants/sshd-keygen.service", theirs);
        fixture::apply(&mut tree, &fixture::params()).unwrap();
        assert!(!fixture::text(&tree, FILE).unwrap().contains("ConditionFirstBoot"));
    }
}
