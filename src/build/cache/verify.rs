//! Reading everything in a cache and comparing it with its digest.
//!
//! Owns: [`verify`]. What is damaged is set aside or removed, as the next build would do that meets it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::list::{Area, Item, list};
use super::prune::InUse;
use crate::error::{Context, Result};
use crate::interrupt;
use crate::report::{Reporter, Unit};
use crate::tree::store::Store;
use crate::tree::{Content, Digest, Kind, clusters, records};

/// What was found damaged, by name. Waits while a build uses the cache.
pub fn verify(cache: &Path, reporter: &Reporter) -> Result<Vec<String>> {
    let _alone = InUse::alone(cache, reporter)?;
    let items = list(cache)?;
    let total = items.iter().map(|item| item.size).sum();
    let step = reporter.step_of("verify cache", total, Unit::Bytes);
    let mut damaged = Vec::new();
    for item in &items {
        interrupt::check()?;
        let by_name = match item.area {
            Area::Packages | Area::Indexes => named_by_digest(item),
            _ => None,
        };
        if let Some(digest) = by_name {
            if digest_of(&item.path)? != digest {
                let aside = item.path.with_extension("damaged");
                std::fs::rename(&item.path, &aside).with_context(|| format!("setting {} aside", item.name))?;
                damaged.push(item.name.clone());
            }
            step.advance(item.size);
        }
        if item.area == Area::Answers && !is_whole_text(&item.path) {
            _ = std::fs::remove_file(&item.path);
            damaged.push(item.name.clone());
        }
    }
    steps(cache, &items, &mut damaged, reporter)?;
    let (_, packs) = clusters::verify(cache, reporter)?;
    damaged.extend(packs.iter().map(|path| path.strip_prefix(cache).unwrap_or(path).display().to_string()));
    step.finish(format!("{} items, {} damaged", items.len(), damaged.len()));
    Ok(damaged)
}

/// Loads every step and what is kept of every package, and reads all their contents.
fn steps(cache: &Path, items: &[Item], damaged: &mut Vec<String>, reporter: &Reporter) -> Result<()> {
    let store = Store::open_alone(cache, reporter)?;
    for item in items {
        let good = match item.area {
            Area::Steps => step(&store, item)?,
            Area::Unpacked => packages(&store, item)?,
            _ => true,
        };
        let aside = store.set_damaged_aside()?;
        if !good || aside {
            damaged.push(item.name.clone());
        }
        if let (true, Area::Steps, Some(key)) = (aside, item.area, key(item)) {
            // Now it misses a pack; saying so sets it aside, too.
            _ = store.load(key)?;
        }
    }
    Ok(())
}

fn key(item: &Item) -> Option<Digest> {
    Digest::from_hex(&item.path.file_stem()?.to_string_lossy())
}

fn step(store: &Store, item: &Item) -> Result<bool> {
    let Some(key) = key(item) else { return Ok(true) };
    let Some(tree) = store.load(key)? else { return Ok(false) };
    let contents = tree.iter().filter_map(|(_, entry)| match &entry.kind {
        Kind::File(content) => Some(content),
        _ => None,
    });
    read(contents)?;
    Ok(true)
}

fn packages(store: &Store, item: &Item) -> Result<bool> {
    let Ok(keys) = records::keys_of(&item.path) else {
        // Whoever asks for any record sets files aside that cannot be read.
        store.has_record(Digest::of(b""));
        return Ok(false);
    };
    for key in keys {
        let Some(record) = store.record(key) else { return Ok(false) };
        read(record.contents.iter())?;
    }
    Ok(true)
}

/// Reads contents until one is damaged, which its pack remembers.
fn read<'a>(contents: impl Iterator<Item = &'a Content>) -> Result<()> {
    for content in contents {
        interrupt::check()?;
        // The first byte of a content is not given out before all of it was compared.
        let length = content.size().min(1) as usize;
        if content.read_at(&mut [0; 1][..length], 0).is_err() {
            break;
        }
    }
    Ok(())
}

/// The digest that a file's name says it has.
fn named_by_digest(item: &Item) -> Option<Digest> {
    let name = item.path.file_name()?.to_str()?;
    let stem = name.strip_suffix(".deb").unwrap_or(name);
    if stem.len() == 64 { Digest::from_hex(stem) } else { None }
}

fn digest_of(path: &Path) -> Result<Digest> {
    let context = || format!("reading {}", path.display());
    let mut file = File::open(path).with_context(context)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        interrupt::check()?;
        match file.read(&mut buffer).with_context(context)? {
            0 => return Ok(Digest::from_bytes(hash.finalize().into())),
            length => hash.update(&buffer[..length]),
        }
    }
}

/// The last line is the digest of what is before.
fn is_whole_text(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    let Some(cut) = bytes.len().checked_sub(65) else { return false };
    bytes[cut..] == *format!("{}\n", Digest::of(&bytes[..cut])).as_bytes()
}
