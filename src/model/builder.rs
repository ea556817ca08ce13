//! Turns a manifest's layers into files.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::built::Built;
use super::file::{File, FileInfo};
use super::links::{Links, Node};
use super::node::Inode;
use super::notes::Notes;
use super::opening::OpenedFile;
use super::tree::{by_path, sort_empty};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::Opened;
use crate::memory::effort::Effort;
use crate::oci::Stated;
use crate::oci::stated::StatedTable;
use crate::printable::shown;
use crate::systems::{Config, Contents, Entry, Layer, System, name_of_layer};

/// What a manifest's layers hold, as the system that wrote it means them: the files that it names sorted by
/// path.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the layer.
pub(super) fn contents(
    layers: Vec<Layer>,
    system: &dyn System,
    config: &Config<'_>,
) -> Result<Contents> {
    let mut contents = system.contents(layers, config)?;
    let mut statements: HashMap<&Digest, Statement> = HashMap::new();
    let named = contents.files.iter().flat_map(|entry| entry.parts.iter());
    for part in named.chain(contents.archives.iter().map(|layer| &layer.part)) {
        let statement = statements.entry(&part.stated.digest).or_default();
        statement
            .add(&part.stated)
            .map_err(|e| e.within(name_of_layer(part.number, None, &part.stated.digest)))?;
    }
    drop(statements);
    contents.files.sort_by(|a, b| by_path(&a.path, &b.path));
    Ok(contents)
}

/// What descriptors state of one blob, all of them together. One of two that contradict each other
/// would be a lie, readers would differ about it, and each table would have to be kept. What some
/// leave out others may state: in no order does one go uncompared.
#[derive(Default)]
struct Statement {
    chunks: Option<StatedTable>,
    file_size: Option<u64>,
}

impl Statement {
    /// Adds what one more descriptor states.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed) where one of those before states otherwise.
    fn add(&mut self, stated: &Stated) -> Result<()> {
        let differs = if !agree(&mut self.chunks, stated.chunks) {
            "chunk table"
        } else if !agree(&mut self.file_size, stated.file_size) {
            "file size"
        } else {
            return Ok(());
        };
        Err(Error::malformed(
            "annotations",
            format!("state another {differs} than those of another layer with the same blob"),
        ))
    }
}

/// Takes what is stated, if nothing is held; false where another is.
fn agree<T: Copy + PartialEq>(held: &mut Option<T>, stated: Option<T>) -> bool {
    match stated {
        Some(stated) => *held.get_or_insert(stated) == stated,
        None => true,
    }
}

/// The files of entries, whose layers were opened in the same order; links become the files that they lead to.
///
/// A link that leads nowhere is refused, or left out with a note where the system is known for them.
///
/// # Errors
/// [`ErrorKind::Malformed`](crate::ErrorKind::Malformed), naming the link; also when following all of
/// them is more effort than opening may take.
pub(super) fn link(
    entries: Vec<Entry>,
    opened: Vec<OpenedFile>,
    system: &dyn System,
    notes: &mut Notes,
    effort: &Effort,
) -> Result<Built> {
    let nodes: HashMap<&str, Node<'_>> = entries
        .iter()
        .zip(&opened)
        .enumerate()
        .filter_map(|(number, (entry, opened))| {
            let node = match &opened.opened {
                Opened::Link(target) => Node::Link(number, target),
                Opened::File(..) => Node::File(number),
                Opened::Directory | Opened::Members => return None,
            };
            Some((entry.path.as_str(), node))
        })
        .collect();
    let mut links = Links::among(nodes, effort);
    let mut empty = Vec::new();
    let mut files = Vec::with_capacity(entries.len());
    for (number, entry) in entries.iter().enumerate() {
        let source = match opened.get(number) {
            Some(OpenedFile {
                opened: Opened::Link(target),
                ..
            }) => match links.follow(number, entry.path.as_str(), target)? {
                Ok(source) => source,
                Err(problem) if system.leaves_out_dead_links() => {
                    let path = shown(entry.path.as_str());
                    notes.push(format_args!("{path} {problem}; it is left out"));
                    continue;
                }
                Err(problem) => {
                    let subject = format!("layer {} ({})", entry.path, entry.parts.digests());
                    return Err(Error::malformed(subject, problem));
                }
            },
            _ => number,
        };
        let (Some(found), Some(held)) = (opened.get(source), entries.get(source)) else {
            continue;
        };
        match file(entry, found, held) {
            Some(file) => files.push(file),
            // `follow` gives numbers of files.
            None => empty.push(entry.path.clone()),
        }
    }
    sort_empty(&mut empty);
    Ok(Built {
        files,
        empty: empty.into(),
        memory: 0,
    })
}

/// The file of an entry, which another one holds where it is a link; `None` for a directory.
fn file(entry: &Entry, found: &OpenedFile, held: &Entry) -> Option<File> {
    let Opened::File(reader, attributes) = &found.opened else {
        return None;
    };
    let is_link = entry.path != held.path;
    Some(File {
        info: FileInfo {
            inode: Inode::ROOT, // until the tree is built
            path: entry.path.clone(),
            shown_size: attributes.shown().size,
            parts: entry.parts.clone(),
            // What a layer states of its file is about all of it.
            digest: held.parts.only().and_then(|part| part.stated.file_digest),
        },
        attributes: *attributes,
        reader: Arc::clone(reader),
        link_to: is_link.then(|| Box::new(held.path.clone())),
        unconfirmed: found.unconfirmed.then(|| held.path.file_name().into()),
        verified: AtomicBool::new(false),
        damaged: AtomicBool::new(false),
    })
}
