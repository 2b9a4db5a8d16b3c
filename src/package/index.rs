//! Package indexes (`Packages` files) of all repositories, merged into one graph of names, versions and relations.
//!
//! Owns: [`Universe`]. Text is borrowed from the decompressed indexes. Names are numbered in the order in which they
//! are first met (a package, then what its relations mention, then what it provides): apt numbers them the same way
//! and breaks ties between providers by it. What a stanza says by itself is read on all cores, the numbering is done in
//! the order of the text.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::error::{Context, Error, Kind, Result};
use crate::tree::Digest;

use super::deb822::{Stanza, stanzas};
use super::relation::{self, Relation};
use super::version;

pub type NameId = u32;
pub type VersionId = u32;

/// One index and where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Index<'a> {
    /// The name of the repository in the documents.
    pub repository: &'a str,
    /// apt pin priority of everything in it.
    pub pin: i32,
    pub text: &'a str,
}

/// A name that a package has or that a relation mentions.
#[derive(Debug, Default)]
pub struct Name<'a> {
    /// Without `:any`, where that is part of it.
    pub name: &'a str,
    /// Latest first.
    pub versions: Vec<VersionId>,
    /// Versions of other packages that provide this name, each with the version it is provided in.
    pub providers: Vec<(VersionId, Option<&'a str>)>,
    pub essential: bool,
    pub important: bool,
}

/// Debian's package priorities, in apt's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    Unset,
    Required,
    Important,
    Standard,
    Optional,
    Extra,
}

/// One version of one package.
#[derive(Debug)]
pub struct Version<'a> {
    pub name: NameId,
    pub version: &'a str,
    pub architecture: &'a str,
    pub priority: Priority,
    pub essential: bool,
    pub pin: i32,
    pub repository: &'a str,
    pub path: &'a str,
    pub size: u64,
    pub sha256: Digest,
    groups: std::ops::Range<u32>,
}

/// What a relation field asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Relationship {
    PreDepends,
    #[default]
    Depends,
    Conflicts,
    Breaks,
    Recommends,
    Suggests,
}

impl Relationship {
    /// Keeps others out instead of wanting them.
    pub fn is_negative(self) -> bool {
        matches!(self, Relationship::Conflicts | Relationship::Breaks)
    }

    /// Must hold, or the package cannot be installed.
    pub fn is_critical(self) -> bool {
        !matches!(self, Relationship::Recommends | Relationship::Suggests)
    }

    pub fn field(self) -> &'static str {
        match self {
            Relationship::PreDepends => "Pre-Depends",
            Relationship::Depends => "Depends",
            Relationship::Conflicts => "Conflicts",
            Relationship::Breaks => "Breaks",
            Relationship::Recommends => "Recommends",
            Relationship::Suggests => "Suggests",
        }
    }
}

/// Alternatives, one of which must hold (a negative relation has only one).
#[derive(Debug, Clone)]
pub struct Group {
    pub kind: Relationship,
    alternatives: std::ops::Range<u32>,
}

#[derive(Debug, Clone, Copy)]
pub struct Alternative<'a> {
    pub target: NameId,
    pub relation: Relation<'a>,
}

/// Everything the repositories offer for one architecture.
#[derive(Debug)]
pub struct Universe<'a> {
    pub architecture: &'a str,
    names: Vec<Name<'a>>,
    versions: Vec<Version<'a>>,
    groups: Vec<Group>,
    alternatives: Vec<Alternative<'a>>,
    by_name: HashMap<&'a str, NameId>,
    /// The names with `:any`, by what stands before it.
    by_any: HashMap<&'a str, NameId>,
}

