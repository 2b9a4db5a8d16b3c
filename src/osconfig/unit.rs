//! systemd units in a Tree: finding, reading, and enabling them as `systemctl --root` does, from `[Install]`
//! (systemd.unit(5), sections "Unit File Load Path" and "[Install] Section Options").
//!
//! Owns: [`Systemd`]. Supported: WantedBy, RequiredBy, UpheldBy, Alias, Also, DefaultInstance, templates, drop-ins of
//! the unit and of its template, the specifiers %% %i %I %j %n %N %p. Left out: `Alias=` with a slash, linked units
//! outside the load path, presets, the drop-in folders of name prefixes (`foo-.service.d`).

use std::collections::{BTreeMap, BTreeSet};

use super::editor::{read_text, tree_path};
use crate::error::{Error, Result};
use crate::tree::{Kind, Mtime, Origin, Tree, TreePath};

/// Where the administrator's units and all links are.
pub const ETC: &str = "/etc/systemd/system";
/// Highest priority first.
const LOAD_PATH: [&str; 3] = [ETC, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];
const DEPENDENCIES: [(&str, &str); 3] = [("WantedBy", "wants"), ("RequiredBy", "requires"), ("UpheldBy", "upholds")];
const SUFFIXES: [&str; 11] =
    ["service", "socket", "target", "timer", "mount", "automount", "path", "slice", "swap", "scope", "device"];

pub struct Systemd<'a> {
    tree: &'a mut Tree,
    epoch: Mtime,
    origin: &'a Origin,
    /// How links spell the packages' folder: `/lib/...` up to Debian 12, `/usr/lib/...` later.
    vendor: &'static str,
}

/// A unit file found in the load path.
struct Unit {
    /// The name asked for, aliases resolved.
    name: String,
    /// The file as links name it.
    path: String,
    /// All assignments, drop-ins included: section, key, value.
    values: Vec<(String, String, String)>,
}

enum Found {
    File(Unit),
    Masked,
    Missing,
}

impl<'a> Systemd<'a> {
    pub fn new(tree: &'a mut Tree, epoch: Mtime, origin: &'a Origin) -> Result<Self> {
        let folder = tree.resolve(&tree_path(ETC)?)?;
        let spelled = |prefix: &[u8]| {
            let links = tree.below(&folder);
            links.filter(|(_, entry)| matches!(&entry.kind, Kind::Symlink(to) if to.starts_with(prefix))).count()
        };
        let old = spelled(b"/lib/systemd/system/") > spelled(b"/usr/lib/systemd/system/");
        let vendor = if old { "/lib/systemd/system" } else { "/usr/lib/systemd/system" };
        Ok(Systemd { tree, epoch, origin, vendor })
    }

    /// Whether there is such a unit, not masked.
    pub fn has(&self, name: &str) -> bool {
        matches!(self.find(name), Ok(Found::File(_)))
    }

    /// The last value of a key that an empty assignment resets.
    pub fn last_value(&self, name: &str, section: &str, key: &str) -> Result<Option<String>> {
        Ok(match self.find(name)? {
            Found::File(unit) => unit.list(section, key).pop(),
            _ => None,
        })
    }

    /// Makes the links of `[Install]`.
    pub fn enable(&mut self, name: &str) -> Result<()> {
        let mut seen = BTreeSet::new();
        if self.enable_one(unit_name(name)?, &mut seen)? {
            return Ok(());
        }
        Err(Error::documents(format!("unit `{name}` cannot be enabled: its [Install] section asks for nothing"))
            .hint("leave `enabled` out for units that others pull in, or add `WantedBy=` in a drop-in"))
    }

