//! Turns a manifest's layers into files.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::links::{self, Node};
use super::tree::by_path;
use super::{File, FileInfo, Inode};
use crate::digest::Digest;
use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::layer::Opened;
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

/// The files of opened layers, in the same order; links become the files that they lead to.
///
/// A link that leads nowhere is refused; in an archive of the original tool, which stored any link
/// as it was, it is left out with a note.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the link.
pub(super) fn link(
    layers: Vec<FileLayer>,
    opened: Vec<Opened>,
    original: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<File>> {
    let nodes: HashMap<&str, Node<'_>> = layers
        .iter()
        .zip(&opened)
        .enumerate()
        .map(|(number, (layer, opened))| {
            let node = match opened {
                Opened::File(..) => Node::File(number),
                Opened::Link(target) => Node::Link(target),
            };
            (layer.path.as_str(), node)
        })
        .collect();
    let mut files = Vec::with_capacity(layers.len());
    for (number, layer) in layers.iter().enumerate() {
        let source = match opened.get(number) {
            Some(Opened::Link(target)) => {
                match links::follow(&nodes, layer.path.as_str(), target) {
                    Ok(source) => source,
                    Err(problem) if original => {
                        notes.push(format!("{} {problem}; it is left out", layer.path));
                        continue;
                    }
                    Err(problem) => {
                        let subject = format!("layer {} ({})", layer.path, layer.descriptor.digest);
                        return Err(Error::malformed(subject, problem));
                    }
                }
            }
            _ => number,
        };
        let (Some(Opened::File(reader, attr)), Some(held)) =
            (opened.get(source), layers.get(source))
        else {
            continue; // `follow` gives numbers of files
        };
        files.push(File {
            info: FileInfo {
                inode: Inode::ROOT, // until the tree is built
                path: layer.path.clone(),
                size: attr.size,
                layer: layer.descriptor.clone(),
                digest: held.digest,
            },
            attr: *attr,
            reader: Arc::clone(reader),
            verified: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
        });
    }
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
