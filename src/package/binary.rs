//! One binary package before it is unpacked: its fields, scripts, configuration files and triggers.
//!
//! Owns: [`Binary`], read from a `.deb` or from what the store keeps of one. Follows Debian Policy chapter 5 and 6, deb-control(5), deb-conffiles(5) and
//! deb-triggers(5).

use std::collections::BTreeMap;
use std::path::Path;

use super::deb::{ControlFile, Deb};
use super::kept::{self, Kept, Member};
use super::{deb822, relation};
use crate::error::{Context, Error, Result};
use crate::tree::store::Store;
use crate::tree::{Digest, TreePath};

/// Order of the fields in the status file; others follow as they come.
const FIELD_ORDER: [&str; 25] = [
    "Package",
    "Essential",
    "Protected",
    "Status",
    "Priority",
    "Section",
    "Installed-Size",
    "Origin",
    "Maintainer",
    "Bugs",
    "Architecture",
    "Multi-Arch",
    "Source",
    "Version",
    "Config-Version",
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
    "Conffiles",
];
const DESCRIPTION: &str = "Description";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conffile {
    pub path: TreePath,
    pub remove_on_upgrade: bool,
}

/// A trigger that a package wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// A word, or an absolute path for file triggers.
    pub trigger: String,
    /// Whether packages that activate it wait for it.
    pub awaited: bool,
}

/// Where the files of a package come from.
#[derive(Debug)]
pub enum Source {
    Deb(Deb),
    /// Decompressed before.
    Kept(Vec<Member>),
}

#[derive(Debug)]
pub struct Binary {
    pub source: Source,
    /// The digest of the `.deb`, for who wants to keep what is in it.
    pub sha256: Option<Digest>,
    pub name: String,
    pub version: String,
    pub architecture: String,
    pub essential: bool,
    /// `Multi-Arch: same`: dpkg writes its name with the architecture.
    pub same: bool,
    fields: Vec<(String, String)>,
    pub files: BTreeMap<String, ControlFile>,
    pub conffiles: Vec<Conffile>,
    pub interests: Vec<Interest>,
}

impl Binary {
    pub fn open(path: &Path) -> Result<Self> {
        let deb = Deb::open(path)?;
        let files = deb.control()?;
        Self::new(Source::Deb(deb), files).with_context(|| format!("reading control member of {}", path.display()))
    }

    /// The package of this digest: from the store if it was decompressed before, else from its file, which was compared
    /// with the digest.
    pub fn open_known(path: &Path, sha256: Digest, store: &Store) -> Result<Self> {
        let kept = |kept: Kept| Self::new(Source::Kept(kept.members), kept::control_files(&kept.control)?);
        let found = store.record(sha256).map(|record| kept::read(&record).and_then(kept));
        // What is wrong with it is found out by its digests, too; the file is there in any case.
        let binary = match found {
            Some(Ok(binary)) => binary,
            _ => Self::open(path)?,
        };
        Ok(Binary { sha256: Some(sha256), ..binary })
    }

    fn new(source: Source, files: BTreeMap<String, ControlFile>) -> Result<Self> {
        let text = |name: &str| -> Result<String> {
            let bytes = files.get(name).map(|file| file.bytes.clone()).unwrap_or_default();
            String::from_utf8(bytes).map_err(|_| Error::build(format!("control file `{name}` is not UTF-8")))
        };
        let control = text("control")?;
        let stanza = deb822::stanzas(&control).next().ok_or_else(|| Error::build("no control file"))?;
        let fields: Vec<(String, String)> =
            stanza.fields().map(|(name, value)| (name.to_string(), tidy(name, value))).collect();
        let need = |wanted: &str| {
            let value = stanza.get(wanted).filter(|value| is_word(value)).map(str::to_string);
            value.ok_or_else(|| Error::build(format!("field `{wanted}` is missing or not one word")))
        };
        let (name, version, architecture) = (need("Package")?, need("Version")?, need("Architecture")?);
        if !relation::is_name(&name) || name.contains(':') || architecture.contains('/') {
            return Err(Error::build(format!("`{name}` is not a package name")));
        }
        let conffiles = conffiles(&text("conffiles")?)?;
        let interests = interests(&text("triggers")?)?;
        let is = |field: &str, wanted: &str| stanza.get(field).is_some_and(|value| value == wanted);
        let (essential, same) = (is("Essential", "yes"), is("Multi-Arch", "same"));
        Ok(Binary {
            source,
            sha256: None,
            name,
            version,
            architecture,
            essential,
            same,
            fields,
            files,
            conffiles,
            interests,
        })
    }

