//! The dpkg database of a target root: what is installed, which package owns which path, diversions, overrides.
//!
//! Owns: [`Database`]: reading it, adding packages in state `unpacked` exactly as dpkg leaves them after `dpkg
//! --unpack`, and writing it. Formats: deb-old-style files of dpkg 1.21 under `/var/lib/dpkg` (dpkg(1), dpkg-query(1),
//! deb-triggers(5), dpkg-divert(1), dpkg-statoverride(1)); multi-arch file names (`info/format` 1). Later changes of
//! state are dpkg's own.

use std::collections::{BTreeMap, HashMap};

use super::binary::{Binary, Interest};
use super::root::Root;
use super::{deb822, relation};
use crate::error::{Context, Error, Result};
use crate::tree::TreePath;

const FOLDER: &str = "var/lib/dpkg";

/// A package that is in the database.
#[derive(Debug, Clone)]
pub struct Known {
    pub name: String,
    pub version: String,
    pub architecture: String,
    /// Name of its files in `info/`.
    pub info_name: String,
    pub installed: bool,
    replaces: String,
    provides: String,
    stanza: String,
}

/// One line of three of the diversions file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Diversion {
    to: TreePath,
    /// `None` for a local diversion, which holds for every package.
    package: Option<String>,
}

/// Owner and mode that a path gets whatever the package says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    pub user: String,
    pub group: String,
    pub mode: u16,
}

#[derive(Debug, Default)]
pub struct Database {
    /// By `info_name`.
    packages: BTreeMap<String, Known>,
    /// Path -> `info_name`s of owners. Only looked up.
    owners: HashMap<TreePath, Vec<String>>,
    /// Lists of packages whose list file is to be written.
    lists: BTreeMap<String, Vec<TreePath>>,
    diversions: BTreeMap<TreePath, Diversion>,
    overrides: BTreeMap<TreePath, Override>,
    /// Lines of `triggers/File`: path and `package[/noawait]`, in the order they were registered.
    file_interests: Vec<(TreePath, String)>,
    /// Other triggers, by name.
    named_interests: BTreeMap<String, Vec<String>>,
    /// File triggers set off by unpacking, for dpkg's next run.
    activated: std::collections::BTreeSet<TreePath>,
}

/// The place of a database file.
pub fn at(relative: &str) -> Result<TreePath> {
    TreePath::new(format!("{FOLDER}/{relative}"))
        .ok_or_else(|| Error::build(format!("`{relative}` cannot be the name of a database file")))
}

/// As dpkg writes paths in its lists: absolute, `/.` for the root.
fn listed(path: &TreePath) -> Vec<u8> {
    if path.is_root() { b"/.".to_vec() } else { [b"/", path.as_bytes()].concat() }
}

impl Database {
    pub fn load(root: &Root) -> Result<Self> {
        let mut database = Database::default();
        let status = root.read_text(&at("status")?)?;
        for text in status.split("\n\n").map(|text| text.trim_matches('\n')).filter(|text| !text.is_empty()) {
            let known = parse_known(text)?;
            database.packages.insert(known.info_name.clone(), known);
        }
        for info_name in database.packages.keys().cloned().collect::<Vec<_>>() {
            for path in read_list(root, &info_name)? {
                database.owners.entry(path).or_default().push(info_name.clone());
            }
        }
        database.load_diversions(root)?;
        database.load_overrides(root)?;
        database.load_interests(root)?;
        Ok(database)
    }

    pub fn packages(&self) -> impl Iterator<Item = &Known> {
        self.packages.values()
    }

    /// A package by its bare name.
    pub fn find(&self, name: &str) -> Option<&Known> {
        self.packages.values().find(|known| known.name == name)
    }

