//! `networking.hostname`, `networking.hosts`: the name until cloud-init sets one, and hosts(5).

use super::editor::one_line;
use super::{Editor, Setting};
use crate::error::{Error, Result};

pub const SETTING: Setting =
    Setting { name: "host name", writes: &["/etc/hostname", "/etc/hosts"], initramfs: false, apply };

/// The host name of an image: the declared one, else the image's own name made fit.
pub fn of(declared: Option<&str>, image: &str) -> Result<String> {
    match declared {
        Some(name) if valid(name) => Ok(name.to_owned()),
        Some(name) => Err(Error::documents(format!("`{}` is not a host name", name.escape_debug()))
            .hint("labels of letters, digits and `-`, joined by dots, 64 characters at most")),
        None => Ok(from_image(image)),
    }
}

fn apply(editor: &mut Editor) -> Result<()> {
    let networking = &editor.params.networking;
    let name = of(networking.hostname.as_deref(), editor.facts.image)
        .map_err(|error| error.about(&["networking", "hostname"]))?;
    let origin = editor.origin(&["networking", "hostname"]);
    editor.write("/etc/hostname", format!("{name}\n"), 0o644, &origin)?;

    // A full name is followed by its first label, the order that `hostname -f` relies on (hosts(5)).
    let short = name.split('.').next().unwrap_or(&name);
    let own = if short == name { name.clone() } else { format!("{name} {short}") };
    let mut text = format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{own}\n\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    );
    for (address, names) in &networking.hosts {
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::documents(format!(
                "`{}` in `networking.hosts` is no IP address",
                address.escape_debug()
            ))
            .about(&["networking", "hosts", address]));
        }
        let names = one_line(names, "a line of `networking.hosts`");
        let names = names.map_err(|error| error.about(&["networking", "hosts", address]))?;
        text += &format!("{address}\t{names}\n");
    }
    let origin =
        editor.origin(if networking.hosts.is_empty() { &["networking", "hostname"] } else { &["networking", "hosts"] });
    editor.write("/etc/hosts", text, 0o644, &origin)
}

/// RFC 1123 labels; 64 is the kernel's limit (HOST_NAME_MAX).
fn valid(name: &str) -> bool {
    name.len() <= 64
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn from_image(image: &str) -> String {
    let dashed: String =
        image.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(63).collect();
    let name = dashed.trim_matches('-');
    if name.is_empty() { "localhost".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn the_image_gives_a_name() {
        assert_eq!(of(None, "Control_Plane.v1").unwrap(), "control-plane-v1");
        assert_eq!(of(None, "__").unwrap(), "localhost");
        assert!(of(Some("a_b"), "x").is_err() && of(Some("a..b"), "x").is_err() && of(Some(""), "x").is_err());
    }

    #[test]
    fn hosts_hold_the_own_name_and_the_declared_ones() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        params.networking.hostname = Some("n1.example.org".into());
        params.networking.hosts.insert("10.0.0.5".into(), "registry registry.local".into());
        fixture::apply(&mut tree, &params).unwrap();
        assert_eq!(fixture::text(&tree, "/etc/hostname").unwrap(), "n1.example.org\n");
        let hosts = fixture::text(&tree, "/etc/hosts").unwrap();
        assert!(hosts.contains("\n127.0.1.1\tn1.example.org n1\n"));
        assert!(hosts.ends_with("\n10.0.0.5\tregistry registry.local\n"));
        params.networking.hosts.insert("nowhere".into(), "x".into());
        assert!(fixture::apply(&mut tree, &params).is_err());
    }
}
