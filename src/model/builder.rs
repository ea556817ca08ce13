//! Turns a manifest's layers into files.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::links::{self, Node};
use super::opening::OpenedFile;
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
    let mut readings = HashMap::new();
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
        check_reading(&mut readings, descriptor).map_err(|e| e.within(subject()))?;
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

/// One blob can be read in one way only: descriptors that name it must not state different chunk
/// tables, or different sizes of its file. One of them would be a lie, readers would differ about it,
/// and each table would have to be kept.
fn check_reading<'a>(
    readings: &mut HashMap<&'a Digest, &'a Descriptor>,
    descriptor: &'a Descriptor,
) -> Result<()> {
    let first = *readings.entry(&descriptor.digest).or_insert(descriptor);
    let table = |d: &'a Descriptor| {
        let digest = d.annotation(annotations::CHUNKS)?;
        Some((digest, d.annotation(annotations::CHUNKS_RANGE)))
    };
    let size = |d: &'a Descriptor| d.annotation(annotations::FILE_SIZE);
    let differ = match (table(first), table(descriptor)) {
        (Some(a), Some(b)) if a != b => Some("chunk table"),
        _ => match (size(first), size(descriptor)) {
            (Some(a), Some(b)) if a != b => Some("file size"),
            _ => None,
        },
    };
    // What states nothing itself leaves the place to the next.
    if table(first).is_none() && table(descriptor).is_some() {
        readings.insert(&descriptor.digest, descriptor);
    }
    match differ {
        None => Ok(()),
        Some(what) => Err(Error::malformed(
            "annotations",
            format!("state another {what} than those of another layer with the same blob"),
        )),
    }
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
    opened: Vec<OpenedFile>,
    original: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<File>> {
    let nodes: HashMap<&str, Node<'_>> = layers
        .iter()
        .zip(&opened)
        .enumerate()
        .map(|(number, (layer, opened))| {
            let node = match &opened.opened {
                Opened::File(..) => Node::File(number),
                Opened::Link(target) => Node::Link(target),
            };
            (layer.path.as_str(), node)
        })
        .collect();
    let mut files = Vec::with_capacity(layers.len());
    for (number, layer) in layers.iter().enumerate() {
        let source = match opened.get(number) {
            Some(OpenedFile {
                opened: Opened::Link(target),
                ..
            }) => match links::follow(&nodes, layer.path.as_str(), target) {
                Ok(source) => source,
                Err(problem) if original => {
                    notes.push(format!("{} {problem}; it is left out", layer.path));
                    continue;
                }
                Err(problem) => {
                    let subject = format!("layer {} ({})", layer.path, layer.descriptor.digest);
                    return Err(Error::malformed(subject, problem));
                }
            },
            _ => number,
        };
        let (Some(found), Some(held)) = (opened.get(source), layers.get(source)) else {
            continue;
        };
        let Opened::File(reader, attr) = &found.opened else {
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
            unconfirmed: found.unconfirmed.then(|| held.path.file_name().into()),
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
