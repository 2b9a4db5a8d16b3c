//! The files beside an image: checksums, output metadata.
//!
//! Owns: their names and formats. `<name>.<ext>.sha256` and `.md5sum` hold the hexadecimal digest and a newline,
//! nothing else (upstream's contract, Ironic reads them that way); `<name>.output-metadata.yaml` is upstream's
//! `bootImagePath` and `md5sum` with more keys below.

use std::fs::File;
use std::path::Path;

use crate::document::OriginEntry;
use crate::error::{Context, Result};
use crate::format::disk::sums::{Digests, Sums};

/// Digests of a finished file, lower-case hexadecimal, as far as they are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksums {
    pub sha256: Option<String>,
    pub md5: Option<String>,
    /// Bytes of the file as `stat` shows them.
    pub size: u64,
}

impl From<Sums> for Checksums {
    fn from(sums: Sums) -> Self {
        let Sums { sha256, md5, size } = sums;
        Checksums { sha256: sha256.map(hex::encode), md5: md5.map(hex::encode), size }
    }
}

impl Checksums {
    /// Reads the file once.
    pub fn of(path: &Path, digests: Digests) -> Result<Self> {
        let context = || format!("reading {}", path.display());
        let file = File::open(path).with_context(context)?;
        Sums::of(file, digests).map(Checksums::from).with_context(context)
    }
}

/// One line of `output-metadata`, per image file.
#[derive(Debug, Clone)]
pub struct ImageRecord {
    pub file_name: String,
    /// `qcow2`, `raw`, `vmdk`, `vhd`, `tar`: the word that Metal3 and Glance use.
    pub format: String,
    /// Of the disk; an archive has none.
    pub virtual_size: Option<u64>,
    pub checksums: Checksums,
}

/// The text of `<name>.output-metadata.yaml`. The first image is the boot image; all are listed.
pub fn output_metadata(output: &Path, images: &[ImageRecord]) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let line = |key: &str, digest: &Option<String>| {
        digest.iter().map(|digest| format!("{key}: {digest}\n")).collect::<String>()
    };
    let mut text = String::new();
    if let Some(first) = images.first() {
        text += &format!("bootImagePath: {}\n", quote(&output.join(&first.file_name).to_string_lossy()));
        text += &line("md5sum", &first.checksums.md5);
    }
    text += "images:\n";
    for image in images {
        text += &format!("- fileName: {}\n", quote(&image.file_name));
        text += &format!("  format: {}\n", image.format);
        text += &format!("  size: {}\n", image.checksums.size);
        if let Some(size) = image.virtual_size {
            text += &format!("  virtualSize: {size}\n");
        }
        text += &line("  md5", &image.checksums.md5);
        text += &line("  sha256", &image.checksums.sha256);
    }
    text
}

/// The text of `<name>.origins.yaml`: every value of the documents, by JSON pointer, with the places that made it what
/// it is, newest first.
pub fn origins(entries: &[OriginEntry]) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = String::new();
    for entry in entries {
        text += &format!("{}:\n", quote(&entry.path));
        for place in &entry.chain {
            text += &format!("- {}\n", quote(place));
        }
    }
    if text.is_empty() { "{}\n".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_known_bytes() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"abc").unwrap();
        let sums = Checksums::of(file.path(), Digests::BOTH).unwrap();
        // FIPS 180-4 and RFC 1321 test vectors.
        assert_eq!(sums.sha256.unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(sums.md5.unwrap(), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(sums.size, 3);
    }

    #[test]
    fn origins_are_yaml() {
        let entry =
            OriginEntry { path: "/spec/a b".into(), chain: vec!["x.yaml:1:2".into(), "patch y.yaml:3:4".into()] };
        let documents = crate::document::load_str("o.yaml", &origins(&[entry])).unwrap();
        assert_eq!(documents[0].get("/spec/a b").unwrap().as_sequence().unwrap().len(), 2);
        assert_eq!(origins(&[]), "{}\n");
    }

    #[test]
    fn metadata_is_yaml_with_upstreams_keys() {
        let checksums = Checksums { sha256: Some("aa".into()), md5: Some("bb".into()), size: 7 };
        let record = ImageRecord {
            file_name: "x.qcow2".into(),
            format: "qcow2".into(),
            virtual_size: Some(19 << 30),
            checksums,
        };
        let text = output_metadata(Path::new("out"), &[record]);
        assert!(text.starts_with("bootImagePath: \"out/x.qcow2\"\nmd5sum: bb\nimages:\n"), "{text}");
        assert!(text.contains("  virtualSize: 20401094656\n"), "{text}");
    }
}
