//! `networking.renderer`: what cloud-init writes the network configuration for, and the services behind it.
//!
//! Which addresses a node has is the data source's matter; without one cloud-init asks for DHCP on the first adapter.

use super::editor::{HEADER, needs_package};
use super::unit::Systemd;
use super::{Editor, Setting};
use crate::api::params::networking::Renderer;
use crate::error::Result;

/// Upstream's file name.
pub const RENDERER: &str = "/etc/cloud/cloud.cfg.d/90_override_renderer.cfg";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Both renderers end in systemd-networkd (netplan's default back end on a server).
const NETWORKD: &str = "systemd-networkd.service";
const RESOLVED: &str = "systemd-resolved.service";

pub const SETTING: Setting =
    Setting { name: "network renderer", writes: &[RENDERER, RESOLV_CONF], initramfs: false, apply };

fn apply(editor: &mut Editor) -> Result<()> {
    let origin = editor.origin(&["networking", "renderer"]);
    let netplan = editor.params.networking.renderer == Renderer::Netplan;
    if super::cloud_init::present(editor.tree) {
        if netplan && !editor.exists("/usr/sbin/netplan") {
            return Err(needs_package("the network renderer is `netplan`", "netplan.io"));
        }
        let first = if netplan { "netplan" } else { "networkd" };
        let text = format!("{HEADER}system_info:\n  network:\n    renderers: [{first}, eni, sysconfig]\n");
        editor.write(RENDERER, text, 0o644, &origin)?;
    }
    let mut systemd = Systemd::new(editor.tree, editor.facts.epoch, &origin)?;
    if systemd.has(NETWORKD) {
        systemd.enable(NETWORKD)?;
    }
    if systemd.has(RESOLVED) {
        systemd.enable(RESOLVED)?;
        editor.link(RESOLV_CONF, "../run/systemd/resolve/stub-resolv.conf", &origin)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn both_renderers_enable_networkd() {
        for renderer in [Renderer::Netplan, Renderer::SystemdNetworkd] {
            let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
            params.networking.renderer = renderer;
            fixture::apply(&mut tree, &params).unwrap();
            let name = if renderer == Renderer::Netplan { "[netplan, " } else { "[networkd, " };
            assert!(fixture::text(&tree, RENDERER).unwrap().contains(name));
            let wants = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service";
            assert_eq!(fixture::target(&tree, wants).unwrap(), "/usr/lib/systemd/system/systemd-networkd.service");
            assert_eq!(fixture::target(&tree, RESOLV_CONF).unwrap(), "../run/systemd/resolve/stub-resolv.conf");
        }
    }

    #[test]
    fn netplan_must_be_there() {
        let mut tree = fixture::rootfs();
        fixture::remove(&mut tree, "/usr/sbin/netplan");
        assert!(fixture::apply(&mut tree, &fixture::params()).unwrap_err().hints()[0].contains("netplan.io"));
    }
}
