//! Turns a manifest's layers into files.

use super::tree::by_path;
use crate::digest::Digest;
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, OciManifest, annotations};

/// A layer that holds a file.
#[derive(Debug, Clone)]
pub(super) struct FileLayer {
    pub(super) path: EntryPath,
    pub(super) descriptor: Descriptor,
    /// Digest of the file where the manifest states it.
    pub(super) digest: Option<Digest>,
    /// The blob that holds the chunk table, when it does not stand in the layer itself.
    pub(super) table: Option<Digest>,
}

/// The files of a manifest, sorted by path. `original` says that the original tool wrote it, whose
/// names are not ours to refuse.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the layer.
pub(super) fn files(manifest: &OciManifest, original: bool) -> Result<Vec<FileLayer>> {
    let mut files = Vec::with_capacity(manifest.layers.len());
    for (number, descriptor) in manifest.layers.iter().enumerate() {
        if descriptor.is_empty() {
            continue;
        }
        let subject = || format!("layer {number} ({})", descriptor.digest);
        let path = path_annotation(descriptor).ok_or_else(|| {
            Error::malformed(
                subject(),
                format!(
                    "has no file name: neither {} nor {} is set",
                    annotations::MODELPACK_FILEPATH,
                    annotations::TITLE
                ),
            )
        })?;
        let parse = if original {
            EntryPath::of_original
        } else {
            EntryPath::new
        };
        let path = parse(path).map_err(|e| e.within(subject()))?;
        let digest = |key: &str| match descriptor.annotation(key) {
            None => Ok(None),
            Some(text) => match text.parse::<Digest>() {
                Ok(digest) => Ok(Some(digest)),
                Err(error) => Err(error.within(format!("{}: {key}", subject()))),
            },
        };
        let (file, table) = (
            digest(annotations::FILE_DIGEST)?,
            digest(annotations::CHUNKS)?,
        );
        let table = table.filter(|_| descriptor.annotation(annotations::CHUNKS_RANGE).is_none());
        let descriptor = descriptor.clone();
        files.push(FileLayer {
            path,
            descriptor,
            digest: file,
            table,
        });
    }
    files.sort_by(|a, b| by_path(&a.path, &b.path));
    Ok(files)
}

/// The annotation that names a layer's file, by the reading rules: ModelPack's key, its older
/// spelling, then the title.
pub(super) fn path_annotation(descriptor: &Descriptor) -> Option<&str> {
    [
        annotations::MODELPACK_FILEPATH,
        annotations::MODELPACK_OLD_FILEPATH,
        annotations::TITLE,
    ]
    .into_iter()
    .find_map(|key| descriptor.annotation(key))
}
