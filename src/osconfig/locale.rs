//! Locale `C.UTF-8` and time zone UTC, as every node starts; `files` may say otherwise.

use super::{Editor, Setting};
use crate::error::Result;

const LOCALE: &str = "/etc/default/locale";
pub const SETTING: Setting = Setting {
    name: "locale and time zone",
    writes: &[LOCALE, "/etc/localtime", "/etc/timezone"],
    initramfs: false,
    apply,
};

fn apply(editor: &mut Editor) -> Result<()> {
    let origin = editor.origin(&[]);
    // From Debian 13 on the file is a link to /etc/locale.conf: write where it leads.
    let at = editor.tree.resolve(&super::editor::tree_path(LOCALE)?)?;
    editor.write(&at.to_string(), "LANG=C.UTF-8\n", 0o644, &origin)?;
    // Without the zone data glibc and systemd mean UTC anyway, and a link that points nowhere would be a lie.
    if editor.exists("/usr/share/zoneinfo/Etc/UTC") {
        editor.link("/etc/localtime", "/usr/share/zoneinfo/Etc/UTC", &origin)?;
        if editor.exists("/etc/timezone") {
            editor.write("/etc/timezone", "Etc/UTC\n", 0o644, &origin)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn follows_the_link_of_newer_releases() {
        let mut tree = fixture::rootfs();
        fixture::apply(&mut tree, &fixture::params()).unwrap();
        assert_eq!(fixture::text(&tree, LOCALE).unwrap(), "LANG=C.UTF-8\n");
        let mut tree = fixture::rootfs();
        fixture::link(&mut tree, LOCALE, "../locale.conf");
        fixture::apply(&mut tree, &fixture::params()).unwrap();
        assert_eq!(fixture::text(&tree, "/etc/locale.conf").unwrap(), "LANG=C.UTF-8\n");
        assert!(fixture::target(&tree, LOCALE).is_some());
    }
}
