//! Names of objects written in other objects, brought up to date after the objects were renamed.
//!
//! Owns: [`fix`]. Who is meant is decided as kustomize decides it: the name must be a former one, the kind must have been
//! the one the table says, the namespaces must go together; then equal prefixes and suffixes decide.

use std::collections::{HashMap, HashSet};

use super::config::NameReference;
use super::fieldspec::{FieldSpec, Make};
use super::identity::{DEFAULT_NAMESPACE, Gvk, Id, NO_NAMESPACE};
use super::resource::{Resource, Resources};
use crate::document::{Cause, ChangeKind, Diagnostic, Node, Value};
use crate::error::Result;
use crate::interrupt;

/// The specifications that concern a kind, each with the kind of what is named there.
type Applicable<'a> = Vec<(Gvk, &'a FieldSpec)>;

pub fn fix(resources: &mut Resources, table: &[NameReference]) -> Result<()> {
    let candidates: Vec<Candidate> = resources.iter().map(Candidate::of).collect();
    let mut names: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        let mut known: Vec<&str> = candidate.earlier.iter().map(|id| id.name.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        for name in known {
            names.entry(name).or_default().push(at);
        }
    }
    let mut namespaces: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        namespaces.entry(candidate.first_namespace()).or_default().push(at);
    }
    let known = Known { all: &candidates, names, namespaces };
    // Which specifications concern a kind is worked out once.
    let mut by_kind: HashMap<(String, String, String), Applicable<'_>> = HashMap::new();
    for (at, own) in candidates.iter().enumerate() {
        interrupt::check()?;
        let first = resources.get(at).first_id().clone();
        let key = (first.group.clone(), first.version.clone(), first.kind.clone());
        let specs = by_kind.entry(key).or_insert_with(|| {
            let pairs = table.iter().flat_map(|reference| {
                let of = reference.gvk();
                let fits = reference.field_specs.iter().filter(|spec| spec.selects(&first));
                fits.map(move |spec| (of.clone(), spec))
            });
            pairs.collect()
        });
        let object = &resources.get(at).node;
        let present: Vec<&(Gvk, &FieldSpec)> = specs.iter().filter(|(_, spec)| spec.may_be_in(object)).collect();
        if present.is_empty() {
            continue;
        }
        let mut referrer = Referrer::of(resources.get(at), own, &known);
        resources.edit(at, |resource| {
            for (of, spec) in present {
                referrer.role_ref = role_ref(&resource.node, &spec.path);
                let by = resource.node.origin.at.clone();
                let here = FieldSpec { path: spec.path.clone(), ..FieldSpec::default() };
                here.visit(&mut resource.node, Make::Nothing, &by, &mut |node| referrer.update(node, of))?;
            }
            Ok::<_, crate::error::Error>(())
        })?;
    }
    Ok(())
}

/// What must be known of an object that may be meant.
struct Candidate {
    id: Id,
    earlier: Vec<Id>,
    prefixes: Vec<String>,
    suffixes: Vec<String>,
    /// Where its name is written, for the record.
    name: Node,
}

impl Candidate {
    fn of(resource: &Resource) -> Self {
        let name = resource.node.at(&["metadata", "name"]).cloned();
        Candidate {
            id: resource.id().clone(),
            earlier: resource.earlier.clone(),
            prefixes: resource.prefixes.clone(),
            suffixes: resource.suffixes.clone(),
            name: name.unwrap_or_else(|| Node::string("", resource.node.origin.clone())),
        }
    }

    fn first_namespace(&self) -> &str {
        self.earlier.first().unwrap_or(&self.id).effective_namespace()
    }
}

/// All objects, by the names they had and the namespaces they were in at first.
struct Known<'a> {
    all: &'a [Candidate],
    names: HashMap<&'a str, Vec<usize>>,
    namespaces: HashMap<&'a str, Vec<usize>>,
}

struct Referrer<'a> {
    own: &'a Candidate,
    known: &'a Known<'a>,
    /// The namespaces of the accounts that a role binding names.
    namespaces: HashSet<String>,
    role_ref: Option<Gvk>,
}

impl<'a> Referrer<'a> {
    fn of(resource: &Resource, own: &'a Candidate, known: &'a Known<'a>) -> Self {
        let mut namespaces = HashSet::new();
        if own.id.kind == "RoleBinding" {
            for subject in resource.node.get("subjects").and_then(Node::as_sequence).unwrap_or_default() {
                let text = |name: &str| subject.get(name).and_then(Node::text);
                if let (Some("ServiceAccount"), Some(namespace)) = (text("kind"), text("namespace")) {
                    namespaces.insert(namespace.to_owned());
                }
            }
        }
        Referrer { own, known, namespaces, role_ref: None }
    }

    /// Whether an object in the namespace of another may be meant at all.
    fn reaches(&self, candidate: &Candidate) -> bool {
        self.own.id.cluster
            || candidate.id.cluster
            || candidate.id.effective_namespace() == self.own.id.effective_namespace()
            || self.namespaces.contains(&candidate.id.namespace)
    }