impl<'a> Universe<'a> {
    pub fn read(architecture: &'a str, indexes: &[Index<'a>]) -> Result<Self> {
        let mut universe = Universe {
            architecture,
            names: Vec::new(),
            versions: Vec::new(),
            groups: Vec::new(),
            alternatives: Vec::new(),
            by_name: HashMap::new(),
            by_any: HashMap::new(),
        };
        for index in indexes {
            let pieces = pieces(index.text);
            for some in pieces.chunks(PIECES) {
                crate::interrupt::check()?;
                let parse = |piece: &&'a str| -> Vec<Result<Parsed<'a>>> {
                    stanzas(piece).filter_map(|stanza| Parsed::read(stanza, architecture).transpose()).collect()
                };
                let parsed: Vec<Vec<Result<Parsed<'a>>>> = some.par_iter().map(parse).collect();
                for package in parsed.into_iter().flatten() {
                    let package = package.with_context(|| format!("reading the index of {}", index.repository))?;
                    universe.add(index, package);
                }
            }
        }
        // Latest first; of equal ones the first read stays in front.
        let Universe { names, versions, .. } = &mut universe;
        for name in names {
            name.versions
                .sort_by(|a, b| version::compare(versions[*b as usize].version, versions[*a as usize].version));
        }
        Ok(universe)
    }

    pub fn name(&self, id: NameId) -> &Name<'a> {
        &self.names[id as usize]
    }

    pub fn version(&self, id: VersionId) -> &Version<'a> {
        &self.versions[id as usize]
    }

    pub fn find(&self, name: &str) -> Option<NameId> {
        self.by_name.get(name).copied()
    }

    pub fn names(&self) -> impl Iterator<Item = (NameId, &Name<'a>)> {
        self.names.iter().enumerate().map(|(id, name)| (id as NameId, name))
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All relation groups of a version, in the order apt looks at them.
    pub fn groups(&self, version: VersionId) -> &[Group] {
        let range = &self.versions[version as usize].groups;
        &self.groups[range.start as usize..range.end as usize]
    }

    pub fn alternatives(&self, group: &Group) -> &[Alternative<'a>] {
        &self.alternatives[group.alternatives.start as usize..group.alternatives.end as usize]
    }

    /// Makes this version of a package its candidate, as an apt pin above 1000 does.
    pub fn prefer(&mut self, version: VersionId) {
        self.versions[version as usize].pin = i32::MAX;
    }

    /// Priorities come from the archive (its overrides); what a package says itself may be older.
    pub fn set_priority(&mut self, version: VersionId, priority: Priority) {
        self.versions[version as usize].priority = priority;
    }

    fn add(&mut self, index: &Index<'a>, package: Parsed<'a>) {
        let Parsed { fields, size, sha256, .. } = package;
        let id = self.intern(fields.package);
        let name = &mut self.names[id as usize];
        // apt counts itself among the essential packages.
        name.essential |= fields.essential || fields.package == "apt";
        name.important |= fields.important || fields.package == "apt";
        // The same version in a further repository: only its pin priority counts.
        for known in &self.names[id as usize].versions {
            let known = &mut self.versions[*known as usize];
            if known.version == fields.version && known.sha256 == sha256 {
                known.pin = known.pin.max(index.pin);
                return;
            }
        }
        let first_group = self.groups.len() as u32;
        for (kind, relation, first) in package.relations {
            self.add_relation(kind, relation, first);
        }
        for name in package.mentioned {
            self.target(name);
        }
        let version = self.versions.len() as VersionId;
        self.versions.push(Version {
            name: id,
            version: fields.version,
            architecture: fields.architecture,
            priority: priority(fields.priority),
            essential: fields.essential,
            pin: index.pin,
            repository: index.repository,
            path: fields.filename,
            size,
            sha256,
            groups: first_group..self.groups.len() as u32,
        });
        self.names[id as usize].versions.push(version);
        self.add_provides(version, &fields, package.provides);
    }

    fn add_relation(&mut self, kind: Relationship, relation: Relation<'a>, first: bool) {
        let target = self.target(relation.name);
        self.alternatives.push(Alternative { target, relation });
        let end = self.alternatives.len() as u32;
        match self.groups.last_mut() {
            Some(group) if !first && !kind.is_negative() => group.alternatives.end = end,
            _ => self.groups.push(Group { kind, alternatives: end - 1..end }),
        }
    }

    fn add_provides(&mut self, version: VersionId, fields: &Fields<'a>, provided: Vec<Provided<'a>>) {
        let own = self.versions[version as usize].name;
        let allowed = fields.multi_arch.eq_ignore_ascii_case("allowed");
        for (name, as_version) in provided {
            if allowed && !name.contains(':') {
                let any = self.intern_any(name);
                self.names[any as usize].providers.push((version, as_version));
            }
            let target = self.target(name);
            if target != own || !(as_version.is_none() || as_version == Some(fields.version)) {
                self.names[target as usize].providers.push((version, as_version));
            }
        }
        if allowed {
            let any = self.intern_any(fields.package);
            self.names[any as usize].providers.push((version, Some(fields.version)));
        }
    }

    /// What a relation means by a name: `x:amd64` is plain `x` when that is the architecture, `x:any` and foreign
    /// ones stand for themselves.
    fn target(&mut self, name: &'a str) -> NameId {
        match name.split_once(':') {
            Some((plain, "any")) => self.intern_any(plain),
            Some((plain, qualifier)) if qualifier == self.architecture || qualifier == "native" => self.intern(plain),
            _ => self.intern(name),
        }
    }

    fn intern(&mut self, name: &'a str) -> NameId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = self.names.len() as NameId;
        self.names.push(Name { name, ..Name::default() });
        self.by_name.insert(name, id);
        id
    }

    /// `name:any`: a name of its own, which only packages marked `Multi-Arch: allowed` have.
    fn intern_any(&mut self, name: &'a str) -> NameId {
        if let Some(id) = self.by_any.get(name) {
            return *id;
        }
        let id = self.names.len() as NameId;
        self.names.push(Name { name, ..Name::default() });
        self.by_any.insert(name, id);
        id
    }
}

