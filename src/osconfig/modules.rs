//! `kernel.modules`: load at boot (modules-load.d(5)), blacklist and options (modprobe.d(5)); one file a module.

use super::editor::{one_line, one_word};
use super::{Editor, Setting};
use crate::api::params::kernel::Module;
use crate::error::{Error, Result};

pub const SETTING: Setting = Setting {
    name: "kernel modules",
    writes: &["/etc/modules-load.d/99-<name>.conf", "/etc/modprobe.d/imagebuilder-<name>.conf"],
    initramfs: true,
    apply,
};

/// Whether a module is to be loaded at boot: what the document says, else yes unless it is blacklisted.
pub fn loads(module: &Module) -> bool {
    module.load.unwrap_or(!module.blacklist)
}

pub fn load_file(name: &str) -> String {
    format!("/etc/modules-load.d/99-{name}.conf")
}

pub fn modprobe_file(name: &str) -> String {
    format!("/etc/modprobe.d/imagebuilder-{name}.conf")
}

fn apply(editor: &mut Editor) -> Result<()> {
    for (name, module) in &editor.params.kernel.modules {
        let at = |error: Error| error.about(&["kernel", "modules", name]);
        let name = module_name(name).map_err(at)?;
        let origin = editor.origin(&["kernel", "modules", name]);
        if loads(module) {
            editor.write(&load_file(name), format!("{name}\n"), 0o644, &origin)?;
        }
        if let Some(text) = modprobe_lines(name, module).map_err(at)? {
            editor.write(&modprobe_file(name), text, 0o644, &origin)?;
        }
    }
    Ok(())
}

fn modprobe_lines(name: &str, module: &Module) -> Result<Option<String>> {
    let mut text = String::new();
    if module.blacklist {
        text += &format!("blacklist {name}\n");
    }
    if !module.options.is_empty() {
        text += &format!("options {name}");
        for (key, value) in &module.options {
            let what = format!("option `{}` of module `{name}`", key.escape_debug());
            let (key, value) = (one_word(key, &what)?, one_line(value.as_str(), &what)?);
            if key.contains(['=', '"', '#']) || value.contains(['"', '\\']) {
                return Err(Error::documents(format!("{what} holds a character that modprobe.d(5) cannot express")));
            }
            // A value with blanks is quoted for the kernel's own parser (modprobe passes quotes on).
            text +=
                &if value.contains([' ', '\t']) { format!(" {key}=\"{value}\"") } else { format!(" {key}={value}") };
        }
        text.push('\n');
    }
    Ok((!text.is_empty()).then_some(text))
}

/// The kernel takes letters, digits, `_` and `-`.
pub fn module_name(name: &str) -> Result<&str> {
    if name.is_empty() || name.len() > 64 || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return Err(Error::documents(format!("`{}` is not the name of a kernel module", name.escape_debug())));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::api::scalar::Scalar;

    #[test]
    fn loads_blacklists_and_sets_options() {
        let mut tree = fixture::rootfs();
        fixture::apply(&mut tree, &fixture::params()).unwrap();
        assert_eq!(fixture::text(&tree, "/etc/modules-load.d/99-bonding.conf").unwrap(), "bonding\n");
        let options = fixture::text(&tree, "/etc/modprobe.d/imagebuilder-bonding.conf").unwrap();
        assert_eq!(options, "options bonding max_bonds=0 mode=4\n");
        assert_eq!(fixture::text(&tree, "/etc/modules-load.d/99-krbd.conf"), None);
        assert_eq!(fixture::text(&tree, "/etc/modprobe.d/imagebuilder-krbd.conf").unwrap(), "blacklist krbd\n");
    }

    #[test]
    fn refuses_strange_names_and_values() {
        assert!(module_name("a b").is_err() && module_name("../x").is_err() && module_name("").is_err());
        let mut module = Module::default();
        module.options.insert("x".into(), Scalar::from("1\ninstall y /bin/sh"));
        assert!(modprobe_lines("m", &module).is_err());
    }
}
