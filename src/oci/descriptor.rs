//! Content descriptors.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest::Digest;

/// Points at a blob: what it is, its digest and its size (OCI "Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob, in bytes.
    pub size: u64,
    /// Artifact type, when the descriptor is one of a manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Annotations, sorted by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Inline copy of the blob, checked against digest and size when parsed. Not written.
    #[serde(skip)]
    pub data: Option<Vec<u8>>,
}

impl Descriptor {
    /// A descriptor of `blob` with no annotations.
    pub fn of(media_type: impl Into<String>, blob: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::sha256(blob), blob.len() as u64)
    }

    /// A descriptor with no annotations.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            artifact_type: None,
            annotations: BTreeMap::new(),
            data: None,
        }
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }
}
