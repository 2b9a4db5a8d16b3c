//! `copy_file` of initramfs-tools as native code: one file into the folder that becomes the initramfs.
//!
//! Owns: [`copy_file`] and the two ways in which releases differ. What the shell function does with four to ten
//! processes is done with a few system calls, with the same files, links, modes, owners and times as result. Whatever
//! looks unusual is answered with [`Answer::Plain`]: the distribution's own function does it then.

use rustix::fs::{AtFlags, FileType, Gid, Timespec, Timestamps, Uid};

use crate::error::{Context, Result};
use crate::package::root::{Root, name};
use crate::tree::TreePath;

/// Which links are made again inside the initramfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// From 0.142 on (Debian): a link anywhere in the source's path counts; targets are made canonical.
    Canonical,
    /// Before, and in Ubuntu: the source itself must be a link.
    LastLink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The function's status: 0 copied, 1 was there already, 2 no such file.
    Status(u8),
    /// To be done the distribution's way.
    Plain,
}

/// `copy_file TYPE SOURCE TARGET` with `DESTDIR`; all three are absolute or relative to the root of the target.
pub fn copy_file(root: &Root, behaviour: Behaviour, folder: &[u8], source: &[u8], target: &[u8]) -> Result<Answer> {
    Ok(try_copy(root, behaviour, folder, source, target)?.unwrap_or(Answer::Plain))
}

/// `None`: unusual.
fn try_copy(root: &Root, behaviour: Behaviour, folder: &[u8], source: &[u8], target: &[u8]) -> Result<Option<Answer>> {
    let (Some(folder), Some(mut from)) = (TreePath::new(folder), TreePath::new(source)) else { return Ok(None) };
    let Some((canonical, stat)) = root.resolve(&from)? else { return Ok(Some(Answer::Status(2))) };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Some(Answer::Status(2)));
    }
    let Some(mut to) = TreePath::new(target) else { return Ok(None) };
    let into_folder = match root.resolve(&folder.append(&to))? {
        Some((_, stat)) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
        None => behaviour == Behaviour::Canonical && target.ends_with(b"/"),
    };
    if into_folder {
        to = to.join(from.file_name());
    } else if target.ends_with(b"/") {
        return Ok(None);
    }
    let absolute = behaviour == Behaviour::Canonical || target.starts_with(b"/");
    if behaviour == Behaviour::Canonical && merged(&from) && is_merged(root)? {
        from = below_usr(&from);
    }
    if absolute && merged(&to) {
        to = below_usr(&to);
    }
    if root.resolve(&folder.append(&to))?.is_some() {
        return Ok(Some(Answer::Status(1)));
    }
    let is_link = match behaviour {
        Behaviour::Canonical => canonical != from,
        Behaviour::LastLink => {
            let last = root.stat(&from)?;
            last.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
        }
    };
    if is_link {
        from = canonical.clone();
        let link_target = if merged(&canonical) { below_usr(&canonical) } else { canonical };
        if link_target != to && !make_link(root, &folder, &to, &link_target)? {
            return Ok(None);
        }
        to = link_target;
        if root.resolve(&folder.append(&to))?.is_some() {
            return Ok(Some(Answer::Status(0)));
        }
    }
    Ok(copy(root, &from, &folder.append(&to))?.then_some(Answer::Status(0)))
}

/// `/bin/*`, `/lib*` and `/sbin/*`: what lies below `/usr` on a merged system.
fn merged(path: &TreePath) -> bool {
    let path = path.as_bytes();
    path.starts_with(b"bin/") || path.starts_with(b"lib") || path.starts_with(b"sbin/")
}

fn below_usr(path: &TreePath) -> TreePath {
    TreePath::literal("usr").append(path)
}

fn is_merged(root: &Root) -> Result<bool> {
    let bin = root.resolve(&TreePath::literal("bin"))?;
    Ok(bin.is_some_and(|(path, _)| path == TreePath::literal("usr/bin")))
}

