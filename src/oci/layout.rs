//! What every image layout has.

/// The contents of the `oci-layout` file.
pub const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The blob of the empty descriptor.
pub const EMPTY_JSON: &[u8] = b"{}";
