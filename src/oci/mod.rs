//! OCI documents: parsers of untrusted JSON, and writers of deterministic JSON.
//!
//! Sources: OCI image specification 1.1 (descriptor, manifest, index, image layout), ModelPack.

pub mod annotations;
pub mod config;
pub mod descriptor;
pub mod index;
pub mod json;
pub mod manifest;
pub mod media_type;

pub use config::OciConfig;
pub use descriptor::Descriptor;
pub use index::Index;
pub use manifest::OciManifest;

/// The contents of the `oci-layout` file.
pub const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
