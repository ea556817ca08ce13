//! Turns a manifest's layers into files.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::entry::FileLayer;
use super::file::{File, FileInfo};
use super::links::{self, Node};
use super::node::Inode;
use super::opening::OpenedFile;
use super::resolve::{Layer, name_of};
use super::tree::by_path;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::Opened;
use crate::oci::{Stated, annotations};
use crate::systems::System;

/// The files of a manifest's layers, sorted by path, as the system that wrote it means them.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the layer.
pub(super) fn files(layers: Vec<Layer>, system: &dyn System) -> Result<Vec<FileLayer>> {
    let mut files = Vec::with_capacity(layers.len());
    let mut readings: HashMap<Digest, Arc<Stated>> = HashMap::new();
    for Layer {
        number,
        path,
        stated,
    } in layers
    {
        let subject = || name_of(number, None, &stated.digest);
        let path = path.ok_or_else(|| {
            Error::malformed(
                subject(),
                format!(
                    "has no file name: neither {} nor {} is set",
                    annotations::MODELPACK_FILEPATH,
                    annotations::TITLE
                ),
            )
        })?;
        let reading = system.reading(&stated, &path);
        let path = system.path(&path).map_err(|e| e.within(subject()))?;
        check_reading(&mut readings, &stated)
            .map_err(|e| e.within(name_of(number, None, &stated.digest)))?;
        files.push(FileLayer {
            path,
            number,
            stated,
            reading,
        });
    }
    files.sort_by(|a, b| by_path(&a.path, &b.path));
    Ok(files)
}

/// One blob can be read in one way only: descriptors that name it must not state different chunk
/// tables, or different sizes of its file. One of them would be a lie, readers would differ about it,
/// and each table would have to be kept.
fn check_reading(readings: &mut HashMap<Digest, Arc<Stated>>, stated: &Arc<Stated>) -> Result<()> {
    let first = readings
        .entry(stated.digest)
        .or_insert_with(|| Arc::clone(stated));
    let differ = match (first.chunks, stated.chunks) {
        (Some(a), Some(b)) if a != b => Some("chunk table"),
        _ => match (first.file_size, stated.file_size) {
            (Some(a), Some(b)) if a != b => Some("file size"),
            _ => None,
        },
    };
    // What states nothing itself leaves the place to the next.
    if first.chunks.is_none() && stated.chunks.is_some() {
        *first = Arc::clone(stated);
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
/// A link that leads nowhere is refused, or left out with a note where the system is known for them.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the link.
pub(super) fn link(
    layers: Vec<FileLayer>,
    opened: Vec<OpenedFile>,
    system: &dyn System,
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
                Err(problem) if system.leaves_out_dead_links() => {
                    notes.push(format!("{} {problem}; it is left out", layer.path));
                    continue;
                }
                Err(problem) => {
                    let subject = format!("layer {} ({})", layer.path, layer.stated.digest);
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
                layer: Arc::clone(&layer.stated),
                layer_number: layer.number,
                digest: held.stated.file_digest,
            },
            attr: *attr,
            reader: Arc::clone(reader),
            link_to: (source != number).then(|| Box::new(held.path.clone())),
            unconfirmed: found.unconfirmed.then(|| held.path.file_name().into()),
            verified: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
        });
    }
    Ok(files)
}