    /// Removes every link to the unit (and to what its `Also=` names).
    pub fn disable(&mut self, name: &str) -> Result<()> {
        let mut names = BTreeSet::new();
        let mut todo = vec![unit_name(name)?.to_owned()];
        while let Some(name) = todo.pop() {
            match self.find(&name)? {
                Found::File(unit) if names.insert(name.clone()) => {
                    todo.extend(unit.words("Also")?);
                    names.insert(unit.name);
                }
                Found::Missing if names.is_empty() => return Err(self.missing(&name)),
                _ => {}
            }
        }
        let folder = self.tree.resolve(&tree_path(ETC)?)?;
        let is_link_to = |path: &TreePath, kind: &Kind| match kind {
            Kind::Symlink(target) if target != b"/dev/null" => {
                let last = target.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                [path.file_name(), last].iter().any(|name| names.contains(&*String::from_utf8_lossy(name)))
            }
            _ => false,
        };
        let links: Vec<TreePath> = self
            .tree
            .below(&folder)
            .filter(|(path, entry)| is_link_to(path, &entry.kind))
            .map(|(path, _)| path.clone())
            .collect();
        for link in links {
            self.tree.remove(&link)?;
            // systemctl takes out folders that became empty.
            if let Some(parent) = link.parent().filter(|parent| *parent != folder) {
                if self.tree.children(&parent).next().is_none() {
                    self.tree.remove(&parent)?;
                }
            }
        }
        Ok(())
    }

    /// Links the unit to /dev/null.
    pub fn mask(&mut self, name: &str) -> Result<()> {
        let path = tree_path(&format!("{ETC}/{}", unit_name(name)?))?;
        if matches!(self.tree.get(&self.tree.resolve_parent(&path)?).map(|entry| &entry.kind), Some(Kind::File(_))) {
            return Err(Error::documents(format!("unit `{name}` cannot be masked: its file is {path}"))
                .hint("drop `masked`, or the file's content"));
        }
        self.tree.write_symlink(&path, "/dev/null", self.epoch, self.origin).map(|_| ())
    }

    fn enable_one(&mut self, name: &str, seen: &mut BTreeSet<String>) -> Result<bool> {
        if !seen.insert(name.to_owned()) {
            return Ok(false);
        }
        let unit = match self.find(name)? {
            Found::File(unit) => unit,
            Found::Masked => return Err(Error::documents(format!("unit `{name}` cannot be enabled: it is masked"))),
            Found::Missing => return Err(self.missing(name)),
        };
        let mut done = false;
        for alias in unit.words("Alias")? {
            let alias = unit_name(&alias)?.to_owned();
            if suffix(&alias) != suffix(&unit.name) {
                return Err(Error::build(format!("unit `{}`: `Alias={alias}` has another suffix", unit.name)));
            }
            done = true;
            if alias != unit.name {
                self.link(&format!("{ETC}/{alias}"), &unit.path)?;
            }
        }
        let instance = unit.instance_name()?;
        for (key, folder) in DEPENDENCIES {
            for target in unit.words(key)? {
                let target = unit_name(&target)?;
                // A template without instance can only be wanted by another template.
                let Some(name) = instance.as_ref().or(target.contains("@.").then_some(&unit.name)) else {
                    return Err(Error::documents(format!("unit `{name}` cannot be enabled without an instance"))
                        .hint(format!("name one: `{}`", name.replacen("@.", "@example.", 1))));
                };
                self.link(&format!("{ETC}/{target}.{folder}/{name}"), &unit.path)?;
                done = true;
            }
        }
        for also in unit.words("Also")? {
            done |= self.enable_one(unit_name(&also)?, seen)?;
        }
        Ok(done)
    }

