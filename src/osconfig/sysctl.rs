//! `kernel.sysctl`: one line a key, in a file that sorts behind those of packages (sysctl.d(5)).

use super::editor::{HEADER, one_line};
use super::{Editor, Setting};
use crate::error::{Error, Result};

pub const FILE: &str = "/etc/sysctl.d/99-imagebuilder.conf";
pub const SETTING: Setting = Setting { name: "sysctl", writes: &[FILE], initramfs: false, apply };

fn apply(editor: &mut Editor) -> Result<()> {
    let params = editor.params;
    if params.kernel.sysctl.is_empty() {
        return Ok(());
    }
    let mut text = HEADER.to_owned();
    for (key, value) in &params.kernel.sysctl {
        text += &line(key, value.as_str()).map_err(|error| error.about(&["kernel", "sysctl", key]))?;
    }
    let origin = editor.origin(&["kernel", "sysctl"]);
    editor.write(FILE, text, 0o644, &origin)
}

/// `key = value`, checked: a key is a path below /proc/sys with dots or slashes.
pub fn line(key: &str, value: &str) -> Result<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._/-*:@".contains(c);
    if key.is_empty() || !key.chars().all(fine) || key.starts_with('/') || key.contains("..") {
        return Err(Error::documents(format!("`{}` is not the name of a sysctl", key.escape_debug()))
            .hint("expected something like `net.ipv4.ip_forward`"));
    }
    Ok(format!("{key} = {}\n", one_line(value, &format!("the value of sysctl `{key}`"))?))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn writes_one_line_a_key() {
        let mut tree = fixture::rootfs();
        fixture::apply(&mut tree, &fixture::params()).unwrap();
        let text = fixture::text(&tree, FILE).unwrap();
        assert_eq!(text, format!("{HEADER}kernel.pid_max = 4194303\nnet.ipv4.tcp_rmem = 4096 87380 6291456\n"));
    }

    #[test]
    fn refuses_what_would_leave_its_line() {
        assert!(line("kernel.x", "1\nkernel.y = 2").is_err());
        assert!(line("../../etc/passwd", "1").is_err());
        assert!(line("", "1").is_err());
        assert_eq!(line("net/ipv4/conf/eth0.100/rp_filter", "2").unwrap(), "net/ipv4/conf/eth0.100/rp_filter = 2\n");
    }
}
