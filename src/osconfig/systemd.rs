//! `systemd`: unit files, drop-ins, enabling, disabling and masking.

use super::editor::file_name;
use super::unit::{ETC, Systemd, unit_name};
use super::{Editor, Setting};
use crate::api::params::Unit;
use crate::error::{Error, Result};

pub const SETTING: Setting = Setting {
    name: "systemd units",
    writes: &["/etc/systemd/system/<name>", "/etc/systemd/system/<name>.d/<drop-in>.conf"],
    initramfs: false,
    apply,
};

fn apply(editor: &mut Editor) -> Result<()> {
    let units = &editor.params.systemd;
    // All files first: units may name each other in `Also=`.
    for (name, unit) in units {
        files(editor, name, unit).map_err(|error| error.about(&["systemd", name]))?;
    }
    for (name, unit) in units {
        state(editor, name, unit).map_err(|error| error.about(&["systemd", name]))?;
    }
    Ok(())
}

fn state(editor: &mut Editor, name: &str, unit: &Unit) -> Result<()> {
    let origin = editor.origin(&["systemd", name]);
    let mut systemd = Systemd::new(editor.tree, editor.facts.epoch, &origin)?;
    match (unit.enabled, unit.masked) {
        (Some(true), true) => {
            return Err(Error::documents(format!("unit `{name}` cannot be both enabled and masked")));
        }
        (Some(true), false) => systemd.enable(name)?,
        (Some(false), _) if systemd.has(name) || !unit.masked => systemd.disable(name)?,
        _ => {}
    }
    if unit.masked {
        systemd.mask(name)?;
    }
    Ok(())
}

fn files(editor: &mut Editor, name: &str, unit: &Unit) -> Result<()> {
    unit_name(name)?;
    if let Some(content) = &unit.file_content {
        if unit.masked {
            return Err(Error::documents(format!("unit `{name}` cannot be masked and have a file")));
        }
        let origin = editor.origin(&["systemd", name, "file_content"]);
        editor.write(&format!("{ETC}/{name}"), content.as_bytes(), 0o644, &origin)?;
    }
    for (drop_in, content) in &unit.drop_ins {
        file_name(drop_in, "the drop-in")?;
        let origin = editor.origin(&["systemd", name, "dropIns", drop_in]);
        editor.write(&format!("{ETC}/{name}.d/{drop_in}.conf"), content.as_bytes(), 0o644, &origin)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture;

    #[test]
    fn writes_enables_and_masks() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        fixture::apply(&mut tree, &params).unwrap();
        let wants = "/etc/systemd/system/multi-user.target.wants/hello.service";
        assert_eq!(fixture::target(&tree, wants).unwrap(), "/etc/systemd/system/hello.service");
        assert_eq!(fixture::target(&tree, "/etc/systemd/system/ssh.socket").unwrap(), "/dev/null");
        let drop_in = fixture::text(&tree, "/etc/systemd/system/ssh.service.d/nice.conf").unwrap();
        assert_eq!(drop_in, "[Service]\nNice=-5\n");
        params.systemd.get_mut("hello.service").unwrap().masked = true;
        assert!(fixture::apply(&mut tree, &params).is_err());
    }
}