/// A relative link at `to` that leads to `target`, both below `folder`. False: something is in the way, or folders
/// between them are links, so that what "relative" means needs more thought than this.
fn make_link(root: &Root, folder: &TreePath, to: &TreePath, target: &TreePath) -> Result<bool> {
    let at = folder.append(to);
    let Some(parent) = make_parent(root, &at)? else { return Ok(false) };
    let goal = folder.append(target);
    // The parent of the goal may not be there yet; what there is of it must be what it is called.
    let mut ancestor = goal.parent();
    while let Some(path) = ancestor {
        match root.resolve(&path)? {
            Some((found, _)) if found == path => break,
            Some(_) => return Ok(false),
            None => ancestor = path.parent(),
        }
    }
    if root.stat(&at)?.is_some() {
        return Ok(false);
    }
    let text = relative(&parent, &goal);
    let handle = root.parent(&at)?;
    rustix::fs::symlinkat(text, &handle, name(&at)).with_context(|| format!("making link {at} of the target"))?;
    Ok(true)
}

/// The path from a folder to a file.
fn relative(folder: &TreePath, goal: &TreePath) -> Vec<u8> {
    let from: Vec<&[u8]> = folder.components().collect();
    let to: Vec<&[u8]> = goal.components().collect();
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let mut steps: Vec<&[u8]> = vec![b".."; from.len() - common];
    steps.extend(&to[common..]);
    steps.join(&b'/')
}

/// Makes the folder of a path. Its place; `None` if that is not what it is called.
fn make_parent(root: &Root, path: &TreePath) -> Result<Option<TreePath>> {
    let parent = path.parent().unwrap_or_else(TreePath::root);
    root.make_folders(&parent)?;
    let found = root.resolve(&parent)?;
    Ok(found.map(|(place, _)| place).filter(|place| *place == parent))
}