    /// About how much work its files are: bytes that are read.
    pub fn size(&self) -> u64 {
        match &self.source {
            Source::Deb(deb) => deb.data_size(),
            Source::Kept(members) => members.iter().filter_map(|member| Some(member.file.as_ref()?.0.size())).sum(),
        }
    }

    /// The value of a field; empty if there is none.
    pub fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// The name of its files in the database, and its name where dpkg must tell architectures apart.
    pub fn info_name(&self) -> String {
        if self.same { format!("{}:{}", self.name, self.architecture) } else { self.name.clone() }
    }

    /// Its stanza of the status file, with the given status word and Conffiles lines.
    pub fn stanza(&self, status: &str, conffiles: &[String]) -> String {
        let mut out = String::new();
        let mut put = |name: &str, value: &str| {
            let gap = if value.starts_with('\n') || value.is_empty() { "" } else { " " };
            out.push_str(&format!("{name}:{gap}{value}\n"));
        };
        for name in FIELD_ORDER {
            match name {
                "Status" => put(name, status),
                "Conffiles" if !conffiles.is_empty() => {
                    put(name, &conffiles.iter().map(|line| format!("\n {line}")).collect::<String>());
                }
                _ if self.field(name).is_empty() => {}
                _ => put(name, self.field(name)),
            }
        }
        if !self.field(DESCRIPTION).is_empty() {
            put(DESCRIPTION, self.field(DESCRIPTION));
        }
        for (name, value) in &self.fields {
            let known = FIELD_ORDER.iter().chain([&DESCRIPTION]).any(|known| known.eq_ignore_ascii_case(name));
            if !known && !value.is_empty() {
                put(name, value);
            }
        }
        out
    }
}

fn is_word(value: &str) -> bool {
    !value.is_empty() && !value.contains(char::is_whitespace)
}

/// Folded fields are joined; in a relation field, runs of white space become one space, as dpkg writes them.
fn tidy(name: &str, value: &str) -> String {
    const RELATIONS: [&str; 9] =
        ["Replaces", "Provides", "Depends", "Pre-Depends", "Recommends", "Suggests", "Breaks", "Conflicts", "Enhances"];
    if RELATIONS.iter().any(|field| field.eq_ignore_ascii_case(name)) {
        return value.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches(',').to_string();
    }
    value.to_string()
}

fn conffiles(text: &str) -> Result<Vec<Conffile>> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (remove_on_upgrade, path) = match line.strip_prefix("remove-on-upgrade ") {
            Some(path) => (true, path.trim()),
            None => (false, line),
        };
        let wrong = || Error::build(format!("conffile `{path}` is not an absolute path"));
        let path = TreePath::new(path).filter(|_| path.starts_with('/')).ok_or_else(wrong)?;
        found.push(Conffile { path, remove_on_upgrade });
    }
    Ok(found)
}

/// The `interest` lines. What a package activates is dpkg's business when it configures.
fn interests(text: &str) -> Result<Vec<Interest>> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let awaited = match words.next() {
            Some("interest" | "interest-await") => true,
            Some("interest-noawait") => false,
            _ => continue,
        };
        let trigger = words.next().filter(|trigger| is_trigger(trigger));
        let trigger = trigger.ok_or_else(|| Error::build(format!("`{line}` names no trigger")))?;
        found.push(Interest { trigger: trigger.to_string(), awaited });
    }
    Ok(found)
}

/// A word that is safe as a file name, or an absolute path without `..`.
fn is_trigger(name: &str) -> bool {
    let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
    let path = name.starts_with('/') && TreePath::new(name).is_some();
    printable
        && (path || !name.contains('/') && !name.starts_with('.') && !matches!(name, "File" | "Unincorp" | "Lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conffiles_and_triggers() {
        let found = conffiles("/etc/a\nremove-on-upgrade /etc/b\n\n").unwrap();
        assert_eq!(found[0], Conffile { path: TreePath::literal("etc/a"), remove_on_upgrade: false });
        assert!(found[1].remove_on_upgrade);
        assert!(conffiles("etc/a").is_err() && conffiles("/etc/../../x").is_err());
        let found = interests("# c\ninterest-noawait /usr/share/x\nactivate y\n interest z # why\n").unwrap();
        assert_eq!(found[0], Interest { trigger: "/usr/share/x".into(), awaited: false });
        assert_eq!(found[1], Interest { trigger: "z".into(), awaited: true });
        for hostile in ["../x", "a/b", "/../x", "File", ".."] {
            assert!(interests(&format!("interest {hostile}")).is_err(), "{hostile}");
        }
    }

    #[test]
    fn relations_are_joined() {
        assert_eq!(tidy("Depends", "a (>=  1),\n b |\n c,"), "a (>= 1), b | c");
        assert_eq!(tidy("Description", "x\n y"), "x\n y");
    }
}
