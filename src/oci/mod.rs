//! OCI documents: parsers of untrusted JSON, and writers of deterministic JSON.
//!
//! Sources: OCI image specification 1.1 (descriptor, manifest, index, image layout), ModelPack.

pub mod annotations;
mod base64;
pub mod config;
pub mod descriptor;
mod fields;
pub mod index;
pub mod json;
pub mod manifest;
pub mod media_type;
pub mod stated;
pub mod time;

pub use config::OciConfig;
pub use descriptor::Descriptor;
pub use index::Index;
pub use manifest::OciManifest;
pub use stated::Stated;

/// The contents of the `oci-layout` file.
pub const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The blob of the empty descriptor.
pub const EMPTY_JSON: &[u8] = b"{}";

#[cfg(test)]
mod tests;
