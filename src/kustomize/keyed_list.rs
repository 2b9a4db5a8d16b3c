//! Lists that strategic merge merges element by element: containers by name, ports by number and protocol.
//!
//! Owns: [`merge`], [`settle`]. The steps are those of kustomize, because its results in odd cases (elements that lack
//! a key, keys given on one side only, twice the same key) follow from the steps and from nothing else: every
//! combination of key values, those of the patch first, is merged and collected; then the elements of the target are
//! put over what was collected, each over what its own keys fit, or at the end.

use super::merge::{Directive, Merge, Winner, take_directive};
use super::schema::{Below, Type};
use crate::document::{Key, Node, Value};
use crate::error::Result;
use crate::interrupt;

/// Merges the elements of `patch` into those of `target`.
pub fn merge(
    merge: &Merge<'_>,
    target: &mut Node,
    patch: Option<&mut Node>,
    keys: &[String],
    of: Option<Type<'_>>,
) -> Result<()> {
    let patched = patch.is_some();
    let theirs = patch.map(take_items).unwrap_or_default();
    let mine = take_items(target);
    let count = mine.len();
    let run = Run { merge, keys, of, settles: false };
    let mut pool = Pool { nodes: mine, target: count };
    pool.nodes.extend(theirs);
    let order = run.elements(&mut pool)?;
    let mut nodes: Vec<Option<Node>> = pool.nodes.into_iter().map(Some).collect();
    let mut items = Vec::with_capacity(order.len());
    for at in order {
        // An element stands in the list once; the steps never give it two places.
        let Some(mut node) = nodes.get_mut(at).and_then(Option::take) else { continue };
        if at >= count {
            merge.cause.stamp(&mut node, None);
        }
        items.push(node);
    }
    target.value = Value::Sequence(items);
    if patched {
        merge.mark(target);
    }
    Ok(())
}

/// The elements of a patch's list where the target has none: deleted ones go, the rest is as if put there.
pub fn settle(merge: &Merge<'_>, patch: &mut Node, keys: &[String], of: Option<Type<'_>>) -> Result<()> {
    let items = take_items(patch);
    let run = Run { merge, keys, of, settles: true };
    let mut pool = Pool { target: items.len(), nodes: items };
    let order = run.elements(&mut pool)?;
    let mut nodes: Vec<Option<Node>> = pool.nodes.into_iter().map(Some).collect();
    let items = order.into_iter().filter_map(|at| nodes.get_mut(at).and_then(Option::take)).collect();
    patch.value = Value::Sequence(items);
    Ok(())
}

fn take_items(list: &mut Node) -> Vec<Node> {
    list.as_sequence_mut().map(std::mem::take).unwrap_or_default()
}

/// All elements of both lists; those of the target come first.
struct Pool {
    nodes: Vec<Node>,
    target: usize,
}

struct Run<'a> {
    merge: &'a Merge<'a>,
    keys: &'a [String],
    of: Option<Type<'a>>,
    /// There is one list only, that of a patch.
    settles: bool,
}

/// The text of a scalar as it is written; nothing for everything else.
fn text(node: &Node) -> &str {
    node.as_scalar().map_or("", |scalar| &scalar.text)
}

/// The values of an element under some keys.
type Values = Vec<String>;

