//! Writes layouts, and archives of them.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::format::{self, Config, Descriptor, LAYOUT, MANIFEST, NAME};
use crate::error::{Context, Error, Result};
use crate::format::tar::{self, Compression, Sink};
use crate::tree::content::ReadAt;
use crate::tree::{Content, Digest, Entry, Kind, Meta, Mtime, Origin, Tree, TreePath};

/// Documents of an image are small; this is more than any registry takes.
const DOCUMENT_BYTES: u64 = 4 << 20;

/// A layout on disk: a folder with `oci-layout`, `index.json` and `blobs/sha256`.
#[derive(Debug, Clone)]
pub struct Layout {
    folder: PathBuf,
}

/// A layer that lies in the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub blob: Descriptor,
    /// Digest of the uncompressed archive ("Layer DiffID").
    pub diff_id: Digest,
}

impl Layout {
    /// Makes the folder, or takes one that holds a layout already. Blobs that are there stay; the index is replaced when
    /// an image is added.
    pub fn create(folder: &Path) -> Result<Self> {
        let making = || format!("making container image layout {}", folder.display());
        if folder.exists() && !folder.join("oci-layout").is_file() {
            let empty = std::fs::read_dir(folder).with_context(making)?.next().is_none();
            if !empty {
                return Err(Error::build(format!("{} is not empty and not a layout", folder.display())));
            }
        }
        std::fs::create_dir_all(folder.join("blobs/sha256")).with_context(making)?;
        std::fs::write(folder.join("oci-layout"), LAYOUT).with_context(making)?;
        Ok(Layout { folder: folder.to_path_buf() })
    }

    /// A layout that has an image.
    pub fn open(folder: &Path) -> Result<Self> {
        let layout = Layout { folder: folder.to_path_buf() };
        layout.index()?;
        Ok(layout)
    }

