//! Image indexes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Descriptor;
use crate::error::Result;

/// An image index: the manifests of a layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of the index; some writers leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Descriptors of manifests, or of nested indexes.
    pub manifests: Vec<Descriptor>,
    /// Annotations, sorted by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// Parses and checks an index.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the field.
    pub fn parse(bytes: &[u8]) -> Result<Index> {
        let _ = bytes;
        todo!()
    }

    /// The index's bytes: deterministic, compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
