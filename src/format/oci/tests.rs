//! Layouts and archives, read back.

use std::io::Read;

use super::*;
use crate::format::tar::Compression;
use crate::tree::{Digest, Meta, Mtime, Origin, Tree, TreePath};

fn tree() -> Tree {
    let origin: Origin = "test".into();
    let mut tree = Tree::new();
    let meta = Meta { mtime: Mtime { seconds: 1_700_000_000, nanoseconds: 0 }, ..Meta::root(0o755) };
    tree.write_file(&TreePath::literal("bin/hello"), "#!/bin/sh\n".repeat(1000), meta, &origin).unwrap();
    tree
}

fn write(folder: &std::path::Path, compression: Compression) -> (Layout, Descriptor, Layer) {
    let layout = Layout::create(folder).unwrap();
    let layer = layout.add_layer(&tree(), compression, &|_| ()).unwrap();
    let config = Config {
        created: 1_700_000_000,
        entrypoint: vec!["/bin/hello".into()],
        labels: [("a".to_owned(), "b".to_owned())].into(),
        volumes: vec!["/config".into()],
        ..Config::default()
    };
    let tags = ["localhost:5000/team/x:1.2".to_owned(), "y:latest".to_owned()];
    let manifest = layout.add_image(&config, std::slice::from_ref(&layer), &tags).unwrap();
    (layout, manifest, layer)
}

#[test]
fn the_same_input_gives_the_same_image() {
    let folder = tempfile::tempdir().unwrap();
    let (_, one, _) = write(&folder.path().join("one"), Compression::Gzip);
    let (layout, two, layer) = write(&folder.path().join("two"), Compression::Gzip);
    assert_eq!(one, two);
    let bytes = std::fs::read(layout.blob(layer.blob.digest)).unwrap();
    assert_eq!((Digest::of(&bytes), bytes.len() as u64), (layer.blob.digest, layer.blob.size));
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(Digest::of(&plain), layer.diff_id);
    let mut archive = tar::Archive::new(plain.as_slice());
    let names: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert!(names.iter().any(|name| name.ends_with("bin/hello")), "{names:?}");
}

#[test]
fn documents_say_what_the_specification_asks() {
    let folder = tempfile::tempdir().unwrap();
    let (layout, manifest, layer) = write(&folder.path().join("x"), Compression::None);
    assert_eq!(layer.blob.digest, layer.diff_id);
    let (read, blobs) = layout.image().unwrap();
    assert_eq!((read, blobs.len()), (manifest, 2));
    assert_eq!(blobs[1], layer.blob);
    assert_eq!(blobs[1].media_type, "application/vnd.oci.image.layer.v1.tar");
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.blob(blobs[0].digest)).unwrap()).unwrap();
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    assert_eq!(config["config"]["Entrypoint"][0], "/bin/hello");
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", layer.diff_id));
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("x/index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "1.2");
    assert_eq!(layout.tags().unwrap(), ["localhost:5000/team/x:1.2", "y:latest"]);
}

#[test]
fn an_archive_has_the_files_of_both_worlds() {
    let folder = tempfile::tempdir().unwrap();
    let (layout, _, layer) = write(&folder.path().join("x"), Compression::Zstd);
    let mut bytes = Vec::new();
    layout.archive(&mut bytes).unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut saved = None;
    let mut blobs = 0;
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        blobs += usize::from(name.contains("blobs/sha256/") && !name.ends_with('/'));
        if name.ends_with("manifest.json") {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            saved = Some(serde_json::from_str::<serde_json::Value>(&text).unwrap());
        }
    }
    let saved = saved.unwrap();
    assert_eq!(blobs, 3);
    assert_eq!(saved[0]["Layers"][0], format!("blobs/sha256/{}", layer.blob.digest));
    assert_eq!(saved[0]["RepoTags"][1], "y:latest");
    // A blob that was cut short is not archived.
    std::fs::write(layout.blob(layer.blob.digest), "x").unwrap();
    assert!(layout.archive(Vec::new()).unwrap_err().to_string().contains("is not complete"));
}

#[test]
fn other_folders_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "").unwrap();
    assert!(Layout::create(folder.path()).unwrap_err().to_string().contains("not a layout"));
    assert!(Layout::open(folder.path()).is_err());
}