    /// Where a blob lies.
    pub fn blob(&self, digest: Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.to_hex())
    }

    /// Writes a layer. `progress` gets the number of bytes of files done since the last call.
    pub fn add_layer(&self, tree: &Tree, compression: Compression, progress: &dyn Fn(u64)) -> Result<Layer> {
        let context = || format!("writing a layer to {}", self.folder.display());
        let blobs = self.folder.join("blobs/sha256");
        let file = tempfile::NamedTempFile::new_in(&blobs).with_context(context)?;
        let mut packed = Hashing::new(file.as_file());
        let sink = Sink::new(compression, None, &mut packed).with_context(context)?;
        let mut plain = Hashing::new(sink);
        tar::write(tree, &mut plain, &tar::Options::default(), progress).with_context(context)?;
        let (sink, diff_id, _) = plain.finish();
        sink.finish().with_context(context)?;
        let (_, digest, size) = packed.finish();
        self.keep(file, digest)?;
        let suffix = match compression {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        let media_type = format!("{}{suffix}", format::LAYER);
        Ok(Layer { blob: Descriptor { media_type, digest, size }, diff_id })
    }

    /// Writes configuration, manifest and index. `tags` are whole references (`registry/name:tag`). What the layout's
    /// index said before is replaced.
    pub fn add_image(&self, config: &Config, layers: &[Layer], tags: &[String]) -> Result<Descriptor> {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
        let config = self.add_document(&config.to_json(&diff_ids), format::CONFIG)?;
        let blobs: Vec<Descriptor> = layers.iter().map(|layer| layer.blob.clone()).collect();
        let manifest = self.add_document(&format::manifest(&config, &blobs), MANIFEST)?;
        let index = self.folder.join("index.json");
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).context("writing the index of the layout")?;
        file.write_all(format::index(&manifest, tags).to_string().as_bytes())
            .context("writing the index of the layout")?;
        self.readable(&file)?;
        file.persist(&index).map_err(|error| error.error).with_context(|| format!("writing {}", index.display()))?;
        Ok(manifest)
    }

    /// Takes away blobs that do not belong to the image, such as those of one that was here before.
    pub fn sweep(&self) -> Result<()> {
        let (manifest, blobs) = self.image()?;
        let known: Vec<String> = blobs.iter().chain([&manifest]).map(|blob| blob.digest.to_hex()).collect();
        let folder = self.folder.join("blobs/sha256");
        let sweeping = || format!("clearing {}", folder.display());
        for entry in std::fs::read_dir(&folder).with_context(sweeping)? {
            let entry = entry.with_context(sweeping)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if Digest::from_hex(&name).is_some() && !known.contains(&name) {
                std::fs::remove_file(entry.path()).with_context(sweeping)?;
            }
        }
        Ok(())
    }

    fn add_document(&self, document: &Value, media_type: &str) -> Result<Descriptor> {
        let text = document.to_string();
        let digest = Digest::of(text.as_bytes());
        let mut file =
            tempfile::NamedTempFile::new_in(self.folder.join("blobs/sha256")).context("writing a document")?;
        file.write_all(text.as_bytes()).context("writing a document")?;
        self.keep(file, digest)?;
        Ok(Descriptor { media_type: media_type.to_owned(), digest, size: text.len() as u64 })
    }

    fn keep(&self, file: tempfile::NamedTempFile, digest: Digest) -> Result<()> {
        self.readable(&file)?;
        let place = self.blob(digest);
        file.persist(&place).map_err(|error| error.error).with_context(|| format!("writing {}", place.display()))?;
        Ok(())
    }

    fn readable(&self, file: &tempfile::NamedTempFile) -> Result<()> {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode).with_context(|| format!("writing to {}", self.folder.display()))
    }

    fn read_document(&self, path: &Path) -> Result<Value> {
        let context = || format!("reading {}", path.display());
        let size = path.metadata().with_context(context)?.len();
        if size > DOCUMENT_BYTES {
            return Err(Error::build("it is too large").add_context(context()));
        }
        let text = std::fs::read(path).with_context(context)?;
        serde_json::from_slice(&text).map_err(|error| Error::build(error.to_string()).add_context(context()))
    }

    fn index(&self) -> Result<Value> {
        self.read_document(&self.folder.join("index.json"))
            .map_err(|error| error.hint(format!("{} should be an OCI image layout", self.folder.display())))
    }

    /// The manifest of the image in the layout, with the digests of all blobs that belong to it, configuration first.
    pub fn image(&self) -> Result<(Descriptor, Vec<Descriptor>)> {
        let broken = |what: &str| Error::build(format!("{what} of {} is not understood", self.folder.display()));
        let index = self.index()?;
        let entries = index["manifests"].as_array().ok_or_else(|| broken("the index"))?;
        let manifest = entries.first().and_then(Descriptor::from_json).ok_or_else(|| broken("the index"))?;
        let document = self.read_document(&self.blob(manifest.digest))?;
        let config = Descriptor::from_json(&document["config"]).ok_or_else(|| broken("the manifest"))?;
        let layers = document["layers"].as_array().ok_or_else(|| broken("the manifest"))?;
        let layers = layers.iter().map(Descriptor::from_json).collect::<Option<Vec<_>>>();
        let blobs = std::iter::once(config).chain(layers.ok_or_else(|| broken("the manifest"))?).collect();
        Ok((manifest, blobs))
    }

    /// The references that the index has.
    pub fn tags(&self) -> Result<Vec<String>> {
        let index = self.index()?;
        let entries = index["manifests"].as_array().cloned().unwrap_or_default();
        Ok(entries.iter().filter_map(|entry| Some(entry["annotations"][NAME].as_str()?.to_owned())).collect())
    }

    /// Writes everything as one tar archive, for `docker load`, `podman load` and `skopeo copy oci-archive:`.
    pub fn archive(&self, to: impl Write) -> Result<()> {
        let context = || format!("archiving {}", self.folder.display());
        let (manifest, blobs) = self.image()?;
        let origin: Origin = Arc::from("image");
        let mut tree = Tree::new();
        let meta = Meta { mtime: Mtime::default(), ..Meta::root(0o644) };
        let index = self.index()?.to_string();
        let names: Vec<String> = blobs.iter().map(|blob| format!("blobs/sha256/{}", blob.digest)).collect();
        let saved = json!([{"Config": names[0], "RepoTags": self.tags()?, "Layers": names[1..]}]);
        for (name, text) in
            [("oci-layout", LAYOUT), ("index.json", index.as_str()), ("manifest.json", &saved.to_string())]
        {
            tree.write_file(&TreePath::literal(name), text.as_bytes().to_vec(), meta.clone(), &origin)?;
        }
        tree.make_directories(&TreePath::literal("blobs/sha256"), Mtime::default(), &origin)?;
        for blob in blobs.iter().chain([&manifest]) {
            let path =
                TreePath::new(format!("blobs/sha256/{}", blob.digest)).ok_or_else(|| Error::build("not a path"))?;
            let file = File::open(self.blob(blob.digest)).with_context(context)?;
            if file.metadata().with_context(context)?.len() != blob.size {
                return Err(Error::build(format!("blob {} is not complete", blob.digest)).add_context(context()));
            }
            let kind = Kind::File(Content::elsewhere(blob.digest, blob.size, Arc::new(OnDisk(file))));
            tree.put(&path, Entry { meta: meta.clone(), kind, origin: origin.clone() })?;
        }
        tar::write(&tree, to, &tar::Options::default(), &|_| ()).with_context(context)
    }
}

/// A file of the host as content. The caller vouches for its digest.
pub struct OnDisk(pub File);

impl ReadAt for OnDisk {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buffer, offset).context("reading a file of the host")
    }
}

/// Hashes what goes through.
struct Hashing<W> {
    to: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(to: W) -> Self {
        Hashing { to, hash: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (W, Digest, u64) {
        (self.to, Digest::from_bytes(self.hash.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}
