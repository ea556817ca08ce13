//! What commands print with `--json`, by one set of names: `docs/json.md` says what each field means.

use std::path::Path;

use modeloci::model::FileInfo;
use modeloci::model::verify::LayerReport;
use modeloci::oci::{Descriptor, OciManifest};
use modeloci::{Digest, Model, Result};
use serde_json::{Map, Value, json};

use super::output::ratio;

/// Grows when a field goes, or gets another meaning; new fields may come without.
const SCHEMA_VERSION: u32 = 1;

/// A document of its own.
pub(crate) fn versioned(fields: Value) -> Value {
    let mut document = Map::new();
    document.insert("schema_version".into(), SCHEMA_VERSION.into());
    if let Value::Object(fields) = fields {
        document.extend(fields);
    }
    Value::Object(document)
}

/// What every document about an archive begins with.
pub(crate) fn model(archive: &Path, model: &Model) -> Value {
    let about = model.about();
    versioned(json!({
        "archive": archive.to_string_lossy(),
        "manifest_digest": model.manifest_digest(),
        "model": model.config(),
        "system": model.system(),
        "about": {
            "name": about.name,
            "version": about.version,
            "framework": about.framework,
            "architecture": about.architecture,
            "license": about.license,
        },
    }))
}

/// Adds to a document.
pub(crate) fn extend(document: &mut Value, fields: Value) {
    if let (Value::Object(document), Value::Object(fields)) = (document, fields) {
        document.extend(fields);
    }
}

/// All that an archive holds; with `reports` what verifying it has found, and of the files those alone
/// that were verified.
///
/// # Errors
/// Those of reading the manifest once more.
pub(crate) fn archive(
    path: &Path,
    model: &Model,
    reports: Option<&[LayerReport]>,
) -> Result<Value> {
    let manifest = model.documents()?.manifest;
    let files: Vec<Value> = model
        .files()
        .filter_map(|file| {
            let mut entry = entry(model, file, manifest.layers.get(file.parts.first().number));
            if let Some(reports) = reports {
                // They are sorted by path. Of what was not wanted there is none.
                let found = reports.binary_search_by(|report| report.path.cmp(&file.path));
                verified(&mut entry, &reports.get(found.ok()?)?.outcome);
            }
            Some(entry)
        })
        .collect();
    let stored = layers(&manifest)
        .iter()
        .fold(0u64, |sum, (_, l)| sum.saturating_add(l.size));
    let mut document = self::model(path, model);
    extend(
        &mut document,
        json!({
            "artifact_type": manifest.artifact_type,
            "config_descriptor": manifest.config,
            "annotations": manifest.annotations,
            "files": files.len(),
            "bytes": model.total_bytes(),
            "layer_bytes": stored,
            "ratio": ratio(stored, model.total_bytes()),
            "layers": files,
            "warnings": model.notes(),
        }),
    );
    if let Some(reports) = reports {
        let verified = reports.iter().all(LayerReport::verified);
        extend(&mut document, json!({ "verified": verified }));
    }
    Ok(document)
}

/// The manifest's layers with their numbers, without placeholders.
pub(crate) fn layers(manifest: &OciManifest) -> Vec<(usize, &Descriptor)> {
    let layers = manifest.layers.iter().enumerate();
    layers.filter(|(_, layer)| !layer.is_empty()).collect()
}

/// One file and the layer that holds it.
fn entry(model: &Model, file: &FileInfo, layer: Option<&Descriptor>) -> Value {
    let part = file.parts.first();
    let (stated, alone) = (&part.stated, part.of_file().is_some());
    json!({
        "path": file.path.as_str(),
        "size": file.shown_size,
        "digest": file.digest,
        "executable": executable(model, file),
        "layer": layer,
        "compression": compression(&stated.media_type),
        "seekable": stated.chunks.is_some(),
        "ratio": alone.then(|| ratio(stated.size, file.shown_size)),
    })
}

fn verified(entry: &mut Value, outcome: &Result<Digest>) {
    if let Ok(found) = outcome {
        // Also where the manifest states none.
        extend(entry, json!({ "digest": found }));
    }
    let error = outcome.as_ref().err().map(ToString::to_string);
    extend(
        entry,
        json!({ "verified": outcome.is_ok(), "error": error }),
    );
}

/// True for a file that may be run.
pub(crate) fn executable(model: &Model, file: &FileInfo) -> bool {
    let attr = model.attr(file.inode);
    attr.is_some_and(|attr| attr.mode & 0o111 != 0)
}

/// What the media type says about compression; null where it says nothing.
fn compression(media_type: &str) -> Option<&'static str> {
    let ends = |suffixes: [&str; 2]| suffixes.iter().any(|s| media_type.ends_with(s));
    match () {
        () if ends(["+gzip", ".gzip"]) => Some("gzip"),
        () if ends(["+zstd", ".zstd"]) => Some("zstd"),
        () if ends([".tar", ".raw"]) => Some("none"),
        () => None,
    }
}
