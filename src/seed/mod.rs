//! The seed of a machine that boots from an image made for it: what cloud-init's ConfigDrive data source finds in
//! `openstack/latest/` (<https://docs.openstack.org/nova/latest/user/metadata.html>).
//!
//! Owns: [`Seed`], [`load`], where its parts come from ([`Input`]: a file, or documents by selector as airshipctl finds
//! them), checking them with the positions of their values, and the list of what in them is secret. Uses kustomize
//! (selectors), document, error. Bytes that are given stay as they are; only network data in YAML becomes JSON.

mod identity;
mod input;
mod network;
pub mod nocloud;
mod secrets;
mod user;

#[cfg(test)]
mod tests;

pub use identity::Identity;
pub use input::{Input, Selection};
pub use secrets::Secret;

use std::path::Path;

use crate::document::Diagnostic;
use crate::error::{Context, Error, Result};
use input::Text;

/// Where the files lie on a config drive.
pub const FOLDER: &str = "openstack/latest";
pub const META_DATA: &str = "meta_data.json";
pub const USER_DATA: &str = "user_data";
pub const NETWORK_DATA: &str = "network_data.json";

/// Checked and complete.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed {
    pub meta_data: Vec<u8>,
    pub user_data: Vec<u8>,
    /// JSON.
    pub network_data: Vec<u8>,
    /// What everybody who gets the image can read in it.
    pub secrets: Vec<Secret>,
}

/// Bytes stay out of logs.
impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seed").field("secrets", &self.secrets).finish_non_exhaustive()
    }
}

/// The two parts that somebody has to give. Each [`Input`] says where to look.
pub struct Request<'a> {
    pub user_data: Input<'a>,
    pub network_data: Input<'a>,
    pub identity: Identity,
}

/// Reads, checks and completes a seed.
pub fn load(request: &Request<'_>) -> Result<Seed> {
    let user = request.user_data.find(&input::USER_DATA).context("reading the user data")?;
    let network = request.network_data.find(&input::NETWORK_DATA).context("reading the network data")?;
    let secrets = user::check(&user).context("checking the user data")?;
    let network_data = network::json(&network).context("checking the network data")?;
    let mut identity = request.identity.clone();
    if let (None, Some(host)) = (&identity.hostname, network.host()) {
        identity.hostname = Some(host.to_owned());
    }
    let user_data = user.bytes;
    let meta_data = identity.meta_data(&user_data, &network_data);
    Ok(Seed { meta_data, user_data, network_data, secrets })
}

impl Seed {
    /// Path below the root of a config drive, and bytes.
    pub fn files(&self) -> [(String, &[u8]); 3] {
        [(META_DATA, &self.meta_data), (NETWORK_DATA, &self.network_data), (USER_DATA, &self.user_data)]
            .map(|(name, bytes)| (format!("{FOLDER}/{name}"), bytes.as_slice()))
    }

    /// Writes the files below a folder, for the eyes of their owner only.
    pub fn write(&self, folder: &Path) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let at = folder.join(FOLDER);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&at)
            .with_context(|| format!("making {}", at.display()))?;
        for (name, bytes) in self.files() {
            write_private(&folder.join(name), bytes)?;
        }
        Ok(())
    }
}

/// A file of mode 0600 from its first byte on, complete or not there.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // These are made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(writing)?;
    std::io::Write::write_all(&mut file, bytes).with_context(writing)?;
    file.persist(path).map_err(|error| error.error).with_context(writing)?;
    Ok(())
}

/// The first of several, with the others as hints.
fn enforce(found: Vec<Diagnostic>) -> Result<()> {
    const SHOWN: usize = 8;
    let count = found.len();
    let mut found = found.into_iter();
    let Some(first) = found.next() else { return Ok(()) };
    let error = found
        .by_ref()
        .take(SHOWN)
        .fold(Error::from(first), |error, other| error.hint(format!("also: {}: {}", other.place(), other.message())));
    Err(if count > SHOWN + 1 { error.hint(format!("and {} more", count - SHOWN - 1)) } else { error })
}

/// Something is wrong with a text as a whole.
fn fault(text: &Text, message: impl Into<String>) -> Error {
    Error::documents(format!("{}: {}", text.place(), message.into())).at(
        text.place().file(),
        text.place().line(),
        text.place().column(),
    )
}
