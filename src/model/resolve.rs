//! Stub.
use crate::{digest::Digest, error::Result, oci::*, source::BlobSource};
/// Stub.
pub struct Resolved {
    pub manifest: OciManifest,
    pub manifest_digest: Digest,
    pub manifest_bytes: Vec<u8>,
    pub config: Option<OciConfig>,
    pub config_bytes: Vec<u8>,
    pub notes: Vec<String>,
}
pub fn resolve(_: &dyn BlobSource, _: Option<&Digest>) -> Result<Resolved> {
    todo!()
}