    fn update(&self, node: &mut Node, of: &Gvk) -> Result<()> {
        if node.is_null() {
            return Ok(());
        }
        match &mut node.value {
            Value::Scalar(_) => self.scalar(node, of),
            Value::Mapping(_) => self.mapping(node, of),
            Value::Sequence(items) => items.iter_mut().try_for_each(|item| match item.value {
                Value::Scalar(_) => self.scalar(item, of),
                Value::Mapping(_) => self.mapping(item, of),
                Value::Sequence(_) => Ok(()),
            }),
        }
    }

    fn scalar(&self, node: &mut Node, of: &Gvk) -> Result<()> {
        let name = node.as_scalar().map(|scalar| scalar.text.clone()).unwrap_or_default();
        let Some(found) = self.select(&name, of, None, node, false)? else { return Ok(()) };
        if found.id.name != name {
            node.rewrite(found.id.name.clone(), Cause::new(ChangeKind::Reference, &found.name.origin.at));
        }
        Ok(())
    }

    fn mapping(&self, node: &mut Node, of: &Gvk) -> Result<()> {
        let Some(name) = node.get("name").map(|name| name.text().unwrap_or_default().to_owned()) else {
            return Err(Diagnostic::on(node, "a reference to another object needs a `name`").into());
        };
        let namespace = node.get("namespace").map(|namespace| namespace.text().unwrap_or_default().to_owned());
        let Some(found) = self.select(&name, of, namespace.as_deref(), node, true)? else { return Ok(()) };
        let cause = Cause::new(ChangeKind::Reference, &found.name.origin.at);
        if found.id.name == name && found.id.namespace.is_empty() {
            return Ok(());
        }
        if let Some(slot) = node.get_mut("name") {
            if found.id.name != name {
                slot.rewrite(found.id.name.clone(), cause);
            }
        }
        if !found.id.namespace.is_empty() && namespace.as_deref() != Some(&found.id.namespace) {
            let value = Node::string(found.id.namespace.clone(), found.name.origin.clone());
            node.put("namespace", value, cause);
        }
        Ok(())
    }

    /// The object that a name stands for.
    fn select(
        &self,
        name: &str,
        of: &Gvk,
        namespace: Option<&str>,
        at: &Node,
        whole: bool,
    ) -> Result<Option<&'a Candidate>> {
        let Some(named) = self.known.names.get(name) else { return Ok(None) };
        let all = named.iter().map(|at| &self.known.all[*at]).filter(|candidate| self.reaches(candidate));
        let mut found: Vec<&Candidate> = match namespace {
            None => all.collect(),
            Some(namespace) => self.in_namespace(namespace, all.collect()),
        };
        found.retain(|candidate| candidate.earlier.iter().any(|id| of.selects(id)));
        if let Some(role) = &self.role_ref {
            found.retain(|candidate| candidate.earlier.iter().any(|id| role.selects(id)));
        }
        found.retain(|candidate| {
            self.own.id.cluster
                || candidate.id.cluster
                || candidate.id.kind == "ServiceAccount"
                || candidate.id.effective_namespace() == self.own.id.effective_namespace()
        });
        for strict in [false, true] {
            if found.len() > 1 {
                found.retain(|candidate| self.same_context(candidate, strict));
            }
        }
        let Some(first) = found.first().copied() else { return Ok(None) };
        let same =
            |other: &&Candidate| other.id.name == first.id.name && (!whole || other.id.namespace == first.id.namespace);
        if found.iter().all(same) {
            return Ok(Some(first));
        }
        let mut diagnostic = Diagnostic::on(at, format!("`{name}` may mean more than one object"));
        for candidate in found {
            diagnostic = diagnostic.note(&candidate.name.origin.at, format!("{} is one of them", candidate.id));
        }
        Err(diagnostic.into())
    }

    /// Those that were in a namespace at first; if nothing at all was, those that are in it now.
    fn in_namespace(&self, namespace: &str, named: Vec<&'a Candidate>) -> Vec<&'a Candidate> {
        let group = self.known.namespaces.get(namespace).filter(|_| namespace != NO_NAMESPACE);
        if group.into_iter().flatten().any(|at| self.reaches(&self.known.all[*at])) {
            return named.into_iter().filter(|candidate| candidate.first_namespace() == namespace).collect();
        }
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
        named.into_iter().filter(|candidate| candidate.id.effective_namespace() == namespace).collect()
    }

    fn same_context(&self, other: &Candidate, strict: bool) -> bool {
        let agree = |mine: &[String], theirs: &[String]| {
            (!strict && (mine.is_empty() || theirs.is_empty())) || same_ending(mine, theirs)
        };
        agree(&self.own.prefixes, &other.prefixes) && agree(&self.own.suffixes, &other.suffixes)
    }
}

/// Whether the shorter list is the end of the longer one; an empty one only is that of an empty one.
fn same_ending(a: &[String], b: &[String]) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    if short.is_empty() { long.is_empty() } else { long.ends_with(short) }
}

/// The kind that a role binding says it binds to, if it is this that is looked at.
fn role_ref(object: &Node, path: &str) -> Option<Gvk> {
    if !path.ends_with("roleRef/name") {
        return None;
    }
    let text = |name: &str| object.at(&["roleRef", name]).and_then(Node::text);
    Some(Gvk { group: text("apiGroup")?.into(), version: String::new(), kind: text("kind")?.into() })
}