impl Run<'_> {
    /// The numbers of the elements that make up the list.
    fn elements(&self, pool: &mut Pool) -> Result<Vec<usize>> {
        let mut target: Vec<usize> = (0..pool.target).collect();
        let patch: Vec<usize> = (pool.target..pool.nodes.len()).collect();
        let plain = [String::new()];
        let all_keys = if self.keys.is_empty() { &plain[..] } else { self.keys };
        let mut wanted = self.values(pool, all_keys);
        if all_keys.len() > 1 {
            reconcile(&mut wanted);
        }
        let keys = given_keys(&wanted, all_keys);
        let mut collected: Vec<usize> = Vec::new();
        for values in &wanted {
            interrupt::check()?;
            let values: Values = pick(values, all_keys, &keys);
            let (own_keys, own_values) = trimmed(&keys, &values);
            let mine = target.iter().copied().find(|at| fits(&pool.nodes[*at], &own_keys, &own_values));
            let theirs = patch.iter().copied().find(|at| fits(&pool.nodes[*at], &own_keys, &own_values));
            match self.element(pool, mine, theirs)? {
                Some(at) if !is_void(&pool.nodes[at]) => {
                    complete(&mut pool.nodes[at], &keys, &values);
                    put(pool, &mut collected, &keys, &values, Some(at));
                }
                _ => put(pool, &mut target, &keys, &values, None),
            }
        }
        if wanted.is_empty() {
            return Ok(target);
        }
        for at in target {
            self.overlay(pool, &mut collected, &keys, at);
        }
        Ok(collected)
    }

    /// One element of both lists, merged.
    fn element(&self, pool: &mut Pool, mine: Option<usize>, theirs: Option<usize>) -> Result<Option<usize>> {
        let below = || Some(Below { keys: None, inner: self.of });
        match (mine, theirs) {
            (Some(mine), Some(theirs)) => {
                let (first, second) = pool.nodes.split_at_mut(theirs);
                let winner = self.merge.values(&mut first[mine], &mut second[0], below())?;
                Ok(match winner {
                    Winner::Target => Some(mine),
                    Winner::Patch => Some(theirs),
                    Winner::Nobody => None,
                })
            }
            (None, Some(theirs)) => {
                Ok((self.merge.alone(&mut pool.nodes[theirs], below())? == Winner::Patch).then_some(theirs))
            }
            (Some(mine), None) if self.settles => {
                let node = &mut pool.nodes[mine];
                if take_directive(node)? == Directive::Delete {
                    return Ok(None);
                }
                self.merge.settle_fields(node, self.of)?;
                Ok(Some(mine))
            }
            (Some(mine), None) => {
                self.merge.untouched(&mut pool.nodes[mine], below())?;
                Ok(Some(mine))
            }
            (None, None) => Ok(None),
        }
    }

    /// The key values of all elements, those of the patch first, each combination once.
    fn values(&self, pool: &Pool, keys: &[String]) -> Vec<Values> {
        let (target, patch) = pool.nodes.split_at(pool.target);
        let mut found: Vec<Values> = Vec::new();
        for node in patch.iter().chain(target) {
            let value = |key: &String| match key.is_empty() {
                true => text(node).to_owned(),
                false => node.get(key).map_or("", text).to_owned(),
            };
            let values: Values = keys.iter().map(value).collect();
            if !found.contains(&values) {
                found.push(values);
            }
        }
        found
    }

    /// Puts an element of the target over what its keys fit.
    fn overlay(&self, pool: &Pool, collected: &mut Vec<usize>, keys: &[String], at: usize) {
        if keys.first().is_some_and(String::is_empty) {
            let value = vec![text(&pool.nodes[at]).to_owned()];
            return put(pool, collected, keys, &value, Some(at));
        }
        let mut values = Vec::new();
        for key in keys {
            match pool.nodes[at].get(key) {
                Some(value) => values.push(text(value).to_owned()),
                None => collected.push(at),
            }
        }
        if keys.len() > 1 {
            put(pool, collected, keys, &values, None);
        }
        put(pool, collected, keys, &values, Some(at));
    }
}

/// Nothing, or a mapping of nothing: not an element.
fn is_void(node: &Node) -> bool {
    node.is_null() || node.as_mapping().is_some_and(|mapping| mapping.is_empty())
}

/// Whether an element has these values under these keys.
fn fits(node: &Node, keys: &[String], values: &[String]) -> bool {
    keys.iter().zip(values).all(|(key, value)| match key.is_empty() {
        true => node.as_scalar().is_some() && text(node) == value,
        false => node.get(key).is_some_and(|found| text(found) == value),
    })
}

