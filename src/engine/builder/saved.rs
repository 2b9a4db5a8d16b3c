//! An image of one layer as `docker load` and `podman load` take it.
//!
//! Owns: [`archive`]. Follows the Docker Image Specification v1.2, "Combined Image JSON + Filesystem Changeset Format": a
//! tar archive of `manifest.json`, the configuration under its digest, and the layer.

use std::collections::BTreeMap;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::PROGRAM;
use crate::error::{Context, Error, Result};
use crate::format::tar;
use crate::tree::{Meta, Mtime, Origin, Tree, TreePath};

pub(super) struct Image<'a> {
    pub reference: &'a str,
    /// Seconds since the epoch.
    pub created: i64,
    pub labels: BTreeMap<String, String>,
    pub work_folder: &'a str,
    pub tree: &'a Tree,
}

pub(super) fn archive(image: &Image<'_>) -> Result<Vec<u8>> {
    let mut layer = Vec::new();
    tar::write(image.tree, &mut layer, &tar::Options::default(), &|_| {}).context("writing the layer")?;
    let config = config(image, &hex::encode(Sha256::digest(&layer)))?;
    let name = format!("{}.json", hex::encode(Sha256::digest(config.as_bytes())));
    let manifest = json!([{ "Config": name, "RepoTags": [image.reference], "Layers": ["layer.tar"] }]).to_string();
    let mut outer = Tree::new();
    let mtime = Mtime { seconds: image.created, nanoseconds: 0 };
    let origin: Origin = "image".into();
    for (name, bytes) in
        [(name.as_str(), config.into_bytes()), ("layer.tar", layer), ("manifest.json", manifest.into())]
    {
        let path = TreePath::new(name).ok_or_else(|| Error::build(format!("{name} is not a path")))?;
        outer.write_file(&path, bytes, Meta { mtime, ..Meta::root(0o644) }, &origin)?;
    }
    let mut archive = Vec::new();
    tar::write(&outer, &mut archive, &tar::Options::default(), &|_| {}).context("writing the image")?;
    Ok(archive)
}

fn config(image: &Image<'_>, layer: &str) -> Result<String> {
    let time = jiff::Timestamp::from_second(image.created);
    let created = time.map_err(|error| Error::build(error.to_string())).context("writing the time of the image")?;
    let created = created.to_string();
    Ok(json!({
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {
            "Entrypoint": [PROGRAM],
            "Cmd": ["container"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": image.work_folder,
            "Labels": image.labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": created, "created_by": "imagebuilder" }],
    })
    .to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_holds_what_the_manifest_names() {
        let mut tree = Tree::new();
        tree.write_file(&TreePath::literal("etc/x"), "x", Meta::root(0o644), &"t".into()).unwrap();
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let image = Image { reference: "localhost/x:y", created: 1_700_000_000, labels, work_folder: "/", tree: &tree };
        let bytes = archive(&image).unwrap();
        assert_eq!(bytes, archive(&image).unwrap());
        let mut files = BTreeMap::new();
        let mut reader = ::tar::Archive::new(bytes.as_slice());
        for entry in reader.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            let name = entry.path().unwrap().display().to_string();
            files.insert(name.trim_start_matches("./").to_owned(), content);
        }
        let json = |name: &str| serde_json::from_slice::<serde_json::Value>(&files[name]).unwrap();
        let manifest = json("manifest.json");
        let config = json(manifest[0]["Config"].as_str().unwrap());
        assert_eq!(manifest[0]["RepoTags"][0], "localhost/x:y");
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
        assert_eq!(config["config"]["Labels"]["a"], "b");
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&files["layer.tar"])));
        assert_eq!(config["rootfs"]["diff_ids"][0], digest);
    }
}
