//! OCI documents: parsers of untrusted JSON, and writers of deterministic JSON.
//!
//! Sources: OCI image specification 1.1 (descriptor, manifest, index, image layout), ModelPack.

pub mod annotations;
pub(crate) mod base64;
pub mod config;
pub mod descriptor;
mod fields;
pub mod index;
pub mod json;
mod layout;
pub mod manifest;
pub mod media_type;
pub mod stated;
pub mod time;

pub use config::OciConfig;
pub use descriptor::Descriptor;
pub use index::Index;
pub use layout::{EMPTY_JSON, OCI_LAYOUT};
pub use manifest::OciManifest;
pub use stated::Stated;

#[cfg(test)]
mod tests;
