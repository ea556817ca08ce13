//! What the tests have in common: archives of other tools, forged ones, noise, and the program in a
//! directory of its own.
//!
//! Independent of the crate that it tests, so that it shares none of its bugs.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]
// What the tests name is made by a call, and has no end to iterate to.
#![allow(clippy::new_without_default, clippy::should_implement_trait)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest as _, Sha256};

pub mod compressed;
pub mod documented;
pub mod forge;
pub mod machine;
pub mod meanwhile;
pub mod mount;
pub mod opened;
pub mod random;
pub mod registry;
pub mod run;
pub mod tls;
pub mod workspace;

pub use random::noise;

/// The program that is tested: beside the directory of the tests, which cargo builds it for.
pub fn binary() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().join("../modeloci");
    let problem = |error| panic!("{}: {error}", path.display());
    path.canonicalize().unwrap_or_else(problem)
}

/// Writes an archive of `files` to `path`, each in a plain tar+gzip layer of its own; returns the
/// manifest's digest.
pub fn write_archive(path: &Path, files: &[(&str, &[u8])]) -> String {
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    let layers = files
        .iter()
        .map(|(name, bytes)| (name.to_string(), layer(name, bytes)));
    write_layers(path, media_type, layers)
}

/// Writes an archive of layers with the titles of their files; a blob that comes twice is there
/// once. Returns the manifest's digest.
pub fn write_layers<B: AsRef<[u8]>>(
    path: &Path,
    media_type: &str,
    blobs: impl Iterator<Item = (String, B)>,
) -> String {
    let mut archive = tar::Builder::new(File::create(path).unwrap());
    let mut written = BTreeSet::new();
    let mut blob = |bytes: &[u8]| {
        let hex = sha256(bytes);
        if written.insert(hex.clone()) {
            append(&mut archive, &format!("blobs/sha256/{hex}"), bytes, 0o644);
        }
        format!("sha256:{hex}")
    };
    let mut layers = Vec::new();
    for (title, bytes) in blobs {
        let bytes = bytes.as_ref();
        layers.push(json!({
            "mediaType": media_type,
            "digest": blob(bytes),
            "size": bytes.len(),
            "annotations": { "org.opencontainers.image.title": title },
        }));
    }
    let config = b"{}";
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.model",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": blob(config),
            "size": config.len(),
        },
        "layers": layers,
    }))
    .unwrap();
    let digest = blob(&manifest);
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": manifest.len(),
        }],
    }))
    .unwrap();
    append(&mut archive, "index.json", &index, 0o644);
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    append(&mut archive, "oci-layout", layout, 0o644);
    archive.into_inner().unwrap().flush().unwrap();
    digest
}

/// The layer of a file; names that end in `.sh` are executable.
fn layer(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mode = if name.ends_with(".sh") { 0o755 } else { 0o640 };
    compressed::gzip_of(1, |out| {
        let mut layer = tar::Builder::new(out);
        append(&mut layer, name, bytes, mode);
        layer.finish().unwrap();
    })
}

fn append(tar: &mut tar::Builder<impl std::io::Write>, name: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_mtime(1_600_000_000);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, name, bytes).unwrap();
}

/// The SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
