//! The documents behind the layers: config, manifest, referrer, index, layout.

use std::collections::BTreeMap;

use super::archive::Archive;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits;
use crate::oci::{
    Descriptor, EMPTY_JSON, Index, OCI_LAYOUT, OciConfig, OciManifest, annotations, media_type,
    time,
};

/// The manifest of a model; `created` is when it was made, in seconds since the epoch, or 0.
pub(super) fn manifest(
    config: &OciConfig,
    layers: Vec<Descriptor>,
    more: BTreeMap<String, String>,
    created: u64,
) -> OciManifest {
    let config = Descriptor::of(media_type::MODEL_CONFIG, &config.to_bytes());
    let mut manifest = OciManifest::new(config, layers);
    manifest.annotations.extend(more);
    if created > 0 {
        // What readers of a chunk table show: they do not look at the headers of layers.
        let created = time::format(created);
        manifest
            .annotations
            .insert(annotations::CREATED.into(), created);
    }
    manifest
}

/// What was written.
pub(super) struct Written {
    /// Digest of the manifest.
    pub manifest_digest: Digest,
    /// Things that the user should know.
    pub warnings: Vec<String>,
}

/// Writes everything behind the layers and their tables: the config blob, the manifest blob, a
/// referrer that keeps chunk tables with the manifest where some are blobs of their own (`pack` wrote
/// such once, of plain layers), and the root documents.
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
    if manifest.layers.iter().any(Descriptor::is_empty) {
        archive.blob(media_type::EMPTY, EMPTY_JSON)?;
    }
    archive.blob(&manifest.config.media_type, config)?;
    let mut warnings = Vec::new();
    let bytes = manifest.to_bytes();
    check(&bytes, &mut warnings)?;
    let mut descriptor = archive.blob(media_type::IMAGE_MANIFEST, &bytes)?;
    descriptor.artifact_type.clone_from(&manifest.artifact_type);
    let manifest_digest = descriptor.digest;

    if !tables.is_empty() {
        tables.sort_by_key(|table| table.digest);
        tables.dedup();
        let config = archive.blob(media_type::EMPTY, EMPTY_JSON)?;
        let mut referrer = OciManifest::new(config, tables);
        referrer.artifact_type = Some(media_type::CHUNK_TABLE.into());
        referrer.subject = Some(descriptor.clone());
        let bytes = referrer.to_bytes();
        check(&bytes, &mut warnings)?;
        archive.blob(media_type::IMAGE_MANIFEST, &bytes)?;
    }

    let index = Index::of(descriptor, version);
    archive.document("oci-layout", OCI_LAYOUT.as_bytes())?;
    archive.document("index.json", &index.to_bytes())?;
    archive.document("config.json", config)?;
    // A link: to containerd, a file of this name would be a list of images.
    archive.link("manifest.json", &manifest_digest, &bytes)?;
    Ok(Written {
        manifest_digest,
        warnings,
    })
}

/// Refuses to write what this project's own reader would refuse.
fn check(manifest: &[u8], warnings: &mut Vec<String>) -> Result<()> {
    let size = manifest.len() as u64;
    let too_large = |problem: String| Error::refused("manifest", problem);
    if size > limits::MAX_MANIFEST_BYTES {
        return Err(too_large(format!(
            "has {size} bytes, the limit is {}; the model has too many files",
            limits::MAX_MANIFEST_BYTES
        )));
    }
    if let Err(error) = OciManifest::parse(manifest) {
        return Err(too_large(format!("would not be readable: {error}")));
    }
    if size > limits::REGISTRY_MANIFEST_BYTES {
        warnings.push(format!(
            "the manifest has {size} bytes; registries may refuse more than {}",
            limits::REGISTRY_MANIFEST_BYTES
        ));
    }
    Ok(())
}
