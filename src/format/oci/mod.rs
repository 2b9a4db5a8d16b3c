//! Container images: OCI Image Format Specification 1.1 (OCI below), as a layout on disk, and as an archive that
//! `docker load` and `podman load` take. No daemon is asked.
//!
//! Supported: any number of layers, each a [`Tree`](crate::tree::Tree) as a plain, gzip or zstd tar archive; one platform;
//! entry point, command, environment, labels and the like ([`Config`]); several tags for one image. The same input gives
//! the same bytes: the only time in it is the one that is given. An archive has both the files of an OCI layout and the
//! `manifest.json` of `docker save`, so that daemons from before OCI take it, too (they want gzip, not zstd).
//! Left out: signatures, several platforms in one index, layers that take files of lower ones away (whiteouts).
//!
//! ```no_run
//! # fn example(tree: &imagebuilder::tree::Tree) -> imagebuilder::error::Result<()> {
//! use imagebuilder::format::oci::{Config, Layout};
//! use imagebuilder::format::tar::Compression;
//!
//! let layout = Layout::create("out/builder.oci".as_ref())?;
//! let layer = layout.add_layer(tree, Compression::Gzip, &|_| ())?;
//! let config = Config { entrypoint: vec!["/usr/bin/imagebuilder".into()], ..Config::default() };
//! let manifest = layout.add_image(&config, &[layer], &["imagebuilder:latest".into()])?;
//! println!("{}", manifest.digest);
//! layout.archive(std::fs::File::create("builder.tar").unwrap())?;     // docker load --input builder.tar
//! # Ok(()) }
//! ```

mod format;
mod write;

pub use format::{Config, Descriptor, LAYOUT, MANIFEST};
pub use write::{Layer, Layout, OnDisk};

#[cfg(test)]
mod tests;
