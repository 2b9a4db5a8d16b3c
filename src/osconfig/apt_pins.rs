//! `software.unapproved_packages` and `repositories.*.priority`: apt_preferences(5) of the image.

use super::editor::{HEADER, file_name, one_word};
use super::{Editor, Setting};
use crate::api::params::distribution::Repository;
use crate::error::{Error, Result};

/// Upstream's file name.
const UNAPPROVED: &str = "/etc/apt/preferences.d/unapproved-packages.pref";
pub const SETTING: Setting =
    Setting { name: "apt pins", writes: &[UNAPPROVED, "/etc/apt/preferences.d/<name>.pref"], initramfs: false, apply };

fn apply(editor: &mut Editor) -> Result<()> {
    let params = editor.params;
    if !params.software.unapproved_packages.is_empty() {
        let mut text = HEADER.to_owned();
        for name in params.software.unapproved_packages.keys() {
            let name = package_name(name).map_err(|error| error.about(&["software", "unapproved_packages", name]))?;
            text += &format!("\nPackage: {name}\nPin: release *\nPin-Priority: -1\n");
        }
        let origin = editor.origin(&["software", "unapproved_packages"]);
        editor.write(UNAPPROVED, text, 0o644, &origin)?;
    }
    for (name, repository) in &params.distribution.repositories {
        let Some(priority) = repository.priority else { continue };
        if repository.register_repo_with_rootfs == Some(false) {
            continue;
        }
        let pin = pin(name, repository, params.distribution.repositories.values())
            .map_err(|error| error.about(&["distribution", "repositories", name]))?;
        let text = format!("{HEADER}\nPackage: *\nPin: {pin}\nPin-Priority: {priority}\n");
        let origin = editor.origin(&["distribution", "repositories", name, "priority"]);
        editor.write(&format!("/etc/apt/preferences.d/{name}.pref"), text, 0o644, &origin)?;
    }
    Ok(())
}

/// A pin cannot name host and suite at once: the host where it is the only repository there, else the suite.
fn pin<'r>(name: &str, repository: &Repository, all: impl Iterator<Item = &'r Repository>) -> Result<String> {
    file_name(name, "the repository")?;
    let host = host(repository);
    if !host.is_empty() && all.filter(|other| self::host(other) == host).count() == 1 {
        return Ok(format!("origin \"{}\"", one_word(host, "the host of a repository")?));
    }
    let suite = one_word(&repository.suite, "the suite of a repository")?;
    if suite.contains(',') {
        return Err(Error::documents(format!("`{suite}` is not a suite")));
    }
    Ok(format!("release n={suite}"))
}

fn host(repository: &Repository) -> &str {
    let source = repository.registered_source.as_deref().unwrap_or(&repository.source);
    let rest = source.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or("");
    authority.split(':').next().unwrap_or("")
}

/// Debian policy 5.6.1.
fn package_name(name: &str) -> Result<&str> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    if name.len() < 2 || !name.chars().all(fine) {
        return Err(Error::documents(format!("`{}` is not the name of a package", name.escape_debug())));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn pins_unapproved_packages_and_repositories() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        params.distribution.repositories.get_mut("debian").unwrap().priority = Some(600);
        fixture::apply(&mut tree, &params).unwrap();
        let text = fixture::text(&tree, UNAPPROVED).unwrap();
        assert!(text.contains("\nPackage: unattended-upgrades\nPin: release *\nPin-Priority: -1\n"));
        let text = fixture::text(&tree, "/etc/apt/preferences.d/debian.pref").unwrap();
        assert!(text.contains("Pin: origin \"deb.debian.org\"\nPin-Priority: 600\n"));
    }

    #[test]
    fn two_suites_of_one_host_are_pinned_by_suite() {
        let one = Repository { source: "http://h:80/x".into(), suite: "a".into(), ..Repository::default() };
        let two = Repository { suite: "b".into(), ..one.clone() };
        assert_eq!(pin("two", &two, [&one, &two].into_iter()).unwrap(), "release n=b");
    }
}