/// Puts an element in place of those that fit, or at the end; without an element, those that fit go.
fn put(pool: &Pool, list: &mut Vec<usize>, keys: &[String], values: &[String], element: Option<usize>) {
    let named =
        keys.first().is_some_and(|key| !key.is_empty()) && values.first().is_some_and(|value| !value.is_empty());
    let mut kept = Vec::with_capacity(list.len() + 1);
    let mut found = false;
    for at in std::mem::take(list) {
        let node = &pool.nodes[at];
        if is_void(node) {
            continue;
        }
        if named && node.as_mapping().is_none() {
            kept.push(at);
            continue;
        }
        // A value that is empty fits whatever is there; keys without a value go with the one before.
        let has = |key: &String, value: &String| match key.is_empty() {
            true => text(node) == value,
            false => node.get(key).is_some_and(|found| value.is_empty() || text(found) == value),
        };
        if values.is_empty() || !keys.iter().zip(values).all(|(key, value)| has(key, value)) {
            if !values.is_empty() {
                kept.push(at);
            }
            continue;
        }
        if let Some(element) = element {
            kept.push(element);
        }
        found = true;
    }
    if let (Some(element), false) = (element, found) {
        kept.push(element);
    }
    *list = kept;
}

/// Gives an element the keys it was found by.
fn complete(node: &mut Node, keys: &[String], values: &[String]) {
    let at = node.origin.clone();
    let Some(mapping) = node.as_mapping_mut() else { return };
    for (key, value) in keys.iter().zip(values) {
        if !value.is_empty() && mapping.get(key).is_none() {
            mapping.set(Key::new(key.as_str(), &at.at), Node::plain(value.as_str(), at.clone()));
        }
    }
}

/// Values that differ only where one of them is missing become the same.
fn reconcile(wanted: &mut [Values]) {
    for i in 0..wanted.len() {
        // What it was at first, whatever becomes of it: an element without any key ends up as the last one it fits.
        let first = wanted[i].clone();
        for j in 0..wanted.len() {
            if let Some(both) = united(&first, &wanted[j]) {
                wanted[i].clone_from(&both);
                wanted[j] = both;
            }
        }
    }
}

fn united(a: &Values, b: &Values) -> Option<Values> {
    let mut common = false;
    let mut both = Vec::with_capacity(a.len());
    for (a, b) in a.iter().zip(b) {
        match (a == b, a.is_empty(), b.is_empty()) {
            (true, ..) => {
                common = true;
                both.push(a.clone());
            }
            (_, true, _) => both.push(b.clone()),
            (_, _, true) => both.push(a.clone()),
            _ => return None,
        }
    }
    common.then_some(both)
}

/// The keys for which some element has a value; all of them if none has.
fn given_keys(wanted: &[Values], keys: &[String]) -> Vec<String> {
    let given = |at: usize| wanted.iter().any(|values| values.get(at).is_some_and(|value| !value.is_empty()));
    let found: Vec<String> = keys.iter().enumerate().filter(|(at, _)| given(*at)).map(|(_, key)| key.clone()).collect();
    if found.is_empty() { keys.to_vec() } else { found }
}

fn pick(values: &Values, all: &[String], keys: &[String]) -> Values {
    let chosen = all.iter().zip(values).filter(|(key, _)| keys.contains(key));
    chosen.map(|(_, value)| value.clone()).collect()
}

/// Without the keys that have no value here; with all of them if none has.
fn trimmed(keys: &[String], values: &[String]) -> (Vec<String>, Values) {
    let given = keys.iter().zip(values).filter(|(_, value)| !value.is_empty());
    let (own_keys, own_values): (Vec<String>, Values) = given.map(|(key, value)| (key.clone(), value.clone())).unzip();
    if own_keys.is_empty() { (keys.to_vec(), values.to_vec()) } else { (own_keys, own_values) }
}
