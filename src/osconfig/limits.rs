//! `limits`: limits.conf(5), one file an entry, tab-separated.

use super::editor::{file_name, one_word};
use super::{Editor, Setting};
use crate::api::params::Limit;
use crate::error::{Error, Result};

pub const SETTING: Setting =
    Setting { name: "limits", writes: &["/etc/security/limits.d/99-<name>.conf"], initramfs: false, apply };

const ITEMS: [&str; 20] = [
    "as",
    "chroot",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "maxlogins",
    "maxsyslogins",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nonewprivs",
    "nproc",
    "priority",
    "rss",
    "rtprio",
    "sigpending",
    "stack",
];

pub fn file(name: &str) -> String {
    format!("/etc/security/limits.d/99-{name}.conf")
}

fn apply(editor: &mut Editor) -> Result<()> {
    for (name, limit) in &editor.params.limits {
        one(editor, name, limit).map_err(|error| error.about(&["limits", name]))?;
    }
    Ok(())
}

fn one(editor: &mut Editor, name: &str, limit: &Limit) -> Result<()> {
    file_name(name, "the limit")?;
    if !["hard", "soft", "-"].contains(&limit.kind.as_str()) {
        return Err(Error::documents(format!("limit `{name}`: `{}` is not a type", limit.kind.escape_debug()))
            .hint("use `hard`, `soft` or `-` (both)"));
    }
    if !ITEMS.contains(&limit.item.as_str()) {
        return Err(Error::documents(format!("limit `{name}`: `{}` is not an item", limit.item.escape_debug()))
            .hint(format!("limits.conf(5) knows {}", ITEMS.join(", "))));
    }
    let domain = one_word(&limit.domain, "the domain of a limit")?;
    let value = one_word(limit.value.as_str(), "the value of a limit")?;
    let origin = editor.origin(&["limits", name]);
    editor.write(&file(name), format!("{domain}\t{}\t{}\t{value}\n", limit.kind, limit.item), 0o644, &origin)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture;

    #[test]
    fn writes_tab_separated_lines() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        fixture::apply(&mut tree, &params).unwrap();
        let text = fixture::text(&tree, "/etc/security/limits.d/99-open-files.conf").unwrap();
        assert_eq!(text, "*\tsoft\tnofile\t65536\n");
        params.limits.get_mut("open-files").unwrap().kind = "firm".into();
        assert!(fixture::apply(&mut tree, &params).unwrap_err().to_string().contains("`firm` is not a type"));
    }
}