/// The fields of a stanza that matter here; absent ones are empty.
#[derive(Default)]
struct Fields<'a> {
    package: &'a str,
    version: &'a str,
    architecture: &'a str,
    multi_arch: &'a str,
    priority: &'a str,
    essential: bool,
    important: bool,
    filename: &'a str,
    size: &'a str,
    sha256: &'a str,
    relations: [(Relationship, &'a str); 6],
    replaces: &'a str,
    enhances: &'a str,
    provides: &'a str,
}

impl<'a> Fields<'a> {
    fn read(stanza: Stanza<'a>) -> Self {
        use Relationship::{Breaks, Conflicts, Depends, PreDepends, Recommends, Suggests};
        let mut fields = Fields {
            relations: [PreDepends, Depends, Conflicts, Breaks, Recommends, Suggests].map(|kind| (kind, "")),
            ..Fields::default()
        };
        for (name, value) in stanza.fields() {
            match name {
                "Package" => fields.package = value,
                "Version" => fields.version = value,
                "Architecture" => fields.architecture = value,
                "Multi-Arch" => fields.multi_arch = value,
                "Priority" => fields.priority = value,
                "Essential" => fields.essential = value.eq_ignore_ascii_case("yes"),
                "Important" | "Protected" => fields.important |= value.eq_ignore_ascii_case("yes"),
                "Filename" => fields.filename = value,
                "Size" => fields.size = value,
                "SHA256" => fields.sha256 = value,
                "Pre-Depends" => fields.relations[0].1 = value,
                "Depends" => fields.relations[1].1 = value,
                "Conflicts" => fields.relations[2].1 = value,
                "Breaks" => fields.relations[3].1 = value,
                "Recommends" => fields.relations[4].1 = value,
                "Suggests" => fields.relations[5].1 = value,
                "Replaces" => fields.replaces = value,
                "Enhances" => fields.enhances = value,
                "Provides" => fields.provides = value,
                _ => {}
            }
        }
        fields
    }
}

/// Bytes of a piece of an index that a thread reads.
const PIECE: usize = 1 << 20;
/// Pieces that are read before what they hold is numbered.
const PIECES: usize = 16;

/// Cuts a text where stanzas end.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.as_bytes().get(PIECE..).and_then(|later| memchr::memmem::find(later, b"\n\n"));
        let (piece, after) = rest.split_at(end.map_or(rest.len(), |end| PIECE + end));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// A name that is provided, and in which version.
type Provided<'a> = (&'a str, Option<&'a str>);

/// A stanza by itself: all that can be said of it without the others.
struct Parsed<'a> {
    fields: Fields<'a>,
    size: u64,
    sha256: Digest,
    /// In the order apt looks at them; `true` where a new group begins.
    relations: Vec<(Relationship, Relation<'a>, bool)>,
    /// Only mentioned, for the numbering of names.
    mentioned: Vec<&'a str>,
    provides: Vec<Provided<'a>>,
}

impl<'a> Parsed<'a> {
    /// Nothing for a package of another architecture.
    fn read(stanza: Stanza<'a>, architecture: &str) -> Result<Option<Self>> {
        let fields = Fields::read(stanza);
        let name = fields.package;
        if name.contains(':') || !relation::is_name(name) {
            return Err(malformed(format!("`{name}` is not a package name")));
        }
        if fields.architecture != architecture && fields.architecture != "all" {
            return Ok(None);
        }
        Self::of(fields).map(Some).with_context(|| format!("reading package {name}"))
    }

    fn of(fields: Fields<'a>) -> Result<Self> {
        let sha256 = Digest::from_hex(fields.sha256)
            .ok_or_else(|| malformed(format!("`{}` is not a SHA-256 digest", fields.sha256)))?;
        let size = fields.size.parse().map_err(|_| malformed(format!("`{}` is not a size", fields.size)))?;
        check_version(fields.version)?;
        check_path(fields.filename)?;
        let mut relations = Vec::new();
        for (kind, field) in fields.relations {
            relation::alternatives(field, |relation, first| relations.push((kind, relation, first)))?;
        }
        let mut mentioned = Vec::new();
        for field in [fields.replaces, fields.enhances] {
            relation::alternatives(field, |relation, _| mentioned.push(relation.name))?;
        }
        let mut provides = Vec::new();
        relation::alternatives(fields.provides, |relation, _| match relation.constraint {
            None => provides.push((relation.name, None)),
            Some((version::Operator::Equal, version)) => provides.push((relation.name, Some(version))),
            // Policy allows only `=`; apt ignores the rest.
            Some(_) => {}
        })?;
        Ok(Parsed { fields, size, sha256, relations, mentioned, provides })
    }
}

fn priority(text: &str) -> Priority {
    match text {
        "" => Priority::Unset,
        "required" => Priority::Required,
        "important" => Priority::Important,
        "standard" => Priority::Standard,
        "optional" => Priority::Optional,
        _ => Priority::Extra,
    }
}

pub fn check_version(version: &str) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-' | b'~' | b':' | b'_');
    if version.is_empty() || !version.bytes().all(legal) {
        return Err(malformed(format!("`{version}` is not a version")));
    }
    Ok(())
}