    /// Names a package stands for besides its own.
    pub fn provides<'a>(&self, known: &'a Known) -> &'a str {
        &known.provides
    }

    fn load_diversions(&mut self, root: &Root) -> Result<()> {
        let text = root.read_text(&at("diversions")?)?;
        let lines: Vec<&str> = text.lines().collect();
        for lines in lines.chunks(3) {
            let broken = || Error::build("the diversions file of the target is damaged");
            let [from, to, package] = lines else { return Err(broken()) };
            let from = TreePath::new(from).ok_or_else(broken)?;
            let to = TreePath::new(to).ok_or_else(broken)?;
            let package = (*package != ":").then(|| package.to_string());
            self.diversions.insert(from, Diversion { to, package });
        }
        Ok(())
    }

    fn load_overrides(&mut self, root: &Root) -> Result<()> {
        let text = root.read_text(&at("statoverride")?)?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let broken = || Error::build("the statoverride file of the target is damaged");
            let mut words = line.splitn(4, ' ');
            let (user, group) = (words.next().ok_or_else(broken)?, words.next().ok_or_else(broken)?);
            let mode = words.next().and_then(|mode| u16::from_str_radix(mode, 8).ok()).ok_or_else(broken)?;
            let path = words.next().and_then(TreePath::new).ok_or_else(broken)?;
            let rule = Override { user: user.to_string(), group: group.to_string(), mode: mode & 0o7777 };
            self.overrides.insert(path, rule);
        }
        Ok(())
    }

    fn load_interests(&mut self, root: &Root) -> Result<()> {
        for line in root.read_text(&at("triggers/File")?)?.lines() {
            if let Some((path, package)) = line.rsplit_once(' ') {
                let path = TreePath::new(path).ok_or_else(|| Error::build("triggers/File of the target is damaged"))?;
                self.file_interests.push((path, package.to_string()));
            }
        }
        for name in root.names(&at("triggers")?)? {
            let Ok(name) = String::from_utf8(name) else { continue };
            if !matches!(name.as_str(), "File" | "Unincorp" | "Lock") {
                let lines = root.read_text(&at(&format!("triggers/{name}"))?)?;
                self.named_interests.insert(name, lines.lines().map(str::to_string).collect());
            }
        }
        Ok(())
    }

    /// Where a package's file really goes: its own path, unless another package (or the administrator) diverts it.
    pub fn divert(&self, path: &TreePath, package: &str) -> Option<&TreePath> {
        let diversion = self.diversions.get(path)?;
        (diversion.package.as_deref() != Some(package)).then_some(&diversion.to)
    }

    pub fn override_of(&self, path: &TreePath) -> Option<&Override> {
        self.overrides.get(path)
    }

    /// Who owns a path, but for one package.
    pub fn other_owners(&self, path: &TreePath, but: &str) -> Vec<&Known> {
        let owners = self.owners.get(path).map(Vec::as_slice).unwrap_or_default();
        owners.iter().filter(|owner| *owner != but).filter_map(|owner| self.packages.get(owner)).collect()
    }

    /// Takes a path away from its owner, whose list is written again.
    pub fn disown(&mut self, root: &Root, path: &TreePath, owner: &str) -> Result<()> {
        if !self.lists.contains_key(owner) {
            self.lists.insert(owner.to_string(), read_list(root, owner)?);
        }
        if let Some(list) = self.lists.get_mut(owner) {
            list.retain(|listed| listed != path);
        }
        if let Some(owners) = self.owners.get_mut(path) {
            owners.retain(|other| other != owner);
        }
        Ok(())
    }

    /// Enters a package before its files are unpacked.
    pub fn announce(&mut self, binary: &Binary) -> Result<()> {
        let known = parse_known(&binary.stanza("install reinstreq half-installed", &[]))?;
        if self.packages.insert(binary.info_name(), known).is_some() {
            return Err(Error::build(format!("package `{}` is in the target already", binary.name)));
        }
        Ok(())
    }

    /// A path of a package has been unpacked.
    pub fn own(&mut self, path: &TreePath, info_name: &str) {
        self.owners.entry(path.clone()).or_default().push(info_name.to_string());
        // Packages that are not configured yet will see the file when they are.
        let listens = |line: &str| {
            let package = line.strip_suffix("/noawait").unwrap_or(line);
            self.packages.get(package).is_some_and(|known| known.installed)
        };
        for (interest, line) in &self.file_interests {
            let hit = path == interest || path.is_below(interest);
            if hit && !self.activated.contains(interest) && listens(line) {
                self.activated.insert(interest.clone());
            }
        }
    }

    /// All of a package has been unpacked: `list` in the order of its archive, one line per conffile.
    pub fn unpacked(&mut self, binary: &Binary, list: Vec<TreePath>, conffiles: &[String]) -> Result<()> {
        let info_name = binary.info_name();
        self.packages.insert(info_name.clone(), parse_known(&binary.stanza("install ok unpacked", conffiles))?);
        for interest in &binary.interests {
            self.register(&info_name, interest)?;
        }
        self.lists.insert(info_name, list);
        Ok(())
    }

    fn register(&mut self, info_name: &str, interest: &Interest) -> Result<()> {
        let mark = if interest.awaited { "" } else { "/noawait" };
        let line = format!("{info_name}{mark}");
        if interest.trigger.starts_with('/') {
            let path = TreePath::new(&interest.trigger).ok_or_else(|| Error::build("a trigger is not a path"))?;
            self.file_interests.push((path, line));
        } else {
            self.named_interests.entry(interest.trigger.clone()).or_default().push(line);
        }
        Ok(())
    }

    /// Whether `package` declares that it replaces files of `other`.
    pub fn replaces(&self, package: &Known, other: &Known) -> Result<bool> {
        let mut found = false;
        relation::alternatives(&package.replaces, |relation, _| {
            let name = relation.name.split(':').next().unwrap_or_default();
            found |= name == other.name && relation.allows(Some(&other.version));
        })
        .with_context(|| format!("reading Replaces of package `{}`", package.name))?;
        Ok(found)
    }

    pub fn get(&self, info_name: &str) -> Option<&Known> {
        self.packages.get(info_name)
    }

    /// Writes everything that has changed.
    pub fn save(&mut self, root: &Root) -> Result<()> {
        for folder in ["alternatives", "info", "parts", "triggers", "updates"] {
            root.make_folders(&at(folder)?)?;
        }
        for (info_name, list) in std::mem::take(&mut self.lists) {
            let mut bytes = Vec::new();
            for path in &list {
                bytes.extend_from_slice(&listed(path));
                bytes.push(b'\n');
            }
            root.write(&at(&format!("info/{info_name}.list"))?, &bytes, 0o644)?;
        }
        let mut stanzas: Vec<&Known> = self.packages.values().collect();
        stanzas.sort_by(|one, two| (&one.name, &one.architecture).cmp(&(&two.name, &two.architecture)));
        let status: String = stanzas.iter().map(|known| format!("{}\n\n", known.stanza.trim_end())).collect();
        root.write(&at("status")?, status.as_bytes(), 0o644)?;
        root.write(&at("info/format")?, b"1\n", 0o644)?;
        if root.stat(&at("available")?)?.is_none() {
            root.write(&at("available")?, b"", 0o644)?;
        }
        self.save_triggers(root)
    }

    fn save_triggers(&mut self, root: &Root) -> Result<()> {
        let mut files = Vec::new();
        for (path, package) in &self.file_interests {
            files.extend_from_slice(&listed(path));
            files.extend_from_slice(format!(" {package}\n").as_bytes());
        }
        if !files.is_empty() {
            root.write(&at("triggers/File")?, &files, 0o644)?;
        }
        for (name, lines) in &self.named_interests {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            root.write(&at(&format!("triggers/{name}"))?, text.as_bytes(), 0o644)?;
        }
        if !self.activated.is_empty() {
            let mut pending = root.read(&at("triggers/Unincorp")?)?.unwrap_or_default();
            for path in std::mem::take(&mut self.activated) {
                pending.extend_from_slice(&listed(&path));
                pending.extend_from_slice(b" -\n");
            }
            root.write(&at("triggers/Unincorp")?, &pending, 0o644)?;
        }
        Ok(())
    }

    /// Which package every path of the target comes from, for origins; a diverted file by where it lies.
    pub fn origins(&self) -> HashMap<TreePath, String> {
        let mut origins = HashMap::new();
        for (path, owners) in &self.owners {
            for owner in owners {
                let name = self.packages.get(owner).map(|known| known.name.clone()).unwrap_or_default();
                let place = self.divert(path, &name).unwrap_or(path).clone();
                // A folder of many packages: the first one by name.
                let slot = origins.entry(place).or_insert_with(|| name.clone());
                if name < *slot {
                    *slot = name;
                }
            }
        }
        origins
    }
}

fn read_list(root: &Root, info_name: &str) -> Result<Vec<TreePath>> {
    let bytes = root.read(&at(&format!("info/{info_name}.list"))?)?.unwrap_or_default();
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let broken = || Error::build(format!("the file list of package `{info_name}` is damaged"));
    lines.map(|line| TreePath::new(line).ok_or_else(broken)).collect()
}

fn parse_known(text: &str) -> Result<Known> {
    let stanza =
        deb822::stanzas(text).next().ok_or_else(|| Error::build("the status file of the target is damaged"))?;
    let field = |name: &str| stanza.get(name).unwrap_or_default().to_string();
    let (name, architecture) = (field("Package"), field("Architecture"));
    if !relation::is_name(&name) || architecture.contains('/') {
        return Err(Error::build("the status file of the target is damaged"));
    }
    let same = stanza.get("Multi-Arch") == Some("same");
    let info_name = if same { format!("{name}:{architecture}") } else { name.clone() };
    let installed = stanza.get("Status").is_some_and(|status| status.ends_with(" installed"));
    let (version, replaces, provides) = (field("Version"), field("Replaces"), field("Provides"));
    Ok(Known { name, version, architecture, info_name, installed, replaces, provides, stanza: text.to_string() })
}
