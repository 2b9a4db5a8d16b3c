//! OS configuration: the values of the documents as files of the image, by native edits of the Tree.
//!
//! Owns: the ordered table of settings ([`SETTINGS`]); [`apply`], which runs all of them, and [`initramfs_inputs`],
//! which runs those that must be in place before the initramfs is made. No process is started and the host is not
//! looked at. Every entry that a setting writes carries the document value it came from as its origin. Applying
//! twice gives the same Tree as applying once.
//!
//! A new setting is one file here and one line in the table; `docs/reference/osconfig.md` lists what each writes.
//! May use: tree, api, error.

pub mod account;
pub mod editor;
pub mod unit;

mod apt_pins;
mod apt_sources;
mod cloud_init;
mod containerd;
mod files;
mod grow_root;
mod hostname;
mod initramfs;
mod kubelet;
mod limits;
mod locale;
mod modules;
mod network;
mod nic_names;
mod ssh_host_keys;
mod sysctl;
mod systemd;
mod users;

#[cfg(test)]
pub(crate) mod fixture;

use std::collections::BTreeMap;

use crate::api::Params;
use crate::api::params::files::FileState;
use crate::error::{Context, Result};
use crate::tree::{Mtime, Tree, TreePath};

pub use editor::Editor;

/// What the settings need to know beside the documents' values.
pub struct Facts<'a> {
    /// Name of the image; the host name when the documents give none.
    pub image: &'a str,
    /// `SOURCE_DATE_EPOCH` of the build: modification time of everything written, day of password changes.
    pub epoch: Mtime,
    /// Where a value stands (`file:line`), by its path below `params` (`["kernel", "sysctl", "vm.swappiness"]`).
    pub origins: &'a dyn Fn(&[&str]) -> Option<String>,
    /// The bytes of keyrings that a repository names by an absolute path, by that path.
    pub keyrings: &'a BTreeMap<String, Vec<u8>>,
}

/// One setting: what it is called, what it writes (for the reference page), and the edit itself.
pub struct Setting {
    pub name: &'static str,
    pub writes: &'static [&'static str],
    /// Must be in place before the initramfs is made.
    pub initramfs: bool,
    pub apply: fn(&mut Editor) -> Result<()>,
}

/// In the order they are applied: accounts before files (owners by name), files before units (a unit may be a file).
pub const SETTINGS: &[Setting] = &[
    initramfs::SETTING,
    modules::SETTING,
    nic_names::SETTING,
    sysctl::SETTING,
    limits::SETTING,
    locale::SETTING,
    hostname::SETTING,
    network::SETTING,
    apt_sources::SETTING,
    apt_pins::SETTING,
    containerd::SETTING,
    kubelet::SETTING,
    cloud_init::SETTING,
    grow_root::SETTING,
    ssh_host_keys::SETTING,
    users::SETTING,
    files::SETTING,
    systemd::SETTING,
];

/// Applies every setting.
pub fn apply(tree: &mut Tree, params: &Params, facts: &Facts) -> Result<()> {
    run(tree, params, facts, |_| true)
}

/// Applies the settings that the initramfs depends on.
pub fn initramfs_inputs(tree: &mut Tree, params: &Params, facts: &Facts) -> Result<()> {
    run(tree, params, facts, |setting| setting.initramfs)
}

/// The paths that the documents themselves ask for: what the seal leaves alone.
pub fn declared_paths(params: &Params) -> Vec<TreePath> {
    let there = params.files.iter().filter(|(_, file)| file.state != FileState::Absent);
    there.filter_map(|(path, _)| TreePath::new(path)).collect()
}

fn run(tree: &mut Tree, params: &Params, facts: &Facts, which: impl Fn(&Setting) -> bool) -> Result<()> {
    for setting in SETTINGS.iter().filter(|setting| which(setting)) {
        crate::interrupt::check()?;
        let mut editor = Editor::new(tree, params, facts);
        (setting.apply)(&mut editor).with_context(|| format!("configuring {}", setting.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_names_every_setting_and_every_file() {
        let page = include_str!("../../docs/reference/osconfig.md");
        for setting in SETTINGS {
            assert!(page.contains(&format!("`{}`", setting.name)), "{} is missing", setting.name);
            for file in setting.writes {
                assert!(page.contains(&format!("`{file}`")), "{file} is missing");
            }
        }
    }

    #[test]
    fn applying_twice_is_applying_once() {
        let mut tree = fixture::rootfs();
        let params = fixture::params();
        fixture::apply(&mut tree, &params).unwrap();
        let once = tree.digest();
        fixture::apply(&mut tree, &params).unwrap();
        assert_eq!(tree.digest(), once);
    }

    #[test]
    fn initramfs_inputs_are_a_part_of_the_whole() {
        let params = fixture::params();
        let (mut early, mut whole) = (fixture::rootfs(), fixture::rootfs());
        fixture::with_facts(|facts| initramfs_inputs(&mut early, &params, facts)).unwrap();
        assert!(fixture::text(&early, "/etc/modprobe.d/imagebuilder-bonding.conf").is_some());
        assert!(fixture::text(&early, "/etc/sysctl.d/99-imagebuilder.conf").is_none());
        fixture::apply(&mut early, &params).unwrap();
        fixture::apply(&mut whole, &params).unwrap();
        assert_eq!(early.digest(), whole.digest());
    }

    #[test]
    fn written_entries_remember_their_value() {
        let mut tree = fixture::rootfs();
        fixture::apply(&mut tree, &fixture::params()).unwrap();
        let origin = |path| tree.get(&crate::tree::TreePath::literal(path)).unwrap().origin.to_string();
        assert_eq!(origin("etc/sysctl.d/99-imagebuilder.conf"), "/kernel/sysctl");
        assert_eq!(origin("etc/modules-load.d/99-bonding.conf"), "profile.yaml:7");
        assert_eq!(origin("etc/sudoers.d/90-imagebuilder-ops"), "/users/ops/sudo");
    }
}