    /// Keeps a link that already leads to a file of that name, as systemctl does.
    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let path = tree_path(path)?;
        let last = |text: &[u8]| text.rsplit(|byte| *byte == b'/').next().map(<[u8]>::to_vec);
        match self.tree.get(&self.tree.resolve_parent(&path)?).map(|entry| &entry.kind) {
            Some(Kind::Symlink(old)) if last(old) == last(target.as_bytes()) => Ok(()),
            Some(Kind::Symlink(old)) => {
                let old = String::from_utf8_lossy(old);
                Err(Error::documents(format!("{path} leads to `{old}` already, it cannot lead to `{target}`"))
                    .hint("disable the other unit first (`enabled: false`)"))
            }
            Some(_) => Err(Error::documents(format!("{path} is in the way of a link to {target}"))),
            None => self.tree.write_symlink(&path, target, self.epoch, self.origin).map(|_| ()),
        }
    }

    /// Looks for the name in every folder, then for its template; follows aliases.
    fn find(&self, name: &str) -> Result<Found> {
        let mut name = name.to_owned();
        for _ in 0..8 {
            let Some((folder, file)) = self.locate(&name) else { return Ok(Found::Missing) };
            let at = self.tree.resolve_parent(&tree_path(&format!("{folder}/{file}"))?)?;
            if let Some(Kind::Symlink(target)) = self.tree.get(&at).map(|entry| &entry.kind) {
                if target == b"/dev/null" {
                    return Ok(Found::Masked);
                }
                let target = String::from_utf8_lossy(target).into_owned();
                let base = target.rsplit('/').next().unwrap_or_default();
                if base != file && self.locate(base).is_some() {
                    name = instantiate(base, &name);
                    continue;
                }
            }
            let spelled = if folder == "/usr/lib/systemd/system" { self.vendor } else { folder };
            let path = format!("{spelled}/{file}");
            let Some(text) = read_text(self.tree, &format!("{folder}/{file}"))? else { return Ok(Found::Missing) };
            let mut values = parse(&text);
            for text in self.drop_ins(&name)?.values() {
                values.extend(parse(text));
            }
            return Ok(Found::File(Unit { name, path, values }));
        }
        Err(Error::build(format!("unit `{name}`: too many aliases in a row")))
    }

    fn locate(&self, name: &str) -> Option<(&'static str, String)> {
        let find = |file: String| {
            let folder = LOAD_PATH.into_iter().find(|folder| {
                // A link to /dev/null leads nowhere inside a Tree without devices, but it is there.
                let at = tree_path(&format!("{folder}/{file}")).and_then(|path| self.tree.resolve_parent(&path));
                at.is_ok_and(|at| self.tree.contains(&at))
            })?;
            Some((folder, file))
        };
        find(name.to_owned()).or_else(|| find(template_of(name)?))
    }

    /// By file name: a higher folder replaces the same name in a lower one.
    fn drop_ins(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        for folder in LOAD_PATH.iter().rev() {
            for unit in template_of(name).into_iter().chain([name.to_owned()]) {
                let folder = self.tree.resolve(&tree_path(&format!("{folder}/{unit}.d"))?)?;
                for (path, _) in self.tree.children(&folder).filter(|(path, _)| path.file_name().ends_with(b".conf")) {
                    let text = read_text(self.tree, &path.to_string())?.unwrap_or_default();
                    found.insert(String::from_utf8_lossy(path.file_name()).into_owned(), text);
                }
            }
        }
        Ok(found)
    }

    fn missing(&self, name: &str) -> Error {
        let mut known = BTreeSet::new();
        for folder in LOAD_PATH {
            if let Some(folder) = TreePath::new(folder).and_then(|path| self.tree.resolve(&path).ok()) {
                known.extend(
                    self.tree.children(&folder).map(|(p, _)| String::from_utf8_lossy(p.file_name()).into_owned()),
                );
            }
        }
        let near = known
            .iter()
            .map(|known| (strsim::normalized_levenshtein(known, name), known))
            .filter(|(likeness, _)| *likeness > 0.7)
            .max_by(|one, two| one.0.total_cmp(&two.0));
        let error = Error::documents(format!("the image has no unit `{name}`"));
        match near {
            Some((_, near)) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("add the package that brings it, or give `file_content`"),
        }
    }
}

