//! Maintainer scripts with one long command each that nothing in the layer waits for: the command is put off to the
//! [`workers`](super::workers).
//!
//! Owns: which commands, and [`edit`], which leaves out what does nothing as well ([`neutral`]). Only the text of the
//! command itself is looked for, once and as a statement of its own; a script that has it in another form runs as it is.
//! dpkg sees the edited script for the time of the job.

use super::neutral;
use crate::error::Result;
use crate::package::root::Root;
use crate::tree::TreePath;

/// Puts a command off, given as its words, which go into a file: there may be more of them than a question holds.
pub(super) const LATER: &str = r#"#!/bin/sh
answer=plain
list="later-$$"
printf '%s\n' "$@" >"/run/imagebuilder-helpers/${list}" &&
	printf '%s\037' 2 later "${list}" >/run/imagebuilder-helpers/ask &&
	read -r answer </run/imagebuilder-helpers/answer
[ "${answer}" = ok ] && exit 0
exec "$@"
"#;
/// Where [`LATER`] is.
pub(super) const PROGRAM: &str = "later";

const INFO: &str = "var/lib/dpkg/info";
/// Hooks of kernel packages that do not look at the list of modules, or are laid over.
const KERNEL_HOOKS: [&[u8]; 4] = [b"apt-auto-removal", b"initramfs-tools", b"unattended-upgrades", b"zz-update-grub"];

/// A script of the target in another form.
pub(super) struct Edited {
    pub path: TreePath,
    pub text: String,
    /// Whether it puts a command off.
    pub later: bool,
}

/// Edited scripts by their paths in the target.
pub(super) fn edit(root: &Root) -> Result<Vec<Edited>> {
    let folder = TreePath::literal(INFO);
    let mut edited = Vec::new();
    for name in root.names(&folder)? {
        let Ok(file) = std::str::from_utf8(&name) else { continue };
        let package = file.strip_suffix(".postinst");
        if package.is_none() && !file.ends_with(".config") {
            continue;
        }
        let path = folder.join(&name);
        let original = root.read_text(&path)?;
        let mut text = original.clone();
        let command = package.and_then(command);
        let later = command.and_then(|command| put_off(&text, &command)).map(|later| text = later).is_some();
        let looped = neutral::loops(file, &text).map(|quick| text = quick).is_some();
        let guarded = package.and_then(|_| neutral::guard(&text)).map(|guarded| text = guarded).is_some();
        if later || looped || guarded {
            edited.push(Edited { path, text, later });
        }
    }
    Ok(edited)
}

/// The command of a package's `postinst`.
fn command(package: &str) -> Option<String> {
    if package == "udev" {
        return Some("systemd-hwdb --usr update".to_owned());
    }
    if package.starts_with("linux-image-") {
        return Some("depmod $version".to_owned());
    }
    let version = package.strip_prefix("python3.")?;
    let minor = version.strip_suffix("-minimal").unwrap_or(version);
    let python = format!("python3.{minor}");
    let is_version = !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit());
    is_version.then(|| format!("/usr/bin/{python} -E -S /usr/lib/{python}/py_compile.py $files"))
}

fn put_off(text: &str, command: &str) -> Option<String> {
    let mut found = 0;
    let lines = text.split_inclusive('\n').map(|line| {
        let rest = line.trim_start().strip_prefix(command).map(str::trim_end);
        if !matches!(rest, Some("" | " || true")) {
            return line.to_owned();
        }
        found += 1;
        line.replacen(command, &format!("/{}/{PROGRAM} {command}", super::FOLDER), 1)
    });
    let edited = lines.collect();
    (found == 1 && text.matches(command).count() == 1).then_some(edited)
}

/// Whether something might look at the list of modules before the layer is finished.
pub(super) fn modules_are_read(root: &Root) -> Result<bool> {
    let hooks = root.names(&TreePath::literal("etc/kernel/postinst.d"))?;
    // run-parts(8) passes over other names, such as those of configuration files that wait for their package.
    let runs = |hook: &[u8]| hook.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte));
    Ok(hooks.iter().any(|hook| runs(hook) && !KERNEL_HOOKS.contains(&hook.as_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_of_their_own_are_put_off() {
        let compile = command("python3.11-minimal").unwrap();
        assert_eq!(command("python3.11").as_ref(), Some(&compile));
        assert!(compile.starts_with("/usr/bin/python3.11 -E -S /usr/lib/python3.11/py_compile.py"));
        for other in ["python3", "python3.x", "python3.11-doc", "bash", "linux-headers-6"] {
            assert_eq!(command(other), None);
        }
        let edited = put_off(&format!("#!/bin/sh\nif x; then\n\t{compile}\n\t-O {compile}x\nfi\n"), &compile);
        assert_eq!(edited, None);
        let edited = put_off(&format!("#!/bin/sh\nif x; then\n\t{compile}\nfi\n"), &compile).unwrap();
        assert_eq!(edited, format!("#!/bin/sh\nif x; then\n\t/run/imagebuilder-helpers/later {compile}\nfi\n"));
        let hwdb = command("udev").unwrap();
        assert!(
            put_off(&format!("  {hwdb} || true\n"), &hwdb).unwrap().contains("later systemd-hwdb --usr update || true")
        );
        for other in ["x && systemd-hwdb --usr update\n", "systemd-hwdb --usr update --strict\n", "", "systemd-hwdb"] {
            assert_eq!(put_off(other, &hwdb), None);
        }
    }

    #[test]
    fn known_hooks_do_not_read_modules() {
        let root = tempfile::tempdir().unwrap();
        let hooks = root.path().join("etc/kernel/postinst.d");
        std::fs::create_dir_all(&hooks).unwrap();
        std::fs::write(hooks.join("initramfs-tools"), "").unwrap();
        std::fs::write(hooks.join("dkms.dpkg-new"), "").unwrap();
        assert!(!modules_are_read(&Root::open(root.path()).unwrap()).unwrap());
        std::fs::write(hooks.join("dkms"), "").unwrap();
        assert!(modules_are_read(&Root::open(root.path()).unwrap()).unwrap());
    }
}
