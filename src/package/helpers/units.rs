//! `deb-systemd-helper update-state` and `enable` of one unit, without Perl: the state files that remember which links a
//! unit asks for, and the links.
//!
//! Owns: [`answer`]. Follows deb-systemd-helper(1p) for system units of packages. Only units in the form in which nearly
//! all are written count; quotes, several aliases, spaces around the sign, templates with a default instance and whatever
//! else could be read in two ways is left to the program itself, before anything is written.

use crate::error::{Context, Result};
use crate::package::root::{Root, name};
use crate::tree::TreePath;

const STATES: &str = "var/lib/systemd/deb-systemd-helper-enabled";
const LINKS: &str = "etc/systemd/system";
/// Where units are looked for, in this order.
const PLACES: [&str; 3] = ["etc/systemd/system", "lib/systemd/system", "usr/lib/systemd/system"];
const KEYS: [&str; 5] = ["WantedBy", "RequiredBy", "Also", "Alias", "DefaultInstance"];
/// Units that ask for each other; none in a release has more than a few.
const MANY: usize = 64;

/// A link that a unit asks for: its place below [`LINKS`], and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    place: String,
    target: String,
}

/// Does what was asked; false if that is for the program. Before `enable`, `systemctl preset` has been run if there was
/// no state: `fresh` says so.
pub(super) fn answer(root: &Root, words: &[&str]) -> Result<bool> {
    // The program would reload the manager.
    if root.resolve(&TreePath::literal("run/systemd/system"))?.is_some() {
        return Ok(false);
    }
    let (unit, fresh) = match words {
        ["update-state", unit] => (*unit, None),
        ["enable", unit, fresh] => (*unit, Some(*fresh == "fresh")),
        _ => return Ok(false),
    };
    let mut seen = 0;
    let Some(links) = closure(root, unit, &[], &mut seen)? else { return Ok(false) };
    // A link that is asked for twice, or folders that are links: not worth the thought.
    let places: std::collections::BTreeSet<&str> = links.iter().map(|link| link.place.as_str()).collect();
    if places.len() != links.len() || !plain_folders(root, &links)? {
        return Ok(false);
    }
    match fresh {
        None => update_state(root, unit, &links),
        Some(fresh) => enable(root, unit, &links, fresh),
    }?;
    root.forget();
    Ok(true)
}

fn path(text: &str) -> Result<TreePath> {
    TreePath::new(text).ok_or_else(|| crate::error::Error::build(format!("`{text}` is not a path")))
}

fn state_of(unit: &str) -> Result<TreePath> {
    path(&format!("{STATES}/{unit}.dsh-also"))
}

fn is_unit(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@._-:".contains(&byte);
    word.contains('.') && !word.starts_with(['.', '-']) && word.bytes().all(plain)
}

/// What a unit asks for, and what those ask for that it names in `Also`. `None`: unusual.
fn closure(root: &Root, unit: &str, visited: &[String], seen: &mut usize) -> Result<Option<Vec<Link>>> {
    *seen += 1;
    if !is_unit(unit) || *seen > MANY {
        return Ok(None);
    }
    let Some((place, text)) = find(root, unit)? else { return Ok(None) };
    let mut visited = visited.to_vec();
    let (mut links, mut wanted) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let lower = line.trim_start().to_ascii_lowercase();
        if !KEYS.iter().any(|key| lower.starts_with(&key.to_ascii_lowercase())) {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { return Ok(None) };
        let values: Vec<&str> = value.split(' ').collect();
        if !values.iter().all(|value| is_unit(value)) {
            return Ok(None);
        }
        match key {
            "WantedBy" => wanted.extend(values.iter().map(|value| format!("{value}.wants/{unit}"))),
            "RequiredBy" => wanted.extend(values.iter().map(|value| format!("{value}.requires/{unit}"))),
            "Alias" if values.len() > 1 => return Ok(None),
            "Alias" if value == unit => {}
            "Alias" => links.push(Link { place: value.to_owned(), target: place.clone() }),
            "Also" => {
                for value in values {
                    if value == unit || visited.iter().any(|visited| visited == value) {
                        continue;
                    }
                    visited.push(value.to_owned());
                    let Some(more) = closure(root, value, &visited, seen)? else { return Ok(None) };
                    links.extend(more);
                }
            }
            _ => return Ok(None),
        }
    }
    links.extend(wanted.into_iter().map(|link| Link { place: link, target: place.clone() }));
    Ok(Some(links))
}