/// `cp -pP`: content, mode, owner and times. False: something is in the way.
fn copy(root: &Root, from: &TreePath, to: &TreePath) -> Result<bool> {
    let Some(mut source) = root.open_file(from)? else { return Ok(false) };
    let copying = || format!("copying {from} of the target");
    let stat = rustix::fs::fstat(&source).with_context(copying)?;
    let parent = to.parent().unwrap_or_else(TreePath::root);
    root.make_folders(&parent)?;
    if root.stat(to)?.is_some() {
        return Ok(false);
    }
    let handle = root.parent(to)?;
    let mut file = root.create(&handle, to, 0o600)?;
    std::io::copy(&mut source, &mut file).with_context(copying)?;
    let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&file, Some(owner), Some(group)).with_context(copying)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(stat.st_mode & 0o7777)).with_context(copying)?;
    let time = |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime as i64, stat.st_atime_nsec as u64),
        last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
    };
    rustix::fs::utimensat(&handle, name(to), &times, AtFlags::SYMLINK_NOFOLLOW).with_context(copying)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    /// A merged system in miniature with an initramfs folder as mkinitramfs lays it out.
    fn system() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["usr/bin", "usr/lib/x86_64-linux-gnu", "etc/alternatives", "d/usr/bin", "d/usr/lib", "d/conf"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("d/bin", "usr/bin"), ("d/lib", "usr/lib")] {
            symlink(target, root.path().join(link)).unwrap();
        }
        let write = |path: &str, mode| {
            let path = root.path().join(path);
            fs::write(&path, path.file_name().unwrap().as_encoded_bytes()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567, 89);
            fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        };
        write("usr/bin/tool-1.2", 0o755);
        write("usr/lib/x86_64-linux-gnu/libx.so.1.0", 0o644);
        symlink("tool-1.2", root.path().join("usr/bin/tool")).unwrap();
        symlink("/usr/bin/tool", root.path().join("etc/alternatives/tool")).unwrap();
        symlink("libx.so.1.0", root.path().join("usr/lib/x86_64-linux-gnu/libx.so.1")).unwrap();
        symlink("/etc/passwd-of-the-host", root.path().join("etc/dangling")).unwrap();
        root
    }

    fn ask(root: &Path, behaviour: Behaviour, source: &str, target: &str) -> Answer {
        let root = Root::open(root).unwrap();
        copy_file(&root, behaviour, b"/d", source.as_bytes(), target.as_bytes()).unwrap()
    }

    #[test]
    fn a_file_keeps_its_mode_and_time() {
        for behaviour in [Behaviour::Canonical, Behaviour::LastLink] {
            let root = system();
            assert_eq!(ask(root.path(), behaviour, "/usr/bin/tool-1.2", "/bin"), Answer::Status(0));
            let copied = root.path().join("d/usr/bin/tool-1.2");
            let meta = copied.symlink_metadata().unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o755, 1_234_567, 89));
            assert_eq!(fs::read(copied).unwrap(), b"tool-1.2");
            assert_eq!(ask(root.path(), behaviour, "/usr/bin/tool-1.2", "/bin"), Answer::Status(1));
        }
    }

    #[test]
    fn links_are_made_again_relative_and_lead_to_the_copy() {
        let root = system();
        let link = "/lib/x86_64-linux-gnu/libx.so.1";
        assert_eq!(ask(root.path(), Behaviour::Canonical, link, link), Answer::Status(0));
        let made = root.path().join("d/usr/lib/x86_64-linux-gnu/libx.so.1");
        assert_eq!(fs::read_link(&made).unwrap(), Path::new("libx.so.1.0"));
        assert_eq!(fs::read(made).unwrap(), b"libx.so.1.0");
        assert_eq!(ask(root.path(), Behaviour::Canonical, "/etc/alternatives/tool", "/sbin/tool"), Answer::Status(0));
        assert_eq!(fs::read_link(root.path().join("d/usr/sbin/tool")).unwrap(), Path::new("../bin/tool-1.2"));
        assert!(root.path().join("d/usr/bin/tool-1.2").is_file());
    }

    #[test]
    fn only_the_newer_function_follows_links_to_folders() {
        let root = system();
        symlink("x86_64-linux-gnu", root.path().join("usr/lib/multi")).unwrap();
        let source = "/usr/lib/multi/libx.so.1.0";
        assert_eq!(ask(root.path(), Behaviour::LastLink, source, source), Answer::Status(0));
        assert!(root.path().join("d/usr/lib/multi/libx.so.1.0").symlink_metadata().unwrap().is_file());
        let root = system();
        symlink("x86_64-linux-gnu", root.path().join("usr/lib/multi")).unwrap();
        assert_eq!(ask(root.path(), Behaviour::Canonical, source, source), Answer::Status(0));
        let link = fs::read_link(root.path().join("d/usr/lib/multi/libx.so.1.0")).unwrap();
        assert_eq!(link, Path::new("../x86_64-linux-gnu/libx.so.1.0"));
    }

    #[test]
    fn missing_files_folders_and_unusual_cases() {
        let root = system();
        for source in ["/usr/bin/none", "/usr/bin", "/etc/dangling"] {
            assert_eq!(ask(root.path(), Behaviour::Canonical, source, source), Answer::Status(2), "{source}");
        }
        let source = "/usr/bin/tool-1.2";
        assert_eq!(ask(root.path(), Behaviour::Canonical, source, "/new/folder/"), Answer::Status(0));
        assert!(root.path().join("d/new/folder/tool-1.2").is_file());
        assert_eq!(ask(root.path(), Behaviour::LastLink, source, "/other/folder/"), Answer::Plain);
        assert_eq!(ask(root.path(), Behaviour::Canonical, source, "/../x"), Answer::Plain);
        symlink("nowhere", root.path().join("d/conf/x")).unwrap();
        assert_eq!(ask(root.path(), Behaviour::Canonical, source, "/conf/x"), Answer::Plain);
        assert!(root.path().join("d/conf/x").symlink_metadata().unwrap().is_symlink());
    }
}
