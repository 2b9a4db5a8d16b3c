//! `files`: files, folders, links, and paths that must not be there.

use base64::Engine;

use super::account::{Accounts, lookup};
use super::editor::tree_path;
use super::{Editor, Setting};
use crate::api::params::FileEntry;
use crate::api::params::files::FileState;
use crate::error::{Context, Error, Result};
use crate::tree::{Kind, Meta, TreePath};

pub const SETTING: Setting = Setting { name: "files", writes: &["<path>"], initramfs: false, apply };

/// What is there on a running system is not what the image holds.
const NOT_IN_THE_IMAGE: [&str; 6] = ["dev", "proc", "run", "sys", "tmp", "var/tmp"];

fn apply(editor: &mut Editor) -> Result<()> {
    let accounts = Accounts::load(editor.tree)?;
    for (path, entry) in &editor.params.files {
        one(editor, &accounts, path, entry)
            .map_err(|error| error.about(&["files", path]))
            .with_context(|| format!("setting `files` entry `{path}`"))?;
    }
    Ok(())
}

fn one(editor: &mut Editor, accounts: &Accounts, path: &str, file: &FileEntry) -> Result<()> {
    let at = place(path)?;
    let content = content(file)?;
    let origin = editor.origin(&["files", path]);
    let owner = owner(file.owner.as_deref(), |name| accounts.uid(name), "user")?;
    let group = owner_group(accounts, file)?;
    let mode = file.permissions.map(|mode| mode.0);
    let change = |meta: &mut Meta| {
        meta.uid = owner.unwrap_or(meta.uid);
        meta.gid = group.unwrap_or(meta.gid);
        meta.mode = mode.unwrap_or(meta.mode);
    };
    match (file.state, content) {
        (FileState::Absent, None) => editor.tree.remove(&at).map(|_| ()),
        (FileState::Link, None) => {
            let target = file.target.as_deref().filter(|target| !target.is_empty() && !target.contains('\0'));
            let target = target.ok_or_else(|| Error::documents("a link needs a `target`"))?;
            if owner.is_some() || group.is_some() || mode.is_some() {
                return Err(Error::documents("a link has neither owner nor permissions of its own"));
            }
            editor.link(path, target, &origin)
        }
        (FileState::Directory, None) => {
            let at = editor.tree.make_directories(&at, editor.facts.epoch, &origin)?;
            editor.set_meta(&at, change, &origin)
        }
        (FileState::File, Some(bytes)) => {
            let mut meta = editor.meta(0o644, 0, 0);
            let old = editor.tree.resolve_parent(&at)?;
            if let Some((_, entry)) = editor.tree.inode(&old).filter(|(_, entry)| matches!(entry.kind, Kind::File(_))) {
                // As when the content is written over: owner and permissions stay, setuid and setgid go.
                (meta.mode, meta.uid, meta.gid) = (entry.meta.mode & 0o1777, entry.meta.uid, entry.meta.gid);
            }
            change(&mut meta);
            editor.tree.write_file(&at, bytes, meta, &origin).map(|_| ())
        }
        (FileState::File, None) => {
            let at = editor.tree.resolve(&at)?;
            if !editor.tree.contains(&at) {
                return Err(Error::documents(format!("{at} does not exist in the image"))
                    .hint("give `file_content` to make the file, or `state: directory`"));
            }
            editor.set_meta(&at, change, &origin)
        }
        (_, Some(_)) => Err(Error::documents("only `state: file` has a content")),
    }
}

fn place(path: &str) -> Result<TreePath> {
    if !path.starts_with('/') {
        return Err(Error::documents("the path is not absolute"));
    }
    let at = tree_path(path)?;
    for outside in NOT_IN_THE_IMAGE.map(TreePath::literal) {
        if at == outside || at.is_below(&outside) {
            return Err(Error::documents(format!("{outside} is filled at run time and not part of the image"))
                .hint("use tmpfiles.d(5) (`/etc/tmpfiles.d/<name>.conf`) for what must appear there"));
        }
    }
    Ok(at)
}

