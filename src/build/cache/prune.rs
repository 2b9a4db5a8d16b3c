//! Removing what was not used for long, until the rest is small enough.
//!
//! Owns: [`prune`] and [`InUse`], the lock. Last used, last removed. Never removed: dates of signed indexes, and
//! anything while a build runs with the same cache.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::list::{Area, Item, list};
use crate::error::{Context, Result};
use crate::interrupt;
use crate::report::Reporter;
use crate::tree::store;

/// What may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes in all.
    pub keep: Option<u64>,
    /// Seconds since the epoch: what was last used before goes.
    pub used_since: Option<i64>,
    /// Also what no version of this program will use: what was damaged, and stores of other versions.
    pub useless: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    pub removed: Vec<Item>,
    /// Bytes that are left.
    pub left: u64,
}

impl Pruned {
    pub fn freed(&self) -> u64 {
        self.removed.iter().map(|item| item.size).sum()
    }
}

/// Keeps others from removing anything, or alone with the cache.
#[derive(Debug)]
pub struct InUse {
    _lock: File,
}

impl InUse {
    /// Nobody removes anything as long as this lives.
    pub fn shared(cache: &Path, reporter: &Reporter) -> Result<InUse> {
        Ok(InUse { _lock: store::share(cache, reporter)? })
    }

    /// Alone with the cache, if nobody uses it now.
    fn alone_now(cache: &Path) -> Result<Option<InUse>> {
        let file = store::in_use(cache)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(InUse { _lock: file })),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("locking {}", cache.display())),
        }
    }

    /// Alone with the cache, once no build uses it any more.
    pub fn alone(cache: &Path, reporter: &Reporter) -> Result<InUse> {
        let mut waiting = false;
        loop {
            if let Some(lock) = Self::alone_now(cache)? {
                return Ok(lock);
            }
            interrupt::check()?;
            if !waiting {
                reporter.note("waiting: a build uses this cache, and nothing is taken from under it");
                waiting = true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Removes what the limits do not let stay. Waits while a build uses the cache.
pub fn prune(cache: &Path, limits: Limits, reporter: &Reporter) -> Result<Pruned> {
    let _alone = InUse::alone(cache, reporter)?;
    store::remove_locks(cache)?;
    remove(list(cache)?, limits)
}

/// What a build does at its end: keeps the cache below a size. Not when another build uses it; that one will.
pub fn keep_below(cache: &Path, size: u64, reporter: &Reporter) -> Result<()> {
    let items = list(cache)?;
    if items.iter().map(|item| item.size).sum::<u64>() <= size {
        return Ok(());
    }
    let Some(_alone) = InUse::alone_now(cache)? else { return Ok(()) };
    let pruned = remove(list(cache)?, Limits { keep: Some(size), ..Limits::default() })?;
    if !pruned.removed.is_empty() {
        reporter.note(format!(
            "the cache was larger than {}: {} of what was not used for longest are removed (`imagebuilder cache ls`)",
            crate::report::words::bytes(size),
            crate::report::words::bytes(pruned.freed())
        ));
    }
    Ok(())
}

/// What [`prune`] would remove.
pub fn plan(cache: &Path, limits: Limits) -> Result<Pruned> {
    let items = list(cache)?;
    let all: u64 = items.iter().map(|item| item.size).sum();
    let removed = choose(items, limits);
    let left = all - removed.iter().map(|item| item.size).sum::<u64>();
    Ok(Pruned { removed, left })
}

fn remove(items: Vec<Item>, limits: Limits) -> Result<Pruned> {
    let mut left: u64 = items.iter().map(|item| item.size).sum();
    let removed = choose(items, limits);
    for item in &removed {
        interrupt::check()?;
        let gone = if item.path.is_dir() { fs::remove_dir_all(&item.path) } else { fs::remove_file(&item.path) };
        match gone {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", item.path.display()));
            }
            _ => left -= item.size,
        }
    }
    Ok(Pruned { removed, left })
}

/// In the order in which they go: a step before its contents, so that none is left that misses some.
fn choose(items: Vec<Item>, limits: Limits) -> Vec<Item> {
    let mut left: u64 = items.iter().map(|item| item.size).sum();
    let (mut order, contents): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| item.area != Area::Contents);
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    for need in order.iter().flat_map(|item| &item.needs) {
        *users.entry(need.clone()).or_default() += 1;
    }
    let (mut contents, orphans): (BTreeMap<String, Item>, BTreeMap<String, Item>) = contents
        .into_iter()
        .map(|item| (item.name.clone(), item))
        .partition(|(name, _): &(String, Item)| users.contains_key(name));
    // Contents that nothing refers to are of no use to anybody.
    let mut chosen: Vec<Item> = orphans.into_values().collect();
    left -= chosen.iter().map(|item| item.size).sum::<u64>();
    order.sort_by(|a, b| (a.used, a.area, &a.name).cmp(&(b.used, b.area, &b.name)));
    for item in order {
        let useless = limits.useless && matches!(item.area, Area::Damaged | Area::Old);
        let old = limits.used_since.is_some_and(|since| item.used < since);
        let too_much = limits.keep.is_some_and(|keep| left > keep);
        if !(useless || old || too_much) {
            continue;
        }
        let needs = item.needs.clone();
        left -= item.size;
        chosen.push(item);
        for need in needs {
            let users = users.entry(need.clone()).or_default();
            *users = users.saturating_sub(1);
            if let Some(pack) = if *users == 0 { contents.remove(&need) } else { None } {
                left -= pack.size;
                chosen.push(pack);
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(area: Area, name: &str, size: u64, used: i64, needs: &[&str]) -> Item {
        let needs = needs.iter().map(|need| (*need).to_owned()).collect();
        Item { area, name: name.into(), path: name.into(), size, used, needs }
    }

    fn names(items: Vec<Item>, limits: Limits) -> Vec<String> {
        choose(items, limits).into_iter().map(|item| item.name).collect()
    }

    fn items() -> Vec<Item> {
        vec![
            item(Area::Packages, "deb", 10, 50, &[]),
            item(Area::Steps, "base", 1, 40, &["p1"]),
            item(Area::Steps, "role", 1, 60, &["p1", "p2"]),
            item(Area::Contents, "p1", 100, 60, &[]),
            item(Area::Contents, "p2", 20, 60, &[]),
            item(Area::Clusters, "c", 30, 70, &[]),
            item(Area::Damaged, "d", 5, 99, &[]),
        ]
    }

    #[test]
    fn what_was_used_last_stays_longest() {
        let keep = |keep| names(items(), Limits { keep: Some(keep), ..Limits::default() });
        assert_eq!(keep(167), [""; 0]);
        assert_eq!(keep(166), ["base"]);
        assert_eq!(keep(165), ["base", "deb"]);
        // The contents go with the last step that needs them.
        assert_eq!(keep(150), ["base", "deb", "role", "p1", "p2"]);
        assert_eq!(keep(30), ["base", "deb", "role", "p1", "p2", "c"]);
        assert_eq!(keep(0).len(), 7);
    }

    #[test]
    fn ages_and_what_is_useless() {
        assert_eq!(names(items(), Limits { used_since: Some(60), ..Limits::default() }), ["base", "deb"]);
        assert_eq!(names(items(), Limits { useless: true, ..Limits::default() }), ["d"]);
        let mut with_orphan = items();
        with_orphan.push(item(Area::Contents, "p3", 7, 99, &[]));
        assert_eq!(names(with_orphan, Limits::default()), ["p3"]);
    }
}
