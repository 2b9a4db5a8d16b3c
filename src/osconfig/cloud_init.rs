//! `cloudInit`: where cloud-init looks for its data, and configuration baked into the image.

use super::editor::{HEADER, exists, file_name, needs_package};
use super::{Editor, Setting};
use crate::error::{Error, Result};
use crate::tree::Tree;

/// Sorts behind Debian's `90_dpkg.cfg`, which holds the list of the package.
pub const DATASOURCES: &str = "/etc/cloud/cloud.cfg.d/91_imagebuilder_datasources.cfg";
pub const DS_IDENTIFY: &str = "/etc/cloud/ds-identify.cfg";

pub const SETTING: Setting = Setting {
    name: "cloud-init",
    writes: &[DATASOURCES, DS_IDENTIFY, "/etc/cloud/cloud.cfg.d/<name>.cfg"],
    initramfs: false,
    apply,
};

pub fn present(tree: &Tree) -> bool {
    exists(tree, "/usr/bin/cloud-init")
}

fn apply(editor: &mut Editor) -> Result<()> {
    let cloud_init = &editor.params.cloud_init;
    if !present(editor.tree) {
        let wanted = !cloud_init.config.is_empty();
        return if wanted {
            Err(needs_package("`cloudInit.config` is set", "cloud-init").about(&["cloudInit", "config"]))
        } else {
            Ok(())
        };
    }
    let mut names: Vec<&str> = Vec::new();
    for name in &cloud_init.datasources {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Error::documents(format!("`{}` is not a data source of cloud-init", name.escape_debug()))
                .hint("expected names such as `NoCloud`, `ConfigDrive`")
                .about(&["cloudInit", "datasources"]));
        }
        names.push(name);
    }
    // The last resort: a node without any seed still gets its network, host keys and grown root.
    if !names.contains(&"None") {
        names.push("None");
    }
    let origin = editor.origin(&["cloudInit", "datasources"]);
    editor.write(DATASOURCES, format!("{HEADER}datasource_list: [ {} ]\n", names.join(", ")), 0o644, &origin)?;
    // Without this cloud-init stays off where ds-identify sees no seed, and nothing configures the network.
    let policy = "policy: search,found=all,maybe=all,notfound=enabled\n";
    editor.write(DS_IDENTIFY, format!("{HEADER}{policy}"), 0o644, &origin)?;
    for (name, text) in &cloud_init.config {
        let origin = editor.origin(&["cloudInit", "config", name]);
        let fit = file_name(name, "the cloud-init configuration");
        let fit = fit.map_err(|error| error.about(&["cloudInit", "config", name]))?;
        let file = format!("/etc/cloud/cloud.cfg.d/{fit}.cfg");
        editor.write(&file, text.as_bytes(), 0o644, &origin)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn lists_data_sources_with_a_last_resort() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        params.cloud_init.config.insert("99-site".into(), "ssh_pwauth: false\n".into());
        fixture::apply(&mut tree, &params).unwrap();
        assert!(
            fixture::text(&tree, DATASOURCES).unwrap().ends_with("datasource_list: [ NoCloud, ConfigDrive, None ]\n")
        );
        assert!(fixture::text(&tree, DS_IDENTIFY).unwrap().contains("notfound=enabled"));
        assert_eq!(fixture::text(&tree, "/etc/cloud/cloud.cfg.d/99-site.cfg").unwrap(), "ssh_pwauth: false\n");
        params.cloud_init.datasources.push("../x".into());
        assert!(fixture::apply(&mut tree, &params).is_err());
    }
}