fn content(file: &FileEntry) -> Result<Option<Vec<u8>>> {
    match (&file.file_content, &file.file_content_base64) {
        (Some(_), Some(_)) => Err(Error::documents("give `file_content` or `file_content_base64`, not both")),
        (Some(text), None) => Ok(Some(text.clone().into_bytes())),
        (None, Some(text)) => {
            let packed: String = text.split_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(packed);
            bytes.map(Some).map_err(|error| Error::documents(format!("`file_content_base64`: {error}")))
        }
        (None, None) => Ok(None),
    }
}

fn owner(text: Option<&str>, by_name: impl Fn(&str) -> Option<u32>, what: &str) -> Result<Option<u32>> {
    let Some(text) = text else { return Ok(None) };
    match lookup(text, by_name) {
        Some(id) => Ok(Some(id)),
        None => Err(Error::documents(format!("the image has no {what} `{}`", text.escape_debug()))
            .hint("declare it in `users`, add the package that makes it, or give a number")),
    }
}

fn owner_group(accounts: &Accounts, file: &FileEntry) -> Result<Option<u32>> {
    owner(file.group.as_deref(), |name| accounts.gid(name), "group")
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::api::scalar::Mode;

    fn with(edit: impl Fn(&mut FileEntry), path: &str) -> Result<crate::tree::Tree> {
        let (mut tree, mut params) = (fixture::rootfs(), fixture::params());
        let mut entry = FileEntry::default();
        edit(&mut entry);
        params.files.insert(path.into(), entry);
        fixture::apply(&mut tree, &params).map(|()| tree)
    }

    #[test]
    fn files_folders_links_and_absence() {
        let tree = with(|file| file.file_content = Some("x".into()), "/opt/a/b").unwrap();
        assert_eq!(tree.get(&TreePath::literal("opt/a/b")).unwrap().meta.mode, 0o644);
        let tree =
            with(|file| (file.state, file.owner) = (FileState::Directory, Some("ops".into())), "/srv/x").unwrap();
        assert_eq!(tree.get(&TreePath::literal("srv/x")).unwrap().meta.uid, 1000);
        let link = |file: &mut FileEntry| (file.state, file.target) = (FileState::Link, Some("../b".into()));
        assert_eq!(fixture::target(&with(link, "/etc/a").unwrap(), "/etc/a").unwrap(), "../b");
        let tree = with(|file| file.state = FileState::Absent, "/usr/share/zoneinfo").unwrap();
        assert!(!tree.contains(&TreePath::literal("usr/share/zoneinfo/Etc/UTC")));
        let tree = with(|file| file.file_content_base64 = Some("AAH/\n".into()), "/opt/b").unwrap();
        assert_eq!(tree.read_file(&TreePath::literal("opt/b")).unwrap().unwrap(), [0, 1, 255]);
    }

    #[test]
    fn existing_files_keep_what_is_not_declared() {
        let tree = with(|file| file.group = Some("shadow".into()), "/usr/bin/sudo").unwrap();
        let meta = &tree.get(&TreePath::literal("usr/bin/sudo")).unwrap().meta;
        assert_eq!((meta.mode, meta.gid), (0o4755, 42));
        let tree = with(|file| file.file_content = Some("x".into()), "/usr/bin/sudo").unwrap();
        assert_eq!(tree.get(&TreePath::literal("usr/bin/sudo")).unwrap().meta.mode, 0o755);
        let tree = with(|file| file.permissions = Some(Mode(0o700)), "/bin/bash").unwrap();
        assert_eq!(tree.get(&TreePath::literal("usr/bin/bash")).unwrap().meta.mode, 0o700);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |edit: fn(&mut FileEntry), path| with(edit, path).unwrap_err().to_string();
        assert!(error(|_| (), "/no/such").contains("does not exist"));
        assert!(error(|_| (), "relative").contains("not absolute"));
        assert!(error(|file| file.file_content = Some("".into()), "/a/../b").contains("not a path"));
        assert!(error(|file| file.file_content = Some("".into()), "/run/x").contains("run time"));
        assert!(error(|file| file.owner = Some("nobdy".into()), "/etc/hosts").contains("no user `nobdy`"));
        assert!(error(|file| file.state = FileState::Link, "/etc/x").contains("target"));
        assert!(error(|file| file.file_content_base64 = Some("***".into()), "/etc/x").contains("base64"));
    }
}
