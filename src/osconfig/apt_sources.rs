//! `distribution.repositories`: the repositories that the image keeps, in deb822 form (sources.list(5)), each bound to
//! its own keyring by `Signed-By`.

use super::editor::{HEADER, file_name, one_word};
use super::{Editor, Setting};
use crate::api::params::distribution::Repository;
use crate::error::{Error, Result};

/// Keyrings that imagebuilder knows by name: where a package of the distribution puts them.
const SHIPPED: [(&str, &str, &str); 2] = [
    ("debian-archive", "/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    ("ubuntu-archive", "/usr/share/keyrings/ubuntu-archive-keyring.gpg", "ubuntu-keyring"),
];
const ARMOR: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

pub const SETTING: Setting = Setting {
    name: "apt sources",
    writes: &["/etc/apt/sources.list.d/<name>.sources", "/etc/apt/keyrings/<name>.asc", "/etc/apt/keyrings/<name>.gpg"],
    initramfs: false,
    apply,
};

fn apply(editor: &mut Editor) -> Result<()> {
    let repositories = &editor.params.distribution.repositories;
    let mut kept = false;
    for (name, repository) in repositories.iter().filter(|(_, one)| one.register_repo_with_rootfs != Some(false)) {
        let stanza =
            stanza(editor, name, repository).map_err(|error| error.about(&["distribution", "repositories", name]))?;
        let origin = editor.origin(&["distribution", "repositories", name]);
        editor.write(&format!("/etc/apt/sources.list.d/{name}.sources"), stanza, 0o644, &origin)?;
        kept = true;
    }
    // What an earlier tool left there would be read as well and double our entries.
    if kept {
        editor.remove("/etc/apt/sources.list")?;
    }
    Ok(())
}

fn stanza(editor: &mut Editor, name: &str, repository: &Repository) -> Result<String> {
    file_name(name, "the repository")?;
    let what = |field: &str| format!("`{field}` of repository `{name}`");
    let source = repository.registered_source.as_deref().unwrap_or(&repository.source);
    let (source, suite) = (one_word(source, &what("source"))?, one_word(&repository.suite, &what("suite"))?);
    if source.contains('@') {
        return Err(Error::documents(format!("{} holds credentials, which would end up in the image", what("source")))
            .hint("set `registered_source` to an address without them, or `register_repo_with_rootfs: false`"));
    }
    let signed_by = keyring(editor, name, &repository.keyring)?;
    let mut text = format!("{HEADER}Types: deb\nURIs: {source}\nSuites: {suite}\n");
    let mut components = Vec::new();
    for component in repository.components.keys() {
        components.push(one_word(component, &what("components"))?);
    }
    // `main` first, as everybody writes it; the order means nothing to apt.
    components.sort_by_key(|component| (*component != "main", *component));
    match (suite.ends_with('/'), components.is_empty()) {
        (true, true) => {}
        (false, false) => text += &format!("Components: {}\n", components.join(" ")),
        (true, false) => {
            return Err(Error::documents(format!("{}: a flat repository has no components", what("suite"))));
        }
        (false, true) => {
            return Err(Error::documents(format!("{} is empty", what("components")))
                .hint("name at least one, `components: {main: {}}`, or end the suite with `/` for a flat repository"));
        }
    }
    Ok(text + &format!("Signed-By: {signed_by}\n"))
}

/// Where the image finds the keyring; keys that no package brings are written.
fn keyring(editor: &mut Editor, name: &str, keyring: &str) -> Result<String> {
    let origin = editor.origin(&["distribution", "repositories", name, "keyring"]);
    if let Some((_, file, package)) = SHIPPED.iter().find(|(known, ..)| *known == keyring) {
        if !editor.exists(file) {
            return Err(super::editor::needs_package(
                &format!("repository `{name}` is signed by `{keyring}`"),
                package,
            ));
        }
        return Ok((*file).to_owned());
    }
    let bytes = if keyring.trim_start().starts_with(ARMOR) {
        keyring.trim_start().as_bytes().to_vec()
    } else if let Some(bytes) = editor.facts.keyrings.get(keyring) {
        bytes.clone()
    } else if keyring.starts_with('/') && editor.exists(keyring) {
        return Ok(one_word(keyring, "the keyring")?.to_owned());
    } else {
        return Err(Error::documents(format!(
            "repository `{name}`: keyring `{}` is not known",
            keyring.escape_debug()
        ))
        .hint(format!(
            "use {}, an absolute path, or an armored OpenPGP public key",
            SHIPPED.map(|(known, ..)| format!("`{known}`")).join(", ")
        )));
    };
    let extension = if bytes.starts_with(ARMOR.as_bytes()) { "asc" } else { "gpg" };
    let file = format!("/etc/apt/keyrings/{name}.{extension}");
    editor.write(&file, bytes, 0o644, &origin)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn writes_deb822_with_its_keyring() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        fixture::file(&mut tree, "/etc/apt/sources.list", "deb http://old/ x main\n");
        fixture::apply(&mut tree, &params).unwrap();
        let text = fixture::text(&tree, "/etc/apt/sources.list.d/debian.sources").unwrap();
        assert_eq!(
            text,
            format!(
                "{HEADER}Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main contrib\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
            )
        );
        assert_eq!(fixture::text(&tree, "/etc/apt/sources.list"), None);
        assert_eq!(fixture::text(&tree, "/etc/apt/sources.list.d/local.sources"), None);

        let debian = params.distribution.repositories.get_mut("debian").unwrap();
        debian.keyring = format!("{ARMOR}\n\nxx\n");
        fixture::apply(&mut tree, &params).unwrap();
        assert!(fixture::text(&tree, "/etc/apt/keyrings/debian.asc").unwrap().starts_with(ARMOR));
    }

    #[test]
    fn refuses_credentials_and_unknown_keyrings() {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        let debian = params.distribution.repositories.get_mut("debian").unwrap();
        debian.keyring = "debain-archive".into();
        assert!(fixture::apply(&mut tree, &params).unwrap_err().hints()[0].contains("`debian-archive`"));
        let debian = params.distribution.repositories.get_mut("debian").unwrap();
        debian.source = "http://user:secret@mirror/".into();
        let error = fixture::apply(&mut tree, &params).unwrap_err();
        assert!(error.to_string().contains("credentials") && !error.to_string().contains("secret"));
    }
}
