//! The typed documents: one file a kind, plus `params` for the areas that NodeProfile and AirshipImage share.
//!
//! Owns: the shapes, their defaults and the words they use. Decoding with positions is `document::decode`; rules
//! across fields are in `check`. Sets are maps keyed by name; lists only where order matters. Unknown fields are
//! errors (`deny_unknown_fields`).

pub mod airship_image;
pub mod image_configuration;
pub mod manifest_metadata;
pub mod meta;
pub mod node_profile;
pub mod params;
pub mod phase;
pub mod realm;
pub mod release;
pub mod scalar;
pub mod schema;

pub use airship_image::AirshipImage;
pub use image_configuration::ImageConfiguration;
pub use manifest_metadata::ManifestMetadata;
pub use meta::ObjectMeta;
pub use node_profile::NodeProfile;
pub use params::Params;
pub use phase::Phase;
pub use release::Release;

/// Group and version of every kind here.
pub const API_VERSION: &str = "airshipit.org/v1alpha1";
