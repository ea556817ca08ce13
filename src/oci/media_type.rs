//! Media types that are read or written.

/// OCI image manifest.
pub const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The empty descriptor's blob, `{}`.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Artifact type of a modeloci model.
pub const MODEL_ARTIFACT: &str = "application/vnd.modeloci.model.v1+json";
/// Config of a modeloci model.
pub const MODEL_CONFIG: &str = "application/vnd.modeloci.config.v1+json";
/// Config of an OCI image; the original Python tool used it for its own config.
pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Config of a Docker image.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// A chunk table that is a blob of its own.
pub const CHUNK_TABLE: &str = "application/vnd.modeloci.chunks.v1";
/// A tar layer.
pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// A tar layer compressed with gzip.
pub const LAYER_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A tar layer compressed with zstd.
pub const LAYER_TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// The compression that a type names.
pub fn compression(media_type: &str) -> Option<&'static str> {
    let essence = media_type.split(';').next().unwrap_or_default().trim_end();
    match essence.rsplit(['/', '.', '+']).next() {
        Some("gzip" | "gz") => Some("gzip"),
        Some("zstd" | "zst") => Some("zstd"),
        _ => None,
    }
}

/// True for types that name a tar, compressed or not: their last word is `tar`, or the one before a
/// compression.
pub fn names_tar(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim_end();
    let mut words = essence.rsplit(['/', '.', '+']);
    if compression(essence).is_some() {
        words.next();
    }
    words.next() == Some("tar")
}

/// True for the media types of image manifests.
pub fn is_manifest(media_type: &str) -> bool {
    [IMAGE_MANIFEST, DOCKER_MANIFEST].contains(&media_type)
}

/// True for the media types of image indexes.
pub fn is_index(media_type: &str) -> bool {
    [IMAGE_INDEX, DOCKER_MANIFEST_LIST].contains(&media_type)
}
