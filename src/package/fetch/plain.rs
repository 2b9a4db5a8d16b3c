//! Package indexes once more, in a form that is quick to read: xz takes half a second for Debian's, zstd a thirtieth.
//!
//! Owns: `<cache>/indexes/plain/<digest>.zst`, where the digest is that of the text, which the signed index names as it
//! names those of the compressed forms. What is there is compared with it whenever it is read; what is not whole is
//! removed and made again from the index as downloaded.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::download::Expected;
use crate::error::{Context, Result};
use crate::tree::Digest;

/// Of the cache folder.
pub const FOLDER: &str = "indexes/plain";
/// Quick: what it saves is time.
const LEVEL: i32 = 1;

fn place(cache: &Path, expected: &Expected) -> PathBuf {
    cache.join(FOLDER).join(format!("{}.zst", expected.sha256))
}

/// The text, if it was kept and is whole. `now` says when it was used last.
pub fn recall(cache: &Path, expected: &Expected, now: i64) -> Option<String> {
    let path = place(cache, expected);
    let file = File::open(&path).ok()?;
    let text = read(&file, expected);
    match text {
        // Where that fails it only seems older than it is.
        Some(_) => _ = file.set_modified(UNIX_EPOCH + Duration::from_secs(u64::try_from(now).unwrap_or(0))),
        None => _ = std::fs::remove_file(&path),
    }
    text
}

fn read(file: &File, expected: &Expected) -> Option<String> {
    let mut bytes = Vec::with_capacity(usize::try_from(expected.size).ok()?.min(256 << 20));
    let decoder = zstd::stream::read::Decoder::new(file).ok()?;
    decoder.take(expected.size.saturating_add(1)).read_to_end(&mut bytes).ok()?;
    let is_it = bytes.len() as u64 == expected.size && Digest::of(&bytes) == expected.sha256;
    is_it.then(|| String::from_utf8(bytes).ok())?
}

/// Keeps a text, unless it is another one than the signed index says.
pub fn keep(cache: &Path, expected: &Expected, text: &str) -> Result<()> {
    if text.len() as u64 != expected.size || Digest::of(text.as_bytes()) != expected.sha256 {
        return Ok(());
    }
    let (folder, path) = (cache.join(FOLDER), place(cache, expected));
    let context = || format!("writing {}", path.display());
    std::fs::create_dir_all(&folder).with_context(context)?;
    let mut file = tempfile::Builder::new().prefix(".index-").tempfile_in(&folder).with_context(context)?;
    zstd::stream::copy_encode(text.as_bytes(), &mut file, LEVEL).with_context(context)?;
    // Not synced: a torn one is noticed by its digest.
    file.persist(&path).map_err(|error| error.error).with_context(context)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back_and_a_damaged_one_does_not() {
        let cache = tempfile::tempdir().unwrap();
        let text = "Package: a\n".repeat(1000);
        let expected = Expected { size: text.len() as u64, sha256: Digest::of(text.as_bytes()) };
        assert_eq!(recall(cache.path(), &expected, 5), None);
        keep(cache.path(), &expected, "another one").unwrap();
        assert_eq!(recall(cache.path(), &expected, 5), None);
        keep(cache.path(), &expected, &text).unwrap();
        assert_eq!(recall(cache.path(), &expected, 5).as_ref(), Some(&text));
        let path = place(cache.path(), &expected);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            // A flipped bit may lie where zstd has none of the text.
            assert!(recall(cache.path(), &expected, 5).is_none_or(|found| found == text), "flipped bit at {at}");
            std::fs::write(&path, &good[..at]).unwrap();
            assert_eq!(recall(cache.path(), &expected, 5), None, "cut at {at}");
            assert!(!path.exists());
        }
        // Far longer than it may be: no more than that is read.
        let long = Expected { size: 7, ..expected };
        std::fs::write(place(cache.path(), &long), &good).unwrap();
        assert_eq!(recall(cache.path(), &long, 5), None);
    }
}
