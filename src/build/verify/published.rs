//! The files beside an image: do they speak of this image.
//!
//! Owns: the checks of `<image>.sha256`, `<image>.md5sum`, the output metadata and the lock. A file that is not there
//! is not looked for: an image may travel alone.

use std::path::{Path, PathBuf};

use super::{LOCK, MD5SUM, METADATA, Outcomes, SHA256, Verdict};
use crate::build::evidence::Checksums;
use crate::document::{self, Node};
use crate::error::{Context, Result};
use crate::format::disk::sums::Digests;
use crate::inspect::image::Image;
use crate::package::lock::{LOCK_VERSION, Lock};

/// No side file comes near it.
const LIMIT: u64 = 64 << 20;

/// `read` is the image as it was opened, if that went well.
pub(super) fn check(image: &Path, read: Option<&Image>, outcomes: &mut Outcomes) -> Result<()> {
    let sums = Checksums::of(image, Digests::BOTH)?;
    for (check, extension, digest) in [(SHA256, "sha256", &sums.sha256), (MD5SUM, "md5sum", &sums.md5)] {
        let Some(digest) = digest else { continue };
        match text_of(&beside(image, extension))? {
            None => outcomes.add(check, Verdict::Skipped, "", format!("no .{extension} beside the image")),
            Some(text) if text == format!("{digest}\n") => outcomes.add(check, Verdict::Ok, "", digest.clone()),
            Some(text) => {
                let text: String = text.trim_end().chars().take(80).collect();
                outcomes.add(check, Verdict::Failed, "", format!("it says `{text}`, the file has {digest}"));
            }
        }
    }
    metadata(image, read, &sums, outcomes)?;
    lock(image, outcomes)
}

/// `x.qcow2` -> `x.qcow2.sha256`
fn beside(image: &Path, extension: &str) -> PathBuf {
    let mut name = image.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(extension);
    image.with_file_name(name)
}