impl Unit {
    /// A key's values; an empty assignment forgets the earlier ones.
    fn list(&self, section: &str, key: &str) -> Vec<String> {
        let mut list = Vec::new();
        for (_, _, value) in self.values.iter().filter(|(s, k, _)| s == section && k == key) {
            if value.is_empty() { list.clear() } else { list.push(value.clone()) }
        }
        list
    }

    /// The words of a key of `[Install]`, specifiers expanded.
    fn words(&self, key: &str) -> Result<Vec<String>> {
        let name = self.instance_name()?.unwrap_or_else(|| self.name.clone());
        let words = self.list("Install", key);
        words.iter().flat_map(|line| line.split_whitespace()).map(|word| expand(word, &name)).collect()
    }

    /// The name that links in `.wants` carry: a template takes its default instance; `None` if it has none.
    fn instance_name(&self) -> Result<Option<String>> {
        let Some((prefix, rest)) = self.name.split_once('@') else { return Ok(Some(self.name.clone())) };
        if !rest.starts_with('.') {
            return Ok(Some(self.name.clone()));
        }
        match self.list("Install", "DefaultInstance").pop() {
            None => Ok(None),
            Some(instance) => Ok(Some(unit_name(&format!("{prefix}@{instance}{rest}"))?.to_owned())),
        }
    }
}

/// A name with a known suffix and nothing that could leave its folder.
pub fn unit_name(name: &str) -> Result<&str> {
    let fine = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let stem = name.rsplit_once('.').map_or("", |(stem, _)| stem);
    if name.len() <= 255 && !stem.is_empty() && name.chars().all(fine) && SUFFIXES.contains(&suffix(name)) {
        return Ok(name);
    }
    Err(Error::documents(format!("`{}` is not the name of a unit", name.escape_debug()))
        .hint("give the full name with its suffix, such as `example.service`"))
}

fn suffix(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, suffix)| suffix)
}

/// `getty@.service` of `getty@tty1.service`.
fn template_of(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (instance, suffix) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{suffix}"))
}

/// An alias to a template keeps the instance it was asked for.
fn instantiate(base: &str, asked: &str) -> String {
    match (base.split_once("@."), asked.split_once('@').and_then(|(_, rest)| rest.rsplit_once('.'))) {
        (Some((prefix, suffix)), Some((instance, _))) => format!("{prefix}@{instance}.{suffix}"),
        _ => base.to_owned(),
    }
}

fn expand(word: &str, name: &str) -> Result<String> {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let mut out = String::new();
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some('i' | 'I') => out += instance,
            Some('j') => out += prefix.rsplit('-').next().unwrap_or(prefix),
            Some('n') => out += name,
            Some('N') => out += stem,
            Some('p') => out += prefix,
            other => {
                let shown = other.map(String::from).unwrap_or_default();
                return Err(Error::build(format!("specifier `%{shown}` in [Install] of `{name}` is not supported")));
            }
        }
    }
    Ok(out)
}