/// A unit's file, as the program names it, and its text.
fn find(root: &Root, unit: &str) -> Result<Option<(String, String)>> {
    for place in PLACES {
        let file = path(&format!("{place}/{unit}"))?;
        let Some((_, stat)) = root.resolve(&file)? else { continue };
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            continue;
        }
        let text = root.read(&file)?.and_then(|bytes| String::from_utf8(bytes).ok());
        // Lines end in one way for the program.
        return Ok(text.filter(|text| !text.contains('\r')).map(|text| (format!("/{place}/{unit}"), text)));
    }
    Ok(None)
}

/// Whether what is to be written lies where it seems to.
fn plain_folders(root: &Root, links: &[Link]) -> Result<bool> {
    let mut folders = vec![STATES.to_owned(), LINKS.to_owned()];
    for link in links {
        if let Some((folder, _)) = link.place.rsplit_once('/') {
            folders.extend([format!("{LINKS}/{folder}"), format!("{STATES}/{folder}")]);
        }
    }
    for folder in folders {
        let folder = path(&folder)?;
        if root.resolve(&folder)?.is_some_and(|(real, _)| real != folder) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn update_state(root: &Root, unit: &str, links: &[Link]) -> Result<()> {
    root.make_folders(&path(STATES)?)?;
    let text: String = links.iter().map(|link| format!("/{LINKS}/{}\n", link.place)).collect();
    root.write(&state_of(unit)?, text.as_bytes(), 0o644)
}

fn is_link(root: &Root, link: &Link) -> Result<bool> {
    let stat = root.stat(&path(&format!("{LINKS}/{}", link.place))?)?;
    Ok(stat.is_some_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Symlink))
}

fn enable(root: &Root, unit: &str, links: &[Link], fresh: bool) -> Result<()> {
    let mut installed = false;
    for link in links {
        installed |= is_link(root, link)?;
    }
    // After `systemctl preset` there is nothing to add; on an upgrade, what is missing beside what is there.
    let make = !fresh && installed;
    for link in links {
        record(root, unit, link)?;
        let mark = path(&format!("{STATES}/{}", link.place))?;
        if root.resolve(&mark)?.is_some() {
            continue;
        }
        if make && !is_link(root, link)? {
            let place = path(&format!("{LINKS}/{}", link.place))?;
            let making = || format!("making link {place} of the target");
            root.make_folders(&place.parent().unwrap_or_else(TreePath::root))?;
            rustix::fs::symlinkat(link.target.as_str(), &*root.parent(&place)?, name(&place)).with_context(making)?;
        }
        root.make_folders(&mark.parent().unwrap_or_else(TreePath::root))?;
        root.write(&mark, b"", 0o644)?;
    }
    Ok(())
}

/// Adds a link to the unit's state, if it is not there yet.
fn record(root: &Root, unit: &str, link: &Link) -> Result<()> {
    root.make_folders(&path(STATES)?)?;
    let state = state_of(unit)?;
    let mut text = root.read_text(&state)?;
    let line = format!("/{LINKS}/{}\n", link.place);
    if !text.split_inclusive('\n').any(|known| known == line) {
        text.push_str(&line);
    }
    root.write(&state, text.as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn target(units: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("lib/systemd/system")).unwrap();
        for (unit, text) in units {
            fs::write(root.path().join("lib/systemd/system").join(unit), format!("[Unit]\nX=1\n[Install]\n{text}"))
                .unwrap();
        }
        root
    }

    fn ask(root: &tempfile::TempDir, words: &[&str]) -> bool {
        answer(&Root::open(root.path()).unwrap(), words).unwrap()
    }

    fn state(root: &tempfile::TempDir, name: &str) -> String {
        fs::read_to_string(root.path().join(STATES).join(name)).unwrap()
    }

    #[test]
    fn the_state_holds_all_links_in_order() {
        let root = target(&[
            ("a.service", "WantedBy=multi-user.target x.target\nAlso=b.socket a.service\nAlias=c.service\n"),
            ("b.socket", "WantedBy=sockets.target\nAlso=a.service\n"),
            ("none.service", ""),
        ]);
        assert!(ask(&root, &["update-state", "none.service"]));
        assert_eq!(state(&root, "none.service.dsh-also"), "");
        // `b.socket` names `a.service`, which the program follows once more: links twice, so that it is left to it.
        assert!(!ask(&root, &["update-state", "a.service"]));
        fs::write(root.path().join("lib/systemd/system/b.socket"), "WantedBy=sockets.target\n").unwrap();
        assert!(ask(&root, &["update-state", "a.service"]));
        let links = [
            "sockets.target.wants/b.socket",
            "c.service",
            "multi-user.target.wants/a.service",
            "x.target.wants/a.service",
        ];
        let text: String = links.iter().map(|link| format!("/etc/systemd/system/{link}\n")).collect();
        assert_eq!(state(&root, "a.service.dsh-also"), text);
    }

    #[test]
    fn enabling_leaves_marks_and_adds_links_on_an_upgrade_only() {
        let root = target(&[("a.service", "WantedBy=x.target y.target\n")]);
        assert!(ask(&root, &["enable", "a.service", "fresh"]));
        let link = |target: &str| root.path().join(LINKS).join(format!("{target}.wants/a.service"));
        let mark = |target: &str| root.path().join(STATES).join(format!("{target}.wants/a.service"));
        assert!(
            mark("x.target").is_file() && mark("y.target").is_file() && link("x.target").symlink_metadata().is_err()
        );
        assert_eq!(state(&root, "a.service.dsh-also").lines().count(), 2);
        fs::remove_file(mark("y.target")).unwrap();
        fs::create_dir_all(link("x.target").parent().unwrap()).unwrap();
        assert!(ask(&root, &["enable", "a.service", "again"]));
        assert!(link("y.target").symlink_metadata().is_err() && mark("y.target").is_file());
        fs::remove_file(mark("y.target")).unwrap();
        std::os::unix::fs::symlink("/lib/systemd/system/a.service", link("x.target")).unwrap();
        assert!(ask(&root, &["enable", "a.service", "again"]));
        assert_eq!(fs::read_link(link("y.target")).unwrap().to_str().unwrap(), "/lib/systemd/system/a.service");
        assert_eq!(state(&root, "a.service.dsh-also").lines().count(), 2);
    }

    #[test]
    fn what_is_unusual_is_left_alone() {
        for text in [
            "WantedBy= x.target\n",
            "WantedBy=\"x.target\"\n",
            "wantedby=x.target\n",
            " WantedBy=x.target\n",
            "WantedBy=x.target  y.target\n",
            "WantedBy=x.target x.target\n",
            "Alias=b.service c.service\n",
            "DefaultInstance=tty1\n",
            "Also=missing.service\n",
            "WantedBy=\n",
            "WantedBy=../x.target\n",
        ] {
            let root = target(&[("a.service", text)]);
            assert!(!ask(&root, &["update-state", "a.service"]), "{text:?}");
            assert!(!root.path().join("var").exists());
        }
        let root = target(&[("a.service", "")]);
        for words in [
            &["update-state", "../a.service"][..],
            &["update-state"],
            &["disable", "a.service"],
            &["enable", "a.service"],
        ] {
            assert!(!ask(&root, words));
        }
        fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        assert!(!ask(&root, &["update-state", "a.service"]));
    }
}
