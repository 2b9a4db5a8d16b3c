//! What a build that ran out of space says: for every place it writes to, how many bytes it takes and how many there are.
//!
//! Owns: [`places`] with the estimates, and [`explain`].

use std::path::{Path, PathBuf};

use super::prepare::Prepared;
use super::run::{Options, output_folder};
use crate::error::{Error, Kind};
use crate::report::usage;
use crate::sandbox::WorkArea;

/// What packages grow to when they are unpacked, at most.
const UNPACKED: u64 = 6;

/// A place that a build writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    what: &'static str,
    path: PathBuf,
    /// Bytes that a build from nothing writes there, at most.
    required: u64,
}

pub(super) fn places(prepared: &[Prepared<'_>], options: &Options<'_>, work: &WorkArea, need: u64) -> Vec<Place> {
    let size = |one: &Prepared<'_>| one.lock.packages().map(|package| package.size).sum::<u64>();
    // Layers are shared as a rule, and an image is no larger than what is in it.
    let unpacked = prepared.iter().map(size).max().unwrap_or(0).saturating_mul(UNPACKED);
    let place = |what, path: &Path, required| Place { what, path: path.to_path_buf(), required };
    let mut places = vec![place("cache", &options.environment.cache, unpacked), place("work area", work.path(), need)];
    for one in prepared {
        let images = one.intent.outputs.len() as u64;
        let output = output_folder(one.intent, options);
        match places.iter_mut().find(|place| place.path == output) {
            Some(place) => place.required = place.required.saturating_add(unpacked.saturating_mul(images)),
            None => places.push(place("output folder", &output, unpacked.saturating_mul(images))),
        }
    }
    places
}

/// Adds what each place takes and has, to an error about the space of a host. One about the space in an image is left
/// alone: it says that already.
pub(super) fn explain(error: Error, places: &[Place]) -> Error {
    let of_host = error.message().to_ascii_lowercase().contains("no space left on device");
    if error.kind() != Kind::Space || !of_host {
        return error;
    }
    let mut error = error;
    for Place { what, path, required } in places {
        if let Some(available) = usage::free_space(path) {
            let path = path.display();
            error = error.hint(format!("{what} {path}: up to {required} bytes required, {available} bytes available"));
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Context, Result};

    #[test]
    fn only_errors_about_the_host_are_explained() {
        let folder = tempfile::tempdir().unwrap();
        let places = [Place { what: "cache", path: folder.path().to_path_buf(), required: 77 }];
        let full: std::io::Result<()> = Err(std::io::ErrorKind::StorageFull.into());
        let full: Result<()> = full.context("writing x");
        let hints = explain(full.unwrap_err(), &places).hints().join("\n");
        assert!(hints.contains(": up to 77 bytes required, ") && hints.contains(" bytes available"), "{hints}");
        let script = Error::new(Kind::Space, "dpkg failed:\n  cat: write error: No space left on device");
        assert_eq!(explain(script, &places).hints().len(), 1);
        for other in [Error::new(Kind::Space, "partition 1 (/): the content needs 9 bytes"), Error::build("x")] {
            assert!(explain(other, &places).hints().is_empty());
        }
    }
}