fn text_of(path: &Path) -> Result<Option<String>> {
    let context = || format!("reading {}", path.display());
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= LIMIT => {}
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(context),
        _ => return Ok(None),
    }
    let bytes = std::fs::read(path).with_context(context)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The side file of that suffix that goes with the image: of its own name, else the one whose name begins it (an image
/// may be called differently from its set).
fn named_after(image: &Path, suffix: &str) -> Option<PathBuf> {
    let stem = image.file_stem()?.to_str()?;
    // `x.tar.zst`
    let stem = stem.strip_suffix(".tar").unwrap_or(stem);
    let path = image.with_file_name(format!("{stem}{suffix}"));
    path.is_file().then_some(path)
}

fn metadata(image: &Path, read: Option<&Image>, sums: &Checksums, outcomes: &mut Outcomes) -> Result<()> {
    let Some(path) = named_after(image, ".output-metadata.yaml") else {
        outcomes.add(METADATA, Verdict::Skipped, "", "no output metadata beside the image");
        return Ok(());
    };
    let text = text_of(&path)?.unwrap_or_default();
    let file_name = image.file_name().unwrap_or_default().to_string_lossy();
    let result = match document::load_str(&path.display().to_string(), &text) {
        Err(error) => Err(error.message().to_owned()),
        Ok(documents) => compare(documents.first(), &file_name, read, sums),
    };
    outcomes.of(METADATA, "", result);
    Ok(())
}

/// What the metadata says of a file against what the file is.
fn compare(metadata: Option<&Node>, file_name: &str, read: Option<&Image>, sums: &Checksums) -> Result<String, String> {
    let text = |node: &Node, key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
    let images = metadata.and_then(|node| node.get("images")).and_then(Node::as_sequence).unwrap_or_default();
    let Some(entry) = images.iter().find(|entry| text(entry, "fileName").as_deref() == Some(file_name)) else {
        return Err(format!("it does not mention {file_name}"));
    };
    let mut expected = vec![("size", sums.size.to_string())];
    // A build may have left digests out.
    for (key, digest) in [("md5", &sums.md5), ("sha256", &sums.sha256)] {
        expected.extend(digest.clone().filter(|_| text(entry, key).is_some()).map(|digest| (key, digest)));
    }
    if let Some(image) = read {
        expected.push(("format", image.container.name().to_owned()));
        if image.container.is_disk() {
            expected.push(("virtualSize", image.disk.size().to_string()));
        }
    }
    for (key, value) in expected {
        let said = text(entry, key).unwrap_or_default();
        // qemu-img's word and Metal3's.
        let said = if key == "format" && said == "vpc" { "vhd".to_owned() } else { said };
        if said != value {
            return Err(format!("`{key}` is `{said}`, the file has {value}"));
        }
    }
    let first = images.first().and_then(|entry| text(entry, "fileName")).unwrap_or_default();
    let boot = metadata.and_then(|node| text(node, "bootImagePath")).unwrap_or_default();
    if Path::new(&boot).file_name().map(|name| name.to_string_lossy().into_owned()) != Some(first.clone()) {
        return Err(format!("`bootImagePath` is `{boot}`, the first image is {first}"));
    }
    Ok(format!("{} images", images.len()))
}

fn lock(image: &Path, outcomes: &mut Outcomes) -> Result<()> {
    let Some(path) = named_after(image, ".lock.yaml") else {
        outcomes.add(LOCK, Verdict::Skipped, "", "no lock beside the image");
        return Ok(());
    };
    let text = text_of(&path)?.unwrap_or_default();
    // An image made by an older program is no worse for it.
    let version = text.lines().find_map(|line| line.strip_prefix("lockVersion: ")).unwrap_or_default();
    if version.parse().is_ok_and(|version: u32| version != LOCK_VERSION) {
        outcomes.add(LOCK, Verdict::Skipped, "", format!("a lock of version {version}, not {LOCK_VERSION}"));
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let lock = Lock::parse(&path.display().to_string(), text.as_bytes());
    outcomes.of(LOCK, "", lock.map(|_| name).map_err(|error| error.to_string()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::evidence::{ImageRecord, output_metadata};
    use crate::build::verify::Outcome;
    use crate::package::lock;

    /// A raw image with its set, as a build publishes it.
    fn set(folder: &Path) -> PathBuf {
        let image = folder.join("node.raw");
        std::fs::write(&image, vec![7; 4096]).unwrap();
        let sums = Checksums::of(&image, Digests::BOTH).unwrap();
        std::fs::write(folder.join("node.raw.sha256"), format!("{}\n", sums.sha256.clone().unwrap())).unwrap();
        std::fs::write(folder.join("node.raw.md5sum"), format!("{}\n", sums.md5.clone().unwrap())).unwrap();
        let record = ImageRecord {
            file_name: "node.raw".into(),
            format: "raw".into(),
            virtual_size: Some(4096),
            checksums: sums,
        };
        std::fs::write(folder.join("node.output-metadata.yaml"), output_metadata(folder, &[record])).unwrap();
        std::fs::write(folder.join("node.lock.yaml"), lock::tests::lock().to_yaml()).unwrap();
        image
    }

    fn outcomes(image: &Path) -> Vec<Outcome> {
        let mut outcomes = Outcomes::default();
        check(image, Image::open(image).ok().as_ref(), &mut outcomes).unwrap();
        outcomes.0
    }

    fn failed(image: &Path) -> Vec<&'static str> {
        let all = outcomes(image);
        all.iter().filter(|one| one.verdict == Verdict::Failed).map(|one| one.check).collect()
    }

    #[test]
    fn a_published_set_agrees_with_itself() {
        let folder = tempfile::tempdir().unwrap();
        let all = outcomes(&set(folder.path()));
        assert!(all.iter().all(|outcome| outcome.verdict == Verdict::Ok), "{all:?}");
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn what_does_not_belong_to_the_image_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let image = set(folder.path());
        let edit = |name: &str, from: &str, to: &str| {
            let path = folder.path().join(name);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        };
        edit("node.raw.sha256", "\n", "  node.raw\n");
        assert_eq!(failed(&image), ["sha256"]);
        set(folder.path());
        edit("node.output-metadata.yaml", "  size: 4096", "  size: 4097");
        assert_eq!(failed(&image), ["output-metadata"]);
        set(folder.path());
        edit("node.output-metadata.yaml", "/node.raw", "/other.raw");
        assert_eq!(failed(&image), ["output-metadata"]);
        set(folder.path());
        edit("node.lock.yaml", "amd64", "arm64");
        assert_eq!(failed(&image), ["lock"]);
        set(folder.path());
        std::fs::write(&image, vec![8; 4096]).unwrap();
        assert_eq!(failed(&image), ["sha256", "md5sum", "output-metadata"]);
    }

    #[test]
    fn an_image_alone_is_no_finding() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("x.raw");
        std::fs::write(&image, vec![1; 2048]).unwrap();
        assert!(outcomes(&image).iter().all(|outcome| outcome.verdict == Verdict::Skipped));
    }
}
