//! `kubernetes.containerd`: the container runtime as a kubelet expects it: systemd's cgroups, the kernel modules and
//! sysctls that Kubernetes' "container runtimes" page asks for, and the service enabled.

use super::editor::{HEADER, needs_package};
use super::unit::Systemd;
use super::{Editor, Setting, sysctl};
use crate::error::{Error, Result};

pub const CONFIG: &str = "/etc/containerd/config.toml";
pub const MODULES_FILE: &str = "/etc/modules-load.d/98-imagebuilder-containerd.conf";
/// Sorts before the declared sysctls, which therefore win.
pub const SYSCTL_FILE: &str = "/etc/sysctl.d/98-imagebuilder-containerd.conf";
pub const MODULES: [&str; 2] = ["br_netfilter", "overlay"];
pub const SYSCTLS: [(&str, &str); 3] = [
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.ipv4.ip_forward", "1"),
];

pub const SETTING: Setting =
    Setting { name: "containerd", writes: &[CONFIG, MODULES_FILE, SYSCTL_FILE], initramfs: false, apply };

fn apply(editor: &mut Editor) -> Result<()> {
    let containerd = &editor.params.kubernetes.containerd;
    if !containerd.enabled {
        return Ok(());
    }
    let origin = editor.origin(&["kubernetes", "containerd"]);
    let config = match &containerd.config {
        Some(config) => config.clone(),
        None => config(major_version(editor)?, containerd.sandbox_image.as_deref())?,
    };
    editor.write(CONFIG, config, 0o644, &origin)?;
    let modules: String = MODULES.iter().map(|name| format!("{name}\n")).collect();
    editor.write(MODULES_FILE, modules, 0o644, &origin)?;
    let mut text = HEADER.to_owned();
    for (key, value) in SYSCTLS {
        text += &sysctl::line(key, value)?;
    }
    editor.write(SYSCTL_FILE, text, 0o644, &origin)?;
    let mut systemd = Systemd::new(editor.tree, editor.facts.epoch, &origin)?;
    if !systemd.has("containerd.service") {
        return Err(needs_package("`kubernetes.containerd` is enabled", "containerd"));
    }
    systemd.enable("containerd.service")
}

/// From the dpkg status of the image: Debian and Ubuntu call the package `containerd`, Docker `containerd.io`.
fn major_version(editor: &Editor) -> Result<u32> {
    let status = editor.read("/var/lib/dpkg/status")?.unwrap_or_default();
    for stanza in status.split("\n\n") {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if matches!(field("Package:"), Some("containerd" | "containerd.io")) {
            let version = field("Version:").unwrap_or_default();
            let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
            let digits: String = upstream.chars().take_while(char::is_ascii_digit).collect();
            return digits.parse().map_err(|_| {
                Error::build(format!("`{version}` of package containerd is no version this program knows"))
            });
        }
    }
    Err(needs_package("`kubernetes.containerd` is enabled", "containerd"))
}

/// Version 2 of the format for containerd 1, version 3 from containerd 2 on (containerd-config.toml(5)): the names of
/// the plugins differ.
fn config(major: u32, sandbox_image: Option<&str>) -> Result<String> {
    let quote = |text: &str| -> Result<String> {
        if text.chars().any(|c| c.is_control() || c == '"' || c == '\\' || c.is_whitespace()) || text.is_empty() {
            return Err(Error::documents(format!("`{}` is not the name of an image", text.escape_debug())));
        }
        Ok(format!("\"{text}\""))
    };
    let mut text = HEADER.to_owned();
    if major < 2 {
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        text += &format!("version = 2\n\n[{cri}]\n");
        if let Some(image) = sandbox_image {
            text += &format!("sandbox_image = {}\n", quote(image)?);
        }
        text += &format!(
            "\n[{cri}.cni]\nbin_dir = \"/opt/cni/bin\"\nconf_dir = \"/etc/cni/net.d\"\n\
             \n[{cri}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
             \n[{cri}.containerd.runtimes.runc.options]\nSystemdCgroup = true\n"
        );
    } else {
        let (images, runtime) = ("plugins.\"io.containerd.cri.v1.images\"", "plugins.\"io.containerd.cri.v1.runtime\"");
        text += "version = 3\n";
        if let Some(image) = sandbox_image {
            text += &format!("\n[{images}.pinned_images]\nsandbox = {}\n", quote(image)?);
        }
        text += &format!(
            "\n[{runtime}.cni]\nbin_dirs = [\"/opt/cni/bin\"]\nconf_dir = \"/etc/cni/net.d\"\n\
             \n[{runtime}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
             \n[{runtime}.containerd.runtimes.runc.options]\nSystemdCgroup = true\n"
        );
    }
    // Debian's own choice for containerd's helper programs, instead of /opt/containerd.
    text += "\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"/var/lib/containerd/opt\"\n";
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn configures_the_packaged_version() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        params.kubernetes.containerd.sandbox_image = Some("registry.k8s.io/pause:3.9".into());
        fixture::apply(&mut tree, &params).unwrap();
        let text = fixture::text(&tree, CONFIG).unwrap();
        assert!(text.contains("version = 2\n") && text.contains("sandbox_image = \"registry.k8s.io/pause:3.9\"\n"));
        assert!(text.contains("SystemdCgroup = true\n"));
        assert!(fixture::target(&tree, "/etc/systemd/system/multi-user.target.wants/containerd.service").is_some());
        assert!(fixture::text(&tree, SYSCTL_FILE).unwrap().contains("net.ipv4.ip_forward = 1\n"));
        assert_eq!(fixture::text(&tree, MODULES_FILE).unwrap(), "br_netfilter\noverlay\n");
    }

    #[test]
    fn newer_versions_have_another_format() {
        let text = config(2, Some("p:1")).unwrap();
        assert!(text.contains("version = 3\n") && text.contains("io.containerd.cri.v1.runtime"));
        assert!(config(2, Some("x\"\n[evil]")).is_err());
    }

    #[test]
    fn a_missing_package_is_an_error() {
        let mut tree = fixture::rootfs();
        fixture::file(&mut tree, "/var/lib/dpkg/status", "Package: bash\nVersion: 1\n");
        assert!(fixture::apply(&mut tree, &fixture::params()).unwrap_err().to_string().contains("containerd"));
    }
}
