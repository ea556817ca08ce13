//! The documents behind the layers: config, manifest, referrer, index, layout.

use super::archive::Archive;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;
use crate::oci::{
    Descriptor, Index, OCI_LAYOUT, OciConfig, OciManifest, annotations, media_type,
};

/// The blob of the empty descriptor (image specification, "Guidance for an Empty Descriptor").
const EMPTY: &[u8] = b"{}";

/// The descriptor of the empty blob.
pub(super) fn empty() -> Descriptor {
    Descriptor::of(media_type::EMPTY, EMPTY)
}

/// The manifest of a model. A manifest needs a layer: without files it has the empty one.
pub(super) fn manifest(config: &OciConfig, mut layers: Vec<Descriptor>) -> OciManifest {
    if layers.is_empty() {
        layers.push(empty());
    }
    let config = Descriptor::of(media_type::MODEL_CONFIG, &config.to_bytes());
    new_manifest(media_type::MODEL_ARTIFACT, config, layers)
}

fn new_manifest(artifact_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> OciManifest {
    OciManifest {
        schema_version: 2,
        media_type: Some(media_type::IMAGE_MANIFEST.into()),
        artifact_type: Some(artifact_type.into()),
        config,
        layers,
        subject: None,
        annotations: Default::default(),
    }
}

/// What was written.
pub(super) struct Written {
    /// Digest of the manifest.
    pub manifest_digest: Digest,
    /// Things that the user should know.
    pub warnings: Vec<String>,
}

/// Writes everything behind the layers and their tables: the config blob, the manifest blob, a
/// referrer that keeps chunk tables with the manifest, and the root documents.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::ErrorKind::Refused) when the manifest is larger than a reader
/// accepts; otherwise when writing fails.
pub(super) fn write(
    archive: &mut Archive,
    manifest: &OciManifest,
    config: &[u8],
    version: &str,
    mut tables: Vec<Descriptor>,
) -> Result<Written> {
    if manifest.layers.iter().any(|l| l.media_type == media_type::EMPTY) {
        archive.blob(media_type::EMPTY, EMPTY)?;
    }
    archive.blob(&manifest.config.media_type, config)?;
    let bytes = manifest.to_bytes();
    let mut warnings = Vec::new();
    check_size(&bytes, &mut warnings)?;
    let mut descriptor = archive.blob(media_type::IMAGE_MANIFEST, &bytes)?;
    descriptor.artifact_type.clone_from(&manifest.artifact_type);
    let manifest_digest = descriptor.digest;

    if !tables.is_empty() {
        // Equal files in one directory have tables that differ (the tar header is in them), but
        // nothing forbids equal ones.
        tables.sort_by_key(|table| table.digest);
        tables.dedup();
        let config = archive.blob(media_type::EMPTY, EMPTY)?;
        let mut referrer = new_manifest(media_type::CHUNK_TABLE, config, tables);
        referrer.subject = Some(descriptor.clone());
        let bytes = referrer.to_bytes();
        check_size(&bytes, &mut warnings)?;
        archive.blob(media_type::IMAGE_MANIFEST, &bytes)?;
    }

    descriptor
        .annotations
        .insert(annotations::REF_NAME.into(), version.into());
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::IMAGE_INDEX.into()),
        manifests: vec![descriptor],
        annotations: Default::default(),
    };
    archive.document("oci-layout", OCI_LAYOUT.as_bytes())?;
    archive.document("index.json", &index.to_bytes())?;
    archive.document("config.json", config)?;
    archive.document("manifest.json", &bytes)?;
    Ok(Written {
        manifest_digest,
        warnings,
    })
}

fn check_size(manifest: &[u8], warnings: &mut Vec<String>) -> Result<()> {
    let size = manifest.len() as u64;
    if size > limits::MAX_MANIFEST_BYTES {
        return Err(Error::refused(
            "manifest",
            format!(
                "has {size} bytes, the limit is {}; pack fewer files",
                limits::MAX_MANIFEST_BYTES
            ),
        ));
    }
    if size > limits::REGISTRY_MANIFEST_BYTES {
        warnings.push(format!(
            "the manifest has {size} bytes; registries may refuse more than {}",
            limits::REGISTRY_MANIFEST_BYTES
        ));
    }
    Ok(())
}
