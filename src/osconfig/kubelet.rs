//! `kubernetes.kubelet.extra_systemd_args`: more arguments behind the kubelet's command (upstream's way: a drop-in that
//! repeats the command of the packages, because an environment file of theirs would override one of ours).

use super::editor::{HEADER, needs_package, one_word};
use super::unit::Systemd;
use super::{Editor, Setting};
use crate::error::{Error, Result};

const UNIT: &str = "kubelet.service";
pub const FILE: &str = "/etc/systemd/system/kubelet.service.d/90-imagebuilder.conf";
pub const SETTING: Setting = Setting { name: "kubelet", writes: &[FILE], initramfs: false, apply };

fn apply(editor: &mut Editor) -> Result<()> {
    let arguments = &editor.params.kubernetes.kubelet.extra_systemd_args;
    if arguments.is_empty() {
        return Ok(());
    }
    let origin = editor.origin(&["kubernetes", "kubelet", "extra_systemd_args"]);
    // Our own drop-in of an earlier run must not count as the packages' command.
    editor.remove(FILE)?;
    let mut systemd = Systemd::new(editor.tree, editor.facts.epoch, &origin)?;
    if !systemd.has(UNIT) {
        let error = needs_package("the kubelet gets extra arguments", "kubelet");
        return Err(error.about(&["kubernetes", "kubelet", "extra_systemd_args"]));
    }
    let Some(mut command) = systemd.last_value(UNIT, "Service", "ExecStart")? else {
        return Err(Error::build("kubelet.service of the image has no `ExecStart`"));
    };
    for (name, value) in arguments {
        let what = "an argument of the kubelet";
        let at = |error: Error| error.about(&["kubernetes", "kubelet", "extra_systemd_args", name]);
        let (name, value) = (one_word(name, what).map_err(at)?, one_word(value.as_str(), what).map_err(at)?);
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') || value.contains(['"', '\'', '\\', ';']) {
            let error = Error::documents(format!("`{name}` of `extra_systemd_args` cannot be put into a unit file"));
            return Err(error.about(&["kubernetes", "kubelet", "extra_systemd_args", name]));
        }
        // `%` and `$` mean something to systemd (systemd.service(5)).
        command += &format!(" --{name}={}", value.replace('%', "%%").replace('$', "$$"));
    }
    systemd.enable(UNIT)?;
    editor.write(FILE, format!("{HEADER}[Service]\nExecStart=\nExecStart={command}\n"), 0o644, &origin)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::api::scalar::Scalar;

    #[test]
    fn appends_to_the_command_in_force() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        params.kubernetes.kubelet.extra_systemd_args.insert("max-pods".into(), Scalar::from("250"));
        assert!(fixture::apply(&mut tree, &params).unwrap_err().hints()[0].contains("kubelet"));
        let unit = "[Service]\nExecStart=/usr/bin/kubelet\n[Install]\nWantedBy=multi-user.target\n";
        fixture::file(&mut tree, "/usr/lib/systemd/system/kubelet.service", unit);
        let drop_in = "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet $KUBELET_CONFIG_ARGS\n";
        fixture::file(&mut tree, "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", drop_in);
        fixture::apply(&mut tree, &params).unwrap();
        fixture::apply(&mut tree, &params).unwrap();
        let text = fixture::text(&tree, FILE).unwrap();
        assert!(text.ends_with("\nExecStart=\nExecStart=/usr/bin/kubelet $KUBELET_CONFIG_ARGS --max-pods=250\n"));
    }
}
