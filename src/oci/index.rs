//! Image indexes.
//!
//! Source: OCI image specification, "Image Index"; Docker's manifest list is read too.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Descriptor, annotations, media_type};
use crate::error::Result;
use crate::limits;
use crate::printable::quoted;

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
    /// The index of a layout with one manifest, which tools address as `ref_name`.
    pub fn of(mut manifest: Descriptor, ref_name: &str) -> Index {
        manifest
            .annotations
            .insert(annotations::REF_NAME.into(), ref_name.into());
        Index {
            schema_version: 2,
            media_type: Some(media_type::IMAGE_INDEX.into()),
            manifests: vec![manifest],
            annotations: BTreeMap::new(),
        }
    }

    /// Parses and checks an index.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the field.
    pub fn parse(bytes: &[u8]) -> Result<Index> {
        Index::parse_named(bytes, "index")
    }

    /// [`parse`](Index::parse), with `subject` naming the document in errors.
    pub(crate) fn parse_named(bytes: &[u8], subject: &str) -> Result<Index> {
        let mut manifests = Vec::new();
        let index = Index::read(bytes, subject, &mut |_, manifest| {
            manifests.push(manifest);
            Ok(())
        })?;
        Ok(Index { manifests, ..index })
    }

    /// Reads an index of which the manifests go to `each`, one by one with their numbers, before the
    /// rest of it is checked.
    ///
    /// # Errors
    /// As [`parse`](Index::parse), and what `each` gives.
    pub(crate) fn read(
        bytes: &[u8],
        subject: &str,
        each: &mut dyn FnMut(usize, Descriptor) -> Result<()>,
    ) -> Result<Index> {
        let limit = limits::MAX_MANIFESTS;
        let (mut fields, _) = Descriptor::parse_listing(bytes, subject, "manifests", limit, each)?;
        let schema_version = fields.schema_version()?;
        let media_type = fields.string("mediaType")?;
        if let Some(found) = media_type.as_deref().filter(|m| media_type::is_manifest(m)) {
            return Err(fields.refuse(
                "mediaType",
                format!("is {}, that of a manifest", quoted(found)),
            ));
        }
        for key in ["layers", "config"] {
            if fields.take(key)?.is_some() {
                return Err(fields.refuse(key, "stands in an index, only a manifest has it"));
            }
        }
        Descriptor::check_listing(&mut fields, "manifests")?;
        Ok(Index {
            schema_version,
            media_type,
            manifests: Vec::new(),
            annotations: fields.annotations()?,
        })
    }

    /// The index's bytes: deterministic, compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