/// systemd.syntax(7): sections, `key=value`, comments, lines joined by a backslash.
fn parse(text: &str) -> Vec<(String, String, String)> {
    let mut values = Vec::new();
    let (mut section, mut joined) = (String::new(), String::new());
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(head) = line.strip_suffix('\\') {
            joined += head.trim_end();
            joined.push(' ');
            continue;
        }
        let whole = std::mem::take(&mut joined) + line;
        if let Some(name) = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = whole.split_once('=') {
            values.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fixture;
    use super::*;

    fn run(tree: &mut Tree, act: impl Fn(&mut Systemd) -> Result<()>) -> Result<()> {
        let origin: Origin = Arc::from("t");
        act(&mut Systemd::new(tree, Mtime::default(), &origin)?)
    }

    fn links(tree: &Tree) -> Vec<String> {
        let folder = TreePath::literal("etc/systemd/system");
        let shown = tree.below(&folder).filter_map(|(path, entry)| match &entry.kind {
            Kind::Symlink(target) => Some(format!("{path} -> {}", String::from_utf8_lossy(target))),
            _ => None,
        });
        shown.collect()
    }

    #[test]
    fn enables_from_the_install_section() {
        let mut tree = Tree::new();
        let unit = "[Unit]\nWantedBy=no.target\n[Install]\n# WantedBy=no.target\nWantedBy=a.target \\\n  b.target\n\
                    RequiredBy=c.target\nAlias=y.service\nAlso=x.socket\n";
        fixture::file(&mut tree, "/usr/lib/systemd/system/x.service", unit);
        fixture::file(
            &mut tree,
            "/usr/lib/systemd/system/x.socket",
            "[Install]\nWantedBy=sockets.target\nAlso=x.service\n",
        );
        run(&mut tree, |systemd| systemd.enable("x.service")).unwrap();
        let expected = [
            "/etc/systemd/system/a.target.wants/x.service -> /usr/lib/systemd/system/x.service",
            "/etc/systemd/system/b.target.wants/x.service -> /usr/lib/systemd/system/x.service",
            "/etc/systemd/system/c.target.requires/x.service -> /usr/lib/systemd/system/x.service",
            "/etc/systemd/system/sockets.target.wants/x.socket -> /usr/lib/systemd/system/x.socket",
            "/etc/systemd/system/y.service -> /usr/lib/systemd/system/x.service",
        ];
        assert_eq!(links(&tree), expected);
        run(&mut tree, |systemd| systemd.disable("x.service")).unwrap();
        assert_eq!(links(&tree), [""; 0]);
    }

    #[test]
    fn templates_and_drop_ins() {
        let mut tree = Tree::new();
        let unit = "[Install]\nWantedBy=no.target\nDefaultInstance=one\n";
        fixture::file(&mut tree, "/usr/lib/systemd/system/t@.service", unit);
        let drop_in = "[Install]\nWantedBy=\nWantedBy=%p-%i.target\n";
        fixture::file(&mut tree, "/etc/systemd/system/t@.service.d/x.conf", drop_in);
        run(&mut tree, |systemd| systemd.enable("t@.service").and_then(|()| systemd.enable("t@two.service"))).unwrap();
        let expected = [
            "/etc/systemd/system/t-one.target.wants/t@one.service -> /usr/lib/systemd/system/t@.service",
            "/etc/systemd/system/t-two.target.wants/t@two.service -> /usr/lib/systemd/system/t@.service",
        ];
        assert_eq!(links(&tree), expected);
    }

    #[test]
    fn what_cannot_be_enabled_says_why() {
        let mut tree = Tree::new();
        fixture::file(&mut tree, "/usr/lib/systemd/system/static.service", "[Service]\nExecStart=/bin/true\n");
        let error = |tree: &mut Tree, name: &str| run(tree, |systemd| systemd.enable(name)).unwrap_err();
        assert!(error(&mut tree, "static.service").to_string().contains("[Install]"));
        assert!(error(&mut tree, "statik.service").hints()[0].contains("static.service"));
        assert!(error(&mut tree, "../x.service").to_string().contains("not the name of a unit"));
        run(&mut tree, |systemd| systemd.mask("static.service")).unwrap();
        assert!(error(&mut tree, "static.service").to_string().contains("masked"));
        run(&mut tree, |systemd| systemd.disable("static.service")).unwrap();
        assert_eq!(links(&tree), ["/etc/systemd/system/static.service -> /dev/null"]);
    }

    #[test]
    fn the_name_of_the_vendor_folder_follows_the_image() {
        let mut tree = Tree::new();
        fixture::file(&mut tree, "/usr/lib/systemd/system/x.service", "[Install]\nWantedBy=a.target\n");
        fixture::link(&mut tree, "/etc/systemd/system/b.target.wants/y.service", "/lib/systemd/system/y.service");
        run(&mut tree, |systemd| systemd.enable("x.service")).unwrap();
        assert!(
            links(&tree)
                .contains(&"/etc/systemd/system/a.target.wants/x.service -> /lib/systemd/system/x.service".into())
        );
    }
}
