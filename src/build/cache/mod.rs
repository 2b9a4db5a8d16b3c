//! The cache folder as a whole: what is in it, how large and how old it is, what goes first when it is too large.
//!
//! Owns: [`list`](list::list), [`prune`](prune::prune), [`verify`](verify::verify) and the lock that keeps them from
//! taking away what a running build uses. What lies where is the business of those who put it there; here is only the
//! list of places. Dates of files say when something was last used.
//!
//! ```text
//! <cache>/in-use                 locked shared by every build, exclusively by whoever removes something
//! <cache>/debs/sha256/xx/*.deb   packages as downloaded           (package::fetch)
//! <cache>/indexes/sha256/*       package indexes as downloaded    (package::fetch::index)
//! <cache>/indexes/seen/*         dates of signed indexes: never removed, they keep mirrors from going back in time
//! <cache>/answers-v1/*           answers of the resolver          (package::lock::answers)
//! <cache>/trees-v2/*             finished steps, and packages decompressed for them (tree::store, package::kept)
//! <cache>/clusters-v2/*          clusters of disks, blocks of squashfs, boot images  (tree::clusters)
//! <cache>/work/*                 work areas of running builds     (sandbox::workarea)
//! ```

pub mod list;
pub mod prune;
pub mod verify;

pub use list::{Area, Item, list};
pub use prune::{InUse, Limits, Pruned, prune};
pub use verify::verify;

/// A cache is kept below this, unless something else is asked for: some twenty images and what they are made of.
pub const DEFAULT_SIZE: u64 = 20 << 30;
