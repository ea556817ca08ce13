//! Image manifests.
//!
//! Source: OCI image specification, "Image Manifest". Read besides: Docker's schema 2, a missing
//! media type, unknown media types and fields, `layers` that is empty or `null`, and the original
//! tool's snake-case keys. Refused: a document that is also an index (CVE-2021-41190), and one
//! digest with two sizes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Descriptor, media_type};
use crate::error::Result;
use crate::limits;
use crate::printable::quoted;

/// An image manifest: a config and the layers of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciManifest {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of the manifest; some writers leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Artifact type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Descriptor of the config blob.
    pub config: Descriptor,
    /// Descriptors of the layers, in order.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one refers to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations, sorted by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A manifest whose layers were read one by one.
pub(crate) struct Read {
    /// All but the layers.
    pub(crate) manifest: OciManifest,
    /// Its fields are spelled as the original tool does.
    pub(crate) original_spelling: bool,
}

impl OciManifest {
    /// The manifest of a model, as `pack` writes it. Without layers it gets the empty descriptor
    /// as its only one: the specification asks for at least one layer.
    ///
    /// ```
    /// use modeloci::oci::{Descriptor, OciManifest, media_type};
    ///
    /// let config = Descriptor::of(media_type::MODEL_CONFIG, b"{}");
    /// let manifest = OciManifest::new(config, vec![]);
    /// assert!(manifest.layers[0].is_empty());
    /// assert_eq!(OciManifest::parse(&manifest.to_bytes())?, manifest);
    /// # Ok::<(), modeloci::Error>(())
    /// ```
    pub fn new(config: Descriptor, mut layers: Vec<Descriptor>) -> OciManifest {
        if layers.is_empty() {
            layers.push(Descriptor::empty());
        }
        OciManifest {
            schema_version: 2,
            media_type: Some(media_type::IMAGE_MANIFEST.into()),
            artifact_type: Some(media_type::MODEL_ARTIFACT.into()),
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Parses and checks a manifest: OCI, Docker schema 2, or the original tool's snake-case
    /// spelling.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the field.
    pub fn parse(bytes: &[u8]) -> Result<OciManifest> {
        OciManifest::parse_named(bytes, "manifest")
    }

    /// [`parse`](OciManifest::parse), with `subject` naming the document in errors.
    pub(crate) fn parse_named(bytes: &[u8], subject: &str) -> Result<OciManifest> {
        let mut layers = Vec::new();
        let Read { mut manifest, .. } = OciManifest::read(bytes, subject, &mut |_, layer| {
            layers.push(layer);
            Ok(())
        })?;
        manifest.layers = layers;
        Ok(manifest)
    }

    /// Reads a manifest of which the layers go to `each`, one by one with their numbers, before the
    /// rest of it is checked.
    ///
    /// # Errors
    /// As [`parse`](OciManifest::parse), and what `each` gives.
    pub(crate) fn read(
        bytes: &[u8],
        subject: &str,
        each: &mut dyn FnMut(usize, Descriptor) -> Result<()>,
    ) -> Result<Read> {
        let limit = limits::MAX_LAYERS;
        let (mut fields, mut sizes) =
            Descriptor::parse_listing(bytes, subject, "layers", limit, each)?;
        let original_spelling = !fields.has_exactly("schemaVersion");
        let schema_version = fields.schema_version()?;
        let media_type = fields.string("mediaType")?;
        if let Some(found) = media_type.as_deref().filter(|m| media_type::is_index(m)) {
            return Err(fields.refuse(
                "mediaType",
                format!("is {}, that of an index", quoted(found)),
            ));
        }
        if fields.take("manifests")?.is_some() {
            return Err(fields.refuse("manifests", "stands in a manifest, only an index has it"));
        }
        let config = Descriptor::parse(fields.required("config")?, subject, "config".into())?;
        Descriptor::check_listing(&mut fields, "layers")?;
        sizes.note(&config, subject)?;
        let manifest = OciManifest {
            schema_version,
            media_type,
            artifact_type: fields.string("artifactType")?,
            config,
            layers: Vec::new(),
            subject: fields
                .take("subject")?
                .map(|value| Descriptor::parse(value, subject, "subject".into()))
                .transpose()?,
            annotations: fields.annotations()?,
        };
        Ok(Read {
            manifest,
            original_spelling,
        })
    }

    /// The manifest's bytes: deterministic, compact JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
