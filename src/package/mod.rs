//! Packages of Debian-family archives: signed index, dependency resolution, lock, download.
//!
//! Owns: everything between a repository's address and verified `.deb` files in the cache, and what is done with
//! them. Called as `lock::resolve` (repositories and lists -> [`lock::Lock`]) and then `fetch::fetch_all`
//! (locked packages -> files). Follows the Debian Policy Manual (chapters 5 and 7), the Debian repository format and
//! what apt does where those leave room. Clock and environment variables are handed in through [`Environment`].

pub mod binary;
mod clearsigned;
pub mod database;
pub mod deb;
pub mod deb822;
pub mod dpkg;
pub mod fetch;
mod helpers;
pub mod http;
pub mod index;
pub mod kept;
pub mod keyring;
pub mod lock;
pub mod relation;
pub mod release;
pub mod resolve;
pub mod root;
pub mod snapshot;
pub mod stage;
pub mod tar;
mod tcp;
pub mod unpack;
pub mod version;
pub mod waves;

use std::path::PathBuf;

use crate::report::Reporter;

/// What work on packages needs from the world outside, handed in by the command line.
#[derive(Clone)]
pub struct Environment {
    /// Indexes lie in `<cache>/indexes`, packages in `<cache>/debs`.
    pub cache: PathBuf,
    /// The time of the run, in seconds since the epoch: decides whether an index has expired.
    pub now: i64,
    pub reporter: Reporter,
    pub http: http::Client,
}
