//! `networking.systemd_nic_*_policy`: how udev names network adapters (systemd.link(5)).

use super::editor::{HEADER, one_line};
use super::{Editor, Setting};
use crate::error::{Error, Result};

/// The same name as systemd's own file, which it replaces. Its udev hook copies it to the initramfs.
const FILE: &str = "/etc/systemd/network/99-default.link";
/// Upstream's and systemd's defaults, for the one that is not declared.
const NAMES: &str = "keep kernel database onboard slot path";
const ALTERNATIVES: &str = "database onboard slot path";

pub const SETTING: Setting = Setting { name: "adapter names", writes: &[FILE], initramfs: true, apply };

fn apply(editor: &mut Editor) -> Result<()> {
    let networking = &editor.params.networking;
    let (names, alternatives) =
        (&networking.systemd_nic_names_policy, &networking.systemd_nic_alternative_names_policy);
    if names.is_none() && alternatives.is_none() {
        return Ok(());
    }
    let names = policy(names.as_deref().unwrap_or(NAMES))
        .map_err(|error| error.about(&["networking", "systemd_nic_names_policy"]))?;
    let alternatives = policy(alternatives.as_deref().unwrap_or(ALTERNATIVES))
        .map_err(|error| error.about(&["networking", "systemd_nic_alternative_names_policy"]))?;
    let text = format!(
        "{HEADER}[Match]\nOriginalName=*\n\n\
         [Link]\nNamePolicy={names}\nAlternativeNamesPolicy={alternatives}\nMACAddressPolicy=persistent\n"
    );
    let origin = editor.origin(&["networking", "systemd_nic_names_policy"]);
    editor.write(FILE, text, 0o644, &origin)
}

fn policy(text: &str) -> Result<&str> {
    one_line(text, "a policy for adapter names")?;
    let known = ["kernel", "database", "onboard", "slot", "path", "mac", "keep"];
    match text.split_whitespace().find(|word| !known.contains(word)) {
        None => Ok(text),
        Some(word) => Err(Error::documents(format!("`{word}` is not a policy for adapter names"))
            .hint(format!("systemd.link(5) knows {}", known.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn writes_the_link_file_when_declared() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        fixture::apply(&mut tree, &params).unwrap();
        assert_eq!(fixture::text(&tree, FILE), None);
        params.networking.systemd_nic_names_policy = Some("kernel database".into());
        fixture::apply(&mut tree, &params).unwrap();
        assert!(fixture::text(&tree, FILE).unwrap().contains("\nNamePolicy=kernel database\n"));
        params.networking.systemd_nic_names_policy = Some("luck".into());
        assert!(fixture::apply(&mut tree, &params).is_err());
    }
}
