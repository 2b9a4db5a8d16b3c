//! `storage.growRoot`: cloud-init grows the root partition and its file system into the disk on first boot.

use super::cloud_init::present;
use super::editor::{HEADER, needs_package};
use super::{Editor, Setting};
use crate::error::Result;

pub const FILE: &str = "/etc/cloud/cloud.cfg.d/92_imagebuilder_growroot.cfg";
pub const SETTING: Setting = Setting { name: "grow root", writes: &[FILE], initramfs: false, apply };

fn apply(editor: &mut Editor) -> Result<()> {
    let wanted = editor.params.storage.grow_root;
    if !present(editor.tree) {
        return Ok(());
    }
    let text = if wanted {
        for (program, package) in [("/usr/bin/growpart", "cloud-guest-utils"), ("/usr/sbin/sfdisk", "fdisk")] {
            if !editor.exists(program) {
                return Err(needs_package("`storage.growRoot` is on", package));
            }
        }
        "growpart:\n  mode: auto\n  devices: [/]\n  ignore_growroot_disabled: false\nresize_rootfs: true\n"
    } else {
        "growpart:\n  mode: \"off\"\nresize_rootfs: false\n"
    };
    let origin = editor.origin(&["storage", "growRoot"]);
    editor.write(FILE, format!("{HEADER}{text}"), 0o644, &origin)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn needs_growpart_when_on() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        fixture::apply(&mut tree, &params).unwrap();
        assert!(fixture::text(&tree, FILE).unwrap().contains("mode: auto"));
        fixture::remove(&mut tree, "/usr/bin/growpart");
        assert!(fixture::apply(&mut tree, &params).unwrap_err().hints()[0].contains("cloud-guest-utils"));
        params.storage.grow_root = false;
        fixture::apply(&mut tree, &params).unwrap();
        assert!(fixture::text(&tree, FILE).unwrap().contains("mode: \"off\""));
    }
}