/// A path below the repository's address: relative, without `..`, without anything an address cannot hold.
pub fn check_path(path: &str) -> Result<()> {
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\' | b'"'));
    if path.is_empty() || !plain || path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(malformed(format!("`{path}` is not a file name below the repository")));
    }
    Ok(())
}

fn malformed(message: String) -> Error {
    Error::new(Kind::Build, message).hint("the index is signed like this: tell the maintainers of the repository")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn stanza(name: &str, version: &str, more: &str) -> String {
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/{name}_{version}.deb\n\
             Size: 10\nSHA256: {DIGEST}\n{more}\n"
        )
    }

    fn read(text: &str) -> Result<Universe<'_>> {
        Universe::read("amd64", &[Index { repository: "test", pin: 500, text }])
    }

    #[test]
    fn names_are_numbered_as_they_come_up_and_versions_sorted() {
        let text = stanza("b", "1", "Depends: z | y, x:any\nProvides: v (= 2), w\n")
            + &stanza("b", "1.10", "")
            + &stanza("b", "1.9", "")
            + &stanza("a", "1", "Multi-Arch: allowed\nPre-Depends: y:amd64\n");
        let universe = read(&text).unwrap();
        let names: Vec<&str> = universe.names().map(|(_, name)| name.name).collect();
        assert_eq!(names, ["b", "z", "y", "x", "v", "w", "a", "a"]);
        let versions = &universe.name(0).versions;
        let versions: Vec<&str> = versions.iter().map(|id| universe.version(*id).version).collect();
        assert_eq!(versions, ["1.10", "1.9", "1"]);
        assert_eq!(universe.name(4).providers, [(0, Some("2"))]);
        let groups: Vec<usize> = universe.groups(0).iter().map(|group| universe.alternatives(group).len()).collect();
        assert_eq!(groups, [2, 1]);
        let y = universe.find("y").unwrap();
        assert_eq!(universe.alternatives(&universe.groups(3)[0])[0].target, y);
    }

    #[test]
    fn foreign_architectures_are_left_out_and_repeats_are_one() {
        let text = stanza("a", "1", "").replace("amd64\n", "arm64\n") + &stanza("b", "1", "") + &stanza("b", "1", "");
        let universe = read(&text).unwrap();
        assert_eq!(universe.find("a"), None);
        assert_eq!(universe.name(universe.find("b").unwrap()).versions.len(), 1);
    }

    #[test]
    fn hostile_fields_are_refused() {
        let good = stanza("a", "1", "");
        assert!(read(&good).is_ok());
        for (from, to) in [
            ("Filename: pool/a_1.deb", "Filename: ../../etc/passwd"),
            ("Filename: pool/a_1.deb", "Filename: /etc/passwd"),
            ("Filename: pool/a_1.deb", "Filename: pool/a b"),
            ("Filename: pool/a_1.deb", "X: y"),
            ("Size: 10", "Size: -1"),
            ("Version: 1", "Version: 1 2"),
            ("Package: a", "Package: a/b"),
            (DIGEST, "00"),
        ] {
            assert!(read(&good.replace(from, to)).is_err(), "{to}");
        }
    }
}
