//! Annotation keys that are read or written.

/// Path of a layer's file (OCI image specification, "Annotations").
pub const TITLE: &str = "org.opencontainers.image.title";
/// Name of a reference in `index.json`.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The same, with registry and repository (containerd).
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Creation time, RFC 3339.
pub const CREATED: &str = "org.opencontainers.image.created";
/// Licences, an SPDX expression (OCI image specification, "Annotations").
pub const LICENSES: &str = "org.opencontainers.image.licenses";
/// Tags of the model, separated by commas, of the manifest.
pub const TAGS: &str = "io.modeloci.tags";
/// Path of a layer's file (CNCF ModelPack).
pub const MODELPACK_FILEPATH: &str = "org.cncf.model.filepath";
/// Path of a layer's file (ModelPack up to 0.0.6).
pub const MODELPACK_OLD_FILEPATH: &str = "org.cnai.model.filepath";
/// Mode and time of a layer's file, as JSON (CNCF ModelPack).
pub const MODELPACK_METADATA: &str = "org.cncf.model.file.metadata+json";
/// The same, of ModelPack up to 0.0.6.
pub const MODELPACK_OLD_METADATA: [&str; 2] = [
    "org.cnai.model.file.metadata+json",
    "org.cnai.model.file.metadata",
];
/// `true` on layers that are a directory (ORAS).
pub const ORAS_UNPACK: &str = "io.deis.oras.content.unpack";
/// Digest of the original file.
pub const FILE_DIGEST: &str = "io.modeloci.file.digest";
/// Size of the original file, in bytes, decimal.
pub const FILE_SIZE: &str = "io.modeloci.file.size";
/// Permission bits of the original file, octal (`0755`), present when it is executable.
pub const FILE_MODE: &str = "io.modeloci.file.mode";
/// `true` on layers that hold an empty directory in place of a file.
pub const DIRECTORY: &str = "io.modeloci.directory";
/// SHA-256 of the chunk table's bytes; for plain layers the digest of the blob that holds it.
pub const CHUNKS: &str = "io.modeloci.chunks";
/// Where the table members stand in the blob: `<offset>+<length>`; absent when the table is a blob
/// of its own.
pub const CHUNKS_RANGE: &str = "io.modeloci.chunks.range";
